"""From which share of copies on does the privacy audit find a breach, and by which check?

    python benchmarks/privacy_power.py [--data FOLDER] [--shares 0 0.01 0.05 0.2] [--audits 10] [--out FOLDER]

`--data` is the folder of a slice dataset; without it 740 phantoms are simulated first. Before each audit its patients
are dealt anew: `--train` of them are trained on, `--held-out` are not, and from all others come the slices of a perfect
generator, some of which are replaced by copies of training slices. At a share of 0 every breach is a false alarm.
Plain copies are shifted by up to a pixel and have a little noise. Moved ones are mirrored each second time, turned by
up to 5° and shifted by up to 5 pixels. Disguised ones are turned and zoomed by up to 3°, 3 %, shifted by up to 2 px,
have twice the noise and another brightness, and shine through with a fifth of another slice of their class.
The lung extractor is trained anew for each deal.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from phantoms import simulate

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.extractor import ExtractorConfig, train_extractor
from lungsynth.evaluation.privacy.audit import audit_privacy
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.quantities import (
    DISTANCE_RATIO,
    DUPLICATES,
    MEMBERSHIP,
    NEAR,
    PATIENTS_NEAR,
    VERBATIM,
    Quantity,
)
from lungsynth.evaluation.sampler import Sampler
from lungsynth.evaluation.scorecard import Measurand, Metric
from lungsynth.evaluation.utility.classifier import ClassicalConfig, augment, to_input
from lungsynth.generators.package import to_uint8

Disguise = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""(slices to copy uint8 N×H×W, others of the same classes, seed) -> copies uint8 N×H×W."""
BREACHES: dict[Quantity, Callable[[Metric, PrivacyConfig], bool]] = {
    NEAR: lambda found, config: found.low > config.allowed_near,
    DUPLICATES: lambda found, config: found.low > config.allowed_duplicates,
    VERBATIM: lambda found, config: found.value > 0,
    DISTANCE_RATIO: lambda found, config: found.high < config.least_distance_ratio,
    MEMBERSHIP: lambda found, config: found.low > config.allowed_membership,
    PATIENTS_NEAR: lambda found, config: found.low > config.allowed_patients,
}


class Deal(NamedTuple):
    """A dataset to audit against, and slices of patients whom it does not hold: uint8 N×H×W, with class codes N."""

    dataset: SliceDataset
    images: np.ndarray
    labels: np.ndarray


