"""Measures a generator while it trains: its distance to `val`, and whether it collapses."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field

from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.generators.family import GeneratorNetwork
from lungsynth.generators.package import generate
from lungsynth.training.data import Slices
from lungsynth.training.random_features import Scale, features, filters, squared_distances, squared_mmd, vendi
from lungsynth.training.snapshots import real_grid

FEWEST = 10
"""Fewest slices, of `val` or of a class, for which a score is meaningful."""

Row = dict[str, float]
"""A line of the log. Lines with a look also have `diversity`, and `kid_val` if their weights can be the best."""

log = logging.getLogger(__name__)


class SpoiledError(LungsynthError):
    """A run diverged or collapsed: more training would not help."""


class MonitorConfig(Config):
    """How often, on how many slices, and what ends a run early."""

    every_kimg: float = Field(
        default=4, gt=0, description="kimg between two looks [chosen here: ten looks in the default kimg]"
    )
    images: int = Field(
        default=500,
        ge=FEWEST,
        description="synthetic slices of a look; at most as many real ones [chosen here: KID is unbiased at any "
        "number, and more cost time]",
    )
    patience_kimg: float | None = Field(
        default=None, gt=0, description="kimg without a better KID that end the run; none: the run goes to its end"
    )
    collapse_below: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="ratio of diversity to that of real slices, in two looks in a row, that stops the run; 0: nothing "
        "does [chosen here: far below the 1 of real slices]",
    )
    grace_kimg: float = Field(
        default=20,
        ge=0,
        description="kimg in which a lack of diversity is allowed [chosen here: half of the default kimg, since new "
        "networks draw slices that are much alike]",
    )


class Monitor:
    """Compares a run's generator with real slices, by the same slices, latents and labels in each look.

    Slices are compared by their `features`, on the `Scale` of the slices of `train`.
    """

    def __init__(
        self, train: Slices, val: Slices | None, config: MonitorConfig, *, average: GeneratorNetwork, seed: int
    ) -> None:
        """`average` is the generator to be measured. A `val` of fewer than `FEWEST` slices is ignored."""
        if not val or len(val) < FEWEST:
            log.warning("%d slices to choose weights by, %d are needed: the last will be kept", len(val or ()), FEWEST)
            val = None
        side, device = average.config.size, next(average.parameters()).device
        codes = [(slices or train).codes * bool(average.config.classes) for slices in (train, val)]
        self._codes = np.sort(codes[1])[_spread(len(codes[1]), config.images)]
        self._train, self._val, self._average = train, val, average
        self._train_places = np.concatenate(
            [
                places[_spread(len(places), min(count, len(places)))]
                for code, count in zip(*np.unique(self._codes, return_counts=True), strict=True)
                for places in [np.flatnonzero(codes[0] == code)]
            ]
        )
        self._train_codes = codes[0][self._train_places]
        self._labels = torch.from_numpy(self._codes).to(device)
        rng = torch.Generator().manual_seed(seed)
        self._latents = torch.randn(len(self._codes), average.config.nz, generator=rng).to(device)
        self._network = filters(side, device)
        self.grid = real_grid(train, average.config)
        """Real slices, to show beside a snapshot."""
        self._level = 0
        self._full = math.log2(side)

    def look(self, level: float) -> Row:
        """`diversity`; and `kid_val`, if there is a `val` and the generator is at its full `level` (see `growth`).

        `diversity` is 0 where all slices of a class are the same, and about 1 where they differ as those of `train` do.
        It is the effective number of different slices (`vendi`), less one, divided by that of as many real slices; of
        all classes, the lowest. `kid_val` is the KID between `val` and synthetic slices of the same class frequencies.
        """
        if self._level != math.ceil(level):
            self._level = math.ceil(level)
            self._describe_real()
        slices = generate(self._average, self._latents, self._labels)
        synthetic = self._scale(features(slices[:, None], self._network))
        row = {"diversity": diversity(synthetic, self._codes, self._real, real_codes=self._train_codes)}
        if self._val is not None and level == self._full:
            row["kid_val"] = squared_mmd(synthetic, self._held_out)
        return row

    def _describe_real(self) -> None:
        """Compute the features of the real slices, at the resolution that a growing generator has reached."""
        real = features(_coarse(self._train.take(self._train_places), 1 << self._level), self._network)
        self._scale = Scale.of(real)
        self._real = self._scale(real)
        if self._val is not None:
            places = _spread(len(self._val), min(len(self._val), len(self._codes)))
            held_out = _coarse(self._val.take(places), 1 << self._level)
            self._held_out = self._scale(features(held_out, self._network))


def diversity(synthetic: np.ndarray, codes: np.ndarray, real: np.ndarray, *, real_codes: np.ndarray) -> float:
    """See `Monitor.look`; of features N×D and class codes N. 1 where no class has `FEWEST` slices that differ."""
    ratios = []
    for code in np.unique(codes):
        count = min((codes == code).sum(), (real_codes == code).sum())
        if count < FEWEST:
            continue
        one, other = (side[own == code][:count] for side, own in ((synthetic, codes), (real, real_codes)))
        width = np.sqrt(np.median(squared_distances(other)[np.triu_indices(count, 1)])) / 2
        if width:
            ratios.append((vendi(one, width) - 1) / (vendi(other, width) - 1))
    return min(ratios, default=1.0)


def best(rows: Sequence[Row]) -> Row | None:
    """The first line with the lowest `kid_val`; none has one where nothing was compared."""
    return min((row for row in rows if "kid_val" in row), key=lambda row: row["kid_val"], default=None)


def out_of_patience(rows: Sequence[Row], config: MonitorConfig) -> bool:
    """Whether the last look is so long after the best one that the run should end."""
    best_row, looks = best(rows), [row["kimg"] for row in rows if "kid_val" in row]
    if config.patience_kimg is None or best_row is None:
        return False
    return looks[-1] - best_row["kimg"] >= config.patience_kimg


def check_diversity(rows: Sequence[Row], config: MonitorConfig) -> None:
    """Whether the generator's slices still differ from each other.

    Raises:
        SpoiledError: the last two looks found almost the same slice everywhere.
    """
    looks = [row for row in rows if "diversity" in row and row["kimg"] > config.grace_kimg]
    if len(looks) > 1 and max(row["diversity"] for row in looks[-2:]) < config.collapse_below:
        raise SpoiledError(
            f"training collapsed before {looks[-1]['kimg']:.2f} kimg: diversity {looks[-1]['diversity']:.3f}, where "
            "real slices have 1; train with another seed, lower learning rates or a larger training.loss.r1_gamma"
        )


def _spread(length: int, count: int) -> np.ndarray:
    """`count` places, evenly spread from the first to the last of `length`."""
    return np.linspace(0, length - 1, count).round().astype(np.int64)


def _coarse(images: np.ndarray, side: int) -> np.ndarray:
    """Images uint8 N×C×S×S, with the detail of images of `side` pixels a side."""
    step = images.shape[-1] // side
    if step <= 1:
        return images
    blocks = images.reshape(*images.shape[:2], side, step, side, step).mean(axis=(3, 5)).round().astype(np.uint8)
    result: np.ndarray = blocks.repeat(step, axis=2).repeat(step, axis=3)
    return result
