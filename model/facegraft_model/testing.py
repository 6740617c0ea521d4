"""Tests of a method's correctness: a pytest class to inherit from.

    class TestMine(FieldSuite):
        settings = ("model.method=mine", "baseline.mine_width=16")

The method must be registered in `facegraft_model.methods.METHODS`. `settings` make it small. It is tested with three sets of
made-up parts (one part, three, eight), in float64, so that gradients can be compared with finite differences.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from facegraft.parts import Part, Parts
from facegraft.vocabulary import EXP, LANDMARK_COUNT
from facegraft_model.checkpoints.checkpoint import save
from facegraft_model.checkpoints.modelstate import model_state
from facegraft_model.config import Config, DataConfig, FitConfig, ModelConfig, TrainConfig
from facegraft_model.data.ids import IdTable, head_of
from facegraft_model.errors import ModelError
from facegraft_model.method import Batch, Field, TemplateFacts, table_rows
from facegraft_model.methods import field_class
from facegraft_model.models import build_field, load_field

F64 = torch.float64
RADIUS = 0.5
"""Number of points of the template, a sphere."""
EPOCH = torch.tensor(3.0)


def made_up_parts(count: int) -> Parts:
    """`count` parts (13 at most) with names that the code does not know, each around five consecutive landmarks."""
    entries = [Part(f"patch_{chr(97 + number)}", tuple(range(5 * number, 5 * number + 5))) for number in range(count)]
    return Parts(f"patches{count}", tuple(entries))


def toy_config() -> Config:
    """A model of a few thousand parameters, and a step of a few points."""
    return Config(
        preset="toy",
        model=ModelConfig(
            width=16,
            omega=10.0,
            hyper="low-rank",
            hyper_width=16,
            hyper_rank=2,
            blend_width=8,
            landmark_width=16,
            part_dim=4,
            rem_dim=6,
            exp_dim=5,
            code_init=0.5,
        ),
        data=DataConfig(items=4, surface=12, near=6, free=4, stage=5),
        train=TrainConfig(steps=4, compile="off", validate_steps=0),
        fit=FitConfig(steps=4, items=4, surface=12, near=6, free=4, code=1e2),
    )


def toy_rows(parts: Parts) -> list[dict[str, Any]]:
    """Index rows of four heads: a neutral scan, one with a smile, a composite whose donors differ, and a neutral scan again."""

    def row(recipient: str, donors: str, expression: str, origin: str) -> dict[str, Any]:
        lenders = {column: donors[i % len(donors)] for i, column in enumerate(parts.donor_columns.values())}
        people = {"subject": recipient, "recipient": recipient, **lenders}
        return {**people, "expression": expression, "origin": origin}

    return [
        row("a", "a", "neutral", "scan"),
        row("b", "b", "smile", "scan"),
        row("a", "bc", "neutral", "composite"),
        row("c", "c", "neutral", "scan"),
    ]


def toy_template(parts: Parts) -> TemplateFacts:
    """A sphere: a cap of points for each part, and as many points of the remainder."""
    g = torch.Generator().manual_seed(1)

    def on_sphere(points: Tensor) -> Tensor:
        return RADIUS * torch.nn.functional.normalize(points, dim=-1)

    centres = on_sphere(torch.randn(len(parts), 1, 3, generator=g))
    caps = on_sphere(centres + 0.1 * torch.randn(len(parts), 20, 3, generator=g)).reshape(-1, 3)
    rest = on_sphere(torch.randn(20 * len(parts), 3, generator=g))
    labels = torch.cat([torch.arange(1, len(parts) + 1).repeat_interleave(20), torch.zeros(len(rest))])
    landmarks = on_sphere(torch.randn(LANDMARK_COUNT, 3, generator=g))
    return TemplateFacts(landmarks, torch.cat([caps, rest]), labels.to(torch.uint8))


def toy_batch(table: IdTable, seed: int = 0, *, surface: int = 12, near: int = 6, free: int = 4, stage: int = 5) -> Batch:
    """A batch of the heads of `toy_rows`, in float64; points, distances and landmarks are random."""
    parts, rows = table.parts, toy_rows(table.parts)
    g = torch.Generator().manual_seed(seed)
    items, stages = len(rows), len(parts.stages)

    def points(*shape: int) -> Tensor:
        return 0.4 * torch.randn(items, *shape, dtype=F64, generator=g)

    def normals(count: int) -> Tensor:
        return torch.nn.functional.normalize(points(count, 3), dim=-1)

    def labels(count: int) -> Tensor:
        return torch.randint(0, len(parts) + 1, (items, count), generator=g).to(torch.uint8)

    people = {"subject": "subject", "recipient": "recipient", **parts.donor_columns}
    ids = {name: [table.subject(row[column]) for row in rows] for name, column in people.items()}
    ids["expression"] = [table.expression(row["subject"], row["expression"]) for row in rows]
    ids["head"] = [table.head(head_of(row, parts)) for row in rows]
    ids["shape"] = [table.shape(head_of(row, parts), row["expression"]) for row in rows]
    ids["expression_name"] = [table.expression_name(row["expression"]) for row in rows]
    composite = [row["origin"] == "composite" for row in rows]
    neutral = [row["origin"] == "scan" and row["expression"] == "neutral" for row in rows]
    return {
        "surface_points": points(surface, 3),
        "surface_normals": normals(surface),
        "surface_parts": labels(surface),
        "near_points": points(near, 3),
        "near_sdf": 0.1 * points(near),
        "near_normals": normals(near),
        "near_parts": labels(near),
        "free_points": points(free, 3),
        "free_sdf": points(free),
        "free_normals": normals(free),
        "landmarks": points(stages, LANDMARK_COUNT, 3),
        "stage_points": points(stages, stage, 3),
        "stage_part_labels": (torch.arange(stage) % (len(parts) + 1)).to(torch.uint8),
        "stage_rows": torch.arange(stage),
        "template_draws": torch.rand(7, 3, dtype=F64, generator=g),
        "is_composite": torch.tensor(composite),
        "is_neutral": torch.tensor(neutral),
        "item": torch.arange(items),
        **{name: torch.tensor(places) for name, places in ids.items()},
    }


class FieldSuite:
    """Inherit from this class, and set the method and the sizes that make it small.

    settings: `group.name=value`, on top of `toy_config`; moved: spread of the random values added to every parameter, because nets
    are partly zero at the start. Gradients are compared to `tolerance`, relative to the largest.
    """

    settings: ClassVar[tuple[str, ...]] = ()
    moved: ClassVar[float] = 0.05
    tolerance: ClassVar[float] = 1e-5

    @pytest.fixture(params=(1, 3, 8), ids=lambda count: f"{count} parts")
    def parts(self, request: pytest.FixtureRequest) -> Parts:
        """The parts of the field."""
        return made_up_parts(request.param)

    @pytest.fixture
    def config(self) -> Config:
        return toy_config().with_settings(self.settings)

    @pytest.fixture
    def table(self, parts: Parts) -> IdTable:
        return IdTable.from_rows(toy_rows(parts), parts)

    @pytest.fixture
    def make(self, config: Config, table: IdTable, parts: Parts) -> Callable[[], Field]:
        """A function that makes the field, the same each time, in float64 and evaluation mode."""

        def make() -> Field:
            field = build_field(config, table, toy_template(parts), 100.0).double().eval()
            g = torch.Generator().manual_seed(0)
            for parameter in field.parameters():
                parameter.data += self.moved * torch.randn(parameter.shape, generator=g).to(parameter)
            return field

        return make

    @pytest.fixture
    def batch(self, table: IdTable) -> Batch:
        return toy_batch(table)

    @pytest.fixture
    def points(self) -> Tensor:
        """Points [4,15,3] in and around the heads."""
        return 0.5 * torch.randn(4, 15, 3, dtype=F64, generator=torch.Generator().manual_seed(5))

    # -- configuration -------------------------------------------------------------------------------------------------

    def test_its_options_and_presets_survive_json(self, config: Config) -> None:
        kind = field_class(config.model.method)
        assert type(config.baseline) is kind.Options
        for each in (config, *kind.presets):
            assert Config.from_json(json.loads(json.dumps(each.to_json()))) == each.checked()
        assert all(brought.model.method in config.model.method for brought in kind.presets)

    # -- codes ---------------------------------------------------------------------------------------------------------

    def test_each_code_has_a_table_and_an_id_that_chooses_its_row(
        self, make: Callable[[], Field], batch: Batch, table: IdTable
    ) -> None:
        field, rows = make(), table_rows(table)
        assert field.parts == table.parts
        assert set(field.code_dims) == set(field.code_ids) == set(field.tables)
        codes = field.codes_of(batch)
        for name, dim in field.code_dims.items():
            assert field.tables[name].shape == (rows[field.code_ids[name]], dim)
            assert torch.equal(codes[name], field.tables[name][batch[field.code_ids[name]]])
            starts = [field.initial_code(name, 3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
            assert starts[0].shape == (3, dim)
            assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
            statistics = field.code_statistics(name)
            assert statistics.mean.shape == (dim,) and statistics.covariance.shape == (dim, dim)

    # -- distances -----------------------------------------------------------------------------------------------------

    def test_distances_are_finite_and_each_heads_own(
        self, make: Callable[[], Field], batch: Batch, points: Tensor
    ) -> None:
        field = make()
        codes = field.codes_of(batch)
        with torch.no_grad():
            together = field.sdf(points, codes)
            assert together.shape == points.shape[:2] and bool(torch.isfinite(together).all())
            assert float(together.std()) > 0
            for i in range(len(points)):
                alone = field.sdf(points[i : i + 1], {name: code[i : i + 1] for name, code in codes.items()})
                torch.testing.assert_close(alone[0], together[i])
            # Without the expression's code the head is neutral, but otherwise like any other.
            neutral = field.sdf(points, {name: code for name, code in codes.items() if name != EXP})
            assert bool(torch.isfinite(neutral).all())
            assert torch.equal(neutral, together) == (EXP not in codes)

    def test_the_gradient_is_that_of_autograd_and_of_finite_differences(
        self, make: Callable[[], Field], batch: Batch, points: Tensor
    ) -> None:
        field = make()
        codes = {name: code.detach().requires_grad_(True) for name, code in field.codes_of(batch).items()}
        for chosen in (codes, {name: code for name, code in codes.items() if name != EXP}):
            sdf, grad = field.sdf_and_grad(points, chosen)
            torch.testing.assert_close(sdf, field.sdf(points, chosen))
            x = points.clone().requires_grad_(True)
            (auto,) = torch.autograd.grad(field.sdf(x, chosen).sum(), x)
            scale = float(auto.detach().abs().max())
            assert scale > 0
            torch.testing.assert_close(grad, auto, rtol=0, atol=self.tolerance * scale)
            step = 1e-6
            with torch.no_grad():
                differences = [
                    (field.sdf(points + offset, chosen) - field.sdf(points - offset, chosen)) / (2 * step)
                    for offset in step * torch.eye(3, dtype=F64)
                ]
            torch.testing.assert_close(grad, torch.stack(differences, -1), rtol=0, atol=self.tolerance * scale)
        # Once more, because losses of the gradient need second derivatives.
        slopes = torch.autograd.grad(grad.square().sum(), list(chosen.values()), allow_unused=True)
        assert any(slope is not None and float(slope.abs().sum()) > 0 for slope in slopes)
        assert all(slope is None or bool(torch.isfinite(slope).all()) for slope in slopes)

    def test_points_go_to_the_template_where_it_has_one(
        self, make: Callable[[], Field], batch: Batch, points: Tensor
    ) -> None:
        field = make()
        codes = field.codes_of(batch)
        if not field.has_warp:
            with pytest.raises(ModelError):
                field.warp(points, codes)
            return
        with torch.no_grad():
            warped = field.warp(points, codes)
        assert warped.shape == points.shape and bool(torch.isfinite(warped).all())
        assert not torch.equal(warped, points)

    # -- losses --------------------------------------------------------------------------------------------------------

    def test_training_terms_repeat_and_teach_every_code(self, make: Callable[[], Field], batch: Batch) -> None:
        def taught() -> tuple[dict[str, Tensor], Field]:
            field = make().train()
            torch.manual_seed(7)  # for methods with dropout
            terms = field.training_terms(batch, field.codes_of(batch), EPOCH.to(F64))
            torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
            return terms, field

        terms, field = taught()
        assert terms and all(value.shape == () and bool(torch.isfinite(value)) for value in terms.values())
        again, other = taught()
        assert {name: value.item() for name, value in terms.items()} == {name: value.item() for name, value in again.items()}
        for (name, one), two in zip(field.named_parameters(), other.parameters(), strict=True):
            assert (one.grad is None) == (two.grad is None), name
            if one.grad is not None and two.grad is not None:
                assert torch.equal(one.grad, two.grad) and bool(torch.isfinite(one.grad).all()), name
        for name, codes in field.tables.items():
            assert codes.grad is not None and float(codes.grad.abs().sum()) > 0, name

    def test_terms_of_a_fit_are_each_heads_own(
        self, make: Callable[[], Field], batch: Batch, config: Config
    ) -> None:
        field = make().requires_grad_(False)
        codes = {name: code.detach().requires_grad_(True) for name, code in field.codes_of(batch).items()}
        for fit in (config.fit, replace(config.fit, prior="gaussian", robust_mm=2.0)):
            terms = field.fit_terms(batch, codes, fit)
            loss = torch.stack(list(terms.values())).sum(0)
            assert loss.shape == (len(batch["item"]),) and bool(torch.isfinite(loss).all())
            for name, slope in zip(codes, torch.autograd.grad(loss[1], list(codes.values())), strict=True):
                assert float(slope[1].abs().sum()) > 0, name
                assert not bool(torch.cat([slope[:1], slope[2:]]).any()), name

    def test_unwarp_inverts_the_warp(self, make: Callable[[], Field], batch: Batch, points: Tensor) -> None:
        field = make()
        codes = {name: code.detach() for name, code in field.codes_of(batch).items()}
        if not field.has_unwarp:
            with pytest.raises(ModelError):
                field.unwarp(points, codes)
            return
        with torch.no_grad():
            back = field.warp(field.unwarp(points.detach(), codes), codes)
        assert float((back - points).abs().max()) < 1e-5

    # -- on disk -------------------------------------------------------------------------------------------------------

    def test_a_checkpoint_gives_the_same_field_back(
        self, make: Callable[[], Field], batch: Batch, points: Tensor, tmp_path: Path
    ) -> None:
        field = make().float()
        field.provenance = {"data": {"coordinates": {}}}
        folder = save(tmp_path / "run", 3, field.state_dict(), {}, model_state(field, 11))
        loaded = load_field(folder)
        assert (type(loaded), loaded.config, loaded.parts) == (type(field), field.config, field.parts)
        assert (loaded.id_table, loaded.mm_per_unit) == (field.id_table, field.mm_per_unit)
        assert loaded.provenance["step"] == 3 and loaded.provenance["seed"] == 11
        assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
        with torch.no_grad():
            ours, theirs = (each.sdf(points.float(), each.codes_of(batch)) for each in (field, loaded))
        assert torch.equal(ours, theirs)
