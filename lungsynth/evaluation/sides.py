"""The two sides of a comparison of slices, and numbers about them with bootstrap intervals."""

from typing import NamedTuple

import numpy as np

from lungsynth.evaluation.scorecard import Metric


class Images(NamedTuple):
    """Features N×D of one side, with class codes N and cluster codes N (patients; for synthetic slices the slices)."""

    features: np.ndarray
    labels: np.ndarray
    clusters: np.ndarray

    def of_class(self, code: int | None) -> "Images":
        """Those of one class; of all for None."""
        return self if code is None else Images(*(part[self.labels == code] for part in self))

    def count_clusters(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.clusters))

    def weights(self, rng: np.random.Generator) -> np.ndarray:
        """How often each slice occurs when the clusters are drawn with replacement."""
        _, codes = np.unique(self.clusters, return_inverse=True)
        count = codes.max() + 1
        return rng.multinomial(count, np.full(count, 1 / count))[codes]

    def mean_draws(self, values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
        """Means of `values`, one for each slice, in so many resamples."""
        rng = np.random.default_rng(seed)
        weights = np.stack([self.weights(rng) for _ in range(resamples)])
        return weights @ values / weights.sum(axis=1)


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
