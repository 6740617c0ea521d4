"""Small datasets: samples whose every value says where it comes from, and heads that are spheres; tiny fields and random batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sphere_heads
import torch
from facegraft_model.config import Config, DataConfig, FitConfig, LossConfig, ModelConfig, TrainConfig
from facegraft_model.data.ids import IdTable
from facegraft_model.field import CascadeField
from facegraft_model.method import TemplateFacts
from facegraft_model.models import build_field
from facegraft_model.morph.morph import Morph
from facegraft_model.training.train import train
from sphere_heads import COLUMNS, TEMPLATE_RADIUS, composite, landmark_directions, part_of, scan, stage_directions
from toy_parts import EYES

from facegraft.store import (
    DatasetSchema,
    RejectedItem,
    ShardItem,
    finish_dataset,
    samples_fields,
    shard_name,
    write_shard,
)

SIZES = {"surface": 50, "near": 20, "free": 10}


ROWS = {
    "anna_neutral": scan("anna", "neutral", "train"),
    "anna_smile": scan("anna", "smile", "train"),
    "anna-bert": composite("anna", "bert", "bert", "cleo", "train"),
    "bert_neutral": scan("bert", "neutral", "train"),
    "cleo_neutral": scan("cleo", "neutral", "train"),
    "dora_neutral": scan("dora", "neutral", "test"),
}
REJECTED = "bert-zoe"


def numbered(number: int, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Arrays of item `number`: coordinate 0 is the item, coordinate 1 the row; per-row numbers repeat the row."""
    arrays: dict[str, np.ndarray] = {}
    for name, size in sizes.items():
        rows = np.arange(size, dtype=np.float32)
        points = np.stack([np.full(size, number, np.float32), rows, np.zeros(size, np.float32)], axis=1)
        arrays |= {f"{name}_points": points, f"{name}_normals": points + 100}
        if name != "free":
            arrays[f"{name}_parts"] = (np.arange(size) % 4).astype(np.uint8)
        if name != "surface":
            arrays[f"{name}_sdf"] = rows
    arrays["landmarks"] = np.full((6, 68, 3), number, np.float32)
    arrays["stage_points"] = np.full((6, 7, 3), number, np.float32)
    arrays["to_mm"] = np.diag([100.0, 100.0, 100.0, 1.0])
    return arrays


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads, and sums in one order can be compared bit by bit."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def write_samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the samples, two items a shard; sizes, columns and rows can be changed."""

    def write(
        sizes: dict[str, int] | None = None,
        columns: dict[str, str] | None = None,
        rows: dict[str, dict[str, object]] | None = None,
        kind: str = "samples",
    ) -> Path:
        columns, rows = COLUMNS if columns is None else columns, ROWS if rows is None else rows
        folder = tmp_path_factory.mktemp("samples") / "samples"
        topology = {"name": "toy", "vertex_count": None, "faces_sha256": None}
        schema = DatasetSchema(kind, topology, 100.0, "unit ball", samples_fields(EYES), columns, EYES)
        keys = sorted([*rows, REJECTED])
        shards = [keys[start : start + 2] for start in range(0, len(keys), 2)]
        plan = {shard_name(number, len(shards)): part for number, part in enumerate(shards)}
        for shard, part in plan.items():
            items = [
                ShardItem(key, numbered(keys.index(key), sizes or SIZES), {name: rows[key][name] for name in columns})
                for key in part
                if key != REJECTED
            ]
            refused = [RejectedItem(REJECTED, "poison", {}) for key in part if key == REJECTED]
            write_shard(folder, shard, items, refused, schema, "c" * 64)
        finish_dataset(folder, schema, plan, "c" * 64)
        return folder

    return write


@pytest.fixture(scope="session")
def samples(write_samples: Callable[..., Path]) -> Path:
    """A finished samples dataset of five training items, one test item and one that was rejected."""
    return write_samples()


