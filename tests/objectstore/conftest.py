"""A real S3 server on loopback, in a process of its own, and a bucket a test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# toy_stages and toy_runs are imported by name in workers and scripts.
TOYS = HERE.parent / "engine"
sys.path[:0] = [str(HERE), str(TOYS)]

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """The address of the server, a skip that says why where it cannot be started. $FACEGRAFT_TEST_S3 names one that runs already."""
    if os.environ.get("FACEGRAFT_TEST_S3"):
        yield os.environ["FACEGRAFT_TEST_S3"]
        return
    for package in ("moto", "flask", "s3fs"):
        pytest.importorskip(
            package, reason=f"no S3 server: package {package} is missing (pip install 'facegraft[dev]')"
        )
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    address = f"http://127.0.0.1:{int(process.stdout.readline())}"
    while True:
        try:
            urllib.request.urlopen(f"{address}/moto-api/data.json", timeout=5).close()
            break
        except OSError:  # not there yet, or too busy to answer in time
            assert process.poll() is None, "the S3 server has ended"
            time.sleep(0.05)
    yield address
    process.stdin.close()
    process.wait(timeout=600)


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket; the environment of this test and its children leads to it, and to a cache of the test's own."""
    import boto3
    import s3fs

    from facegraft.store import remote

    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "FACEGRAFT_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(TOYS), str(ROOT), str(ROOT / "model")]),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    # Clients remember the address that they were made with, here and in fsspec.
    remote._filesystem.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"b{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"
