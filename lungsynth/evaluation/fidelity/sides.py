"""The two sides of a comparison of slices, and numbers about them with bootstrap intervals."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lungsynth.evaluation.scorecard import Measurand, Metric


class Images(NamedTuple):
    """Slices of one side: `values` N×…, pixels or features, with class codes N and cluster codes N.

    A bootstrap draws clusters: the patients of real slices; a synthetic slice is a cluster of its own.
    """

    values: np.ndarray
    labels: np.ndarray
    clusters: np.ndarray

    def of_class(self, code: int) -> "Images":
        """The slices of one class."""
        return Images(*(part[self.labels == code] for part in self))

    def count_clusters(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.clusters))

    def weights(self, resamples: int, seed: int | tuple[int, ...]) -> np.ndarray:
        """How often each slice occurs, B×N, in `resamples` draws of as many clusters with replacement."""
        _, codes = np.unique(self.clusters, return_inverse=True)
        count = codes.max() + 1
        return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)[:, codes]


class Trio(NamedTuple):
    """The sides of a comparison: synthetic against real slices of `train`; as the floor, held-out against the same."""

    real: Images
    synthetic: Images
    held_out: Images

    def of_class(self, code: int) -> "Trio":
        """The slices of one class."""
        return Trio(*(side.of_class(code) for side in self))

    @property
    def fewest(self) -> int:
        """Slices on the smallest side."""
        return min(len(side.values) for side in self)

    @property
    def pairs(self) -> Iterator[tuple[bool, Images, dict[str, int]]]:
        """Both comparisons with `real`: whether it is the floor, the other side, and the sample sizes."""
        for floor, what, other in ((False, "synthetic", self.synthetic), (True, "held-out", self.held_out)):
            sizes = {what: len(other.values), "real": len(self.real.values), "patients": self.real.count_clusters()}
            yield floor, other, sizes


def metric_of_draws(
    measurand: Measurand,
    value: float,
    computed_with: str,
    *,
    draws: np.ndarray,
    n: dict[str, int],
    least: float | None = None,
    most: float | None = None,
) -> Metric:
    """A metric with ±1.96 standard errors, clipped to `least` and `most`.

    The interval takes only the spread of the bootstrap `draws`, not their mean: a resample repeats slices, which by
    itself raises FID and lowers the number of modes that are hit.
    """
    reach = 1.96 * float(np.std(draws, ddof=1))
    low, high = (float(np.clip(bound, least, most)) for bound in (value - reach, value + reach))
    how = f"{computed_with}, ±1.96 SE of a bootstrap of patients and synthetic slices ×{len(draws)}"
    return Metric(**dict(measurand), value=value, low=low, high=high, n=n, computed_with=how)
