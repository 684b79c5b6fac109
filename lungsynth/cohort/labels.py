"""Labels of patients and slices from lesion segmentations, clinical tables or a table of slice labels."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import Field, field_validator, model_validator

from lungsynth.cohort.cohort import SLICE_LABEL_COLUMNS, no_slice_labels
from lungsynth.cohort.csv_file import read_csv
from lungsynth.cohort.identity import normalised_column, twins_of
from lungsynth.cohort.nlst import ClinicalConfig, read_cancer_slices, read_cancers, read_participants
from lungsynth.cohort.sources import Source
from lungsynth.config import Config
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError

CSV_COLUMNS = {
    "collection_id": "collection",
    "PatientID": "patient",
    "SeriesInstanceUID": "series_uid",
    "SOPInstanceUID": "sop_uid",
    "label": "label",
}
NEGATIVE, POSITIVE = CLASSES
FIRST_SCREEN = 1999  # NLST's de-identified study dates: the second of January of 1999, 2000 and 2001


class LabelConfig(Config):
    """Where the labels come from: at least one of the three; the evidence of a series is the first that it has.

    Each name of `lesion_seg` is an analysis result of IDC, such as `nlstseg`, or a collection whose own segmentations
    are meant; patients who have such a segmentation are `cancer`. Without `clinical`, all others are then *presumed*
    non-cancer.
    """

    lesion_seg: tuple[str, ...] | None = Field(None, min_length=1, description="one name or a list of names")
    clinical: ClinicalConfig | None = Field(None, description="NLST's clinical tables, if they are to be read")
    slice_csv: Path | None = Field(None, description=f"CSV file with the columns {', '.join(CSV_COLUMNS)}")

    @field_validator("lesion_seg", mode="before", json_schema_input_type=str | tuple[str, ...] | None)
    @classmethod
    def _one_name(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _some_evidence(self) -> "LabelConfig":
        if self.lesion_seg is None and self.clinical is None and self.slice_csv is None:
            raise ValueError("give at least one of lesion_seg, clinical and slice_csv")
        return self


@dataclass(frozen=True)
class Labelled:
    """CT series with labels, and the evidence for them.

    images: the CT rows that can be labelled, in the source's columns, with `label`, `evidence` (both as in the cohort)
        and `annotated`, true where something names the slices that show cancer; with the clinical tables also their
        sex and age where the source has none.
    lesions: the rows of the lesion segmentations, each with `source_series_uid`, the CT series that it may segment:
        one row a pair, missing where there is no such series.
    slices: labels of single slices, in the columns of `Cohort.slice_labels`.
    steps: (rule, the CT rows that it left), in order, for the funnel.
    """

    images: pd.DataFrame
    lesions: pd.DataFrame
    slices: pd.DataFrame
    steps: tuple[tuple[str, pd.DataFrame], ...]


def label_series(series: pd.DataFrame, config: LabelConfig, source: Source, *, min_instances: int) -> Labelled:
    """Label the CT series among `series`, which are all that the source's query gave (`SERIES_COLUMNS`).

    Call it before series are chosen, for two reasons. A slice number is unambiguous only if the study has no other scan
    of at least `min_instances` instances that it could refer to. And the evidence that a patient has cancer may be in a
    series that is not chosen. A patient is `cancer` if any evidence says so. Of cancer patients, only series with a
    known place of the cancer are kept; the others are left out, never labelled `non-cancer`.

    Raises:
        LungsynthError: evidence is missing, malformed or fits none of the series.
    """
    images = series[series["modality"] == "CT"].reset_index(drop=True)
    lesions = find_lesion_segs(series, config.lesion_seg or (), min_instances)
    clinical = _clinical(images, config.clinical, source, min_instances=min_instances)
    csv = _csv_slices(images, config.slice_csv)

    facts = _facts(images, lesions, clinical, csv)
    presume = config.lesion_seg is not None and config.clinical is None
    images = images.assign(
        label=facts["is_case"].map({True: POSITIVE, False: NEGATIVE}).astype("string"),
        evidence=_evidence(facts, presume),
        annotated=facts["segmented"] | facts["numbered"] | facts["csv_cancer"],
        sex=images["sex"].fillna(clinical["sex"]),
        age=images["age"].fillna(clinical["age"]),
    )
    agreeing = images[~facts["contradicted"]]
    known = agreeing[(agreeing["label"] == POSITIVE) | agreeing["evidence"].notna()]
    usable = known[known["evidence"].notna()]
    steps = (
        ("no two kinds of evidence contradict each other", agreeing),
        ("known whether the patient has cancer", known),
        ("if so, known which slices show it", usable),
    )
    return Labelled(usable, lesions, _slice_labels(usable, clinical, csv), steps)


def read_slice_labels(path: Path) -> pd.DataFrame:
    """The table of slice labels under the names that the cohort uses: the values of `CSV_COLUMNS`.

    Raises:
        LungsynthError: the file, a column or a value is missing, a label is not one of CLASSES, or a slice has two.
    """
    table = read_csv(path)
    missing = [name for name in CSV_COLUMNS if name not in table]
    if missing:
        raise LungsynthError(f"{path} lacks the column(s) {', '.join(missing)}: name them in its header")
    table = table[list(CSV_COLUMNS)].rename(columns=CSV_COLUMNS).apply(normalised_column).drop_duplicates()
    if table.isna().any(axis=None):
        raise LungsynthError(
            f"{path} has {table.isna().any(axis=1).sum()} row(s) with an empty cell: fill or remove them"
        )
    strange = table.loc[~table["label"].isin(CLASSES), "label"]
    if len(strange):
        raise LungsynthError(f"{path} has the label {strange.iloc[0]!r}: it must be {' or '.join(CLASSES)}")
    twice = table.loc[table["sop_uid"].duplicated(), "sop_uid"]
    if len(twice):
        raise LungsynthError(f"{path} names the slice {twice.iloc[0]} in rows that differ: keep one of them")
    return table


def find_lesion_segs(series: pd.DataFrame, names: tuple[str, ...], min_instances: int) -> pd.DataFrame:
    """All lesion segmentations of these names, with each CT series that they may segment: one row a pair.

    The rows do not say which series was segmented, so it is found within the study: by the series number in the
    description (`NLSTSeg Segmentation of Series: 2`), else every CT series of the study remains possible. Frames are
    matched to slices by plane position later on. The result has the columns of `series` and `source_series_uid`.

    Raises:
        LungsynthError: there is no segmentation of one of the names.
    """
    segs = series[series["modality"] == "SEG"]
    found_as = segs["analysis_result"].fillna(segs["collection"])
    segs = segs[found_as.isin(names)]
    if unknown := set(names) - set(found_as):
        raise LungsynthError(
            f"the query gives no segmentation of {', '.join(sorted(unknown))}: `lesion_seg` takes an "
            "analysis_result_id such as nlstseg, or a collection_id, and the query must return series of modality SEG"
        )
    scans = series[(series["modality"] == "CT") & (series["instances"] >= min_instances)]
    scans = scans[["study_uid", "series_uid", "series_number"]]
    pairs = segs.merge(scans, on="study_uid", how="left", suffixes=("", "_of_ct"))
    named = pairs["series_description"].str.extract(r"[Ss]eries:? *(\d+)", expand=False) == pairs["series_number_of_ct"]
    named = named.fillna(False)
    pairs = pairs[named | ~named.groupby(pairs["series_uid"]).transform("any")]
    pairs = pairs.rename(columns={"series_uid_of_ct": "source_series_uid"})
    return pairs[[*series.columns, "source_series_uid"]].reset_index(drop=True)


def _clinical(
    images: pd.DataFrame, config: ClinicalConfig | None, source: Source, *, min_instances: int
) -> pd.DataFrame:
    """For each image the patient's status, sex and age, and number and lesion_mm of the slice with cancer, or NA."""
    columns = {
        "status": "string",
        "sex": "string",
        "age": "Int64",
        "instance_number": "Int64",
        "lesion_mm": "Float64",
    }
    if config is None:
        return pd.DataFrame(index=images.index, columns=list(columns)).astype(columns)
    cancers = read_cancers(source)
    participants = read_participants(source, cancers)
    slices = read_cancer_slices(source, participants, cancers, window_days=config.window_days)
    year = pd.to_numeric(images["study_date"].str[:4], errors="coerce").astype("Int64") - FIRST_SCREEN
    table = images[["collection", "patient", "instances"]].assign(study_yr=year)
    table["patient"] = table["patient"].where(table["collection"] == "nlst")
    table = table.merge(participants[["patient", "status", "sex", "age"]], on="patient", how="left")
    table = table.merge(slices, on=["patient", "study_yr"], how="left")
    if not table["patient"].isin(participants["patient"]).any():
        raise LungsynthError("the clinical tables know none of the selected patients: select series of NLST")
    holds = (table["instances"] >= table["instance_number"].clip(lower=min_instances)).fillna(False)
    lengths = table[holds].groupby(["patient", "study_yr"])["instances"].transform("nunique")
    certain = holds & (lengths.reindex(table.index) == 1)
    table["instance_number"] = table["instance_number"].where(certain)
    return table[list(columns)].astype(columns)


