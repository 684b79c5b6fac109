"""The report of a run: one self-contained HTML page, and the files that it is made from."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lungsynth import __version__
from lungsynth.cohort.cohort import Cohort
from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.privacy.closest_pairs import ClosestPairs
from lungsynth.evaluation.quantities import DUPLICATES, KID, LUNG, MEMBERSHIP, NEAR
from lungsynth.evaluation.scorecard import Measurand, Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.mlflow_registry import Registration
from lungsynth.report import pictures, tables
from lungsynth.report.build import PICTURES
from lungsynth.report.ending import ended_too_early
from lungsynth.report.figures import sample_sheet
from lungsynth.report.pictures import Samples
from lungsynth.report.usage import usage
from lungsynth.verdict.comparison import CHOSEN
from lungsynth.verdict.gate import TRAINED
from lungsynth.verdict.record import Verdict

HEADLINES = {
    "promote": "Promoted",
    "reject": "Rejected",
    "underpowered": "Underpowered",
    "blocked": "Blocked",
}
REMEDIES = {
    "privacy": "Train on more patients, for fewer kimg or with a smaller network, until every check that the verdict "
    "names is within its limit.",
    "collapse": "Train with another seed, lower learning rates or a larger training.loss.r1_gamma; progress.gif shows "
    "when it happened.",
    "test patients": "Enlarge the cohort, or give the test split a greater share.",
    "training seeds": "Raise utility.seeds to 5: the interval has to hold the spread over training seeds, which fewer "
    "than 3 do not show.",
    "worthwhile gain excluded": "More test patients would not change this. Train the generator longer or on more "
    "slices, or change the share of synthetic slices in a batch (utility.ratios).",
    "smallest detectable effect": "Enlarge the cohort, give the test split a greater share or raise utility.seeds, "
    "until the smallest detectable gain falls below the gain worth having.",
    "subgroup": "Train on more patients like those who lose, or balance them in training; look at their slices.",
    "privacy patients": "Enlarge the cohort, or give val and test a greater share, until the privacy audit has enough "
    "patients.",
    "no gain": "Train the generator longer or on more slices, or enlarge the test split to narrow the interval.",
}
"""What would have to change, by the rule that refused."""
KEY_NUMBERS = (
    (Measurand(quantity=KID, extractor=LUNG), "KID, lung features"),
    (Measurand(quantity=NEAR), "share of near slices"),
    (Measurand(quantity=DUPLICATES), "share of copies"),
    (Measurand(quantity=MEMBERSHIP), "AUROC of a membership attack"),
)
"""What of the scorecard stands at the top of the page, with its label."""
LIBRARIES = ("torch", "torchvision", "numpy", "pydicom", "torch-fidelity", "mlflow")
Facts = dict[str, object]
"""What a template shows, by the name that it has there."""


@dataclass(frozen=True)
class Run:
    """The records of a run that a report is made from."""

    name: str
    cohort: Cohort
    dataset: SliceDataset
    package: GeneratorPackage
    scorecard: Scorecard
    verdict: Verdict
    registration: Registration
    closest_pairs: ClosestPairs
    config: Mapping[str, object]
    """The configuration of the run; the page shows it without passwords and without the salt."""

    @property
    def film(self) -> Path | None:
        """The animation of the training, where there is one."""
        path = self.package.folder / "progress.gif"
        return path if path.exists() else None


@dataclass(frozen=True)
class Report:
    """The files that `render_report` wrote."""

    folder: Path


def render_report(folder: Path, run: Run) -> Report:
    """Write `report.html` and what goes with it into `folder`.

    Beside the page: `samples.png`, `progress.gif`, the pictures of the build, `scorecard.json`, `verdict.json`,
    `model_card.md`, and the tables of `_write_tables`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    real, synthetic = pictures.pick_samples(run.dataset, run.package)
    _write_records(folder, run)
    _write_tables(folder, run)
    sample_sheet(real.images, synthetic.images, run.dataset.meta.classes).save(folder / "samples.png", optimize=True)
    if run.film:
        shutil.copyfile(run.film, folder / "progress.gif")
    build = _copy_build(run.dataset, folder)
    facts = _facts(run, outlined=synthetic.masks is not None)
    _write_pages(folder, facts, _pictures(run, real, synthetic, build=build))
    return Report(folder)


def _write_records(folder: Path, run: Run) -> None:
    (folder / "scorecard.json").write_text(run.scorecard.model_dump_json(indent=2), encoding="utf-8")
    (folder / "verdict.json").write_text(run.verdict.model_dump_json(indent=2), encoding="utf-8")


