"""Swap error of the heads of bump_heads, whose grafts are known."""

from __future__ import annotations

from typing import Any

import bump_heads as heads
import numpy as np
import pytest
import torch
import trimesh
from facegraft_model.editing.partcodes import trained_head
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.neutral import neutral_heads
from facegraft_model.evaluation.records import ScoreSettings
from facegraft_model.evaluation.swaperror import swap_error
from facegraft_model.evaluation.truth import Truth
from toy_parts import EYES

from facegraft.store import (
    DatasetSchema,
    ShardItem,
    finish_dataset,
    samples_fields,
    shard_name,
    surfaces_fields,
    write_shard,
)

Bumps, codes, MM = heads.Bumps, heads.codes, heads.MM
COLUMNS = ("subject", "expression", "split", *EYES.head_columns, "origin")


def row(recipient: str, nose: str, eyes: str, mouth: str, origin: str, split: str = "test") -> dict[str, str]:
    return dict(zip(COLUMNS, (recipient, "neutral", split, recipient, nose, eyes, mouth, origin), strict=True))


ROWS = {
    **{f"{name}_n": row(*[name] * 4, "scan") for name in ("p00", "p01", "p02")},
    "p00--p00": row(*["p00"] * 4, "composite"),
    "p00--p01": row("p00", "p01", "p01", "p01", "composite"),
    "p01--mixed": row("p01", "p00", "p01", "p02", "composite"),
    "p02--p03": row("p02", "p03", "p03", "p03", "composite"),
    "p04--p05": row("p04", "p05", "p05", "p05", "composite", "train"),
}


@pytest.fixture(scope="module")
def field() -> Any:
    """Heads whose parts differ by millimetres."""
    made = Bumps()
    with torch.no_grad():
        made.tables["nose"][:, 0] = torch.tensor([0.00, 0.06, 0.03, 0.05, 0.01, 0.02])
        made.tables["eyes"][:, 0] = torch.tensor([0.04, -0.02, 0.0, 0.05, 0.01, 0.02])
        made.tables["mouth"][:, 0] = torch.tensor([0.00, 0.05, -0.04, 0.05, 0.01, 0.02])
        made.tables["rem"][:, 0] = torch.tensor([0.00, 0.02, 0.01, 0.0, 0.0, 0.0])
    return made


