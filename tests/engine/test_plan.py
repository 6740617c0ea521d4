"""The plan: what is in which shard, on disk and back."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_stages import SCHEMA, toy_plan

from facegraft.engine.errors import EngineError
from facegraft.engine.plan import PLAN_FILE, read_plan, read_shard_items, shard_plan, write_plan
from facegraft.engine.stage import PlannedItem
from facegraft.store.parquet_limits import _column_chunks, read_flat_table


@given(st.permutations(range(13)), st.integers(1, 15))
def test_shards_do_not_depend_on_the_order_of_planning(order: list[int], shard_items: int) -> None:
    plan = replace(toy_plan(13), shard_items=shard_items)
    shuffled = replace(plan, items=[plan.items[i] for i in order])
    sharded = shard_plan(shuffled)
    assert sharded.sha256() == shard_plan(plan).sha256()
    keys = [item.key for number in range(sharded.shard_count) for item in sharded.shard(number)]
    assert keys == sorted(item.key for item in plan.items)
    assert all(len(sharded.shard(number)) == shard_items for number in range(sharded.shard_count - 1))
    assert 1 <= len(sharded.shard(sharded.shard_count - 1)) <= shard_items


def test_disk_and_back(tmp_path: Path) -> None:
    sharded = shard_plan(toy_plan(10, 4))
    sha256 = write_plan(tmp_path, sharded)
    assert read_plan(tmp_path, SCHEMA.columns) == sharded
    for number in range(3):
        assert tuple(read_shard_items(tmp_path, number, sha256)) == sharded.shard(number)


def test_whatever_changes_an_item_changes_the_checksum() -> None:
    plan = toy_plan(6)
    item = plan.items[2]
    base = shard_plan(plan).sha256()
    for other in (
        replace(item, key="item_900"),
        replace(item, row={"subject": 77}),
        replace(item, spec={**item.spec, "size": 99}),
        replace(item, row={**item.row, "note": "x"}),
    ):
        assert shard_plan(replace(plan, items=[*plan.items[:2], other, *plan.items[3:]])).sha256() != base
    assert shard_plan(replace(plan, shard_items=5)).sha256() != base


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the plan has no items"),
        ([PlannedItem("a", {}, {}), PlannedItem("a", {}, {})], "item a is planned twice"),
        ([PlannedItem("a.b", {}, {})], "item key 'a.b' must be"),
        ([PlannedItem("a", {"subjet": 1}, {})], "did you mean 'subject'"),
        ([PlannedItem("a", {"subject": "one"}, {})], "item a, index column subject"),
        ([PlannedItem("a", {}, {"x": float("nan")})], "spec of item a"),
        ([PlannedItem("a", {}, {"x": Path("x")})], "spec of item a"),
    ],
)
def test_unusable_plans_are_refused_by_name(items: list[PlannedItem], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        shard_plan(replace(toy_plan(1), items=items))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_is_always_noticed(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("plan")
    sharded = shard_plan(toy_plan(10, 4))
    sha256 = write_plan(folder, sharded)
    raw = bytearray((folder / PLAN_FILE).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / PLAN_FILE).write_bytes(raw)
    with pytest.raises(EngineError, match=r"plan.parquet is damaged .*run the command"):
        read_shard_items(folder, 1, sha256)
    # The whole plan is read by content: either it is the same, or its checksum tells.
    try:
        again = read_plan(folder, SCHEMA.columns)
    except EngineError as error:
        assert "plan.parquet is damaged" in str(error)
    else:
        assert again == sharded or again.sha256() != sharded.sha256()


def test_no_flipped_bit_of_the_footer_ends_the_process(tmp_path: Path) -> None:
    """Statistics that contradict the schema: pyarrow's own access to a column's metadata aborts there."""
    write_plan(tmp_path, shard_plan(toy_plan(10, 4)))
    raw = (tmp_path / PLAN_FILE).read_bytes()
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    refused = 0
    for at in range(footer, footer + 64):
        for bit in range(8):
            try:
                read_flat_table(raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :])
            except (pa.ArrowException, OSError, ValueError):
                refused += 1
    assert refused > 100


def test_a_footer_is_read_as_pyarrow_reads_it(tmp_path: Path) -> None:
    write_plan(tmp_path, shard_plan(toy_plan(10, 4)))
    metadata = pq.read_metadata(tmp_path / PLAN_FILE)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    names = {5: "num_values", 7: "total_compressed_size", 9: "data_page_offset", 11: "dictionary_page_offset"}
    assert len(columns) > 8
    assert [{n: c.get(n) for n in names} for c in _column_chunks((tmp_path / PLAN_FILE).read_bytes())] == [
        {number: getattr(column, name) for number, name in names.items()} for column in columns
    ]


def test_a_missing_plan_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is missing; run the command"):
        read_shard_items(tmp_path, 0, "")
