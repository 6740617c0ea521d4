"""DeepSDF, i3DMM and the linear model: published sizes, gradients, losses by hand, learning, PCA against known modes."""

from __future__ import annotations

import json
from pathlib import Path
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
from facegraft_model.data.ids import DataError, IdTable
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.linear import LinearModel, principal_modes
from facegraft_model.method import Batch, TemplateFacts
from numpy.typing import NDArray
from torch import Tensor, nn
from toy_parts import EYES

from facegraft.store import DatasetSchema, ShardItem, finish_dataset, shard_name, surfaces_fields, write_shard

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


def head_row(subject: str, expression: str = "neutral", donor: str | None = None) -> dict[str, str]:
    donors = dict.fromkeys(("donor_nose", "donor_eyes", "donor_mouth"), donor or subject)
    return {"subject": subject, "recipient": subject, **donors, "expression": expression}


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


# -- the linear model -------------------------------------------------------------------------------------------------

MODES, VERTICES = 3, 642


def icosphere() -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    import trimesh

    sphere = trimesh.creation.icosphere(subdivisions=3)
    return np.asarray(sphere.vertices), np.asarray(sphere.faces, dtype=np.int32)


class Synthetic:
    """Heads that really are linear: an ellipsoid, three smooth identity modes along its normals, one mode of expression."""

    def __init__(self) -> None:
        sphere, self.faces = icosphere()
        self.mean = sphere * [0.5, 0.7, 0.6]
        x, y, z = sphere.T
        waves = np.stack([np.sin(3 * y), x * z, z**3 - 0.6 * z])
        self.identity = 0.03 * waves[:, :, None] * sphere
        self.expression = 0.02 * np.cos(4 * x)[:, None] * sphere * (z > 0)[:, None]
        self.parts = (np.arange(VERTICES) % 4).astype(np.uint8)

    def head(self, code: NDArray[np.float64], smile: float = 0.0) -> NDArray[np.float64]:
        return self.mean + np.tensordot(code, self.identity, 1) + smile * self.expression

    def write(
        self, folder: Path, heads: dict[str, tuple[dict[str, str], NDArray[np.float64]]], faces: Any = None
    ) -> Path:
        columns = dict.fromkeys(
            ("subject", "expression", "split", "recipient", "donor_nose", "donor_eyes", "donor_mouth", "origin"),
            "string",
        )
        topology = {"name": "toy", "vertex_count": None, "faces_sha256": None}
        schema = DatasetSchema("surfaces", topology, 170.0, "unit ball", surfaces_fields(EYES), columns, EYES)
        items = []
        for number, (key, (row, vertices)) in enumerate(sorted(heads.items())):
            arrays = {
                "vertices": vertices.astype(np.float32),
                "faces": self.faces if faces is None or number == 0 else faces,
                "vertex_parts": self.parts,
                "face_cut": np.zeros(len(self.faces), np.uint8),
                "landmarks": np.zeros((1, 68, 3), np.float32),
                "stage_points": np.zeros((1, 5, 3), np.float32),
                "to_mm": np.diag([170.0, 170.0, 170.0, 1.0]),
            }
            items.append(ShardItem(key, arrays, row))
        name = shard_name(0, 1)
        write_shard(folder, name, items, [], schema, "c" * 64)
        finish_dataset(folder, schema, {name: [item.key for item in items]}, "c" * 64)
        return folder


def random_heads(synthetic: Synthetic, count: int = 12) -> dict[str, tuple[dict[str, str], NDArray[np.float64]]]:
    rng = np.random.default_rng(0)
    heads = {}
    for number in range(count):
        name, code = f"s{number:02d}", rng.standard_normal(MODES)
        rest = {"split": "train", "origin": "scan"}
        heads[f"{name}_neutral"] = ({**head_row(name), **rest}, synthetic.head(code))
        if number % 2:
            heads[f"{name}_smile"] = ({**head_row(name, "smile"), **rest}, synthetic.head(code, rng.uniform(0.5, 1.5)))
    return heads


@pytest.fixture(scope="module")
def synthetic() -> Synthetic:
    return Synthetic()


@pytest.fixture(scope="module")
def trained(synthetic: Synthetic, tmp_path_factory: pytest.TempPathFactory) -> LinearModel:
    folder = tmp_path_factory.mktemp("linear") / "surfaces"
    return LinearModel.train(synthetic.write(folder, random_heads(synthetic)))


def test_principal_modes_are_those_of_the_svd() -> None:
    rng = np.random.default_rng(1)
    offsets = rng.standard_normal((6, 4)) @ rng.standard_normal((4, 50))
    _, values, directions = np.linalg.svd(offsets, full_matrices=False)
    modes = principal_modes(offsets, 10, 5)
    assert modes.shape == (4, 50)
    expected = (values / np.sqrt(5))[:4, None] * directions[:4]
    signs = np.sign((modes * expected).sum(1, keepdims=True))
    np.testing.assert_allclose(modes, signs * expected, atol=1e-10)
    np.testing.assert_allclose(principal_modes(offsets, 2, 5), modes[:2])


def test_the_known_modes_are_recovered(trained: LinearModel, synthetic: Synthetic) -> None:
    assert trained.code_dims == {"id": MODES, "exp": 1}
    true = synthetic.identity.reshape(MODES, -1)
    found = trained.identity.reshape(MODES, -1)
    coefficients = np.linalg.lstsq(found.T, true.T, rcond=None)[0]
    assert np.abs(found.T @ coefficients - true.T).max() < 1e-6
    smile = trained.expression.ravel() / np.linalg.norm(trained.expression)
    assert abs(smile @ synthetic.expression.ravel()) == pytest.approx(np.linalg.norm(synthetic.expression), rel=1e-6)
    assert (trained.parts == synthetic.parts).all() and (trained.faces == synthetic.faces).all()


