"""A private mirror of the Imaging Data Commons for tests: `python tests/s3_mirror.py FOLDER [--port N]`.

Serves FOLDER/idc-open-data/<crdc_series_uuid>/<file>.dcm by moto's S3 server on loopback as the public bucket
`idc-open-data`, under the keys that IDC itself uses.
"""

import argparse
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from moto.server import ThreadedMotoServer

BUCKET = "idc-open-data"


@contextmanager
def serve(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve `folder`, in which each folder is a bucket, until the block ends; gives the endpoint's URL.

    Port 0 takes any free port.
    """
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    try:
        host, bound = server.get_host_and_port()
        endpoint = f"http://{host}:{bound}"
        for bucket in sorted(path for path in folder.iterdir() if path.is_dir()):
            _put_objects(bucket, endpoint)
        yield endpoint
    finally:
        server.stop()


def client(endpoint: str) -> BaseClient:
    """A client that may write to the server."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(proxies={}),
    )


def _put_objects(bucket: Path, endpoint: str) -> None:
    s3 = client(endpoint)
    s3.create_bucket(Bucket=bucket.name, ACL="public-read")
    for file in sorted(bucket.glob("*/*")):
        key = file.relative_to(bucket).as_posix()
        s3.put_object(Bucket=bucket.name, Key=key, Body=file.read_bytes(), ACL="public-read")


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help=f"holds {BUCKET}/<crdc_series_uuid>/<file>.dcm")
    parser.add_argument("--port", type=int, default=0, help="any free port where not given")
    options = parser.parse_args()
    if not (options.folder / BUCKET).is_dir():
        parser.error(f"{options.folder} holds no folder {BUCKET}")
    try:
        with serve(options.folder, options.port) as endpoint:
            print(endpoint, flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
