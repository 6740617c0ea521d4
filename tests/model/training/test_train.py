"""Training: what it learns, what it logs, and that it ends at the same numbers however often it is interrupted."""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facegraft_model.checkpoints import checkpoint as checkpoints
from facegraft_model.config import Config, TrainConfig
from facegraft_model.data.ids import DataError
from facegraft_model.devices import choose_device
from facegraft_model.errors import ModelError
from facegraft_model.field import FaceField, MorphField
from facegraft_model.fitting.fit import fit_samples
from facegraft_model.method import SHARED
from facegraft_model.models import load_field
from facegraft_model.morph.morph import Morph
from facegraft_model.nets.siren import Matmul
from facegraft_model.training import train as training
from facegraft_model.training.parallel import Processes
from facegraft_model.training.runlog import read_metrics
from facegraft_model.training.schedule import learning_rate_factor
from facegraft_model.training.signals import StopSignals
from facegraft_model.training.step import TrainingStep, optimise, split_batch
from facegraft_model.training.train import train
from torch import Tensor

from facegraft.store import DamagedError, StoreError, open_dataset
from facegraft.testing.disk import DiskFault
from facegraft.testing.inject import VARIABLE, environment

Batch = dict[str, Tensor]
STEP = torch.zeros(())
MEASURED = ("points_per_s", "step_ms", "data_wait_ms", "seconds")
"""What depends on the machine's speed."""
OWN_SETTINGS = {
    "deepsdf": ["baseline.deepsdf_dim=4", "baseline.deepsdf_width=16", "baseline.deepsdf_layers=4"],
    "i3dmm": [
        "baseline.i3dmm_width=16",
        "baseline.i3dmm_id_dim=4",
        "baseline.i3dmm_exp_dim=4",
        "baseline.i3dmm_layers=4",
        "baseline.i3dmm_reference_width=16",
        "baseline.i3dmm_pretrain_epochs=3",
    ],
    "imface": ["model.warp=se3", "model.id_dim=4"],
}
"""What makes other methods small."""


@pytest.fixture
def go(spheres: Path, tiny: Config) -> Callable[..., Path]:
    """Train the tiny model in a folder with some settings changed."""

    def go(run: Path, *settings: str, samples: Path = spheres, seed: int = 0) -> Path:
        return train(samples, run, tiny.with_settings(settings), device="cpu", seed=seed, progress=False)

    return go


@pytest.fixture(params=["hyper", "basis"])
def nets(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def go_with(nets: str, opening: Path, tiny: Config, tiny_morph: Config) -> Callable[..., Path]:
    """Train the tiny model of these nets on spheres whose smile opens the mouth."""

    def go(run: Path, *settings: str, samples: Path = opening) -> Path:
        config = tiny if nets == "hyper" else tiny_morph
        return train(samples, run, config.with_settings(settings), device="cpu", progress=False)

    return go


@pytest.fixture(scope="session")
def opening(write_spheres: Callable[..., Path]) -> Path:
    """Spheres whose smile opens the mouth: the template of neural bases is not that of the samples."""

    def lips(key: str, arrays: dict[str, np.ndarray]) -> None:
        if key.endswith("_smile"):
            arrays["landmarks"][0, 66, 1] -= 0.1

    return write_spheres(change=lips)


def trajectory(run: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in MEASURED} for record in read_metrics(run)]


def assert_same_end(one: Path, other: Path) -> None:
    """Bit by bit: parameters, buffers, the optimiser, and everything that was logged but times."""
    first, second = checkpoints.load(one), checkpoints.load(other)
    assert first.step == second.step and first.state == second.state
    for mine, theirs in ((first.tensors, second.tensors), (first.optim(), second.optim())):
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert trajectory(one) == trajectory(other)


# -- learning --------------------------------------------------------------------------------------------------------------


def test_spheres_of_two_radii_are_learnt(trained: Path) -> None:
    """Below 1e-2 units around the surface of neutral heads; a smile, which half as many scans have, is larger by 2.5e-2 or more."""
    field = load_field(trained)
    u = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    offset = torch.linspace(-0.04, 0.04, 500)
    for name, radius in (("anna", 0.5), ("dave", 0.6)):
        row = field.id_table.subject(name)
        neutral = {code: table[row : row + 1] for code, table in field.tables.items() if code != "exp"}
        for expression, scale in ((None, 1.0), ("neutral", 1.0), ("smile", 1.05)):
            codes = dict(neutral)
            if expression is not None:
                codes["exp"] = field.tables["exp"][field.id_table.expression(name, expression)][None]
            points = (radius * scale + offset)[:, None] * u
            sdf, grad = field.sdf_and_grad(points[None], codes)
            assert (sdf[0] - offset).abs().mean() < (1.5e-2 if expression == "smile" else 1e-2)
            assert (1 - torch.nn.functional.cosine_similarity(grad[0], u)).mean() < 0.05


