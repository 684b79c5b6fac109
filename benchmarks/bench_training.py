"""Images a second of the engine's step, beside a textbook loop of the same networks and the same loss.

    python benchmarks/bench_training.py [--family dcgan] [--size 64] [--batch 64] [--threads 2] [--rounds 7]

The textbook: float32, one pass for real and one for synthetic slices, gradients for everything, torch's plain Adam, a
DataLoader over tensors or PNG files, and `.item()` of both losses in each step, for the log. Both run in this process,
in alternating rounds; what counts is the median of the rounds' ratios.

"The same work" is the loss with its penalties, without augmentation, path length and controller. What only ours does
at all times: balanced draws, scaling on the device, the average of the weights. On a GPU all families and sizes of the
issue are measured, and the recipe's own step, in seconds a thousand slices, beside StyleGAN2-ADA's published ones.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lungsynth.generators.family import GeneratorConfig, family
from lungsynth.training import Slices, TrainingConfig
from lungsynth.training.config import with_recipe
from lungsynth.training.data import Source, fit
from lungsynth.training.devices import fast_kernels, launch
from lungsynth.training.loop import _step
from lungsynth.training.losses import (
    DISCRIMINATOR_LOSSES,
    GENERATOR_LOSSES,
    AdversarialLoss,
    relativistic_generator,
    zero_centred_penalty,
)
from lungsynth.training.schedule import at
from lungsynth.training.state import TrainingState

COUNT = 2000
"""Slices, of noise."""
SAME_WORK = {"augment": {"translate": 0, "scale": 0, "rotate_degrees": 0, "brightness": 0, "cutout": 0}}
ADA_S_PER_KIMG = {128: 6.8, 256: 12.5, 512: 41.1}
"""Seconds for a thousand images on one A100: documentation of NVIDIA's stylegan2-ada-pytorch."""

Run = Callable[[int], None]
"""Makes so many steps."""


class PngFiles(Dataset):
    """Slices as PNG files, in memory: decoding counts, the disk does not."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.files, self.labels = [], torch.from_numpy(labels)
        for image in images:
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            self.files.append(file)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        image = torch.from_numpy(np.array(Image.open(self.files[place])))
        return image[None].float() / 127.5 - 1, self.labels[place]


def main() -> None:
    """Measure, and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="dcgan")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=64, help="ngf and ndf of dcgan")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if torch.cuda.is_available():
        _measure_gpu(options.batch, options.rounds)
        return
    print("no GPU: measured on the CPU alone")
    fields = {"family": options.family, "size": options.size}
    if options.family == "dcgan":
        fields |= {"nz": 100, "ngf": options.width, "ndf": options.width}
    _measure_cpu(fields, options.batch, options.rounds)


def _measure_cpu(fields: dict, batch: int, rounds: int) -> None:
    generator = GeneratorConfig.model_validate(fields)
    bare = SAME_WORK | {"loss": {"r1_gamma": 0, "r2_gamma": 0, "path_length": 0}}
    training = _training(generator, batch, bare)
    images, labels = _slices(generator.size)
    tensors = TensorDataset(torch.from_numpy(images)[:, None].float() / 127.5 - 1, torch.from_numpy(labels))
    runs = {
        "textbook, tensors": _textbook(generator, training, tensors),
        "textbook, PNG files": _textbook(generator, training, PngFiles(images, labels)),
        "ours, the same work": _ours(generator, training),
        "ours, the recipe": _ours(generator, _training(generator, batch, {})),
        "ours, the same work, bfloat16": _ours(
            generator, _training(generator, batch, bare | {"precision": "bfloat16"})
        ),
    }
    times = _race(runs, steps=1, rounds=rounds)
    print(f"{generator.family} {generator.size}², batch {batch}, {torch.get_num_threads()} threads, median of {rounds}")
    for name, taken in times.items():
        ratios = [_ratio(times[f"textbook, {data}"], taken) for data in ("tensors", "PNG files")]
        print(f"{name:30s} {batch / statistics.median(taken):7.1f} img/s   {ratios[0]}   {ratios[1]}")
    print("ratios to the textbook with tensors and with PNG files; asked for: at least 1.3")


