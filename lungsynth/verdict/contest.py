"""The decision: from predictions and scorecards to the whole scorecard and the verdict."""

import pandas as pd

from lungsynth.evaluation.quantities import GAIN, POWER, TEST_PATIENTS, UNJUDGED_GROUP
from lungsynth.evaluation.scorecard import Measurand, Metric, Scorecard
from lungsynth.evaluation.statistics import bootstrap, power
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.verdict.arms import score_arms
from lungsynth.verdict.comparison import compare, contender, subgroup_gains
from lungsynth.verdict.gate import LEAST_SEEDS, Contest, Evidence, GateConfig, Ruling, judge, too_few
from lungsynth.verdict.record import Verdict

POWER_STEPS = (1, 2, 4, 8, 16, 32)
"""Multiples of the number of test patients for which power is computed."""


def decide(
    predictions: Predictions,
    fidelity: Scorecard,
    privacy: Scorecard,
    *,
    groups: pd.DataFrame,
    config: GateConfig,
    protocol_sha256: str,
) -> tuple[Scorecard, Verdict]:
    """The whole scorecard, and the verdict of the first of `gate.RULES` that applies.

    `val` chooses which synthetic arm stands for the generator, by AUROC or Dice, for each training seed by the others;
    `test` decides. Several arms may be chosen. Their own AUROC or Dice is among the numbers, since no single arm's
    differs from the baseline's by exactly the gain.

    The candidate has to beat every arm without synthetic slices, so that none of these has to be chosen. This is an
    intersection-union test, which needs no correction (Berger 1982, doi:10.1080/00401706.1982.10487790). It also has to
    beat the champion's slices.

    Args:
        fidelity: only a collapse decides, by the modes in lung features: FID does not predict usefulness.
        privacy: from `audit_privacy`.
        groups: of patients; see `patient_groups`.
        protocol_sha256: hash of the configurations that make verdicts comparable.
    """
    card = fidelity + privacy + score_arms(predictions, config.resamples, config.seed)
    contest = hold_contest(predictions, groups, config)
    ruling = judge(Evidence(contest, fidelity, privacy), config)
    return card, _verdict(
        ruling, contest, len(predictions.patients("test")), config=config, protocol_sha256=protocol_sha256
    )


def hold_contest(predictions: Predictions, groups: pd.DataFrame, config: GateConfig) -> Contest:
    """Choose the candidate on `val` and compare it with every rival on `test`, also by group of patients."""
    candidate = contender(predictions, predictions.arms_of("candidate"))
    counted = predictions.classes if predictions.measure == "AUROC" else ("all",)
    patients = dict(zip(counted, candidate.patients, strict=True))
    baselines = [contender(predictions, [arm]) for arm in predictions.arms_of("baseline")]
    baselines.sort(key=lambda rival: -rival.mean)
    rivals = dict(zip(["baseline", *(rival.arm for rival in baselines[1:])], baselines, strict=True))
    if previous := predictions.arms_of("champion"):
        rivals["champion"] = contender(predictions, previous)
    enough = min(patients.values()) >= config.min_patients_per_class
    comparisons = [
        compare(candidate, rival, role, resamples=config.resamples, seed=config.seed)
        for role, rival in rivals.items()
        if enough
    ]
    subgroups = subgroup_gains(
        candidate,
        baselines[0],
        groups,
        keys=predictions.patients("test"),
        least_patients=config.min_patients_per_class,
        resamples=config.resamples,
        seed=config.seed,
    )
    return Contest(candidate, baselines[0], patients, comparisons, subgroups)


def _verdict(
    ruling: Ruling, contest: Contest, test_patients: int, *, config: GateConfig, protocol_sha256: str
) -> Verdict:
    """The ruling with every number of the contest."""
    candidate = contest.candidate
    counted = "patients with a slice of the class" if candidate.measure == "AUROC" else "patients with a slice"
    return Verdict(
        outcome=ruling.outcome,
        reason=ruling.reason,
        rule=ruling.rule,
        measure=candidate.measure,
        candidate_arm=candidate.arm,
        baseline_arm=contest.baseline.arm,
        test_patients=tuple(
            Metric(quantity=TEST_PATIENTS, class_name=name, value=count, computed_with=counted)
            for name, count in contest.patients.items()
        ),
        score=candidate.score(config.resamples, config.seed),
        chosen=candidate.votes(),
        gains=tuple(comparison.record() for comparison in contest.comparisons),
        subgroups=_subgroups(contest, config),
        unjudged=_unjudged(contest, config),
        power=_power(contest, test_patients, config),
        protocol_sha256=protocol_sha256,
    )


def _subgroups(contest: Contest, config: GateConfig) -> tuple[Metric, ...]:
    how = f"against {contest.baseline.arm}, this group of patients alone, {bootstrap(contest.seeds, config.resamples)}"
    quantity = GAIN[contest.candidate.measure]
    return tuple(
        Metric.of(Measurand(quantity=quantity, rival="baseline", subgroup=name), gain, how)
        for name, gain in contest.subgroups.gains.items()
    )


def _unjudged(contest: Contest, config: GateConfig) -> tuple[Metric, ...]:
    found = []
    for name, counts in contest.subgroups.small.items():
        how = f"test patients: {too_few(dict(zip(contest.patients, counts, strict=True)), config)}"
        found.append(Metric(quantity=UNJUDGED_GROUP, subgroup=name, value=min(counts), computed_with=how))
    return tuple(found)


def _power(contest: Contest, test_patients: int, config: GateConfig) -> tuple[Metric, ...]:
    """The chance of a promotion at the least gain worth having, for multiples of the test patients."""
    if not contest.comparisons or contest.seeds < LEAST_SEEDS:
        return ()
    baseline = contest.comparisons[0]
    how = f"if {config.worthwhile_gain:g} were gained; patients of the same kind, {baseline.arm} to beat, same seeds"
    effect = config.worthwhile_gain - config.min_gain
    return tuple(
        Metric(
            quantity=POWER,
            patients=test_patients * more,
            value=power(effect, baseline.gain, more),
            computed_with=how,
        )
        for more in POWER_STEPS
    )
