"""Whether a training ended too early, in one sentence: a report has to say that its generator is unfinished."""

import json
from collections.abc import Mapping, Sequence

from lungsynth.evaluation.quantities import KID, LUNG
from lungsynth.evaluation.scorecard import Measurand, Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.report.tables import number

FALLING = 0.8
"""KID to `val` was still falling if its minimum in the last quarter of the training is below this share of its minimum
before."""
FAR = 5.0
"""Slices whose KID is above so many times its floor, or `CLEAN` if that is greater, do not look real."""
CLEAN = 0.004
"""KID of generators whose slices look clean (docs/benchmarks.md); a floor near 0 must not make these fail."""
DISTANCE = Measurand(quantity=KID, extractor=LUNG)
"""Every run has it."""

Row = Mapping[str, float]


def ended_too_early(package: GeneratorPackage, scorecard: Scorecard) -> str | None:
    """What shows that the generator needed a longer or another training, and what to raise; None if nothing does."""
    path = package.folder / "training_log.jsonl"
    log = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    falling, far = _falling(log), _far(scorecard)
    if falling:
        seen = f"{falling}, and {far}" if far else falling
        return f"The training ended too early: {seen}. Raise training.kimg, and the until_kimg of rates with it."
    if far:
        return (
            f"The training is not enough: {far}. Raise training.kimg; take a smaller batch and rates that end at 0, as "
            "configs/phantom.yaml does for minutes on a CPU; or train on more slices."
        )
    return None


def _falling(log: Sequence[Row]) -> str | None:
    looks = [(row["kid_val"], row["kimg"]) for row in log if "kid_val" in row]
    late = [look for look in looks if look[1] > 0.75 * log[-1]["kimg"]]
    early = looks[: len(looks) - len(late)]
    if not early or not late:
        return None
    (before, then), (least, now) = min(early), min(late)
    if least >= FALLING * before:
        return None
    return f"KID to val was still falling, from {number(before)} at {then:g} kimg to {number(least)} at {now:g}"


def _far(scorecard: Scorecard) -> str | None:
    synthetic = scorecard.find(DISTANCE)
    real = synthetic and scorecard.floor_of(synthetic)
    if synthetic is None or real is None or synthetic.value <= FAR * max(real.value, CLEAN):
        return None
    return f"{synthetic.name} is {number(synthetic.value)} where real slices have {number(real.value)}"
