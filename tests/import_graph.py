"""Which room of `lungsynth` imports which, as the sources say; `python tests/import_graph.py` prints it."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "lungsynth"
GROUND = (
    "text",
    "errors",
    "files",
    "remote",
    "config",
    "cpus",
    "fit",
    "hashing",
    "intensity",
    "locks",
    "progress",
    "run_yaml",
    "run_file",
)
"""Single files that every room may import and that import no room."""
ROOMS = (
    "dataset",
    "phantom",
    "cohort",
    "fetching",
    "dicom",
    "radiographs",
    "lungs",
    "slicing",
    "generators",
    "training",
    "evaluation",
    "verdict",
    "registry",
    "report",
)
"""From the bottom to the top: a room imports only rooms that stand before it."""
ENTRANCES = ("run_config", "cli")
"""Single files above all rooms, in the same order."""


@dataclass(frozen=True)
class Import:
    """`importer` imports `imported` (modules without `lungsynth.`) in `line`, `late` where not at the top."""

    importer: str
    imported: str
    line: int
    late: bool


def imports(library: Path = LIBRARY) -> list[Import]:
    """Every import of one module of the library by another."""
    modules = {_name(path, library): path for path in library.rglob("*.py")}
    found: list[Import] = []
    for name, path in sorted(modules.items()):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                late = node not in tree.body
                found += [Import(name, imported, node.lineno, late) for imported in _imported(node, modules)]
    return found


def room(module: str) -> str:
    """Where a module stands: a room, or itself where it is a single file."""
    return module.partition(".")[0]


def upwards(found: list[Import]) -> list[Import]:
    """The imports that run against the order of `GROUND`, `ROOMS` and `ENTRANCES`."""
    order = dict.fromkeys(("", *GROUND), 0)
    order |= {name: place for place, name in enumerate((*ROOMS, *ENTRANCES), start=1)}
    return [one for one in found if order[room(one.imported)] > order[room(one.importer)]]


def circle(found: list[Import]) -> list[str]:
    """Modules that import each other in a circle; none where nothing does."""
    graph = defaultdict(set)
    for one in found:
        graph[one.importer].add(one.imported)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return error.args[1]
    return []


def printed(found: list[Import]) -> str:
    """A line for each room, from the bottom to the top: its files and lines, and the rooms that it imports."""
    lines = []
    for name in (*ROOMS, *ENTRANCES):
        beneath = {room(one.imported) for one in found if room(one.importer) == name} - {name, "", *GROUND}
        files = list((LIBRARY / name).rglob("*.py")) or [LIBRARY / f"{name}.py"]
        size = sum(len(path.read_text().splitlines()) for path in files)
        lines.append(f"{name:18}{len(files):3} files {size:5} lines  imports {', '.join(sorted(beneath)) or 'nothing'}")
    return "\n".join(lines)


def _imported(node: ast.Import | ast.ImportFrom, modules: dict[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lungsynth":
        base = (node.module or "").partition(".")[2]
        for alias in node.names:
            full = f"{base}.{alias.name}".lstrip(".")
            yield full if full in modules else base
    elif isinstance(node, ast.Import):
        yield from (a.name.partition(".")[2] for a in node.names if a.name.partition(".")[0] == "lungsynth")


def _name(path: Path, library: Path) -> str:
    parts = path.relative_to(library).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


if __name__ == "__main__":
    print(printed(imports()))
