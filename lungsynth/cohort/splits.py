"""Which patients train, which tune and which decide, by a salted hash of the patient's identity."""

import hashlib
import math
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from lungsynth.config import Config
from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.errors import LungsynthError


class SplitConfig(Config):
    """How patients are assigned to train, val and test.

    `threshold` compares a salted hash of each patient's identity, a number in [0, 1), with the fractions. A patient
    never changes sides: not when patients of either class join or leave, not when a label is revised. Each patient
    falls to a side with that side's fraction as the probability, so the split is stratified in expectation, within
    each label and within any other group. Among n patients the fraction f is met with a standard deviation of
    √(f(1-f)/n): 1.6 points for 600 cancer patients at f = 0.2. Exact fractions would move patients when others join.
    Every side is checked to have patients of every label.

    `ranked` gives exact counts within each label, in the order of the same hashes. Use it for cohorts of a handful of
    patients. It is *not* stable: one more patient may move others to another side.
    """

    salt: str = Field("lungsynth", min_length=1, description="text; another salt draws other splits and other keys")
    train: float = Field(
        0.6,
        gt=0,
        lt=1,
        description="share of patients that train generators and classifiers [chosen here: most, since both need many]",
    )
    val: float = Field(
        0.2, gt=0, lt=1, description="share of patients on which choices are made [chosen here: as many as decide]"
    )
    test: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="share of patients that decide [chosen here: more narrow the intervals, and leave fewer to train "
        "on]",
    )
    method: Literal["threshold", "ranked"] = "threshold"
    """How sides are found: by each patient's own draw, or by exact counts for a handful of patients."""

    @model_validator(mode="after")
    def _sums_to_one(self) -> "SplitConfig":
        if not math.isclose(sum(self.fractions), 1, abs_tol=1e-9):
            raise ValueError(f"train, val and test must sum to 1, they sum to {sum(self.fractions):.6g}")
        return self

    @property
    def fractions(self) -> tuple[float, float, float]:
        """The fractions in the order of `SPLITS`."""
        return self.train, self.val, self.test


def assign_splits(patients: pd.DataFrame, config: SplitConfig) -> pd.Series:
    """The split of each row of `patients` (columns collection, patient, label), aligned to its index.

    All rows of a patient get the same split.

    Raises:
        LungsynthError: there are fewer patients than splits, a patient has two labels, or (`threshold`) a label has no
            patient on some side.
    """
    unique = patients[["collection", "patient", "label"]].drop_duplicates().reset_index(drop=True)
    if unique.duplicated(["collection", "patient"]).any():
        raise LungsynthError("a patient of the cohort has two labels: give each patient one before splitting")
    if len(unique) < len(SPLITS):
        raise LungsynthError(
            f"the cohort has {len(unique)} patient(s), fewer than its {len(SPLITS)} splits: select more patients"
        )
    identities = zip(unique["collection"], unique["patient"], strict=True)
    hashes = np.array([uniform_hash("split", config.salt, *identity) for identity in identities])
    deal = _by_threshold if config.method == "threshold" else _by_rank
    side = deal(hashes, unique["label"], config)
    unique["split"] = np.array(SPLITS)[side]
    rows = patients[["collection", "patient"]].merge(unique, on=["collection", "patient"], how="left")
    return pd.Series(rows["split"].to_numpy(), index=patients.index, dtype="string", name="split")


def patient_key(collection: str, patient: str, salt: str) -> str:
    """The patient's pseudonym, `P-` and 12 hex digits: reproducible with the same salt, irreversible without it."""
    return f"P-{_hash('key', salt, collection, patient).hex()[:12]}"


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def uniform_hash(purpose: str, salt: str, *identity: str) -> float:
    """A hash of these texts as a number in [0, 1); hashes of different purposes are independent."""
    return int.from_bytes(_hash(purpose, salt, *identity)[:8], "big") / 2**64


def _by_threshold(hashes: np.ndarray, labels: pd.Series, config: SplitConfig) -> np.ndarray:
    side = np.searchsorted(np.cumsum(config.fractions[:-1]), hashes, side="right")
    for label, sides in pd.Series(side).groupby(labels.to_numpy()):
        missing = sorted(set(range(len(SPLITS))) - set(sides))
        if missing:
            raise LungsynthError(
                f"of {len(sides)} {label} patients none fell to {SPLITS[missing[0]]}: "
                "select more patients, or set `method: ranked` in the splits"
            )
    return side


def _by_rank(hashes: np.ndarray, labels: pd.Series, config: SplitConfig) -> np.ndarray:
    side = np.empty(len(hashes), np.int64)
    for label in sorted(labels.unique()):
        stratum = np.flatnonzero((labels == label).to_numpy())
        counts = _exact_counts(len(stratum), config.fractions)
        side[stratum[np.argsort(hashes[stratum])]] = np.repeat(np.arange(len(SPLITS)), counts)
    # Strata of one or two patients cannot reach every split by themselves.
    while not (counts := np.bincount(side, minlength=len(SPLITS))).all():
        donors = np.flatnonzero(side == _donor(counts, config.fractions))
        side[donors[hashes[donors].argmax()]] = counts.argmin()
    return side


def _exact_counts(n: int, fractions: tuple[float, ...]) -> np.ndarray:
    """Largest-remainder counts of n patients, at least one to each split where n allows it."""
    exact = n * np.array(fractions)
    counts = np.floor(exact + 1e-9).astype(np.int64)
    remainders = np.argsort(counts - exact, kind="stable")
    counts[remainders[: n - counts.sum()]] += 1
    while n >= len(counts) and not counts.all():
        counts[_donor(counts, fractions)] -= 1
        counts[counts.argmin()] += 1
    return counts


def _donor(counts: np.ndarray, fractions: tuple[float, ...]) -> int:
    """The split that can spare a patient best: the one furthest above its fraction, of those with more than one."""
    return int(np.where(counts > 1, counts - counts.sum() * np.array(fractions), -np.inf).argmax())
