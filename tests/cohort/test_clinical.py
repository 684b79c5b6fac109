"""Clinical tables as Parquet, from a folder and from a local S3 server. All their rows are invented."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer
from pydantic import ValidationError

from lungsynth.cohort.clinical import ClinicalTables, number, read_clinical
from lungsynth.errors import LungsynthError

BUCKET, KEY = "idc-open-metadata", "bigquery_export/idc_v99_clinical/nlst_prsn"
INVENTED = pd.DataFrame(
    {"dicom_patient_id": ["1", "2", "3"], "age": ["61", ".M", "70"], "candx_days": [".N", "412", ".N"]}
)


def put_parquet(s3, key: str, table: pd.DataFrame) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), sink)
    s3.put_object(Bucket=BUCKET, Key=key, Body=sink.getvalue().to_pybytes(), ACL="public-read")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server that holds an invented `nlst_prsn` in two files, and one that is no Parquet."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1", config=Config(proxies={}), **keys)
    s3.create_bucket(Bucket=BUCKET, ACL="public-read")
    put_parquet(s3, f"{KEY}/000000000000.parquet", INVENTED[:2])
    put_parquet(s3, f"{KEY}/000000000001.parquet", INVENTED[2:])
    s3.put_object(Bucket=BUCKET, Key=f"{KEY.replace('v99', 'v98')}/0.parquet", Body=b"<html>", ACL="public-read")
    yield url
    server.stop()


def test_the_export_is_fetched_once_and_kept_by_version(endpoint, tmp_path):
    tables = ClinicalTables(version=99, endpoint=endpoint, cache=tmp_path)
    fetched = read_clinical("nlst_prsn", ["candx_days", "dicom_patient_id"], tables)
    assert list(fetched.columns) == ["candx_days", "dicom_patient_id"]
    assert fetched["dicom_patient_id"].tolist() == ["1", "2", "3"]
    assert fetched["candx_days"].tolist() == [".N", "412", ".N"]
    assert len(list((tmp_path / "idc_v99_clinical" / "nlst_prsn").glob("*.parquet"))) == 2

    offline = tables.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    pd.testing.assert_frame_equal(read_clinical("nlst_prsn", list(fetched.columns), offline), fetched)


def test_a_mirror_that_was_filled_half_is_asked_again(endpoint, tmp_path, caplog):
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    s3 = boto3.client("s3", endpoint_url=endpoint, config=Config(proxies={}), **keys)
    key = KEY.replace("v99", "v96")
    put_parquet(s3, f"{key}/0.parquet", INVENTED[:2])
    tables = ClinicalTables(version=96, endpoint=endpoint, cache=tmp_path)
    assert read_clinical("nlst_prsn", ["age"], tables)["age"].tolist() == ["61", ".M"]
    put_parquet(s3, f"{key}/1.parquet", INVENTED[2:])
    both = [threading.Thread(target=read_clinical, args=("nlst_prsn", ["age"], tables)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    offline = tables.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    assert read_clinical("nlst_prsn", ["age"], offline)["age"].tolist() == ["61", ".M", "70"]
    assert "http://127.0.0.1:9 could not be asked for s3://" in caplog.text
    assert [path.name for path in (tmp_path / "idc_v96_clinical").iterdir()] == ["nlst_prsn"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": 97}, r"there is no s3://idc-open-metadata/bigquery_export/idc_v97_clinical/nlst_prsn/"),
        ({"version": 98}, r"cannot fetch s3://.*idc_v98_clinical/nlst_prsn/: .*Parquet"),
        (
            {"version": 99, "endpoint": "http://127.0.0.1:9"},
            r"cannot fetch s3://.*; try again, or name a copy in labels",
        ),
    ],
)
def test_a_failed_fetch_is_one_line_and_leaves_nothing(endpoint, tmp_path, settings, message):
    tables = ClinicalTables(**({"endpoint": endpoint, "cache": tmp_path} | settings))
    with pytest.raises(LungsynthError, match=message) as error:
        read_clinical("nlst_prsn", ["age"], tables)
    assert "\n" not in str(error.value)
    assert [path for path in tmp_path.rglob("*") if path.name.endswith("nlst_prsn") or path.is_file()] == []


def test_the_version_is_that_of_the_packaged_index(endpoint, tmp_path):
    from idc_index_data import __version__

    with pytest.raises(LungsynthError, match=rf"idc_v{__version__.split('.')[0]}_clinical"):
        read_clinical("nlst_prsn", ["age"], ClinicalTables(endpoint=endpoint, cache=tmp_path))


@pytest.mark.parametrize("name", ["nlst_prsn.parquet", "nlst_prsn/000000000000.parquet"])
def test_a_folder_serves_too(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    INVENTED.to_parquet(tmp_path / name)
    table = read_clinical("nlst_prsn", ["age"], ClinicalTables(folder=tmp_path))
    assert table["age"].tolist() == ["61", ".M", "70"]


def test_numbers_may_be_stored_as_numbers(tmp_path):
    INVENTED.assign(age=[61, None, 70], can_scr=[0, 1, 0]).to_parquet(tmp_path / "nlst_prsn.parquet")
    table = read_clinical("nlst_prsn", ["age", "can_scr"], ClinicalTables(folder=tmp_path))
    assert number(table["age"]).fillna(-1).tolist() == [61, -1, 70]
    assert number(table["can_scr"]).tolist() == [0, 1, 0]


def test_codes_are_no_numbers():
    text = pd.Series(["7", " 8 ".strip(), "-3", "4.0", "4.5", ".M", ".N", ".E", "", None], dtype="string")
    assert number(text).fillna(999).tolist() == [7, 8, -3, 4] + [999] * 6


def test_missing_tables_and_columns_are_named(tmp_path):
    INVENTED.to_parquet(tmp_path / "nlst_prsn.parquet")
    with pytest.raises(LungsynthError, match=r"clinical table nlst_prsn in .* lacks the column\(s\) gender, can_scr:"):
        read_clinical("nlst_prsn", ["age", "gender", "can_scr"], ClinicalTables(folder=tmp_path))
    with pytest.raises(LungsynthError, match=r"holds no clinical table nlst_canc: put"):
        read_clinical("nlst_canc", ["age"], ClinicalTables(folder=tmp_path))
    os.truncate(tmp_path / "nlst_prsn.parquet", 100)
    with pytest.raises(LungsynthError, match=r"cannot read the clinical table .*nlst_prsn\.parquet"):
        read_clinical("nlst_prsn", ["age"], ClinicalTables(folder=tmp_path))


def test_an_endpoint_has_a_scheme():
    with pytest.raises(ValidationError, match="with its scheme"):
        ClinicalTables(endpoint="minio:9000", cache=Path("anywhere"))
