"""A run that is killed at any step and started again, against a perfect model of what must be on the disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from safetensors.numpy import load_file

from facegraft.store import (
    DatasetSchema,
    FieldSpec,
    IncompleteError,
    RejectedItem,
    ShardItem,
    StoreError,
    finish_dataset,
    open_dataset,
    read_commit,
    shard_name,
    verify_dataset,
    write_shard,
)

PLAN = "b" * 64
SHARDS = [shard_name(number, 3) for number in range(3)]
SCHEMA = DatasetSchema(
    "surfaces",
    {"name": None, "vertex_count": None, "faces_sha256": None},
    1.0,
    "",
    {"points": FieldSpec("float32", ("n", 3), "", "", "")},
    {"number": "int64"},
)
ITEMS = {f"k{number}": np.full((number, 3), number, np.float32) for number in range(6)}
REJECTED = "k4"
ITEMS_OF = {shard: [f"k{2 * number}", f"k{2 * number + 1}"] for number, shard in enumerate(SHARDS)}
STEPS = ("open", "write", "fsync", "replace", "mkdir")


class Killed(BaseException):
    """Stands for SIGKILL: after it, no clean-up of ours runs."""


def dead_process() -> int:
    run = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


DEAD = dead_process()


@contextmanager
def killed_at(step: int, late: bool) -> Iterator[None]:
    """Kill at the given system call of the block (counted over STEPS), before or after it takes effect; a killed write is half done."""
    count = 0
    patches = [mock.patch.object(os, "getpid", return_value=DEAD)]

    def counted(name: str, real: Callable) -> Callable:
        def call(*args: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count - 1 > step:
                raise Killed
            if count - 1 == step:
                if name == "write" and not late:
                    descriptor, data = args
                    real(descriptor, bytes(data)[: len(data) // 2])
                elif late:
                    real(*args, **options)
                # Nothing that the dead process would have done afterwards happens.
                unlink.start()
                raise Killed
            return real(*args, **options)

        return call

    unlink = mock.patch.object(os, "unlink", lambda *args, **options: None)
    patches += [mock.patch.object(os, name, counted(name, getattr(os, name))) for name in STEPS]
    try:
        for patch in patches:
            patch.start()
        yield
    finally:
        mock.patch.stopall()


def write(folder: Path, shard: str) -> None:
    written = [
        ShardItem(key, {"points": ITEMS[key]}, {"number": int(key[1:])}) for key in ITEMS_OF[shard] if key != REJECTED
    ]
    rejected = [RejectedItem(key, "poison", {}) for key in ITEMS_OF[shard] if key == REJECTED]
    write_shard(folder, shard, written, rejected, SCHEMA, PLAN)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    for shard in SHARDS:
        write(folder, shard)
    finish_dataset(folder, SCHEMA, ITEMS_OF, PLAN)
    return files(folder)


class CrashingRun(RuleBasedStateMachine):
    """The model: which shards are surely committed, and whether the dataset is surely complete. A killed step may count as done or not."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp()) / "run"
        self.committed: set[str] = set()
        self.finished = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder.parent)

    @initialize()
    def start(self) -> None:
        self.folder.mkdir()

    @rule(shard=st.sampled_from(SHARDS))
    def write(self, shard: str) -> None:
        write(self.folder, shard)
        self.committed.add(shard)

    @rule(shard=st.sampled_from(SHARDS), step=st.integers(0, 16), late=st.booleans())
    def write_and_be_killed(self, shard: str, step: int, late: bool) -> None:
        try:
            with killed_at(step, late):
                write(self.folder, shard)
        except Killed:
            return
        self.committed.add(shard)

    @rule()
    def finish(self) -> None:
        try:
            finish_dataset(self.folder, SCHEMA, ITEMS_OF, PLAN)
        except StoreError as error:
            missing = [shard for shard in SHARDS if read_commit(self.folder, shard, PLAN) is None]
            assert missing
            assert "is not committed" in str(error)
            assert not self.committed >= set(SHARDS)
        else:
            self.finished = True

    @rule(step=st.integers(0, 16), late=st.booleans())
    def finish_and_be_killed(self, step: int, late: bool) -> None:
        try:
            with killed_at(step, late):
                finish_dataset(self.folder, SCHEMA, ITEMS_OF, PLAN)
        except (Killed, StoreError):
            return
        self.finished = True

    @rule()
    def resume(self) -> None:
        """What a rerun does: make what does not hold, then finish."""
        for shard in SHARDS:
            if read_commit(self.folder, shard, PLAN) is None:
                self.write(shard)
        self.committed.update(SHARDS)
        self.finish()
        assert self.finished
        assert verify_dataset(self.folder) == []

    @invariant()
    def final_names_hold_whole_files(self) -> None:
        for path in self.folder.glob("shards/*.safetensors"):
            assert load_file(path).keys() == {f"{key}/points" for key in ITEMS_OF[path.name] if key != REJECTED}

    @invariant()
    def what_was_committed_stays_committed(self) -> None:
        for shard in SHARDS:
            record = read_commit(self.folder, shard, PLAN)
            assert record is not None or shard not in self.committed
            assert record is None or record["planned"] == ITEMS_OF[shard]

    @invariant()
    def a_reader_gets_all_or_nothing(self) -> None:
        try:
            ds = open_dataset(self.folder)
        except IncompleteError as error:
            assert not self.finished
            assert "run the same command again" in str(error)
        except StoreError as error:
            assert not self.finished
            assert "it has no dataset.json" in str(error) and not (self.folder / "shards").exists()
        else:
            assert ds.keys() == [key for key in ITEMS if key != REJECTED]
            assert all(np.array_equal(ds[key]["points"], ITEMS[key]) for key in ds)
            assert ds.row(REJECTED)["reason"] == "poison"


