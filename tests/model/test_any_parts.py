"""A model of parts that no code has heard of: trained, fitted, swapped, and told apart from models of other parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from facegraft_model.checkpoints import checkpoint as checkpoints
from facegraft_model.config import Config
from facegraft_model.data.ids import DataError
from facegraft_model.errors import ModelError
from facegraft_model.field import FaceField
from facegraft_model.fitting.commands import fit_dataset
from facegraft_model.fitting.fits import load_fits
from facegraft_model.testing import made_up_parts
from facegraft_model.training.runlog import read_metrics
from facegraft_model.training.train import train

from facegraft.parts import Parts


@pytest.fixture(scope="module", params=[1, 8], ids=lambda count: f"{count} parts")
def parts(request: pytest.FixtureRequest) -> Parts:
    return made_up_parts(request.param)


@pytest.fixture(scope="module")
def samples(write_spheres: Callable[..., Path], parts: Parts) -> Path:
    return write_spheres(parts=parts, points=60 * (len(parts) + 1))


@pytest.fixture(scope="module")
def run(samples: Path, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ["train.steps=40", "train.lr=3e-3", "train.code_lr=2e-2", "data.stage=60", "loss.dense=100"]
    folder = tmp_path_factory.mktemp("any") / "run"
    train(samples, folder, tiny.with_settings(settings), device="cpu", progress=False)
    return folder


def test_nets_codes_and_stages_are_those_of_the_parts(run: Path, parts: Parts) -> None:
    field = FaceField.load(run)
    assert field.parts == parts
    assert [spec.name for spec in field.specs] == ["exp", *parts, "rem"] == list(field.nets)
    assert list(field.code_dims.items()) == [("exp", 5), *((name, 4) for name in parts), ("rem", 6)]
    assert [(spec.stage_from, spec.stage_to) for spec in field.specs] == [(i, i + 1) for i in range(len(parts) + 2)]
    assert all(field.landmark_ids[name] == list(parts.landmarks(name)) for name in parts)
    assert all(hasattr(field, f"{name}_metric") for name in parts)


def test_training_learns_distances_and_the_landmarks_of_every_stage(run: Path) -> None:
    records = read_metrics(run)
    for term in ("sdf", "landmark_generation"):
        assert records[-1][term] < 0.5 * records[0][term], term


def test_a_part_is_swapped_by_its_code_and_nothing_else_moves(run: Path, samples: Path, parts: Parts, tmp_path: Path) -> None:
    changes = {"steps": 4, "surface": 32, "near": 16, "free": 8}
    fits = fit_dataset(run, samples, tmp_path / "fits", origin=None, split=None, changes=changes, device="cpu")
    assert set(parts.head_columns) < set(fits.items[0])
    assert fits.codes.keys() == {"exp", *parts, "rem"}
    fits = load_fits(tmp_path / "fits")
    host, donor = fits.codes_of(fits.index("anna-bert")), fits.codes_of(fits.index("cleo_neutral"))
    assert "exp" not in host
    last = list(parts)[-1]
    swapped = {**host, last: donor[last]}
    points = 0.55 * torch.nn.functional.normalize(torch.randn(1, 4000, 3, generator=torch.Generator().manual_seed(0)), dim=2)
    with torch.no_grad():
        change = (fits.field.sdf(points, swapped) - fits.field.sdf(points, host)).abs()[0]
    template = fits.field.template_points[fits.field.template_parts == parts.label(last)].mean(0)
    near = torch.nn.functional.cosine_similarity(points[0], template[None]) > 0.5
    assert float(change[near].max()) > 0
    assert float(change[~near].max()) == 0  # out of its window


def test_other_parts_than_the_models_are_refused(
    run: Path, parts: Parts, spheres: Path, write_spheres: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"region set is 'eyes', the model's 'patches\d'; parts are \['nose', 'eyes', 'mouth'\]"):
        fit_dataset(run, spheres, tmp_path / "fits", device="cpu")
    fewer = Parts(parts.region_set, made_up_parts(len(parts) + 1).entries)
    with pytest.raises(DataError, match=r"than the model was trained in: parts are \['patch_a', 'patch_b'.*make samples"):
        fit_dataset(run, write_spheres(parts=fewer), tmp_path / "fits", device="cpu")


def test_a_checkpoint_names_its_parts_and_one_without_any_is_refused(run: Path, parts: Parts, tmp_path: Path) -> None:
    found = checkpoints.load(run)
    assert Parts.from_json(found.state["id_table"]["parts"]) == parts
    table = {name: value for name, value in found.state["id_table"].items() if name != "parts"}
    old = checkpoints.save(tmp_path, 3, found.tensors, {}, {**found.state, "id_table": table})
    with pytest.raises(ModelError, match="names no parts: it was made by an older facegraft with fixed parts; train anew"):
        FaceField.load(old)
