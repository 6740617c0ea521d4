"""verify_dataset: each kind of defect is found, with the file and the item named."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load

from facegraft.store import StoreError, finish_dataset, open_dataset, shard_name, verify_dataset, write_shared
from facegraft.store.atomic import arrays_to_bytes, sha256_bytes
from facegraft.store.document import seal, unseal
from facegraft.store.index import table_from_bytes, table_to_bytes

PLAN = "5" * 64


def replace_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change the first shard and give dataset.json and the commit record checksums that agree, so that only its content is wrong."""
    path = next(iter(sorted((folder / "shards").glob("*.safetensors"))))
    tensors = load(path.read_bytes())
    change(tensors)
    data = arrays_to_bytes(tensors)
    path.write_bytes(data)
    for document, find in (
        (path.with_suffix(".json"), lambda d: d),
        (folder / "dataset.json", lambda d: d["shards"][0]),
    ):
        content = unseal(document.read_bytes(), "", "")
        find(content).update(bytes=len(data), sha256=sha256_bytes(data))
        document.write_bytes(seal(content))


def only_finding(folder: Path) -> str:
    findings = verify_dataset(folder)
    assert len(findings) == 1, findings
    return findings[0]


def test_a_whole_dataset_has_no_findings(toy, write_samples: Callable[..., Path]) -> None:
    assert verify_dataset(toy.folder) == []
    assert verify_dataset(write_samples()) == []


def test_no_dataset_is_a_finding(tmp_path: Path) -> None:
    assert only_finding(tmp_path / "nowhere").endswith("no such folder")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("s0a/labels"), "s0a/labels is missing"),
        (lambda tensors: tensors.update({"s0a/hat": np.zeros(1)}), "s0a/hat is no field of the schema"),
        (lambda tensors: tensors.update({"s0x/labels": np.zeros(1)}), "item s0x is not in the index"),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("s0a/")],
            "item s0a is missing",
        ),
        (
            lambda tensors: tensors["s0a/vertices"].__setitem__((1, 1), np.nan),
            "s0a/vertices: 1 of 15 values are NaN or infinite",
        ),
        (
            lambda tensors: tensors.update({"s0a/vertices": np.zeros((5, 3))}),
            "s0a/vertices: dtype float64 where the schema says float32",
        ),
        (
            lambda tensors: tensors.update({"s0a/vertices": np.zeros((4, 3), np.float32)}),
            "s0a/vertices: shape [4, 3] where the schema says",
        ),
        (lambda tensors: tensors.update({"s0b/labels": np.zeros(3, np.uint8)}), "and n is 3 by"),
    ],
)
def test_wrong_content_behind_right_checksums(toy, change: Callable, words: str) -> None:
    replace_tensors(toy.folder, change)
    findings = verify_dataset(toy.folder)
    assert any(words in finding and "00000-of-00002.safetensors" in finding for finding in findings), findings


def test_a_shard_without_an_item_is_an_error_for_the_reader_too(toy) -> None:
    replace_tensors(toy.folder, lambda tensors: tensors.pop("s0a/labels"))
    with pytest.raises(StoreError, match=r"00000-of-00002.safetensors is damaged .*s0a/labels.*; delete it"):
        toy.open()["s0a"]


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"to_mm": np.zeros((4, 4))}, "ball/to_mm: the matrix cannot be inverted"),
        ({"surface_parts": np.full(40, 4, np.uint8)}, "ball/surface_parts: part label 4 is not one of 0 to 3"),
        ({"near_parts": np.full(20, 9, np.uint8)}, "ball/near_parts: part label 9"),
        (
            {"near_normals": np.full((20, 3), 0.6, np.float32)},
            "ball/near_normals: normals are not unit: a length is off by 0.0392",
        ),
        ({"surface_normals": np.zeros((40, 3), np.float32)}, "ball/surface_normals: normals are not unit"),
        (
            {"free_points": np.full((10, 3), 0.6, np.float32)},
            "ball/free_points: a point lies outside the unit ball, at radius 1.0392",
        ),
    ],
)
def test_numbers_that_cannot_be(
    write_samples: Callable[..., Path], replaced: dict[str, np.ndarray], words: str
) -> None:
    assert words in only_finding(write_samples(**replaced))


def test_sets_that_a_preset_leaves_out_are_fine(write_samples: Callable[..., Path]) -> None:
    empty = {"near_points": (0, 3), "near_normals": (0, 3), "near_sdf": (0,)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in empty.items()}
    folder = write_samples(**arrays, near_parts=np.zeros(0, np.uint8))
    assert verify_dataset(folder) == []
    assert open_dataset(folder)["ball"]["near_points"].shape == (0, 3)


