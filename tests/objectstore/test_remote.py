"""The remote path alone: names, errors, what a put and a killed put leave, the lock."""

from __future__ import annotations

import pickle
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import objects
import pytest

from facegraft.store import RemoteError, RemotePath, StoreError, place
from facegraft.store import remote as remote_module


def at(url: str) -> RemotePath:
    path = place(url)
    assert isinstance(path, RemotePath)
    return path


def test_names_of_a_url() -> None:
    pytest.importorskip("s3fs")
    path = at("s3://bucket/a/b.obj/")
    assert (str(path), path.name, path.stem, path.suffix) == ("s3://bucket/a/b.obj", "b.obj", "b", ".obj")
    assert str(path.parent) == "s3://bucket/a" and str(path.parent / "c") == "s3://bucket/a/c"
    assert str(path.with_name("d")) == "s3://bucket/a/d" and path.parent.parent.parent == path.parent.parent
    assert str(path.relative_to(at("s3://bucket"))) == "a/b.obj"
    assert not path.is_relative_to(at("s3://bucket/a/b"))
    assert pickle.loads(pickle.dumps(path)) == path and place(path) is path  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "path"), [("out", "out"), ("/a/b", "/a/b"), ("file:///a/b%20c", "/a/b c"), ("C:x", "C:x")]
)
def test_what_is_no_url_is_a_plain_path(text: str, path: str) -> None:
    assert place(text) == Path(path) and isinstance(place(text), Path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nosuch://a/b", "protocol 'nosuch' is unknown"),
        ("s3://", "names no folder"),
        ("s3://bucket/a/../b", "'..'"),
        ("s3://bucket//b", "'//'"),
        ("file://host/a", "names host 'host'"),
        (Path("s3://bucket/a"), "give it as text"),
    ],
)
def test_a_wrong_url_is_refused(text: str | Path, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        place(text)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")

    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(StoreError, match=r"Install s3fs.*pip install 'facegraft\[remote\]'"):
        place("s3://bucket/a")


def test_put_get_and_remove(bucket: str) -> None:
    path = at(f"{bucket}/folder/x.bin")
    assert path.size() is None and not path.is_file() and not path.exists()
    path.put(b"abc")
    assert (path.size(), path.read_bytes(), path.read_range(1, 9), list(path.chunks())) == (3, b"abc", b"bc", [b"abc"])
    assert path.is_file() and not path.is_dir() and path.parent.is_dir() and not path.parent.is_file()
    assert [(entry.name, entry.is_dir()) for entry in at(bucket).iterdir()] == [("folder", True)]
    path.put(b"")
    assert path.read_bytes() == b"" and list(path.chunks()) == []
    path.unlink()
    path.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        path.read_bytes()


def test_an_object_of_several_parts_is_whole_and_needs_no_reading_back(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Parts are at least 5 MiB in S3.
    monkeypatch.setattr(remote_module, "_PART", 5 << 20)
    path, data = at(f"{bucket}/large"), bytes(range(256)) * (11 << 12)
    monkeypatch.setattr(RemotePath, "chunks", lambda *_: pytest.fail("read back, though the store gave the MD5s"))
    path.put(data)
    assert path.read_bytes() == data


def test_what_arrives_otherwise_than_sent_is_noticed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = at(f"{bucket}/x")
    fs, _ = path._open()
    honest = fs.pipe_file
    monkeypatch.setattr(fs, "pipe_file", lambda name, data, **options: honest(name, data[:-1] + b"?", **options))
    with pytest.raises(RemoteError, match="not what was sent"):
        path.put(b"abc")
    monkeypatch.setattr(fs, "pipe_file", lambda name, data, **options: honest(name, data[:-1], **options))
    with pytest.raises(RemoteError, match="2 bytes arrived of 3"):
        path.put(b"abc")


def test_a_store_without_md5_is_read_back(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = at(f"{bucket}/x")
    fs, _ = path._open()
    honest, read = fs.info, []
    monkeypatch.setattr(fs, "info", lambda name: {**honest(name), "ETag": '"of-an-encrypted-object"'})
    chunks = RemotePath.chunks
    monkeypatch.setattr(RemotePath, "chunks", lambda self, size=None: read.append(size) or chunks(self, size))
    path.put(b"abc")
    assert read == [3]


def test_an_upload_that_is_killed_leaves_nothing(bucket: str, endpoint: str) -> None:
    name = urlsplit(endpoint)
    with socket.create_connection((name.hostname, name.port)) as connection:
        target = f"/{bucket.removeprefix('s3://')}/shards/00000-of-00001.json"
        head = f"PUT {target} HTTP/1.1\r\nHost: {name.netloc}\r\nContent-Length: 1000000\r\n"
        credential = "Credential=tester/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        connection.sendall(f"{head}Authorization: AWS4-HMAC-SHA256 {credential}\r\n\r\n".encode() + b"x" * 5000)
    assert objects.listed(bucket) == []
    assert at(f"{bucket}/shards/00000-of-00001.json").size() is None


KILLED_AT_THE_SECOND_PART = """
import os, signal, sys
import s3fs
from facegraft.store import remote
remote._PART = 5 << 20
honest = s3fs.S3FileSystem._call_s3
async def call(self, method, *arguments, **options):
    if method == "upload_part" and options["PartNumber"] > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return await honest(self, method, *arguments, **options)
s3fs.S3FileSystem._call_s3 = call
remote.place(sys.argv[1]).put(bytes(11 << 20))
"""


def test_an_upload_of_several_parts_that_is_killed_leaves_no_object(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{bucket}/shards/00000-of-00001.safetensors"
    process = subprocess.run(
        [sys.executable, "-c", KILLED_AT_THE_SECOND_PART, url], stderr=subprocess.PIPE, text=True, timeout=600
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert objects.listed(bucket) == [] and at(url).size() is None
    monkeypatch.setattr(remote_module, "_PART", 5 << 20)
    at(url).put(b"y" * (11 << 20))
    assert at(url).read_bytes() == b"y" * (11 << 20)


def test_create_gives_a_name_to_one_only(bucket: str) -> None:
    path = at(f"{bucket}/lock")
    path.create(b"first")
    with pytest.raises(FileExistsError):
        path.create(b"second")
    assert path.read_bytes() == b"first"


@pytest.mark.slow
def test_no_server_and_no_bucket_are_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        at("s3://no-such-bucket-here/x").put(b"abc")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    remote_module._filesystem.cache_clear()
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RemoteError, match=r"cannot be reached .*AWS_ENDPOINT_URL") as error:
        at("s3://other/x").read_bytes()
    assert "\n" not in str(error.value)
