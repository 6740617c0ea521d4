"""Models that ship: published small and without traces of the machine, found by name, and as good as before."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_model
from facegraft_model import FaceField, published
from facegraft_model.checkpoints.tensor_file import CheckpointError
from facegraft_model.decoding.decode import decode
from facegraft_model.errors import ModelError
from facegraft_model.field import CascadeField
from facegraft_model.fitting.fits import load_fits
from facegraft_model.method import Field
from facegraft_model.models import load_field
from facegraft_model.pretrained import shipped
from facegraft_model.published import LARGEST_ERROR_MM, PublishError, halvable, publish
from facegraft_model.training.train import train
from safetensors import safe_open


@pytest.fixture(scope="module")
def models(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pretrained models with one that was trained on spheres."""
    folder = tmp_path_factory.mktemp("models")
    card = tmp_path_factory.mktemp("card") / "card.md"
    card.write_text("## Data\n\nSpheres of two radii.\n")
    publish(trained, folder / "ball-head", card=card)
    return folder


@pytest.fixture
def installed(models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The models as if they were shipped, in a working directory without any run."""
    monkeypatch.setattr(shipped, "SEARCHED", (models,))
    monkeypatch.chdir(tmp_path)
    return models


def heads(field: Field) -> dict[str, torch.Tensor]:
    rows = torch.tensor([field.id_table.subject(name) for name in ("anna", "dave")])
    return {name: table[rows] for name, table in field.tables.items() if name != "exp"}


def test_the_surface_is_where_it_was(trained: Path, models: Path) -> None:
    """Neutral heads at other points than those that the choice was measured at, and random codes."""
    one, two = load_field(trained), FaceField.pretrained("ball-head", searched=[models])
    assert not two.training and not any(parameter.requires_grad for parameter in two.parameters())
    assert all(tensor.dtype == one.state_dict()[name].dtype for name, tensor in two.state_dict().items())
    assert (two.config, two.id_table, two.mm_per_unit) == (one.config, one.id_table, one.mm_per_unit)
    codes, others = heads(one), heads(two)
    for head in range(2):
        mesh = decode(one, {name: code[head : head + 1] for name, code in codes.items()}, resolution=48).mesh
        points = torch.from_numpy(mesh.vertices).float()[None]
        with torch.no_grad():
            before, after = (
                field.sdf(points, {name: code[head : head + 1] for name, code in each.items()})
                for field, each in ((one, codes), (two, others))
            )
        assert 100.0 * float((after - before).abs().max()) < LARGEST_ERROR_MM
    assert one.topology is not None and two.topology is not None
    assert torch.equal(one.topology.vertices, two.topology.vertices)


def test_most_of_it_has_sixteen_bits_but_no_coordinate(trained: Path, models: Path) -> None:
    kinds: dict[str, str] = {}
    with safe_open(models / "ball-head" / "model.safetensors", framework="np") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    for name in ("template_points", "template_landmarks", "topology_vertices"):
        assert kinds[name] == "F32"
    assert kinds["topology_faces"] == "I64" and list(kinds.values()).count("F16") > 20
    whole = next((trained / "checkpoints").glob("step_*/model.safetensors")).stat().st_size
    assert (models / "ball-head" / "model.safetensors").stat().st_size < 0.75 * whole


@pytest.mark.slow
def test_tensors_that_rounding_harms_keep_thirty_two_bits(trained: Path) -> None:
    field = load_field(trained)
    loose, error = halvable(field)
    assert 0 < error <= 0.5 * LARGEST_ERROR_MM
    strict, less = halvable(field, 1e-4)
    assert less <= 1e-4 and strict < loose


def test_nothing_of_this_machine_is_left(models: Path, trained: Path) -> None:
    folder = models / "ball-head"
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "model.safetensors", "state.json"]
    for file in folder.iterdir():
        data = file.read_bytes()
        for trace in (str(trained.parent), str(models), socket.gethostname()):
            assert trace.encode() not in data, (file, trace)
    state = json.loads((folder / "state.json").read_bytes())["state"]
    assert set(state) == {"method", "config", "id_table", "mm_per_unit", "seed", "data", "published"}
    card = (folder / "README.md").read_text()
    assert card.startswith("# ball-head\n\n## Data\n\nSpheres of two radii.\n") and state["data"]["fingerprint"] in card


def test_a_state_with_a_path_is_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = published.load_run(trained)
    found.state["data"]["coordinates"]["frame"] = "/home/somebody/frame"
    monkeypatch.setattr(published, "load_run", lambda run: found)
    with pytest.raises(PublishError, match=r"state\.data\.coordinates\.frame is '/home/somebody/frame'"):
        publish(trained, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_is_too_large_is_refused_and_leaves_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "MAX_BYTES", 20_000)
    with pytest.raises(PublishError, match=r"would have 0\.\d MB, more than the 0\.02 MB that may ship"):
        publish(trained, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_only_published_models_are_replaced(models: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "ball-head", tmp_path / "ball-head")
    publish(models / "ball-head", tmp_path / "ball-head")  # of itself: nothing is rounded twice
    one, two = ((each / "ball-head" / "model.safetensors").read_bytes() for each in (models, tmp_path))
    assert one == two
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(PublishError, match="holds something else than a published model"):
        publish(trained, tmp_path / "mine")
    with pytest.raises(PublishError, match="not 'My Model'"):
        publish(trained, tmp_path / "My Model")


# -- by name --


def test_a_name_is_taken_wherever_a_run_is(installed: Path) -> None:
    field = load_field("ball-head")
    assert field.provenance["pretrained"] == {
        "name": "ball-head",
        "sha256": published.atomic.sha256_file(installed / "ball-head" / "model.safetensors"),
    }
    assert shipped.names() == ("ball-head",)
    assert type(FaceField.pretrained("ball-head")) is type(FaceField.load("ball-head")) is CascadeField
    with pytest.raises(CheckpointError, match="no run bal-head: there is no such folder; pretrained models are ball-head"):
        load_field("bal-head")
    with pytest.raises(CheckpointError, match="no pretrained model 'x'; pretrained models are ball-head"):
        FaceField.pretrained("x")
    with pytest.raises(CheckpointError, match="this installation has no pretrained models"):
        shipped.find_run("x", [])


def test_a_folder_comes_before_a_name(installed: Path, trained: Path) -> None:
    shutil.copytree(trained, "ball-head")
    assert shipped.find_run("ball-head") == Path("ball-head")
    assert "pretrained" not in load_field("ball-head").provenance


@pytest.mark.slow
def test_commands_take_a_name_and_fits_of_it_travel(
    installed: Path, trained: Path, spheres: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_model("fit", "ball-head", spheres, "-o", "fits", "--steps", 2, "--quiet")
    run_model("generate", "ball-head", "--count", 1, "-o", "random", "--resolution", 16, "--no-picture", "--quiet")
    run_model("components", "ball-head", "--parts", "nose", "--components", 1, "-o", "walk", "--resolution", 16, "--no-picture", "--quiet")
    document = json.loads(Path("fits/fits.json").read_text())
    assert document["pretrained"] == document["run"] == "ball-head"
    # Another machine: the model lies elsewhere.
    elsewhere = tmp_path / "site-packages" / "models"
    shutil.copytree(installed, elsewhere)
    monkeypatch.setattr(shipped, "SEARCHED", (elsewhere,))
    fits = load_fits("fits")
    assert fits.run == elsewhere / "ball-head" and len(fits) == 2
    # Another version of the same name, and none.
    publish(trained, elsewhere / "ball-head")
    state = (elsewhere / "ball-head" / "state.json").read_bytes()
    assert state == (installed / "ball-head" / "state.json").read_bytes()  # published twice, the same bytes
    load_fits("fits")
    shutil.rmtree(elsewhere / "ball-head")
    train(spheres, Path("other"), load_field(trained).config.with_settings(["train.steps=1"]), device="cpu", progress=False)
    publish("other", elsewhere / "ball-head")
    with pytest.raises(ModelError, match="made with another version of the pretrained model ball-head"):
        load_fits("fits")
    monkeypatch.setattr(shipped, "SEARCHED", ())
    with pytest.raises(CheckpointError, match="no pretrained model 'ball-head'"):
        load_fits("fits")


def test_fits_of_a_published_folder_find_it_by_its_path(models: Path, spheres: Path, tmp_path: Path) -> None:
    run_model("fit", models / "ball-head", spheres, "-o", tmp_path / "fits", "--steps", 1, "--quiet")
    assert json.loads((tmp_path / "fits" / "fits.json").read_text())["pretrained"] is None
    assert load_fits(tmp_path / "fits").run == (models / "ball-head").resolve()


def test_the_command_says_what_it_wrote(trained: Path, tmp_path: Path) -> None:
    output = run_model("publish", trained, "-o", tmp_path / "ball-head")
    assert "tensors in 16 bits" in output and "MB" in output
    assert "Not stated." in (tmp_path / "ball-head" / "README.md").read_text()


def test_scans_are_measured_evenly(trained: Path) -> None:
    ids = published.measured_heads(load_field(trained), 3)
    assert {name: len(rows) for name, rows in ids.items()} == dict.fromkeys(ids, 3)
    assert np.all(np.diff(ids["expression"].numpy()) > 0)


@pytest.mark.parametrize("name", shipped.names() or [pytest.param("", marks=pytest.mark.skip("no model ships yet"))])
def test_what_ships_loads_and_says_what_it_is(name: str) -> None:
    folder = shipped.shipped(name)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= published.MAX_BYTES
    assert load_field(name).provenance["pretrained"]["name"] == name
    card = (folder / "README.md").read_text()
    assert all(f"## {title}" in card for title in ("Data", "Licence", "Scores", "Limits")) and "Not stated." not in card
