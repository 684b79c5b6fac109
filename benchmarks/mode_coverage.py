"""Stacked digits: of 1000 equally frequent modes, how many does each family draw?

    python benchmarks/mode_coverage.py [--kimg 40] [--samples 10000] [--only FAMILY ...] [--out FOLDER]

As stacked MNIST (Metz et al., arXiv 1611.02163), scaled down: scikit-learn's digits, 8×8 enlarged to 32×32, three at
random as the channels of a picture. Unconditional, narrow networks for a CPU, one seed. A support vector machine that
was trained on the digits reads each channel of `--samples` pictures; a perfect generator reaches 1000. The divergence
is that of the modes' frequencies from equal ones (KL, nats), of which as many real pictures have the value printed.
"""

import argparse
from pathlib import Path

import numpy as np
from narrow import narrow
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from lungsynth.generators.family import GeneratorConfig, families
from lungsynth.training import Slices, TrainingConfig, train_generator
from lungsynth.training.config import with_recipe

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


def _generate(stacks: np.ndarray, name: str, options: argparse.Namespace) -> np.ndarray:
    network, settings = narrow(name, options.kimg)
    own = {"family": name, "size": SIDE, "channels": 3, "classes": ()}
    generator = GeneratorConfig.model_validate(own | network)
    run = {"kimg": options.kimg, "threads": options.threads, "device": "cpu", "augment": {"translate": 0}}
    looks = {"monitor": {"every_kimg": options.kimg, "collapse_below": 0}, "snapshot_kimg": options.kimg / 20}
    package = train_generator(
        Slices.all(stacks, np.zeros(len(stacks), np.int64)),
        None,
        window_hu=None,
        data_sha256="stacked digits",
        generator=generator,
        training=TrainingConfig.model_validate(with_recipe(generator, settings | run | looks)),
        folder=options.out / name,
        checkpoints=options.out / "checkpoints",
    )
    return package.sample(np.zeros(options.samples, np.int64), seed=1)


if __name__ == "__main__":
    main()