@pytest.fixture(scope="module")
def truth(field: Any, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """Samples and surfaces whose composites are exact grafts of the bumps."""
    folder = tmp_path_factory.mktemp("swap")
    sphere = trimesh.creation.icosphere(subdivisions=5)
    direction = torch.from_numpy(np.asarray(sphere.vertices)).float()[None]
    parts = field.template_parts[torch.cdist(direction[0], field.template_points / heads.RADIUS).argmin(1)].numpy()
    items = {}
    for key, people in ROWS.items():
        who = dict(zip(("rem", "nose", "eyes", "mouth"), list(people.values())[3:7], strict=True))
        own = {name: trained_head(field, who[name]).codes[name] for name in heads.CODES}
        with torch.no_grad():
            radius = heads.RADIUS + field.height(direction, own)[0].numpy()
        items[key] = {
            "vertices": (radius[:, None] * direction[0].numpy()).astype(np.float32),
            "faces": np.asarray(sphere.faces, dtype=np.int32),
            "vertex_parts": parts,
            "face_cut": np.zeros(len(sphere.faces), np.uint8),
            "landmarks": np.zeros((1, 68, 3), np.float32),
            "stage_points": np.zeros((1, 7, 3), np.float32),
            "to_mm": np.diag([MM, MM, MM, 1.0]),
        }
    points = {
        f"{a}_{b}": np.zeros((4, 3), np.float32) for a in ("surface", "near", "free") for b in ("points", "normals")
    }
    points |= {f"{a}_parts": np.zeros(4, np.uint8) for a in ("surface", "near")}
    points |= {f"{a}_sdf": np.zeros(4, np.float32) for a in ("near", "free")}
    for kind, fields in (("surfaces", surfaces_fields(EYES)), ("samples", samples_fields(EYES))):
        topology = {"name": "toy", "vertex_count": None, "faces_sha256": None}
        schema = DatasetSchema(kind, topology, MM, "unit ball", fields, dict.fromkeys(COLUMNS, "string"), EYES)
        shard = []
        for key in sorted(ROWS):
            arrays = (
                items[key]
                if kind == "surfaces"
                else points | {n: items[key][n] for n in ("landmarks", "stage_points", "to_mm")}
            )
            shard.append(ShardItem(key, arrays, ROWS[key]))
        write_shard(folder / kind, shard_name(0, 1), shard, [], schema, "c" * 64)
        finish_dataset(folder / kind, schema, {shard_name(0, 1): sorted(ROWS)}, "c" * 64)
    return Truth(folder / "samples")


def fits(field: Any, subjects: tuple[str, ...]) -> tuple[list[dict[str, str]], dict[str, torch.Tensor]]:
    """Perfect fits of neutral scans, with an expression code that must not be used."""
    items = [{"key": f"{name}_n", **row(*[name] * 4, "scan")} for name in subjects]
    rows = [field.id_table.subject(name) for name in subjects]
    return items, {
        **{n: field.tables[n].detach()[rows] for n in heads.CODES},
        "exp": torch.full((len(rows), 2), torch.nan),
    }


SCORING = ScoreSettings(full_points=4000, part_points=600, bootstrap_rounds=100)


def test_perfect_codes_swap_like_the_geometry(field: Any, truth: Truth) -> None:
    items, fitted = fits(field, ("p01", "p00", "p02"))
    swapped = swap_error(field, items, fitted, truth, resolution=96, settings=SCORING)
    assert [head.item["key"] for head in swapped.heads] == ["p00--p01", "p01--mixed"] and not swapped.failures
    about = swapped.record["swap"]
    assert (about["composites"], about["composites_without_fit"], about["composites_used"]) == (3, 1, 2)
    for values in swapped.summary().values():
        assert values["p2s_mm"].mean < 0.05
    assert swapped.summary()["full"]["scd_mm"].mean < swapped.floor()["full"]["scd_mm"].mean + 0.05
    none = swap_error(field, items, fitted, truth, parts=(), resolution=96, settings=SCORING)
    assert none.summary()["nose"]["p2s_mm"].mean > 0.5
    assert none.summary()["rem"]["p2s_mm"].mean < 0.05
    nose = swap_error(field, items, fitted, truth, parts=("nose",), pairs=1, resolution=96, settings=SCORING)
    assert len(nose.heads) == 1 and nose.record["swap"]["chosen_with_seed"] == 0
    assert nose.summary()["nose"]["p2s_mm"].mean < 0.05 < 0.3 < nose.summary()["mouth"]["p2s_mm"].mean


def test_the_recipients_alignment_is_taken_back(field: Any, truth: Truth) -> None:
    items, fitted = fits(field, ("p01", "p00", "p02"))
    alignment = np.tile(np.eye(4), (3, 1, 1))
    alignment[1, :3, 3] = 0.04  # p00's
    moved = swap_error(field, items, fitted, truth, to_model=alignment, resolution=64, settings=SCORING)
    errors = {head.item["key"]: head.scores["none"]["full"]["p2s_mm"] for head in moved.heads}
    assert errors["p00--p01"] > 2.0 and errors["p01--mixed"] < 0.1


def test_swap_error_needs_fits(field: Any, truth: Truth) -> None:
    items, fitted = fits(field, ("p00", "p02"))
    with pytest.raises(ModelError, match=r"no composite of split 'test' .* \(2 have, 3 composites lack one\)"):
        swap_error(field, items, fitted, truth)
    with pytest.raises(ModelError, match="two neutral scans of subject 'p00'"):
        swap_error(field, [items[0], items[0]], fitted, truth)
    people = neutral_heads(items, fitted, "neutral")
    assert [head.name for head in people] == ["p00", "p02"] and "exp" not in people[0].codes
