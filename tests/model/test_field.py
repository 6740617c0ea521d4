"""The explicit adjoint of the whole cascade against double backward, finite differences and gradcheck, all in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from facegraft_model.cascade import net_landmarks, net_specs
from facegraft_model.config import Config
from facegraft_model.data.ids import IdTable
from facegraft_model.errors import ModelError
from facegraft_model.field import CascadeField
from facegraft_model.method import TemplateFacts
from facegraft_model.models import build_field
from facegraft_model.nets.siren import Matmul
from facegraft_model.reference import DoubleBackwardField
from torch import Tensor
from toy_parts import EYES

from facegraft.parts import Part, Parts

F64 = torch.float64
Batch = dict[str, Tensor]
ARCHITECTURES = [
    {"method": method, "hyper": hyper, "window": window}
    for method in ("parts", "imface")
    for hyper in ("full", "low-rank", "film")
    for window in (False, True)
    if not (method == "imface" and window)  # imface has no part net to put a window around
]
ARCHITECTURES += [{"method": "imface", "warp": "se3"}, {"method": "parts", "window": True, "warp": "se3"}]


def name_of(model: dict[str, Any]) -> str:
    named = [model.get(name) for name in ("method", "hyper", "warp")] + (["window"] if model.get("window") else [])
    return "-".join(name for name in named if name)


def random_codes(field: CascadeField, items: int, seed: int = 1) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {name: 0.5 * torch.randn(items, dim, dtype=F64, generator=g) for name, dim in field.code_dims.items()}


def some_points(items: int, count: int, seed: int = 2) -> Tensor:
    return 0.4 * torch.randn(items, count, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))


def agree(one: Tensor, other: Tensor, tolerance: float = 1e-9) -> None:
    """Largest difference relative to the largest entry."""
    assert one.shape == other.shape
    assert (one - other).abs().max() <= tolerance * other.abs().max().clamp_min(1e-6)


# -- against double backward ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ARCHITECTURES, ids=name_of)
def test_adjoint_losses_and_parameter_gradients_equal_double_backward(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch], model: dict[str, Any]
) -> None:
    """SDF, gradients at the point and at the neutral point, every loss term, and the gradient of every parameter."""
    ours, reference = make_field(**model), make_field(DoubleBackwardField, **model)
    batch = make_batch()
    results = []
    for field in (ours, reference):
        codes = field.codes_of(batch)
        conditioning = field.condition(codes, (~batch["is_composite"]).to(F64))
        trace = field.trace(batch["near_points"], conditioning)
        gradients = field.gradients(trace, conditioning)
        terms = field.training_terms(batch, codes, torch.zeros(()))
        torch.stack(list(terms.values())).sum().backward()
        results.append((trace.sdf, *gradients, terms, {name: p.grad for name, p in field.named_parameters()}))
    for one, other in zip(results[0][:3], results[1][:3], strict=True):
        agree(one, other)
    assert {"sdf", "eikonal", "eikonal_neutral", "normal", "dense", "locality", "neutral"} <= results[0][3].keys()
    for kind in (3, 4):
        assert results[0][kind].keys() == results[1][kind].keys()
        for name, value in results[0][kind].items():
            assert value is not None, f"{name} has no gradient: a second process would wait for it"
            agree(value, results[1][kind][name])
    assert (results[0][1] - results[0][2]).abs().max() > 1e-3  # the neutral point is another one


@pytest.mark.parametrize("method", ["parts", "imface"])
@pytest.mark.parametrize("neutral", [False, True], ids=["expression", "neutral"])
def test_sdf_and_grad_equal_double_backward_with_and_without_expression(
    make_field: Callable[..., CascadeField], method: str, neutral: bool
) -> None:
    points = some_points(2, 9)
    results = []
    for kind in (CascadeField, DoubleBackwardField):
        field = make_field(kind, method=method)
        codes = random_codes(field, 2)
        if neutral:
            del codes["exp"]
        conditioning = field.condition(codes)
        trace = field.trace(points, conditioning)
        results.append((*field.sdf_and_grad(points, codes), *field.gradients(trace, conditioning)))
        agree(results[-1][0], field.sdf(points, codes))
    for one, other in zip(*results, strict=True):
        agree(one, other)
    if neutral:
        agree(results[0][2], results[0][3])


def test_rounded_hidden_products_stay_close_to_exact_ones(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch]
) -> None:
    """precision fp16-hidden against float32: 11 bits in the hidden operands, and nothing else changes."""
    field = make_field(moved=0.01, width=32, hyper="full").float()
    batch = {name: value.float() if value.dtype == F64 else value for name, value in make_batch().items()}
    results = []
    for half in (False, True):
        field.zero_grad()
        field.matmul = Matmul(half)
        points = batch["near_points"]
        value = field.sdf_and_grad(points, field.codes_of(batch))
        terms = field.training_terms(batch, field.codes_of(batch), torch.zeros(()))
        torch.stack(list(terms.values())).sum().backward()
        results.append((*value, {n: p.grad.clone() for n, p in field.named_parameters() if p.grad is not None}))
    assert not torch.equal(results[0][0], results[1][0])
    agree(results[1][0], results[0][0], 5e-3)
    agree(results[1][1], results[0][1], 2e-2)
    for name, exact in results[0][2].items():
        difference = (results[1][2][name] - exact).norm() / exact.norm().clamp_min(1e-6)
        # A rounded value may lie on the other side of the kink of an absolute value.
        assert difference < 0.1, name


# -- against finite differences, and gradcheck ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [{"method": "parts", "window": True}, {"method": "imface"}, {"method": "imface", "warp": "se3"}],
    ids=name_of,
)
def test_the_gradient_equals_central_differences(make_field: Callable[..., CascadeField], model: dict[str, Any]) -> None:
    field, points, h = make_field(**model), some_points(2, 6), 1e-6
    codes = random_codes(field, 2)
    with torch.no_grad():
        sides = [
            torch.stack([field.sdf(points + sign * h * axis, codes) for axis in torch.eye(3, dtype=F64)], -1)
            for sign in (1, -1)
        ]
        torch.testing.assert_close(
            field.sdf_and_grad(points, codes).grad, (sides[0] - sides[1]) / (2 * h), rtol=1e-5, atol=1e-6
        )


def test_gradcheck_with_respect_to_points_and_codes(make_field: Callable[..., CascadeField]) -> None:
    field = make_field(width=3, hyper_width=3, blend_width=3, landmark_width=3, omega=2.0)
    codes = random_codes(field, 1)

    def both(points: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(field.sdf_and_grad(points, dict(zip(codes, values, strict=True))))

    inputs = (some_points(1, 2).requires_grad_(True), *(code.requires_grad_(True) for code in codes.values()))
    assert torch.autograd.gradcheck(both, inputs)


# -- the cascade -----------------------------------------------------------------------------------------------------------


def test_the_cascade_is_the_papers(make_field: Callable[..., CascadeField]) -> None:
    """Phi(p) = S(p_n) + epsilon(p_{n-1}), with p_{i+1} = p_i + v_i(p_i) in the order of the paper."""
    field = make_field(window=False)
    codes, points = random_codes(field, 2), some_points(2, 5)
    conditioning = field.condition(codes)
    x, order = points, ["exp", "nose", "eyes", "mouth", "rem"]
    assert [spec.name for spec in field.specs] == order
    for name in order:
        out = field.nets[name](x, conditioning.weights[name]).out
        assert out.shape[-1] == (4 if name == "rem" else 3)
        before, x = x, x + out[..., :3]
        torch.testing.assert_close(field.stages(points, codes)[name], x, rtol=1e-12, atol=1e-12)
    correction = field.nets["rem"](before, conditioning.weights["rem"]).out[..., 3]
    sdf = field.template_net(x, conditioning.template).out[..., 0] + correction
    torch.testing.assert_close(field.sdf(points, codes), sdf, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(field.warp(points, codes), x, rtol=1e-12, atol=1e-12)


def test_a_code_moves_its_own_net_and_the_landmarks_that_depend_on_it(make_field: Callable[..., CascadeField]) -> None:
    field = make_field()
    codes = random_codes(field, 1)
    before = field.condition(codes)
    after = field.condition({**codes, "mouth": codes["mouth"] + 1})
    changed = {name for name in before.landmarks if not torch.equal(before.landmarks[name], after.landmarks[name])}
    assert changed == {"exp", "mouth"}
    assert {spec.name for spec in net_specs("parts", EYES) if "mouth" in spec.landmark_codes} == changed
    weights = {
        name for name in before.weights if not torch.equal(before.weights[name][1][0], after.weights[name][1][0])
    }
    assert weights == {"mouth"}


def test_items_of_a_batch_do_not_see_each_other(make_field: Callable[..., CascadeField]) -> None:
    field = make_field()
    codes, points = random_codes(field, 3), some_points(3, 5)
    for b in range(3):
        alone = field.sdf_and_grad(points[b : b + 1], {name: code[b : b + 1] for name, code in codes.items()})
        whole = field.sdf_and_grad(points, codes)
        agree(alone.sdf, whole.sdf[b : b + 1], 1e-12)
        agree(alone.grad, whole.grad[b : b + 1], 1e-12)


def test_composites_of_a_batch_skip_the_expression(make_field: Callable[..., CascadeField]) -> None:
    field = make_field()
    codes, points = random_codes(field, 2), some_points(2, 5)
    conditioning = field.condition(codes, torch.tensor([1.0, 0.0], dtype=F64))
    mixed = field.trace(points, conditioning).sdf
    gradients = field.gradients(field.trace(points, conditioning), conditioning)
    with_expression = field.sdf_and_grad(points, codes)
    without = field.sdf_and_grad(points, {name: code for name, code in codes.items() if name != "exp"})
    agree(mixed[0], with_expression.sdf[0], 1e-12)
    agree(mixed[1], without.sdf[1], 1e-12)
    agree(gradients.point[0], with_expression.grad[0], 1e-12)
    agree(gradients.point[1], without.grad[1], 1e-12)
    agree(gradients.neutral[1], without.grad[1], 1e-12)
    assert (with_expression.sdf[1] - without.sdf[1]).abs().max() > 1e-3


def test_a_window_keeps_a_part_net_away_from_the_rest(make_field: Callable[..., CascadeField]) -> None:
    """Far from the nose the nose's code changes nothing at all, and near it it does."""
    field = make_field(window=True)
    codes = {
        name: code for name, code in random_codes(field, 1).items() if name != "exp"
    }  # which would move the points first
    conditioning = field.condition(codes)
    near = (conditioning.landmarks["nose"].mean(1) + field.get_buffer("nose_offset")).unsqueeze(1)
    far = near - torch.tensor([0.0, 0.0, 3.0], dtype=F64)
    points = torch.cat([near, far], 1)
    moved = field.trace(points, conditioning).displacements[0]
    assert moved[0, 0].abs().max() > 1e-3 and moved[0, 1].abs().max() == 0


