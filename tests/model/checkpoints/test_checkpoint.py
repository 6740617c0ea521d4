"""Checkpoints: what is written comes back bit by bit, and no moment is a bad one to be killed at."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import safetensors.torch
import torch
from checkpoint_tensors import STATE, assert_same, moments, some_tensors, steps
from facegraft_model.checkpoints.checkpoint import CheckpointError, latest, load, load_into, prune, save
from torch import nn

from facegraft.store.atomic import host_name

# -- there and back ---------------------------------------------------------------------------------------------------


def test_comes_back_bit_by_bit_from_run_and_folder(tmp_path: Path) -> None:
    folder = save(tmp_path, 1234, some_tensors(), moments(), STATE)
    assert folder == tmp_path / "checkpoints" / "step_00001234" == latest(tmp_path)
    for path in (tmp_path, folder, str(tmp_path)):
        loaded = load(path)
        assert (loaded.path, loaded.step, loaded.state, loaded.torch_version) == (
            folder,
            1234,
            STATE,
            torch.__version__,
        )
        assert_same(loaded.tensors, some_tensors())
        assert_same(loaded.optim(), moments())
    # The files are plain safetensors and JSON for anybody.
    assert_same(safetensors.torch.load_file(folder / "model.safetensors"), some_tensors())
    assert json.loads((folder / "state.json").read_text())["state"] == STATE


def test_views_and_tied_tensors_are_written_as_they_read(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {"whole": base, "transposed": base.T, "row": base[2], "column": base[:, 1], "again": base}
    save(tmp_path, 0, tensors, {}, {})
    assert_same(load(tmp_path).tensors, tensors)


def test_without_optimiser(tmp_path: Path) -> None:
    folder = save(tmp_path, 3, some_tensors(), {}, STATE)
    assert sorted(entry.name for entry in folder.iterdir()) == ["model.safetensors", "state.json"]
    with pytest.raises(CheckpointError, match="without an optimiser"):
        load(tmp_path).optim()


def test_a_model_alone_can_be_read_without_the_moments(tmp_path: Path) -> None:
    folder = save(tmp_path, 3, some_tensors(), moments(), STATE)
    (folder / "optim.safetensors").unlink()
    loaded = load(folder)
    with pytest.raises(CheckpointError, match=r"optim\.safetensors is missing"):
        loaded.optim()


# -- keeping and pruning ----------------------------------------------------------------------------------------------


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in range(0, 50, 10):
        save(tmp_path, step, some_tensors(step), {}, {}, keep=2)
    assert steps(tmp_path) == ["latest", "step_00000030", "step_00000040"]
    assert [folder.name for folder in prune(tmp_path, 1)] == ["step_00000030"]
    assert prune(tmp_path, 1) == []
    with pytest.raises(CheckpointError, match="keep"):
        prune(tmp_path, 0)
    assert prune(tmp_path / "nothing", 1) == []


def test_same_step_again(tmp_path: Path) -> None:
    save(tmp_path, 1, some_tensors(1), {}, {})
    for seed in range(2, 7):
        folder = save(tmp_path, 5, some_tensors(seed), moments(seed), {"seed": seed})
        assert latest(tmp_path) == folder and load(tmp_path).step == 5 and load(tmp_path).state == {"seed": seed}
        assert_same(load(tmp_path).optim(), moments(seed))
        assert steps(tmp_path) == ["latest", "step_00000001", folder.name]


def test_training_that_goes_back_overtakes_later_checkpoints(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, some_tensors(step), {}, {"branch": 0}, keep=3)
    for step, expected in ((15, ["10", "15", "20", "30"]), (20, ["15", "20", "30"]), (40, ["30", "40"])):
        save(tmp_path, step, some_tensors(), {}, {"branch": 1}, keep=2)
        assert steps(tmp_path) == ["latest", *(f"step_000000{number}" for number in expected)]
        assert load(tmp_path).step == step and load(tmp_path).state == {"branch": 1}


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    parent = tmp_path / "checkpoints"
    host = host_name()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = {pid: f"step_00000007.tmp-{host}-{pid}-abc" for pid in (gone.pid, os.getpid(), os.getppid())}
    for name in names.values():
        (parent / name).mkdir(parents=True)
        (parent / name / "model.safetensors").write_bytes(b"half")
    (parent / f"latest.tmp-{host}-{gone.pid}-abc").write_text("step")
    save(tmp_path, 8, some_tensors(), {}, {})
    assert steps(tmp_path) == sorted(["latest", names[os.getppid()], "step_00000008"])


# -- refused when saved -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_does_not_push_out_the_good_checkpoint(tmp_path: Path, value: float) -> None:
    save(tmp_path, 1, some_tensors(), moments(), STATE, keep=1)
    for model, optim, file in ((some_tensors(), moments(), "model"), (some_tensors(), moments(), "optim")):
        bad = model if file == "model" else optim
        name = next(name for name in bad if name.endswith("nose.weight"))
        bad[name][2, 1] = value
        with pytest.raises(
            CheckpointError, match=rf"step 2.*{file}\.safetensors: tensor '{name}' has 1 of 15 values.*diverged"
        ):
            save(tmp_path, 2, model, optim, STATE, keep=1)
    assert steps(tmp_path) == ["latest", "step_00000001"]


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tensor 'spectrum' is torch.complex64"):
        save(tmp_path, 2, {"spectrum": torch.zeros(2, dtype=torch.complex64)}, {}, {})
    with pytest.raises(Exception, match="not writable as JSON"):
        save(tmp_path, 2, some_tensors(), {}, {"lr": float("nan")})
    with pytest.raises(CheckpointError, match="step -1"):
        save(tmp_path, -1, some_tensors(), {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    """A limit on the size of files, as a disk that is full: writes fail in the middle."""
    save(tmp_path, 1, some_tensors(), {}, STATE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(CheckpointError, match=r"checkpoint of step 2 in .*previous checkpoint is untouched"):
            save(tmp_path, 2, {"big": torch.zeros(100_000)}, {}, STATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert steps(tmp_path) == ["latest", "step_00000001"]
    assert load(tmp_path).step == 1


# -- into a module ----------------------------------------------------------------------------------------------------


def test_load_into_is_all_or_nothing() -> None:
    source, target = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    good = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    for change, message in (
        ({"1.bias": None}, "run/x: tensor '1.bias' is missing"),
        ({"2.bias": torch.zeros(1)}, "run/x: tensor '2.bias' has no place here"),
        ({"1.bias": torch.zeros(3)}, r"run/x: tensor '1.bias' has shape \[3\] where \[2\] is needed"),
        (
            {"1.bias": torch.zeros(2, dtype=torch.float64)},
            "tensor '1.bias' has dtype torch.float64 where torch.float32",
        ),
        ({"1.bias": torch.tensor([0.0, torch.nan])}, "tensor '1.bias' has 1 of 2 values that are NaN"),
    ):
        changed = {name: tensor for name, tensor in {**good, **change}.items() if tensor is not None}
        with pytest.raises(CheckpointError, match=message):
            load_into(target, changed, "run/x")
        assert_same(target.state_dict(), before)
    load_into(target, good, "run/x")
    assert_same(target.state_dict(), source.state_dict())


# -- killed -----------------------------------------------------------------------------------------------------------

KILLED = textwrap.dedent(
    """
    import os, random, signal, sys, time
    import torch
    from facegraft_model.checkpoints.checkpoint import latest, load, save

    torch.set_num_threads(1)
    run, mode, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def write(step, keep=2):
        value = {"a": torch.full((3000,), float(step)), "b": torch.full((7,), step)}
        save(run, step, value, {"exp_avg/a": value["a"] + 0.5}, {"step": step}, keep)

    def check(at_least):
        # Whatever has the name of a checkpoint is whole, also those that were about to be removed.
        for name in os.listdir(run + "/checkpoints"):
            if name != "latest" and ".tmp-" not in name:
                load(run + "/checkpoints/" + name).optim()
        found = load(run)
        assert found.step == found.state["step"] >= at_least, (found.step, at_least)
        assert all(bool((tensor == found.step).all()) for tensor in found.tensors.values())
        assert bool((found.optim()["exp_avg/a"] == found.step + 0.5).all())
        return found.step

    def in_a_child(work):
        child = os.fork()
        if child == 0:
            try:
                work()
            finally:
                os._exit(0)
        return child

    def dies_before_operation(number):
        # Every change of a name on the disk raises an audit event; the process dies just before the n-th one.
        counted = [0]
        def hook(event, args):
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir") and str(args[0]) and not (
                event == "open" and not isinstance(args[2], int)
            ):
                counted[0] += 1
                if counted[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)

    write(1)
    write(2)
    done = 2
    if mode == "every":
        # The same step again and the next step, killed before every single operation in turn.
        for advance in (0, 1):
            number = 1
            while True:
                def work():
                    dies_before_operation(number)
                    write(done + advance)
                status = os.waitpid(in_a_child(work), 0)[1]
                done = check(done)
                if not os.WIFSIGNALED(status):
                    break
                number += 1
            print(number)
    else:
        rng = random.Random(0)
        for _ in range(rounds):
            reading, writing = os.pipe()
            def work():
                step = done + 1
                while True:
                    write(step, keep=rng.choice((1, 2)))
                    os.write(writing, b".")
                    step += rng.choice((0, 1))
            child = in_a_child(work)
            os.read(reading, 1)
            os.close(reading), os.close(writing)
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            done = check(done + 1)
        print(done)
    write(done + 1)
    assert check(done + 1) == done + 1
    names = sorted(os.listdir(run + "/checkpoints"))
    assert len(names) == 3 and not any(".tmp-" in name for name in names), names
    """
)


def kill(run: Path, *arguments: str) -> list[int]:
    result = subprocess.run(
        [sys.executable, "-c", KILLED, str(run), *arguments], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    return [int(word) for word in result.stdout.split()]


@pytest.mark.slow
def test_killed_before_every_operation_on_the_disk(tmp_path: Path) -> None:
    assert min(kill(tmp_path, "every", "0")) > 10


def test_killed_at_any_moment(tmp_path: Path) -> None:
    assert kill(tmp_path, "random", "15")[0] >= 17
