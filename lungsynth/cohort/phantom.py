"""A cohort of simulated patients, selected without simulating a voxel."""

from functools import lru_cache
from typing import Any, Literal

import pandas as pd
from pydantic import Field, model_validator

from lungsynth.cohort.cohort import COLUMNS, Cohort, funnel, no_slice_labels
from lungsynth.cohort.splits import SplitConfig, assign_splits, patient_key
from lungsynth.config import Config
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError
from lungsynth.phantom import PhantomPatient, ct_series_uid, draw_patient, seg_series_uid

COLLECTION = "phantom"


class PhantomCohortConfig(Config):
    """The simulated patients. Patient i depends on all keys but `patients`, so a cohort can grow."""

    source: Literal["phantom"] = "phantom"
    patients: int = Field(
        60, ge=3, le=99999, description="patients; one CT series each [chosen here: few, for a laptop]"
    )
    cancer_fraction: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of patients with a nodule, dealt evenly [chosen here: classes of equal size]",
    )
    seed: int = Field(0, ge=0, description="seed; another one draws other patients")
    matrix: int = Field(
        256, ge=128, le=512, description="pixels a side of a slice [chosen here: half of the 512 of scanners, for time]"
    )
    slices: tuple[int, int] = Field(
        (36, 44),
        description="slices of a series, least and most [chosen here: a third of NLST's median, 126, for time]",
    )
    nodule_diameter_mm: tuple[float, float] = Field(
        (6.0, 24.0), description="mm, least and greatest [chosen here: NLST counts nodules from 4, masses from 30]"
    )

    @model_validator(mode="after")
    def _ranges(self) -> "PhantomCohortConfig":
        if not 20 <= self.slices[0] <= self.slices[1] <= 400:
            raise ValueError(f"slices must be a rising range within 20 to 400, not {self.slices}")
        if not 4 <= self.nodule_diameter_mm[0] <= self.nodule_diameter_mm[1] <= 60:
            raise ValueError(f"nodule_diameter_mm must be a rising range within 4 to 60, not {self.nodule_diameter_mm}")
        return self


def select_phantoms(config: PhantomCohortConfig, splits: SplitConfig) -> Cohort:
    """One CT series a patient, and one SEG series where there is a nodule; bytes are not known before simulation."""
    rows = [row for patient in _patients(config) for row in _rows(patient)]
    table = pd.DataFrame(rows)
    table["split"] = assign_splits(table, splits)
    table["patient_key"] = [patient_key(COLLECTION, patient, splits.salt) for patient in table["patient"]]
    simulated = funnel(("simulated CT series", table[table["role"] == "image"]))
    return Cohort(table.reindex(columns=list(COLUMNS)), no_slice_labels(), simulated)


def patient_of(config: PhantomCohortConfig, series_uid: str) -> PhantomPatient:
    """The patient whose CT or SEG series has this UID.

    Raises:
        LungsynthError: the configuration has no such patient.
    """
    try:
        return _by_series(config)[series_uid]
    except KeyError:
        raise LungsynthError(
            f"no phantom of this configuration has the series {series_uid}: select the cohort again"
        ) from None


@lru_cache(maxsize=4)
def _patients(config: PhantomCohortConfig) -> tuple[PhantomPatient, ...]:
    return tuple(
        draw_patient(
            config.seed,
            index,
            with_nodule=_has_nodule(index, config.cancer_fraction),
            matrix=config.matrix,
            slices=config.slices,
            nodule_diameter_mm=config.nodule_diameter_mm,
        )
        for index in range(config.patients)
    )


@lru_cache(maxsize=4)
def _by_series(config: PhantomCohortConfig) -> dict[str, PhantomPatient]:
    patients = {}
    for patient in _patients(config):
        patients[ct_series_uid(patient)] = patients[seg_series_uid(patient)] = patient
    return patients


def _has_nodule(index: int, fraction: float) -> bool:
    """Spread nodules evenly: of the first n patients n·fraction have one, rounded down."""
    return int((index + 1) * fraction + 1e-9) > int(index * fraction + 1e-9)


def _rows(patient: PhantomPatient) -> list[dict[str, Any]]:
    shared = {
        "collection": COLLECTION,
        "patient": patient.patient_id,
        "study_uid": patient.uid("study"),
        "sex": patient.sex,
        "age": patient.age_years,
        "label": CLASSES[patient.nodule is not None],
        "evidence": "phantom",
        "license": "CC0 1.0",
        "doi": "",
        "bytes": pd.NA,
    }
    ct, seg = ct_series_uid(patient), seg_series_uid(patient)
    place = f"phantom://{patient.sha256}"
    rows = [
        {
            "series_uid": ct,
            "modality": "CT",
            "role": "image",
            "source_series_uid": pd.NA,
            "manufacturer": patient.scanner.manufacturer,
            "kernel": patient.scanner.kernel,
            "thickness_mm": patient.scanner.thickness_mm,
            "instances": patient.slices,
            "url": f"{place}/{ct}/",
        }
    ]
    if patient.nodule:
        rows.append(
            {
                "series_uid": seg,
                "modality": "SEG",
                "role": "lesion",
                "source_series_uid": ct,
                "manufacturer": "lungsynth phantom",
                "instances": 1,
                "url": f"{place}/{seg}/",
            }
        )
    return [shared | row for row in rows]
