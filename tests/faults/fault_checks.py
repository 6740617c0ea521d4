"""What each row of the matrix checks, as plain functions: used on the product as it is, and on the product with a planted fault."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_runs import dataset_hash

from facegraft.engine import EngineError, ShardClient
from facegraft.engine.cluster.client import Outcome, SyncClient
from facegraft.engine.locks import locked
from facegraft.engine.shard_task import ShardTask
from facegraft.errors import FacegraftError
from facegraft.store import StoreError, open_dataset, verify_dataset
from facegraft.store.document import unseal
from facegraft.testing.damage import cuts, damaged, flips
from facegraft.testing.disk import DiskFault, faulty_disk, recorded
from facegraft.testing.killer import committed
from facegraft.testing.poison import attempts

Run = Callable[[Path], object]


def check_complete(output: Path, undisturbed: Mapping[str, str]) -> None:
    """A whole dataset, with the bytes of an undisturbed run."""
    found = dataset_hash(output)
    differing = sorted(name for name in {*found, *undisturbed} if found.get(name) != undisturbed.get(name))
    assert not differing, f"other bytes than undisturbed: {differing}"
    assert verify_dataset(output) == []


def check_not_made_again(output: Path, before: Mapping[str, tuple[int, int]]) -> None:
    """What was committed before (`committed()`) is the same file still."""
    after = committed(output)
    again = sorted(name for name, mark in before.items() if after.get(name) != mark)
    assert not again, f"committed before and made again: {again}"


def check_final_names(output: Path, undisturbed: Mapping[str, str]) -> None:
    """At any moment: a file under a final name is whole, and a commit record comes after its shard."""
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output).as_posix()
        if not path.is_file() or ".tmp-" in name or name == ".lock":
            continue
        data = path.read_bytes()
        if name in undisturbed:
            assert hashlib.sha256(data).hexdigest() == undisturbed[name], f"{name} is not whole"
        elif name == "run.json":
            assert _readable(lambda data: unseal(data, "it", ""), data), f"{name} is not whole"
        else:
            assert path.parent.name in ("logs", "rejects") and path.suffix == ".json", f"a stranger: {name}"
            assert _readable(json.loads, data), f"{name} is not whole"
    for record in (output / "shards").glob("*.json"):
        assert record.with_suffix(".safetensors").is_file(), f"{record.name} is committed without its shard"


def _readable(read: Callable[[bytes], object], data: bytes) -> bool:
    try:
        read(data)
    except (StoreError, ValueError):
        return False
    return True


def check_each_failing_write(
    run: Run,
    folder: Path,
    error: str,
    lasting: bool,
    undisturbed: Mapping[str, str],
    chosen: Callable[[Path], bool] = lambda path: True,
) -> int:
    """Every file operation of a run in turn fails: the run fails with one line, leaves whole files, and a rerun completes. Returns how
    many were tried. `chosen`: the paths whose operations are."""
    done = operations(run, folder / "counted" / "out")
    numbers = [number for number, (_, path) in enumerate(done, 1) if chosen(path)]
    assert numbers
    for number in numbers:
        what = f"{error} on {done[number - 1][0]} of {done[number - 1][1].name} ({number} of {len(done)})"
        output = folder / f"run{number}" / "out"
        output.parent.mkdir()
        with faulty_disk(DiskFault(str(output), str(output.parent / "ledger"), error, number, lasting)):
            try:
                run(output)
            except FacegraftError as failure:
                assert "\n" not in str(failure) and failure.exit_code != 0
                assert str(output) in str(failure)
            else:
                raise AssertionError(f"{what} was passed over")
        check_final_names(output, undisturbed)
        run(output)
        check_complete(output, undisturbed)
    return len(numbers)


def operations(run: Run, output: Path) -> list[tuple[str, Path]]:
    """All file operations of an undisturbed run."""
    output.parent.mkdir(parents=True)
    ledger = output.parent / "ledger"
    with faulty_disk(DiskFault(str(output), str(ledger), nth=0)):
        run(output)
    return recorded(ledger)


def check_synced(run: Run, output: Path) -> None:
    """Before a file is renamed it is synced, after that its folder: a power cut loses nothing that counts as written."""
    done = operations(run, output)
    renamed = [number for number, (operation, _) in enumerate(done) if operation == "replace"]
    assert any(done[number][1].name == "dataset.json" for number in renamed), (
        "dataset.json is not renamed into its place"
    )
    for number in renamed:
        final = done[number][1]
        mine = [operation for operation, path in done[:number] if path.name.startswith(f"{final.name}.tmp-")]
        assert mine and mine[-1] == "fsync", f"{final.name} is renamed before it is synced"
        assert ("fsync", final.parent) in done[number:], f"the folder of {final.name} is not synced after the renaming"
    direct = [
        path for operation, path in done if operation == "write" and ".tmp-" not in path.name and path.name != ".lock"
    ]
    assert not direct, f"written under final names: {direct}"


def read_all(folder: Path) -> Iterator[Any]:
    """Everything that a reader can get of a dataset, as plain values."""
    dataset = open_dataset(folder)
    yield from (
        dataset.keys(),
        dataset.index.to_pylist(),
        dataset.faces.tolist(),
        dataset.region_map,
        dataset.mm_per_unit,
    )
    for key in dataset:
        yield {name: (str(array.dtype), array.tolist()) for name, array in dataset[key].items()}


def check_damage_is_noticed(folder: Path, right: list[Any], count: int, seed: int = 0) -> int:
    """No flipped bit and no cut end of any file gives other data than the right one. Returns how often it was tried."""
    tried = 0
    outside = {"run.json", "plan.parquet", "planned_from.json", ".lock"}
    for path in sorted(
        path for path in folder.rglob("*") if path.is_file() and path.parent.name not in ("logs", "rejects")
    ):
        if path.name in outside:
            continue
        whole = path.read_bytes()
        for what, data in [*flips(whole, count, seed), *cuts(whole, count, seed)]:
            tried += 1
            with damaged(path, data):
                try:
                    read = list(read_all(folder))
                except StoreError as error:
                    assert path.name in str(error)
                else:
                    # A reader needs no commit record; `verify` does.
                    assert read == right, f"{path.name}, {what}: other data and no error"
                    assert path.parent.name == "shards" and path.suffix == ".json", f"{path.name}, {what}: not noticed"
                assert any(path.stem in finding for finding in verify_dataset(folder)), (
                    f"{path.name}, {what}: verify says nothing"
                )
    return tried


def check_change_is_refused(resume: Callable[[], object], output: Path, field: str) -> None:
    """The command with a change is refused by the name of what differs, and the folder stays as it was."""

    def state() -> dict[str, tuple[int, str]]:
        files = [path for path in output.rglob("*") if path.is_file() and path.name != ".lock"]
        return {str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}

    before = state()
    with pytest.raises(EngineError, match=rf"holds a different run \(.*{field}.*\)"):
        resume()
    assert state() == before


def check_damage_is_mended(
    resume: Run, output: Path, harm: Callable[[Path], None], undisturbed: Mapping[str, str]
) -> None:
    """Harm to one shard of an unfinished run: that one is made again, and no other."""
    (output / "dataset.json").unlink()
    victim = sorted((output / "shards").glob("*.safetensors"))[1]
    before = {name: mark for name, mark in committed(output).items() if name != victim.with_suffix(".json").name}
    harm(victim)
    resume(output)
    check_complete(output, undisturbed)
    check_not_made_again(output, before)


def check_poison(
    output: Path, clean: Path, reasons: Mapping[str, str], journal: Path, tried_once: set[str], workers: int
) -> None:
    """Exactly the poisoned items are rejected, each for its reason; the others are what they are without poison; nobody was lost."""
    dataset, whole = open_dataset(output), open_dataset(clean)
    found = {row["key"]: row["reason"] for row in dataset.index.to_pylist() if row["status"] == "rejected"}
    assert found == reasons, f"rejected: {found}"
    assert dataset.keys() == [key for key in whole.keys() if key not in reasons]  # noqa: SIM118 (a dataset is no dict)
    for key in dataset:
        for name, array in whole[key].items():
            np.testing.assert_array_equal(dataset[key][name], array)
    tried = attempts(journal)
    innocent = set(whole.keys()) - reasons.keys()
    too_often = {key: count for key, count in tried.items() if count > (1 if key in innocent | tried_once else 2)}
    assert not too_often, f"tried again: {too_often}"
    assert tried.keys() == innocent | reasons.keys()
    pids = {json.loads(path.read_text())["pid"] for path in (output / "logs").glob("*.json")}
    assert len(pids) <= workers, "a worker was lost and replaced"


def check_second_run_is_refused(run: Run, output: Path) -> None:
    """While one process holds the folder, a run on it is refused."""
    output.mkdir(exist_ok=True)
    with locked(output), pytest.raises(EngineError, match="is in use by another run"):
        run(output)


class ShuffledClient:
    """Makes shards in this process, in a random order."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._inner = SyncClient()
        self._waiting: list[ShardTask] = []

    def capacity(self) -> int:
        return 1 << 20

    def submit(self, task: ShardTask) -> None:
        self._waiting.append(task)

    def next_outcome(self, timeout_s: float) -> Outcome | None:
        self._inner.submit(self._waiting.pop(int(self._rng.integers(len(self._waiting)))))
        return self._inner.next_outcome(timeout_s)

    def abandon(self) -> None:
        self._waiting.clear()


def check_order_does_not_count(
    run: Callable[[Path, ShardClient | None], object], folder: Path, seed: int, undisturbed: Mapping[str, str]
) -> None:
    """Shards in a random order give the same bytes."""
    output = folder / f"order{seed}" / "out"
    output.parent.mkdir(parents=True)
    run(output, ShuffledClient(seed))
    check_complete(output, undisturbed)


def check_ends_in_one_line(errors: str, *words: str) -> None:
    """What a failed command has printed: one line, which names these. Allocators of libraries announce the lack of threads by themselves."""
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith("<jemalloc>")]
    assert len(lines) == 1, f"not one line: {errors}"
    for word in words:
        assert word in lines[0], f"{word} is not named: {lines[0]}"


def check_resumed(
    resume: Callable[[], object], output: Path, before: Mapping[str, tuple[int, int]], undisturbed: Mapping[str, str]
) -> None:
    """The folder tells the truth: the same command finds what was committed, and makes the rest."""
    if output.exists():
        check_final_names(output, undisturbed)
    resume()
    check_complete(output, undisturbed)
    check_not_made_again(output, before)
