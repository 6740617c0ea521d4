"""The ICT source: sampling, arithmetic, and the published model reproduced."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facegraft.heads.errors import SourceError
from facegraft.heads.expressions import BY_NAME
from facegraft.heads.ict import IctSource, identity_coefficients
from facegraft.heads.options import IctOptions
from facegraft.meshfiles.errors import MeshError
from facegraft.regions.regionmap import RegionMap, RegionMapError
from facegraft.surfaces.topology import faces_sha256

SHAPES = ["cheekPuff_L", "cheekPuff_R", "browDown_L", "browDown_R"]


def heads_of(source):
    plan = source.plan()
    load = source.loader({"faces": plan.faces, **plan.shared}, plan.region_map)
    return plan, {(h.subject, h.expression): load(h.spec) for h in plan.heads}


def test_coefficients_are_clipped_normal():
    drawn = np.concatenate([identity_coefficients(0, n, 100, 1.0, 2.5) for n in range(1, 401)])
    assert np.abs(drawn).max() == 2.5
    assert abs((np.abs(drawn) == 2.5).mean() - 0.01242) < 0.002  # P(|N(0, 1)| > 2.5)
    inner = np.sort(drawn[np.abs(drawn) < 2.5])
    quantiles = [np.searchsorted(inner, x) / len(drawn) + (drawn == -2.5).mean() for x in (-1.0, 0.0, 1.0)]
    assert np.allclose(quantiles, [0.1587, 0.5, 0.8413], atol=0.01)
    calm = np.concatenate([identity_coefficients(0, n, 100, 0.5, 2.5) for n in range(1, 101)])
    assert abs(calm.std() - 0.5) < 0.02


def test_coefficients_depend_on_seed_and_subject_alone():
    assert np.array_equal(identity_coefficients(3, 7, 12, 1, 2.5), identity_coefficients(3, 7, 100, 1, 2.5)[:12])
    assert not np.array_equal(identity_coefficients(3, 7, 12, 1, 2.5), identity_coefficients(4, 7, 12, 1, 2.5))
    assert not np.array_equal(identity_coefficients(3, 7, 12, 1, 2.5), identity_coefficients(3, 8, 12, 1, 2.5))


@pytest.fixture
def model(toy, tmp_path):
    return tmp_path / "FaceXModel", toy.write_ict(tmp_path / "FaceXModel", SHAPES)


@pytest.fixture
def cm_map(toy, tmp_path):
    path = tmp_path / "cm.json"
    toy.region_map(mm_per_unit=10.0).save(path)
    return str(path)


def test_a_head_is_neutral_plus_modes_plus_shapes(toy, model, cm_map):
    folder, deltas = model
    options = IctOptions(subjects=3, expressions=("neutral", "brow_lower"), region_map=cm_map)
    plan, heads = heads_of(IctSource(folder, options, seed=9))
    assert np.array_equal(plan.faces, toy.faces())
    assert list(heads) == [(f"s{n:04d}", e) for n in (1, 2, 3) for e in ("neutral", "brow_lower")]
    for n in (1, 2, 3):
        c = identity_coefficients(9, n, 4, 1.0, 2.5)
        expected = toy.vertices() + sum(c[k] * deltas[f"identity{k:03d}"] for k in range(4))
        assert np.abs(heads[f"s{n:04d}", "neutral"] - expected).max() < 1e-5
        head = next(h for h in plan.heads if h.subject == f"s{n:04d}" and h.expression == "brow_lower")
        assert 0.7 <= head.row["intensity"] <= 1.0
        expected = expected + head.row["intensity"] * (deltas["browDown_L"] + deltas["browDown_R"])
        assert np.abs(heads[f"s{n:04d}", "brow_lower"] - expected).max() < 1e-5


def test_a_subject_does_not_depend_on_its_company(model, cm_map):
    folder, _ = model
    _, many = heads_of(IctSource(folder, IctOptions(subjects=5, expressions=3, region_map=cm_map), seed=2))
    _, one = heads_of(
        IctSource(
            folder,
            IctOptions(subjects=1, expressions=("cheek_blowing",), first_subject=4, region_map=cm_map),
            seed=2,
        )
    )
    assert np.array_equal(one["s0004", "cheek_blowing"], many["s0004", "cheek_blowing"])


def test_symmetrising(toy, model, cm_map):
    folder, _ = model

    def asymmetry(amount):
        options = IctOptions(subjects=1, expressions=1, symmetrise=amount, region_map=cm_map)
        v = heads_of(IctSource(folder, options, seed=0))[1]["s0001", "neutral"]
        return np.abs(v - v[toy.symmetry()] * [-1, 1, 1]).max()

    assert asymmetry(1.0) < 1e-9
    assert asymmetry(0.5) == pytest.approx(0.5 * asymmetry(0.0))
    assert asymmetry(0.0) > 0.1


def test_shapes_missing_are_named(model, cm_map, caplog):
    folder, _ = model
    with caplog.at_level(logging.WARNING, "facegraft"):
        plan = IctSource(folder, IctOptions(subjects=1, expressions=2, region_map=cm_map), 0).plan()
    assert [h.expression for h in plan.heads] == ["neutral", "cheek_blowing"]
    assert "left out because their shapes are missing: expressions smile, mouth_stretch, anger" in caplog.text
    with pytest.raises(
        SourceError, match=r"only 3 of the 20 expressions can be made, not 4: shapes missing are browInnerUp_L\.obj"
    ):
        IctSource(folder, IctOptions(expressions=4, region_map=cm_map), 0).plan()


def test_not_a_model_folder(model, cm_map, tmp_path):
    folder, _ = model
    with pytest.raises(SourceError, match=r"generic_neutral_mesh\.obj is missing; did you mean .*FaceXModel"):
        IctSource(tmp_path, IctOptions(region_map=cm_map), 0).plan()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"generic_neutral_mesh\.obj is missing; name the FaceXModel folder"):
        IctSource(tmp_path / "empty", IctOptions(region_map=cm_map), 0).plan()
    with pytest.raises(SourceError, match=r"cannot be listed \(Not a directory\)"):
        IctSource(folder / "identity000.obj", IctOptions(region_map=cm_map), 0).plan()
    for file in folder.glob("identity*"):
        file.unlink()
    with pytest.raises(SourceError, match="no identity modes"):
        IctSource(folder, IctOptions(region_map=cm_map), 0).plan()


def test_damaged_model_files_are_named(toy, model, cm_map):
    folder, _ = model
    options = IctOptions(subjects=1, expressions=1, region_map=cm_map)
    victim = folder / "identity002.obj"
    whole = victim.read_text()

    def complaint():
        with pytest.raises((MeshError, RegionMapError)) as caught:
            IctSource(folder, options, 0).plan()
        return str(caught.value)

    victim.write_text(whole.replace("f ", "# ", 1))
    assert complaint() == f"{victim}: its faces are not those of generic_neutral_mesh.obj; unpack the model again"
    victim.write_text(whole[: len(whole) // 2])
    assert str(victim) in complaint()
    toy.write_obj(victim, toy.vertices()[:-1], toy.polygons()[:-1])
    assert "80 vertices, but generic_neutral_mesh.obj has 81" in complaint()
    victim.write_text(whole)
    toy.write_obj(folder / "generic_neutral_mesh.obj", toy.vertices() / 10, toy.polygons()[::-1])
    assert "generic_neutral_mesh.obj: its faces are not those of topology toy" in complaint()


def test_wrong_unit(model, toy_map):
    with pytest.raises(MeshError, match=r"centimetres; give mm_per_unit=10"):
        IctSource(model[0], IctOptions(region_map=toy_map), 0).plan()
    IctSource(model[0], IctOptions(region_map=toy_map, mm_per_unit=10.0, expressions=1), 0).plan()


@pytest.fixture(scope="module")
def published(data_dir: Path, tmp_path_factory):
    """A small part of the real model as published, and its arrays."""
    folder = tmp_path_factory.mktemp("ict") / "FaceXModel"
    script = data_dir / "ict" / "unpack.py"
    subprocess.run([sys.executable, script, folder, "--modes", "6", "--expressions", "10"], check=True)
    yield folder, np.load(data_dir / "ict" / "ict_facekit_light.npz")
    shutil.rmtree(folder)


def test_the_published_model_is_reproduced(published, tmp_path):
    folder, model = published
    path = tmp_path / "ict.json"
    RegionMap("ict", 26719, 52220, faces_sha256(model["faces"]), 10.0, model["lm68"], {}, {}).save(path)
    plan, heads = heads_of(IctSource(folder, IctOptions(subjects=2, expressions=2, region_map=str(path)), seed=0))
    assert np.array_equal(plan.faces, model["faces"])
    neutral = 10 * model["neutral"].astype(np.float64)
    modes = 10 * model["id_delta"][:6].astype(np.float64)
    names, deltas = [str(n) for n in model["ex_names"]], model["ex_delta"]
    cheeks = sum(10 * w * deltas[names.index(s)].astype(np.float64) for s, w in BY_NAME["cheek_blowing"].shapes.items())
    assert np.abs(plan.shared["ict_neutral"] - neutral).max() < 1e-4
    assert np.abs(plan.shared["ict_identity"] - modes).max() < 1e-4
    for head in plan.heads:
        expected = neutral + np.einsum("k,kvc->vc", identity_coefficients(0, head.spec["number"], 6, 1.0, 2.5), modes)
        if head.expression == "cheek_blowing":
            expected += head.row["intensity"] * cheeks
        assert np.abs(heads[head.subject, head.expression].astype(np.float32) - expected).max() < 1e-4


def test_the_shipped_region_map_fits_the_published_model(published):
    folder, model = published
    plan = IctSource(folder, IctOptions(subjects=1, expressions=1), 0).plan()
    assert plan.region_map.name == "ict"
    assert np.array_equal(plan.faces, model["faces"])
    assert plan.region_map.landmarks68.tolist() == model["lm68"].tolist()
