"""By which test a verdict came about: verdicts and versions compare only where it was the same."""

from lungsynth.evaluation.extractor import ExtractorConfig
from lungsynth.evaluation.fidelity.measure import FidelityConfig
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.utility.measure import UtilityConfig
from lungsynth.hashing import combine
from lungsynth.verdict.gate import GateConfig


def protocol_sha256(
    extractor: ExtractorConfig,
    fidelity: FidelityConfig,
    privacy: PrivacyConfig,
    utility: UtilityConfig,
    gate: GateConfig,
) -> str:
    """Hash of all that decides: not of arms and measures that only inform, nor of what cannot change a number.

    The lung CNN's features are what privacy and the collapse rule look at; of fidelity, only that rule decides.
    """
    collapse = {"max_images", "resamples", "ssim_pairs", "seed"}
    return combine([
        extractor.model_dump_json(),
        fidelity.model_dump_json(include=collapse),
        privacy.model_dump_json(exclude={"cache"}),
        utility.model_dump_json(exclude={"controls", "filters", "workers"}),
        gate.model_dump_json(),
    ])  # fmt: skip
