"""How the records travel between steps: each is a folder in the artifact store, keyed by the hash of its content."""

import json
import shutil
import tempfile
from abc import abstractmethod
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.utils.io_utils import copy_dir

from lungsynth.cohort.cohort import Cohort
from lungsynth.dataset.store import SliceDataset, link_or_copy
from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.privacy.closest_pairs import ClosestPairs
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.generators.package import GeneratorPackage
from lungsynth.hashing import combine
from lungsynth.registry.mlflow_registry import Champion
from lungsynth.report.build import PICTURES as BUILD_PICTURES
from lungsynth.report.render import Report
from steps import code


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """This process's temporary files; Python removes them when it ends."""
    return tempfile.TemporaryDirectory(prefix="lungsynth-")


def new_folder() -> Path:
    """A fresh folder for what a step makes. It lives as long as the process; the artifact store keeps a copy."""
    return Path(tempfile.mkdtemp(dir=_scratch().name))


class FolderMaterializer(BaseMaterializer):
    """Base: saves a record as a folder. A local artifact store's is used in place, so arrays stay memory-mapped."""

    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    SKIP_REGISTRATION: ClassVar[bool] = True
    PICTURES: ClassVar[tuple[str, ...]] = ()
    """Files of the folder that the dashboard shows."""

    @abstractmethod
    def to_folder(self, record: Any) -> Path:
        """A folder that holds all of `record`."""

    @abstractmethod
    def from_folder(self, folder: Path) -> Any:
        """The record that `to_folder` wrote."""

    def save(self, data: Any) -> None:
        """Copy the record's folder into the artifact store; a local one shares the files of datasets."""
        if self.artifact_store.config.is_local:
            shutil.copytree(self.to_folder(data), self.uri, copy_function=link_or_copy, dirs_exist_ok=True)
        else:
            copy_dir(str(self.to_folder(data)), self.uri)

    def load(self, data_type: type[Any]) -> Any:
        """Read the record: in place on a local store, else from a local copy."""
        if self.artifact_store.config.is_local:
            return self.from_folder(Path(self.uri))
        folder = new_folder()
        copy_dir(self.uri, str(folder), overwrite=True)
        return self.from_folder(folder)

    def save_visualizations(self, data: Any) -> dict[str, VisualizationType]:
        """Show `PICTURES` in the ZenML dashboard."""
        kinds = {".html": VisualizationType.HTML, ".png": VisualizationType.IMAGE, ".gif": VisualizationType.IMAGE}
        paths = [f"{self.uri}/{name}" for name in self.PICTURES]
        return {path: kinds[PurePosixPath(path).suffix] for path in paths if fileio.exists(path)}

    def compute_content_hash(self, data: Any) -> str | None:
        """The record's own hash, so that caching follows content and not the artifact's id."""
        result: str | None = data.sha256
        return result


class FolderRecordMaterializer(FolderMaterializer):
    """Base for the records that are a folder and nothing else."""

    SKIP_REGISTRATION: ClassVar[bool] = True

    def to_folder(self, record: Any) -> Path:
        """The record's own folder."""
        result: Path = record.folder
        return result

    def from_folder(self, folder: Path) -> Any:
        """Open the record."""
        return self.ASSOCIATED_TYPES[0](folder)


class CohortMaterializer(FolderMaterializer):
    """`Cohort` as two Parquet files."""

    ASSOCIATED_TYPES: ClassVar = (Cohort,)

    def to_folder(self, record: Cohort) -> Path:
        """Write both tables."""
        folder = new_folder()
        record.save(folder)
        return folder

    def from_folder(self, folder: Path) -> Cohort:
        """Read both tables."""
        return Cohort.load(folder)


class SliceDatasetMaterializer(FolderRecordMaterializer):
    """`SliceDataset` as its folder."""

    ASSOCIATED_TYPES: ClassVar = (SliceDataset,)
    PICTURES: ClassVar[tuple[str, ...]] = BUILD_PICTURES


class GeneratorPackageMaterializer(FolderRecordMaterializer):
    """`GeneratorPackage` as its folder."""

    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL
    ASSOCIATED_TYPES: ClassVar = (GeneratorPackage,)
    PICTURES: ClassVar[tuple[str, ...]] = (
        "real_beside_synthetic.png",
        "samples.png",
        "interpolation.png",
        "progress.gif",
        "training.png",
    )

    def compute_content_hash(self, data: GeneratorPackage) -> str:
        """Hash of weights, card and the code of the networks: what is sampled depends on all three."""
        return combine([data.sha256, code.family(data.card.generator)])


class ExtractorMaterializer(FolderRecordMaterializer):
    """`Extractor` as its folder."""

    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL
    ASSOCIATED_TYPES: ClassVar = (Extractor,)


class PredictionsMaterializer(FolderMaterializer):
    """`Predictions` as a Parquet file."""

    ASSOCIATED_TYPES: ClassVar = (Predictions,)

    def to_folder(self, record: Predictions) -> Path:
        """Write the table."""
        folder = new_folder()
        record.save(folder / "predictions.parquet")
        return folder

    def from_folder(self, folder: Path) -> Predictions:
        """Read the table."""
        return Predictions.load(folder / "predictions.parquet")


class ClosestPairsMaterializer(FolderMaterializer):
    """`ClosestPairs` as a safetensors file."""

    ASSOCIATED_TYPES: ClassVar = (ClosestPairs,)

    def to_folder(self, record: ClosestPairs) -> Path:
        """Write the slices."""
        folder = new_folder()
        record.save(folder / "closest_pairs.safetensors")
        return folder

    def from_folder(self, folder: Path) -> ClosestPairs:
        """Read the slices."""
        return ClosestPairs.load(folder / "closest_pairs.safetensors")


class ChampionMaterializer(FolderMaterializer):
    """`Champion` or None as the package's folder and the version."""

    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL
    ASSOCIATED_TYPES: ClassVar = (Champion, type(None))

    def to_folder(self, record: Champion | None) -> Path:
        """The package and the version; for none, no package."""
        folder = new_folder()
        if record is not None:
            shutil.copytree(record.package.folder, folder / "package")
        (folder / "champion.json").write_text(json.dumps({"version": record.version if record else None}))
        return folder

    def from_folder(self, folder: Path) -> Champion | None:
        """Open the package, if there is one."""
        version = json.loads((folder / "champion.json").read_text())["version"]
        return None if version is None else Champion(version, GeneratorPackage(folder / "package"))

    def compute_content_hash(self, data: Champion | None) -> str:
        """Hash as of the generator's package: a champion registered again is the same one to beat."""
        return "none" if data is None else combine([data.package.sha256, code.family(data.package.card.generator)])


class ReportMaterializer(FolderRecordMaterializer):
    """`Report` as its folder; page and pictures show in the dashboard."""

    ASSOCIATED_TYPES: ClassVar = (Report,)
    PICTURES: ClassVar[tuple[str, ...]] = ("report.html", "samples.png", "progress.gif")

    def compute_content_hash(self, data: Report) -> str | None:
        """None: a report is made anew for each run and nothing is keyed by it."""
        return None
