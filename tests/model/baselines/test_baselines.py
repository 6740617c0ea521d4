"""DeepSDF and i3DMM: published sizes, gradients, losses by hand, learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from facegraft_model.baselines import deepsdf, i3dmm
from facegraft_model.baselines.autodecoder import AutoDecoder, WeightNormLinear
from facegraft_model.baselines.deepsdf import DeepSDFField
from facegraft_model.baselines.i3dmm import (
    I3DMMField,
    I3DMMOptions,
    ReferenceNet,
    deformation_net,
    encode,
    pairwise_distance,
)
from facegraft_model.config import Config, FitConfig
from facegraft_model.data.ids import IdTable
from facegraft_model.errors import ModelError
from facegraft_model.method import Batch, TemplateFacts
from torch import Tensor, nn
from toy_parts import EYES, head_row

RADII = {"anna": 0.35, "bert": 0.45, "cleo": 0.55}
SMALL_DEEPSDF = (
    "baseline.deepsdf_dim=8",
    "baseline.deepsdf_width=32",
    "baseline.deepsdf_layers=4",
    "baseline.code_warmup_epochs=10",
)
SMALL_I3DMM = (
    "baseline.i3dmm_id_dim=8",
    "baseline.i3dmm_exp_dim=4",
    "baseline.i3dmm_width=32",
    "baseline.i3dmm_layers=4",
    "baseline.i3dmm_reference_width=48",
    "baseline.code_warmup_epochs=10",
)
SMALL = {DeepSDFField: ("model.method=deepsdf", *SMALL_DEEPSDF), I3DMMField: ("model.method=i3dmm", *SMALL_I3DMM)}
KINDS: list[type[AutoDecoder]] = [DeepSDFField, I3DMMField]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


TABLE = IdTable.from_rows([*(head_row(name) for name in RADII), head_row("anna", "smile")], EYES)
EPOCH = torch.tensor(5.0)
WITHOUT_CHANCE: dict[type[AutoDecoder], list[str]] = {DeepSDFField: ["baseline.deepsdf_dropout=0"], I3DMMField: []}


def make(kind: type[AutoDecoder], *settings: str, table: IdTable = TABLE) -> Any:
    torch.manual_seed(0)
    template = TemplateFacts(torch.zeros(68, 3), torch.zeros(4, 3), torch.zeros(4))
    return kind(Config().with_settings([*SMALL[kind], *settings]), table, template, 170.0)


def sphere_batch(seed: int, count: int = 300) -> Batch:
    """Three neutral heads and a smile: spheres of the radii, the smile 0.1 larger; all points `near` and `free`."""
    rng = torch.Generator().manual_seed(seed)
    radii = torch.tensor([*RADII.values(), 0.45])[:, None]
    unit = nn.functional.normalize(torch.randn(4, 2 * count, 3, generator=rng), dim=2)
    distance = torch.cat([radii + 0.05 * torch.randn(4, count, generator=rng), torch.rand(4, count, generator=rng)], 1)
    points, sdf = unit * distance[..., None], distance - radii
    landmarks = nn.functional.normalize(torch.randn(68, 3, generator=torch.Generator().manual_seed(9)), dim=1)
    empty = torch.zeros(4, 0, 3)
    return {
        "surface_points": empty,
        "surface_normals": empty,
        "near_points": points[:, :count],
        "near_sdf": sdf[:, :count],
        "near_normals": unit[:, :count],
        "free_points": points[:, count:],
        "free_sdf": sdf[:, count:],
        "free_normals": unit[:, count:],
        "landmarks": (radii[..., None] * landmarks)[:, None],
        "head": torch.tensor([0, 1, 2, 0]),
        "shape": torch.tensor(
            [TABLE.shape((n,) * 4, "neutral") for n in RADII] + [TABLE.shape(("anna",) * 4, "smile")]
        ),
        "expression_name": torch.tensor([0, 0, 0, 1]),
        "is_neutral": torch.tensor([True, True, True, False]),
        "is_composite": torch.zeros(4, dtype=torch.bool),
    }


def some_codes(field: AutoDecoder, count: int = 2) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(count, dim, generator=rng).to(field.tables[name]) for name, dim in field.code_dims.items()
    }


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# -- architecture -----------------------------------------------------------------------------------------------------


def test_parameter_counts_are_the_published_ones() -> None:
    template = TemplateFacts(torch.zeros(68, 3), torch.zeros(4, 3), torch.zeros(4))
    assert parameters(DeepSDFField(deepsdf.PUBLISHED, TABLE, template, 170.0).decoder) == 1_843_195
    assert parameters(deformation_net(I3DMMOptions(), 384)) == 8_225_795
    assert parameters(ReferenceNet(I3DMMOptions())) == 790_017


def test_initial_codes_have_the_published_spread() -> None:
    template = TemplateFacts(torch.zeros(68, 3), torch.zeros(4, 3), torch.zeros(4))
    for kind, name, std in ((DeepSDFField, "shape", 256**-0.5), (I3DMMField, "id", 384**-0.5)):
        field = kind(Config().of_method(kind.presets[0].model.method), TABLE, template, 170.0)
        assert float(field.initial_code(name, 500).std()) == pytest.approx(std, rel=0.02)


def test_weight_norm_starts_as_the_plain_layer() -> None:
    layer, x = WeightNormLinear(5, 7), torch.randn(3, 5)
    torch.testing.assert_close(layer(x), x @ layer.direction.T + layer.bias)
    with torch.no_grad():
        layer.direction.mul_(3.0)
    torch.testing.assert_close(layer.weight.norm(dim=1, keepdim=True), layer.gain)


@pytest.mark.parametrize("narrow", [True, False])
def test_the_coded_network_is_the_joined_one(narrow: bool) -> None:
    from facegraft_model.baselines.autodecoder import CodedMLP

    net = CodedMLP(6, 3, 20, 4, 2, narrow=narrow).double()
    code, points = torch.randn(2, 6).double(), torch.randn(2, 5, 3).double()
    entered = torch.cat([code[:, None].expand(-1, 5, -1), points], 2)
    h = entered
    for index, layer in enumerate(net.hidden):
        h = torch.relu(layer(torch.cat([h, entered], 2) if index == 2 else h))
    torch.testing.assert_close(net(code, points), net.last(h))


def test_encoding() -> None:
    x = torch.tensor([[0.3, -0.2, 0.9]])
    encoded = encode(x, 6)
    assert encoded.shape == (1, 39)
    expected = {float(v) for v in x[0]} | {
        float(f(2**k * v)) for v in x[0].double() for k in range(6) for f in (torch.sin, torch.cos)
    }
    assert np.allclose(sorted(encoded[0].tolist()), sorted(expected), atol=1e-6)


# -- field ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_against_finite_differences(kind: type[AutoDecoder]) -> None:
    field = make(kind).double().eval()
    codes = some_codes(field)
    points = (torch.rand(2, 20, 3, generator=torch.Generator().manual_seed(1)) - 0.5).double()
    with torch.no_grad():
        found = field.sdf_and_grad(points, codes)
        torch.testing.assert_close(found.sdf, field.sdf(points, codes))
        assert not found.sdf.requires_grad and not found.grad.requires_grad
        step = 1e-6
        for axis in range(3):
            move = step * torch.eye(3).double()[axis]
            slope = (field.sdf(points + move, codes) - field.sdf(points - move, codes)) / (2 * step)
            torch.testing.assert_close(found.grad[..., axis], slope, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_differentiable_where_recorded(kind: type[AutoDecoder]) -> None:
    field = make(kind).eval()
    codes = {name: code.requires_grad_() for name, code in some_codes(field).items()}
    field.sdf_and_grad(torch.rand(2, 5, 3), codes).grad.square().sum().backward()
    assert all(bool(code.grad.abs().sum() > 0) for code in codes.values())


def test_missing_expression_is_the_neutral_code() -> None:
    field = make(I3DMMField).eval()
    codes, points = some_codes(field), torch.rand(2, 7, 3)
    neutral = field.tables["exp"][TABLE.expression_name("neutral")].expand(2, -1)
    torch.testing.assert_close(field.sdf(points, {"id": codes["id"]}), field.sdf(points, {**codes, "exp": neutral}))
    torch.testing.assert_close(field.sdf(points, codes), field.reference(field.warp(points, codes)))


def test_which_expression_is_neutral() -> None:
    grafted = IdTable.from_rows([head_row("anna", "e01", "bert"), head_row("bert", "neutral"), head_row("anna", "e01")], EYES)
    assert i3dmm.neutral_row(grafted) == grafted.expression_name("e01")
    unknown = IdTable.from_rows([head_row("anna", "e01")], EYES)
    assert i3dmm.neutral_row(unknown) is None
    field, codes = make(I3DMMField, table=unknown).eval(), {"id": torch.randn(1, 8)}
    torch.testing.assert_close(
        field.sdf(torch.ones(1, 2, 3), codes), field.sdf(torch.ones(1, 2, 3), {**codes, "exp": torch.zeros(1, 4)})
    )
    several = IdTable.from_rows([head_row("anna", "e01", "bert"), head_row("bert", "e02", "anna")], EYES)
    with pytest.raises(ModelError, match="must all be neutral"):
        i3dmm.neutral_row(several)


def test_deepsdf_has_no_warp() -> None:
    field = make(DeepSDFField)
    assert not field.has_warp
    with pytest.raises(ModelError, match="no template"):
        field.warp(torch.zeros(1, 1, 3), some_codes(field, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_bounded_in_training_only(kind: type[AutoDecoder]) -> None:
    field, batch = make(kind), sphere_batch(0)
    for table in field.tables.values():
        table.data = 3 * nn.functional.normalize(table.data, dim=1)
        table.data[-1] *= 0.1
    before = {name: table.detach().clone() for name, table in field.tables.items()}
    field.eval().codes_of(batch)
    assert all(torch.equal(table, before[name]) for name, table in field.tables.items())
    field.train().codes_of(batch)
    for name, table in field.tables.items():
        torch.testing.assert_close(table[:-1], before[name][:-1] / 3)
        torch.testing.assert_close(table[-1], before[name][-1])


# -- losses -----------------------------------------------------------------------------------------------------------


def test_deepsdf_losses_by_hand() -> None:
    field, batch = make(DeepSDFField).eval(), sphere_batch(1)
    codes = field.codes_of(batch)
    terms = field.training_terms(batch, codes, EPOCH)
    points = torch.cat([batch["near_points"], batch["free_points"]], 1)
    true = torch.cat([batch["near_sdf"], batch["free_sdf"]], 1)
    error = (field.sdf(points, codes).clamp(-0.1, 0.1) - true.clamp(-0.1, 0.1)).abs()
    torch.testing.assert_close(terms["sdf"], error.sum() / error.numel())
    torch.testing.assert_close(terms["code"], 1e-4 * 0.5 * codes["shape"].norm(dim=1).sum() / 4)
    fitted = field.fit_terms(batch, codes, FitConfig(code=1e-4))
    torch.testing.assert_close(fitted["sdf"], error.mean(1))
    torch.testing.assert_close(fitted["code"], 1e-4 * codes["shape"].square().mean(1))
    robust = field.fit_terms(batch, codes, FitConfig(code=1e-4, robust_mm=1.7))["sdf"]
    torch.testing.assert_close(robust, (0.01 * error**2 / (error**2 + 1e-4)).mean(1))


def test_i3dmm_losses_by_hand() -> None:
    field, batch = make(I3DMMField).eval(), sphere_batch(1)
    codes = field.codes_of(batch)
    terms = field.training_terms(batch, codes, EPOCH)
    points = torch.cat([batch["near_points"], batch["free_points"]], 1)
    true = torch.cat([batch["near_sdf"], batch["free_sdf"]], 1)
    error = (field.sdf(points, codes).clamp(-0.1, 0.1) - true.clamp(-0.1, 0.1)).abs()
    landmarks = batch["landmarks"][:, 0, list(i3dmm.LANDMARKS)]
    moved = field.warp(landmarks, codes)
    lengths = torch.cat([field.warp(points, codes) - points, moved - landmarks], 1).norm(dim=2)
    pairs = torch.stack([nn.functional.pdist(moved[:, each]).mean() for each in range(8)])
    torch.testing.assert_close(terms["sdf"], error.mean())
    torch.testing.assert_close(terms["deformation"], 1e-4 * lengths.mean())
    torch.testing.assert_close(terms["landmark"], pairs.mean())
    joined = torch.cat([codes["id"], codes["exp"]], 1)
    torch.testing.assert_close(terms["code"], 1e-4 * 0.5 * joined.norm(dim=1).mean())
    fitted = field.fit_terms(batch, codes, FitConfig(code=1e-4))
    torch.testing.assert_close(fitted["code"], 1e-4 * joined.square().mean(1))
    torch.testing.assert_close(fitted["deformation"], 1e-4 * lengths[:, : points.shape[1]].mean(1))
    alone = field.fit_terms(batch, {"id": codes["id"]}, FitConfig(code=1e-4))
    torch.testing.assert_close(alone["code"], 1e-4 * codes["id"].square().mean(1))


def test_pairwise_distance_has_a_finite_slope_at_zero() -> None:
    points = torch.zeros(3, 2, 3, requires_grad=True)
    pairwise_distance(points).backward()
    assert bool(torch.isfinite(points.grad).all())


def test_pretraining_moves_the_reference_alone_on_neutral_heads() -> None:
    field, batch = make(I3DMMField, "baseline.i3dmm_pretrain_epochs=6"), sphere_batch(1)
    terms = field.training_terms(batch, field.codes_of(batch), EPOCH)
    sum(terms.values()).backward()
    for name, parameter in field.named_parameters():
        moves = bool(parameter.grad.abs().sum() > 0)
        assert moves == name.startswith("reference."), name
    points = torch.cat([batch["near_points"], batch["free_points"]], 1)[:3]
    true = torch.cat([batch["near_sdf"], batch["free_sdf"]], 1)[:3]
    error = (field.reference(points).clamp(-0.1, 0.1) - true.clamp(-0.1, 0.1)).abs()
    torch.testing.assert_close(terms["sdf"], error.mean() * 3 / 4)
    later = field.training_terms(batch, field.codes_of(batch), torch.tensor(6.0))
    plain = make(I3DMMField).training_terms(batch, field.codes_of(batch), torch.tensor(6.0))
    assert all(torch.equal(later[name], plain[name]) for name in plain)


@pytest.mark.parametrize(("kind", "published"), [(DeepSDFField, deepsdf.PUBLISHED), (I3DMMField, i3dmm.PUBLISHED)])
def test_a_few_steps_learn_spheres_and_codes_fit(kind: type[AutoDecoder], published: Config) -> None:
    config = published
    field = make(kind, *WITHOUT_CHANCE[kind]).train()
    groups = [
        {"params": [p for name, p in field.named_parameters() if not name.startswith("tables.")], "lr": 4e-3},
        {"params": list(field.tables.parameters()), "lr": 1e-2},
    ]
    optimiser = torch.optim.Adam(groups)
    losses = []
    for step in range(150):
        batch = sphere_batch(step, 120)
        terms = field.training_terms(batch, field.codes_of(batch), torch.tensor(step / 10))
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
        losses.append(float(terms["sdf"].detach()))
    assert np.mean(losses[-10:]) < 0.25 * losses[0]
    field.eval().requires_grad_(False)
    codes = {name: torch.zeros(4, dim, requires_grad=True) for name, dim in field.code_dims.items()}
    fitting = torch.optim.Adam(codes.values(), lr=2e-2)
    batch = sphere_batch(999)
    start = field.fit_terms(batch, codes, config.fit)["sdf"].mean().detach()
    for _ in range(60):
        fitting.zero_grad()
        torch.stack(list(field.fit_terms(batch, codes, config.fit).values())).sum().backward()
        fitting.step()
    end = field.fit_terms(batch, codes, config.fit)["sdf"].mean().detach()
    assert float(end) < 0.6 * float(start)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_is_one_graph(kind: type[AutoDecoder]) -> None:
    field, batch = make(kind, *WITHOUT_CHANCE[kind]), sphere_batch(0, 20)

    def loss(batch: Batch, epoch: Tensor) -> Tensor:
        return torch.stack(list(field.training_terms(batch, field.codes_of(batch), epoch).values())).sum()

    loss(batch, EPOCH).backward()
    eager = {name: p.grad.clone() for name, p in field.named_parameters()}
    field.zero_grad()
    torch.compile(loss, backend="aot_eager", fullgraph=True)(batch, EPOCH).backward()
    for name, parameter in field.named_parameters():
        torch.testing.assert_close(parameter.grad, eager[name])


@pytest.mark.parametrize(
    ("method", "setting", "message"),
    [
        ("deepsdf", "baseline.deepsdf_width=259", "larger than deepsdf_dim"),
        ("deepsdf", "baseline.deepsdf_dropout=1", "below 1"),
        ("deepsdf", "baseline.deepsdf_layers=1", "at least 2, but is 1: the code enters in the middle"),
        ("i3dmm", "baseline.i3dmm_layers=1", "at least 2"),
        ("i3dmm", "baseline.clamp=0", "clamp must be positive"),
        ("deepsdf", "baseline.code=-1", "must not be negative"),
    ],
)
def test_settings_that_cannot_work(method: str, setting: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Config().with_settings([f"model.method={method}", setting])
