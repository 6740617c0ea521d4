"""What the writer refuses, and what a resumed run may trust."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facegraft.store import (
    FieldError,
    IncompleteError,
    RejectedItem,
    ShardItem,
    StoreError,
    finish_dataset,
    open_dataset,
    read_commit,
    shard_name,
    verify_dataset,
    withdraw_dataset,
    write_shard,
)
from facegraft.store.atomic import host_name

PLAN = "5" * 64
SHARD = shard_name(0, 2)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_commit_record_says_what_was_written(new_toy: Callable) -> None:
    toy = new_toy("new")
    record = toy.write_shard(SHARD)
    assert record["planned"] == ["s0a", "s0b", "s0c"]
    assert [(row["key"], row["shard"], row["status"], row["reason"], row["score"]) for row in record["rows"]] == [
        ("s0a", SHARD, "written", None, 0.5),
        ("s0b", SHARD, "written", None, 0.5),
        ("s0c", None, "rejected", "mesh is not closed", None),
    ]
    assert read_commit(toy.folder, SHARD, PLAN) == record
    assert names_in(toy.folder / "shards") == ["00000-of-00002.json", "00000-of-00002.safetensors"]


def test_a_commit_holds_for_its_plan_and_its_bytes_only(new_toy: Callable) -> None:
    toy = new_toy("new")
    assert read_commit(toy.folder, SHARD, PLAN) is None
    toy.write_shard(SHARD)
    shard = toy.folder / "shards" / SHARD
    record = shard.with_suffix(".json")
    whole, sealed = shard.read_bytes(), record.read_bytes()
    assert read_commit(toy.folder, SHARD, "6" * 64) is None
    shard.write_bytes(whole[:-1])
    assert read_commit(toy.folder, SHARD, PLAN) is None
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert read_commit(toy.folder, SHARD, PLAN) is None
    shard.write_bytes(whole)
    record.write_bytes(sealed.replace(b'"written"', b'"writteN"', 1))
    assert read_commit(toy.folder, SHARD, PLAN) is None
    record.write_bytes(sealed)
    assert read_commit(toy.folder, SHARD, PLAN) is not None
    shard.rename(shard.with_name("elsewhere"))
    shard.symlink_to("elsewhere")
    assert read_commit(toy.folder, SHARD, PLAN) is None


def test_a_commit_record_of_another_shard_does_not_hold(new_toy: Callable) -> None:
    toy = new_toy("new")
    for shard in toy.plan:
        toy.write_shard(shard)
    folder = toy.folder / "shards"
    for suffix in (".json", ".safetensors"):
        (folder / "00001-of-00002").with_suffix(suffix).write_bytes(
            (folder / "00000-of-00002").with_suffix(suffix).read_bytes()
        )
    assert read_commit(toy.folder, shard_name(1, 2), PLAN) is None


def test_wrong_items_are_refused_before_anything_is_written(new_toy: Callable) -> None:
    toy = new_toy("new")
    good = ShardItem("s0a", toy.items["s0a"], {})
    bad = ShardItem("s0b", {**toy.items["s0b"], "vertices": np.zeros((4, 3), np.float32)}, {})
    with pytest.raises(FieldError, match="item s0b, field vertices"):
        write_shard(toy.folder, SHARD, [good, bad], [], toy.schema, PLAN)
    with pytest.raises(FieldError, match="item s0a: unknown index column 'hat'"):
        write_shard(toy.folder, SHARD, [ShardItem("s0a", toy.items["s0a"], {"hat": 1})], [], toy.schema, PLAN)
    with pytest.raises(StoreError, match="item s0a comes twice"):
        write_shard(toy.folder, SHARD, [good], [RejectedItem("s0a", "no", {})], toy.schema, PLAN)
    with pytest.raises(StoreError, match=r"item key '\.\./x'"):
        write_shard(toy.folder, SHARD, [ShardItem("../x", toy.items["s0a"], {})], [], toy.schema, PLAN)
    with pytest.raises(StoreError, match=r"shard name '../evil'"):
        write_shard(toy.folder, "../evil", [good], [], toy.schema, PLAN)
    with pytest.raises(StoreError, match="item s0c is rejected without a reason"):
        write_shard(toy.folder, SHARD, [good], [RejectedItem("s0c", " \n", {})], toy.schema, PLAN)
    assert not toy.folder.exists()


def test_a_reason_is_one_short_line(new_toy: Callable) -> None:
    toy = new_toy("new")
    record = write_shard(
        toy.folder, SHARD, [], [RejectedItem("s0c", "first\n  second " + "x" * 900, {})], toy.schema, PLAN
    )
    assert record["rows"][0]["reason"].startswith("first second xxx")
    assert len(record["rows"][0]["reason"]) == 500


def test_nothing_is_finished_before_all_is_there(new_toy: Callable) -> None:
    toy = new_toy("new")
    with pytest.raises(StoreError, match=r"no dataset at .*: no such folder"):
        open_dataset(toy.folder)
    toy.write_shard(SHARD)
    with pytest.raises(
        StoreError, match=r"shard 00001-of-00002.safetensors is not committed; run the same command again"
    ):
        toy.finish()
    assert not (toy.folder / "dataset.json").exists()
    with pytest.raises(
        IncompleteError, match=r"is not complete \(1 shards committed so far\); run the same command again to finish it"
    ):
        toy.open()
    assert verify_dataset(toy.folder)[0].startswith(f"{toy.folder} is not complete")
    toy.write_shard(shard_name(1, 2))
    toy.finish()
    assert len(toy.open()) == 4


def test_a_shard_that_holds_other_items_than_planned_is_not_finished(new_toy: Callable) -> None:
    toy = new_toy("new")
    for shard in toy.plan:
        toy.write_shard(shard)
    with pytest.raises(StoreError, match=r"shard 00000-of-00002.safetensors holds other items than planned"):
        finish_dataset(toy.folder, toy.schema, {**toy.plan, SHARD: ["s0a", "s0b"]}, PLAN)
    with pytest.raises(StoreError, match="is not committed"):
        finish_dataset(toy.folder, toy.schema, toy.plan, "6" * 64)


def test_an_item_in_two_shards_is_not_finished(new_toy: Callable) -> None:
    toy = new_toy("new")
    toy.plan[shard_name(1, 2)] = ["s0a", "s1b"]
    for shard in toy.plan:
        toy.write_shard(shard)
    with pytest.raises(StoreError, match=r"4 written \+ 1 rejected items, 4 of them distinct, where 5 were planned"):
        toy.finish()
    assert not (toy.folder / "dataset.json").exists()


def test_a_withdrawn_dataset_can_be_changed_and_finished_again(toy) -> None:
    before = toy.files()
    withdraw_dataset(toy.folder)
    withdraw_dataset(toy.folder)
    with pytest.raises(IncompleteError):
        toy.open()
    toy.finish()
    assert toy.files() == before


def test_what_dead_attempts_left_is_gone_when_the_run_is_finished(toy) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (toy.folder / "shards" / f"{SHARD}.tmp-{host_name()}-{dead}-ff").write_bytes(b"half")
    assert len(toy.open()) == 4
    assert verify_dataset(toy.folder) == []
    toy.finish()
    assert names_in(toy.folder / "shards") == sorted(
        f"0000{n}-of-00002.{ending}" for n in (0, 1) for ending in ("json", "safetensors")
    )


def test_a_file_size_limit_is_told_and_leaves_nothing(new_toy: Callable) -> None:
    """A real failing disk: the system refuses bytes past a limit, in a process of its own."""
    toy = new_toy("new")
    program = f"""
