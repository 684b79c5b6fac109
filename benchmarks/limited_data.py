"""What adaptive augmentation (ADA) is worth where slices are few: KID with it, over KID without, after equal training.

    python benchmarks/limited_data.py [--data FOLDER] [--slices 200] [--kimg 40] [--seeds 2] [--out FOLDER]

`--data` is the folder of a slice dataset; without it 300 phantoms are simulated first. The slices to train on are drawn
from its `train` split. KID is that of as many synthetic slices as `val` has, against `val`, in the features of
`lungsynth.training.random_features`, on the scale of all of `train`. The weights are the last, not the best: nothing is
chosen by `val`. Pictures of each run go to `--out`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from phantoms import simulate

from lungsynth.dataset.store import SliceDataset
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.generators.package import GeneratorPackage
from lungsynth.training import Slices, TrainingConfig, TrainingRun, train_generator
from lungsynth.training.augment import AugmentConfig
from lungsynth.training.config import with_recipe
from lungsynth.training.random_features import Scale, features, filters, squared_mmd

GENERATOR = {"nz": 64, "ngf": 16, "ndf": 16}
TRAINING = {
    "batch": 32,
    "generator_lr": 1e-3,
    "discriminator_lr": 1e-3,
    "beta2": 0.99,
    "threads": 1,
    "device": "cpu",
    "monitor": {"collapse_below": 0},  # an arm that collapses is a result
}
ADAPT_SHARE = 0.2
"""Of the run, in which p can go from 0 to 1: ADA's 500 kimg would be longer than the whole."""
NONE = "no augmentation"
ADA = "ADA"


def main() -> None:
    """Train every arm with every seed, and print KID and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of a slice dataset")
    parser.add_argument("--slices", type=int, default=200, help="to train on")
    parser.add_argument("--kimg", type=float, default=40, help="length of each run")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each arm; another seed draws other slices too")
    parser.add_argument("--out", type=Path, default=Path("outputs/limited_data"))
    options = parser.parse_args()
    _compare(SliceDataset(options.data) if options.data else simulate(300, options.out), options)


def arms(kimg: float) -> dict[str, AugmentConfig]:
    """What is compared: no augmentation, and all that keeps HU and situs, as often as ADA finds right."""
    everything = {"translate": 0.125, "scale": 0.1, "rotate_degrees": 10, "brightness": 0.01, "cutout": 0.25}
    adaptive = AugmentConfig(**everything, target=0.6, adjust_kimg=ADAPT_SHARE * kimg)
    return {NONE: AugmentConfig(translate=0, p=0), ADA: adaptive}


def _compare(dataset: SliceDataset, options: argparse.Namespace) -> None:
    network = filters(dataset.meta.size, torch.device("cpu"))
    scale = Scale.of(features(dataset.images[dataset.rows("train")][:, None], network))

    def describe(images: np.ndarray) -> np.ndarray:
        return scale(features(images[:, None], network))

    val = dataset.rows("val")
    real = describe(dataset.images[val])
    print(f"{options.slices} slices to train on, {options.kimg:g} kimg; {len(val)} slices in val")
    print(f"{'':24}{'KID to val':>10}{'r_t':>8}{'p':>8}{'KID / without':>16}")
    found: dict[str, list[float]] = {name: [] for name in arms(options.kimg)}
    for seed in range(options.seeds):
        rows = np.sort(np.random.default_rng(seed).choice(dataset.rows("train"), options.slices, replace=False))
        print(f"{f'seed {seed}: real slices':24}{squared_mmd(real, describe(dataset.images[rows])):10.4f}")
        for name, augmentation in arms(options.kimg).items():
            package = _train(dataset, rows, augmentation, seed, options, options.out / f"{name}, seed {seed}")
            synthetic = package.sample(dataset.labels[val], seed=1000 + seed)
            found[name].append(squared_mmd(real, describe(synthetic)))
            last = json.loads((package.folder / "training_log.jsonl").read_text().splitlines()[-1])
            numbers = f"{found[name][-1]:10.4f}{last['real_sign']:8.2f}{last['p']:8.2f}"
            print(f"  {name:22}{numbers}{found[name][-1] / found[NONE][-1]:16.2f}", flush=True)
    ratio = np.mean(found[ADA]) / np.mean(found[NONE])
    print(f"mean KID with ADA over mean KID without: {ratio:.2f}×")


def _train(
    dataset: SliceDataset,
    rows: np.ndarray,
    augment: AugmentConfig,
    seed: int,
    options: argparse.Namespace,
    folder: Path,
) -> GeneratorPackage:
    generator = DcganConfig(size=dataset.meta.size, classes=dataset.meta.classes, **GENERATOR)
    settings = {"kimg": options.kimg, "seed": seed, "augment": augment.model_dump()}
    return train_generator(
        TrainingRun(
            Slices(dataset.images, dataset.labels, rows),
            None,
            window_hu=dataset.meta.window_hu,
            data_sha256=dataset.sha256,
            generator=generator,
            training=TrainingConfig.model_validate(with_recipe(generator, TRAINING | settings)),
            folder=folder,
            checkpoints=options.out / "checkpoints",
        )
    )


if __name__ == "__main__":
    main()
