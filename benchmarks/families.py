"""Every family of generators on the same slices, for the same kimg: KID and recall beside the floor and noise.

    python benchmarks/families.py [--data FOLDER] [--kimg 48] [--slices 5000] [--only FAMILY ...] [--out FOLDER]

`--data` is the folder of a slice dataset; without it 740 phantoms are simulated first, in the working folder. Networks
are narrow, for a CPU; one seed. KID and recall (torch-fidelity's) are of as many synthetic slices as `val` has against
`val`, in the features of the lung extractor, trained here on `train`. The columns «half» and «end» are the KID in the
features of `lungsynth.training.random_features` that each run logs of itself: is it better than its own half-trained
self? The interval of KID (±1.96 standard errors) comes from resampled patients and synthetic slices; it knows nothing
of other seeds of training. Grids and packages go to `--out`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from narrow import narrow
from phantoms import extractor, simulate
from torch_fidelity.metric_prc import KEY_METRIC_RECALL, prc_features_to_metric

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.fidelity.distances import DistancesConfig, kernels, kid, kid_draws
from lungsynth.evaluation.fidelity.sides import Images
from lungsynth.generators.family import GeneratorConfig, families
from lungsynth.generators.package import GeneratorPackage
from lungsynth.training import Slices, TrainingConfig, TrainingRun, train_generator
from lungsynth.training.config import with_recipe


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of a slice dataset")
    parser.add_argument("--kimg", type=float, default=48, help="length of each run")
    parser.add_argument("--slices", type=int, default=5000, help="to train on")
    parser.add_argument("--only", nargs="+", default=families(), choices=families())
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's choice")
    parser.add_argument("--out", type=Path, default=Path("outputs/families"))
    options = parser.parse_args()
    dataset = SliceDataset(options.data) if options.data else simulate(740, options.out)
    rows, val = dataset.rows("train"), dataset.rows("val")
    rows = np.sort(np.random.default_rng(0).choice(rows, min(options.slices, len(rows)), replace=False))
    judge = extractor(dataset, options.out / "extractor")
    patients = dataset.table["patient"].to_numpy(str)
    real = _images(judge, dataset.images[val], patients[val])

    def scores(images: np.ndarray, clusters: np.ndarray) -> str:
        found = _images(judge, images, clusters)
        recall = prc_features_to_metric(*(torch.from_numpy(side.values) for side in (found, real)), verbose=False)
        between = kernels(real.values, found.values)
        value = kid(between, DistancesConfig())
        reach = 1.96 * kid_draws(between, real, found, config=DistancesConfig()).std(ddof=1)
        return f"{value:>12.4f} ±{reach:<7.4f}{recall[KEY_METRIC_RECALL]:>8.2f}"

    shown, each = rows[: len(val)], np.arange(len(val))
    noise = np.random.default_rng(0).integers(0, 256, (len(val), dataset.meta.size, dataset.meta.size), np.uint8)
    print(f"{len(rows)} slices to train on, {len(val)} in val, {options.kimg:g} kimg, seed 0")
    print(f"{'':12}{'parameters':>11}{'img/s':>7}{'half':>8}{'end':>8}{'KID (lung)':>12}{'':9}{'recall':>8}")
    print(f"{'real slices':46}{scores(dataset.images[shown], patients[shown])}")
    print(f"{'noise':46}{scores(noise, each)}", flush=True)
    for name in options.only:
        started = time.perf_counter()
        package = _train(dataset, rows, name, options)
        seconds = time.perf_counter() - started
        log = [json.loads(line) for line in (package.folder / "training_log.jsonl").read_text().splitlines()]
        looks = [row for row in log if "kid_val" in row]
        half = min(looks, key=lambda row: abs(row["kimg"] - options.kimg / 2))["kid_val"]
        parameters = sum(parameter.numel() for parameter in package.load().parameters())
        speed = options.kimg * 1000 / seconds
        drawn = scores(package.sample(dataset.labels[val], seed=1), each)
        print(f"{name:12}{parameters:11,}{speed:7.0f}{half:8.3f}{looks[-1]['kid_val']:8.3f}{drawn}", flush=True)


def _images(judge: Extractor, images: np.ndarray, clusters: np.ndarray) -> Images:
    return Images(judge.features(images), np.zeros(len(images), int), np.unique(clusters, return_inverse=True)[1])


def _train(dataset: SliceDataset, rows: np.ndarray, name: str, options: argparse.Namespace) -> GeneratorPackage:
    network, settings = narrow(name, options.kimg)
    own = {"family": name, "size": dataset.meta.size, "classes": dataset.meta.classes}
    generator = GeneratorConfig.model_validate(own | network)
    shared = {"kimg": options.kimg, "threads": options.threads, "device": "cpu"}
    looks = {"monitor": {"every_kimg": options.kimg / 8, "collapse_below": 0}, "snapshot_kimg": options.kimg / 20}
    return train_generator(
        TrainingRun(
            Slices(dataset.images, dataset.labels, rows),
            Slices(dataset.images, dataset.labels, dataset.rows("val")),
            window_hu=dataset.meta.window_hu,
            data_sha256=dataset.sha256,
            generator=generator,
            training=TrainingConfig.model_validate(with_recipe(generator, shared | looks | settings)),
            folder=options.out / name,
            checkpoints=options.out / "checkpoints",
        )
    )


if __name__ == "__main__":
    main()
