"""Datasets and runs made by somebody who means harm: every checksum agrees, and nothing outside the folder is read or written."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from fuzzing import FIRST, LONGEST_LINE, PLAN, limits, make_dataset, place, read_all, read_run_folder

from facegraft.cli.main import cli
from facegraft.engine import EngineError, EngineOptions, PlannedItem, StagePlan, execute, retry, status
from facegraft.engine.plan import PLAN_FILE, read_plan
from facegraft.errors import FacegraftError, printable
from facegraft.heads.folders import mesh_loader
from facegraft.meshfiles.errors import MeshError
from facegraft.recipe import RecipeError, load_recipe
from facegraft.regions.regionmap import load_region_map
from facegraft.store import DatasetSchema, FieldSpec, StoreError, open_dataset, verify_dataset, write_shard
from facegraft.store.document import seal, unseal
from facegraft.store.index import index_schema, table_from_bytes, table_to_bytes
from facegraft.store.parquet_limits import TooLarge, read_flat_table
from facegraft.store.writer import DATASET_FILE, INDEX_FILE, RUN_FILE, SHARD_FOLDER

SHARD = f"{SHARD_FOLDER}/{FIRST}"
QUICK = EngineOptions(scheduler="sync", progress=False, max_rejects=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset")


def forge(folder: Path, change: Callable[[dict[str, Any]], object], name: str = DATASET_FILE) -> None:
    """Change a sealed document, and seal it again."""
    document = unseal((folder / name).read_bytes(), "", "")
    change(document)
    (folder / name).write_bytes(seal(document))


def assert_refused(folder: Path, *words: str) -> None:
    """Reading it all is one line of ours, within the limits, and `facegraft verify` finds it too."""
    with limits():
        with pytest.raises(FacegraftError) as caught:
            read_all(folder)
        findings = verify_dataset(folder)
    for text in (str(caught.value), *findings):
        assert "\n" not in text and len(text) <= LONGEST_LINE
    assert findings
    for word in words:
        assert word in str(caught.value)


# -- names --------------------------------------------------------------------------------------------------------------

NAMES = [
    "../00000-of-00002.safetensors",
    "/etc/passwd",
    "..",
    "a\0b",
    "x\ny",
    "\x1b[2J",
    "٠٠٠٠٠-of-00002.safetensors",
    "9" * 300 + "-of-00002.safetensors",
    "x" * 10**6,
    "",
    None,
    3,
]


@pytest.mark.parametrize("name", NAMES)
def test_shard_names(folder: Path, name: object) -> None:
    forge(folder, lambda document: document["shards"][0].update(name=name))
    assert_refused(folder, "shard name")


@pytest.mark.parametrize(
    "name", [name for name in NAMES if isinstance(name, str) and "shard" not in name] + [".lock", "a/b", "-rf"]
)
def test_attachment_names(folder: Path, name: str) -> None:
    forge(folder, lambda document: document["attachments"].update({name: {"bytes": 1, "sha256": ""}}))
    assert_refused(folder, "names an attachment")


@pytest.mark.parametrize("key", ["../../x", "a\nb", "\x1b[2J", "k" * 10**6])
def test_keys_of_the_index(folder: Path, key: str) -> None:
    table = pq.read_table(folder / INDEX_FILE)
    rows = table.to_pylist()
    rows[-1]["key"] = "z" + key
    place(folder, INDEX_FILE, table_to_bytes(pa.Table.from_pylist(rows, schema=table.schema)), forge=True)
    assert_refused(folder, "item key")


def test_names_in_a_shard(folder: Path) -> None:
    data = (folder / SHARD).read_bytes()
    place(folder, SHARD, data.replace(b'"a0/labels"', b'"a\\n/label"', 1), forge=True)
    assert_refused(folder, FIRST)


def test_field_and_column_names(folder: Path) -> None:
    for name in ("x\ny", "\x1b[2J", "x" * 10**5, "../x"):
        forge(folder, lambda document, name=name: document["fields"].update({name: document["fields"]["labels"]}))
        assert_refused(folder, "must be lower case")
        forge(folder, lambda document, name=name: document["fields"].pop(name))


def test_control_characters_never_reach_the_terminal(folder: Path) -> None:
    evil = "\x1b]0;evil\x07\nall is well"
    forge(
        folder,
        lambda document: (document.update(frame=evil), document["fields"]["labels"].update(unit=evil, meaning=evil)),
    )
    shown = CliRunner().invoke(cli, ["inspect", str(folder)])
    assert (
        shown.exit_code == 0
        and "\x1b" not in shown.output
        and "\x07" not in shown.output
        and "\nall is well" not in shown.output
    )
    assert printable(evil) == r"\x1b]0;evil\x07\nall is well"
    assert printable("x" * 500) == "x" * 80 + "…"


# -- sizes --------------------------------------------------------------------------------------------------------------


def header(tensors: dict[str, Any], body: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


HUGE = {"dtype": "F32", "shape": [2**40, 3], "data_offsets": [0, 2**40 * 12]}
BOMBS = {
    "terabytes declared": header({"a0/vertices": HUGE}),
    "offsets that wrap": header({"a0/vertices": {**HUGE, "data_offsets": [2**63, 2**64 - 1]}}),
    "a shape that wraps to the right size": header(
        {"a0/vertices": {"dtype": "F32", "shape": [2**62, 2**62, 4], "data_offsets": [0, 0]}}
    ),
    "a header of exabytes": header({}, length=2**62),
    "a header longer than the file": header({}, length=10**6),
    "a header of brackets": struct.pack("<Q", 10**6) + b"[" * 10**6,
    "overlapping tensors": header(
        {f"a{i}/vertices": {"dtype": "F32", "shape": [10, 3], "data_offsets": [0, 120]} for i in range(2)}, b"\0" * 120
    ),
    "no header": b"",
    "a dtype of none": header({"a0/vertices": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
    "a dtype that numpy lacks": header(
        {"a0/vertices": {"dtype": "F8_E4M3", "shape": [10, 3], "data_offsets": [0, 30]}}, b"\0" * 30
    ),
    "no tensors": header({}),
}


@pytest.mark.parametrize("what", sorted(BOMBS))
def test_headers_of_shards(folder: Path, what: str) -> None:
    place(folder, SHARD, BOMBS[what], forge=True)
    assert_refused(folder, FIRST)


@pytest.mark.parametrize("what", sorted(set(BOMBS) - {"no tensors"}))
def test_headers_of_shared_arrays(folder: Path, what: str) -> None:
    place(folder, "shared.safetensors", BOMBS[what], forge=True)
    assert_refused(folder, "shared.safetensors")


@pytest.mark.parametrize(
    ("dtype", "shape", "size"), [("F64", [10, 3], 240), ("F32", [3, 10], 120), ("F32", [30], 120), ("F32", [0, 3], 0)]
)
def test_arrays_that_are_not_as_the_schema_says(folder: Path, dtype: str, shape: list[int], size: int) -> None:
    keys = ("a0", "a1")
    tensors: dict[str, Any] = {
        f"{key}/vertices": {"dtype": dtype, "shape": shape, "data_offsets": [i * size, (i + 1) * size]}
        for i, key in enumerate(keys)
    }
    tensors |= {
        f"{key}/labels": {"dtype": "U8", "shape": [i], "data_offsets": [2 * size, 2 * size + i]}
        for i, key in enumerate(keys)
    }
    place(folder, SHARD, header(tensors, b"\0" * (2 * size + 1)), forge=True)
    ds = open_dataset(folder)
    for read in (lambda: ds["a0"], lambda: ds.window("a0", "vertices", 0, 1)) if shape[0] else (lambda: ds["a0"],):
        with pytest.raises(StoreError, match="item a0, field vertices"):
            read()
    assert verify_dataset(folder)


def test_fields_of_a_known_name_and_another_shape(tmp_path: Path) -> None:
    """verify looks at what the numbers of well-known fields mean; here they are not what their names say."""
    from facegraft.regions.regionmap import load_region_map
    from facegraft.store import ShardItem, finish_dataset, samples_fields

    parts = load_region_map("synthetic").region_set("eyes").parts

    fields = {
        **samples_fields(parts),
        "to_mm": FieldSpec("float64", (4,), "", "", ""),
        "free_points": FieldSpec("float32", ("n",), "", "", ""),
    }
    fields["near_normals"] = FieldSpec("float64", (2, 3, 3), "", "", "")
    lengths = {name: tuple(dim if isinstance(dim, int) else 0 for dim in field.shape) for name, field in fields.items()}
    arrays = {name: np.zeros(lengths[name], field.dtype) for name, field in fields.items()}
    schema = DatasetSchema(
        "samples", {"name": None, "vertex_count": None, "faces_sha256": None}, 1.0, "", fields, {}, parts
    )
    write_shard(tmp_path, "00000-of-00001.safetensors", [ShardItem("k", arrays, {})], [], schema, PLAN)
    finish_dataset(tmp_path, schema, {"00000-of-00001.safetensors": ["k"]}, PLAN)
    with limits():
        assert verify_dataset(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["topology"].update(vertex_count=10**300),
        lambda d: d["topology"].update(name=["x"]),
        lambda d: d["topology"].update(name="\x1b[2J"),
        lambda d: d["fields"]["vertices"].update(shape=[10**4000, 3]),
        lambda d: d["fields"]["vertices"].update(shape=[10**12, 3]),
        lambda d: d["fields"]["vertices"].update(shape=[[3]]),
        lambda d: d["fields"]["vertices"].update(dtype="object"),
        lambda d: d["counts"].update(planned=10**1000),
        lambda d: d.update(counts={str(i): i for i in range(10**4)}),
        lambda d: d.update(version="9" * 10**6),
        lambda d: d.update(must_understand=["\n"] * 10**5),
        lambda d: d.update(format={"a": "\x1b"}),
        lambda d: d.update(
            shards=[
                {"name": f"{i:05d}-of-99999.safetensors", "bytes": 1, "sha256": "", "items": 1} for i in range(1000)
            ]
        ),
        lambda d: d["shards"][0].update(bytes=-1),
        lambda d: d["index"].update(bytes=10**18),
        lambda d: d.update(columns=[{"name": "a", "type": "string"}] * 10**4),
    ],
)
def test_declarations(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    forge(folder, change)
    assert_refused(folder)


# -- parquet ------------------------------------------------------------------------------------------------------------


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", **options)
    return bytes(sink.getvalue())


def rows_of(count: int, key: str = "a", text: str = "x") -> pa.Table:
    """`count` equal rows in the columns of the index; here too they are not written out one by one."""
    zeros = pa.array(np.zeros(count, np.int32))
    texts = {"key": key, "shard": "s", "status": "rejected", "reason": text, "subject": text}
    columns: dict[str, pa.Array] = {
        name: pa.DictionaryArray.from_arrays(zeros, pa.array([value])) for name, value in texts.items()
    }
    return pa.table({**columns, "score": pa.nulls(count, pa.float64())})


BOMB_TABLES: dict[str, Callable[[], bytes]] = {
    "rows that run lengths stand for": lambda: parquet(rows_of(5_000_000), row_group_size=1 << 26, store_schema=False),
    "a text of a megabyte in every row": lambda: parquet(rows_of(100_000, text="x" * 10**4), store_schema=False),
    "pages of zeros": lambda: parquet(pa.table({"key": ["\0" * 120_000_000]}), use_dictionary=False),
    "lists": lambda: parquet(pa.table({"key": pa.array([[1, 2]])})),
    "text that is none": lambda: parquet(pa.table({"key": pa.array([b"\xff\xfe"]).view(pa.string())})),
}


@pytest.mark.parametrize("what", sorted(BOMB_TABLES))
def test_a_small_index_that_would_be_a_large_table(folder: Path, what: str) -> None:
    data = BOMB_TABLES[what]()
    assert len(data) < 1 << 20
    place(folder, INDEX_FILE, data, forge=True)
    assert_refused(folder, "index.parquet is not a readable parquet table")
    place(folder, PLAN_FILE, data, forge=False)
    with limits(), pytest.raises(EngineError, match=r"plan.parquet is damaged"):
        read_plan(folder, {})


def test_the_footer_may_lie_about_the_size_of_a_page() -> None:
    """The page says 120 MB and the footer says a few bytes: it is the page that the decoder believes."""
    honest = BOMB_TABLES["pages of zeros"]()
    size = pq.ParquetFile(pa.BufferReader(honest)).metadata.row_group(0).column(0).total_uncompressed_size
    spelled, number = b"", size << 1
    while number:
        spelled += bytes([number & 127 | (128 if number > 127 else 0)])
        number >>= 7
    footer = honest.rindex(spelled)
    lying = honest[:footer] + b"\x82" + b"\x80" * (len(spelled) - 2) + b"\x00" + honest[footer + len(spelled) :]
    with limits(), pytest.raises((TooLarge, ValueError)):
        read_flat_table(lying)


def test_honest_tables_are_read_whatever_they_hold() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 5, 70_000):
        rows = [
            {
                "key": f"k{i:07d}",
                "status": "written",
                "shard": "s",
                "reason": None,
                "subject": "é" * (i % 7),
                "score": float(rng.normal()),
            }
            for i in range(count)
        ]
        table = pa.Table.from_pylist(rows, schema=index_schema({"subject": "string", "score": "float64"}))
        assert table_from_bytes(table_to_bytes(table), "it").equals(table)
    # A million rows that compress as well as any of ours will.
    keys = pa.array([f"s{i // 1000:04d}--s{i % 1000:04d}" for i in range(1_000_000)])
    assert (
        len(
            table_from_bytes(
                parquet(
                    pa.table({"key": keys, "split": pa.array(["train"]).take(pa.array(np.zeros(10**6, np.int32)))})
                ),
                "it",
            )
        )
        == 10**6
    )


# -- links, pipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [INDEX_FILE, "region_map.json", "shared.safetensors"])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert_refused(folder, "is not a regular file")


@pytest.mark.parametrize(
    "name", [DATASET_FILE, SHARD, RUN_FILE, PLAN_FILE, f"{SHARD_FOLDER}/00000-of-00002.json", ".lock"]
)
def test_other_pipes_are_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with limits():
        for action in (read_all, verify_dataset, read_run_folder):
            try:
                action(folder)
            except FacegraftError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("name", [RUN_FILE, PLAN_FILE])
def test_links_in_a_run_are_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(EngineError, match="is a link"):
        read_run_folder(folder)


def test_a_linked_commit_record_does_not_count(folder: Path, tmp_path: Path) -> None:
    record = folder / SHARD_FOLDER / "00000-of-00002.json"
    record.rename(tmp_path / "outside")
    record.symlink_to(tmp_path / "outside")
    assert status(folder).shards_done == 1
    assert any("is a link" in finding for finding in verify_dataset(folder))


@pytest.mark.parametrize("name", ["shards", "rejects", "logs"])
def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.json").write_text("years of work")
    if (folder / name).exists():
        (folder / name).rename(tmp_path / "moved")
    (folder / name).symlink_to(outside)
    with pytest.raises(EngineError, match="is a link and leads out"):
        retry(folder, "toy:Toy", QUICK)
    plan = StagePlan(open_schema(), [PlannedItem("a", {}, {})], {}, None, 1, {})
    with pytest.raises(EngineError, match="is a link and leads out"):
        execute("toy:Toy", plan, [], folder, {}, 0, QUICK)
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious.json": "years of work"}


def open_schema() -> DatasetSchema:
    return DatasetSchema(
        "heads",
        {"name": None, "vertex_count": None, "faces_sha256": None},
        1.0,
        "",
        {"x": FieldSpec("uint8", ("n",), "", "", "")},
        {},
    )


def test_the_lock_does_not_write_through_a_link(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    (folder / ".lock").symlink_to(precious)
    with pytest.raises(FacegraftError, match=r"\.lock"):
        retry(folder, "toy:Toy", QUICK)
    assert precious.read_text() == "years of work"


# -- runs, plans, recipes from strangers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(shards=10**12, planned=10**12, shard_items=1),
        lambda d: d.update(shards=10**12),
        lambda d: d.update(shards=-1),
        lambda d: d.update(planned="5"),
        lambda d: d.update(shard_items=0),
        lambda d: d.update(inputs=[3]),
        lambda d: d.update(inputs="x"),
        lambda d: d.update(parameters=[]),
        lambda d: d.update(stage="a\nb"),
        lambda d: d.update(seed=10**400),
        lambda d: d.update(extra=1),
        lambda d: d["schema"].update(kind="x" * 10**6),
    ],
)
def test_run_records(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    forge(folder, change, RUN_FILE)
    with limits():
        try:
            done = status(folder).shards_done
        except FacegraftError as error:
            assert "\n" not in str(error) and len(str(error)) <= LONGEST_LINE
        else:
            assert done == 0, "commit records of another run do not count"


def test_a_run_record_names_no_code_that_is_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Evil: pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    forge(folder, lambda document: document.update(stage="evil:Evil"), RUN_FILE)
    done = CliRunner().invoke(cli, ["retry", str(folder), "--scheduler", "sync"])
    assert done.exit_code != 0 and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("spec", ["3", "null", "[1]", "[" * 50_000, "{", "9" * 5000])
def test_specs_of_a_plan(folder: Path, spec: str) -> None:
    table = pq.read_table(folder / PLAN_FILE)
    rows = table.to_pylist()
    rows[0]["spec"] = spec
    (folder / PLAN_FILE).write_bytes(parquet(pa.Table.from_pylist(rows, schema=table.schema)))
    with limits(), pytest.raises(EngineError, match=r"plan.parquet is damaged"):
        read_plan(folder, {})


@pytest.mark.parametrize("shard_items", [b"0", b"-1", b"x", b"9" * 5000])
def test_shard_sizes_of_a_plan(folder: Path, shard_items: bytes) -> None:
    table = pq.read_table(folder / PLAN_FILE).replace_schema_metadata({b"shard_items": shard_items})
    (folder / PLAN_FILE).write_bytes(parquet(table))
    with limits(), pytest.raises(EngineError, match=r"plan.parquet is damaged"):
        read_plan(folder, {})


@pytest.mark.parametrize("name", ["/etc/hosts.obj", "../secret.obj", "a/../../secret.obj", "a\0.obj", "\x1b[2J.obj"])
def test_a_plan_names_only_meshes_of_its_source(tmp_path: Path, name: str) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    (tmp_path / "secret.obj").write_text("v 1 2 3\n")
    load = mesh_loader(root, load_region_map("synthetic"), np.empty((0, 4)), None)
    with pytest.raises(MeshError, match="lies outside the folder of meshes"):
        load({"file": name})


def test_a_recipe_can_run_no_code(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    for tag in (
        "python/object/apply:os.system",
        "python/name:os.system",
        "python/object/new:subprocess.Popen",
        "python/module:os",
    ):
        recipe.write_text(f"graft: {{donors: !!{tag} ['touch {tmp_path / 'ran'}']}}\n")
        with pytest.raises(RecipeError, match="not a YAML file"):
            load_recipe(recipe)
    assert not (tmp_path / "ran").exists()


def test_a_pipe_is_no_recipe_and_no_region_map(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with limits(), pytest.raises(RecipeError, match="not a regular file"):
        load_recipe(tmp_path / "pipe.json")
    with limits(), pytest.raises(FacegraftError, match="not a regular file"):
        load_region_map(tmp_path / "pipe.json")
