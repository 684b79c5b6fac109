"""Slices for training: uint8, on a GPU if they fit, otherwise read ahead batch by batch."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lungsynth.errors import LungsynthError
from lungsynth.generators.family import GeneratorConfig
from lungsynth.intensity import to_network

MEMORY_FRACTION = 0.25
"""Of a GPU's free memory that slices may take: networks and their gradients need the rest."""
AHEAD = 4
"""Batches that are read before they are asked for."""
PIECE = 64 << 20
"""Bytes that go to the device at once."""


@dataclass(frozen=True)
class Slices:
    """The `rows` of a dataset: `images` uint8 N×H×W, class codes `labels` int64 N, `rows` int64 n.

    `images` and `masks` may be memory maps: a step reads only the rows of its batch. `masks`, uint8 N×H×W of 0 and 1,
    are given if the generator has `masks`.
    """

    images: Any
    labels: np.ndarray
    rows: np.ndarray
    masks: Any = None

    @classmethod
    def all(cls, images: np.ndarray, labels: np.ndarray) -> "Slices":
        """With every row."""
        return cls(images, labels, np.arange(len(labels)))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: np.ndarray) -> np.ndarray:
        """Images uint8 n×1×H×W at these places among `rows`.

        Raises:
            LungsynthError: they cannot be read.
        """
        return self._read(self.images, places)[:, None]

    def planes(self, places: np.ndarray) -> np.ndarray:
        """Images as of `take`; with masks, these are the last channel, 0 and 255."""
        images = self.take(places)
        if self.masks is None:
            return images
        masks = self._read(self.masks, places)
        if masks.max(initial=0) > 1:  # times 255, it would wrap round to black
            raise LungsynthError(f"training data: masks hold {masks.max()}, and not 0 and 1 alone")
        return np.concatenate([images, 255 * masks[:, None]], axis=1)

    def _read(self, array: Any, places: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(array[self.rows[places]])
        except OSError as error:
            raise LungsynthError(f"training data: slices cannot be read: {error}") from error

    @property
    def codes(self) -> np.ndarray:
        """Class codes int64 of `rows`."""
        result: np.ndarray = self.labels[self.rows]
        return result


@dataclass(frozen=True)
class Request:
    """The slices of process `rank` of `world`, in step number `step`, of a batch of `size` slices."""

    step: int
    size: int
    rank: int
    world: int

    def after(self, steps: int) -> "Request":
        """The same, so many steps later."""
        return replace(self, step=self.step + steps)


class Source:
    """Real slices and their class codes, batch by batch; the seed and the step alone determine which ones.

    All slices go to a GPU at the start, where they take at most `MEMORY_FRACTION` of its free memory. Else they stay in
    memory or in files, and a thread reads the next batches while the networks are busy. Where it expects the wrong size
    of the next batch, time is lost, and nothing else.
    """

    def __init__(self, slices: Slices, *, balanced: bool, seed: int, device: torch.device, resident: bool) -> None:
        """`resident`: keep all slices on the device, as `fit` advises."""
        self._slices, self._seed, self._device = slices, seed, device
        codes = slices.codes
        self._order = np.argsort(codes, kind="stable")
        self._counts = np.unique(codes, return_counts=True)[1] if balanced else np.array([len(codes)])
        self._starts = self._counts.cumsum() - self._counts
        self._codes = codes
        self._ahead: deque[tuple[Request, Future[list[Tensor]]]] = deque()
        self._reader = ThreadPoolExecutor(1, "slices")
        self._images = _to_device(slices, device) if resident else None

    def close(self) -> None:
        """End the thread."""
        self._reader.shutdown(cancel_futures=True)

    def batch(self, step: int, size: int, *, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """Images B×C×H×W in [-1, 1] and class codes int64 B: process `rank`'s slices of a batch of `size`.

        They are drawn with replacement; where balanced, each class is equally likely. A mask is the last channel.

        Raises:
            LungsynthError: the slices cannot be read.
        """
        request = Request(step, size, rank, world)
        if self._ahead and self._ahead[0][0] != request:
            for _, read in self._ahead:
                read.cancel()
            self._ahead.clear()
        while len(self._ahead) < AHEAD:
            later = request.after(len(self._ahead))
            self._ahead.append((later, self._reader.submit(self._read, later)))
        images, codes = (part.to(self._device, non_blocking=True) for part in self._ahead.popleft()[1].result())
        if self._images is not None:
            images = self._images[images]
        return to_network(images), codes

    def _read(self, request: Request) -> list[Tensor]:
        """Images (their places where they are on the device) and class codes; in pinned memory for a GPU."""
        rng = np.random.default_rng([self._seed, request.step])
        stratum = rng.integers(len(self._counts), size=request.size)
        drawn = self._starts[stratum] + (rng.random(request.size) * self._counts[stratum]).astype(np.int64)
        places = self._order[np.array_split(drawn, request.world)[request.rank]]
        images = torch.from_numpy(places if self._images is not None else self._slices.planes(places))
        parts = [images, torch.from_numpy(self._codes[places])]
        return [part.pin_memory() for part in parts] if self._device.type == "cuda" else parts


@contextmanager
def source_of(slices: Slices, *, balanced: bool, seed: int, device: torch.device) -> Iterator[Source]:
    """A `Source` for as long as a run lasts."""
    source = Source(slices, balanced=balanced, seed=seed, device=device, resident=fit(slices, device))
    try:
        yield source
    finally:
        source.close()


def fit(slices: Slices, device: torch.device) -> bool:
    """Whether all slices should go to the device at the start; never where the device is a CPU."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return len(slices) * slices.planes(np.arange(1)).nbytes <= MEMORY_FRACTION * free


def _to_device(slices: Slices, device: torch.device) -> Tensor:
    """All slices, uint8 n×C×H×W; copied in pieces, since a memory map may be larger than the memory."""
    first = slices.planes(np.arange(1))
    images = torch.empty(len(slices), *first.shape[1:], dtype=torch.uint8, device=device)
    for piece in torch.arange(len(slices)).split(max(1, PIECE // first.nbytes)):
        images[piece[0] : piece[-1] + 1] = torch.from_numpy(slices.planes(piece.numpy()))
    return images


def check_slices(slices: Slices, generator: GeneratorConfig) -> None:
    """Whether slices, labels and masks fit `generator`.

    Raises:
        LungsynthError: they are not.
    """
    labels, images = slices.labels, slices.images
    expected = (len(labels), generator.size, generator.size)
    if images.dtype != np.uint8 or tuple(images.shape) != expected or not len(slices):
        actual = f"{images.dtype} {'×'.join(map(str, images.shape))} with {len(labels)} labels"
        shape = f"N×{generator.size}×{generator.size}"
        raise LungsynthError(f"training data: need uint8 {shape}, one label each; got {actual}")
    if (slices.masks is not None) != generator.masks:
        raise LungsynthError(
            "generator.masks is true, but the slices have no masks; build them with slices.masks: true"
            if generator.masks
            else "the slices come with masks, but generator.masks is false"
        )
    if slices.masks is not None and tuple(slices.masks.shape) != expected:
        actual = "×".join(map(str, slices.masks.shape))
        raise LungsynthError(f"training data: need a mask of 0 and 1 for each slice, of its size; got {actual}")
    codes = slices.codes
    if generator.classes and not np.isin(codes, np.arange(len(generator.classes))).all():
        raise LungsynthError(f"training data: a label is not the code of one of {', '.join(generator.classes)}")


def check_every_class(train: Slices, generator: GeneratorConfig) -> None:
    """Whether `train` has a slice of each class.

    Raises:
        LungsynthError: there is not.
    """
    absent = [name for code, name in enumerate(generator.classes) if code not in train.codes]
    if absent:
        raise LungsynthError(f"training data: no slice of the class {absent[0]}; add some, or train without classes")
