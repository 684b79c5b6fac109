"""The gate."""

from typing import Annotated

from zenml import step

from lungsynth.cohort.cohort import Cohort
from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.verdict import contest
from lungsynth.verdict.gate import GateConfig
from lungsynth.verdict.record import Verdict
from lungsynth.verdict.subgroups import patient_groups


@step
def decide(
    cohort: Cohort,
    dataset: SliceDataset,
    predictions: Predictions,
    fidelity: Scorecard,
    privacy: Scorecard,
    config: GateConfig,
    protocol_sha256: str,
    code_sha256: str,
) -> tuple[Annotated[Scorecard, "scorecard"], Annotated[Verdict, "verdict"]]:
    """Promote, reject, block, or say that the test could not tell.

    `code_sha256`: the key of the code that this runs, of `steps.code`, so that it runs again when that changes.
    """
    groups = patient_groups(cohort, dataset.series)
    scorecard, verdict = contest.decide(
        predictions, fidelity, privacy, groups=groups, config=config, protocol_sha256=protocol_sha256
    )
    return scorecard, verdict  # ZenML sees two outputs only in a literal pair
