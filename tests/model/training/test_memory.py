"""What a step needs is known before it runs, and what is chosen or named by it is enough at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from facegraft_model.compilers import missing_compiler
from facegraft_model.config import Config, FitConfig, TrainConfig
from facegraft_model.data.batches import BatchSource
from facegraft_model.errors import ModelError
from facegraft_model.fitting.commands import _fewer
from facegraft_model.livebytes import META, on_meta, peak_bytes
from facegraft_model.method import Field
from facegraft_model.models import build_field
from facegraft_model.outofmemory import EAGER_BYTES, FIT_BYTES
from facegraft_model.presets import preset
from facegraft_model.training import train as training
from facegraft_model.training.compiling import Compiling, decided, not_compiled
from facegraft_model.training.memory import COPIES, MARGIN, Need, parts_that_fit, step_need
from facegraft_model.training.parallel import Processes
from facegraft_model.training.runlog import read_metrics
from facegraft_model.training.setup import open_source, template_facts
from facegraft_model.training.step import TrainingStep
from facegraft_model.training.train import _Run, _Split, train

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
GB = 1e9


@pytest.fixture
def paper(spheres: Path) -> Iterator[tuple[Field, BatchSource]]:
    """The published model, and batches of the published size, of which the samples here have too few points."""
    config = preset("paper").with_settings(["data.items=2", "data.surface=32", "data.free=8"])
    with open_source(spheres, config.data, CPU) as source:
        source.windows = {"surface": 15401, "near": 0, "free": 983}
        yield build_field(config, source.id_table, template_facts(source), source.mm_per_unit), source


# -- the estimate ----------------------------------------------------------------------------------------------------------


def test_the_published_step_needs_what_the_allocator_counted(paper: tuple[Field, BatchSource]) -> None:
    """71.6 GB eager and 50.2 compiled for 36 heads of 16,384 points, by the allocator of torch 2.11 for CUDA."""
    for compiled, counted in ((False, 71.6), (True, 50.2)):
        need = step_need(*paper, compiled)
        assert need.bytes(36) / MARGIN == pytest.approx(counted * GB, rel=0.06)
        assert need.bytes(36) > counted * GB, "the margin covers the difference"
    assert step_need(*paper, False).bytes(36) < MARGIN**2 * 36 * 16384 * EAGER_BYTES


def test_the_published_fit_needs_what_the_allocator_counted(paper: tuple[Field, BatchSource]) -> None:
    """25.0 GB for 16 heads of 16,384 points."""
    field, source = paper
    there, batch = on_meta(field).eval().requires_grad_(False), source.blank(16)
    codes = {name: torch.empty(16, dim, device=META, requires_grad=True) for name, dim in field.code_dims.items()}

    def iteration() -> None:
        torch.stack(list(there.fit_terms(batch, codes, FitConfig()).values())).sum().backward()

    assert peak_bytes(iteration) == pytest.approx(25.0 * GB, rel=0.05)
    assert peak_bytes(iteration) <= 16 * 16384 * FIT_BYTES


def test_bytes_are_counted_as_long_as_they_live() -> None:
    def action() -> None:
        kept = torch.empty(100, device=META)
        for _ in range(3):
            (kept + 1).view(10, 10)
        del kept

    assert peak_bytes(action) == 2 * 400


@pytest.mark.parametrize("method", ["parts", "imface", "deepsdf", "i3dmm", "morph"])
def test_every_method_has_an_estimate(spheres: Path, tiny: Config, tiny_morph: Config, method: str) -> None:
    config = tiny_morph if method == "morph" else tiny.of_method(method)
    with open_source(spheres, config.data, CPU) as source:
        field = build_field(config, source.id_table, template_facts(source), source.mm_per_unit)
        module, batch = TrainingStep(on_meta(field).train()), source.blank(4)
        whole = peak_bytes(lambda: module(batch, torch.zeros((), device=META))[0].backward())
        need = step_need(field, source, compiled=False)
    assert need.item > 4 * source.points
    state = COPIES * sum(p.numel() * p.element_size() for p in field.parameters())
    assert need.whole - state + 4 * need.item == pytest.approx(whole, rel=0.1), "one and two items tell what four need"


def test_a_blank_batch_has_the_shapes_of_a_batch(spheres: Path, tiny: Config) -> None:
    with open_source(spheres, tiny.data, CPU) as source:
        batch, blank = source.batch(0), source.blank(tiny.data.items)
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in blank.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in batch.items()
    }


def test_a_method_that_reads_values_counts_like_the_published_one(
    spheres: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainingStep.forward

    def forward(self: TrainingStep, batch: dict[str, torch.Tensor], epoch: torch.Tensor) -> Any:
        assert epoch.item() >= 0
        return original(self, batch, epoch)

    monkeypatch.setattr(TrainingStep, "forward", forward)
    with open_source(spheres, tiny.data, CPU) as source:
        field = build_field(tiny, source.id_table, template_facts(source), source.mm_per_unit)
        assert step_need(field, source, compiled=False).item == EAGER_BYTES * source.points


# -- what follows from it --------------------------------------------------------------------------------------------------

NEED = Need(1.0 * GB, 2.0 * GB)


@pytest.mark.parametrize(
    ("items", "least", "room", "parts"), [(36, 1, 90, 1), (36, 1, 48, 2), (36, 1, 24, 4), (36, 6, 90, 6), (36, 1, 3.4, 36), (36, 1, 3, None), (7, 1, 15, 7)]
)
def test_the_smallest_sufficient_number_of_parts(items: int, least: int, room: float, parts: int | None) -> None:
    assert parts_that_fit(NEED, items, least, room * GB) == parts


def split(*settings: str, world: int = 1) -> _Split:
    return _Split(preset("paper").with_settings(settings), Processes(0, world, CPU))


def test_parts_are_chosen_and_said_in_one_line() -> None:
    chosen = split()
    assert chosen.fit(NEED, 90 * GB) == "" and chosen.parts == 1
    line = chosen.fit(NEED, 24 * GB)
    assert chosen.parts == 4
    assert line == (
        "a step of 36 items of 16,384 points needs about 80.3 GB, and cpu has 24.0 GB for it: its items are taken in 4 parts "
        "(train.accumulate=4), with the same result"
    )
    asked = split("train.accumulate=6")
    assert asked.fit(NEED, 24 * GB) == "" and asked.parts == 6
    one = split()
    assert "even one may be too much" in one.fit(NEED, 1 * GB) and one.parts == 36


def test_a_deterministic_run_is_only_told() -> None:
    """How sums are rounded must not follow from what else uses the GPU."""
    chosen = split("train.deterministic=true")
    assert "should it run out of memory, resume with train.accumulate=4" in chosen.fit(NEED, 24 * GB)
    assert chosen.parts == 1


def test_the_message_of_too_little_memory_names_enough_at_once() -> None:
    chosen = split()
    chosen.free = 24 * GB
    assert "resume with train.accumulate=4 (the same result in parts) or" in chosen.advice()
    chosen.parts = 4
    assert "train.accumulate=9" in chosen.advice(), "the estimate was wrong: at least twice as many"


@pytest.mark.parametrize(
    ("free", "items", "said"), [(24, 16, "--set fit.items=8)"), (9, 16, "--set fit.items=5)"), (0.5, 16, "--set fit.items=1)"), (0.5, 1, "lower fit.surface")]
)
def test_a_fit_names_how_many_heads_fit(free: float, items: int, said: str) -> None:
    assert said in _fewer(replace(FitConfig(), items=items), 16384, int(free * GB))


@pytest.mark.parametrize(("free", "backend"), [(24, "resident"), (48, "resident"), (141, "resident"), (12, "resident")])
def test_a_small_dataset_stays_on_every_card(
    spheres: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, backend: str
) -> None:
    """The reserve follows from the step in as many parts as fit, and the dataset gets what is left."""
    run = _Run(spheres, tmp_path / "run", preset("paper").with_settings(["data.items=4", "data.surface=32", "data.free=8", "train.validate_steps=0"]),
               Processes(0, 1, CPU), 0, False, split("data.items=4"))  # fmt: skip
    monkeypatch.setattr(training, "free_bytes", lambda device: free * GB)
    monkeypatch.setattr("facegraft_model.data.batches.free_bytes", lambda device: free * GB)
    with run.source as source:
        source.windows = {"surface": 15401, "near": 0, "free": 983}
        reserve = run._reserve(source)
        assert 0 < reserve < free * GB
        source.device = CUDA
        assert source._choose_backend("auto", 5e6, run._reserve) == backend
        assert source._choose_backend("auto", free * GB - reserve + 1, run._reserve) == "stream"
        source.device = CPU


# -- compilers -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No program on the PATH, no compiler named; returns the empty folder that the PATH names."""
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("facegraft_model.compilers.importlib.util.find_spec", lambda name: object())
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def program(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_a_missing_compiler_is_found(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_compiler("cuda") == "no C compiler is there; install gcc or clang, or name one by CC"
    assert "no C++ compiler is there" in str(missing_compiler("cpu"))
    program(bare, "clang")
    assert missing_compiler("cuda") is None
    monkeypatch.setenv("CC", str(bare / "none"))
    assert f"CC names the C compiler '{bare / 'none'}', which is not there" in str(missing_compiler("cuda"))
    monkeypatch.delenv("CC")
    monkeypatch.setattr("facegraft_model.compilers.sysconfig.get_path", lambda kind: str(bare))
    assert "python3-dev" in str(missing_compiler("cuda"))


def test_without_a_compiler_steps_are_eager_and_it_is_said(bare: Path) -> None:
    gpu = Processes(0, 1, CUDA)
    found = decided(TrainConfig(), gpu)
    assert found == Compiling(
        False, "steps are not compiled, so that they take more time and memory: no C compiler is there; install gcc or clang, or name one by CC"
    )
    with pytest.raises(ModelError, match=r"^train\.compile=on: no C compiler is there; .* or take train\.compile=off$"):
        decided(TrainConfig(compile="on"), gpu)
    assert decided(TrainConfig(compile="off"), gpu) == decided(TrainConfig(), Processes(0, 1, CPU)) == Compiling(False)
    program(bare, "gcc")
    assert decided(TrainConfig(), gpu) == Compiling(True)


def test_compiling_without_a_compiler_is_one_line(bare: Path, spheres: Path, tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^train\.compile=on: no C\+\+ compiler is there"):
        train(spheres, tmp_path / "run", tiny.with_settings(["train.compile=on"]), device="cpu", progress=False)


@pytest.mark.slow
def test_a_first_step_that_cannot_be_compiled_is_taken_again(
    spheres: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The end is that of a run that was never compiled."""

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nsecond line")

    config = tiny.with_settings(["train.steps=2"])
    train(spheres, tmp_path / "eager", config, device="cpu", progress=False)
    compile_module = TrainingStep.compile
    monkeypatch.setattr(TrainingStep, "compile", lambda self, **options: compile_module(self, backend=broken, **options))
    monkeypatch.setattr(training, "decided", lambda *_: Compiling(True))
    auto = replace(config, train=replace(config.train, compile="auto"))
    torch.compiler.reset()
    train(spheres, tmp_path / "auto", auto, device="cpu")
    said = [line for line in capfd.readouterr().err.splitlines() if "compil" in line]
    assert len(said) == 1 and "steps are not compiled" in said[0] and "train.compile=off" in said[0]
    losses = [[record["loss"] for record in read_metrics(tmp_path / run)] for run in ("eager", "auto")]
    assert losses[0] == losses[1]
    torch.compiler.reset()
    with pytest.raises(ModelError, match=r"^the step cannot be compiled here \(.*\); take train\.compile=off$"):
        train(spheres, tmp_path / "on", replace(config, train=replace(config.train, compile="on")), device="cpu", progress=False)


def test_too_little_memory_is_no_reason_not_to_compile() -> None:
    gpu = Processes(0, 1, CUDA)
    assert not_compiled(torch.OutOfMemoryError("x"), TrainConfig(), gpu) is None
    assert "RuntimeError: y" in str(not_compiled(RuntimeError("y\nz"), TrainConfig(), gpu))
    assert not_compiled(RuntimeError("y"), TrainConfig(), Processes(0, 2, CUDA)) is None


def test_this_machine_can_compile_what_the_slow_tests_compile() -> None:
    """No false alarm where the compiler that torch looks for is there."""
    if any((Path(folder) / "g++").exists() for folder in os.environ["PATH"].split(os.pathsep)):
        assert missing_compiler("cpu") is None
