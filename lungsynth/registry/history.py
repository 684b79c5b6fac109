"""What the gate decided so far: every verdict from MLflow, also those that made no model version."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Literal, NamedTuple

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from pydantic import BaseModel, ConfigDict
from scipy.stats import spearmanr

from lungsynth.evaluation.quantities import GAIN, Quantity
from lungsynth.evaluation.scorecard import Measurand
from lungsynth.evaluation.statistics import Z975
from lungsynth.registry.check import active_experiment
from lungsynth.registry.connection import RegistryConfig, connect, sqlite_file
from lungsynth.registry.stored_metrics import find, stored_distances
from lungsynth.registry.succession import holder_of
from lungsynth.verdict.record import Outcome

OVER_BASELINE = Measurand(quantity=GAIN["AUROC"], rival="baseline")
"""MLflow's name for it says nothing of the unit: a gain in Dice has the same."""
FEWEST = 5
"""Generators that a rank correlation needs."""
Reign = Literal["holds", "held", "never"]
"""Whether a version has the alias, had it once, or never had it."""


class Entry(BaseModel):
    """One verdict, as its MLflow run holds it; what the run does not have is None."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: datetime
    """Start of the run, UTC."""
    run_name: str
    run_id: str
    complete: bool
    """False where the registration broke off, or still goes on."""
    outcome: Outcome
    rule: str
    """One of `gate.Rule`; runs of earlier releases may name others."""
    reason: str
    candidate_arm: str | None
    baseline_arm: str | None
    gain: float | None
    """Against the baseline, with its 95 % interval; None where nothing was compared."""
    gain_low: float | None
    gain_high: float | None
    distances: dict[str, float]
    """FID, KID and other distances of all slices by name, as `fid_lung`."""
    data_sha256: str
    protocol_sha256: str
    """Distances and gains are on one scale only where data and protocol are the same."""
    weights_sha256: str
    version: int | None
    """The newest version of a promoted generator under this protocol; None for a refused one."""
    alias: Reign | None
    """Whether the version has or had the configured alias; None without a version."""


def history(config: RegistryConfig, last: int) -> list[Entry]:
    """The `last` verdicts of the configured experiment, newest first, without its runs of trainings.

    It only reads: where there is no database or no experiment yet, it gives no verdicts and creates neither.

    Raises:
        LungsynthError: the server does not answer or refuses, or the experiment is in its trash.
    """
    database = sqlite_file(config.tracking_uri)
    if database is not None and not database.exists():
        return []
    with connect(config) as client:
        experiment = active_experiment(client, config)
        if experiment is None:
            return []
        runs = client.search_runs(
            [experiment.experiment_id], "tags.gate_result LIKE '%'", max_results=last, order_by=["start_time DESC"]
        )
        versions, holder = _promoted(client, config), holder_of(client, config.model_name, config.alias)
        measured = stored_distances()
        return [_entry(run, versions, holder, measured=measured) for run in runs]


class Correlation(NamedTuple):
    """Spearman's rank correlation of two numbers over `generators`, with its 95 % interval (Bonett & Wright 2000)."""

    first: str
    second: str
    rho: float
    low: float
    high: float
    generators: int


def rank_correlations(entries: Sequence[Entry]) -> list[Correlation]:
    """Whether extractors rank generators alike, and whether any of them ranks generators as their gain does.

    Correlates the same distance by different extractors, and each distance with the gain, over all generators that have
    both numbers, with the newest verdict on each. Only entries with the data and protocol of the newest one count,
    since other slices and another lung CNN give another scale. Pairs with fewer than `FEWEST` generators are left out.
    """
    alike = [entry for entry in entries if _measured(entry) == _measured(entries[0])]
    newest = {entry.weights_sha256: entry for entry in reversed(alike)}.values()
    table = pd.DataFrame([{**entry.distances, "gain": entry.gain} for entry in newest], dtype=float)
    found, measured = [], stored_distances()
    for first, second in combinations(sorted(table.columns, key=lambda name: name == "gain"), 2):
        both = table[[first, second]].dropna()
        comparable = second == "gain" or measured[first] == measured[second]
        if len(both) < FEWEST or (both.nunique() == 1).any() or not comparable:
            continue
        rho = float(spearmanr(both[first], both[second]).statistic)
        reach = Z975 * math.sqrt((1 + rho**2 / 2) / (len(both) - 3))
        centre = math.atanh(max(-1 + 1e-9, min(1 - 1e-9, rho)))
        found.append(Correlation(first, second, rho, math.tanh(centre - reach), math.tanh(centre + reach), len(both)))
    return found


def _measured(entry: Entry) -> tuple[str, str]:
    return entry.data_sha256, entry.protocol_sha256


Promoted = dict[tuple[str | None, str | None], ModelVersion]
"""Versions by SHA-256 of weights and of protocol."""


def _promoted(client: MlflowClient, config: RegistryConfig) -> Promoted:
    found = client.search_model_versions(f"name = '{config.model_name}'")
    return {_generator(version.tags): version for version in sorted(found, key=lambda version: int(version.version))}


def _generator(tags: dict[str, str]) -> tuple[str | None, str | None]:
    return tags.get("weights_sha256"), tags.get("protocol_sha256")


def _entry(run: Run, versions: Promoted, holder: ModelVersion | None, *, measured: Mapping[str, Quantity]) -> Entry:
    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    gain = find(metrics, OVER_BASELINE)
    version = versions.get(_generator(tags)) if tags["gate_result"] == "promote" else None
    return Entry(
        when=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        run_name=run.info.run_name,
        run_id=run.info.run_id,
        complete=run.info.status == "FINISHED",
        outcome=tags["gate_result"],
        rule=tags.get("gate_rule", ""),
        reason=tags.get("gate_reason", ""),
        candidate_arm=params.get("candidate_arm"),
        baseline_arm=params.get("baseline_arm"),
        gain=gain.value,
        gain_low=gain.low,
        gain_high=gain.high,
        distances={name: value for name, value in metrics.items() if name in measured},
        data_sha256=tags.get("data_sha256", ""),
        protocol_sha256=tags.get("protocol_sha256", ""),
        weights_sha256=tags.get("weights_sha256", ""),
        version=int(version.version) if version else None,
        alias=_reign(version, holder) if version else None,
    )


def _reign(version: ModelVersion, holder: ModelVersion | None) -> Reign:
    if holder is not None and int(holder.version) == int(version.version):
        return "holds"
    return "held" if "was_champion" in version.tags else "never"
