"""Fitting codes with frozen weights: heads of the field's own are found again, and fits survive the disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from facegraft_model.config import Config, FitConfig
from facegraft_model.data.batches import BatchSource
from facegraft_model.data.ids import DataError
from facegraft_model.errors import ModelError
from facegraft_model.fitting.fit import FittedCodes, fit_samples, optimise_codes, predict_landmarks
from facegraft_model.fitting.fits import load_fits, save_fits
from facegraft_model.method import Codes, Field, TemplateFacts
from facegraft_model.models import build_field, load_field
from torch import Tensor

KEYS = ["eve_smile", "anna-bert", "eve_neutral", "anna_neutral"]


@pytest.fixture(scope="module")
def field(trained: Path) -> Field:
    return load_field(trained)


@pytest.fixture
def quick(tiny: Config) -> FitConfig:
    """Three iterations of random starts."""
    return replace(tiny.fit, steps=3, init="random")


def fitted(field: Field, samples: Path, keys: list[str], fit: FitConfig, **options: Any) -> FittedCodes:
    return fit_samples(field, str(samples), keys, fit, **options)[0]


def samples_of(field: Field, codes: Codes, count: int, seed: int) -> dict[str, Tensor]:
    """Points around a decoded surface with the field's own distances and normals, and points on it, found by Newton's method."""
    g = torch.Generator().manual_seed(seed)
    items = len(next(iter(codes.values())))
    near = torch.nn.functional.normalize(torch.randn(items, count, 3, generator=g), dim=-1)
    near = near * (0.55 + 0.06 * torch.randn(items, count, 1, generator=g))
    surface = near
    with torch.no_grad():
        for _ in range(8):
            sdf, grad = field.sdf_and_grad(surface, codes)
            surface = surface - sdf[..., None] * grad / grad.square().sum(-1, keepdim=True)
        batch = {"item": torch.arange(items)}
        for name, points in (("surface", surface), ("near", near), ("free", near[:, :0])):
            sdf, grad = field.sdf_and_grad(points, codes)
            normals = torch.nn.functional.normalize(grad, dim=-1)
            batch |= {f"{name}_points": points, f"{name}_sdf": sdf, f"{name}_normals": normals}
    return batch


# -- codes -----------------------------------------------------------------------------------------------------------------


def test_heads_that_the_field_made_are_found_again(field: Field, tiny: Config) -> None:
    """Codes between those of trained heads: after the fit the field is nearly the one that the points came from."""
    small, large = (field.id_table.subject(name) for name in ("anna", "cleo"))
    codes = {
        name: torch.stack([0.2 * table[small] + 0.8 * table[large], 0.9 * table[small] + 0.1 * table[large]])
        for name, table in field.tables.items()
        if name != "exp"
    }
    batch, held_out = samples_of(field, codes, 150, 0), samples_of(field, codes, 400, 1)
    start = {name: field.code_statistics(name).mean.expand(2, -1) for name in codes}
    fit = replace(tiny.fit, steps=40, lr=0.05, code=0.0)
    found = optimise_codes(field, lambda _: batch, dict.fromkeys(codes, torch.arange(2)), fit, seed=0)
    errors = [
        (field.sdf(held_out["near_points"], each) - held_out["near_sdf"]).abs().mean(1) for each in (start, found.codes)
    ]
    assert (errors[0] > 0.01).all()
    assert (errors[1] < 0.25 * errors[0]).all()
    on_surface = field.sdf(batch["surface_points"], found.codes).abs().mean(1)
    torch.testing.assert_close(found.errors_mm, field.mm_per_unit * on_surface)


def test_a_subject_that_was_held_out_is_fitted(field: Field, write_spheres: Callable[..., Path], tiny: Config) -> None:
    """A sphere of another radius than the mean head's."""
    samples = write_spheres(radii={"anna": 0.5, "bert": 0.5, "cleo": 0.6, "dave": 0.6, "eve": 0.6})
    fit = replace(tiny.fit, steps=40, lr=0.05, code=1.0)
    before = fitted(field, samples, ["eve_neutral"], replace(fit, steps=1, lr=1e-9))
    after = fitted(field, samples, ["eve_neutral"], fit)
    assert after.errors_mm[0] < 0.5 * before.errors_mm[0]


