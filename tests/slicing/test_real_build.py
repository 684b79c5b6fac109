"""The five real series of the mirror through index, S3 server, reader and shard, labelled by the segmentation alone."""

import pandas as pd
import pytest
import s3_mirror

from lungsynth.cohort.cohort import COLUMNS, Cohort, funnel, no_slice_labels
from lungsynth.cohort.sources import IndexSource
from lungsynth.fetching.fetch import FetchConfig
from lungsynth.slicing.series import SliceConfig
from lungsynth.slicing.shard import build_shard

SQL = "SELECT * FROM series WHERE collection IN ('lidc_idri', 'lung_pet_ct_dx', 'qin_lung_ct')"


@pytest.fixture(scope="module")
def cohort(mirror):
    """All that the mirror holds, as the packaged index describes it: one cancer patient by SEG, three presumed not."""
    held = {folder.name for folder in (mirror / s3_mirror.BUCKET).iterdir()}
    with IndexSource() as source:
        series = source.series(SQL, "the test's query")
    series = series[series["url"].str.split("/").str[3].isin(held)].copy()
    assert len(series) == len(held) == 5
    seg = series["modality"] == "SEG"
    series["role"] = seg.map({True: "lesion", False: "image"})
    segmented = series["patient"].isin(series.loc[seg, "patient"])
    series["source_series_uid"] = series.loc[segmented & ~seg, "series_uid"].iloc[0]
    series["source_series_uid"] = series["source_series_uid"].where(seg)
    series["label"] = segmented.map({True: "cancer", False: "non-cancer"})
    series["evidence"] = segmented.map({True: "lesion_seg", False: "no_lesion_seg"})
    series["patient_key"] = [f"P-{number:012x}" for number in pd.factorize(series["patient"])[0]]
    series["split"] = "train"
    return Cohort(series.reindex(columns=list(COLUMNS)), no_slice_labels(), funnel(("all", series)))


def test_the_segmentation_labels_the_slices_that_the_table_labels(mirror, cohort, tmp_path):
    config = SliceConfig(size=64, root=tmp_path / "slices", min_lung_fraction=0)
    with s3_mirror.serve(mirror) as url:
        built = build_shard(cohort, FetchConfig(root=tmp_path / "series", endpoints=(url,)), config)
    assert (built.series, built.rejected) == (4, 0)
    table = pd.read_parquet(built.shard.folder / "slices.parquet")
    published = pd.read_csv(mirror / "slice_labels.csv").set_index("SOPInstanceUID")["label"]
    segmented = table["evidence"] == "lesion_seg"
    covered = table.loc[segmented, "sop_uid"]
    assert set(table.loc[segmented, "label"]) == {"cancer"}
    qin = published[
        pd.read_csv(mirror / "slice_labels.csv").set_index("SOPInstanceUID")["collection_id"] == "qin_lung_ct"
    ]
    assert set(covered) == set(qin[qin == "cancer"].index)
    assert set(table["split"]) == {"train"}
    assert built.bytes > 150e6
