"""Does a trained generator help on phantoms, and from how few training patients on? The gate's own verdict, for each.

    python benchmarks/does_it_help.py [--data FOLDER] [--patients 16 48 144] [--cancers 12] [--config FILE]

Of one simulated cohort, a fixed set of patients tests and another one validates; of the rest the first so many train:
the generator (as `--config` says), the feature extractor and all classifiers. With `--cancers`, so many of these have
cancer, which is rare then as it is in screening. The verdict is that of the pipeline's steps, with the arms below.
`--data` is the folder of a slice dataset; without it 740 phantoms are simulated.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from phantoms import extractor, simulate, train

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.fidelity.measure import FidelityConfig, measure_fidelity
from lungsynth.evaluation.privacy.audit import audit_privacy
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.quantities import COMPARED, GAIN, KID, RECALL
from lungsynth.evaluation.utility.measure import UtilityConfig, measure_utility
from lungsynth.verdict.contest import decide
from lungsynth.verdict.gate import GateConfig

VAL = 60
"""Patients to choose by."""
UTILITY = UtilityConfig(
    steps=200, ratios=(0.5, 1.0), baselines=("real", "real+classical", "real+classical+mix"), controls=("shuffled",)
)
SHOWN = (COMPARED["AUROC"], GAIN["AUROC"], KID, RECALL)
"""What is printed, beside all of privacy."""


def main() -> None:
    """Train, measure and judge for every number of patients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of a slice dataset")
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"), help="of generator and training")
    parser.add_argument("--patients", type=int, nargs="+", default=[16, 48, 144], help="to train on")
    parser.add_argument("--cancers", type=int, help="of these with cancer; without it, as they come: every second")
    parser.add_argument("--test", type=int, default=300, help="patients to test on")
    parser.add_argument("--workers", type=int, default=0, help="classifiers side by side; 0: one on each core")
    parser.add_argument("--out", type=Path, default=Path("outputs/does_it_help"))
    options = parser.parse_args()
    whole = SliceDataset(options.data) if options.data else simulate(740, options.out)
    for count in options.patients:
        folder = options.out / f"{count} patients"
        dataset = part(whole, count, options.cancers, options.test, folder / "slices")
        package = train(dataset, options.config, folder)
        features = extractor(dataset, folder / "extractor")
        fidelity = measure_fidelity(
            dataset, package.sample, features, config=FidelityConfig(extractors=(), normalisations=(), cache=None)
        )
        audit = PrivacyConfig(cache=None)
        privacy = audit_privacy(dataset, package.sample, features, config=audit, realness=package.realness)
        config = UTILITY.model_copy(update={"workers": options.workers})
        predictions = measure_utility(dataset, {"synthetic": package.sample}, config)
        card, verdict = decide(
            predictions,
            fidelity,
            privacy.scorecard,
            groups=pd.DataFrame(),
            config=GateConfig(),
            protocol_sha256="study",
        )
        print(
            f"\n{count} patients to train on, {len(dataset.rows('train'))} slices: {verdict.outcome}. {verdict.reason}"
        )
        for metric in (*card.metrics, *verdict.numbers):
            if metric.quantity in SHOWN or metric.quantity.topic == "privacy":
                bounds = "" if metric.low is None else f"  ({metric.low:.4f} to {metric.high:.4f})"
                print(f"  {metric.name:52}{metric.value:9.4f}{bounds}", flush=True)


def part(whole: SliceDataset, count: int, cancers: int | None, test: int, folder: Path) -> SliceDataset:
    """Slices of the first patients to test, of `VAL` others, and of `count` more, in an order that a seed gives."""
    if folder.exists():
        return SliceDataset(folder)
    patients = whole.table["patient"].to_numpy(str)
    order = np.random.default_rng(0).permutation(np.unique(patients))
    tested, validated, rest = np.split(order, [test, test + VAL])
    if cancers is not None:
        ill = np.isin(rest, patients[whole.labels == 1])
        rest = np.concatenate([rest[ill][:cancers], rest[~ill]])
    sides = {"test": tested, "val": validated, "train": rest[:count]}
    split = {patient: side for side, members in sides.items() for patient in members}
    rows = np.flatnonzero([patient in split for patient in patients])
    table = whole.table.iloc[rows].assign(split=[split[patient] for patient in patients[rows]])
    return SliceDataset.write(folder, whole.images[rows], table, meta=whole.meta)


if __name__ == "__main__":
    main()
