"""Edits of the heads of bump_heads, whose displacements are known."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import bump_heads as heads
import numpy as np
import pytest
import torch
from facegraft_model.decoding.correspond import corresponding_points
from facegraft_model.decoding.decode import Decoded, decode
from facegraft_model.decoding.displacement import dense_displacement, describe_change, vertex_areas
from facegraft_model.decoding.extract import EmptyFieldError
from facegraft_model.editing.edit import (
    DecodeSettings,
    Edit,
    component_heads,
    figure_heads,
    generate_heads,
    interpolate_heads,
    swap_heads,
)
from facegraft_model.editing.partcodes import (
    Head,
    component_codes,
    interpolate_parts,
    mean_codes,
    principal_components,
    sample_codes,
    swap_parts,
    trained_head,
)
from facegraft_model.errors import ModelError
from toy_parts import EYES

Bumps, codes, MM, CODES = heads.Bumps, heads.codes, heads.MM, heads.CODES
QUICK = DecodeSettings(resolution=80)


@pytest.fixture(scope="module")
def field() -> Bumps:
    return Bumps()


HOST, DONOR = codes(nose=0.02, rem=0.01), codes(nose=0.08, eyes=0.03, mouth=-0.04)


# -- codes --


def test_swap_takes_exactly_the_named_codes() -> None:
    host = {**HOST, "exp": torch.ones(1, 2)}
    swapped = swap_parts(host, DONOR, ("nose", "mouth"))
    assert list(swapped) == list(host)
    for name, code in swapped.items():
        assert code is (DONOR if name in ("nose", "mouth") else host)[name]
    assert swap_parts(swap_parts(host, DONOR, ("eyes",)), host, ("eyes",)) == host
    with pytest.raises(ModelError, match="the donor has no code 'exp' to swap; it has nose, eyes, mouth, rem"):
        swap_parts(host, DONOR, ("exp",))
    with pytest.raises(ModelError, match=r"code 'nose' is \(1, 3\) in the host and \(1, 5\) in the donor"):
        swap_parts(HOST, {"nose": torch.zeros(1, 5)}, ("nose",))


def test_interpolation_moves_one_part_at_a_time_and_ends_at_the_other_head() -> None:
    steps = interpolate_parts(HOST, DONOR, ("mouth", "nose", "eyes", "rem"), 4)
    assert [step.part for step in steps[1:]] == [name for name in ("mouth", "nose", "eyes", "rem") for _ in range(4)]
    assert [step.amount for step in steps[1:5]] == [0.25, 0.5, 0.75, 1.0]
    assert all(torch.equal(steps[0].codes[name], HOST[name]) for name in CODES)
    assert all(torch.equal(steps[-1].codes[name], DONOR[name]) for name in CODES)
    for before, after in itertools.pairwise(steps):
        assert all(torch.equal(before.codes[name], after.codes[name]) for name in CODES if name != after.part)
    assert torch.allclose(steps[5].codes["nose"][0, 0], torch.tensor(0.02 + 0.25 * 0.06))
    assert torch.equal(steps[5].codes["mouth"], DONOR["mouth"])
    with pytest.raises(ModelError, match="each part once"):
        interpolate_parts(HOST, DONOR, ("nose", "nose"), 2)


def test_samples_have_the_gaussian_of_the_table_and_depend_on_nothing_else() -> None:
    field = Bumps(subjects=40)
    with torch.no_grad():
        field.tables["eyes"].copy_(torch.randn(40, 3) @ torch.tensor([[1.0, 0.5, 0], [0, 0.2, 0], [0, 0, 0]]) + 3)
    drawn = torch.cat([head["eyes"] for head in sample_codes(field, 20_000, 1)]).double()
    table = field.tables["eyes"].detach().double()
    assert torch.allclose(drawn.mean(0), table.mean(0), atol=0.03)
    assert torch.allclose(drawn.T.cov(), table.T.cov(), atol=0.03)
    assert (drawn[:, 2] - 3).abs().max() < 1e-5  # a direction without variance stays without
    some, more = sample_codes(field, 3, 1, parts=["eyes"]), sample_codes(field, 5, 1)
    assert all(torch.equal(a["eyes"], b["eyes"]) for a, b in zip(some, more, strict=False))
    assert all(torch.equal(head["nose"], mean_codes(field)["nose"]) for head in some)
    assert not torch.equal(sample_codes(field, 1, 2)[0]["eyes"], more[0]["eyes"])
    based = sample_codes(field, 1, 1, parts=["nose"], base={**HOST, "exp": torch.ones(1, 2)})[0]
    assert "exp" in based and torch.equal(based["rem"], HOST["rem"]) and "exp" not in more[0]
    twice = sample_codes(field, 1, 1, parts=["eyes"], scale=2.0)[0]["eyes"]
    assert torch.allclose(twice - table.mean(0).float(), 2 * (some[0]["eyes"] - table.mean(0).float()), atol=1e-5)
    with pytest.raises(ModelError, match="the model has no part 'ears'; its parts are nose, eyes, mouth, rem"):
        sample_codes(field, 1, 1, parts=["ears"])
    with pytest.raises(ModelError, match=r"no part 'mouht' \(did you mean 'mouth'\?\)"):
        sample_codes(field, 1, 1, parts=["mouht"])


def test_components_are_those_of_the_covariance(field: Any) -> None:
    found = principal_components(field, "mouth")
    values, _ = torch.linalg.eigh(field.tables["mouth"].detach().double().T.cov())
    assert torch.allclose(found.sigmas**2, values.flip(0))
    assert torch.allclose(found.directions @ found.directions.T, torch.eye(3, dtype=torch.float64), atol=1e-9)
    assert float(found.explained.sum()) == pytest.approx(1.0)
    low, zero, high = component_codes(field, "mouth", 1)
    assert torch.allclose(zero.codes["mouth"], mean_codes(field)["mouth"], atol=1e-7)
    assert float((high.codes["mouth"] - low.codes["mouth"]).norm()) == pytest.approx(
        6 * float(found.sigmas[1]), rel=1e-4
    )
    assert (high.part, high.amount, high.label) == ("mouth", 3.0, "mouth 2 +3σ")
    few = Bumps(subjects=3)
    assert len(principal_components(few, "nose").sigmas) == 2
    with pytest.raises(ModelError, match="part 'nose' has no component 3: its trained codes vary in 2 directions"):
        component_codes(few, "nose", 2)
    with pytest.raises(ModelError, match="all trained codes of part 'nose' are the same"):
        principal_components(Bumps(subjects=1), "nose")


def test_methods_without_part_codes_say_so() -> None:
    field = Bumps(method="imface")
    host = Head("a", {"id": torch.zeros(1, 3)})
    message = "this run's method is imface: it has no part codes to swap"
    with pytest.raises(ModelError, match=message):
        swap_heads(field, host, {"nose": host})
    for call in (
        lambda: sample_codes(field, 1, 0),
        lambda: principal_components(field, "nose"),
        lambda: mean_codes(field),
    ):
        with pytest.raises(ModelError, match="this run's method is imface: it has no part codes"):
            call()


# -- displacement --


def test_displacement_is_the_known_one(field: Any) -> None:
    a, b = decode(field, HOST, resolution=64), decode(field, swap_parts(HOST, DONOR, ("nose",)), resolution=64)
    moved = dense_displacement(field, a, b, swap_parts(HOST, DONOR, ("nose",)))
    with torch.no_grad():
        x = torch.from_numpy(a.mesh.vertices).float()[None]
        change = field.height(x, swap_parts(HOST, DONOR, ("nose",))) - field.height(x, HOST)
    exact = MM * change[0, :, None].numpy() * a.mesh.vertices / np.linalg.norm(a.mesh.vertices, axis=1, keepdims=True)
    assert np.abs(exact).max() > 5.5
    assert np.linalg.norm(moved.vectors_mm - exact, axis=1)[moved.counted].max() < 0.02
    assert moved.counted.mean() > 0.999
    assert moved.areas_mm2.sum() == pytest.approx(4 * math.pi * 61**2, rel=0.01)


def test_areas_sum_to_the_mesh(field: Any) -> None:
    import trimesh

    mesh = decode(field, HOST, resolution=32).mesh
    assert vertex_areas(mesh).sum() == pytest.approx(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).area)


class Folded(Bumps):  # type: ignore[misc, valid-type]
    """The two halves of the head warp to the same half of the template, one of them turned over."""

    def warp(self, points: torch.Tensor, codes: Any) -> torch.Tensor:
        flat = super().warp(points, codes)
        return torch.cat([flat[..., :1].abs(), flat[..., 1:]], -1)


def test_points_that_warp_to_the_same_place_are_not_mistaken() -> None:
    field = Folded()
    changed = swap_parts(HOST, DONOR, ("nose", "eyes"))
    a, b = decode(field, HOST, resolution=48), decode(field, changed, resolution=48)
    matched, _ = corresponding_points(a, b)
    assert np.linalg.norm(matched - a.mesh.vertices, axis=1).max() > 1  # to the other half
    moved = dense_displacement(field, a, b, changed)
    assert moved.counted.all() and moved.lengths_mm.max() == pytest.approx(6, abs=0.5)
    rest = ~np.isin(a.parts, (1, 2))
    assert np.all(moved.lengths_mm[rest] == 0)


def test_points_without_counterpart_are_not_counted() -> None:
    field = Folded()
    changed = swap_parts(HOST, DONOR, ("nose",))
    a, b = decode(field, HOST, resolution=32), decode(field, changed, resolution=32)
    assert a.template_coords is not None
    elsewhere = a.template_coords.copy()
    top = a.mesh.vertices[:, 2] > 0.55
    elsewhere[top, 0] = -0.3  # no point of a folded head warps to there
    moved = dense_displacement(field, Decoded(a.mesh, elsewhere, a.parts), b, changed)
    assert np.array_equal(moved.counted, ~top)
    change = describe_change(a, moved, ("nose",), EYES)
    assert 30 < change["inside"]["excluded_percent"] <= 100
    nothing = describe_change(a, dense_displacement(field, a, b, changed, tolerance_mm=-1.0), ("nose",), EYES)
    assert nothing["inside"] == {**nothing["inside"], "n": 0, "excluded_percent": 100.0, "rms_mm": None}
    assert nothing["leakage"] is None


# -- commands --


def check_sheet(edit: Edit) -> None:
    """What holds for every edit: distinct places on the sheet, displacement only in the changed parts, numbers that are JSON."""
    assert len({(head.row, head.column) for head in edit.heads}) == len(edit.heads)
    assert json.loads(json.dumps(edit.numbers, allow_nan=False))["mm_per_unit"] == MM
    for number, head in enumerate(edit.heads):
        assert head.vertices_mm.max() > 50 and head.parts is not None and len(head.parts) == len(head.vertices_mm)
        assert (head.base is None) == (head.displacement_mm is None) == (head.numbers is None)
        if head.numbers is None:
            continue
        assert head.base is not None and head.base < number
        assert head.displacement_mm is not None and len(head.displacement_mm) == len(head.vertices_mm)
        if "rem" not in head.numbers["changed"]:
            assert head.numbers["outside"]["max_mm"] < 1e-3
            unmoved = ~np.isin(head.parts, [EYES.label(p) for p in head.numbers["changed"]])
            assert np.nanmax(head.displacement_mm[unmoved]) < 1e-3


def test_swap_of_two_donors(field: Any) -> None:
    third = Head("third", codes(mouth=0.05))
    edit = swap_heads(field, Head("host", HOST), {"nose": Head("donor", DONOR), "mouth": third}, QUICK)
    check_sheet(edit)
    assert [head.label for head in edit.heads] == ["host", "donor", "third", "host + nose of donor + mouth of third"]
    change = edit.heads[-1].numbers
    assert change is not None and change["changed"] == ["mouth", "nose"]
    assert change["parts"]["nose"]["max_mm"] == pytest.approx(6.0, abs=0.3)
    assert change["parts"]["mouth"]["max_mm"] == pytest.approx(5.0, abs=0.3)
    assert change["parts"]["eyes"]["max_mm"] < 1e-3 and change["leakage"] < 1e-4
    with pytest.raises(ModelError, match="name at least one part"):
        swap_heads(field, Head("host", HOST), {})


def test_interpolation_compares_with_the_start_of_each_part(field: Any) -> None:
    seen: list[tuple[int, int]] = []
    settings = DecodeSettings(resolution=80, on_head=lambda done, all_: seen.append((done, all_)))
    edit = interpolate_heads(field, Head("a", HOST), Head("b", DONOR), ("nose", "mouth", "rem"), 2, settings)
    check_sheet(edit)
    assert seen == [(i, 7) for i in range(1, 8)]
    assert [(head.row, head.column, head.base) for head in edit.heads] == [
        (0, 0, None), (0, 1, 0), (0, 2, 0), (1, 1, 2), (1, 2, 2), (2, 1, 4), (2, 2, 4)
    ]  # fmt: skip
    largest = [float(np.nanmax(head.displacement_mm)) for head in edit.heads[1:] if head.displacement_mm is not None]
    assert largest == pytest.approx([3.0, 6.0, 2.0, 4.0, 0.5, 1.0], abs=0.3)
    rem = edit.heads[-1].numbers
    assert rem is not None and rem["leakage"] is None  # it rightly moves everything
    assert rem["outside"]["mean_mm"] == pytest.approx(1.0, abs=0.1)


def test_random_parts_and_components(field: Any) -> None:
    drawn = generate_heads(field, 2, 3, ["nose"], trained_head(field, "p01"), columns=2, settings=QUICK)
    check_sheet(drawn)
    assert [(head.row, head.column) for head in drawn.heads] == [(0, 0), (0, 1), (1, 0)]
    assert drawn.heads[0].label == "p01" and drawn.numbers["seed"] == 3
    walk = component_heads(field, ("nose", "rem"), 1, settings=QUICK)
    check_sheet(walk)
    assert [(head.part, head.amount, head.base) for head in walk.heads] == [
        (None, None, None), ("nose", -3.0, 0), ("nose", 0.0, 0), ("nose", 3.0, 0), ("rem", -3.0, 0), ("rem", 0.0, 0), ("rem", 3.0, 0)
    ]  # fmt: skip
    assert walk.heads[2].numbers is not None and walk.heads[2].numbers["inside"]["max_mm"] < 1e-9
    found = principal_components(field, "nose")
    assert walk.numbers["explained_variance"]["nose"] == [pytest.approx(float(found.explained[0]))]
    expected = 3 * abs(float(found.sigmas[0] * found.directions[0, 0])) * MM
    assert walk.heads[3].numbers is not None
    assert walk.heads[3].numbers["parts"]["nose"]["max_mm"] == pytest.approx(expected, abs=0.35)


def test_a_figure_has_a_row_for_each_head_with_one_random_part_each(field: Any) -> None:
    bases = [trained_head(field, "p01"), Head("other", HOST)]
    edit = figure_heads(field, bases, 2, 5, ("mouth", "nose"), settings=QUICK)
    check_sheet(edit)
    assert [(head.row, head.column, head.base) for head in edit.heads] == [
        (row, column, None if column == 0 else 5 * row) for row in (0, 1) for column in range(5)
    ]
    assert [head.part for head in edit.heads[5:]] == [None, "mouth", "mouth", "nose", "nose"]
    for head in edit.heads:
        if head.base is not None and head.numbers is not None:
            base = edit.heads[head.base]
            assert [name for name in CODES if not torch.equal(head.codes[name], base.codes[name])] == [head.part]
            moved = {name: region["max_mm"] for name, region in head.numbers["parts"].items()}
            assert moved.pop(head.part) > 0.01 and max(moved.values()) < 1e-3
    assert not torch.equal(edit.heads[1].codes["mouth"], edit.heads[6].codes["mouth"])  # rows have draws of their own
    alone = figure_heads(field, bases[1:], 1, 5, ("nose",), settings=DecodeSettings(resolution=24))
    assert torch.equal(alone.heads[1].codes["nose"], edit.heads[8].codes["nose"])
    for wrong in ([], [bases[0], bases[0]]):
        with pytest.raises(ModelError, match="give some heads, each once"):
            figure_heads(field, wrong)


class Expressive(Bumps):  # type: ignore[misc, valid-type]
    """Heads with an expression code, whose first entry adds to the radius."""

    def __init__(self) -> None:
        super().__init__()
        self.tables["exp"] = torch.nn.Parameter(torch.tensor([[0.0, 0.0], [0.03, 0.0], [0.06, 0.001]]))

    def height(self, x: torch.Tensor, codes: Any) -> torch.Tensor:
        return super().height(x, codes) + (codes["exp"][:, :1] if "exp" in codes else 0.0)


def test_components_of_the_expression_are_those_of_its_codes_where_it_is_named() -> None:
    field, quick = Expressive(), DecodeSettings(resolution=32)
    walk = component_heads(field, ("exp", "nose"), 1, settings=quick)
    assert [(head.label, head.base) for head in walk.heads] == [
        ("mean head, mean exp", None), ("exp 1 -3σ", 0), ("exp 1 +0σ", 0), ("exp 1 +3σ", 0),
        ("mean head", None), ("nose 1 -3σ", 4), ("nose 1 +0σ", 4), ("nose 1 +3σ", 4),
    ]  # fmt: skip
    assert len({(head.row, head.column) for head in walk.heads}) == 8
    assert torch.allclose(walk.heads[0].codes["exp"], field.tables["exp"].mean(0)) and "exp" not in walk.heads[4].codes
    found = principal_components(field, "exp")
    numbers = walk.heads[3].numbers
    assert numbers is not None and numbers["leakage"] is None and numbers["changed"] == ["exp"]
    expected = 3 * float(found.sigmas[0] * found.directions[0, 0]) * MM
    assert numbers["outside"]["mean_mm"] == pytest.approx(expected, rel=0.02)
    assert component_heads(field, None, 1, settings=quick).numbers["parts"] == ["nose", "eyes", "mouth", "rem"]
    with pytest.raises(ModelError, match="the model has no expression code; its codes are nose, eyes, mouth, rem"):
        component_heads(Bumps(), ("exp",), 1)
    with pytest.raises(ModelError, match="the model has no part 'exp'"):
        sample_codes(field, 1, 0, ["exp"])


def test_a_head_without_surface_is_named(field: Any) -> None:
    with pytest.raises(EmptyFieldError, match="nobody: extraction: the field has no zero crossing"):
        swap_heads(field, Head("nobody", codes(rem=5.0)), {"nose": Head("donor", DONOR)}, QUICK)
