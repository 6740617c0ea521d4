"""The matrix is worth something only if it finds the classic faults: each is planted here, and the check of its row must fail.

The check is first run on the product as it is, where it passes.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_rows as rows
import numpy as np
import pytest
from fault_checks import (
    check_change_is_refused,
    check_damage_is_mended,
    check_damage_is_noticed,
    check_each_failing_write,
    check_order_does_not_count,
    check_poison,
    check_second_run_is_refused,
    check_synced,
    read_all,
)
from run_toys import plan, toys
from toy_runs import dataset_hash

from facegraft import seeds
from facegraft.engine import PlannedItem, run, shard_task
from facegraft.engine.cluster.client import ShardClient
from facegraft.engine.sandbox import InProcessRunner
from facegraft.engine.stage import ItemResult
from facegraft.store import atomic, reader, schema, writer
from facegraft.testing.damage import flip

pytestmark = pytest.mark.row(rows.PLANTED)

SMALL = plan(9, 3, seconds=0.0)
POISON = {"item_003": "nan", "item_005": "exception"}
REASONS = {
    "item_003": "invalid output: field vertices: 1 of 12 values are NaN or infinite",
    "item_005": "error: ValueError: poison",
}

Patch = pytest.MonkeyPatch
Whole = dict[str, str]


def small_run(output: Path, client: ShardClient | None = None, **changes: Any) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    toys(output, client, **{"of": SMALL, "faults": {}, "scheduler": "sync", **changes})


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    output = tmp_path_factory.mktemp("whole") / "out"
    small_run(output)
    return dataset_hash(output)


# -- the faults -------------------------------------------------------------------------------------------------------------


def everywhere(patch: Patch, real: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Put `fake` wherever a module of ours has `real`."""
    places = [
        (module, name)
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith("facegraft.")
        for name, value in vars(module).items()
        if value is real
    ]
    assert places
    for module, name in places:
        patch.setattr(module, name, fake)


