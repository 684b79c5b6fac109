"""A new measure is a formula and one row of a table: from there it reaches scorecard, report, MLflow and history."""

from collections.abc import Iterator

import numpy as np
import pytest
from made_up_run import PAIRS, REFUSED, RUN_CONFIG, SCORECARD, make_registration
from mlflow import MlflowClient

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.extractor import ExtractorConfig, train_extractor
from lungsynth.evaluation.fidelity import formulas
from lungsynth.evaluation.fidelity.distances import DistancesConfig
from lungsynth.evaluation.fidelity.formulas import Compared, Formula
from lungsynth.evaluation.fidelity.measure import FidelityConfig, measure_fidelity
from lungsynth.evaluation.quantities import Quantity
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.statistics import Estimate
from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.history import history
from lungsynth.registry.mlflow_registry import register
from lungsynth.report import pictures
from lungsynth.report.render import Run, render_report
from lungsynth.verdict import arms
from lungsynth.verdict.arms import ArmFormula, ArmScores

MEANS = Quantity("mean_gap", "fidelity", "distance")


def mean_gap(compared: Compared, config: DistancesConfig) -> Iterator[Metric]:
    """Squared distance of the sides' mean features."""
    for floor, other, n in compared.sides.pairs:
        gap = float(np.square(compared.sides.real.values.mean(axis=0) - other.values.mean(axis=0)).sum())
        yield Metric(**dict(compared.measurand(MEANS, floor)), value=gap, low=0, high=2 * gap, n=n, computed_with="x")


@pytest.fixture
def page(cohort, dataset, package, tmp_path, monkeypatch):
    """The page, without charts, of a run with this scorecard."""
    for chart in ("forest", "moves", "losses"):
        monkeypatch.setattr(pictures, chart, lambda *_, **__: b"")

    def write(scorecard: Scorecard) -> str:
        records = {"cohort": cohort, "dataset": dataset, "package": package, "closest_pairs": PAIRS}
        registration = make_registration(None)
        run = Run(
            name="r", scorecard=scorecard, verdict=REFUSED, registration=registration, config=RUN_CONFIG, **records
        )
        folder = render_report(tmp_path / "report", run).folder
        return (folder / "report.html").read_text(encoding="utf-8").replace("<wbr>", "")

    return write


@pytest.fixture(scope="module")
def many_slices(dataset, tmp_path_factory) -> SliceDataset:
    """Ten times the slices of `dataset`, of noise."""
    images = np.random.default_rng(0).integers(0, 256, (120, 32, 32), np.uint8)
    table = dataset.table.loc[np.tile(np.arange(12), 10)].reset_index(drop=True)
    return SliceDataset.write(tmp_path_factory.mktemp("many") / "slices", images, table, meta=dataset.meta)


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # at MLflow's own import
def test_a_new_distance_is_in_scorecard_report_mlflow_and_history(many_slices, package, page, tmp_path, monkeypatch):
    monkeypatch.setattr(formulas, "FORMULAS", (*formulas.FORMULAS, Formula((MEANS,), mean_gap)))
    extractor = train_extractor(many_slices, ExtractorConfig(steps=1), tmp_path / "extractor")
    config = FidelityConfig(extractors=(), normalisations=("clip",), cache=None, resamples=20)
    card = measure_fidelity(many_slices, package.sample, extractor, config=config)
    names = {f"mean_gap_lung{scope}{floor}" for scope in ("", "/cancer", "@clip") for floor in ("", "/floor")}
    assert names <= {metric.name for metric in card.metrics}

    text = page(card + SCORECARD)
    fidelity = text.partition("<h2>Fidelity</h2>")[2]
    assert '<tr><th scope="row">mean_gap_lung<td class="n value">' in fidelity
    assert "mean_gap_lung" in fidelity.partition("Under other normalisations")[2]

    registry = RegistryConfig(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    hashes = {"data_sha256": "d", "code_version": "0"}
    run = register(package, card, REFUSED, champion=None, **hashes, config=registry)
    stored = MlflowClient(registry.tracking_uri).get_run(run.run_id).data.metrics
    value = card["mean_gap_lung"].value
    assert (stored["mean_gap_lung"], stored["mean_gap_lung.high"]) == pytest.approx((value, 2 * value))
    (entry,) = history(registry, last=5)
    assert entry.distances["mean_gap_lung"] == pytest.approx(value)
    assert set(entry.distances) == {"kid_lung", "mean_gap_lung"}  # too few slices for FID


def test_a_new_measure_of_arms_has_a_column_in_the_report(page, predictions, monkeypatch):
    def accuracy(scores: ArmScores) -> Estimate:
        share = float((scores.called == scores.test.labels).mean())
        return Estimate(share, share - 0.1, share + 0.1, 0.05)

    row = ArmFormula(Quantity("accuracy", "utility", "share"), "accuracy", accuracy)
    monkeypatch.setitem(arms.ARM_FORMULAS, "AUROC", (*arms.ARM_FORMULAS["AUROC"], row))
    card = arms.score_arms(predictions, 200, 0)
    assert card["accuracy/real"].value > 0.5
    text = page(card)
    assert '<th class="n">accuracy' in text
    assert text.count('data-measure="accuracy"') == len(predictions.arms)