def _measure_gpu(batch: int, rounds: int) -> None:
    print(torch.cuda.get_device_name())
    for name in ("r3gan", "stylegan2"):
        for size in (128, 256, 512):
            generator = GeneratorConfig.model_validate({"family": name, "size": size})
            bare = SAME_WORK | {"loss": {"path_length": 0}, "precision": "bfloat16"}
            training = _training(generator, batch, bare)
            images, labels = _slices(size)
            tensors = TensorDataset(torch.from_numpy(images)[:, None].float() / 127.5 - 1, torch.from_numpy(labels))
            torch.cuda.reset_peak_memory_stats()
            runs = {
                "textbook": _textbook(generator, training, tensors),
                "ours": _ours(generator, training),
                "recipe": _ours(generator, _training(generator, batch, {"precision": "bfloat16"})),
            }
            with fast_kernels(torch.device("cuda")):
                times = _race(runs, steps=16, rounds=rounds)
            kimg, memory = 1000 / batch * statistics.median(times["recipe"]), torch.cuda.max_memory_allocated() / 1e9
            ratio = _ratio(times["textbook"], times["ours"])
            print(f"{name} {size}²   ours to the textbook, the same work: {ratio}   asked for at 128² and 256²: 2.5")
            print(f"    the recipe: {kimg:.1f} s/kimg; StyleGAN2-ADA on an A100: {ADA_S_PER_KIMG[size]}")
            print(f"    {memory:.1f} GB for all three")


def _training(generator: GeneratorConfig, batch: int, changes: dict) -> TrainingConfig:
    return TrainingConfig.model_validate(with_recipe(generator, {"batch": batch, **changes}))


def _slices(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (COUNT, size, size), dtype=np.uint8), np.arange(COUNT) % 2


def _ours(generator: GeneratorConfig, training: TrainingConfig) -> Run:
    fabric = launch(training)
    state = TrainingState.new(generator, training, fabric.device)
    slices = Slices.all(*_slices(generator.size))
    resident = fit(slices, fabric.device)
    source = Source(slices, balanced=True, seed=0, device=fabric.device, resident=resident)

    def run(steps: int) -> None:
        for _ in range(steps):
            _step(state, source, training, fabric=fabric)

    return run


def _textbook(config: GeneratorConfig, training: TrainingConfig, data: Dataset) -> Run:
    """What a tutorial does."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts, loss = family(config.family), training.loss
    assert parts.discriminator is not None
    assert isinstance(loss, AdversarialLoss)
    generator, discriminator = parts.generator(config).to(device), parts.discriminator(config).to(device)
    gammas = at(loss.r1_gamma, 0), at(loss.r2_gamma, 0)
    optimizer_g, optimizer_d = (torch.optim.Adam(net.parameters(), lr=1e-4) for net in (generator, discriminator))
    batches = _endless(DataLoader(data, batch_size=training.batch, shuffle=True, drop_last=True))
    log = []

    def run(steps: int) -> None:
        for step in range(steps):
            real, labels = (part.to(device) for part in next(batches))
            penalised = step % loss.penalty_every == 0 and max(gammas) > 0
            real.requires_grad_(penalised)
            discriminator.zero_grad()
            fake = generator(torch.randn(len(real), config.nz, device=device), labels)
            shown = fake.detach().requires_grad_(penalised)
            scores = discriminator(real, labels), discriminator(shown, labels)
            loss_d = total = DISCRIMINATOR_LOSSES[loss.kind](*scores)
            if penalised:
                for gamma, side, images in zip(gammas, scores, (real, shown), strict=True):
                    total = total + loss.penalty_every * gamma * zero_centred_penalty(side, images)
            total.backward()
            optimizer_d.step()
            generator.zero_grad()
            passed = discriminator(fake, labels)
            if loss.kind == "relativistic":
                loss_g = relativistic_generator(discriminator(real, labels), passed)
            else:
                loss_g = GENERATOR_LOSSES[loss.kind](passed)
            loss_g.backward()
            optimizer_g.step()
            log.append((loss_d.item(), loss_g.item()))

    return run


def _endless(loader: DataLoader) -> Iterator[list[Tensor]]:
    while True:
        yield from loader


def _race(runs: dict[str, Run], steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each, in each round."""
    for run in runs.values():
        run(2 * steps)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            _wait()
            start = time.perf_counter()
            run(steps)
            _wait()
            times[name].append((time.perf_counter() - start) / steps)
    return times


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _ratio(theirs: list[float], ours: list[float]) -> str:
    ratios = sorted(one / other for one, other in zip(theirs, ours, strict=True))
    return f"{statistics.median(ratios):.2f}× ({ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