# -- how a model starts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hyper", ["full", "low-rank", "film"])
@pytest.mark.parametrize("method", ["parts", "imface"])
def test_a_new_model_deforms_almost_nothing_and_its_landmarks_are_the_templates(
    id_table: Any, template: TemplateFacts, hyper: Any, method: Any
) -> None:
    """At the widths of preset paper, in units of the ball."""
    config = Config()
    config = replace(config, model=replace(config.model, method=method, hyper=hyper))
    field = build_field(config, id_table, template, 170.0)
    codes = {name: table[:1] for name, table in field.tables.items()}
    points = some_points(1, 500).float()
    with torch.no_grad():
        assert (field.warp(points, codes) - points).abs().mean() < 0.01
        for name, generated in field.condition(codes).landmarks.items():
            own = template.landmarks[field.landmark_ids[name]]
            assert (generated - own).abs().max() < 0.02
    assert all(0.005 < table.std() < 0.02 for table in field.tables.values())


def test_the_same_seed_makes_the_same_model_and_leaves_other_random_numbers_alone(
    tiny: Config, id_table: Any, template: TemplateFacts
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (build_field(tiny, id_table, template, 100.0, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["tables.nose"], other["tables.nose"])


def test_tables_have_a_row_for_each_of_their_ids(make_field: Callable[..., CascadeField], id_table: Any) -> None:
    assert {name: tuple(table.shape) for name, table in make_field().tables.items()} == {
        "exp": (len(id_table.expressions), 5),
        **dict.fromkeys(("nose", "eyes", "mouth"), (3, 4)),
        "rem": (3, 6),
    }
    assert {name: tuple(table.shape) for name, table in make_field(method="imface").tables.items()} == {
        "exp": (len(id_table.expressions), 5),
        "id": (len(id_table.heads), 18),
    }


def test_part_nets_blend_around_their_parts_landmarks_and_all_others_around_constant_ones(
    make_field: Callable[..., CascadeField],
) -> None:
    own, five = make_field().landmark_ids, make_field(landmarks="five").landmark_ids
    assert list(own) == list(five) == ["exp", "nose", "eyes", "mouth", "rem", "sdf"]
    assert {name: tuple(own[name]) for name in EYES} == {part.name: part.landmarks for part in EYES.entries}
    assert own["exp"] == own["sdf"] == [36, 45, 30, 48, 54] and own["rem"] == [8, 4, 12, 19, 24]
    assert all(ids == [36, 45, 30, 48, 54] for ids in five.values())
    assert net_landmarks("id", EYES, "part") == (36, 45, 30, 48, 54)


@pytest.mark.parametrize("name", ["items", "training", "half"])
def test_a_part_that_no_network_can_be_called_after_is_refused(
    name: str, tiny: Config, id_table: IdTable, template: TemplateFacts
) -> None:
    parts = Parts("odd", (Part(name, (0, 1, 2, 3, 4)), *EYES.entries[1:]))
    with pytest.raises(ModelError, match=f"a network cannot be called '{name}'"):
        CascadeField(tiny, replace(id_table, parts=parts), template, 100.0)


def test_codes_of_takes_the_rows_of_a_batchs_ids(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch]
) -> None:
    """A grafted part brings its donor's code, the remainder the recipient's: so grafts and scans share codes."""
    field, batch = make_field(), make_batch(1)
    subjects, head = field.id_table.subjects, ("a", "b", "c", "b")
    rows = [torch.tensor([subjects.index(name)]) for name in head]
    batch = {**batch, **dict(zip(("recipient", *EYES), rows, strict=True))}
    codes = field.codes_of(batch)
    for name, donor in zip(("rem", *EYES), head, strict=True):
        of_scan = field.codes_of({**batch, **dict.fromkeys(("recipient", *EYES), rows[head.index(donor)])})
        assert torch.equal(codes[name], of_scan[name])
        others = {other: field.tables[name][subjects.index(other)] for other in subjects if other != donor}
        assert not any(torch.equal(codes[name][0], other) for other in others.values())
    number = field.id_table.expression("b", "s")
    smiling = field.codes_of({**batch, "expression": torch.tensor([number])})
    assert torch.equal(smiling["exp"][0], field.tables["exp"][number])
    assert all(torch.equal(smiling[name], codes[name]) for name in ("rem", *EYES))


def test_code_statistics_are_the_gaussian_of_a_table(make_field: Callable[..., CascadeField]) -> None:
    field = make_field()
    mean, covariance = field.code_statistics("exp")
    table = field.tables["exp"].detach()
    torch.testing.assert_close(mean.double(), table.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(covariance.double(), torch.cov(table.T), rtol=1e-5, atol=1e-6)


def test_a_template_without_points_of_a_part_is_refused(tiny: Config, id_table: Any, template: TemplateFacts) -> None:
    noseless = replace(template, parts=template.parts.where(template.parts != 1, 0))
    with pytest.raises(ModelError, match="registered points of a part"):
        CascadeField(tiny, id_table, noseless, 100.0)