def writes_under_the_final_name(patch: Patch) -> None:
    def write(path: Path, data: bytes) -> None:
        try:
            atomic.make_folder(Path(path).parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                os.write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise atomic.unwritable(Path(path), error) from error

    everywhere(patch, atomic.write_bytes_atomic, write)


def swallows_errors(patch: Patch) -> None:
    real = atomic.write_bytes_atomic

    def write(path: Path, data: bytes) -> None:
        with suppress(Exception):
            real(path, data)

    everywhere(patch, real, write)


def does_not_sync(patch: Patch) -> None:
    patch.setattr(atomic, "write_and_sync", lambda path, data: os.close(_written(path, data)))


def _written(path: Path, data: bytes) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(descriptor, data)
    return descriptor


def does_not_sync_the_folder(patch: Patch) -> None:
    everywhere(patch, atomic.sync_folder, lambda folder: None)


def commits_before_the_shard(patch: Patch) -> None:
    real, held = atomic.write_bytes_atomic, {}

    def write(path: Path, data: bytes) -> None:
        if path.suffix == ".safetensors":
            held[path] = bytes(data)
            return
        real(path, data)
        real(path.with_suffix(".safetensors"), held.pop(path.with_suffix(".safetensors")))

    real_shard = writer.write_shard

    def write_shard(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(writer, "write_bytes_atomic", write)
            return real_shard(*arguments)

    everywhere(patch, real_shard, write_shard)


def reads_without_checksums(patch: Patch) -> None:
    real = reader.Dataset.__init__
    patch.setattr(
        reader.Dataset, "__init__", lambda self, path, verify=True, **others: real(self, path, verify=False, **others)
    )


def believes_that_complete_is_complete(patch: Patch) -> None:
    """A completion test that ignores parameters."""
    patch.setattr("facegraft.engine.folder.refuse_other_run", lambda folder, there, now: None)
    patch.setattr(run, "_count_commits", lambda folder, record: (record.shards, Counter()))


def believes_the_record(patch: Patch) -> None:
    """A resume that takes the presence of a file for its content."""
    real = writer.read_commit
    everywhere(patch, real, lambda *arguments, check_bytes=True: real(*arguments, check_bytes=False))


def makes_all_again(patch: Patch) -> None:
    patch.setattr(shard_task, "read_commit", lambda *arguments: None)


def draws_from_one_generator(patch: Patch) -> None:
    generator = np.random.default_rng(0)
    everywhere(patch, seeds.item_rng, lambda seed, stage, key: generator)


def does_not_lock(patch: Patch) -> None:
    patch.setattr(run, "locked", lambda folder: nullcontext(lambda: None))


def lets_nan_through(patch: Patch) -> None:
    everywhere(patch, schema.check_fields, lambda key, fields, schema: None)


def blames_the_next_item(patch: Patch) -> None:
    real, failed = InProcessRunner.run, []

    def process(self: InProcessRunner, item: PlannedItem) -> ItemResult:
        if failed:
            return ItemResult(item.key, reason=failed.pop())
        result = real(self, item)
        if result.reason is not None:
            failed.append("worker died")
        return result

    patch.setattr(InProcessRunner, "run", process)


def tries_again_and_again(patch: Patch) -> None:
    real = InProcessRunner.run

    def process(self: InProcessRunner, item: PlannedItem) -> ItemResult:
        results = (real(self, item) for _ in range(3))
        return next(
            (result for result in results if result.reason is None), ItemResult(item.key, reason=REASONS.get(item.key))
        )

    patch.setattr(InProcessRunner, "run", process)


# -- the checks, as the rows make them -----------------------------------------------------------------------------------------


def failing_writes(of: str) -> Callable[[Path, Whole], None]:
    return lambda folder, whole: check_each_failing_write(
        small_run, folder, "ENOSPC", True, whole, chosen=lambda path: path.name.startswith(of)
    )  # type: ignore[return-value]


def synced(folder: Path, whole: Whole) -> None:
    check_synced(small_run, folder / "run" / "out")


def damage_noticed(folder: Path, whole: Whole) -> None:
    small_run(folder / "out")
    check_damage_is_noticed(folder / "out", list(read_all(folder / "out")), 1)


def change_refused(folder: Path, whole: Whole) -> None:
    small_run(folder / "out")
    check_change_is_refused(lambda: small_run(folder / "out", scale=2.0), folder / "out", "scale: 1.0 there, 2.0 now")


def damage_mended(folder: Path, whole: Whole) -> None:
    small_run(folder / "out")
    check_damage_is_mended(
        small_run, folder / "out", lambda shard: shard.write_bytes(flip(shard.read_bytes(), -1)), whole
    )


def order_does_not_count(folder: Path, whole: Whole) -> None:
    check_order_does_not_count(small_run, folder, 1, whole)


def second_run_refused(folder: Path, whole: Whole) -> None:
    folder.mkdir()
    check_second_run_is_refused(small_run, folder / "out")


def poison_rejected(folder: Path, whole: Whole) -> None:
    small_run(folder / "clean" / "out")
    small_run(folder / "out", faults=POISON, journal=folder / "journal")
    check_poison(folder / "out", folder / "clean" / "out", REASONS, folder / "journal", set(POISON), workers=1)


@dataclass(frozen=True)
class Planted:
    """`finding`: what the check says when it finds the fault."""

    fault: Callable[[Patch], None]
    check: Callable[[Path, Whole], None]
    finding: str


PLANTED = [
    Planted(writes_under_the_final_name, failing_writes("dataset.json"), r"dataset\.json is not whole"),
    Planted(writes_under_the_final_name, synced, "dataset.json is not renamed into its place"),
    Planted(swallows_errors, failing_writes("dataset.json"), r"ENOSPC on \w+ of dataset.json\S* .* was passed over"),
    Planted(does_not_sync, synced, "is renamed before it is synced"),
    Planted(does_not_sync_the_folder, synced, "is not synced after the renaming"),
    Planted(
        commits_before_the_shard,
        failing_writes("00001-of-00003.s"),
        r"00001-of-00003\.json is committed without its shard",
    ),
    Planted(reads_without_checksums, damage_noticed, "other data and no error"),
    Planted(believes_that_complete_is_complete, change_refused, "DID NOT RAISE"),
    Planted(believes_the_record, damage_mended, r"other bytes than undisturbed: \['shards/00001"),
    Planted(makes_all_again, damage_mended, "committed before and made again"),
    Planted(draws_from_one_generator, order_does_not_count, "other bytes than undisturbed"),
    Planted(does_not_lock, second_run_refused, "DID NOT RAISE"),
    Planted(lets_nan_through, poison_rejected, "rejected: {'item_005'"),
    Planted(blames_the_next_item, poison_rejected, "worker died"),
    Planted(tries_again_and_again, poison_rejected, "tried again: .*'item_00[35]': 3"),
]


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: f"{planted.fault.__name__}-{planted.check.__name__}")
def test_the_check_finds_it(tmp_path: Path, planted: Planted, whole: Whole) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    planted.check(tmp_path / "good" / "it", whole)
    with pytest.MonkeyPatch.context() as patch:
        planted.fault(patch)
        with pytest.raises((AssertionError, pytest.fail.Exception), match=planted.finding):
            planted.check(tmp_path / "bad" / "it", whole)
