"""The cache of remote shards: verified, mended, bounded, shared; and reading a dataset through it."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import objects
import pytest
from toy_runs import run
from toy_stages import toy_plan

from facegraft.store import Cache, DamagedError, RemotePath, StoreError, default_cache, open_dataset, place
from facegraft.store import cache as cache_module
from facegraft.store.cache import RemoteFile


def uploaded(bucket: str, name: str, data: bytes) -> RemoteFile:
    path = place(f"{bucket}/{name}")
    assert isinstance(path, RemotePath)
    path.put(data)
    return RemoteFile(path, len(data), hashlib.sha256(data).hexdigest(), "make it again")


def copies(cache: Cache) -> set[str]:
    return {path.name for path in cache.folder.glob("??/*") if path.name != ".lock"}


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is read from the store, piece by piece."""
    names: list[str] = []
    honest = RemotePath.chunks

    def chunks(self: RemotePath, size: int | None = None) -> Any:
        names.append(self.name)
        return honest(self, size)

    monkeypatch.setattr(RemotePath, "chunks", chunks)
    return names


def test_what_is_there_is_checked_and_used(bucket: str, tmp_path: Path, downloads: list[str]) -> None:
    cache, file = Cache(tmp_path / "c", 1000), uploaded(bucket, "a", b"abc")
    assert cache.fetch(file).read_bytes() == b"abc" == cache.fetch(file).read_bytes()
    assert downloads == ["a"] and copies(cache) == {file.sha256}


@pytest.mark.parametrize("damage", ["flipped", "cut", "link"])
def test_a_damaged_copy_is_thrown_away_and_fetched_again(
    bucket: str, tmp_path: Path, downloads: list[str], damage: str
) -> None:
    cache, file = Cache(tmp_path / "c", 1000), uploaded(bucket, "a", b"abc")
    copy = cache.fetch(file)
    if damage == "link":
        (tmp_path / "elsewhere").write_bytes(b"abc")
        copy.unlink()
        copy.symlink_to(tmp_path / "elsewhere")
    else:
        copy.write_bytes(b"abd" if damage == "flipped" else b"ab")
    assert cache.fetch(file).read_bytes() == b"abc"
    assert not copy.is_symlink() and downloads == ["a", "a"]


def test_what_arrives_damaged_is_not_kept(bucket: str, tmp_path: Path) -> None:
    cache, file = Cache(tmp_path / "c", 1000), uploaded(bucket, "a", b"abc")
    for data, how in ((b"abd", "sha256 differs"), (b"ab", "2 bytes where its record says 3")):
        objects.put(str(file.path), data)
        with pytest.raises(DamagedError, match=f"{file.path} is damaged .{how}.*; make it again"):
            cache.fetch(file)
        assert copies(cache) == set()
    objects.delete(str(file.path))
    with pytest.raises(StoreError, match=f"{file.path} is missing; make it again"):
        cache.fetch(file)


def test_the_least_recently_used_goes_first_and_the_size_holds(bucket: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 250)
    files = [uploaded(bucket, f"{n}", bytes([n]) * 100) for n in range(4)]
    for age, file in enumerate(files[:2]):
        os.utime(cache.fetch(file), (1000 + age, 1000 + age))
    cache.fetch(files[0])  # used again, so it is younger now
    cache.fetch(files[2])
    assert copies(cache) == {files[0].sha256, files[2].sha256}
    large = uploaded(bucket, "large", b"x" * 900)
    assert cache.fetch(large).stat().st_size == 900
    assert copies(cache) == {large.sha256}


def test_what_a_killed_download_left_goes_when_there_is_work(bucket: str, tmp_path: Path) -> None:
    cache, file = Cache(tmp_path / "c", 1000), uploaded(bucket, "a", b"abc")
    shelf = cache.fetch(file).parent
    name = cache_module.temporary_name("0" * 64).replace(f"-{os.getpid()}-", "-4194305-")
    (shelf / name).write_bytes(b"half")
    cache.fetch(uploaded(bucket, "b", b"bcd"))
    assert not (shelf / name).exists()


def test_a_copy_that_another_process_removes_is_fetched_again(bucket: str, tmp_path: Path) -> None:
    cache, file = Cache(tmp_path / "c", 1000), uploaded(bucket, "a", b"abc")
    seen = []

    def opener(copy: Path) -> bytes:
        seen.append(copy)
        if len(seen) < wanted:
            copy.unlink()
        return copy.read_bytes()

    wanted = 2
    assert cache.open(file, opener) == b"abc" and len(seen) == 2
    wanted = 100
    with pytest.raises(StoreError, match=r"removed again and again.*FACEGRAFT_CACHE_GB"):
        cache.open(file, opener)


