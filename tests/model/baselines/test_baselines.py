"""DeepSDF, i3DMM and ImFace: published sizes and data; gradients, losses by hand and learning of the first two."""

from __future__ import annotations

import itertools
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
from facegraft_model.config import Config, FitConfig, own_options, windows
from facegraft_model.data.ids import IdTable
from facegraft_model.errors import ModelError
from facegraft_model.fitting.fit import learning_rate
from facegraft_model.method import Batch, RegisteredHeads, TemplateFacts
from facegraft_model.models import build_field
from facegraft_model.presets import preset
from facegraft_model.training.schedule import learning_rate_factor
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


def linear(*sizes: int) -> int:
    """Parameters of linear layers, one after the other."""
    return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(sizes))


def test_imface_has_the_published_parameters() -> None:
    """15.5 M, counted anew from its layers; the published code also stores, unused, what its hyper-networks replace: 0.11 M more."""
    template = TemplateFacts(torch.zeros(68, 3), torch.randn(4, 3), torch.zeros(4))
    field = build_field(preset("imface"), TABLE, template, 170.0)
    landmarks, code, hidden = 5, 128, 128
    blend = linear(3, 128, 128, landmarks) + 2 * (128 + 128 + landmarks)  # with a LayerNorm after each

    def sine(outputs: int) -> list[int]:
        """Sizes of the tensors of a sine network of five layers."""
        layers = itertools.pairwise((3 * landmarks, 128, 128, 128, 128, outputs * landmarks))
        return [size for inputs, out in layers for size in (inputs * out, out)]

    def conditioned(outputs: int) -> int:
        """A network for each tensor that makes it of a code."""
        return blend + sum(linear(code, hidden, hidden, size) for size in sine(outputs))

    expected = {
        "exp": conditioned(6),
        "id": conditioned(6 + 1),
        "template": blend + sum(sine(1)),
        "landmarks": linear(256, 256, 256, 3 * landmarks) + linear(128, 256, 256, 3 * landmarks),
    }
    ours = {
        "exp": parameters(field.hyper["exp"]) + parameters(field.nets["exp"]),
        "id": parameters(field.hyper["id"]) + parameters(field.nets["id"]),
        "template": parameters(field.template_weights) + parameters(field.template_net),
        "landmarks": parameters(field.generators),
    }
    assert ours == expected
    unused = sum(sine(6)) + sum(sine(7))
    assert (sum(ours.values()), unused, sum(ours.values()) + unused) == (15_395_729, 111_553, 15_507_282)
    codes = sum(table.numel() for table in field.tables.values())
    assert codes == 128 * (len(TABLE.heads) + len(TABLE.expressions))
    assert parameters(field) == sum(ours.values()) + codes


def test_the_published_data_of_each_method() -> None:
    imface, i3d, deep = (preset(name) for name in ("imface", "i3dmm", "deepsdf"))
    assert {config.data.origins for config in (imface, i3d, deep)} == {"scan"}
    assert [config.data.expressions for config in (imface, i3d, deep)] == [(), (), ("neutral",)]
    for config in (imface, i3d, deep):
        counts = windows(config.data)
        assert sum(counts.values()) == 16_384 and counts["free"] == round(0.06 * 16_384)
    assert [windows(config.data)[name] for config, name in ((imface, "surface"), (i3d, "poi"), (deep, "wide"))] == [15_401] * 3
    assert (sum(windows(deep.fit).values()), sum(windows(i3d.fit).values())) == (8000, 16_384)
    assert own_options(i3d, I3DMMOptions).i3dmm_pretrain_epochs > 0


@pytest.mark.parametrize("name", ["imface", "i3dmm", "deepsdf"])
def test_fits_have_the_published_learning_rates(name: str) -> None:
    """As the published loops set them: ImFace's scheduler is stepped after each epoch from the 200th on, the others divide by 10 halfway."""
    fit = preset(name).fit
    ours = [fit.lr * learning_rate(fit, iteration) for iteration in range(fit.steps)]
    if name == "imface":
        optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
        scheduler = torch.optim.lr_scheduler.StepLR(optimiser, 10, 0.95)
        theirs = []
        for epoch in range(1, 1501):
            theirs.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            if epoch >= 200:
                scheduler.step()
        train = preset(name).train
        assert [1e-4 * learning_rate_factor(train, epoch, 1.0, 1500) for epoch in range(1500)] == pytest.approx(theirs)
    else:
        theirs = [5e-3 * (1 / 10) ** (iteration // 400) for iteration in range(800)]
    assert ours == pytest.approx(theirs)


def test_parameter_counts_are_the_published_ones() -> None:
    template = TemplateFacts(torch.zeros(68, 3), torch.zeros(4, 3), torch.zeros(4))
    assert parameters(DeepSDFField(deepsdf.PUBLISHED, TABLE, template, 170.0).decoder) == 1_843_195
    assert parameters(deformation_net(I3DMMOptions(), 384)) == 8_225_795
    field = I3DMMField(i3dmm.PUBLISHED, TABLE, template, 170.0)
    # Ours has no code of the hairstyle, which enters twice.
    assert parameters(field.deformation) == 7_963_651 == 8_225_795 - 2 * 128 * 1024
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


def registered(neutral: bool = True) -> RegisteredHeads:
    nothing = torch.zeros(1, 1, 0, 3)
    return RegisteredHeads(nothing, nothing, torch.zeros(0), {}, torch.tensor([neutral]), 170.0)


def test_pretraining_moves_the_reference_alone_to_the_median_of_the_neutral_heads() -> None:
    field = make(I3DMMField, "baseline.i3dmm_pretrain_epochs=150", "train.lr=4e-3")
    before = {name: parameter.detach().clone() for name, parameter in field.named_parameters()}
    without = {"is_neutral": torch.zeros(4, dtype=torch.bool)}
    asked = []

    def batch_of(step: int) -> Batch:
        asked.append(step)
        return {**sphere_batch(step, 120), **(without if step == 1 else {})}

    field.begin(registered(), batch_of, 0)
    assert asked == list(range(151)), "a batch without a neutral head is passed over"
    for name, parameter in field.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith("reference."), name
        assert parameter.grad is None
    # The middle one of the three neutral spheres, not the smile's; within 0.1 of it distances are not clamped.
    radius = RADII["bert"] + torch.linspace(-0.02, 0.02, 5)
    found = field.reference((radius[:, None] * nn.functional.normalize(torch.ones(1, 3), dim=1))[None])
    assert float((found.detach() - (radius - RADII["bert"])).abs().max()) < 0.03


def test_pretraining_needs_a_neutral_scan() -> None:
    make(I3DMMField).begin(registered(neutral=False), lambda step: {}, 0)
    with pytest.raises(ModelError, match=r"pre-trained on neutral scans, and there are none .* or set baseline\.i3dmm_pretrain_epochs=0"):
        make(I3DMMField, "baseline.i3dmm_pretrain_epochs=1").begin(registered(neutral=False), lambda step: {}, 0)


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
