"""A small dataset of samples whose every value says where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facegraft.store import (
    DatasetSchema,
    RejectedItem,
    ShardItem,
    finish_dataset,
    samples_fields,
    shard_name,
    write_shard,
)

COLUMNS = dict.fromkeys(("subject", "expression", "split", "recipient", "donor_nose", "donor_eyes", "donor_mouth", "origin"), "string")
SIZES = {"surface": 50, "near": 20, "free": 10}


def scan(subject: str, expression: str, split: str) -> dict[str, object]:
    people = dict.fromkeys(("subject", "recipient", "donor_nose", "donor_eyes", "donor_mouth"), subject)
    return {**people, "expression": expression, "split": split, "origin": "scan"}


def composite(recipient: str, nose: str, eyes: str, mouth: str, split: str) -> dict[str, object]:
    donors = {"donor_nose": nose, "donor_eyes": eyes, "donor_mouth": mouth}
    return {"subject": recipient, "recipient": recipient, **donors, "expression": "neutral", "split": split, "origin": "composite"}


ROWS = {
    "anna_neutral": scan("anna", "neutral", "train"),
    "anna_smile": scan("anna", "smile", "train"),
    "anna-bert": composite("anna", "bert", "bert", "cleo", "train"),
    "bert_neutral": scan("bert", "neutral", "train"),
    "cleo_neutral": scan("cleo", "neutral", "train"),
    "dora_neutral": scan("dora", "neutral", "test"),
}
REJECTED = "bert-zoe"


def numbered(number: int, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Arrays of item `number`: coordinate 0 is the item, coordinate 1 the row; per-row numbers repeat the row."""
    arrays: dict[str, np.ndarray] = {}
    for name, size in sizes.items():
        rows = np.arange(size, dtype=np.float32)
        points = np.stack([np.full(size, number, np.float32), rows, np.zeros(size, np.float32)], axis=1)
        arrays |= {f"{name}_points": points, f"{name}_normals": points + 100}
        if name != "free":
            arrays[f"{name}_parts"] = (np.arange(size) % 4).astype(np.uint8)
        if name != "surface":
            arrays[f"{name}_sdf"] = rows
    arrays["landmarks"] = np.full((6, 68, 3), number, np.float32)
    arrays["stage_points"] = np.full((6, 7, 3), number, np.float32)
    arrays["to_mm"] = np.diag([100.0, 100.0, 100.0, 1.0])
    return arrays


@pytest.fixture(scope="session")
def write_samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the samples, two items a shard; sizes, columns and rows can be changed."""

    def write(
        sizes: dict[str, int] | None = None,
        columns: dict[str, str] | None = None,
        rows: dict[str, dict[str, object]] | None = None,
        kind: str = "samples",
    ) -> Path:
        columns, rows = COLUMNS if columns is None else columns, ROWS if rows is None else rows
        folder = tmp_path_factory.mktemp("samples") / "samples"
        topology = {"name": "toy", "vertex_count": None, "faces_sha256": None}
        schema = DatasetSchema(kind, topology, 100.0, "unit ball", samples_fields(), columns)
        keys = sorted([*rows, REJECTED])
        shards = [keys[start : start + 2] for start in range(0, len(keys), 2)]
        plan = {shard_name(number, len(shards)): part for number, part in enumerate(shards)}
        for shard, part in plan.items():
            items = [
                ShardItem(key, numbered(keys.index(key), sizes or SIZES), {name: rows[key][name] for name in columns})
                for key in part
                if key != REJECTED
            ]
            refused = [RejectedItem(REJECTED, "poison", {}) for key in part if key == REJECTED]
            write_shard(folder, shard, items, refused, schema, "c" * 64)
        finish_dataset(folder, schema, plan, "c" * 64)
        return folder

    return write


@pytest.fixture(scope="session")
def samples(write_samples: Callable[..., Path]) -> Path:
    """A finished samples dataset of five training items, one test item and one that was rejected."""
    return write_samples()