def _csv_slices(images: pd.DataFrame, path: Path | None) -> pd.DataFrame:
    if path is None:
        return pd.DataFrame(columns=list(CSV_COLUMNS.values()), dtype="string")
    slices = read_slice_labels(path)
    if not images["series_uid"].isin(slices["series_uid"]).any():
        raise LungsynthError(
            f"none of the {len(images)} selected CT series has a labelled slice in {path}: select series of the CSV"
        )
    _check_patients(slices, images, path)
    return slices


def _check_patients(slices: pd.DataFrame, images: pd.DataFrame, path: Path) -> None:
    """Raise an error if the table spells patients otherwise than the index: such a patient would have two labels."""
    pairs = slices.merge(images[["series_uid", "collection", "patient"]], on="series_uid", suffixes=("", "_in_index"))
    pairs = pairs[_patients(pairs) != pairs["collection_in_index"] + "\0" + pairs["patient_in_index"]]
    spelt = pd.concat([_patients(slices), _patients(images)]).unique()
    if others := pairs["series_uid"].nunique() or len(twins_of(spelt)):
        raise LungsynthError(
            f"{path} spells {others} patients otherwise than the index of series does: write collection_id and "
            "PatientID as they are there, with capitals and with leading zeros, which spreadsheets drop"
        )