def test_fitting_leaves_the_model_as_it_was(field: Field, spheres: Path, quick: FitConfig) -> None:
    before = {name: tensor.clone() for name, tensor in field.state_dict().items()}
    trainable = [name for name, parameter in field.named_parameters() if parameter.requires_grad]
    fitted(field, spheres, KEYS[:1], quick)
    assert all(torch.equal(tensor, before[name]) for name, tensor in field.state_dict().items())
    assert trainable == [name for name, parameter in field.named_parameters() if parameter.requires_grad]
    assert all(parameter.grad is None for parameter in field.parameters())


def test_results_come_in_the_order_of_the_keys_and_repeat(field: Field, spheres: Path, quick: FitConfig) -> None:
    """Scans and composites are fitted apart; composites are neutral and get no expression code."""
    reports: list[tuple[int, int]] = []
    codes, rows = fit_samples(
        field, str(spheres), KEYS, quick, report=lambda done, steps, loss: reports.append((done, steps))
    )
    assert [row["key"] for row in rows] == KEYS
    assert {name: tuple(code.shape) for name, code in codes.codes.items()} == {
        "exp": (4, 5),
        **dict.fromkeys(("nose", "eyes", "mouth"), (4, 4)),
        "rem": (4, 6),
    }
    assert codes.codes["exp"][1].abs().max() == 0 and (codes.codes["exp"][[0, 2, 3]].abs().amax(1) > 0).all()
    assert torch.isfinite(codes.errors_mm).all()
    assert reports == [(3, 6), (6, 6)]
    again = fitted(field, spheres, KEYS, quick)
    assert all(torch.equal(again.codes[name], code) for name, code in codes.codes.items())
    assert torch.equal(again.errors_mm, codes.errors_mm)
    other = fitted(field, spheres, KEYS, quick, seed=1)
    assert not torch.equal(other.codes["nose"], codes.codes["nose"])


def test_the_expressions_of_a_subject_share_its_identity(
    field: Field, write_spheres: Callable[..., Path], spheres: Path, quick: FitConfig
) -> None:
    keys = ["anna_neutral", "eve_neutral", "anna_smile", "eve_smile"]
    codes = fitted(field, spheres, keys, replace(quick, items=2), share_identity=True).codes
    for name in ("nose", "eyes", "mouth", "rem"):
        assert torch.equal(codes[name][0], codes[name][2]) and torch.equal(codes[name][1], codes[name][3])
        assert not torch.equal(codes[name][0], codes[name][1])
    assert not torch.equal(codes["exp"][0], codes["exp"][2])
    apart = fitted(field, spheres, keys, quick).codes
    assert not torch.equal(apart["nose"][0], apart["nose"][2])


def test_composites_of_one_recipient_do_not_share_their_parts(
    field: Field, write_spheres: Callable[..., Path], quick: FitConfig
) -> None:
    people = {"subject": "anna", "recipient": "anna", "expression": "neutral", "split": "train", "origin": "composite"}
    rows = {
        f"anna-{donor}": {**people, **dict.fromkeys(("donor_nose", "donor_eyes", "donor_mouth"), donor)}
        for donor in ("bert", "cleo")
    }
    codes = fitted(field, write_spheres(rows=rows), sorted(rows), quick, share_identity=True).codes
    assert not torch.equal(codes["nose"][0], codes["nose"][1])


def test_a_fit_without_surface_points_has_an_error_too(field: Field, spheres: Path, quick: FitConfig) -> None:
    result = fitted(field, spheres, ["eve_neutral"], replace(quick, surface=0))
    assert 0 < result.errors_mm[0] < 100


def test_the_prior_draws_codes_to_the_trained_ones(field: Field, spheres: Path, quick: FitConfig) -> None:
    strong = replace(quick, steps=15, lr=0.02)
    norm = fitted(field, spheres, ["eve_neutral"], replace(strong, code=1e9))
    assert all(code.abs().max() < 0.05 for code in norm.codes.values())
    gaussian = fitted(field, spheres, ["eve_neutral"], replace(strong, prior="gaussian", gaussian=1e9, init="mean"))
    for name, code in gaussian.codes.items():
        torch.testing.assert_close(code[0], field.code_statistics(name).mean, rtol=0, atol=0.05)


