"""Measures whether synthetic slices improve a classifier or segmenter: arms differ only in their batches."""

import math
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from lungsynth.config import Seed
from lungsynth.cpus import side_by_side
from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.sampler import PairSampler, Realness, Sampler
from lungsynth.evaluation.utility.classifier import BatchPlan, ClassifierConfig, Pool
from lungsynth.evaluation.utility.filters import FilterConfig, Sieve
from lungsynth.evaluation.utility.predictions import Predictions, Role
from lungsynth.evaluation.utility.tasks import TASKS, Task, TaskName
from lungsynth.progress import Progress

Baseline = Literal["real", "real+balanced", "real+classical", "real+classical+mix"]
Control = Literal["shuffled", "synthetic only"]
BASELINES: dict[Baseline, BatchPlan] = {
    "real": BatchPlan(balanced=False, classical=False),
    "real+balanced": BatchPlan(classical=False),
    "real+classical": BatchPlan(),
    "real+classical+mix": BatchPlan(mixed=True),
}
"""Arms without synthetic slices. In batches of `real` classes are as common as in `train`, elsewhere equally common."""


class UtilityConfig(ClassifierConfig):
    """The arms, and the classifiers of each."""

    task: TaskName = "classification"
    """What is learnt: classes, or in `segmentation` masks, by a U-Net; the generator then has to draw masks as well."""
    seeds: int = Field(
        5, ge=1, description="classifiers in an arm, seeded 0, 1, … [chosen here: at least 5 for a verdict to rest on]"
    )
    ratios: tuple[float, ...] = Field(
        (0.25, 0.5, 1.0, 2.0, 3.0),
        min_length=1,
        description="ratios above 0: synthetic slices for each real one in a batch [chosen here: from few to mostly "
        "synthetic]",
    )
    baselines: tuple[Baseline, ...] = Field(tuple(BASELINES), min_length=1)
    """Arms without synthetic slices, all of which a generator has to beat; in segmentation the two that apply."""
    controls: tuple[Control, ...] = ("shuffled", "synthetic only")
    """`shuffled`: one synthetic slice for each real one, under labels of others. `synthetic only`: no real slice."""
    pool_seed: Seed = Field(
        0, description="seed of the synthetic slices, which are drawn anew for each classifier seed"
    )
    filters: FilterConfig = FilterConfig()
    """Filters of synthetic slices, each measured by an arm of its own; in classification alone."""
    workers: int = Field(
        0, ge=0, description="classifiers that train side by side on a CPU [chosen here: 0, one on each core]"
    )

    @field_validator("ratios")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) <= 0:
            raise ValueError(f"a ratio is above 0, not {min(value):g}")
        return value

    @model_validator(mode="after")
    def _something_to_beat(self) -> Self:
        if not set(self.baselines) & set(TASKS[self.task].plain):
            raise ValueError(f"baselines: {self.task} has {', '.join(TASKS[self.task].plain)}; name one of them")
        return self

    @model_validator(mode="after")
    def _filters_by_class(self) -> Self:
        if self.filters.use and self.task != "classification":
            raise ValueError(f"filters are measured in classification, not in {self.task}: leave filters.use out")
        return self

    @property
    def most_drawn(self) -> float:
        """Synthetic slices for each real one that the arms need."""
        return max(*self.ratios, self.filters.candidates if self.filters.use else 0)


Pools = dict[str, Pool]
"""Synthetic slices, by the name of their sampler."""


class Arm(NamedTuple):
    """A way to make batches; `sampler` names the synthetic slices in them, if any."""

    name: str
    role: Role
    plan: BatchPlan
    sampler: str = ""
    ratio: float = 0.0
    shuffled: bool = False


