"""Toy runs into a bucket: the same bytes as on disk, killed or not, damaged or not, one at a time."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import objects
import pytest
import toy_stages
from toy_runs import STAGE, dataset_hash, options, run
from toy_stages import gate, toy_plan

from facegraft.engine import EngineError, retry, status
from facegraft.engine.locks import LOCK_FILE, is_locked, locked
from facegraft.engine.locks import remote as remote_lock
from facegraft.store import IncompleteError, RemoteError, RemotePath, StoreError, open_dataset, place, verify_dataset
from facegraft.store import remote as remote_module
from facegraft.testing.clock import HeldClock
from facegraft.testing.killer import family, kill

HANGS_S = 600.0
SCRIPT = """
import sys
from toy_runs import run
from toy_stages import toy_plan
from facegraft.errors import FacegraftError
from facegraft.store import place
if __name__ == "__main__":
    try:
        run(toy_plan(24, 2), place(sys.argv[1]), workers=2, item_timeout_s=600.0)
    except FacegraftError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
"""


class Killed(BaseException):
    """Stands for the end of the process: nothing of facegraft's catches it."""


@pytest.fixture
def on_disk(tmp_path: Path) -> dict[str, str]:
    """What `run(toy_plan(6, 2))` makes on disk."""
    run(toy_plan(6, 2), tmp_path / "disk" / "out", scheduler="sync")
    return dataset_hash(tmp_path / "disk" / "out")


def test_a_run_into_a_bucket_gives_the_bytes_of_a_run_on_disk(bucket: str, on_disk: dict[str, str]) -> None:
    output = place(f"{bucket}/runs/out")
    assert run(toy_plan(6, 2), output, scheduler="sync").written == 6
    assert objects.dataset_hash(str(output)) == on_disk
    assert not [name for name in objects.listed(str(output)) if ".tmp-" in name or name == LOCK_FILE]
    assert verify_dataset(str(output)) == []
    found = status(str(output))
    assert (found.complete, found.running, found.written, found.shards_done) == (True, False, 6, 3)
    again = run(toy_plan(6, 2), output, scheduler="sync")
    assert again.already_complete and again.kept == 6
    with pytest.raises(EngineError, match="different run"):
        run(toy_plan(6, 2), output, seed=1, scheduler="sync")


@pytest.mark.slow
def test_a_run_that_ends_after_any_put_leaves_nothing_that_is_believed_and_goes_on(
    bucket: str, on_disk: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, names = RemotePath.put, list[str]()

    def put(self: RemotePath, data: bytes) -> None:
        honest(self, data)
        if self.name == LOCK_FILE:  # renewed by its own thread, at any time
            return
        names.append(self.name)
        if len(names) == stop:
            raise Killed

    monkeypatch.setattr(RemotePath, "put", put)
    # run.json, shared, region map, plan, 3 × (shard, record, log), index, dataset.json.
    for stop in range(1, 16):
        names.clear()
        output = place(f"{bucket}/{stop}")
        with pytest.raises(Killed):
            run(toy_plan(6, 2), output, scheduler="sync")
        if stop < 15:
            with pytest.raises(IncompleteError):
                open_dataset(str(output))
        run(toy_plan(6, 2), output, scheduler="sync")
        assert objects.dataset_hash(str(output)) == on_disk
        assert names[-2:] == ["index.parquet", "dataset.json"]


@pytest.mark.slow
def test_a_client_killed_in_mid_run_is_resumed(bucket: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    output = f"{bucket}/out"
    command = [sys.executable, str(script), output]
    # The items of the first four shards are made; the others wait, so that the run is in the middle for as long as the test looks.
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, **gate(tmp_path / "gate", 8)})
    try:
        while sum(name.endswith(".json") and "shards/" in name for name in objects.listed(output)) < 3:
            assert process.poll() is None
            time.sleep(0.05)
        assert status(output).running
        with pytest.raises(EngineError, match=rf"in use by another run \(process {process.pid} on"):
            run(toy_plan(24, 2), place(output), scheduler="sync")
        assert process.poll() is None
    finally:
        kill(family(process.pid))
        process.wait()
    with pytest.raises(IncompleteError, match="not complete"):
        open_dataset(output)
    assert LOCK_FILE in objects.listed(output)
    found = status(output)
    assert not found.running and not found.complete and found.shards_done >= 3
    subprocess.run(command, check=True, timeout=HANGS_S)
    run(toy_plan(24, 2), tmp_path / "disk" / "out", workers=2)
    assert objects.dataset_hash(output) == dataset_hash(tmp_path / "disk" / "out")


