"""NLST's clinical tables: who had lung cancer, and which slice of which screen shows it.

The tables and their codes: NLST data dictionaries «Participant», «Lung Cancer» and «Spiral CT Abnormalities» of the
Cancer Data Access System (cdas.cancer.gov/datasets/nlst), as IDC publishes them.
"""

import pandas as pd
from pydantic import Field

from lungsynth.cohort.clinical import MISSING, ClinicalTables, number
from lungsynth.cohort.sources import Source
from lungsynth.config import Config

LOBES = {"locrup": 1, "locrmid": 2, "locrlow": 3, "loclup": 4, "loclin": 5, "locllow": 6}
"""Columns of `nlst_prsn` that say whether the first cancer lies there, with the code that `sct_epi_loc` has for it."""
TOPOGRAPHY = {"C341": (1, 4, 5), "C342": (2,), "C343": (3, 6)}
"""ICD-O-3 topography, which names no side, in the codes of `sct_epi_loc`; of the lobes the lingula is an upper one."""
SCREENS = (0, 1, 2)
PARTICIPANTS = ("dicom_patient_id", "age", "gender", "can_scr", "candx_days")
SCREEN_DAYS = tuple(f"scr_days{screen}" for screen in SCREENS)
CANCERS = ("dicom_patient_id", "lc_order", "candx_days", "lc_topog")
ABNORMALITIES = ("dicom_patient_id", "study_yr", "sct_ab_desc", "sct_epi_loc", "sct_slice_num", "sct_long_dia")
NODULE = 51  # sct_ab_desc: non-calcified nodule or mass of at least 4 mm
NO_NUMBER = 999  # sct_slice_num, sct_long_dia: missing
SEX = {1: "M", 2: "F"}


class ClinicalConfig(Config):
    """How NLST's clinical tables label its scans."""

    window_days: int = Field(
        365,
        ge=0,
        le=2557,
        description="days from a screen within which a cancer must be diagnosed to count as visible in it [interval "
        "of NLST's screens, NEJM 365:395; horizon at which Sybil is surest, JCO 41:2191]",
    )
    tables: ClinicalTables | None = Field(None, description="Parquet files; if not given, those of the run's source")


def read_cancers(source: Source) -> pd.DataFrame:
    """One row a cancer of `nlst_canc`: patient, order (1 is the first), day (from randomisation), lc_topog."""
    table = source.clinical("nlst_canc", CANCERS).rename(columns={"dicom_patient_id": "patient"})
    return table.assign(order=number(table["lc_order"]), day=number(table["candx_days"]))


def read_participants(source: Source, cancers: pd.DataFrame) -> pd.DataFrame:
    """One row a participant of `nlst_prsn`: patient, age (years at randomisation), sex, status, and when screened.

    `status` is `cancer` where a lung cancer was diagnosed, `non-cancer` where the trial's follow-up ended without one,
    and missing where the tables do not say or contradict each other. Of each screen there is `scr_days0` … `scr_days2`
    (days from randomisation), of each lobe a column of `LOBES` (1 where the first cancer lies in it).
    """
    table = source.clinical("nlst_prsn", (*PARTICIPANTS, *SCREEN_DAYS, *LOBES))
    table = table.rename(columns={"dicom_patient_id": "patient"}).dropna(subset="patient")
    outcome = number(table["can_scr"])
    diagnosed = number(table["candx_days"]).notna() | table["patient"].isin(cancers["patient"])
    says_free, says_cancer = (outcome == 0).fillna(False), outcome.between(1, 4).fillna(False)
    undated = (table["candx_days"] == MISSING).fillna(False)
    status = pd.Series(pd.NA, index=table.index, dtype="string")
    status[says_free & ~diagnosed & ~undated] = "non-cancer"
    status[(says_cancer | diagnosed) & ~says_free] = "cancer"
    numbers = {name: number(table[name]) for name in ("age", *SCREEN_DAYS, *LOBES)}
    sex = number(table["gender"]).map(SEX).astype("string")
    participants = pd.DataFrame({"patient": table["patient"], "sex": sex, "status": status, **numbers})
    return participants.drop_duplicates("patient", ignore_index=True)


