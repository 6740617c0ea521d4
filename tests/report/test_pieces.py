"""The report's parts: what it chooses, measures, says about parameters, and how it shades."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from facegraft.parts import Part, Parts
from facegraft.regions.regionmap import Disk, load_region_map
from facegraft.report import charts
from facegraft.report.blocks import Table
from facegraft.report.choose import composites_shown, heads_grid, spread
from facegraft.report.clay import ambient_light, rgb
from facegraft.report.gather import gather
from facegraft.report.scenes import frame_heads, join_stage_points
from facegraft.report.seams import seam_map
from facegraft.report.sections import duration_text, quality, size_text
from facegraft.report.studio import LENS_DEG, Camera
from facegraft.report.thresholds import ALL_PARTS, checks, residual_thresholds
from facegraft.stages.graft import QUALITY_COLUMNS


@given(st.integers(0, 300), st.integers(1, 40))
def test_spread_is_an_ordered_choice_from_the_first_on(length: int, count: int) -> None:
    things = list(range(length))
    chosen = spread(things, count)
    assert len(chosen) == min(length, count)
    assert chosen == sorted(set(chosen))
    if chosen:
        assert chosen[0] == 0
        gaps = np.diff([*chosen, length])
        assert gaps.max() - gaps.min() <= 1


PARTS = load_region_map("synthetic").region_set("eyes").parts


def row(recipient: str, nose: str, eyes: str, mouth: str) -> dict[str, Any]:
    return {
        "key": f"{recipient}--{nose}-{eyes}-{mouth}",
        "recipient": recipient,
        "donor_nose": nose,
        "donor_eyes": eyes,
        "donor_mouth": mouth,
    }


def test_composites_shown_mix_single_and_independent_donors() -> None:
    single = [row("a", d, d, d) for d in "bcdefgh"]
    twice = [row("b", "a", d, "a") for d in "cdefg"]
    thrice = [row("c", "a", "b", d) for d in "defgh"]
    own = [row(r, r, r, r) for r in "abc"]
    chosen = composites_shown([*own, *single, *twice, *thrice], PARTS, 8)
    assert len(chosen) == 8 and not any(map(PARTS.is_self_graft, chosen))
    assert sum(len({r["donor_nose"], r["donor_eyes"], r["donor_mouth"]}) == 3 for r in chosen) == 4
    assert len(composites_shown([*own, *single], PARTS, 6)) == 6
    assert composites_shown(own, PARTS, 6) == own  # nothing else to show


def test_disks_named_like_other_columns_are_measured_apart() -> None:
    parts = Parts("odd", tuple(Part(name, (27, 30, 31, 33, 35)) for name in ("donor", "eye", "eye_left", "my_residual_mm")))
    disks = ("donor", "eye", "eye_left")
    columns = dict.fromkeys(parts.head_columns, "string") | dict.fromkeys((f"{d}_{f}" for d in disks for f in QUALITY_COLUMNS), "float64")
    rows = [
        {column: "a" if kind == "string" else number for column, kind in columns.items()} | {"donor_donor": "b"}
        for number in range(3)
    ]
    dataset = SimpleNamespace(schema=SimpleNamespace(columns=columns), parts=parts)
    facts = SimpleNamespace(written=rows, run=None)
    found: Any = SimpleNamespace(
        dataset=lambda _: dataset, stages={"composites": facts}, is_self_graft=parts.is_self_graft, regions=None
    )
    [table] = [block for block in quality(found).blocks if isinstance(block, Table)]
    assert table.head == ["figure", "donor", "eye", "eye left", ALL_PARTS]


def test_thresholds_are_named_after_the_disks_a_left_and_a_right_one_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(charts, "_thresholds", lambda axis, lines: names.extend(name for _, name in lines))
    disks = ("ear_left", "ear_right", "big_nose")
    columns = {f"{disk}_{figure}": np.linspace(0.5, 1.5, 9) for disk in disks for figure in QUALITY_COLUMNS}
    charts.quality_histograms(columns, dict.fromkeys(disks, "#111111"), dict.fromkeys(disks, 1.3))
    assert names[0] == "1.3 median, ear, big nose"


def test_heads_grid_puts_neutral_first_and_counts_naturally() -> None:
    rows = [
        {"key": f"s{s}_{e}", "subject": f"s{s}", "expression": e}
        for s in (10, 2, 1)
        for e in ("anger", "neutral", "smile")
    ]
    subjects, expressions, keys = heads_grid(rows, 8, 2)
    assert subjects == ["s1", "s2", "s10"]
    assert expressions == ["neutral", "anger"]
    assert keys["s2", "smile"] == "s2_smile"


def test_ambient_light_is_full_on_a_ball_and_low_in_a_pit() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3)
    light = ambient_light(np.asarray(ball.vertices), np.asarray(ball.faces))
    assert light.min() > 0.97
    outer = np.asarray(ball.vertices) * 1.5
    inner_faces = np.asarray(ball.faces)[:, ::-1]
    inside_out = ambient_light(outer, inner_faces)  # normals inwards: a closed cave
    assert inside_out.max() < 0.03


def test_camera_shows_its_height_at_the_focus() -> None:
    camera = Camera(np.array([1.0, 2.0, 3.0]), 240.0, 30.0, 10.0)
    distance = np.linalg.norm(camera.position() - camera.focus)
    assert 2 * distance * np.tan(np.radians(LENS_DEG / 2)) == pytest.approx(240.0)
    assert (Camera(np.zeros(3), 1.0, 90.0).position() / distance)[0] > 0  # from the subject's left


def test_framing_holds_every_head(run_folder: Path) -> None:
    found = gather(run_folder)
    heads = [found.neutral_head(subject) for subject in found.neutral]
    framing = frame_heads([(head["vertices"], head["landmarks"]) for head in heads if head])
    for head in heads:
        assert head is not None
        camera = framing.camera(head["landmarks"])
        top = head["vertices"][:, 1].max()
        assert abs(top - camera.focus[1]) < framing.height / 2
        assert abs(head["landmarks"][8, 1] - camera.focus[1]) < framing.height / 2


def test_joining_all_vertices_gives_the_mesh_itself() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4)
    vertices, faces = np.asarray(ball.vertices), np.asarray(ball.faces)
    everything = np.arange(len(vertices))
    whole = join_stage_points(vertices, faces, everything, np.ones(len(vertices)), np.zeros(len(vertices), np.uint8))
    assert np.array_equal(whole.faces, faces)
    some = np.sort(np.random.default_rng(0).permutation(everything)[: len(everything) // 2])
    half = join_stage_points(vertices, faces, some, np.ones(len(vertices)), np.zeros(len(some), np.uint8))
    assert half.faces.max() < len(some) and len(half.faces) < len(faces)
    normals = np.cross(*(vertices[some][half.faces[:, k]] - vertices[some][half.faces[:, 0]] for k in (1, 2)))
    outward = np.einsum("ij,ij->i", normals, vertices[some][half.faces].mean(axis=1)) > 0
    assert (
        outward.mean() > 0.95
    )  # oriented like the mesh; where cells are only an edge or two wide, a triangle may fold


def test_seam_map_agrees_with_the_index(run_folder: Path) -> None:
    found = gather(run_folder)
    dataset = found.dataset("composites")
    assert dataset is not None and found.region_map is not None and found.regions is not None
    rows = [r for r in found.stages["composites"].written if not found.is_self_graft(r)][:1]
    measured = seam_map(found, found.region_map, found.regions, np.asarray(dataset.faces, dtype=np.int64), rows)
    assert measured is not None and measured.count == 1
    assert measured.largest_outside == 0.0
    assert measured.displacement.max() > 0.1
    for disk, excess in measured.excess.items():
        # The index was measured before rounding to float32.
        assert np.sqrt((excess**2).mean()) == pytest.approx(rows[0][f"{disk}_seam_excess_rms_deg"], abs=5e-3)


def test_self_grafts_alone_have_no_seam_map(run_folder: Path) -> None:
    found = gather(run_folder)
    dataset = found.dataset("composites")
    assert dataset is not None and found.region_map is not None and found.regions is not None
    assert seam_map(found, found.region_map, found.regions, np.asarray(dataset.faces, dtype=np.int64), []) is None


def test_only_changed_parameters_are_named(run_folder: Path) -> None:
    stages = gather(run_folder).stages
    assert stages["composites"].changed_parameters() == {
        "donors": 3,
        "independent": 1.0,
        "rings": 1,
        "stage_points": 600,
    }
    assert stages["surfaces"].changed_parameters() == {}
    assert (
        stages["heads"].changed_parameters() == {} and stages["heads"].command(run_folder) is None
    )  # no run.json there
    assert stages["samples"].timings is not None and len(stages["samples"].timings.items) == len(
        stages["samples"].written
    )


def test_checks_follow_the_stiffness() -> None:
    columns = {
        f"nose_{name}": np.full(9, 1.2) for name in ("residual_mm", "seam_excess_rms_deg", "seam_excess_max_deg")
    }
    columns["nose_flips"] = np.array([0, 0, 0, 3, 0, 0, 0, 0, 9.0])
    none = np.empty(0, dtype=np.int64)
    disks = {"nose": Disk(none, none, (), (1.3, 1.1)), "goggles": Disk(none, none)}
    assert residual_thresholds(disks, 0.1) == {"nose": 1.3}
    default = {check.figure: check for check in checks(columns, ["nose"], residual_thresholds(disks, 0.1))}
    assert default["residual on the loop, median"].within
    assert default["flipped faces per composite, mean"].part == ALL_PARTS
    assert default["flipped faces per composite, mean"].measured == pytest.approx(12 / 9)
    assert not default["flipped faces per composite, mean"].within
    plain = {check.figure: check for check in checks(columns, ["nose"], residual_thresholds(disks, 0.0))}
    assert not plain["residual on the loop, median"].within
    assert residual_thresholds(disks, float("inf")) == {}


def test_charts_take_the_colours_of_the_page() -> None:
    svg = charts.item_times({"graft": [0.1, 0.2, 0.4]})
    assert svg.startswith("<svg viewBox=") and "currentColor" in svg and "xmlns" not in svg
    assert not any(sentinel in svg for sentinel in (charts.INK, charts.FAINT, charts.ALARM))
    assert np.allclose(rgb("#ff8000"), [1, 128 / 255, 0])


def test_figures_for_people() -> None:
    assert [size_text(n) for n in (0, 999, 1500, 44_000_000, 2.5e12)] == ["0 B", "999 B", "1.5 kB", "44.0 MB", "2.5 TB"]
    assert [duration_text(s) for s in (0.0123, 1.5, 600, 9000)] == ["12.3 ms", "1.5 s", "10 min", "2.5 h"]