def test_the_loss_falls_and_the_record_is_complete(trained: Path) -> None:
    records = read_metrics(trained)
    assert [record["step"] for record in records] == list(range(10, 121, 10))
    assert records[-1]["sdf"] < 0.3 * records[0]["sdf"]
    terms = {"sdf", "eikonal", "eikonal_neutral", "normal", "correction", "landmark_generation", "landmark_consistency"}
    terms |= {"code", "neutral", "dense", "locality"}
    for record in records:
        assert set(record) == {
            "step",
            "loss",
            "lr",
            "epoch",
            "points_per_s",
            "step_ms",
            "data_wait_ms",
            "grad_norm",
            "skipped_steps",
            *terms,
        }
        assert all(math.isfinite(value) for value in record.values())
        assert record["loss"] == pytest.approx(sum(record[name] for name in terms), rel=1e-4)
        assert 0 < record["data_wait_ms"] < record["step_ms"]
        assert record["points_per_s"] == pytest.approx(4 * (128 + 32 + 16) / record["step_ms"] * 1e3, rel=0.01)
        assert record["epoch"] == pytest.approx(
            record["step"] * 4 / 10
        )  # 8 scans and 2 composites of the training subjects


# -- interruption ----------------------------------------------------------------------------------------------------------

WORKER = """
import json, sys, torch
from pathlib import Path
from facegraft_model.config import Config
from facegraft_model.training.train import train
torch.set_num_threads(1)
samples, run, config = sys.argv[1:]
train(samples, run, Config.from_json(json.loads(Path(config).read_text())), device="cpu", progress=False)
"""


