"""Opening a dataset: it says how far it is, each checksum is compared once on a machine, and shards stay open."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import torch
from facegraft_model.config import Config
from facegraft_model.errors import ModelError
from facegraft_model.training.checksums import check_together
from facegraft_model.training.parallel import Processes, joined
from facegraft_model.training.progress import LINE_SECONDS, QUIET_SECONDS, ReadingLine
from facegraft_model.training.setup import open_source

from facegraft.store import DamagedError, open_dataset, reader
from facegraft.store.writer import SHARD_FOLDER

CPU = torch.device("cpu")


class Pair(Processes):
    """One of two processes of a machine; the other has no wishes, or one."""

    other = False

    def most(self, *values: float) -> list[float]:
        return [max(value, float(self.other)) for value in values]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards whose checksum is compared."""
    names: list[str] = []
    original = reader.sha256_file

    def noted(path: Path) -> str:
        if path.parent.name == SHARD_FOLDER:
            names.append(path.name)
        return original(path)

    monkeypatch.setattr(reader, "sha256_file", noted)
    return names


def test_each_checksum_is_compared_by_one_process(spheres: Path, hashed: list[str]) -> None:
    shares = []
    for rank in (0, 1):
        assert check_together(spheres, Pair(rank, 2, CPU, rank, 2))
        shares.append(list(hashed))
        hashed.clear()
    assert sorted(shares[0] + shares[1]) == sorted(path.name for path in open_dataset(spheres).shards)
    assert not check_together(spheres, Processes(0, 1, CPU)) and hashed == []


def test_processes_of_other_machines_compare_their_own_copies(spheres: Path, hashed: list[str]) -> None:
    check_together(spheres, Pair(1, 2, CPU, 0, 1))
    assert len(hashed) == len(open_dataset(spheres).shards)


def test_damage_is_told_in_every_process(spheres: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "samples"
    shutil.copytree(spheres, copy)
    shard = open_dataset(copy).shards[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedError, match="sha256 differs"):
        check_together(copy, Pair(0, 2, CPU, 0, 2))
    monkeypatch.setattr(Pair, "other", True)
    with pytest.raises(ModelError, match="another process found a damaged shard; see its message"):
        check_together(spheres, Pair(1, 2, CPU, 1, 2))


def test_torchrun_tells_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend: None)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with joined("cpu") as processes:
        assert (processes.local_rank, processes.local_world) == (1, 2)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    with joined("cpu") as processes:
        assert (processes.local_rank, processes.local_world) == (0, 1), "without it each process compares all"


def test_items_are_told_as_they_are_read(spheres: Path, tiny: Config) -> None:
    told: list[tuple[int, int]] = []
    with open_source(spheres, tiny.data, CPU, report=lambda *counts: told.append(counts)) as source:
        count = source.items_per_epoch
    assert told == [(number, count) for number in range(1, count + 1)]


@pytest.mark.parametrize("terminal", [True, False])
def test_long_reading_is_said(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    line = ReadingLine("reading the samples, items", stream, lambda: clock[0])
    line(1, 4000)
    assert stream.getvalue() == ""
    clock[0] = QUIET_SECONDS
    line(1000, 4000)
    said = "reading the samples, items: 1,000 of 4,000"
    assert stream.getvalue() == (f"\r\x1b[K{said}" if terminal else f"{said}\n")
    clock[0] += LINE_SECONDS - 1
    line(2000, 4000)
    assert ("2,000" in stream.getvalue()) is terminal
    line(4000, 4000)
    assert stream.getvalue().endswith("\r\x1b[K" if terminal else f"{said}\n")


def test_short_reading_says_nothing() -> None:
    stream = io.StringIO()
    line = ReadingLine("reading", stream, lambda: 0.0)
    for done in range(1, 11):
        line(done, 10)
    assert stream.getvalue() == ""
