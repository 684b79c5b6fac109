"""Filters of synthetic slices: by the discriminator, by a classifier, or by novelty.

Each filter is measured by an arm of its own, for information: the registered generator samples without filters.
"""

from copy import deepcopy
from typing import Literal

import numpy as np
from pydantic import Field
from torch import nn

from lungsynth.config import Config
from lungsynth.cpus import torch_threads
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.privacy.copies import detail_correlation
from lungsynth.evaluation.sampler import Realness
from lungsynth.evaluation.utility.classifier import BatchPlan, ClassifierConfig, Pool, scores, train_classifier

Filter = Literal["discriminator", "confidence", "novelty"]
LEAST = 10
"""Least number of slices of each class that must pass; with fewer, the filter's arm is left out."""


class FilterConfig(Config):
    """Filters to measure, and what passes them."""

    use: tuple[Filter, ...] = ()
    """Filters to measure. `discriminator` passes slices that look more real than most real ones; `confidence` those to
    which a classifier, which saw real slices alone, gives their own class; `novelty` those that copy no training slice.
    """
    candidates: float = Field(
        2,
        ge=1,
        description="ratio: synthetic slices drawn for each real one, to pick from [chosen here: half are kept]",
    )
    least_realness: float = Field(
        0.7, gt=0, lt=1, description="share of unseen real slices that look less real [cxr-dcgan]"
    )
    least_confidence: float = Field(
        0.7,
        gt=0,
        lt=1,
        description="probability that the classifier gives to a slice's own class [chosen here: as least_realness]",
    )
    most_alike: float = Field(
        0.85,
        gt=0,
        le=1,
        description="correlation of details with the training slice most like it [chosen here: as "
        "privacy.duplicate_correlation]",
    )


class Sieve:
    """The filters of a run.

    `fractions` are those of the candidates that pass each filter, by seed; `poor` are the filters that too few pass.

    Args:
        filters: which ones, and their limits.
        classifier: how the one behind `confidence` is trained.
        real: slices of `train`.
        val: slices of `val`.
        realness: of the generator's discriminator.

    Raises:
        LungsynthError: the discriminator is asked for, and there is none.
    """

    def __init__(
        self, filters: FilterConfig, classifier: ClassifierConfig, real: Pool, val: Pool, realness: Realness | None
    ) -> None:
        self.filters, self.classifier, self.real, self.val = filters, classifier, real, val
        self.realness = realness
        self.val_realness = realness(*val) if realness and "discriminator" in filters.use else None
        if "discriminator" in filters.use and self.val_realness is None:
            raise LungsynthError(
                "utility.filters.use names discriminator, but this generator came without one: leave it out"
            )
        self.fractions: dict[Filter, list[float]] = {name: [] for name in filters.use}
        self.poor: set[str] = set()

    def sift(self, candidates: Pool, untrained: nn.Module, seed: int) -> dict[str, Pool]:
        """The slices that pass each filter, by `synthetic+FILTER`: as many as `real` has, or all if fewer pass.

        Args:
            candidates: synthetic slices.
            untrained: classifier of this seed.
            seed: of the classifier's training.
        """
        pools = {}
        for name in self.filters.use:
            with torch_threads(1):  # as for every classifier: sums depend on the number of threads
                passed = self._passed(name, candidates, untrained, seed)
            self.fractions[name].append(float(passed.mean()))
            pool = _first(candidates, passed, len(self.real.labels))
            if np.bincount(pool.labels, minlength=2).min() < LEAST:
                self.poor.add(f"synthetic+{name}")
            pools[f"synthetic+{name}"] = pool
        return pools

    @property
    def notes(self) -> tuple[str, ...]:
        """How many candidates passed each filter, for the scorecard."""
        lines = []
        for name, fractions in self.fractions.items():
            poor = f"; its arm was left out, for want of {LEAST} of each class" * (f"synthetic+{name}" in self.poor)
            lines.append(f"filter {name}: {np.mean(fractions):.1%} of the synthetic slices pass{poor}")
        return tuple(lines)

    def _passed(self, name: Filter, candidates: Pool, untrained: nn.Module, seed: int) -> np.ndarray:
        if name == "discriminator":
            assert self.realness is not None
            realness = self.realness(*candidates)
            assert realness is not None
            assert self.val_realness is not None
            return real_enough(realness, self.val_realness, self.filters.least_realness)
        if name == "confidence":
            judge = train_classifier(
                deepcopy(untrained), self.real, None, plan=BatchPlan(), seed=seed, config=self.classifier
            )
            positive = scores(judge, candidates.images)
            return np.where(candidates.labels == 1, positive, 1 - positive) >= self.filters.least_confidence
        return detail_correlation(candidates.images, self.real.images).correlation <= self.filters.most_alike


def real_enough(synthetic: np.ndarray, held_out: np.ndarray, least: float) -> np.ndarray:
    """Which slices, bool N, score higher with a discriminator than the fraction `least` of unseen real slices.

    Scores are compared by rank, since they are no probabilities: relativistic and Wasserstein scores by definition, and
    those of cross-entropy are far from 0.5 for slices that cannot be told from real ones (Turner 2019, arXiv
    1811.11357).

    Args:
        synthetic: scores N of the slices.
        held_out: scores M of real slices that the discriminator was not trained on.
    """
    return np.searchsorted(np.sort(held_out), synthetic) / len(held_out) >= least


def _first(pool: Pool, passed: np.ndarray, count: int) -> Pool:
    """The first `count` slices that passed (bool N), half of each class, or as many as there are."""
    of_class = [np.flatnonzero(passed & (pool.labels == code))[: count // 2] for code in range(2)]
    rows = np.sort(np.concatenate(of_class))
    return Pool(pool.images[rows], pool.labels[rows])
