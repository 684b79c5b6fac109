"""The report of a run: one self-contained HTML page, and the files that it is made from."""

import shutil
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from lungsynth import __version__
from lungsynth.cohort.cohort import Cohort
from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.mlflow_registry import Registration
from lungsynth.report import tables
from lungsynth.report.build import PICTURES
from lungsynth.report.ending import ended_too_early
from lungsynth.report.figures import (
    COLUMNS,
    ROWS,
    THEMES,
    TILE,
    block,
    forest,
    losses,
    moves,
    power_curve,
    sample_sheet,
)
from lungsynth.report.usage import usage
from lungsynth.verdict.comparison import CHOSEN
from lungsynth.verdict.gate import TRAINED, Verdict

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
KEY_NUMBERS = {
    "gain/baseline": "gain in test {measure}",
    "gain/champion": "gain over the champion",
    "kid_lung": "KID, lung features",
    "privacy/near": "share of near slices",
    "privacy/duplicates": "share of copies",
    "privacy/membership": "AUROC of a membership attack",
}
SHARP = 2 * TILE
"""Pixels a side of a slice on the page: of a sharp screen."""
LIBRARIES = ("torch", "torchvision", "numpy", "pydicom", "torch-fidelity", "mlflow")


class Samples(NamedTuple):
    """Slices uint8 classes × (`ROWS`·`COLUMNS`) × H × W, and their masks of 0 and 1 where there are some."""

    images: np.ndarray
    masks: np.ndarray | None


@dataclass(frozen=True)
class Report:
    """The files that `render_report` wrote."""

    folder: Path


def render_report(
    folder: Path,
    *,
    run_name: str,
    cohort: Cohort,
    dataset: SliceDataset,
    package: GeneratorPackage,
    scorecard: Scorecard,
    verdict: Verdict,
    registration: Registration,
    closest_pairs: np.ndarray,
    run_config: Mapping[str, object],
) -> Report:
    """Write `report.html` and what goes with it into `folder`.

    Beside the page: `samples.png`, `progress.gif`, the pictures of the build, `scorecard.json`, `verdict.json`,
    `model_card.md`, `series.csv` with the fate of each series and `cohort.csv`, in both of which patients are numbers,
    and `cohort.parquet`, the whole cohort: that is for the run's own folder and artifact store, where the cohort lies
    anyway, and never goes to MLflow.

    Args:
        closest_pairs: uint8 K×2×H×W, synthetic slices with the training slices most like them; see `audit_privacy`.
        run_config: the configuration of the run; the page shows it without passwords and without the salt.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes, (real, synthetic) = dataset.meta.classes, _samples(dataset, package)
    sample_sheet(real.images, synthetic.images, classes).save(folder / "samples.png", optimize=True)
    film = package.folder / "progress.gif"
    if film.exists():
        shutil.copyfile(film, folder / "progress.gif")
    (folder / "scorecard.json").write_text(scorecard.model_dump_json(indent=2), encoding="utf-8")
    (folder / "verdict.json").write_text(verdict.model_dump_json(indent=2), encoding="utf-8")
    cohort.series.to_parquet(folder / "cohort.parquet", index=False)
    tables.public_cohort(cohort).to_csv(folder / "cohort.csv", index=False)
    tables.public_series(dataset, cohort).to_csv(folder / "series.csv", index=False)

    topics, normalised = tables.by_topic(scorecard), tables.normalised_rows(scorecard)
    facts = {
        "run_name": run_name,
        "headline": HEADLINES[verdict.outcome],
        "remedy": REMEDIES.get(verdict.rule),
        "verdict": verdict,
        "undertrained": ended_too_early(package, scorecard),
        "registration": registration,
        "usage": usage(registration, package.classes),
        "package": package,
        "size": dataset.meta.size,
        "outlined": synthetic.masks is not None,
        "window": _window(dataset),
        "subject": "axial lung CT slices" if "CT" in set(cohort.images["modality"]) else "chest radiographs",
        "key_numbers": _key_numbers(scorecard, verdict),
        "topics": {topic: tables.metric_rows(metrics) for topic, metrics in topics.items()},
        "measure": scorecard.measure,
        "trained": TRAINED[scorecard.measure],
        "arm_measures": list(tables.ARM_MEASURES[scorecard.measure].values()),
        "chosen": _chosen(verdict),
        "unjudged": [m for m in verdict.numbers if m.name.startswith("unjudged/")],
        "chosen_on_val": CHOSEN,
        "arms": tables.arm_rows(topics["utility"], scorecard.measure),
        "gate_rows": tables.metric_rows([m for m in verdict.numbers if not m.name.startswith(tables.ELSEWHERE)]),
        "normalised": normalised,
        "number": tables.number,
        "notes": scorecard.notes,
        "origin": tables.origin(cohort),
        "splits": tables.splits(dataset),
        "rejected": tables.rejected(dataset),
        "noted": tables.noted(dataset),
        "funnel": cohort.funnel.astype(object).fillna("").to_dict("records"),
        "provenance": _provenance(cohort, dataset, package, verdict, registration),
        "run_config": yaml.safe_dump(tables.public_config(run_config), sort_keys=False),
    }
    pictures = {
        "samples": {
            f"{name}, {kind}": _png_uri(
                block(side.images[code], COLUMNS, SHARP, None if side.masks is None else side.masks[code])
            )
            for code, name in enumerate(classes)
            for kind, side in (("real", real), ("synthetic", synthetic))
        },
        "pairs": [_png_uri(block(pair, 1, SHARP)) for pair in closest_pairs],
        "progress": _uri(film.read_bytes(), "image/gif") if film.exists() else None,
        "build": {path.stem: _uri(path.read_bytes(), "image/png") for path in _copied_build(dataset, folder)},
        "normalised": _moves(normalised),
        **_charts(package, scorecard, verdict),
    }
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("report.html.j2").render(**facts, pictures=pictures)
    (folder / "report.html").write_text(page, encoding="utf-8")
    card = templates.get_template("model_card.md.j2").render(**facts)
    (folder / "model_card.md").write_text(card, encoding="utf-8")
    return Report(folder)


def _copied_build(dataset: SliceDataset, folder: Path) -> list[Path]:
    """The pictures of the dataset's build, where they were drawn, beside the page."""
    there = [dataset.folder / name for name in PICTURES if (dataset.folder / name).exists()]
    return [Path(shutil.copyfile(path, folder / path.name)) for path in there]