def main() -> None:
    """Deal, plant, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of a slice dataset")
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.01, 0.05, 0.2], help="of copies")
    parser.add_argument("--audits", type=int, default=10, help="of each share, each with other patients")
    parser.add_argument("--train", type=int, default=160, help="patients to train on")
    parser.add_argument("--held-out", type=int, default=80, help="patients to compare with")
    parser.add_argument("--out", type=Path, default=Path("outputs/privacy_power"))
    options = parser.parse_args()
    dataset = SliceDataset(options.data) if options.data else simulate(740, options.out)
    audits = pd.concat([_audited(dataset, seed, options) for seed in range(options.audits)])
    print(f"{options.audits} audits of each kind; blocked: how many; the columns: mean, and how many it blocked")
    print(f"{'copies':20}{'blocked':>8}" + "".join(f"{one.name:>20}" for one in BREACHES))
    for (share, kind), rows in audits.groupby(["share", "kind"], sort=False):
        cells = [f"{rows[one.name].mean():.3f} ({rows[f'{one.name} blocks'].sum()})" for one in BREACHES]
        print(f"{f'{share:.0%} {kind}':20}{rows['blocked'].sum():>8}" + "".join(f"{cell:>20}" for cell in cells))


def _audited(dataset: SliceDataset, seed: int, options: argparse.Namespace) -> pd.DataFrame:
    """One row for each share and kind of copies: the numbers of its audit, and which of them blocked."""
    kinds: dict[str, Disguise] = {"plain": plain, "moved": moved, "disguised": disguised}
    config, rows = PrivacyConfig(seed=seed, cache=None), []
    with TemporaryDirectory() as scratch:
        deal = _deal(dataset, seed, options, Path(scratch) / "slices")
        extractor = train_extractor(deal.dataset, ExtractorConfig(seed=seed), Path(scratch) / "extractor")
        for share in options.shares:
            for kind, disguise in kinds.items() if share else [("(a perfect generator)", plain)]:
                card = audit_privacy(deal.dataset, planted(deal, share, disguise), extractor, config=config).scorecard
                row = {"share": share, "kind": kind, "blocked": card["privacy/breach"].value > 0}
                for one, blocks in BREACHES.items():
                    metric = card[Measurand(quantity=one).name]
                    row |= {one.name: metric.value, f"{one.name} blocks": blocks(metric, config)}
                rows.append(row)
    return pd.DataFrame(rows)


def _deal(dataset: SliceDataset, seed: int, options: argparse.Namespace, folder: Path) -> Deal:
    """Patients dealt at random to train, to val and test in equal parts, and to nobody."""
    patients = dataset.table["patient"].to_numpy(str)
    dealt = np.random.default_rng(seed).permutation(np.unique(patients))
    ends = np.cumsum([options.train, options.held_out // 2, options.held_out - options.held_out // 2])
    sides = dict(zip(("train", "val", "test", "nobody"), np.split(dealt, ends), strict=True))
    side_of = {patient: side for side, members in sides.items() for patient in members}
    table = dataset.table.assign(split=[side_of[patient] for patient in patients])
    known = (table["split"] != "nobody").to_numpy()
    images = np.array(dataset.images)
    return Deal(
        SliceDataset.write(folder, images[known], table[known], meta=dataset.meta),
        images[~known],
        dataset.labels[~known],
    )


def planted(deal: Deal, share: float, disguise: Disguise) -> Sampler:
    """A generator that draws slices of patients whom nobody has seen, and copies training slices for this share."""
    train = deal.dataset.rows("train")
    seen, seen_labels = deal.dataset.images[train], deal.dataset.labels[train]

    def sample(labels: np.ndarray, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        images = _one_each(deal.images, deal.labels, labels, rng)
        copied = rng.permutation(len(labels))[: round(share * len(labels))]
        if len(copied):
            images[copied] = disguise(_one_each(seen, seen_labels, labels[copied], rng), images[copied], seed)
        return images

    return sample


def plain(images: np.ndarray, others: np.ndarray, seed: int) -> np.ndarray:
    """Shifted by up to a pixel, with noise of up to 5 grey levels."""
    return _changed(images, ClassicalConfig(rotation=0, translation=1 / images.shape[2], scale=0, noise=0.02), seed)


def moved(images: np.ndarray, others: np.ndarray, seed: int) -> np.ndarray:
    """Half of them mirrored, all turned and shifted by up to 5 pixels, with noise of up to 5 grey levels."""
    config = ClassicalConfig(rotation=5, translation=5 / images.shape[2], scale=0, noise=0.02)
    mirrored = np.random.default_rng(seed).random(len(images)) < 0.5
    return _changed(np.where(mirrored[:, None, None], images[:, :, ::-1], images), config, seed)


def disguised(images: np.ndarray, others: np.ndarray, seed: int) -> np.ndarray:
    """Turned, zoomed, shifted by up to 2 pixels, with noise of up to 10 grey levels, brighter, blended."""
    config = ClassicalConfig(rotation=3, translation=2 / images.shape[2], scale=0.03, noise=0.04)
    brighter = np.random.default_rng(seed).uniform(-10, 10, (len(images), 1, 1))
    return (0.8 * _changed(images, config, seed) + 0.2 * others + brighter).round().clip(0, 255).astype(np.uint8)


def _changed(images: np.ndarray, config: ClassicalConfig, seed: int) -> np.ndarray:
    rng = torch.Generator().manual_seed(seed)
    return to_uint8(augment(to_input(torch.from_numpy(images)), config, rng))[:, 0].numpy()


def _one_each(images: np.ndarray, codes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A slice at random for each of `labels`."""
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    return images[[rng.choice(members[label]) for label in labels]]


if __name__ == "__main__":
    main()