def arms(config: UtilityConfig, samplers: Iterable[str]) -> list[Arm]:
    """Every arm of a run with samplers of these names; controls are of `synthetic`."""
    plain = TASKS[config.task].plain
    chosen = [Arm(name, "baseline", BASELINES[name]) for name in config.baselines if name in plain]
    for name in samplers:
        role: Role = "champion" if name == "champion" else "candidate"
        for ratio in config.ratios:
            plan = BatchPlan(synthetic=ratio / (1 + ratio))
            chosen.append(Arm(f"real+classical+{name}@{ratio:g}", role, plan, name, ratio))
    if "synthetic" in samplers:
        if "shuffled" in config.controls:
            plan = BatchPlan(synthetic=0.5)
            chosen.append(Arm("real+classical+shuffled@1", "control", plan, "synthetic", 1.0, shuffled=True))
        if "synthetic only" in config.controls:
            chosen.append(Arm("synthetic+classical", "control", BatchPlan(synthetic=1.0), "synthetic", 1.0))
        for name in config.filters.use:
            plan = BatchPlan(synthetic=0.5)
            chosen.append(Arm(f"real+classical+synthetic@1+{name}", "control", plan, f"synthetic+{name}", 1.0))
    return chosen


def measure_utility(
    dataset: SliceDataset,
    samplers: Mapping[str, Sampler | PairSampler],
    config: UtilityConfig,
    *,
    realness: Realness | None = None,
) -> Predictions:
    """Train every arm's classifiers or segmenters on `train` and score `val` and `test`.

    All take the same number of steps; those of one seed have the same initial weights, real and synthetic slices, and
    augmentation. On a CPU each trains in one thread, several side by side: their number does not change a score.

    Args:
        samplers: by name, `synthetic` and where there is one `champion`; with masks for segmentation.
        realness: of the generator behind `synthetic`, for the filter `discriminator`.

    Raises:
        LungsynthError: the dataset does not allow the task, as where there are not two classes or a split lacks one, or
            a sampler's slices do not fit the dataset's.
    """
    task = TASKS[config.task](dataset, config)
    task.check()
    train, held_out = dataset.rows("train"), dataset.rows("val", "test")
    real, unseen = task.pool(train), task.pool(held_out)
    sieve = Sieve(config.filters, config, real, task.pool(dataset.rows("val")), realness)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    workers = 1 if device == "cuda" else config.workers
    trained, table, parts = arms(config, samplers), dataset.table.iloc[held_out], []
    with Progress(total=len(trained) * config.seeds, unit="classifier", desc="utility") as bar:
        for seed in range(config.seeds):
            pools = {
                name: _pool(task, sampler, len(train) * config.most_drawn, seed=config.pool_seed + seed)
                for name, sampler in samplers.items()
            }
            untrained = task.new(seed, device)
            if "synthetic" in pools:
                pools |= sieve.sift(pools["synthetic"], untrained, seed)
                trained = [arm for arm in trained if arm.sampler not in sieve.poor]

            def work(arm: Arm, seed: int = seed, pools: Pools = pools, model: nn.Module = untrained) -> np.ndarray:
                synthetic = _synthetic(arm, pools, len(train), seed=seed)
                return task.score(task.train(deepcopy(model), real, synthetic, plan=arm.plan, seed=seed), unseen)

            for arm, result in zip(trained, side_by_side(work, trained, workers), strict=True):
                facts = {"arm": arm.name, "role": arm.role, "seed": seed, "split": table["split"], "row": held_out}
                facts |= {"patient": table["patient"], "label": dataset.labels[held_out], "score": result}
                parts.append(pd.DataFrame(facts))
                bar.update()
    scored = pd.concat(parts)
    kept = scored[scored["arm"].isin([arm.name for arm in trained])]
    return Predictions(kept, dataset.meta.classes, task.measure, sieve.notes)


def _pool(task: Task, sampler: Any, count: float, *, seed: int) -> Pool:
    """At least `count` slices, of all classes in turn."""
    classes = len(task.dataset.meta.classes)
    labels = np.arange(math.ceil(count / classes) * classes) % classes
    return task.draw(sampler, labels, seed)


def _synthetic(arm: Arm, pools: Pools, real: int, *, seed: int) -> Pool | None:
    """The first slices of the arm's pool, `arm.ratio` for each real one."""
    if not arm.sampler:
        return None
    pool = pools[arm.sampler]
    count = min(math.ceil(real * arm.ratio / 2) * 2, len(pool.labels))
    labels = pool.labels[:count]
    if arm.shuffled:
        labels = np.random.default_rng(seed).permutation(labels)
    return Pool(pool.images[:count], labels)
