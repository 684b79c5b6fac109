"""What makes two verdicts comparable."""

from pathlib import Path

import pytest

from lungsynth.evaluation.extractor import ExtractorConfig
from lungsynth.evaluation.fidelity.measure import FidelityConfig
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.utility.filters import FilterConfig
from lungsynth.evaluation.utility.measure import UtilityConfig
from lungsynth.verdict.gate import GateConfig
from lungsynth.verdict.protocol import protocol_sha256

DEFAULTS = {
    "extractor": ExtractorConfig(),
    "fidelity": FidelityConfig(),
    "privacy": PrivacyConfig(),
    "utility": UtilityConfig(),
    "gate": GateConfig(),
}


def changes_the_protocol(section, **fields):
    changed = DEFAULTS | {section: DEFAULTS[section].model_copy(update=fields)}
    return protocol_sha256(**changed) != protocol_sha256(**DEFAULTS)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("extractor", "steps", 300),
        ("fidelity", "max_images", 400),
        ("fidelity", "ssim_pairs", 100),
        ("privacy", "allowed_near", 0.9),
        ("privacy", "allowed_duplicates", 0.5),
        ("privacy", "synthetic", 20),
        ("utility", "ratios", (1.0,)),
        ("utility", "task", "segmentation"),
        ("utility", "baselines", ("real",)),
        ("gate", "least_modes", 0.1),
    ],
)
def test_what_decides_makes_another_protocol(section, field, value):
    assert changes_the_protocol(section, **{field: value})


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("fidelity", "extractors", ()),
        ("fidelity", "weights", {"inception": Path("elsewhere")}),
        ("fidelity", "normalisations", ()),
        ("fidelity", "cache", None),
        ("privacy", "cache", Path("elsewhere")),
        ("utility", "controls", ()),
        ("utility", "filters", FilterConfig(use=("novelty",))),
        ("utility", "workers", 3),
    ],
)
def test_what_informs_or_only_costs_time_does_not(section, field, value):
    assert not changes_the_protocol(section, **{field: value})
