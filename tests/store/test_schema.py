"""What the schema lets in, and what it says about the rest."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from facegraft.regions.regionmap import load_region_map
from facegraft.store import (
    DatasetSchema,
    FieldError,
    FieldSpec,
    StoreError,
    check_key,
    fields_of,
    heads_fields,
    shard_name,
)
from facegraft.store.schema import check_fields, check_row, check_shard_name, commit_name
from facegraft.vocabulary import KINDS

TOPOLOGY = {"name": "toy", "vertex_count": 5, "faces_sha256": None}
SCHEMA = DatasetSchema(
    "surfaces",
    TOPOLOGY,
    100.0,
    "test",
    {"points": FieldSpec("float32", ("n", 3), "mm", "", ""), "labels": FieldSpec("uint8", ("n",), "", "", "")},
    {"subject": "string", "score": "float64", "count": "int64", "flag": "bool"},
)
GOOD = {"points": np.zeros((4, 3), np.float32), "labels": np.zeros(4, np.uint8)}


@pytest.mark.parametrize("kind", KINDS)
def test_schema_survives_json(kind: str) -> None:
    parts = None if kind == "heads" else load_region_map("synthetic").region_set("goggles").parts
    schema = DatasetSchema(
        kind, TOPOLOGY, 1, "frame", fields_of(kind, parts), {"subject": "string", "a": "bool"}, parts
    )
    again = DatasetSchema.from_json(json.loads(json.dumps(schema.to_json(), sort_keys=True)))
    assert again == schema
    assert list(again.columns) == ["subject", "a"]
    assert (again.parts is None) == (kind == "heads")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "hats"}, "dataset kind 'hats' is not one of heads, composites, surfaces, samples"),
        ({"mm_per_unit": 0.0}, "mm_per_unit must be a positive number, not 0.0"),
        ({"mm_per_unit": float("nan")}, "mm_per_unit must be a positive number"),
        ({"topology": {"name": "toy"}}, r"these differ: \['faces_sha256', 'vertex_count'\]"),
        ({"topology": {**TOPOLOGY, "vertex_count": "5"}}, "vertex_count must be a whole number or null, not '5'"),
        ({"fields": {}}, "at least one field"),
        ({"fields": {"A/b": SCHEMA.fields["points"]}}, "'A/b' must be lower case"),
        ({"columns": {"key": "string"}}, "'key' is the store's own"),
        ({"columns": {"score": "double"}}, "'score' has type 'double'; it must be one of string, int64, float64, bool"),
    ],
)
def test_bad_schemas_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(StoreError, match=words):
        dataclasses.replace(SCHEMA, **changes)


@pytest.mark.parametrize("shape", [(-1,), (1.5,), ("a b",), (True,)])
def test_bad_shapes_are_refused(shape: tuple[Any, ...]) -> None:
    with pytest.raises(FieldError, match="neither a length nor a name"):
        FieldSpec("float32", shape, "", "", "")


def test_bad_dtype_is_refused() -> None:
    with pytest.raises(FieldError, match="dtype 'object' is not one of"):
        FieldSpec("object", (), "", "", "")


@pytest.mark.parametrize("missing", ["kind", "topology", "mm_per_unit", "frame", "fields", "columns"])
def test_a_missing_part_of_a_stored_schema_is_named(missing: str) -> None:
    document = SCHEMA.to_json()
    del document[missing]
    with pytest.raises(StoreError, match=f"the schema lacks '{missing}'"):
        DatasetSchema.from_json(document)


def test_a_wrong_part_of_a_stored_schema_is_named() -> None:
    with pytest.raises(StoreError, match="'fields' must be dict, not list"):
        DatasetSchema.from_json({**SCHEMA.to_json(), "fields": []})
    with pytest.raises(StoreError, match="a field lacks 'unit'"):
        DatasetSchema.from_json({**SCHEMA.to_json(), "fields": {"x": {"dtype": "float32", "shape": []}}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"point": GOOD["points"]}, r"item k: unknown field 'point' \(did you mean 'points'\?\)"),
        ({"labels": None}, "item k: field 'labels' is missing"),
        ({"labels": [1, 2, 3, 4]}, "item k, field labels: a list where a numpy array of uint8 belongs"),
        ({"points": np.zeros((4, 3))}, "item k, field points: dtype float64 where the schema says float32"),
        ({"points": np.zeros(12, np.float32)}, r"item k, field points: shape \[12\] where the schema says \[n,3\]"),
        (
            {"points": np.zeros((4, 2), np.float32)},
            r"item k, field points: shape \[4, 2\] where the schema says \[n,3\]",
        ),
        (
            {"labels": np.zeros(5, np.uint8)},
            "item k, field labels: shape .5. where the schema says .n., and n is 4 by item k, field points",
        ),
        ({"points": np.full((4, 3), np.nan, np.float32)}, "item k, field points: 12 of 12 values are NaN or infinite"),
        ({"points": np.full((4, 3), np.inf, np.float32)}, "NaN or infinite"),
    ],
)
def test_wrong_arrays_name_item_field_and_both_sides(changes: dict[str, Any], words: str) -> None:
    arrays = {name: array for name, array in {**GOOD, **changes}.items() if array is not None}
    with pytest.raises(FieldError, match=words):
        check_fields("k", arrays, SCHEMA)


def test_v_stands_for_the_vertices_of_the_topology() -> None:
    schema = DatasetSchema("heads", TOPOLOGY, 1.0, "", heads_fields(), {})
    arrays = {"vertices": np.zeros((6, 3), np.float32), "landmarks": np.zeros((68, 3), np.float32)}
    with pytest.raises(FieldError, match=r"item k, field vertices: .* and V is 5 by the topology"):
        check_fields("k", arrays, schema)
    check_fields("k", {**arrays, "vertices": np.zeros((5, 3), np.float32)}, schema)


def test_rows_become_plain_values_and_missing_ones_null() -> None:
    row = check_row("k", {"score": np.float32(0.5), "count": np.int32(3), "flag": np.bool_(True)}, SCHEMA.columns)
    assert row == {"subject": None, "score": 0.5, "count": 3, "flag": True}
    assert [type(value) for value in row.values()] == [type(None), float, int, bool]
    assert check_row("k", {"score": float("nan")}, SCHEMA.columns)["score"] is None
    assert check_row("k", {"score": 2}, SCHEMA.columns)["score"] == 2.0


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"scor": 1.0}, r"item k: unknown index column 'scor' \(did you mean 'score'\?\)"),
        ({"status": "written"}, "item k: unknown index column 'status'"),
        ({"subject": 3}, "item k, index column subject: 3 is not a string"),
        ({"count": 1.0}, "item k, index column count: 1.0 is not a int64"),
        ({"count": True}, "is not a int64"),
        ({"count": 2**63}, "is not a int64"),
        ({"score": True}, "is not a float64"),
        ({"flag": 1}, "is not a bool"),
    ],
)
def test_wrong_rows_name_item_and_column(row: dict[str, object], words: str) -> None:
    with pytest.raises(FieldError, match=words):
        check_row("k", row, SCHEMA.columns)


@pytest.mark.parametrize("key", ["", "a/b", "a.b", "..", "a b", "é", "a\n", "s0017+s0204", "k" * 201, 3])
def test_bad_keys_are_refused(key: str) -> None:
    with pytest.raises(StoreError, match="must be 1 to 200 letters, digits, '_' or '-'"):
        check_key(key)


def test_names_of_shards() -> None:
    assert shard_name(12, 400) == "00012-of-00400.safetensors"
    assert shard_name(123456, 234567) == "123456-of-234567.safetensors"
    assert commit_name("00012-of-00400.safetensors") == "00012-of-00400.json"
    with pytest.raises(StoreError, match="no shard 2 of 2"):
        shard_name(2, 2)


@pytest.mark.parametrize(
    "name",
    [
        "../00000-of-00001.safetensors",
        "00000-of-00001",
        "/etc/passwd",
        "0-of-1.safetensors",
        "00000-of-00001.safetensors\n",
    ],
)
def test_bad_shard_names_are_refused(name: str) -> None:
    with pytest.raises(StoreError, match=r"must look like 00012-of-00400.safetensors"):
        check_shard_name(name)