def test_training_heads_come_back_exactly(trained: LinearModel, synthetic: Synthetic) -> None:
    for row, vertices in random_heads(synthetic).values():
        fit = trained.fit_vertices(vertices, noise_mm=0.0)
        assert np.abs(fit.mesh.vertices - vertices).max() < 1e-6
        assert fit.rms_mm < 1e-4
        neutral = trained.decode({"id": fit.codes["id"]}).vertices
        if row["expression"] == "neutral":
            np.testing.assert_allclose(neutral, vertices, atol=1e-6)


def test_codes_of_training_heads_have_unit_variance(trained: LinearModel, synthetic: Synthetic) -> None:
    codes = [
        trained.fit_vertices(vertices, noise_mm=0.0).codes["id"]
        for row, vertices in random_heads(synthetic).values()
        if row["expression"] == "neutral"
    ]
    np.testing.assert_allclose(np.cov(np.array(codes).T), np.eye(MODES), atol=1e-4)


def test_the_ridge_is_the_least_squares_of_the_stacked_system(trained: LinearModel, synthetic: Synthetic) -> None:
    target = synthetic.head(np.array([1.0, -2.0, 0.5]), 0.7)
    noise = 20.0 / 170.0
    modes = np.concatenate([trained.identity, trained.expression]).reshape(MODES + 1, -1).T
    stacked = np.concatenate([modes / noise, np.eye(MODES + 1)])
    right = np.concatenate([(target - trained.mean).ravel() / noise, np.zeros(MODES + 1)])
    expected = np.linalg.lstsq(stacked, right, rcond=None)[0]
    fit = trained.fit_vertices(target, noise_mm=20.0)
    np.testing.assert_allclose(np.concatenate([fit.codes["id"], fit.codes["exp"]]), expected, atol=1e-9)
    assert set(trained.fit_vertices(target, expression=False).codes) == {"id"}


def scan_of(
    vertices: NDArray[np.float64], faces: NDArray[Any], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    points, face = trimesh.sample.sample_surface(mesh, count, seed=0)
    return np.asarray(points), np.asarray(mesh.face_normals[face])


@pytest.mark.parametrize("given_normals", [False, True])
def test_points_recover_a_held_out_head(trained: LinearModel, synthetic: Synthetic, given_normals: bool) -> None:
    target = synthetic.head(np.array([-1.2, 0.8, 1.5]), 0.9)
    points, normals = scan_of(target, synthetic.faces, 1500)
    before = np.linalg.norm(trained.mean - target, axis=1).mean() * 170
    fit = trained.fit_points(points, normals if given_normals else None, noise_mm=0.1)
    error = np.linalg.norm(fit.mesh.vertices - target, axis=1).mean() * 170
    assert before > 4 and error < 0.05 and fit.rms_mm < 0.05


def test_points_off_the_head_are_left_out(trained: LinearModel, synthetic: Synthetic) -> None:
    target = synthetic.head(np.array([-1.2, 0.8, 1.5]))
    points, _ = scan_of(target, synthetic.faces, 1500)
    stray = np.random.default_rng(0).uniform(1.5, 2.0, (60, 3))
    fit = trained.fit_points(np.concatenate([points, stray]), noise_mm=0.1, expression=False)
    assert np.linalg.norm(fit.mesh.vertices - target, axis=1).mean() * 170 < 0.05
    with pytest.raises(ModelError, match="faces the way"):
        trained.fit_points(points, -scan_of(target, synthetic.faces, 1500)[1])


def test_saved_and_loaded(trained: LinearModel, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    again = LinearModel.load(tmp_path / "model")
    for name in ("mean", "identity", "expression", "faces", "parts"):
        assert np.array_equal(getattr(again, name), getattr(trained, name))
    assert again.facts == json.loads(json.dumps(trained.facts)) and again.mm_per_unit == 170.0
    file = tmp_path / "model" / "linear.safetensors"
    data = bytearray(file.read_bytes())
    data[-9] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ModelError, match="damaged"):
        LinearModel.load(tmp_path / "model")
    with pytest.raises(ModelError, match="no linear model"):
        LinearModel.load(tmp_path)


def test_other_faces_are_refused(synthetic: Synthetic, tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "s", random_heads(synthetic, 3), faces=synthetic.faces[::-1])
    with pytest.raises(DataError, match="faces of item s01_neutral differ from those of item s00_neutral"):
        LinearModel.train(folder)


def test_wrong_input_is_refused(trained: LinearModel, synthetic: Synthetic, tmp_path: Path, samples: Path) -> None:
    with pytest.raises(ModelError, match="642 finite vertices"):
        trained.fit_vertices(np.zeros((3, 3)))
    with pytest.raises(ModelError, match="finite points"):
        trained.fit_points(np.full((5, 3), np.nan))
    with pytest.raises(ModelError, match="normals must be"):
        trained.fit_points(np.zeros((5, 3)), np.zeros((4, 3)))
    with pytest.raises(ModelError, match="code id of the linear model has 3 numbers"):
        trained.decode({"id": np.zeros(4)})
    with pytest.raises(ModelError, match="takes codes id"):
        trained.decode({"shape": np.zeros(4)})
    with pytest.raises(DataError, match="holds samples"):
        LinearModel.train(samples)
    one = synthetic.write(tmp_path / "one", random_heads(synthetic, 1))
    with pytest.raises(DataError, match="two at least"):
        LinearModel.train(one)