def test_a_record_cannot_lead_out_of_the_cache(bucket: str, tmp_path: Path) -> None:
    file = uploaded(bucket, "a", b"abc")
    hostile = RemoteFile(file.path, 3, "../../outside", "no")
    with pytest.raises(DamagedError, match="no sha256"):
        Cache(tmp_path / "c", 1000).fetch(hostile)
    assert list(tmp_path.glob("**/outside*")) == []


def test_a_folder_that_cannot_be_written_is_named(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="FACEGRAFT_CACHE"):
        Cache(tmp_path / "file" / "c", 1000).fetch(uploaded(bucket, "a", b"abc"))


@pytest.mark.parametrize("text", ["a lot", "0", "-1", "nan", "inf"])
def test_a_size_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FACEGRAFT_CACHE_GB", text)
    with pytest.raises(StoreError, match="is not a number of gigabytes"):
        default_cache()


def test_the_environment_says_where_and_how_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FACEGRAFT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FACEGRAFT_CACHE_GB", "0.5")
    assert default_cache() == Cache(tmp_path / "facegraft", 500_000_000)
    monkeypatch.setenv("FACEGRAFT_CACHE", str(tmp_path / "mine"))
    assert default_cache().folder == tmp_path / "mine"


# -- a dataset through the cache --------------------------------------------------------------------------------------


@pytest.fixture
def dataset(bucket: str, tmp_path: Path) -> tuple[str, Path]:
    """(URL, folder) of the same dataset; the bucket's is a copy of the folder's, as `aws s3 sync` would make it."""
    folder = tmp_path / "disk" / "out"
    run(toy_plan(6, 2), folder, scheduler="sync")
    for path in folder.rglob("*"):
        if path.is_file():
            objects.put(f"{bucket}/out/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"{bucket}/out", folder


def test_a_remote_dataset_reads_as_the_local_one(dataset: tuple[str, Path], downloads: list[str]) -> None:
    url, folder = dataset
    remote, local = open_dataset(url), open_dataset(folder)
    assert downloads == []  # nothing is fetched before it is asked for
    assert remote.fingerprint == local.fingerprint and remote.keys() == local.keys()
    assert np.array_equal(remote.faces, local.faces) and remote.region_map == local.region_map
    for key in local:
        for field, array in local[key].items():
            assert np.array_equal(remote.read(key, field), array) and remote.shape(key, field) == array.shape
    assert np.array_equal(remote.window("item_001", "vertices", 1, 3), local["item_001"]["vertices"][1:3])
    assert sorted(downloads) == sorted(path.name for path in local.shards)
    again = pickle.loads(pickle.dumps(remote))
    assert np.array_equal(again["item_005"]["vertices"], local["item_005"]["vertices"])
    assert len(downloads) == 3


def test_a_copy_damaged_between_two_readers_does_no_harm(dataset: tuple[str, Path], downloads: list[str]) -> None:
    url, _ = dataset
    reader = open_dataset(url)
    expected = reader["item_000"]["vertices"]
    for copy in default_cache().folder.glob("??/*"):
        if copy.name != ".lock":
            copy.write_bytes(copy.read_bytes()[:-1] + b"?")
    del reader
    assert np.array_equal(open_dataset(url)["item_000"]["vertices"], expected)
    assert len(downloads) == 2


def test_shapes_that_need_no_checksum_need_no_shard(dataset: tuple[str, Path], downloads: list[str]) -> None:
    url, folder = dataset
    headers, local = open_dataset(url, verify=False), open_dataset(folder)
    assert all(headers.shape(key, field) == local.shape(key, field) for key in local for field in local.schema.fields)
    assert downloads == []
    name = local.shards[0].name
    for head in (b"", b"\xff" * 8, (10).to_bytes(8, "little") + b"not JSON!!"):
        objects.put(f"{url}/shards/{name}", head.ljust(local.shards[0].stat().st_size, b" ") if head else b"")
        with pytest.raises(StoreError, match=f"shards/{name} is damaged"):
            open_dataset(url, verify=False).shape("item_000", "vertices")


def test_a_cache_of_one_shard_is_enough(dataset: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = dataset
    cache, local = Cache(tmp_path / "tiny", 1), open_dataset(folder)
    remote = open_dataset(url, cache=cache)
    for _ in range(2):
        for key in local:
            assert np.array_equal(remote[key]["vertices"], local[key]["vertices"])
            assert len(copies(cache)) == 1
