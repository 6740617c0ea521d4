"""A small run of the pipeline on synthetic heads with a model of it; and a model of spheres whose parts no code has heard of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from commands import run_model
from sphere_heads import composite, scan, write_sphere_surfaces, write_spheres

from facegraft.cli.main import cli
from facegraft.parts import Part, Parts

BEAR = Parts(
    "bear",
    (
        Part("snout", (27, 30, 31, 33, 35)),
        Part("lobe_left", (36, 39, 42, 45, 27)),
        Part("beak", (48, 51, 54, 57, 62)),
    ),
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tiny tensors gain nothing from threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Settings of a model that trains in seconds."""
    return [
        "--set", "model.width=32", "--set", "model.hyper_width=32", "--set", "model.landmark_width=32", "--set", "data.surface=256",
        "--set", "data.near=128", "--set", "data.free=64", "--set", "data.stage=32", "--set", "train.log_every=20",
        "--set", "fit.surface=256", "--set", "fit.near=128", "--set", "fit.free=64",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Path:
    """A folder with heads, composites, surfaces, samples, a run and fits of four held-out scans."""
    folder = tmp_path_factory.mktemp("house")
    arguments = ["run", "demo", "-o", str(folder), "--scheduler", "sync", "--quiet"]
    for setting in (
        "ingest.subjects=6", "ingest.expressions=2", "graft.donors=2", "sample.surface=4000", "sample.near=2000", "sample.free=1000",
    ):  # fmt: skip
        arguments += ["--set", setting]
    assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
    run_model("train", folder / "samples", "-o", folder / "run", "--preset", "tiny", "--steps", 120, "--quiet", *small)
    run_model("fit", folder / "run", folder / "samples", "-o", folder / "fits", "--steps", 30, "--quiet")
    return folder


@pytest.fixture(scope="session")
def bears(tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Path:
    """Surfaces, samples, a run and fits of spheres with a snout, a left lobe and a beak; eve and dave are held out."""
    folder = tmp_path_factory.mktemp("bears")
    split = {"anna": "train", "bert": "train", "cleo": "train", "dave": "test", "eve": "test"}
    rows = {
        f"{name}_{expression}": scan(name, expression, part)
        for name, part in split.items()
        for expression in ("neutral", "smile")
    }
    rows |= {"anna-bert": composite("anna", "bert", "bert", "bert", "train")}
    rows |= {"eve-dave": composite("eve", "dave", "dave", "dave", "test")}
    write_sphere_surfaces(folder / "surfaces", rows=rows, parts=BEAR)
    write_spheres(folder / "samples", rows=rows, parts=BEAR)
    smaller = ["train.pretrain=60", "model.features=64", "model.part_features=32", "model.exp_features=32"]
    settings = [*small, *(word for setting in smaller for word in ("--set", setting))]
    run_model("train", folder / "samples", "-o", folder / "run", "--preset", "tiny", "--steps", 80, "--quiet", *settings)
    keys = [word for name in ("dave_neutral", "eve_neutral") for word in ("--key", name)]
    run_model("fit", folder / "run", folder / "samples", "-o", folder / "fits", "--steps", 30, *keys, "--quiet")
    return folder