@pytest.fixture(scope="session")
def write_spheres(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes samples of spheres (`sphere_heads.write_spheres`) to a folder of their own."""

    def write(**options: Any) -> Path:
        return sphere_heads.write_spheres(tmp_path_factory.mktemp("spheres") / "samples", **options)

    return write


@pytest.fixture(scope="session")
def spheres(write_spheres: Callable[..., Path]) -> Path:
    """Spheres of two radii: four subjects for training with two expressions each, two composites, one subject for tests."""
    return write_spheres()


@pytest.fixture(scope="session")
def tiny() -> Config:
    """A model of a few thousand parameters, for a step of a few milliseconds."""
    return Config(
        preset="tests",
        model=ModelConfig(
            width=16,
            omega=10.0,
            hyper="low-rank",
            hyper_width=16,
            hyper_rank=2,
            blend_width=8,
            landmark_width=16,
            window=True,
            part_dim=4,
            rem_dim=6,
            exp_dim=5,
        ),
        loss=LossConfig(eikonal_neutral=50.0, dense=1e3, locality=1e2, code=1e2),
        data=DataConfig(items=4, surface=64, near=32, free=16, stage=8),
        train=TrainConfig(steps=8, lr=1e-3, log_every=1, compile="off", validate_steps=0, clip_grad=1e4),
        fit=FitConfig(steps=5, lr=1e-2, items=4, surface=64, near=32, free=16, init="mean", code=1e2),
    ).checked()


@pytest.fixture(scope="session")
def tiny_morph(tiny: Config) -> Config:
    """The same for a model of neural bases, with the work before the first step."""
    model = ModelConfig(
        nets="basis",
        width=16,
        omega=10.0,
        features=24,
        part_features=12,
        exp_features=12,
        basis_omega=5.0,
        part_dim=4,
        rem_dim=6,
        exp_dim=5,
    )
    loss = LossConfig(
        code=1.0, dense=3e3, correction=0.0, landmark_generation=0.0, landmark_consistency=0.0, neutral=0.0
    )
    return replace(
        tiny,
        model=model,
        loss=loss,
        data=replace(tiny.data, stage=40),
        train=replace(tiny.train, pretrain=5),
        fit=replace(tiny.fit, solver="gauss-newton", code=1.0),
    ).checked()


@pytest.fixture(scope="session")
def trained(spheres: Path, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt the spheres, for tests of training and fitting. It must not be written to."""
    settings = ["train.steps=120", "train.lr=3e-3", "train.head_lr=5e-4", "train.code_lr=2e-2", "train.schedule=cosine"]
    settings += [
        "train.log_every=10",
        "model.width=24",
        "data.surface=128",
        "loss.dense=10",
        "loss.landmark_consistency=10",
    ]
    run = tmp_path_factory.mktemp("trained") / "run"
    train(spheres, run, tiny.with_settings(settings), device="cpu", progress=False)
    return run


# -- fields and batches of random numbers, for comparisons in float64 -----------------------------------------------------


@pytest.fixture(scope="session")
def id_table() -> IdTable:
    """Three subjects, two of them with a smile, and one composite."""
    rows = [
        scan("a", "n", "train"),
        scan("b", "n", "train"),
        scan("c", "n", "train"),
        scan("a", "s", "train"),
        scan("b", "s", "train"),
    ]
    return IdTable.from_rows([*rows, composite("a", "b", "c", "b", "train") | {"expression": "n"}], EYES)


@pytest.fixture(scope="session")
def template() -> TemplateFacts:
    """The template of the spheres."""
    u = stage_directions(120)
    landmarks, points = (torch.from_numpy(TEMPLATE_RADIUS * v).float() for v in (landmark_directions(), u))
    return TemplateFacts(landmarks, points, torch.from_numpy(part_of(u)))


@pytest.fixture(scope="session")
def make_field(tiny: Config, id_table: IdTable, template: TemplateFacts) -> Callable[..., CascadeField]:
    """A cascade in float64 whose parameters have been moved off their start, so that every net deforms; the seed decides."""

    def make(
        kind: type[CascadeField] = CascadeField,
        *,
        seed: int = 0,
        moved: float = 0.05,
        config: Config | None = None,
        **model: Any,
    ) -> CascadeField:
        config = tiny if config is None else config
        config = replace(config, model=replace(config.model, **{"code_init": 0.5, **model}))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            field = kind(config, id_table, template, 100.0).double()
            for parameter in field.parameters():
                parameter.data += moved * torch.randn_like(parameter)
        return field

    return make


@pytest.fixture(scope="session")
def make_morph(tiny_morph: Config, id_table: IdTable, template: TemplateFacts) -> Callable[[], Morph]:
    """The same of neural bases: small displacements, or heads would fold."""

    def make() -> Morph:
        config = replace(tiny_morph, model=replace(tiny_morph.model, code_init=0.5))
        field = build_field(config, id_table, template, 100.0).double()
        assert isinstance(field, Morph)
        g = torch.Generator().manual_seed(0)
        for parameter in field.parameters():
            parameter.data += 0.001 * torch.randn(parameter.shape, generator=g).to(parameter)
        return field

    return make


@pytest.fixture(scope="session")
def make_batch(id_table: IdTable) -> Callable[..., dict[str, torch.Tensor]]:
    """A batch of random numbers with scans (neutral and not) and composites, in float64."""

    def make(
        items: int = 4, seed: int = 0, surface: int = 12, near: int = 6, free: int = 4, stage: int = 5
    ) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(seed)

        def points(*shape: int) -> torch.Tensor:
            return 0.4 * torch.randn(items, *shape, dtype=torch.float64, generator=g)

        def normals(count: int) -> torch.Tensor:
            return torch.nn.functional.normalize(points(count, 3), dim=-1)

        def rows(count: int) -> torch.Tensor:
            return torch.randint(0, count, (items,), generator=g)

        number = torch.arange(items)
        return {
            "surface_points": points(surface, 3),
            "surface_normals": normals(surface),
            "surface_parts": torch.randint(0, 4, (items, surface), generator=g).to(torch.uint8),
            "near_points": points(near, 3),
            "near_sdf": points(near),
            "near_normals": normals(near),
            "near_parts": torch.randint(0, 4, (items, near), generator=g).to(torch.uint8),
            "free_points": points(free, 3),
            "free_sdf": points(free),
            "free_normals": normals(free),
            "landmarks": points(6, 68, 3),
            "stage_points": points(6, stage, 3),
            "stage_part_labels": (torch.arange(stage) % 4).to(torch.uint8),
            "stage_rows": torch.arange(stage),
            "template_draws": torch.zeros(0, 3),
            "is_composite": number % 3 == 2,
            "is_neutral": number % 3 == 0,
            "item": number,
            **{name: rows(len(id_table.subjects)) for name in ("subject", "recipient", "nose", "eyes", "mouth")},
            "expression": rows(len(id_table.expressions)),
            "head": rows(len(id_table.heads)),
            "shape": rows(len(id_table.shapes)),
            "expression_name": rows(len(id_table.expression_names)),
        }

    return make