def _facts(images: pd.DataFrame, lesions: pd.DataFrame, clinical: pd.DataFrame, csv: pd.DataFrame) -> pd.DataFrame:
    """What each kind of evidence says about each image: columns of booleans."""
    patient, csv_cancer = _patients(images), csv[csv["label"] == POSITIVE]
    has_lesion = patient.isin(_patients(lesions)) | patient.isin(_patients(csv_cancer))
    is_free, is_case = ((clinical["status"] == name).fillna(False) for name in (NEGATIVE, POSITIVE))
    facts = {
        "segmented": images["series_uid"].isin(lesions["source_series_uid"]),
        "numbered": clinical["instance_number"].notna(),
        "in_csv": images["series_uid"].isin(csv["series_uid"]),
        "csv_cancer": images["series_uid"].isin(csv_cancer["series_uid"]),
        "is_case": has_lesion | is_case,
        "is_free": is_free,
        "contradicted": has_lesion & is_free,
    }
    return pd.DataFrame(facts).astype(bool)


def _evidence(facts: pd.DataFrame, presume: bool) -> pd.Series:
    """The best evidence of each image, or NA: for a case one that names slices, else one that excludes cancer."""
    evidence = pd.Series(pd.NA, index=facts.index, dtype="string")
    if presume:
        evidence[~facts["is_case"]] = "no_lesion_seg"
    evidence[facts["in_csv"]] = "slice_labels"
    evidence[facts["numbered"] | (facts["is_free"] & ~facts["is_case"])] = "clinical"
    evidence[facts["segmented"]] = "lesion_seg"
    return evidence


def _slice_labels(images: pd.DataFrame, clinical: pd.DataFrame, csv: pd.DataFrame) -> pd.DataFrame:
    """Labels of single slices, of the images whose evidence these are."""
    numbered = images[(images["evidence"] == "clinical") & (images["label"] == POSITIVE)]
    by_number = pd.DataFrame(
        {
            "series_uid": numbered["series_uid"],
            "instance_number": clinical["instance_number"].reindex(numbered.index),
            "label": POSITIVE,
            "evidence": "clinical",
            "lesion_mm": clinical["lesion_mm"].reindex(numbered.index),
        }
    )
    in_csv = images.loc[images["evidence"] == "slice_labels", "series_uid"]
    by_uid = csv[csv["series_uid"].isin(in_csv)].assign(evidence="slice_labels")
    parts = [
        part.reindex(columns=list(SLICE_LABEL_COLUMNS)).astype(SLICE_LABEL_COLUMNS) for part in (by_number, by_uid)
    ]
    return pd.concat([no_slice_labels(), *parts], ignore_index=True)


def _patients(table: pd.DataFrame) -> pd.Series:
    return table["collection"] + "\0" + table["patient"]
