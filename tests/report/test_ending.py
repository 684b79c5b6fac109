"""A training that ended too early is said to have."""

import json
import re

import pytest
from made_up_run import distance, metric

from lungsynth.evaluation.quantities import KID
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.report.ending import ended_too_early

REAL = metric(distance(KID, floor=True), 0.012, -0.03, high=0.06)
NEAR, FAR = (
    Scorecard(metrics=(metric(distance(KID), 0.02), REAL)),
    Scorecard(metrics=(metric(distance(KID), 0.117), REAL)),
)
FALLS = {4: 1.7, 8: 0.8, 12: 0.71, 16: 0.76, 20: 0.62, 24: 0.47, 26: 0.45}
FALLS_NO_LONGER = {4: 1.7, 8: 0.8, 12: 0.5, 16: 0.47, 20: 0.45, 24: 0.44, 26: 0.45}


@pytest.fixture
def trained(tmp_path):
    """A package whose log has these KIDs to val by kimg."""

    def make(kids: dict[float, float]) -> GeneratorPackage:
        rows = [{"kimg": kimg - 1, "loss_d": 1.0} for kimg in kids] + [
            {"kimg": k, "kid_val": v} for k, v in kids.items()
        ]
        rows.sort(key=lambda row: row["kimg"])
        (tmp_path / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return GeneratorPackage(tmp_path)

    return make


@pytest.mark.parametrize(
    ("kids", "scorecard", "says"),
    [
        (FALLS, NEAR, r"ended too early: KID to val was still falling, from 0\.710 at 12 kimg to 0\.450 at 26\. Raise"),
        (FALLS, FAR, r"0\.450 at 26, and kid_lung is 0\.117 where real slices have 0\.012"),
        (FALLS_NO_LONGER, FAR, r"not enough: kid_lung is 0\.117 where .* Raise training\.kimg; take a smaller batch"),
        ({40: 3.1}, FAR, "not enough"),
        ({}, FAR, "not enough"),
    ],
)
def test_what_shows_it_and_what_to_raise(trained, kids, scorecard, says):
    assert re.search(says, ended_too_early(trained(kids), scorecard) or "nothing")


@pytest.mark.parametrize("kids", [FALLS_NO_LONGER, {40: 3.1}, {}])
def test_nothing_shows_it(trained, kids):
    assert ended_too_early(trained(kids), NEAR) is None


def test_a_real_kid_below_zero_makes_none_far(trained):
    floor = metric(distance(KID, floor=True), -0.001)
    scorecard = Scorecard(metrics=(metric(distance(KID), 0.006), floor))
    assert ended_too_early(trained(FALLS_NO_LONGER), scorecard) is None


def test_a_generator_without_log_or_distance(tmp_path):
    assert ended_too_early(GeneratorPackage(tmp_path), Scorecard(metrics=())) is None
