"""What a report shows as pictures: samples, closest pairs and charts, as data URIs that need no other file."""

from base64 import b64encode
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.privacy.closest_pairs import ClosestPairs
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.report.figures import COLUMNS, ROWS, THEMES, TILE, block, forest, losses, moves, power_curve
from lungsynth.report.tables import NormalisedRow, compared_arms
from lungsynth.verdict.comparison import CHOSEN
from lungsynth.verdict.record import Verdict

SHARP = 2 * TILE
"""Pixels a side of a slice on the page, for sharp screens."""
ByTheme = dict[str, str]
"""A chart as data URIs, one for each theme."""


class Samples(NamedTuple):
    """Slices uint8 classes × (`ROWS`·`COLUMNS`) × H × W, and their masks of 0 and 1 where there are some."""

    images: np.ndarray
    masks: np.ndarray | None


def pick_samples(dataset: SliceDataset, package: GeneratorPackage) -> tuple[Samples, Samples]:
    """Real slices, spread evenly over each class, and synthetic ones; with masks where the generator draws them too."""
    count, classes = ROWS * COLUMNS, dataset.meta.classes
    members = [np.flatnonzero(dataset.labels == code) for code in range(len(classes))]
    shown = [rows[np.linspace(0, len(rows) - 1, count).astype(int)] for rows in members]
    real, asked = np.stack([dataset.images[rows] for rows in shown]), np.repeat(np.arange(len(classes)), count)
    if dataset.masks is None or not package.card.generator.masks:
        return Samples(real, None), Samples(package.sample(asked, seed=0).reshape(real.shape), None)
    images, masks = (part.reshape(real.shape) for part in package.sample_pairs(asked, seed=0))
    return Samples(real, np.stack([dataset.masks[rows] for rows in shown])), Samples(images, masks)


def sample_blocks(real: Samples, synthetic: Samples, classes: tuple[str, ...]) -> dict[str, str]:
    """A picture of each class and kind, by what it shows."""
    return {
        f"{name}, {kind}": _png_uri(
            block(side.images[code], COLUMNS, SHARP, masks=None if side.masks is None else side.masks[code])
        )
        for code, name in enumerate(classes)
        for kind, side in (("real", real), ("synthetic", synthetic))
    }


def pair_blocks(pairs: ClosestPairs) -> list[str]:
    """A picture of each pair, the synthetic slice above."""
    return [_png_uri(block(np.stack(pair), 1, SHARP)) for pair in zip(pairs.synthetic, pairs.train, strict=True)]


def charts(package: GeneratorPackage, scorecard: Scorecard, verdict: Verdict) -> dict[str, ByTheme | None]:
    """Charts by name; None for a chart without data, as for gains that were not compared."""
    measure = verdict.measure
    arms = compared_arms(scorecard, measure) | ({CHOSEN: verdict.score} if len(verdict.chosen) > 1 else {})
    roles = {"baseline": verdict.baseline_arm, "champion": "the champion's arm"}  # other rivals are arms
    gains = {f"against {roles.get(one.rival, one.rival)}": one.gain for one in verdict.gains}
    chances = {metric.patients: metric.value for metric in verdict.power if metric.patients}
    log = package.folder / "training_log.jsonl"
    drawn: dict[str, Callable[[str], bytes]] = {
        "arms": lambda theme: forest(arms, f"{measure} on test patients, 95 % interval", theme),
        "gains": lambda theme: forest(gains, f"gain in {measure}, 95 % interval", theme, mark=0),
        "power": lambda theme: power_curve(chances, theme),
        "losses": lambda theme: losses(log, theme),
    }
    there = {"arms": bool(arms), "gains": bool(gains), "power": bool(chances), "losses": log.exists()}
    return {name: _by_theme(chart) if there[name] else None for name, chart in drawn.items()}


def move_charts(rows: list[NormalisedRow]) -> dict[str, ByTheme]:
    """A chart for each extractor: of FID, or of KID where there were too few slices for FID."""
    best = {row.measurand.extractor: row for row in reversed(rows)}  # FID comes first in `rows`, and so replaces KID
    return {row.measurand.name: _by_theme(_moved(row)) for row in best.values()}


def _moved(row: NormalisedRow) -> Callable[[str], bytes]:
    return lambda theme: moves(row.synthetic, row.floor, row.measurand.name, theme=theme)


def _by_theme(chart: Callable[[str], bytes]) -> ByTheme:
    return {theme: uri(chart(theme)) for theme in THEMES}


def _png_uri(picture: Image.Image) -> str:
    content = BytesIO()
    picture.save(content, format="png", optimize=True)
    return uri(content.getvalue())


def uri(content: bytes, kind: str = "image/png") -> str:
    """A data URI."""
    return f"data:{kind};base64,{b64encode(content).decode()}"
