"""Hash of the test behind a verdict: verdicts and versions are comparable only where it is equal."""

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
    *,
    utility: UtilityConfig,
    gate: GateConfig,
) -> str:
    """Hash of every setting that can change a verdict.

    Arms and measures that are only reported are left out, and so are settings that change no number. The lung CNN's
    training counts, since privacy and the collapse rule use its features; of fidelity, only that rule decides.
    """
    collapse = {"max_images", "resamples", "ssim_pairs", "seed"}
    return combine([
        extractor.model_dump_json(),
        fidelity.model_dump_json(include=collapse),
        privacy.model_dump_json(exclude={"cache"}),
        utility.model_dump_json(exclude={"controls", "filters", "workers"}),
        gate.model_dump_json(),
    ])  # fmt: skip