def test_a_damaged_object_is_found_by_name_and_made_again(bucket: str, on_disk: dict[str, str]) -> None:
    output = f"{bucket}/out"
    run(toy_plan(6, 2), place(output), scheduler="sync")
    shard = f"{output}/shards/00001-of-00003.safetensors"
    whole = objects.get(shard)
    objects.put(shard, whole[:-1])
    for finding in (verify_dataset(output)[0], _error(lambda: open_dataset(output))):
        assert finding.startswith(f"{shard} is damaged ({len(whole) - 1} bytes where its ")
        assert f"record says {len(whole)})" in finding
        assert "delete it and its 00001-of-00003.json and run the same command again" in finding
    objects.put(shard, whole[:-1] + b"?")
    for finding in (verify_dataset(output)[0], _error(lambda: open_dataset(output)["item_002"])):
        assert finding.startswith(f"{shard} is damaged (sha256 differs")
    assert len(open_dataset(output)["item_000"]) == 2  # the other shards are as good as they were
    objects.delete(shard)
    assert "is missing" in _error(lambda: open_dataset(output))
    objects.delete(shard.replace(".safetensors", ".json"))
    assert run(toy_plan(6, 2), place(output), scheduler="sync").kept == 4
    assert objects.dataset_hash(output) == on_disk
    for name in ("dataset.json", "index.parquet"):
        before = objects.get(f"{output}/{name}")
        objects.put(f"{output}/{name}", before.replace(before[40:44], b"????"))
        assert f"{output}/{name} is damaged" in _error(lambda: open_dataset(output))
        objects.put(f"{output}/{name}", before)