def _write_tables(folder: Path, run: Run) -> None:
    """`series.csv` with the fate of each series and `cohort.csv`, both with patients numbered, and `cohort.parquet`.

    The last is the whole cohort. It stays in the run's own folder and in the artifact store, which has the cohort
    anyway, and never goes to MLflow.
    """
    run.cohort.series.to_parquet(folder / "cohort.parquet", index=False)
    tables.public_cohort(run.cohort).to_csv(folder / "cohort.csv", index=False)
    tables.public_series(run.dataset, run.cohort).to_csv(folder / "series.csv", index=False)


def _copy_build(dataset: SliceDataset, folder: Path) -> list[Path]:
    """Copy the pictures of the dataset's build, where they were drawn."""
    there = [dataset.folder / name for name in PICTURES if (dataset.folder / name).exists()]
    return [Path(shutil.copyfile(path, folder / path.name)) for path in there]


def _facts(run: Run, *, outlined: bool) -> Facts:
    """All that page and card say, without the pictures."""
    measure = run.verdict.measure
    return {
        "run_name": run.name,
        "headline": HEADLINES[run.verdict.outcome],
        "remedy": REMEDIES.get(run.verdict.rule),
        "verdict": run.verdict,
        "undertrained": ended_too_early(run.package, run.scorecard),
        "registration": run.registration,
        "usage": usage(run.registration, run.package.classes),
        "package": run.package,
        "size": run.dataset.meta.size,
        "outlined": outlined,
        "window": _window(run.dataset),
        "subject": "axial lung CT slices" if "CT" in set(run.cohort.images["modality"]) else "chest radiographs",
        "key_numbers": _key_numbers(run.scorecard, run.verdict),
        "topics": tables.by_topic(run.scorecard),
        "measure": measure,
        "trained": TRAINED[measure],
        "arm_measures": [formula.title for formula in tables.arm_formulas(measure)],
        "chosen": {metric.arm: int(metric.value) for metric in run.verdict.chosen},
        "chosen_on_val": CHOSEN,
        "arms": tables.arm_rows(run.scorecard, measure),
        "gate_rows": tables.metric_rows(run.verdict.main_numbers),
        "normalised": tables.normalised_rows(run.scorecard),
        "number": tables.number,
        "notes": run.scorecard.notes,
        "origin": tables.origin(run.cohort),
        "splits": tables.splits(run.dataset),
        "rejected": tables.rejected(run.dataset),
        "noted": tables.noted(run.dataset),
        "funnel": run.cohort.funnel.astype(object).fillna("").to_dict("records"),
        "provenance": _provenance(run),
        "run_config": yaml.safe_dump(tables.public_config(run.config), sort_keys=False),
    }


def _pictures(run: Run, real: Samples, synthetic: Samples, *, build: list[Path]) -> Facts:
    """All that the page shows as pictures."""
    return {
        "samples": pictures.sample_blocks(real, synthetic, run.dataset.meta.classes),
        "pairs": pictures.pair_blocks(run.closest_pairs),
        "progress": pictures.uri(run.film.read_bytes(), "image/gif") if run.film else None,
        "build": {path.stem: pictures.uri(path.read_bytes()) for path in build},
        "normalised": pictures.move_charts(tables.normalised_rows(run.scorecard)),
        **pictures.charts(run.package, run.scorecard, run.verdict),
    }


def _write_pages(folder: Path, facts: Facts, shown: Facts) -> None:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("report.html.j2").render(**facts, pictures=shown)
    (folder / "report.html").write_text(page, encoding="utf-8")
    card = templates.get_template("model_card.md.j2").render(**facts)
    (folder / "model_card.md").write_text(card, encoding="utf-8")


def _window(dataset: SliceDataset) -> str:
    """The HU that the grey values 0 to 255 stand for, in words; nothing for pictures, which have none."""
    window = dataset.meta.window_hu
    return f"{window[0]:g} to {window[1]:g} HU" if window else ""


def _key_numbers(scorecard: Scorecard, verdict: Verdict) -> list[tuple[str, str, str]]:
    """The numbers to see first: label, value, and what real slices score or else the interval."""
    labels = {"baseline": f"gain in test {verdict.measure}", "champion": "gain over the champion"}
    found = [
        (labels[one.rival], f"{one.gain.value:+.3f}", tables.interval(one.gain))
        for one in verdict.gains
        if one.rival in labels
    ]
    for measurand, label in KEY_NUMBERS:
        if metric := scorecard.find(measurand):
            floor = scorecard.floor_of(metric)
            beside = f"real slices: {tables.number(floor.value)}" if floor else tables.interval(metric)
            found.append((label, tables.number(metric.value), beside))
    return found


def _provenance(run: Run) -> dict[str, str]:
    return {
        "cohort SHA-256": run.cohort.sha256,
        "slices SHA-256": run.dataset.sha256,
        "generator SHA-256": run.package.sha256,
        "protocol SHA-256": run.verdict.protocol_sha256,
        "MLflow run": f"{run.registration.run_id} at {run.registration.tracking_uri}",
        "lungsynth": __version__,
        **{library: version(library) for library in LIBRARIES},
    }