def _samples(dataset: SliceDataset, package: GeneratorPackage) -> tuple[Samples, Samples]:
    """Real slices, spread evenly over each class, and synthetic ones; with masks where the generator draws them too."""
    count, classes = ROWS * COLUMNS, dataset.meta.classes
    members = [np.flatnonzero(dataset.labels == code) for code in range(len(classes))]
    shown = [rows[np.linspace(0, len(rows) - 1, count).astype(int)] for rows in members]
    real, asked = np.stack([dataset.images[rows] for rows in shown]), np.repeat(np.arange(len(classes)), count)
    if dataset.masks is None or not package.card.generator.masks:
        return Samples(real, None), Samples(package.sample(asked, seed=0).reshape(real.shape), None)
    images, masks = (part.reshape(real.shape) for part in package.sample_pairs(asked, seed=0))
    return Samples(real, np.stack([dataset.masks[rows] for rows in shown])), Samples(images, masks)


def _window(dataset: SliceDataset) -> str:
    """The HU that the grey values 0 to 255 stand for, in words; nothing for pictures, which have none."""
    window = dataset.meta.window_hu
    return f"{window[0]:g} to {window[1]:g} HU" if window else ""


def _charts(package: GeneratorPackage, scorecard: Scorecard, verdict: Verdict) -> dict[str, dict[str, str] | None]:
    """Charts as data URIs by name and theme; None for a chart without data, as for gains that were not compared."""
    measure = scorecard.measure
    prefix = f"{measure.lower()}/"
    shown = scorecard.metrics + (verdict.numbers if len(_chosen(verdict)) > 1 else ())
    arms = {m.name.removeprefix(prefix): m for m in shown if m.name.startswith(prefix)}
    roles = {"baseline": verdict.baseline_arm, "champion": "the champion's arm"}  # others are arms
    names = [metric.name.split("/") for metric in verdict.numbers]
    gains = {
        f"against {roles.get(name[1], name[1])}": metric
        for name, metric in zip(names, verdict.numbers, strict=True)
        if name[0] == "gain" and len(name) == 2
    }
    chances = {int(name[1]): m.value for name, m in zip(names, verdict.numbers, strict=True) if name[0] == "power"}
    log = package.folder / "training_log.jsonl"
    charts: dict[str, Callable[[str], bytes]] = {}
    if arms:
        charts["arms"] = lambda theme: forest(arms, f"{measure} on test patients, 95 % interval", theme)
    if gains:
        charts["gains"] = lambda theme: forest(gains, f"gain in {measure}, 95 % interval", theme, mark=0)
    if chances:
        charts["power"] = lambda theme: power_curve(chances, theme)
    if log.exists():
        charts["losses"] = lambda theme: losses(log, theme)
    drawn = {name: {theme: _uri(chart(theme)) for theme in THEMES} for name, chart in charts.items()}
    return {name: drawn.get(name) for name in ("arms", "gains", "power", "losses")}


def _chosen(verdict: Verdict) -> dict[str, int]:
    """For how many training seeds each arm was chosen."""
    found = (metric for metric in verdict.numbers if metric.name.startswith("chosen/"))
    return {metric.name.removeprefix("chosen/"): int(metric.value) for metric in found}


def _moves(rows: list[tables.NormalisedRow]) -> dict[str, dict[str, str]]:
    """A chart for each extractor, by theme: of FID, or of KID where there were too few slices for FID."""
    best = {row.measure.partition("_")[2]: row for row in reversed(rows)}  # FID comes first, and so stays
    return {
        row.measure: {theme: _uri(moves(row.synthetic, row.floor, row.measure, theme)) for theme in THEMES}
        for row in best.values()
    }


def _key_numbers(scorecard: Scorecard, verdict: Verdict) -> list[tuple[str, str, str]]:
    """The numbers to see first: what, value, and the interval or what to hold it against."""
    numbers = {metric.name: metric for metric in (*scorecard.metrics, *verdict.numbers)}
    found = []
    for name, what in KEY_NUMBERS.items():
        if name in numbers:
            floor = numbers.get(f"{name}/floor")
            beside = f"real slices: {tables.number(floor.value)}" if floor else tables.interval(numbers[name])
            value = numbers[name].value
            shown = f"{value:+.3f}" if name.startswith("gain") else tables.number(value)
            found.append((what.format(measure=scorecard.measure), shown, beside))
    return found


def _provenance(
    cohort: Cohort, dataset: SliceDataset, package: GeneratorPackage, verdict: Verdict, registration: Registration
) -> dict[str, str]:
    return {
        "cohort SHA-256": cohort.sha256,
        "slices SHA-256": dataset.sha256,
        "generator SHA-256": package.sha256,
        "protocol SHA-256": verdict.protocol_sha256,
        "MLflow run": f"{registration.run_id} at {registration.tracking_uri}",
        "lungsynth": __version__,
        **{library: version(library) for library in LIBRARIES},
    }


def _png_uri(picture: Image.Image) -> str:
    content = BytesIO()
    picture.save(content, format="png", optimize=True)
    return _uri(content.getvalue())


def _uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