CrashingRun.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestCrashingRun = CrashingRun.TestCase


@pytest.mark.parametrize("late", [False, True])
def test_killed_at_every_step_and_started_again_gives_the_same_bytes(
    tmp_path: Path, undisturbed: dict[str, bytes], late: bool
) -> None:
    """Every system call of a whole run in turn is its last; the rerun leaves exactly the files of an undisturbed run."""
    step = 0
    while True:
        folder = tmp_path / f"run{step}"
        try:
            with killed_at(step, late):
                for shard in SHARDS:
                    write(folder, shard)
                finish_dataset(folder, SCHEMA, ITEMS_OF, PLAN)
        except Killed:
            for shard in SHARDS:
                if read_commit(folder, shard, PLAN) is None:
                    write(folder, shard)
            finish_dataset(folder, SCHEMA, ITEMS_OF, PLAN)
        else:
            break
        assert files(folder) == undisturbed, f"killed at step {step}"
        step += 1
    # 3 shards with records, index and dataset.json: 8 files of open, write, fsync, replace and the folder's open and fsync.
    assert step >= 8 * 6


def test_a_real_kill(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """SIGKILL while another process writes the same shards over and over; then the rerun."""
    folder = tmp_path / "run"
    program = f"""
import importlib.util, pathlib
spec = importlib.util.spec_from_file_location("crashes", {__file__!r})
crashes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(crashes)
while True:
    for shard in crashes.SHARDS:
        crashes.write(pathlib.Path({str(folder)!r}), shard)
    print("round", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"round\n"
    process.kill()
    process.wait()
    process.stdout.close()
    for shard in SHARDS:
        path = folder / "shards" / shard
        assert load_file(path).keys() == {f"{key}/points" for key in ITEMS_OF[shard] if key != REJECTED}
        if read_commit(folder, shard, PLAN) is None:
            write(folder, shard)
    finish_dataset(folder, SCHEMA, ITEMS_OF, PLAN)
    assert files(folder) == undisturbed
