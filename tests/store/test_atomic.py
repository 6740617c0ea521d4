"""Whole or absent: what is left on the disk when a write fails at any of its steps."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from facegraft.store import StoreError, write_arrays_atomic, write_bytes_atomic, write_json_atomic
from facegraft.store.atomic import arrays_to_bytes, canonical_json, host_name, sha256_file


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_into_missing_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_bytes_atomic(path, b"first")
    write_bytes_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert names_in(path.parent) == ["file.bin"]
    assert sha256_file(path) == "16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4"


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            errno.ENOSPC,
            "disk full while writing {path}; free space and run the same command again: finished shards are kept",
        ),
        (errno.EIO, "input/output error while writing {path}; check the disk and run the same command again to go on"),
        (errno.EACCES, "no permission to write {path}; choose another output folder or make this one writable"),
        (errno.EROFS, "no permission to write {path}"),
        (errno.ENAMETOOLONG, "cannot write {path}: File name too long"),
    ],
)
def test_a_failing_step_leaves_the_old_file_and_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, words: str
) -> None:
    path = tmp_path / "file.bin"
    write_bytes_atomic(path, b"old")

    def fail(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(StoreError) as error:
            write_bytes_atomic(path, b"new")
    assert words.format(path=path) in str(error.value)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["file.bin"]


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:3]))
    write_bytes_atomic(tmp_path / "file.bin", b"0123456789")
    assert (tmp_path / "file.bin").read_bytes() == b"0123456789"


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes_atomic(tmp_path / "file.bin", b"new")
    assert names_in(tmp_path) == []


def test_only_dead_attempts_at_the_same_file_are_removed(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    ).stdout.strip()
    mine_dead = tmp_path / f"00000-of-00002.safetensors.tmp-{host_name()}-{dead}-abc"
    mine_alive = tmp_path / f"00000-of-00002.safetensors.tmp-{host_name()}-{os.getppid()}-abc"
    other_shard = tmp_path / f"00001-of-00002.safetensors.tmp-{host_name()}-{dead}-abc"
    elsewhere_new = tmp_path / "00000-of-00002.safetensors.tmp-elsewhere-1-abc"
    elsewhere_old = tmp_path / "00000-of-00002.safetensors.tmp-elsewhere-2-abc"
    for path in (mine_dead, mine_alive, other_shard, elsewhere_new, elsewhere_old):
        path.write_bytes(b"half")
    os.utime(elsewhere_old, (0, 0))
    write_bytes_atomic(tmp_path / "00000-of-00002.safetensors", b"whole")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"00000-of-00002.safetensors", mine_alive.name, other_shard.name, elsewhere_new.name}


def test_json_is_spelled_one_way(tmp_path: Path) -> None:
    assert canonical_json({"b": np.float64(0.5), "a": [np.int64(1), np.bool_(True), None, "é"]}) == canonical_json(
        {"a": [1, True, None, "é"], "b": 0.5}
    )
    write_json_atomic(tmp_path / "x.json", {"b": 1, "a": 2})
    assert (tmp_path / "x.json").read_bytes() == b'{\n "a": 2,\n "b": 1\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), np.zeros(3), {1, 2}, "\ud800"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(StoreError, match="not writable as JSON"):
        canonical_json({"x": value})


def test_arrays_have_one_spelling_whatever_their_order_and_layout(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    first = {"b": values, "a": np.zeros(0, np.uint8), "c": np.float64(2).reshape(())}
    second = {"c": np.array(2.0), "a": np.zeros(0, np.uint8), "b": np.asfortranarray(values)}
    third = {"c": np.array(2.0), "a": np.zeros(0, np.uint8), "b": values.astype(">f4")}
    assert arrays_to_bytes(first) == arrays_to_bytes(second) == arrays_to_bytes(third)
    write_arrays_atomic(tmp_path / "x.safetensors", first)
    assert (tmp_path / "x.safetensors").read_bytes() == arrays_to_bytes(second)


def test_the_order_of_writing_is_the_one_that_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data must be on the disk before the name is, and the name before the next file is begun."""
    calls: list[str] = []

    def recorded(name: str, what: Callable[..., str]) -> None:
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args: (calls.append(f"{name} {what(*args)}"), real(*args))[1])

    recorded("write", lambda descriptor, data: "file")
    recorded("fsync", lambda descriptor: "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
    recorded("replace", lambda source, target: Path(target).name)
    write_bytes_atomic(tmp_path / "x", b"data")
    assert calls == ["write file", "fsync file", "replace x", "fsync folder"]
    calls.clear()
    write_bytes_atomic(tmp_path / "new" / "x", b"data")
    assert calls == ["fsync folder", "write file", "fsync file", "replace x", "fsync folder"]


def test_attempts_at_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Dask may run a task twice at once; both must succeed and the file must be one of the two."""

    def attempt(number: int) -> None:
        for _ in range(20):
            write_bytes_atomic(tmp_path / "shard", bytes([number]) * 10_000)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(attempt, number) for number in range(4)]:
            future.result()
    assert names_in(tmp_path) == ["shard"]
    data = (tmp_path / "shard").read_bytes()
    assert data == data[:1] * 10_000
