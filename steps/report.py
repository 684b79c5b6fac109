"""The report."""

from zenml import get_step_context, step

from lungsynth.cohort.cohort import Cohort
from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.privacy.closest_pairs import ClosestPairs
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.mlflow_registry import Registration, attach_report
from lungsynth.report.render import Report, Run, render_report
from lungsynth.verdict.record import Verdict
from steps.materializers import ReportMaterializer, new_folder
from steps.parameters import run_parameters


# Always run: every run has a folder of its own.
@step(enable_cache=False, output_materializers=ReportMaterializer)
def report(
    cohort: Cohort,
    dataset: SliceDataset,
    generator: GeneratorPackage,
    closest_pairs: ClosestPairs,
    scorecard: Scorecard,
    verdict: Verdict,
    registration: Registration,
    config: RegistryConfig,
) -> Report:
    """Write the page and its pictures, and put them beside the run's numbers in MLflow."""
    run = get_step_context().pipeline_run
    result = render_report(
        new_folder(),
        Run(
            name=run.name,
            cohort=cohort,
            dataset=dataset,
            package=generator,
            scorecard=scorecard,
            verdict=verdict,
            registration=registration,
            closest_pairs=closest_pairs,
            config=run_parameters(),
        ),
    )
    attach_report(registration, result.folder, config)
    return result
