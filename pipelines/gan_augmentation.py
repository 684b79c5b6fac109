"""Does a generator of synthetic lung CT make a diagnostic model better, without leaking a patient?

select_cohort → build_slices ┬→ train_generator → find_champion
                             └→ train_extractor
dataset, generator, extractor → measure_fidelity ┐
                                audit_privacy    ├→ decide → register → report
                                measure_utility  ┘
"""

from lungsynth.cohort.select import CohortConfig
from lungsynth.cohort.splits import SplitConfig
from lungsynth.evaluation.extractor import ExtractorConfig
from lungsynth.evaluation.fidelity.measure import FidelityConfig
from lungsynth.evaluation.fidelity.pretrained import within_reach
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.utility.measure import UtilityConfig
from lungsynth.fetching.fetch import FetchConfig
from lungsynth.generators.family import GeneratorConfig
from lungsynth.registry.connection import RegistryConfig
from lungsynth.slicing.series import SliceConfig
from lungsynth.training import TrainingConfig
from lungsynth.verdict.gate import GateConfig
from lungsynth.verdict.protocol import protocol_sha256
from pipelines.checked import checked_pipeline
from steps import code
from steps.audit_privacy import audit_privacy
from steps.build_slices import build_slices
from steps.decide import decide
from steps.find_champion import find_champion
from steps.measure_fidelity import measure_fidelity
from steps.measure_utility import measure_utility
from steps.register import register
from steps.report import report
from steps.select_cohort import select_cohort
from steps.train_extractor import train_extractor
from steps.train_generator import train_generator


@checked_pipeline
def gan_augmentation(
    cohort: CohortConfig,
    splits: SplitConfig,
    fetch: FetchConfig,
    slices: SliceConfig,
    generator: GeneratorConfig,
    training: TrainingConfig,
    extractor: ExtractorConfig,
    fidelity: FidelityConfig,
    privacy: PrivacyConfig,
    utility: UtilityConfig,
    gate: GateConfig,
    registry: RegistryConfig,
    checkpoints: str,
) -> None:
    """Train a generator and make it champion only if it provably helps.

    `train_generator` reads `checkpoints` from the run's parameters: another place must not retrain the generator.
    """
    who = select_cohort(cohort, splits)
    dataset = build_slices(who, cohort, fetch, slices)
    package = train_generator(dataset, generator, training, code.generator(generator))
    features = train_extractor(dataset, extractor, code.extractor())
    champion = find_champion(package, utility, registry)
    pretrained = [name for name in fidelity.extractors if within_reach(name, fidelity.weights.get(name))]
    fidelity_card = measure_fidelity(dataset, package, features, fidelity, pretrained, code.fidelity())
    privacy_card, closest_pairs = audit_privacy(dataset, package, features, privacy, code.privacy())
    predictions = measure_utility(dataset, package, champion, utility, code.utility())
    protocol = protocol_sha256(extractor, fidelity, privacy, utility=utility, gate=gate)
    scorecard, verdict = decide(who, dataset, predictions, fidelity_card, privacy_card, gate, protocol, code.verdict())
    registration = register(dataset, package, champion, scorecard, verdict, registry)
    report(who, dataset, package, closest_pairs, scorecard, verdict, registration, registry)