def test_a_loss_that_is_no_number_says_what_to_lower(field: Field, spheres: Path, quick: FitConfig) -> None:
    with pytest.raises(ModelError, match=r"the loss became nan at iteration \d+ of the fit; lower fit\.lr"):
        fitted(field, spheres, ["eve_neutral"], replace(quick, lr=1e30))


# -- landmarks -------------------------------------------------------------------------------------------------------------


def test_given_landmarks_are_drawn_to_the_templates(field: Field, spheres: Path, tiny: Config) -> None:
    fit = replace(tiny.fit, steps=15, lr=0.05)
    with BatchSource(spheres, items=1, surface=0, near=0, free=0, stage=0, split=None, keys=["eve_smile"]) as source:
        landmarks = source.batch(0)["landmarks"][:, 0]
    misses = {}
    for option in ("none", "given"):
        codes = fitted(field, spheres, ["eve_smile"], fit, landmarks=option).codes
        misses[option] = float((field.warp(landmarks, codes) - field.template_landmarks).abs().mean())
    assert misses["given"] < misses["none"]
    assert torch.isfinite(
        fitted(field, spheres, ["eve_smile"], replace(fit, steps=2), landmarks="predicted").errors_mm
    ).all()


def test_predicted_landmarks_are_the_nearest_points(field: Field) -> None:
    points = torch.randn(2, 50, 3, generator=torch.Generator().manual_seed(0))
    predicted = predict_landmarks(field, points)
    for b in range(2):
        for number, landmark in enumerate(field.template_landmarks):
            nearest = min(points[b], key=lambda point: float((point - landmark).norm()))
            assert torch.equal(predicted[b, number], nearest)


def test_landmarks_need_a_map_to_the_template(
    spheres: Path, tiny: Config, id_table: Any, template: TemplateFacts, field: Field
) -> None:
    settings = [
        "model.method=deepsdf",
        "baseline.deepsdf_dim=4",
        "baseline.deepsdf_width=16",
        "baseline.deepsdf_layers=4",
    ]
    deepsdf = build_field(tiny.with_settings(settings), id_table, template, 100.0)
    deepsdf.provenance = field.provenance
    with pytest.raises(ModelError, match="landmarks=given: method deepsdf has no map to a template"):
        fitted(deepsdf, spheres, ["eve_neutral"], tiny.fit, landmarks="given")


# -- samples that do not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mm_per_unit": 50.0}, r"mm_per_unit is 50\.0, the model's 100\.0"),
        ({"topology": "cube"}, r"topology\.name is 'cube', the model's 'sphere'"),
    ],
    ids=["unit", "topology"],
)
def test_samples_in_other_coordinates_are_refused(
    field: Field, write_spheres: Callable[..., Path], quick: FitConfig, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=f"other coordinates than the model was trained in: {message}"):
        fitted(field, write_spheres(**change), ["eve_neutral"], quick)


def test_an_item_or_a_subject_that_is_unknown_is_named(field: Field, spheres: Path, quick: FitConfig) -> None:
    with pytest.raises(DataError, match=r"no item 'eve_netral' \(did you mean 'eve_neutral'\?\)"):
        fitted(field, spheres, ["eve_netral"], quick)
    with pytest.raises(DataError, match=r"item eve_neutral: subject 'eve' is not in the id table of 4 subjects"):
        BatchSource(spheres, items=1, surface=1, near=1, free=1, stage=0, split="test", id_table=field.id_table)


# -- fits on disk ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fits(field: Field, trained: Path, spheres: Path, quick: FitConfig, tmp_path: Path) -> tuple[Path, FittedCodes]:
    codes, rows = fit_samples(field, str(spheres), KEYS, quick)
    path = tmp_path / "fits"
    save_fits(
        path, field, trained, rows, codes.codes, codes.errors_mm, {"steps": 3, "landmarks": "none"}, samples=spheres
    )
    return path, codes