def test_stray_files_are_named_and_leftovers_are_not(toy) -> None:
    (toy.folder / "shards" / "00000-of-00002.safetensors.tmp-host-1-ff").write_bytes(b"half")
    assert verify_dataset(toy.folder) == []
    (toy.folder / "shards" / "00007-of-00009.safetensors").write_bytes(b"")
    assert only_finding(toy.folder).endswith(
        "00007-of-00009.safetensors belongs to no shard of this dataset; remove it"
    )


def test_a_missing_commit_record(toy) -> None:
    (toy.folder / "shards" / "00001-of-00002.json").unlink()
    assert "00001-of-00002.json is missing; delete 00001-of-00002.safetensors too" in only_finding(toy.folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record["rows"][0].update(score=0.25), "the row of item s0a differs from the index"),
        (lambda record: record.update(sha256="0" * 64), "records another shard (size or sha256) than dataset.json"),
        (lambda record: record.update(plan="0" * 64), "the commit records belong to 2 different plans"),
        (lambda record: record["planned"].pop(), "its rows are not those of its planned items"),
        (
            lambda record: (record["planned"].pop(0), record["rows"].pop(0)),
            "lacks 1 items that the index puts there, for example s0a",
        ),
        (lambda record: record["planned"].append("s1a"), "1 items are planned in more than one shard"),
        (lambda record: record.update(rows=[1]), "is no commit record of 00000-of-00002.safetensors"),
        (lambda record: record.pop("plan"), "is no commit record of 00000-of-00002.safetensors"),
    ],
)
def test_a_commit_record_that_disagrees(toy, change: Callable, words: str) -> None:
    path = toy.folder / "shards" / "00000-of-00002.json"
    record = unseal(path.read_bytes(), "", "")
    change(record)
    path.write_bytes(seal(record))
    assert any(words in finding for finding in verify_dataset(toy.folder)), verify_dataset(toy.folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda rows: rows[0].update(shard="00009-of-00010.safetensors"),
            "item s0a has status 'written' and shard '00009-of-00010.safetensors'",
        ),
        (lambda rows: rows[0].update(shard="../../secret"), "item s0a has status 'written' and shard '../../secret'"),
        (lambda rows: rows[2].update(shard="00000-of-00002.safetensors"), "item s0c has status 'rejected' and shard"),
        (lambda rows: rows[0].update(status="done"), "item s0a has status 'done'"),
        (lambda rows: rows.reverse(), "keys are not sorted and unique"),
        (lambda rows: rows[1].update(key="s0a"), "keys are not sorted and unique"),
        (lambda rows: rows[0].update(key="../x"), "item key '../x' must be"),
        (lambda rows: rows.pop(), "where dataset.json says"),
        (lambda rows: [row.pop("score") for row in rows], "has other columns than dataset.json says"),
    ],
)
def test_an_index_that_disagrees(toy, change: Callable, words: str) -> None:
    path = toy.folder / "index.parquet"
    table = table_from_bytes(path.read_bytes(), "index")
    rows = table.to_pylist()
    change(rows)
    schema = pa.schema([field for field in table.schema if field.name in rows[0]])
    data = table_to_bytes(pa.Table.from_pylist(rows, schema=schema))
    path.write_bytes(data)
    document = unseal((toy.folder / "dataset.json").read_bytes(), "", "")
    document["index"] = {"bytes": len(data), "sha256": sha256_bytes(data)}
    (toy.folder / "dataset.json").write_bytes(seal(document))
    assert any(words in finding for finding in verify_dataset(toy.folder)), verify_dataset(toy.folder)
    with pytest.raises(StoreError):
        toy.open()


def test_shared_faces_are_those_of_the_topology(new_toy: Callable) -> None:
    toy = new_toy("new")
    good = hashlib.sha256(toy.shared["faces"].astype("<i4").tobytes()).hexdigest()
    toy.schema = dataclasses.replace(toy.schema, topology={**toy.schema.topology, "faces_sha256": good})
    toy.write()
    assert verify_dataset(toy.folder) == []
    write_shared(toy.folder, {"faces": toy.shared["faces"][:, ::-1]})
    finish_dataset(toy.folder, toy.schema, toy.plan, PLAN)
    assert only_finding(toy.folder).endswith("faces are not those of topology toy (faces_sha256 differs)")


def test_all_damage_is_listed_at_once(toy) -> None:
    for name in ("index.parquet", "region_map.json", f"shards/{shard_name(0, 2)}", "shards/00001-of-00002.json"):
        path = toy.folder / name
        path.write_bytes(path.read_bytes()[:-1])
    findings = verify_dataset(toy.folder)
    assert len(findings) == 4, findings
