"""Tasks for which synthetic slices may be useful: classification of two classes, or segmentation of the masks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from torch import nn

from lungsynth.dataset.store import SliceDataset
from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.sampler import draw, draw_pairs
from lungsynth.evaluation.statistics import Measure
from lungsynth.evaluation.utility.classifier import (
    BatchPlan,
    ClassifierConfig,
    Pool,
    new_classifier,
    scores,
    train_classifier,
)
from lungsynth.evaluation.utility.segmenter import SIDE, dice, new_segmenter, train_segmenter

TaskName = Literal["classification", "segmentation"]


@dataclass(frozen=True)
class Task(ABC):
    """The training and the scoring of every arm's models on a dataset."""

    dataset: SliceDataset
    config: ClassifierConfig
    measure: ClassVar[Measure]
    plain: ClassVar[tuple[str, ...]]
    """Arms without synthetic slices that apply to the task."""

    @abstractmethod
    def check(self) -> None:
        """Raise a LungsynthError if the dataset does not allow the task."""

    @abstractmethod
    def pool(self, rows: np.ndarray) -> Pool:
        """The dataset's slices of these rows, with their labels or masks."""

    @abstractmethod
    def draw(self, sampler: Any, labels: np.ndarray, seed: int) -> Pool:
        """Synthetic slices of these class codes, from a `Sampler`, or from a `PairSampler` where masks are learnt."""

    @abstractmethod
    def new(self, seed: int, device: str) -> nn.Module:
        """An untrained model, whose weights follow from `seed`."""

    @abstractmethod
    def train(self, model: nn.Module, real: Pool, synthetic: Pool | None, *, plan: BatchPlan, seed: int) -> nn.Module:
        """Train `model` on batches of `plan`; with one `seed`, all plans see the same real slices."""

    @abstractmethod
    def score(self, model: nn.Module, slices: Pool) -> np.ndarray:
        """One number float64 for each slice, as `Predictions` hold it."""


class Classification(Task):
    """Two classes; a slice's score is the probability of the positive one."""

    measure = "AUROC"
    plain = ("real", "real+balanced", "real+classical", "real+classical+mix")

    def check(self) -> None:
        classes = self.dataset.meta.classes
        if len(classes) != 2:
            raise LungsynthError(
                f"utility is measured on two classes, the dataset has {len(classes)} ({', '.join(classes)}): "
                "choose two, the positive one last, by cohort.classes"
            )
        for split in SPLITS:
            present = set(self.dataset.table["label"].iloc[self.dataset.rows(split)])
            for name in classes:
                if name not in present:
                    raise LungsynthError(
                        f"the {split} split has no {name} slice: enlarge the cohort or change the split's shares or "
                        "salt"
                    )

    def pool(self, rows: np.ndarray) -> Pool:
        return Pool(np.array(self.dataset.images[rows]), self.dataset.labels[rows])

    def draw(self, sampler: Any, labels: np.ndarray, seed: int) -> Pool:
        return Pool(draw(sampler, labels, seed, size=self.dataset.meta.size), labels)

    def new(self, seed: int, device: str) -> nn.Module:
        return new_classifier(self.config, seed, device)

    def train(self, model: nn.Module, real: Pool, synthetic: Pool | None, *, plan: BatchPlan, seed: int) -> nn.Module:
        return train_classifier(model, real, synthetic, plan=plan, seed=seed, config=self.config)

    def score(self, model: nn.Module, slices: Pool) -> np.ndarray:
        return scores(model, slices.images)


class Segmentation(Task):
    """The masks are learnt, whatever the classes; a slice's score is its Dice coefficient."""

    measure = "Dice"
    plain = ("real", "real+classical")

    def check(self) -> None:
        if self.dataset.masks is None:
            raise LungsynthError("utility.task segmentation needs masks: build the slices with slices.masks: true")
        if self.dataset.meta.size % SIDE:
            raise LungsynthError(
                f"utility.task segmentation halves slices four times: slices.size is {self.dataset.meta.size}, choose "
                f"a multiple of {SIDE}"
            )
        for split in SPLITS:
            if not len(self.dataset.rows(split)):
                raise LungsynthError(f"the {split} split is empty: enlarge the cohort or change the split's shares")

    def pool(self, rows: np.ndarray) -> Pool:
        assert self.dataset.masks is not None
        return Pool(np.array(self.dataset.images[rows]), np.array(self.dataset.masks[rows]))

    def draw(self, sampler: Any, labels: np.ndarray, seed: int) -> Pool:
        return Pool(*draw_pairs(sampler, labels, seed, size=self.dataset.meta.size))

    def new(self, seed: int, device: str) -> nn.Module:
        return new_segmenter(self.config, self.dataset.meta.size, seed, device=device)

    def train(self, model: nn.Module, real: Pool, synthetic: Pool | None, *, plan: BatchPlan, seed: int) -> nn.Module:
        return train_segmenter(model, real, synthetic, plan=plan, seed=seed, config=self.config)

    def score(self, model: nn.Module, slices: Pool) -> np.ndarray:
        return dice(model, slices.images, slices.labels)


TASKS: dict[TaskName, type[Task]] = {"classification": Classification, "segmentation": Segmentation}