def test_fits_survive_the_disk(fits: tuple[Path, FittedCodes], field: Field, trained: Path, spheres: Path) -> None:
    path, codes = fits
    loaded = load_fits(path)
    assert len(loaded) == 4 and [item["key"] for item in loaded.items] == KEYS
    assert {name: value for name, value in loaded.items[1].items() if name != "error_mm"} == {
        "key": "anna-bert",
        "subject": "anna",
        "expression": "neutral",
        "split": "train",
        "recipient": "anna",
        **dict.fromkeys(("donor_nose", "donor_eyes", "donor_mouth"), "bert"),
        "origin": "composite",
    }
    errors = torch.tensor([item["error_mm"] for item in loaded.items])
    torch.testing.assert_close(errors, codes.errors_mm, rtol=0, atol=1e-5)
    assert loaded.codes.keys() == codes.codes.keys()
    assert all(torch.equal(loaded.codes[name], code) for name, code in codes.codes.items())
    assert torch.equal(loaded.alignment, torch.eye(4, dtype=torch.float64).repeat(4, 1, 1))
    assert loaded.settings == {"steps": 3, "landmarks": "none"}
    assert loaded.run == trained.resolve() and loaded.samples == spheres.resolve()
    assert loaded.codes_of(0).keys() == codes.codes.keys() and "exp" not in loaded.codes_of(1)
    points = torch.randn(1, 9, 3)
    assert torch.equal(loaded.field.sdf(points, loaded.codes_of(2)), field.sdf(points, loaded.codes_of(2)))
    assert loaded.index("eve_neutral") == 2
    with pytest.raises(ModelError, match="no fit of 'bert'; it has eve_smile, anna-bert"):
        loaded.index("bert")


def test_fits_may_be_written_again_but_not_over_other_files(
    fits: tuple[Path, FittedCodes], field: Field, trained: Path, tmp_path: Path
) -> None:
    path, codes = fits
    rows = [{"key": key, "origin": "scan"} for key in KEYS]
    alignment = torch.randn(4, 4, 4, dtype=torch.float64)
    save_fits(path, field, trained, rows, codes.codes, codes.errors_mm, {}, alignment=alignment)
    again = load_fits(path)
    assert again.samples is None and again.settings == {} and torch.equal(again.alignment, alignment)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ModelError, match="mine is not empty and holds no fits"):
        save_fits(tmp_path / "mine", field, trained, rows, codes.codes, codes.errors_mm, {})


def test_damaged_fits_are_refused(fits: tuple[Path, FittedCodes], tmp_path: Path) -> None:
    path, _ = fits
    file = path / "codes.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ModelError, match=r"codes\.safetensors was changed or damaged; fit again"):
        load_fits(path)
    file.unlink()
    with pytest.raises(ModelError, match=r"fits holds no fits: .*facegraft model fit"):
        load_fits(path)
    file.write_bytes(data)
    (path / "fits.json").write_text('{"format": "other"}')
    with pytest.raises(ModelError, match=r"fits\.json is not a file of fits"):
        load_fits(path)
    with pytest.raises(ModelError, match="nothing holds no fits"):
        load_fits(tmp_path / "nothing")


def test_a_run_may_move_but_its_checkpoint_must_be_the_same(
    fits: tuple[Path, FittedCodes], trained: Path, tmp_path: Path
) -> None:
    path, codes = fits
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    document = json.loads((path / "fits.json").read_text())
    document["run"] = str(tmp_path / "gone")
    (path / "fits.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"checkpoint .*gone.* is missing; name the run's folder with --run"):
        load_fits(path)
    loaded = load_fits(path, run=moved)
    assert loaded.run == moved and torch.equal(loaded.codes["rem"], codes.codes["rem"])
    state = moved / "checkpoints" / document["checkpoint"] / "state.json"
    state.write_bytes(state.read_bytes() + b" ")
    with pytest.raises(ModelError, match=r"is not the checkpoint that .*fits was made with; fit again"):
        load_fits(path, run=moved)