@pytest.fixture
def start(spheres: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a training process of its own; none outlives the test."""
    started = []

    def start(run: Path, config: Config, **environment: str) -> subprocess.Popen[str]:
        path = tmp_path / f"config{len(started)}.json"
        path.write_text(json.dumps(config.to_json()))
        command = [sys.executable, "-c", WORKER, str(spheres), str(run), str(path)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    while not ((records := read_metrics(run)) and records[-1]["step"] >= step):
        if process.poll() is not None:
            pytest.fail(f"training ended too early: {process.communicate()[1]}")
        time.sleep(0.01)


def test_a_killed_run_resumes_to_the_same_trajectory(
    start: Callable[..., subprocess.Popen[str]], go: Callable[..., Path], tiny: Config, tmp_path: Path
) -> None:
    """SIGKILL in mid-run; the end is that of a run that nobody disturbed, bit by bit."""
    settings = ["train.steps=14", "train.schedule=cosine", "train.checkpoint_minutes=1e-9"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    # A checkpoint after every step; the eighth waits for a file that never comes, so that the run is not over before it is killed.
    gate = DiskFault(
        str(killed),
        str(tmp_path / "ledger"),
        nth=8,
        operations=("replace",),
        match="step_*",
        gate=str(tmp_path / "gate"),
    )
    faults = environment(disk=gate)
    process = start(killed, tiny.with_settings(settings), **{name: faults[name] for name in ("PYTHONPATH", VARIABLE)})
    wait_for_step(killed, 5, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = checkpoints.load(killed).step
    assert 4 <= reached < 8
    go(killed, *settings)
    go(whole, *settings)
    assert_same_end(killed, whole)
    steps = [record["step"] for record in read_metrics(killed)]
    assert steps == list(range(1, 15))


def test_a_second_process_in_the_same_folder_is_refused(go: Callable[..., Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with (run / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="run is being trained by another process"):
            go(run)
    assert go(run, "train.steps=1").name == "step_00000001"


@pytest.mark.parametrize("method", ["parts", "imface", "deepsdf", "i3dmm"])
def test_a_run_in_two_sittings_is_a_run_in_one(go: Callable[..., Path], tmp_path: Path, method: str) -> None:
    """Adam's moments, dropout, the order of items and windows: nothing depends on where a sitting began."""
    settings = [f"model.method={method}", *OWN_SETTINGS.get(method, [])]
    go(tmp_path / "two", *settings, "train.steps=2")
    torch.rand(7)  # somebody else's random numbers
    go(tmp_path / "two", *settings, "train.steps=4")
    go(tmp_path / "one", *settings, "train.steps=4")
    assert_same_end(tmp_path / "two", tmp_path / "one")
    assert go(tmp_path / "one", *settings, "train.steps=4").name == "step_00000004"
    assert load_field(tmp_path / "one").provenance["method"] == method
    if method in FaceField.METHODS:
        assert isinstance(FaceField.load(tmp_path / "one"), FaceField)
    else:
        with pytest.raises(ModelError, match=f"step_00000004: this is a model of method {method}, where parts or imface is"):
            FaceField.load(tmp_path / "one")


@pytest.mark.parametrize("method", ["parts", "imface", "deepsdf", "i3dmm"])
def test_training_on_some_expressions_fits_heads_with_all(
    go: Callable[..., Path], spheres: Path, tmp_path: Path, method: str
) -> None:
    """The tables of a model of neutral scans have no row of a smile; a held-out head that smiles is fitted nevertheless."""
    settings = [f"model.method={method}", *OWN_SETTINGS.get(method, []), "data.origins=scan", "data.expressions=neutral"]
    go(tmp_path / "run", *settings, "train.steps=1")
    field = load_field(tmp_path / "run")
    assert field.id_table.expression_names == ("neutral",)
    assert len(field.id_table.shapes) == 4
    fitted, rows = fit_samples(field, str(spheres), ["eve_smile"], replace(field.config.fit, steps=2))
    assert rows[0]["expression"] == "smile" and math.isfinite(fitted.errors_mm[0])
    with pytest.raises(DataError, match="has no items of expression 'frown'; there are neutral, smile"):
        go(tmp_path / "frown", *settings, "data.expressions=[neutral, frown]")


@pytest.mark.parametrize("method", ["parts", "deepsdf"])
def test_the_further_sets_are_trained_and_fitted_on(
    go: Callable[..., Path], write_spheres: Callable[..., Path], spheres: Path, tmp_path: Path, method: str
) -> None:
    samples = write_spheres(sizes={"surface": 200, "near": 60, "free": 40, "wide": 100, "poi": 90})
    settings = [f"model.method={method}", *OWN_SETTINGS.get(method, []), "train.steps=2", "train.validate_steps=2"]
    settings += ["data.wide=64", "fit.wide=32", "fit.poi=16"]
    go(tmp_path / "run", *settings, samples=samples)
    first, *_, last = read_metrics(tmp_path / "run")
    assert math.isfinite(first["loss"]) and math.isfinite(last["surface_error_mm"])
    with pytest.raises(DataError, match=r"has no wide points, of which 64 an item were asked for; sample with them"):
        go(tmp_path / "none", *settings)


@pytest.mark.slow
def test_a_morph_in_two_sittings_is_one_in_one(
    opening: Path, spheres: Path, tiny_morph: Config, tmp_path: Path
) -> None:
    """The template that the first sitting opened is the second one's, and so are the masks, which no checkpoint holds."""

    def go(run: str, steps: int, samples: Path = opening) -> Path:
        config = tiny_morph.with_settings([f"train.steps={steps}"])
        return train(samples, tmp_path / run, config, device="cpu", progress=False)

    go("two", 2)
    torch.rand(7)
    go("two", 4)
    go("one", 4)
    assert_same_end(tmp_path / "two", tmp_path / "one")
    go("closed", 1, spheres)
    fields = [load_field(tmp_path / run) for run in ("one", "closed")]
    assert not torch.equal(fields[0].template_points, fields[1].template_points)
    assert isinstance(fields[0], MorphField) and isinstance(FaceField.load(tmp_path / "one"), MorphField)
    for name, mask in fields[0].masks.items():
        topology = fields[0].topology
        assert topology is not None
        assert torch.equal(mask.inside, topology.vertices[topology.parts == fields[0].parts.label(name)])


def test_validation_is_logged_and_changes_nothing(go_with: Callable[..., Path], tmp_path: Path) -> None:
    go = go_with
    go(tmp_path / "with", "train.steps=3", "train.validate_every=2", "train.validate_steps=2")
    go(tmp_path / "without", "train.steps=3")
    validations = [record for record in read_metrics(tmp_path / "with") if record.get("split") == "validation"]
    assert [record["step"] for record in validations] == [2, 3]
    assert all(0 < record["surface_error_mm"] <= record["worst_error_mm"] < 100 for record in validations)
    with_tensors, without = (checkpoints.load(tmp_path / name).tensors for name in ("with", "without"))
    assert all(torch.equal(with_tensors[name], without[name]) for name in without)


@pytest.mark.parametrize("moment", ["step", "between"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_saves_and_stops(
    go: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, number: signal.Signals
) -> None:
    """During the third step, or at any moment between two steps."""
    target, name = (training, "optimise") if moment == "step" else (Processes, "any")
    original, calls = getattr(target, name), []

    def interrupted(*arguments: Any) -> Any:
        calls.append(name)
        result = original(*arguments)
        if len(calls) == 3:
            for _ in range(3):  # torchrun sends its own after that of Slurm or the terminal
                signal.raise_signal(number)
        return result

    monkeypatch.setattr(target, name, interrupted)
    before = signal.signal(number, signal.SIG_DFL)  # under nohup the tests would ignore it, and so would training
    handler = signal.getsignal(number)
    try:
        path = go(tmp_path / "run", "train.steps=9")
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    monkeypatch.undo()
    step = 3
    if moment == "between":
        step = len(read_metrics(tmp_path / "run"))
        assert step in (3, 4)
    assert path.name == f"step_{step:08d}" and checkpoints.load(tmp_path / "run").step == step
    assert [record["step"] for record in read_metrics(tmp_path / "run")] == list(range(1, step + 1))


def test_only_a_second_ctrl_c_of_the_user_ends_at_once() -> None:
    clock = [0.0]
    with StopSignals(lambda: clock[0]) as stop:
        assert not stop.asked
        signal.raise_signal(signal.SIGINT)
        clock[0] = 4.0  # its echo from torchrun
        signal.raise_signal(signal.SIGINT)
        clock[0] = 60.0
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_ignored_hangup_stays_ignored() -> None:
    """nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_end_tells_the_steps(spheres: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that a signal ended early is no trained one, and only the process that writes says anything."""
    ends = []

    def go(run: str) -> None:
        config = tiny.with_settings(["train.steps=4"])
        train(spheres, tmp_path / run, config, device="cpu", progress=False, ended=lambda *steps: ends.append(steps))

    go("whole")
    go("whole")
    original = training.optimise

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(training, "optimise", interrupted)
    go("stopped")
    assert ends == [(4, 4), (4, 4), (1, 4)]
    monkeypatch.undo()

    class Second(Processes):
        def most(self, *values: float) -> list[float]:
            return list(values)

    @contextmanager
    def second(device: str) -> Iterator[Processes]:
        yield Second(1, 2, torch.device(device))

    monkeypatch.setattr(training, "joined", second)
    go("whole")
    assert len(ends) == 3


# -- gradients that are not finite -----------------------------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, steps: Container[int]) -> None:
    """The loss of these steps (from 0) is no number."""
    original = TrainingStep.forward

    def forward(self: TrainingStep, batch: Batch, epoch: Tensor) -> Any:
        loss, terms = original(self, batch, epoch)
        step = round(float(epoch) * 10 / 4)  # ten items, four of them in each step
        return (loss * torch.nan if step in steps else loss), terms

    monkeypatch.setattr(TrainingStep, "forward", forward)


def test_a_bad_step_is_skipped_and_counted(
    go: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and moments stay, the step counts, and a resumed run ends at the same bytes."""
    spoil(monkeypatch, {0, 2, 3})
    tensors = {}
    for steps in (2, 3, 4, 6):
        go(tmp_path / "sittings", f"train.steps={steps}")
        tensors[steps] = checkpoints.load(tmp_path / "sittings").tensors
    assert all(torch.equal(tensors[2][name], value) for name, value in tensors[4].items())
    go(tmp_path / "one", "train.steps=6")
    assert_same_end(tmp_path / "sittings", tmp_path / "one")
    records = read_metrics(tmp_path / "one")
    assert [record["skipped_steps"] for record in records] == [1, 1, 2, 3, 3, 3]
    assert [record["loss"] is None for record in records] == [True, False, True, True, False, False]
    steps = {float(value) for name, value in checkpoints.load(tmp_path / "one").optim().items() if name.startswith("step/")}
    assert steps == {3.0}, "a skipped step leaves the optimiser as it is"


def test_skipped_steps_are_told(
    spheres: Path, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, {1, 2})
    train(spheres, tmp_path / "run", tiny.with_settings(["train.steps=4", "train.log_every=4"]), device="cpu")
    assert "step 4: 2 steps since the last record had a gradient that is not finite, and were skipped (2 so far)" in capfd.readouterr().err


def test_many_bad_steps_in_a_row_end_the_run(
    go: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a sitting ended among them."""
    spoil(monkeypatch, range(3, 100))
    go(tmp_path / "run", "train.steps=15")
    with pytest.raises(ModelError, match=r"not finite in the last 20 steps, up to step 23; .*Lower train\.lr"):
        go(tmp_path / "run", "train.steps=50")


def test_a_fused_optimiser_skips_the_same_steps(made: Callable[[], FaceField], make_batch: Callable[..., Batch]) -> None:
    """On CUDA the kernel itself leaves everything as it is."""
    ends = []
    for fused in (False, True):
        module = TrainingStep(made())
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-3, fused=fused)
        for bad in (False, True, False):
            batch = make_batch()
            batch["surface_points"] = batch["surface_points"] * (torch.nan if bad else 1.0)
            before = [parameter.detach().clone() for parameter in module.parameters()]
            result = optimise(module, optimiser, batch, STEP, TrainConfig(clip_grad=1e3))
            assert bool(torch.isfinite(result.grad_norm)) is not bad
            same = [torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
            assert all(same) if bad else not all(same)
        assert {float(state["step"]) for state in optimiser.state.values()} == {2.0}
        ends.append([parameter.detach() for parameter in module.parameters()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


# -- what is refused -------------------------------------------------------------------------------------------------------


def test_another_configuration_seed_or_dataset_is_refused_by_name(
    go: Callable[..., Path], tmp_path: Path, write_spheres: Callable[..., Path]
) -> None:
    run = tmp_path / "run"
    go(run, "train.steps=1")
    with pytest.raises(ModelError, match=r"run was trained with other settings: seed; use the same ones"):
        go(run, seed=1)
    with pytest.raises(
        ModelError, match=r"loss\.sdf \(3000\.0 before, 1\.0 now\), train\.lr \(0\.001 before, 0\.5 now\);"
    ):
        go(run, "loss.sdf=1", "train.lr=0.5")
    other = write_spheres(radii={"anna": 0.4, "bert": 0.5, "cleo": 0.6, "dave": 0.6, "eve": 0.5})
    with pytest.raises(ModelError, match="other settings: fingerprint"):
        go(run, samples=other)
    document = json.loads((run / "config.json").read_text())
    document["fingerprint"] = open_dataset(other).fingerprint
    (run / "config.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="step_00000001 was trained on other samples"):
        go(run, samples=other)
    (run / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds checkpoints but no config\.json"):
        go(run)
    (run / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        go(run)
    (run / "config.json").write_text('{"config": {}}')
    with pytest.raises(ModelError, match=r"config\.json is not a configuration of a training run"):
        go(run)


def test_samples_without_the_template_morph_are_refused(
    go: Callable[..., Path], tmp_path: Path, write_spheres: Callable[..., Path]
) -> None:
    with pytest.raises(ModelError, match=r"no template morph.*composites and heads together"):
        go(tmp_path / "run", "data.stage=0", "loss.dense=0", samples=write_spheres(stages=1))


def test_windows_larger_than_the_samples_are_refused(go: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a window of 5000 surface points is larger than the 600 of item"):
        go(tmp_path / "run", "data.surface=5000")


def test_a_damaged_shard_is_refused(
    go: Callable[..., Path], tmp_path: Path, write_spheres: Callable[..., Path]
) -> None:
    samples = write_spheres()
    (shard,) = (samples / "shards").glob("*.safetensors")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedError, match=shard.name):
        go(tmp_path / "run", samples=samples)


def test_a_nan_in_the_samples_names_item_and_field(
    go: Callable[..., Path], tmp_path: Path, write_spheres: Callable[..., Path]
) -> None:
    def poison(key: str, arrays: dict[str, np.ndarray]) -> None:
        if key == "bert_smile":
            arrays["near_sdf"][3] = np.nan

    with pytest.raises(StoreError, match=r"bert_smile.*near_sdf.*(NaN|nan|finite)"):
        go(tmp_path / "run", samples=write_spheres(change=poison))


def test_a_loss_that_is_no_number_stops_training(go: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not finite in the last 2\d steps.*Lower train\.lr"):
        go(tmp_path / "run", "train.lr=1e30", "train.clip_grad=0", "train.steps=40")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 42 bytes"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_says_which_setting_helps(
    go: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(TrainingStep, "forward", fail)
    with pytest.raises(
        ModelError,
        match=r"out of memory on cpu: 4 items of 112 points .* resume with train\.accumulate=4 .* fewer data\.items or data\.surface",
    ):
        go(tmp_path / "run", "train.accumulate=2")
    with pytest.raises(ModelError, match=r"resume with data\.backend=stream"):
        go(tmp_path / "run", "train.accumulate=4")


def test_another_error_of_the_step_is_left_as_it_is(
    go: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(TrainingStep, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        go(tmp_path / "run")


def test_devices_are_chosen_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ModelError, match="no device 'tpu'; there are auto, cpu and cuda"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        assert choose_device("auto") == torch.device("cpu")
        with pytest.raises(ModelError, match="no CUDA device was found"):
            choose_device("cuda")


def test_a_process_without_a_gpu_of_its_own_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", 1) == torch.device("cuda", 1)
    with pytest.raises(ModelError, match=r"process 3 on this machine has no GPU: torch sees 2, .*--nproc-per-node 2"):
        choose_device("cuda", 2)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, r"WORLD_SIZE='two', where torchrun sets a number; start training by torchrun"),
        ({"WORLD_SIZE": "2"}, r"RANK='', where torchrun sets a number"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, r"process 0 of 2 cannot join the others: .*MASTER_ADDR.*; start training by torchrun, or unset"),
    ],
)
def test_variables_that_are_not_torchruns_are_refused(
    go: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match=message):
        go(tmp_path / "run")


@pytest.fixture
def made(nets: str, make_field: Callable[..., FaceField], make_morph: Callable[[], Morph]) -> Callable[[], FaceField]:
    """Makes a field of these nets, in float64, whose parameters have been moved off their start."""
    return (lambda: make_field(moved=0.01)) if nets == "hyper" else make_morph


# -- the step --------------------------------------------------------------------------------------------------------------


def gradients(step: TrainingStep, batches: list[Batch]) -> dict[str, Tensor]:
    step.zero_grad()
    for batch in batches:
        (step(batch, STEP)[0] / len(batches)).backward()
    return {
        name: parameter.grad.clone() for name, parameter in step.field.named_parameters() if parameter.grad is not None
    }


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (value - other[name]).abs().max() <= tolerance * other[name].abs().max().clamp_min(1e-6), name


def test_the_loss_is_the_sum_of_the_terms_and_every_parameter_learns(
    made: Callable[..., FaceField], make_batch: Callable[..., Batch]
) -> None:
    """A parameter without a gradient would stop several processes that train together."""
    step = TrainingStep(made())
    loss, terms = step(make_batch(), STEP)
    assert float(loss.detach()) == pytest.approx(sum(float(term.detach()) for term in terms.values()))
    assert gradients(step, [make_batch()]).keys() == dict(step.field.named_parameters()).keys()


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_of_a_batch_have_the_gradient_of_the_whole(
    made: Callable[..., FaceField], make_batch: Callable[..., Batch], parts: int
) -> None:
    step, batch = TrainingStep(made()), make_batch(items=4)
    assert_close(gradients(step, list(split_batch(batch, parts))), gradients(step, [batch]), 1e-10)


def test_accumulation_changes_training_by_rounding_only(go_with: Callable[..., Path], tmp_path: Path) -> None:
    go = go_with
    go(tmp_path / "whole", "train.steps=2")
    go(tmp_path / "parts", "train.steps=2", "train.accumulate=2")
    for one, other in zip(trajectory(tmp_path / "whole"), trajectory(tmp_path / "parts"), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)


def test_the_parts_of_a_batch_may_change_on_resuming(go: Callable[..., Path], tmp_path: Path) -> None:
    """The message of too little memory asks for it."""
    go(tmp_path / "run", "train.steps=1")
    assert go(tmp_path / "run", "train.steps=2", "train.accumulate=2").name == "step_00000002"


def test_a_batch_splits_evenly_or_not_at_all(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(items=4) | {"stage_part_labels": torch.arange(5)}
    halves = split_batch(batch, 2)
    for name, value in batch.items():
        if name in SHARED:
            assert all(torch.equal(half[name], value) for half in halves)
        else:
            assert torch.equal(torch.cat([half[name] for half in halves]), value)
    with pytest.raises(ModelError, match=r"4 items of a process cannot be split into train\.accumulate=3 equal parts; take one of 1, 2, 4"):
        split_batch(batch, 3)


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "model",
    [{"window": True}, {"method": "imface", "hyper": "film"}, {"method": "imface", "warp": "se3"}],
    ids=["parts", "imface", "imface-se3"],
)
def test_the_step_is_one_graph(
    make_field: Callable[..., FaceField], make_batch: Callable[..., Batch], model: dict[str, Any], backend: str
) -> None:
    """torch.compile with fullgraph=True, which any break in the graph would end. aot_eager traces the backward pass as well."""
    step, batch = TrainingStep(make_field(moved=0.01, **model)), make_batch()
    eager = gradients(step, [batch])
    torch.compiler.reset()
    step.compile(backend=backend, fullgraph=True, dynamic=False)
    assert_close(gradients(step, [batch]), eager, 1e-9)


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_the_step_of_a_morph_is_one_graph(
    make_morph: Callable[[], Morph], make_batch: Callable[..., Batch], backend: str
) -> None:
    """A compiled step runs a part's net at a fixed number of points; here fewer of them are near the part, so nothing is left out."""
    step, batch = TrainingStep(make_morph()), make_batch()
    eager = gradients(step, [batch])
    torch.compiler.reset()
    step.compile(backend=backend, fullgraph=True, dynamic=False)
    assert_close(gradients(step, [batch]), eager, 1e-9)
    assert int(step.field.overflow) == 0


@pytest.mark.slow
def test_rounded_products_compile_too(make_field: Callable[..., FaceField], make_batch: Callable[..., Batch]) -> None:
    step = TrainingStep(make_field(moved=0.01, method="imface").float())
    batch = {name: value.float() if value.dtype == torch.float64 else value for name, value in make_batch().items()}
    step.field.matmul = Matmul(True)
    eager = gradients(step, [batch])
    step.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    assert_close(gradients(step, [batch]), eager, 1e-3)


DDP_WORKER = """
import os, sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from facegraft_model.training.step import TrainingStep, split_batch
torch.set_num_threads(1)
dist.init_process_group("gloo")
field, batch = torch.load(sys.argv[1], weights_only=False)
step = TrainingStep(field)
step.compile(backend="aot_eager", fullgraph=True, dynamic=False)
module = DistributedDataParallel(step)
loss, _ = module(split_batch(batch, 2)[dist.get_rank()], torch.zeros(()))
loss.backward()
if dist.get_rank() == 0:
    torch.save({name: parameter.grad for name, parameter in field.named_parameters()}, sys.argv[2])
dist.destroy_process_group()
"""


GRAPHS_WORKER = """
import sys, torch
import torch.distributed as dist
from facegraft_model.config import TrainConfig
from facegraft_model.training.parallel import Processes
from facegraft_model.training.step import TrainingStep, optimise, split_batch, step_module
torch.set_num_threads(1)
dist.init_process_group("gloo")
field, batch = torch.load(sys.argv[1], weights_only=False)
graphs, original = [], TrainingStep.compile
def counted(graph, inputs):
    graphs.append(graph)
    return graph.forward
TrainingStep.compile = lambda self, **options: original(self, backend=counted, **options)
train = TrainConfig(accumulate=2)
module = step_module(field, Processes(dist.get_rank(), 2, torch.device("cpu")), compiled=True)
optimiser = torch.optim.SGD(module.parameters(), lr=0.0)
own = split_batch(batch, 2)[dist.get_rank()]
for _ in range(2):
    optimise(module, optimiser, own, torch.zeros(()), train)
if dist.get_rank() == 0:
    torch.save((len(graphs), {name: p.grad.clone() for name, p in field.named_parameters()}), sys.argv[2])
dist.destroy_process_group()
"""


def torchrun(command: list[str]) -> None:
    """Two processes as torchrun would start them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**common, "RANK": rank, "LOCAL_RANK": rank})
        for rank in "01"
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=900)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(
    make_field: Callable[..., FaceField], make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    """DistributedDataParallel around the compiled step, half of the batch each; float64."""
    field, batch = make_field(moved=0.01, method="imface"), make_batch(items=4)
    expected = gradients(TrainingStep(field), [batch])
    field.zero_grad()
    torch.save((field, batch), tmp_path / "given.pt")
    torchrun([sys.executable, "-c", DDP_WORKER, str(tmp_path / "given.pt"), str(tmp_path / "gradients.pt")])
    assert_close(torch.load(tmp_path / "gradients.pt"), expected, 1e-12)


@pytest.mark.slow
def test_two_processes_compile_one_graph(
    make_field: Callable[..., FaceField], make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    """With more weights than the first bucket of gradients takes, which would cut the graph; and accumulated parts add up to the batch."""
    field, batch = make_field(moved=0.01, method="imface", hyper="full", width=32, hyper_width=64), make_batch(items=8)
    assert sum(p.numel() * p.element_size() for p in field.parameters()) > 4 << 20
    expected = gradients(TrainingStep(field), [batch])
    field.zero_grad()
    torch.save((field, batch), tmp_path / "given.pt")
    torchrun([sys.executable, "-c", GRAPHS_WORKER, str(tmp_path / "given.pt"), str(tmp_path / "found.pt")])
    graphs, found = torch.load(tmp_path / "found.pt")
    assert graphs == 1
    assert_close(found, expected, 1e-10)


@pytest.mark.slow
def test_two_processes_train_as_one(
    nets: str, go_with: Callable[..., Path], opening: Path, tiny: Config, tiny_morph: Config, tmp_path: Path
) -> None:
    """The whole loop under torchrun; and one process can go on where two stopped."""
    go, config = go_with, tmp_path / "config.json"
    settings = ["train.steps=3", "train.accumulate=2", "train.validate_steps=1"]
    config.write_text(json.dumps((tiny if nets == "hyper" else tiny_morph).with_settings(settings).to_json()))
    torchrun([sys.executable, "-c", WORKER, str(opening), str(tmp_path / "two"), str(config)])
    go(tmp_path / "one", *settings)
    # The first process logs the loss of its own half.
    assert [record["step"] for record in read_metrics(tmp_path / "two")] == [1, 2, 3, 3]
    two, one = checkpoints.load(tmp_path / "two").tensors, checkpoints.load(tmp_path / "one").tensors
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-2, atol=1e-4, msg=name)
    assert go(tmp_path / "two", *settings[1:], "train.steps=4").name == "step_00000004"


STOPPED_WORKER = """
import json, os, signal, sys
import facegraft_model.presets as presets
from facegraft.cli.main import main
from facegraft_model.config import Config
from facegraft_model.training import parallel, train as training
parallel.AGREED_SECONDS = 0.0  # after each step
samples, run, config, said = sys.argv[1:]
presets.preset = lambda name: Config.from_json(json.load(open(config)), "config")
original, calls = training.optimise, []
def interrupted(*arguments):
    calls.append(1)
    if len(calls) == 3 and os.environ["RANK"] == "1":
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    return original(*arguments)
training.optimise = interrupted
if os.environ["RANK"] == "1":
    sys.stdout = open(said, "w")
sys.argv[1:] = ["model", "train", samples, "-o", run, "--device", "cpu"]
main()
"""


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all(opening: Path, tiny: Config, tmp_path: Path) -> None:
    """To the second one, twice; the first writes the checkpoint, and only it speaks."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(tiny.with_settings(["train.steps=50"]).to_json()))
    said = tmp_path / "said"
    torchrun([sys.executable, "-c", STOPPED_WORKER, *map(str, (opening, tmp_path / "run", config, said))])
    assert checkpoints.load(tmp_path / "run").step == 3
    assert said.read_text() == ""


@pytest.mark.slow
def test_a_compiled_run_is_the_eager_run_within_rounding(go_with: Callable[..., Path], tmp_path: Path) -> None:
    """torch.compile with its default back end, which needs a C++ compiler."""
    go = go_with
    go(tmp_path / "eager", "train.steps=2")
    go(tmp_path / "compiled", "train.steps=2", "train.compile=on")
    for one, other in zip(trajectory(tmp_path / "eager"), trajectory(tmp_path / "compiled"), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)


# -- learning rates --------------------------------------------------------------------------------------------------------


def test_the_step_schedule_is_the_papers() -> None:
    """x 0.95 every 10 epochs from epoch 200."""
    factors = {
        epoch: learning_rate_factor(TrainConfig(), epoch * 5, 5.0, 10**6) for epoch in (0, 199, 200, 209, 210, 850)
    }
    expected = {0: 1, 199: 1, 200: 0.95, 209: 0.95, 210: 0.95**2, 850: 0.95**66}
    assert factors == pytest.approx(expected)


def test_the_cosine_schedule_rises_in_the_warm_up_and_falls_to_one_percent() -> None:
    config = TrainConfig(schedule="cosine", warmup_steps=9)
    factors = [learning_rate_factor(config, step, 5.0, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(0.1, rel=1e-3) and factors[4] == pytest.approx(0.5, rel=1e-3)
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert factors[500] == pytest.approx(0.505) and factors[-1] == pytest.approx(0.01, rel=1e-3)