import numpy as np, resource, signal, sys
from facegraft.store import StoreError, write_bytes_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes_atomic({str(toy.folder / "file.bin")!r}, bytes(5000))
except StoreError as error:
    sys.exit(str(error))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert (
        run.stderr.strip()
        == f"cannot write {toy.folder / 'file.bin'}: File too large; run the same command again once that is mended"
    )
    assert names_in(toy.folder) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_full_disk_is_told_and_the_same_command_goes_on(new_toy: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full takes the place of the new file: it refuses every byte as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    toy = new_toy("new")
    toy.write_shard(SHARD)
    real = os.open
    with monkeypatch.context() as patch:
        patch.setattr(
            os,
            "open",
            lambda path, flags, *mode: real("/dev/full", os.O_WRONLY) if flags & os.O_CREAT else real(path, flags),
        )
        with pytest.raises(StoreError) as error:
            toy.write_shard(shard_name(1, 2))
    path = toy.folder / "shards" / shard_name(1, 2)
    assert (
        str(error.value)
        == f"disk full while writing {path}; free space and run the same command again: finished shards are kept"
    )
    assert read_commit(toy.folder, SHARD, PLAN) is not None
    assert not path.exists()
    toy.write_shard(shard_name(1, 2))
    toy.finish()
    assert verify_dataset(toy.folder) == []
