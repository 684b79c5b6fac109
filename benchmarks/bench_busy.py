"""Training beside another busy process, and on a quiet machine: slices a second, as ratios.

    python benchmarks/bench_busy.py [--config configs/demo.yaml] [--rounds 5] [--seconds 6]

Each round measures in turn, on noise in the place of slices, the step of the run file's generator

- with as many threads as there are cores, and nothing beside it: the best of a quiet machine;
- with the number of threads that a run chooses by itself, and nothing beside it;
- the same two beside a process that computes for ever; a run is given `SETTLE_S` to notice it.

Then it measures the classifiers that utility trains side by side, and the search for copies, both quiet and busy. The
medians of the rounds' ratios count. Exit code 1: training with the chosen number loses more than 3 % on the quiet
machine, or holds less than 60 % of its quiet speed beside one busy process.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch

from lungsynth.cpus import side_by_side, usable_cpus
from lungsynth.evaluation.privacy.copies import detail_correlation
from lungsynth.evaluation.utility.classifier import BatchPlan, ClassifierConfig, Pool, new_classifier, train_classifier
from lungsynth.run_file import load
from lungsynth.training import Slices
from lungsynth.training.config import TrainingSections
from lungsynth.training.data import source_of
from lungsynth.training.devices import launch
from lungsynth.training.loop import _step
from lungsynth.training.pace import Pace
from lungsynth.training.sections import training_sections
from lungsynth.training.state import TrainingState

SETTLE_S = 5.0
"""Seconds that a run has to find its number of threads before it is measured."""
QUIET, BUSY = 0.97, 0.60
"""Least ratios."""

Speeds = dict[str, list[float]]


def main() -> int:
    """Measure, print, and compare with the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/demo.yaml"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    cores = usable_cpus()
    torch.set_num_threads(cores)
    print(f"{cores} cores, {options.config}, median of {options.rounds} rounds (least to greatest)")
    trained = _training(training_sections(options.config, load(options.config)), options.rounds, options.seconds)
    evaluated = _evaluation(options.rounds)
    _print("all cores, quiet", trained, "all cores, quiet")
    before = _print("all cores, busy", trained, "all cores, quiet")
    quiet = _print("chosen, quiet", trained, "all cores, quiet")
    _print("classifiers side by side, busy", evaluated, "classifiers side by side, quiet")
    _print("search for copies, busy", evaluated, "search for copies, quiet")
    busy = _print("chosen, busy", trained, "chosen, quiet")
    print(f"all cores beside a busy process: {before:.2f} of their quiet speed, as it was before")
    print(f"the chosen number: {quiet:.2f} of all cores' speed on the quiet machine (asked for: {QUIET:.2f})")
    print(f"the chosen number: {busy:.2f} of its quiet speed beside one busy process (asked for: {BUSY:.2f})")
    return int(quiet < QUIET or busy < BUSY)


def _training(sections: TrainingSections, rounds: int, seconds: float) -> Speeds:
    """Slices a second of each kind and round."""
    generator, training = sections.generator, sections.training
    images, labels = _noise(500, generator.size)
    fabric = launch(training)
    state = TrainingState.new(generator, training, fabric.device)
    speeds: Speeds = {}
    with source_of(Slices.all(images, labels), balanced=True, seed=0, device=fabric.device) as source:
        paces = {"all cores": Pace(usable_cpus()), "chosen": Pace()}

        def run(pace: Pace, for_s: float) -> float:
            start, shown = time.perf_counter(), state.shown
            while time.perf_counter() - start < for_s:
                pace.timed(lambda: _step(state, source, training, fabric=fabric))
            return (state.shown - shown) / (time.perf_counter() - start)

        for _ in range(rounds):
            for how, beside in (("quiet", nullcontext), ("busy", _busy_process)):
                with beside():
                    for name, pace in paces.items():
                        run(pace, SETTLE_S if name == "chosen" else 0.5)
                        speeds.setdefault(f"{name}, {how}", []).append(run(pace, seconds))
            torch.set_num_threads(usable_cpus())  # which is the most that a new run tries
            paces["chosen"] = Pace()
    return speeds


def _evaluation(rounds: int) -> Speeds:
    """Times a second of one fixed piece of work each, of each kind and round."""
    images, labels = _noise(400, 64)
    pool = Pool(images, labels)
    config = ClassifierConfig(steps=12)

    def classifiers() -> None:
        list(side_by_side(lambda seed: _classifier(pool, seed, config), range(2 * usable_cpus())))

    work: dict[str, Callable[[], object]] = {
        "classifiers side by side": classifiers,
        "search for copies": lambda: detail_correlation(images, images[::2]),
    }
    speeds: Speeds = {}
    for one in work.values():
        one()
    for _ in range(rounds):
        for how, beside in (("quiet", nullcontext), ("busy", _busy_process)):
            with beside():
                for name, one in work.items():
                    start = time.perf_counter()
                    one()
                    speeds.setdefault(f"{name}, {how}", []).append(1 / (time.perf_counter() - start))
    return speeds


def _classifier(pool: Pool, seed: int, config: ClassifierConfig) -> object:
    return train_classifier(new_classifier(config, seed, "cpu"), pool, None, plan=BatchPlan(), seed=seed, config=config)


def _noise(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8), np.arange(count) % 2


@contextmanager
def _busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.3)
        yield
    finally:
        process.kill()
        process.wait()


def _print(name: str, speeds: Speeds, reference: str) -> float:
    """A row; gives the median of the rounds' ratios to `reference`."""
    ratios = [one / other for one, other in zip(speeds[name], speeds[reference], strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"{name:32s} {statistics.median(speeds[name]):8.1f} a second   {ratio:.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}) of {reference}"
    )
    return ratio


if __name__ == "__main__":
    sys.exit(main())
