"""Each loss term against its formula written out for one item and one point at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from facegraft_model.config import Config, LossConfig
from facegraft_model.errors import ModelError
from facegraft_model.field import CascadeField
from facegraft_model.losses import STAGE_TERMS, TERMS, code_norm, eikonal, length, normal_deviation, robust
from facegraft_model.method import mahalanobis
from facegraft_model.training.step import split_batch
from torch import Tensor

F64 = torch.float64
Batch = dict[str, Tensor]
ONES = LossConfig(**dict.fromkeys(Config().to_json()["loss"], 1.0))
STEP = torch.zeros(())


def movable(field: CascadeField, name: str, points: Tensor, codes: Batch) -> Tensor:
    """Which points [n,3] before a net it can move: those in the outer ellipsoid about its landmarks, where there is a window."""
    if not field.config.model.window or name not in ("nose", "eyes", "mouth"):
        return torch.ones(len(points), dtype=torch.bool)
    centre = field.condition(codes).landmarks[name][0].mean(0) + getattr(field, f"{name}_offset")
    metric = getattr(field, f"{name}_metric")
    radii = [float((x - centre) @ metric @ (x - centre)) ** 0.5 for x in points]
    return torch.tensor(radii) < field.config.model.window_outer


def one_by_one(field: CascadeField, batch: Batch) -> dict[str, float]:
    """The terms of the parts model with all weights 1, by loops over items, nets and points, from public functions of the field alone."""
    names = ["exp", "nose", "eyes", "mouth", "rem"]
    count = len(batch["item"])
    sums = dict.fromkeys(ONES.__dict__, 0.0)
    codes = field.codes_of(batch)
    for b in range(count):
        own = {name: code[b : b + 1] for name, code in codes.items()}
        composite = bool(batch["is_composite"][b])
        used = {name: code for name, code in own.items() if not (name == "exp" and composite)}

        def through(points: Tensor, used: dict[str, Tensor] = used) -> list[Tensor]:
            stages = field.stages(points[None], used)
            return [
                points,
                *([] if "exp" in used else [points]),
                *(stages[name][0] for name in names if name in stages),
            ]

        sets = {
            name: (
                batch[f"{name}_points"][b],
                batch.get(f"{name}_sdf", torch.zeros(count, 99, dtype=F64))[b],
                batch[f"{name}_normals"][b],
            )
            for name in ("surface", "near", "free")
        }
        total = sum(len(points) for points, _, _ in sets.values())
        for points, truth, normals in sets.values():
            sdf, grad = field.sdf_and_grad(points[None], used)
            neutral = {name: code for name, code in used.items() if name != "exp"}
            at_neutral = field.sdf_and_grad(through(points)[1][None], neutral).grad
            weights = field.condition(used)
            remainder = field.nets["rem"](through(points)[4][None], weights.weights["rem"]).out
            for i in range(len(points)):
                sums["sdf"] += abs(float(sdf[0, i] - truth[i])) / total
                size = float(torch.linalg.norm(grad[0, i]))
                sums["eikonal"] += abs(size - 1) / total
                sums["normal"] += (1 - float(grad[0, i] @ normals[i]) / size) / total
                sums["correction"] += abs(float(remainder[0, i, 3])) / total
                if not composite:
                    sums["eikonal_neutral"] += abs(float(torch.linalg.norm(at_neutral[0, i])) - 1) / total
        landmarks = batch["landmarks"][b]
        generated = field.condition(own).landmarks
        for number, name in enumerate(names):
            if not (name == "exp" and composite):
                truth = landmarks[number][field.landmark_ids[name]]
                sums["landmark_generation"] += float((generated[name][0] - truth).abs().mean())
            sums["landmark_consistency"] += float(
                (through(landmarks[0])[number + 1] - landmarks[number + 1]).abs().mean()
            )
            stages = batch["stage_points"][b]
            moved = through(stages[0])
            displacement = moved[number + 1] - moved[number]
            wrong = (displacement - (stages[number + 1] - stages[number])).abs().mean(1)
            inside = batch["stage_part_labels"] == number  # 1 nose, 2 eyes, 3 mouth: the number of the net
            around = ~inside & movable(field, name, moved[number], own)
            groups = [wrong[inside], wrong[around]] if name in ("nose", "eyes", "mouth") else [wrong]
            sums["dense"] += sum(float(group.mean()) for group in groups if len(group))
        sums["code"] += sum(float(code.square().mean()) for code in used.values())
        if bool(batch["is_neutral"][b]):
            surface = batch["surface_points"][b]
            sums["neutral"] += float((through(surface)[1] - surface).square().mean())
        labelled = torch.cat([batch["surface_points"][b], batch["near_points"][b]])
        labels = torch.cat([batch["surface_parts"][b], batch["near_parts"][b]])
        steps = through(labelled)
        for part in (1, 2, 3):
            around = (labels != part) & movable(field, names[part], steps[part], own)
            if around.any():
                sums["locality"] += float(torch.linalg.norm(steps[part + 1] - steps[part], dim=1)[around].mean())
    return {name: value / count for name, value in sums.items()}


def test_every_term_is_its_formula(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch], tiny: Config
) -> None:
    field = make_field(config=replace(tiny, loss=ONES))
    batch = make_batch(items=3, surface=60, near=20, stage=60)  # so many that some lie around a part
    assert batch["is_composite"].tolist() == [False, False, True] and batch["is_neutral"].tolist() == [
        True,
        False,
        False,
    ]
    with torch.no_grad():
        terms = field.training_terms(batch, field.codes_of(batch), STEP)
        expected = one_by_one(field, batch)
    assert terms.keys() == expected.keys()
    for name, value in terms.items():
        # A displacement of exactly 0 has length 1e-8 (`length` stays differentiable there).
        assert float(value) == pytest.approx(expected[name], rel=1e-9, abs=3e-8), name


def test_terms_are_weighted_and_those_of_weight_zero_are_left_out(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch], tiny: Config
) -> None:
    batch = make_batch()
    plain = make_field(config=replace(tiny, loss=ONES)).requires_grad_(False)
    paper = make_field(config=replace(tiny, loss=LossConfig())).requires_grad_(False)
    all_terms = plain.training_terms(batch, plain.codes_of(batch), STEP)
    terms = paper.training_terms(batch, paper.codes_of(batch), STEP)
    assert set(all_terms) - set(terms) == {"eikonal_neutral", "dense", "locality"}
    for name, value in terms.items():
        assert float(value) == pytest.approx(getattr(LossConfig(), name) * float(all_terms[name]), rel=1e-12)


def test_terms_of_halves_average_to_those_of_the_whole(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch]
) -> None:
    """What train.accumulate and several processes rely on."""
    field, batch = make_field().requires_grad_(False), make_batch(items=4)
    whole = field.training_terms(batch, field.codes_of(batch), STEP)
    halves = [field.training_terms(part, field.codes_of(part), STEP) for part in split_batch(batch, 2)]
    for name, value in whole.items():
        assert float(value) == pytest.approx(float(halves[0][name] + halves[1][name]) / 2, rel=1e-9), name


def test_the_code_of_a_composites_expression_is_not_regularised(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch]
) -> None:
    field, batch = make_field(), make_batch(items=3)
    composite = {name: value if name == "stage_part_labels" else value[2:] for name, value in batch.items()}
    terms = field.training_terms(composite, field.codes_of(composite), STEP)
    torch.stack(list(terms.values())).sum().backward()
    grad = field.tables["exp"].grad
    assert grad is not None and grad.abs().max() == 0


def test_samples_of_one_stage_are_refused_where_stages_are_learnt_from(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch], tiny: Config
) -> None:
    batch = make_batch()
    batch |= {"landmarks": batch["landmarks"][:, :1], "stage_points": batch["stage_points"][:, :1]}
    field = make_field()
    with pytest.raises(ModelError, match=r"hold 1 stage of the template morph.*from composites and heads together"):
        field.training_terms(batch, field.codes_of(batch), STEP)
    without = replace(tiny.loss, landmark_consistency=0.0, landmark_generation=0.0, dense=0.0)
    field = make_field(config=replace(tiny, loss=without))
    assert "sdf" in field.training_terms(batch, field.codes_of(batch), STEP)


# -- the pieces ----------------------------------------------------------------------------------------------------------


def test_lengths_and_angles() -> None:
    grad = torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]], dtype=F64, requires_grad=True)
    normals = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 0.0, 1.0]]], dtype=F64)
    torch.testing.assert_close(eikonal(grad), torch.tensor([[4.0, 0.5, 1.0]], dtype=F64), rtol=0, atol=1e-7)
    torch.testing.assert_close(normal_deviation(grad, normals), torch.tensor([[0.4, 2.0, 1.0]], dtype=F64))
    (length(grad).sum() + normal_deviation(grad, normals).sum()).backward()
    assert grad.grad is not None and torch.isfinite(grad.grad).all()


def test_the_robust_loss_is_quadratic_near_zero_and_bounded() -> None:
    scale = 0.01
    x = torch.tensor([0.0, 1e-4, 1.0, 100.0], dtype=F64)
    value = robust(x, scale)
    assert value[0] == 0 and value[1].item() == pytest.approx(1e-8 / scale, rel=1e-3)
    assert value[3] < scale and value[2].item() == pytest.approx(scale, rel=1e-3)
    assert all(a < b for a, b in pairwise(value.tolist()))


def test_the_mahalanobis_distance_of_full_rank_codes_is_the_textbooks(make_field: Callable[..., CascadeField]) -> None:
    field = make_field()
    field.tables["nose"] = torch.nn.Parameter(torch.randn(50, 4, dtype=F64, generator=torch.Generator().manual_seed(0)))
    statistics = field.code_statistics("nose")
    code = torch.randn(6, 4, dtype=F64)
    offset = code - statistics.mean
    expected = (offset * torch.linalg.solve(statistics.covariance.double(), offset.T).T).mean(1)
    torch.testing.assert_close(mahalanobis(code, statistics, floor=0.0), expected, rtol=1e-6, atol=1e-8)
    assert mahalanobis(statistics.mean[None].double(), statistics).abs().max() < 1e-10


# -- fitting ---------------------------------------------------------------------------------------------------------------


def test_fit_terms_are_those_of_training_for_each_head(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch], tiny: Config
) -> None:
    """Eq. 12: distance, eikonal, normal, correction and codes, without landmarks; a head at a time it is the training loss."""
    field, batch = make_field(config=replace(tiny, loss=replace(LossConfig(), code=tiny.fit.code))), make_batch(items=2)
    codes = field.codes_of(batch)
    terms = field.fit_terms(batch, codes, tiny.fit)
    assert terms.keys() == {"sdf", "eikonal", "normal", "correction", "code"}
    for b, part in enumerate(split_batch(batch, 2)):
        training = field.training_terms(part, field.codes_of(part), STEP)
        for name, value in terms.items():
            assert value.shape == (2,)
            assert float(value[b]) == pytest.approx(float(training[name]), rel=1e-10), name


def test_points_without_a_normal_say_nothing_about_direction(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch], tiny: Config
) -> None:
    field, batch = make_field(), make_batch(items=1)
    batch |= {f"{name}_normals": torch.zeros_like(batch[f"{name}_normals"]) for name in ("surface", "near", "free")}
    assert float(field.fit_terms(batch, field.codes_of(batch), tiny.fit)["normal"]) == 0


def test_options_of_the_fit(
    make_field: Callable[..., CascadeField], make_batch: Callable[..., Batch], tiny: Config
) -> None:
    field, batch = make_field(), make_batch(items=2)
    codes = field.codes_of(batch)
    plain = field.fit_terms(batch, codes, tiny.fit)
    assert "correction" not in field.fit_terms(batch, codes, replace(tiny.fit, correction=0.0))
    doubled = field.fit_terms(batch, codes, replace(tiny.fit, correction=2 * field.config.loss.correction))
    torch.testing.assert_close(doubled["correction"], 2 * plain["correction"])
    tolerant = field.fit_terms(batch, codes, replace(tiny.fit, robust_mm=1.0))
    bound = field.config.loss.sdf * 1.0 / field.mm_per_unit
    assert (tolerant["sdf"] < plain["sdf"]).all() and (tolerant["sdf"] < bound).all()
    gaussian = field.fit_terms(batch, codes, replace(tiny.fit, prior="gaussian", gaussian=2.0))
    expected = 2.0 * sum(mahalanobis(code, field.code_statistics(name)) for name, code in codes.items())
    torch.testing.assert_close(gaussian["code"], expected)
    without = {name: code for name, code in codes.items() if name != "exp"}
    neutral = field.fit_terms(batch, without, tiny.fit)
    torch.testing.assert_close(neutral["code"], tiny.fit.code * code_norm(without, None))


@pytest.mark.parametrize("neutral", [False, True])
@pytest.mark.parametrize("window", [False, True])
def test_fitted_parts_stay_where_the_template_has_them(
    make_field: Callable[..., CascadeField],
    make_batch: Callable[..., Batch],
    tiny: Config,
    neutral: bool,
    window: bool,
) -> None:
    """Each point one by one: the label is that of the registered point nearest to where the whole cascade takes it."""
    field, batch = make_field(window=window), make_batch(items=2, surface=150, near=50)
    codes = {name: code for name, code in field.codes_of(batch).items() if not (neutral and name == "exp")}
    term = field.fit_terms(batch, codes, replace(tiny.fit, locality=7.0))["locality"]
    for b in range(2):
        own = {name: code[b : b + 1] for name, code in codes.items()}
        points = torch.cat([batch["surface_points"][b], batch["near_points"][b]])
        stages = {name: moved[0] for name, moved in field.stages(points[None], own).items()}
        distances = torch.stack([torch.linalg.norm(field.template_points - x, dim=1) for x in stages["rem"]])
        labels = torch.tensor([int(field.template_parts[int(row.argmin())]) for row in distances])
        expected, before = 0.0, points if neutral else stages["exp"]
        for number, name in enumerate(("nose", "eyes", "mouth"), start=1):
            around = (labels != number) & movable(field, name, before, own)
            moved = torch.linalg.norm(stages[name] - before, dim=1)[around]
            expected += float(moved.mean()) if len(moved) else 0.0
            before = stages[name]
        assert len(set(labels.tolist())) > 1 and expected > 0.01
        assert float(term[b]) == pytest.approx(7.0 * expected, rel=1e-6)
    assert "locality" not in field.fit_terms(batch, codes, replace(tiny.fit, locality=0.0))


def test_every_weight_has_a_term_and_every_term_a_weight() -> None:
    assert {item.name for item in fields(LossConfig)} == set(TERMS)
    assert set(STAGE_TERMS) < set(TERMS)
