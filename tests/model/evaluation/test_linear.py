"""The linear model of registered heads: learnt, fitted to vertices and points, and kept on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from facegraft_model.data.ids import DataError
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.linear import LinearModel
from facegraft_model.evaluation.trainingheads import principal_modes
from linear_heads import MODES, Synthetic, scan_of
from numpy.typing import NDArray
from toy_parts import head_row

from facegraft.vocabulary import EXP


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
    found = trained.modes["id"].reshape(MODES, -1)
    coefficients = np.linalg.lstsq(found.T, true.T, rcond=None)[0]
    assert np.abs(found.T @ coefficients - true.T).max() < 1e-6
    smile = trained.modes["exp"].ravel() / np.linalg.norm(trained.modes["exp"])
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
    modes = np.concatenate([trained.modes["id"], trained.modes["exp"]]).reshape(MODES + 1, -1).T
    stacked = np.concatenate([modes / noise, np.eye(MODES + 1)])
    right = np.concatenate([(target - trained.mean).ravel() / noise, np.zeros(MODES + 1)])
    expected = np.linalg.lstsq(stacked, right, rcond=None)[0]
    fit = trained.fit_vertices(target, noise_mm=20.0)
    np.testing.assert_allclose(np.concatenate([fit.codes["id"], fit.codes["exp"]]), expected, atol=1e-9)
    assert set(trained.fit_vertices(target, expression=False).codes) == {"id"}


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
    for name in ("mean", "faces", "parts"):
        assert np.array_equal(getattr(again, name), getattr(trained, name))
    assert list(again.modes) == list(trained.modes)
    assert all(np.array_equal(again.modes[name], trained.modes[name]) for name in trained.modes)
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
    with pytest.raises(DataError, match="at least two"):
        LinearModel.train(one)


def test_fits_of_points_begin_with_the_mean_code_of_each_expression(trained: LinearModel, synthetic: Synthetic) -> None:
    (start,) = trained.expressions
    moved = np.tensordot(start, trained.modes[EXP], 1)
    heads = {key: head for key, (_, head) in random_heads(synthetic).items()}
    smiles = [head - heads[key.replace("smile", "neutral")] for key, head in heads.items() if key.endswith("smile")]
    np.testing.assert_allclose(moved, np.mean(smiles, axis=0), atol=1e-6)
