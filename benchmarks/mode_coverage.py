"""Stacked digits: of 1000 equally frequent modes, how many does each family draw?

    python benchmarks/mode_coverage.py [--kimg 40] [--samples 10000] [--only FAMILY ...] [--out FOLDER]

As stacked MNIST (Metz et al., arXiv 1611.02163), scaled down: scikit-learn's digits, 8×8 enlarged to 32×32, three at
random as the channels of a picture. Unconditional, narrow networks for a CPU, one seed. A support vector machine that
was trained on the digits reads each channel of `--samples` pictures; a perfect generator reaches 1000. The divergence
is that of the modes' frequencies from equal ones (KL, nats), of which as many real pictures have the value printed.
"""

import argparse
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from narrow import narrow
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor

from lungsynth.generators.family import GeneratorConfig, families, family
from lungsynth.generators.package import to_uint8
from lungsynth.training import TrainingConfig
from lungsynth.training.config import with_recipe
from lungsynth.training.devices import launch
from lungsynth.training.loop import _step
from lungsynth.training.pace import Pace
from lungsynth.training.state import TrainingState

SIDE, STACKS, MODES = 32, 20_000, 1000


def main() -> None:
    """Train, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kimg", type=float, default=40, help="length of each run")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", default=families(), choices=families())
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    parser.add_argument("--out", type=Path, default=Path("outputs/modes"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pixels, names = load_digits(return_X_y=True)
    digits = (pixels.reshape(-1, 8, 8) * 255 / 16).round().astype(np.uint8)
    reader = SVC(gamma=0.001, C=10).fit(pixels[::2], names[::2])
    accuracy = reader.score(pixels[1::2], names[1::2])
    stacks = _stack(digits, np.random.default_rng(0), STACKS)
    print(f"digits read right: {accuracy:.1%} of those that the machine was not trained on")
    found, divergence = _modes(_stack(digits, np.random.default_rng(1), options.samples), reader)
    print(f"{'real pictures':14}{found:6} modes of {MODES}, divergence {divergence:.3f}", flush=True)
    for name in options.only:
        drawn = _generate(stacks, name, options)
        found, divergence = _modes(drawn, reader)
        print(f"{name:14}{found:6} modes of {MODES}, divergence {divergence:.3f}", flush=True)
        sheet = drawn[:96].transpose(0, 2, 3, 1).reshape(8, 12, SIDE, SIDE, 3).swapaxes(1, 2)
        Image.fromarray(sheet.reshape(8 * SIDE, 12 * SIDE, 3)).save(options.out / f"{name}.png")


def _stack(digits: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Pictures uint8 N×3×32×32 of three digits each."""
    chosen = digits[rng.integers(len(digits), size=(count, 3))]
    return chosen.repeat(SIDE // 8, axis=2).repeat(SIDE // 8, axis=3)


def _modes(pictures: np.ndarray, reader: SVC) -> tuple[int, float]:
    """How many modes occur, and the divergence of their frequencies from equal ones."""
    small = pictures.reshape(len(pictures), 3, 8, SIDE // 8, 8, SIDE // 8).mean(axis=(3, 5)) * 16 / 255
    read = reader.predict(small.reshape(-1, 64)).reshape(-1, 3)
    counts = np.bincount(read @ [100, 10, 1], minlength=MODES)
    shares = counts[counts > 0] / counts.sum()
    return int((counts > 0).sum()), float((shares * np.log(shares * MODES)).sum())


class Stacks:
    """A `Source` of pictures uint8 N×3×H×W, which the library's own does not hold: slices have one channel."""

    def __init__(self, pictures: np.ndarray) -> None:
        self._pictures = torch.from_numpy(pictures)

    def batch(self, step: int, size: int, *, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """Pictures B×3×H×W in [-1, 1], drawn with replacement, and the code 0 for each."""
        places = np.random.default_rng([0, step]).integers(len(self._pictures), size=size)
        return self._pictures[places].float() / 127.5 - 1, torch.zeros(size, dtype=torch.int64)


def _in_colour(name: str, network: dict[str, Any]) -> GeneratorConfig:
    """The architecture, unconditional and for three channels."""

    class InColour(family(name).config):
        planes: ClassVar[int] = 3

    noise = {"nz": 3 * SIDE**2} if name == "edm" else {}  # a number for each value of a picture
    return InColour.model_validate({"family": name, "size": SIDE, "classes": ()} | network | noise)


def _generate(stacks: np.ndarray, name: str, options: argparse.Namespace) -> np.ndarray:
    """Pictures uint8 N×3×32×32 of the family, trained on `stacks` by the library's step."""
    network, settings = narrow(name, options.kimg)
    generator = _in_colour(name, network)
    run = {"kimg": options.kimg, "device": "cpu", "augment": {"translate": 0}}
    training = TrainingConfig.model_validate(with_recipe(generator, settings | run))
    fabric = launch(training)
    state, source = TrainingState.new(generator, training, fabric.device), Stacks(stacks)
    pace = Pace(options.threads)
    while state.kimg < options.kimg:
        pace.timed(lambda: _step(state, source, training, fabric=fabric))
    latents = torch.randn(options.samples, generator.nz, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(64, dtype=torch.int64)
    with torch.inference_mode():
        drawn = [to_uint8(state.average(part, labels[: len(part)])).numpy() for part in latents.split(64)]
    return np.concatenate(drawn)


if __name__ == "__main__":
    main()
