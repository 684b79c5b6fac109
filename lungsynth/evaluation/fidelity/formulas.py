"""What is measured of features of slices: a function for each measure, and the table that names them all."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, get_args

import numpy as np
import torch_fidelity

from lungsynth.evaluation.fidelity.distances import DistancesConfig, fid, fid_draws, kernels, kid, kid_draws
from lungsynth.evaluation.fidelity.diversity import (
    COVERAGE_NEIGHBOURS,
    PRC_NEIGHBOURS,
    manifold,
    modes_of,
    share_hit,
)
from lungsynth.evaluation.fidelity.normalisation import Normalisation
from lungsynth.evaluation.fidelity.pretrained import Pretrained
from lungsynth.evaluation.fidelity.sides import Trio, metric_of_draws
from lungsynth.evaluation.quantities import (
    COVERAGE,
    DENSITY,
    FID,
    FID_RATIO,
    KID,
    LUNG,
    MODES,
    PRECISION,
    RECALL,
    Quantity,
)
from lungsynth.evaluation.scorecard import Measurand, Metric


class Compared(NamedTuple):
    """Features of all sides, from which slices they are and how they came about; None as in `Measurand`."""

    sides: Trio
    extractor: str
    normalisation: Normalisation | None = None
    class_name: str | None = None

    def measurand(self, quantity: Quantity, floor: bool = False) -> Measurand:
        """What a number about these slices measures."""
        return Measurand(
            quantity=quantity,
            extractor=self.extractor,
            normalisation=self.normalisation,
            class_name=self.class_name,
            floor=floor,
        )

    @property
    def enough_for_fid(self) -> bool:
        """Whether a covariance can be estimated: twice as many slices as features on every side."""
        features: int = self.sides.real.values.shape[1]
        return self.sides.fewest >= 2 * features


def _fid(compared: Compared, config: DistancesConfig) -> Iterator[Metric]:
    """FID and the ratio of its floor to it, 1 where synthetic slices are as good as real ones; nothing for too few."""
    if not compared.enough_for_fid:
        return
    how = _torch_fidelity(compared)
    sides = compared.sides
    values, draws = [], []
    for floor, other, n in sides.pairs:
        values.append(fid(sides.real.values, other.values))
        draws.append(fid_draws(sides.real, other, config))
        yield metric_of_draws(compared.measurand(FID, floor), values[-1], how, draws=draws[-1], n=n, least=0)
    # Both FIDs use the same resamples of real slices. The spread is that of logarithms, since a ratio's is skewed.
    reach = np.exp(1.96 * np.std(np.log(draws[1] / draws[0]), ddof=1))
    ratio = values[1] / values[0]
    yield Metric(
        **dict(compared.measurand(FID_RATIO)),
        value=ratio,
        low=ratio / reach,
        high=ratio * reach,
        n={what: count for _, _, n in sides.pairs for what, count in n.items()},
        computed_with=f"FID of held-out over FID of synthetic slices, ±1.96 SE of its logarithm, {how}",
    )


def _kid(compared: Compared, config: DistancesConfig) -> Iterator[Metric]:
    sides = compared.sides
    for floor, other, n in sides.pairs:
        found = kernels(sides.real.values, other.values)
        draws = kid_draws(found, sides.real, other, config=config)
        how = _torch_fidelity(compared)
        yield metric_of_draws(compared.measurand(KID, floor), kid(found, config), how, draws=draws, n=n)


def _manifolds(compared: Compared, config: DistancesConfig) -> Iterator[Metric]:
    """Precision, recall, density and coverage."""
    sides = compared.sides
    for floor, other, n in sides.pairs:
        found = manifold(sides.real.values, other.values)
        for quantity, values, drawn, source in (
            (PRECISION, found.precision, other, f"Kynkäänniemi 2019, {PRC_NEIGHBOURS} neighbours"),
            (RECALL, found.recall, sides.real, f"Kynkäänniemi 2019, {PRC_NEIGHBOURS} neighbours"),
            (DENSITY, found.density, other, f"Naeem 2020, {COVERAGE_NEIGHBOURS} neighbours"),
            (COVERAGE, found.coverage, sides.real, f"Naeem 2020, {COVERAGE_NEIGHBOURS} neighbours"),
        ):
            weights = drawn.weights(config.resamples, config.seed)
            yield metric_of_draws(
                compared.measurand(quantity, floor),
                float(values.mean()),
                f"{source}, {compared.extractor} extractor, neighbours held fixed",
                draws=weights @ values / weights.sum(axis=1),
                n=n,
                least=0,
                most=1 if quantity.unit == "share" else None,
            )


def _modes(compared: Compared, config: DistancesConfig) -> Iterator[Metric]:
    """Share of the modes of real slices that are hit."""
    for floor, other, n in compared.sides.pairs:
        modes, count = modes_of(compared.sides.real.values, other.values, config.seed)
        weights = other.weights(config.resamples, config.seed)
        yield metric_of_draws(
            compared.measurand(MODES, floor),
            share_hit(modes, count),
            f"share of {count} k-means cells of real slices that are hit, {compared.extractor} extractor",
            draws=np.array([share_hit(modes[row > 0], count) for row in weights]),
            n=n,
            least=0,
            most=1,
        )


def _torch_fidelity(compared: Compared) -> str:
    return f"torch-fidelity {torch_fidelity.__version__}, {compared.extractor} extractor"


class Formula(NamedTuple):
    """What is computed of features: `compute` gives metrics of these quantities, each with its floor if it has one."""

    quantities: tuple[Quantity, ...]
    compute: Callable[[Compared, DistancesConfig], Iterator[Metric]]

    @property
    def is_distance(self) -> bool:
        """Whether it is measured under every normalisation, and listed in the history of verdicts."""
        return any(quantity.unit == "distance" for quantity in self.quantities)


FORMULAS: tuple[Formula, ...] = (
    Formula((FID, FID_RATIO), _fid),
    Formula((KID,), _kid),
    Formula((PRECISION, RECALL, DENSITY, COVERAGE), _manifolds),
    Formula((MODES,), _modes),
)
"""Every measure in feature space, in the order of the scorecard. A row here takes a new one into scorecard, report,
MLflow and, if its unit is a distance, the history of verdicts."""


def distances() -> list[Measurand]:
    """The distances of all slices that some run can have, by extractor."""
    quantities = [quantity for formula in FORMULAS for quantity in formula.quantities if quantity.unit == "distance"]
    return [
        Measurand(quantity=quantity, extractor=name)
        for quantity in quantities
        for name in (LUNG, *get_args(Pretrained))
    ]