def test_listings_that_show_nothing_make_no_difference(
    bucket: str, on_disk: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"{bucket}/out"
    fs, _ = place(output)._open()  # type: ignore[attr-defined]
    honest, asked = fs._call_s3, []

    async def call(method: str, *arguments: Any, **named: Any) -> Any:
        if method.startswith("list_objects"):
            asked.append(method)
            await asyncio.sleep(0)
            return {}
        return await honest(method, *arguments, **named)

    async def lsdir(*_: Any, **__: Any) -> list[Any]:
        asked.append("ls")
        return []

    faults = {3: "exception"}
    with monkeypatch.context() as patched:
        patched.setattr(fs, "_call_s3", call)
        patched.setattr(fs, "_lsdir", lsdir)
        patched.setattr(toy_stages.ToyStage, "misbehave", _fail)
        run(toy_plan(6, 2, faults), place(output), scheduler="sync")
        assert status(output).rejected == 1 and status(output).complete
        assert run(toy_plan(6, 2, faults), place(output), scheduler="sync").already_complete
        assert verify_dataset(output) == []
        assert len(open_dataset(output)) == 5
        # The input has been mended: the retry makes the shard of the rejected item again, and no other.
        patched.setattr(toy_stages.ToyStage, "misbehave", lambda self, fault, make: make())
        again = retry(output, STAGE, options(scheduler="sync"))
        assert (again.written, again.rejected, again.kept) == (6, 0, 4)
    found = objects.dataset_hash(output)
    # The plan knows of the fault, and with it the records that name the plan.
    same = {name for name in on_disk if name.endswith(".safetensors") or name == "index.parquet"}
    assert found.keys() == on_disk.keys() and all(found[name] == on_disk[name] for name in same) and len(same) == 5
    assert asked, "nothing was listed, so this test shows nothing"
    assert not [name for name in objects.listed(output) if name.startswith("rejects/")]


def test_a_store_that_does_not_answer_rejects_no_item(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = place(f"{bucket}/out")
    honest = toy_stages.ToyStage.process

    def process(self: toy_stages.ToyStage, item: Any, rng: Any) -> Any:
        if item.key == "item_003":
            raise RemoteError("s3://input/heads cannot be reached (the cable)")
        return honest(self, item, rng)

    monkeypatch.setattr(toy_stages.ToyStage, "process", process)
    with pytest.raises(EngineError, match="cannot be reached"):
        run(toy_plan(6, 2), output, scheduler="sync")
    assert status(output).rejected == 0
    monkeypatch.setattr(toy_stages.ToyStage, "process", honest)
    done = run(toy_plan(6, 2), output, scheduler="sync")
    assert (done.written, done.kept) == (6, 2)


# -- the lock ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HeldClock:
    """The time of locks, which passes only where a test lets it."""
    held = HeldClock()
    monkeypatch.setattr(remote_lock, "clock", held)
    return held


def test_a_folder_in_use_is_refused_and_says_by_whom(bucket: str, clock: HeldClock) -> None:
    folder = place(f"{bucket}/out")
    with locked(folder) as check:
        check()
        assert is_locked(folder)
        with pytest.raises(
            EngineError, match=rf"in use by another run \(process {os.getpid()} on .*remove {folder}/.lock"
        ):
            run(toy_plan(6, 2), folder, scheduler="sync")
    assert not is_locked(folder) and objects.listed(str(folder)) == []


def _note_of_another_machine(folder: Path) -> dict[str, Any]:
    """A lock as a process on another machine would have left it."""
    note = json.loads(remote_lock._note("f" * 32, 0))
    return {**note, "machine": "another boot 1", "host": "elsewhere", "pid": 7}


def _put_note(folder: Path, note: dict[str, Any]) -> None:
    objects.put(f"{folder}/{LOCK_FILE}", json.dumps(note).encode())


@pytest.mark.parametrize("every_s", [1, 60])
def test_a_lock_that_is_renewed_elsewhere_holds(bucket: str, clock: HeldClock, every_s: int) -> None:
    """Also by a holder that lets nearly as much time pass as it may."""
    folder = place(f"{bucket}/out")
    note = _note_of_another_machine(folder)

    def renew() -> None:
        if clock.monotonic() >= (note["beat"] + 1) * every_s:
            note["beat"] += 1
            _put_note(folder, note)

    _put_note(folder, note)
    clock.while_asleep = renew
    with pytest.raises(EngineError, match="process 7 on elsewhere"):
        run(toy_plan(6, 2), folder, scheduler="sync")
    assert note["beat"] == 1, "the newcomer gives up when it has seen one renewal"


@pytest.mark.parametrize("left", ["stale", "garbage"])
def test_a_lock_that_nobody_renews_is_taken_over(bucket: str, clock: HeldClock, left: str) -> None:
    folder = place(f"{bucket}/out")
    note = _note_of_another_machine(folder)
    objects.put(f"{folder}/{LOCK_FILE}", json.dumps(note).encode() if left == "stale" else b"{")
    assert run(toy_plan(6, 2), folder, scheduler="sync").written == 6
    assert LOCK_FILE not in objects.listed(str(folder))
    assert clock.monotonic() >= remote_lock.LAPSE_S + remote_lock.BEAT_S, "not before its holder must have renewed it"


def test_the_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(bucket: str) -> None:
    folder = place(f"{bucket}/out")
    note = json.loads(remote_lock._note("f" * 32, 0))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    # One whose number is free, and one whose number another process has now.
    for gone in ({"pid": dead.pid}, {"started": "1"}):
        objects.put(f"{folder}/{LOCK_FILE}", json.dumps({**note, **gone}).encode())
        assert not is_locked(folder)
        with locked(folder):
            assert is_locked(folder)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("taken", "it is held by process 7 on elsewhere"),
        ("removed", "it was removed"),
        ("unreachable", "it could not be renewed"),
    ],
)
def test_a_run_that_loses_its_lock_stops(
    bucket: str, clock: HeldClock, monkeypatch: pytest.MonkeyPatch, how: str, why: str
) -> None:
    folder = place(f"{bucket}/out")

    def lose(*_: Any) -> None:
        holder = next(thread for thread in threading.enumerate() if thread.name == "facegraft-lock")
        if how == "unreachable":
            patched.setattr(remote_lock, "_read", _unreachable)
            clock.advance(remote_lock.LAPSE_S + 1)
            return
        if how == "taken":
            _put_note(folder, _note_of_another_machine(folder))
        else:
            objects.delete(f"{folder}/{LOCK_FILE}")
        clock.advance(remote_lock.BEAT_S)
        holder.join(HANGS_S)  # it ends when it sees that the lock is lost
        assert not holder.is_alive(), "the holder does not notice that its lock is lost"

    with monkeypatch.context() as patched:
        patched.setattr("facegraft.engine.run.write_attachments", lose)
        with pytest.raises(EngineError, match=rf"the lock {folder}/.lock is lost \({why}"):
            run(toy_plan(6, 2), folder, scheduler="sync")
    assert "dataset.json" not in objects.listed(str(folder))
    assert (LOCK_FILE in objects.listed(str(folder))) == (how != "removed")


def _unreachable(_: RemotePath) -> None:
    raise RemoteError("the cable")


def _fail(self: object, fault: str, make: object) -> None:
    raise ValueError("not mended yet")


def _error(action: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as error:
        action()
    return str(error.value)


def test_the_threads_of_a_pool_share_one_client(bucket: str) -> None:
    """fsspec makes a client a thread; requests of a pool share one."""
    remote_module._filesystem.cache_clear()
    names = [f"{number}" for number in range(40)]
    root = place(bucket)
    remote_module.each(root, lambda name: (root / name).put(name.encode()), names)  # type: ignore[attr-defined]
    assert remote_module.each(root, lambda name: (root / name).read_bytes(), names) == [n.encode() for n in names]
    assert remote_module._filesystem.cache_info().currsize == 1