def read_cancer_slices(
    source: Source, participants: pd.DataFrame, cancers: pd.DataFrame, *, window_days: int
) -> pd.DataFrame:
    """The slices that show a cancer: patient, study_yr (0, 1, 2), instance_number, lesion_mm; at most one a screen.

    A screen has such a slice if a cancer was diagnosed within `window_days` after it, and all nodules of the
    radiologist's list that may be the cancer have the same slice number. The nodules that may be the cancer are those
    in its lobe; if there are none, those of unknown lobe; if the cancer's lobe is unknown, all nodules. `lesion_mm` is
    the longest diameter (`sct_long_dia`) of the largest of them.
    """
    screens = _cancers_at_screens(participants, cancers, window_days)
    nodules = source.clinical("nlst_ctab", ABNORMALITIES).rename(columns={"dicom_patient_id": "patient"})
    nodules = nodules[number(nodules["sct_ab_desc"]) == NODULE].drop_duplicates()
    nodules = nodules.assign(
        study_yr=number(nodules["study_yr"]),
        lobe=number(nodules["sct_epi_loc"]).where(lambda code: code.between(1, 6)),
        slice=number(nodules["sct_slice_num"]).where(lambda value: value.between(1, NO_NUMBER - 1)),
        mm=number(nodules["sct_long_dia"]).where(lambda value: value.between(1, NO_NUMBER - 1)),
    )
    pairs = nodules.merge(screens, on=["patient", "study_yr"])
    rows = []
    for (patient, year), screen in pairs.groupby(["patient", "study_yr"]):
        nodules_of_cancer = _candidates(screen)
        numbers = nodules_of_cancer["slice"].unique()
        if len(numbers) == 1 and pd.notna(numbers[0]):
            rows.append((patient, year, numbers[0], nodules_of_cancer["mm"].max()))
    columns = {"patient": "string", "study_yr": "Int64", "instance_number": "Int64", "lesion_mm": "Float64"}
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def _candidates(screen: pd.DataFrame) -> pd.DataFrame:
    """The nodules of one screen that may be its cancer; each row has the lobes of all cancers that it may show."""
    lobes = screen["lobes"].iloc[0]
    if not lobes:
        return screen
    inside = screen[screen["lobe"].isin(lobes)]
    return inside if len(inside) else screen[screen["lobe"].isna()]


def _cancers_at_screens(participants: pd.DataFrame, cancers: pd.DataFrame, window_days: int) -> pd.DataFrame:
    """One row a screen with a diagnosis within `window_days`: patient, study_yr, `lobes` (empty if one is unknown)."""
    cases = participants.loc[participants["status"] == "cancer", ["patient", *SCREEN_DAYS, *LOBES]]
    cancers = cancers.merge(cases, on="patient")
    lobes = [_lobes(cancer) for _, cancer in cancers.iterrows()]
    cancers = cancers.assign(lobes=pd.Series(lobes, index=cancers.index, dtype="object"))
    soon = []
    for screen in SCREENS:
        wait = cancers["day"] - cancers[f"scr_days{screen}"]
        followed = cancers[wait.between(0, window_days).fillna(False)]
        soon.append(followed[["patient", "lobes"]].assign(study_yr=screen))
    table = pd.concat(soon).astype({"study_yr": "Int64"})
    return table.groupby(["patient", "study_yr"])["lobes"].agg(_all_lobes).reset_index()


def _all_lobes(lobes: pd.Series) -> frozenset[int]:
    return frozenset().union(*lobes) if all(lobes) else frozenset()


def _lobes(cancer: pd.Series) -> frozenset[int]:
    """Codes of `sct_epi_loc`: of the first cancer by the participant's own columns, else by its topography."""
    if cancer["order"] == 1 and (named := frozenset(code for name, code in LOBES.items() if cancer[name] == 1)):
        return named
    return frozenset(TOPOGRAPHY.get(str(cancer["lc_topog"]).replace(".", "")[:4], ()))
