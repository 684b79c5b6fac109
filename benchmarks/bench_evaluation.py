"""How long an evaluation takes, beside one pass through the feature extractor, and beside trainings one after another.

    python benchmarks/bench_evaluation.py [--slices 2000] [--steps 40] [--rounds 3]

Fidelity and privacy: so many synthetic against so many training and as many held-out slices of 64 px, lung extractor,
with the defaults of a run but for the extractors that want a download. Utility: 7 arms of 5 classifiers on as many
slices, side by side as a run trains them, against the same trainings one after another with all threads that torch
takes. The slices are smooth noise: what they show does not change how long it takes.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import zoom

from lungsynth.dataset.store import COLUMNS, SliceDataset, SliceMeta
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.extractor import ExtractorConfig, train_extractor
from lungsynth.evaluation.fidelity.measure import FidelityConfig, measure_fidelity
from lungsynth.evaluation.privacy.audit import audit_privacy
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.utility.classifier import BatchPlan, Pool, new_classifier, scores, train_classifier
from lungsynth.evaluation.utility.measure import UtilityConfig, measure_utility

SIZE, PER_PATIENT = 64, 20
SEVEN = UtilityConfig(ratios=(0.5, 1.0, 2.0), baselines=("real", "real+classical"))
"""With its two controls, seven arms."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=40, help="of each classifier")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = _dataset(options.slices, Path(folder))
        extractor = train_extractor(dataset, ExtractorConfig(steps=20), Path(folder) / "extractor")
        train = dataset.images[dataset.rows("train")]
        fidelity, privacy = (
            FidelityConfig(extractors=(), cache=None),
            PrivacyConfig(synthetic=options.slices, cache=None),
        )
        work: dict[str, Callable[[], object]] = {
            "one feature pass": lambda: extractor.features(train),
            "fidelity": lambda: measure_fidelity(dataset, _sample, extractor, config=fidelity),
            "privacy": lambda: audit_privacy(dataset, _sample, extractor, config=privacy),
        }
        print(f"{options.slices} synthetic and as many training and held-out slices, {torch.get_num_threads()} threads")
        seconds = {name: statistics.median(_timed(one) for _ in range(options.rounds)) for name, one in work.items()}
        for name, value in seconds.items():
            print(f"{name:24}{value:8.1f} s{value / seconds['one feature pass']:8.1f} passes", flush=True)

        config = SEVEN.model_copy(update={"steps": options.steps})
        ratios = []
        for _ in range(options.rounds):
            together = _timed(lambda: measure_utility(dataset, {"synthetic": _sample}, config))
            alone = _timed(lambda: _one_after_another(dataset, config))
            ratios.append(alone / together)
            print(f"utility: side by side {together:.1f} s, one after another {alone:.1f} s", flush=True)
        print(f"utility, side by side: {statistics.median(ratios):.2f}× as fast (median of {options.rounds} rounds)")


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _one_after_another(dataset: SliceDataset, config: UtilityConfig) -> None:
    """Seven arms of classifiers, each on real and synthetic slices in equal parts, in torch's own threads."""
    torch.set_num_threads(os.cpu_count() or 1)
    train, held_out = dataset.rows("train"), dataset.rows("val", "test")
    real = Pool(dataset.images[train], dataset.labels[train])
    for seed in range(config.seeds):
        labels = np.arange(len(train)) % 2
        synthetic = Pool(_sample(labels, seed), labels)
        for _ in range(7):
            model = new_classifier(config, seed, "cpu")
            train_classifier(model, real, synthetic, plan=BatchPlan(synthetic=0.5), seed=seed, config=config)
            scores(model, dataset.images[held_out])


def _sample(labels: np.ndarray, seed: int) -> np.ndarray:
    """Smooth noise, uint8 N×SIZE×SIZE."""
    rng = np.random.default_rng(seed)
    fields = zoom(rng.normal(110, 40, (len(labels), SIZE // 4, SIZE // 4)), (1, 4, 4), order=1)
    return np.clip(fields + rng.normal(0, 3, fields.shape), 0, 255).astype(np.uint8)


def _dataset(slices: int, folder: Path) -> SliceDataset:
    """So many slices to train on and as many held out, of patients of `PER_PATIENT` slices, every second one ill."""
    patient = np.arange(2 * slices) // PER_PATIENT
    label = np.arange(2 * slices) % 2 * (patient % 2)
    split = np.repeat(["train", "val", "test"], [slices, slices // 2, slices - slices // 2])
    names = [f"{code}" for code in patient]
    facts = {"patient": names, "series_uid": names, "sop_uid": [f"{row}" for row in range(2 * slices)]}
    table = pd.DataFrame(facts | {"label": np.array(CLASSES)[label], "split": split})
    table["position_mm"] = np.arange(2 * slices) % PER_PATIENT * 2.5
    meta = SliceMeta(SIZE, (-1350, 150), "smooth noise")
    return SliceDataset.write(folder / "slices", _sample(label, 1000), table.reindex(columns=list(COLUMNS)), meta=meta)


if __name__ == "__main__":
    main()
