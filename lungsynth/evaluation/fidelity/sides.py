"""The two sides of a comparison of slices, and numbers about them with bootstrap intervals."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lungsynth.evaluation.scorecard import Metric


class Images(NamedTuple):
    """Slices of one side: `values` N×…, pixels or features, with class codes N and cluster codes N.

    Clusters are what is drawn in a bootstrap: patients; of synthetic slices each slice.
    """

    values: np.ndarray
    labels: np.ndarray
    clusters: np.ndarray

    def of_class(self, code: int | None) -> "Images":
        """Those of one class; of all for None."""
        return self if code is None else Images(*(part[self.labels == code] for part in self))

    def count_clusters(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.clusters))

    def weights(self, resamples: int, seed: int | tuple[int, ...]) -> np.ndarray:
        """How often each slice occurs, B×N, in so many resamples of the clusters with replacement."""
        _, codes = np.unique(self.clusters, return_inverse=True)
        count = codes.max() + 1
        return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)[:, codes]


class Trio(NamedTuple):
    """What is compared: synthetic with real slices of `train`, and, as the floor, held-out slices with these."""

    real: Images
    synthetic: Images
    held_out: Images

    def of_class(self, code: int | None) -> "Trio":
        """The slices of one class; all for None."""
        return Trio(*(side.of_class(code) for side in self))

    @property
    def fewest(self) -> int:
        """Slices on the smallest side."""
        return min(len(side.values) for side in self)

    @property
    def pairs(self) -> Iterator[tuple[str, Images, dict[str, int]]]:
        """Both comparisons with `real`: what a metric's name ends in, the other side, and the sample sizes."""
        for suffix, what, other in (("", "synthetic", self.synthetic), ("/floor", "held-out", self.held_out)):
            sizes = {what: len(other.values), "real": len(self.real.values), "patients": self.real.count_clusters()}
            yield suffix, other, sizes


def metric_of_draws(
    name: str,
    value: float,
    draws: np.ndarray,
    n: dict[str, int],
    method: str,
    least: float | None = None,
    most: float | None = None,
) -> Metric:
    """A metric with ±1.96 standard errors, kept between `least` and `most`.

    A resample repeats slices, which by itself raises FID and lowers how many modes are hit: of the resamples the spread
    is taken, not their place.
    """
    reach = 1.96 * float(np.std(draws, ddof=1))
    low, high = (float(np.clip(bound, least, most)) for bound in (value - reach, value + reach))
    how = f"{method}, ±1.96 SE of a bootstrap of patients and synthetic slices ×{len(draws)}"
    return Metric(name=name, value=value, low=low, high=high, n=n, computed_with=how)
