"""Whether a training ended too early, in one sentence: a generator of grey mush must not look like a finished one."""

import json
from collections.abc import Mapping, Sequence

from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.report.tables import number

FALLING = 0.8
"""KID to `val` still fell where its least in the last quarter is less than so much of its least before."""
FAR = 5.0
"""Times what real slices of other patients score, and `CLEAN` at least: slices with a greater KID do not look real."""
CLEAN = 0.004
"""What generators score whose slices look clean (docs/benchmarks.md): no floor near 0 shall make these far."""
METRIC = "kid_lung"
"""The distance that every run has."""

Row = Mapping[str, float]


def ended_too_early(package: GeneratorPackage, scorecard: Scorecard) -> str | None:
    """What shows that the generator needed a longer or another training, and what to raise; None: nothing shows it."""
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
    metrics = {metric.name: metric for metric in scorecard.metrics}
    synthetic, real = metrics.get(METRIC), metrics.get(f"{METRIC}/floor")
    if synthetic is None or real is None or synthetic.value <= FAR * max(real.value, CLEAN):
        return None
    return f"{METRIC} is {number(synthetic.value)} where real slices have {number(real.value)}"
