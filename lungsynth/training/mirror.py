"""The copy of a run's checkpoint folder at a URL: another machine goes on from there."""

from dataclasses import dataclass, field
from pathlib import Path

from lungsynth import remote

CHECKPOINT, LOCK = "state.pt", "lock"
"""Names of files in the folder."""


@dataclass
class Mirror:
    """Copies `folder` to `url` and back; without a URL it does nothing.

    The copy is never older than what a machine has on its own disk, since each checkpoint is copied at once.
    """

    folder: Path
    url: str | None
    _sent: dict[str, tuple[int, int]] = field(default_factory=dict)

    def pull(self) -> None:
        """Take over what another machine has left.

        Raises:
            LungsynthError: the store cannot be read.
        """
        if self.url:
            remote.pull(self.url, self.folder, remote.names(self.url))
            self._sent = self._here()

    def push(self) -> None:
        """Copy what is new, the checkpoint last: what it needs lies there before it.

        Raises:
            LungsynthError: the store cannot be written.
        """
        if self.url:
            here = self._here()
            new = {name for name, version in here.items() if self._sent.get(name) != version}
            remote.push(self.folder, self.url, new, last=CHECKPOINT if CHECKPOINT in new else None)
            self._sent = here

    def remove(self) -> None:
        """Remove the copy.

        Raises:
            LungsynthError: the store refuses.
        """
        if self.url:
            remote.remove(self.url)

    def _here(self) -> dict[str, tuple[int, int]]:
        """Moment and size of each file, without locks and unfinished ones."""
        paths = {path.relative_to(self.folder): path for path in self.folder.rglob("*") if path.is_file()}
        return {
            str(name): (path.stat().st_mtime_ns, path.stat().st_size)
            for name, path in paths.items()
            if name.name != LOCK and not name.name.startswith(".") and name.suffix != ".partial"
        }
