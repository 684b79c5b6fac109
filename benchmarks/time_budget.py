"""Quality for a time budget: our generator beside PyTorch's DCGAN tutorial, on the same slices, for as long.

    python benchmarks/time_budget.py [--data FOLDER] [--config configs/phantom.yaml] [--widths 64 24] [--out FOLDER]

Ours is trained as the run file says, then the tutorial's loop (its networks of `--widths`, BCE, Adam 2e-4, batches of
128, float32) for the same seconds. `--data` is the folder of a slice dataset; without it 160 phantoms are simulated
first, some 1,100 slices to train on. KID is that of as many synthetic slices as `val` has against `val`, in the
features of the lung extractor, trained here on `train`; with `--against train`, for sets of a handful of patients,
against what was trained on. The row of the real slices is the other split against it. Grids go to `--out`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from phantoms import extractor, simulate, train
from PIL import Image
from torch import nn

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.fidelity.distances import DistancesConfig, kernels, kid
from lungsynth.generators.package import to_uint8
from lungsynth.training.snapshots import COLUMNS, grid

NZ, BATCH, RATE, BETAS = 100, 128, 2e-4, (0.5, 0.999)  # of the tutorial


def main() -> None:
    """Train both, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of a slice dataset of 64 px")
    parser.add_argument("--config", type=Path, default=Path("configs/phantom.yaml"))
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 24], help="the tutorial's ngf and ndf")
    parser.add_argument("--against", choices=("val", "train"), default="val")
    parser.add_argument("--out", type=Path, default=Path("outputs/time_budget"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    dataset = SliceDataset(options.data) if options.data else simulate(160, options.out)
    seen, judged = dataset.rows("train"), dataset.rows(options.against)
    other = dataset.rows("val" if options.against == "train" else "train")
    judge = extractor(dataset, options.out / "extractor")
    real = judge.features(dataset.images[judged])

    def score(name: str, images: np.ndarray, kimg: float, seconds: float) -> None:
        value = kid(kernels(real, judge.features(images)), DistancesConfig())
        print(f"{name:24}{kimg:8.0f} kimg{seconds:8.0f} s   KID (lung) {value:.4f}", flush=True)
        shown = min(32, len(images) // COLUMNS * COLUMNS)
        Image.fromarray(grid(images[:: len(images) // shown][:shown])).save(options.out / f"{name}.png")

    print(f"{len(seen)} slices to train on, {len(judged)} to compare with, {torch.get_num_threads()} threads")
    score("real slices", dataset.images[other[: len(judged)]], 0, 0)
    started = time.perf_counter()
    package = train(dataset, options.config, options.out)
    seconds = time.perf_counter() - started
    rows = [json.loads(line) for line in (package.folder / "training_log.jsonl").read_text().splitlines()]
    score("ours", package.sample(dataset.labels[judged], seed=1), rows[-1]["kimg"], seconds)
    for width in options.widths:
        images, kimg = _tutorial(dataset.images[seen], width, seconds, len(judged))
        score(f"tutorial, width {width}", images, kimg, seconds)


def _tutorial(slices: np.ndarray, width: int, seconds: float, count: int) -> tuple[np.ndarray, float]:
    """Slices uint8 N×H×W by the tutorial's loop after so many seconds, and how many kimg these were."""
    torch.manual_seed(0)
    generator, discriminator = _generator(width), _discriminator(width)
    for module in (*generator.modules(), *discriminator.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
    images = torch.from_numpy(slices)[:, None].float() / 127.5 - 1
    loader = torch.utils.data.DataLoader(images, BATCH, shuffle=True, drop_last=True)
    optimizers = [torch.optim.Adam(network.parameters(), RATE, BETAS) for network in (generator, discriminator)]
    criterion, shown, started = nn.BCEWithLogitsLoss(), 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for real in loader:
            fake = generator(torch.randn(len(real), NZ, 1, 1))
            ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
            discriminator.zero_grad()
            loss_d = criterion(discriminator(real), ones) + criterion(discriminator(fake.detach()), zeros)
            loss_d.backward()
            optimizers[1].step()
            generator.zero_grad()
            criterion(discriminator(fake), ones).backward()
            optimizers[0].step()
            shown += len(real)
            if time.perf_counter() - started >= seconds:
                break
    with torch.inference_mode():  # batch norm by the batch, as the tutorial draws: its running means lag behind
        drawn = [to_uint8(generator(torch.randn(min(64, count - done), NZ, 1, 1))) for done in range(0, count, 64)]
    return torch.cat(drawn)[:, 0].numpy(), shown / 1000


def _generator(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, stride in ((NZ, 8 * width, 1), (8 * width, 4 * width, 2), (4 * width, 2 * width, 2)):
        layers += _up(before, after, stride)
    layers += _up(2 * width, width, 2)
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, 1, 4, 2, 1, bias=False), nn.Tanh())


def _up(before: int, after: int, stride: int) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(before, after, 4, stride, stride - 1, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU(True)]


def _discriminator(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for factor in (1, 2, 4):
        convolution = nn.Conv2d(factor * width, 2 * factor * width, 4, 2, 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(2 * factor * width), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 0, bias=False), nn.Flatten(0))


if __name__ == "__main__":
    main()
