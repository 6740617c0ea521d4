"""Checkpoints: what is written comes back bit by bit, damage is refused by name, and no moment is a bad one to be killed at."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from facegraft_model.training import checkpoint, tensor_file
from facegraft_model.training.checkpoint import CheckpointError, latest, load, load_into, prune, save
from facegraft_model.training.optim_state import optimiser_tensors, restore_optimiser
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from facegraft.store.document import seal

STATE = {"config": {"lr": 1e-4, "betas": [0.9, 0.999]}, "mm_per_unit": 170.0, "fingerprint": "f" * 64, "names": ["Zoë"]}


def some_tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "nets.nose.weight": torch.randn(5, 3, generator=generator),
        "nets.nose.bias": torch.randn(5, generator=generator, dtype=torch.float64),
        "count": torch.tensor(7 + seed),
        "mask": torch.tensor([True, False]),
        "half": torch.randn(4, generator=generator).to(torch.bfloat16),
        "empty": torch.zeros(0, 3),
    }


def moments(seed: int = 0) -> dict[str, Tensor]:
    return {f"exp_avg/{name}": tensor for name, tensor in some_tensors(seed + 100).items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]), name


def steps(run: Path) -> list[str]:
    return sorted(entry.name for entry in (run / "checkpoints").iterdir())


def reseal(folder: Path, change: dict[str, Any]) -> None:
    """Change state.json as one who knows its checksum."""
    document = json.loads((folder / "state.json").read_bytes())
    document.pop("document_sha256")
    (folder / "state.json").write_bytes(seal({**document, **change}))


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
    host = checkpoint._own_token().partition("-")[0]
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


# -- refused when read ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint; copy it before breaking it."""
    run = tmp_path_factory.mktemp("good")
    save(run, 12, some_tensors(), moments(), STATE)
    return run


@pytest.fixture
def broken(good: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint's folder that a test may break."""
    shutil.copytree(good, tmp_path / "run")
    return tmp_path / "run" / "checkpoints" / "step_00000012"


def rewrite(path: Path, change: dict[str, Tensor | None]) -> None:
    tensors = safetensors.torch.load_file(path)
    path.unlink()
    changed = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
    safetensors.torch.save_file(changed, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nets.nose.bias": None, "nets.nose.weight": None}, "tensor 'nets.nose.bias' is missing (one of 2)"),
        ({"nets.ears.weight": torch.zeros(2)}, "tensor 'nets.ears.weight' has no place here"),
        (
            {"nets.nose.weight": torch.zeros(3, 5)},
            "tensor 'nets.nose.weight' has shape [3, 5] where [5, 3] was written",
        ),
        (
            {"nets.nose.weight": torch.zeros(5, 3, dtype=torch.int32)},
            "tensor 'nets.nose.weight' has dtype I32 where F32 was written",
        ),
        ({"count": torch.tensor(8)}, "tensor 'count' is damaged"),
        ({"nets.nose.weight": torch.full((5, 3), torch.nan)}, "tensor 'nets.nose.weight' is damaged"),
    ],
)
def test_names_the_tensor_of_another_file(broken: Path, change: dict[str, Tensor | None], message: str) -> None:
    rewrite(broken / "model.safetensors", change)
    with pytest.raises(CheckpointError) as caught:
        load(broken)
    assert str(broken / "model.safetensors") in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_refused_even_with_right_checksums(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = broken.parent.parent
    with monkeypatch.context() as patched:
        patched.setattr(tensor_file, "check_finite", lambda *_: None)
        save(run, 13, {**some_tensors(), "nets.nose.bias": torch.full((5,), torch.inf)}, {}, {})
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: tensor 'nets.nose.bias' has 5 of 5 values that are NaN or infinite"
    ):
        load(run)


def test_files_that_are_missing_or_not_ours(broken: Path, tmp_path: Path) -> None:
    state = broken / "state.json"
    whole = state.read_bytes()
    for data, message in (
        (b"", "not JSON"),
        (whole[: len(whole) // 2], "not JSON"),
        (b"[]", "field 'format'"),
        (b'{"format": "npz"}', "field 'format'"),
        (seal({"format": "facegraft checkpoint", "version": 2}), "field 'version' is 2; this facegraft reads 1"),
        (seal({"format": "facegraft checkpoint", "version": "1"}), "field 'version' is '1'"),
        (b'{"format": "facegraft checkpoint", "version": 1}', "field 'document_sha256' is missing"),
        (whole.replace(b"170.0", b"171.0"), "its bytes differ from its document_sha256"),
    ):
        state.write_bytes(data)
        with pytest.raises(CheckpointError) as caught:
            load(broken)
        assert str(state) in str(caught.value) and message in str(caught.value)
    state.unlink()
    with pytest.raises(CheckpointError, match=r"state\.json is missing"):
        load(broken)
    state.write_bytes(whole)
    (broken / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load(broken)
    with pytest.raises(CheckpointError, match="is not a folder; name a run"):
        load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"neither a run .* nor a checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("step", -1), ("step", True), ("step", "12"), ("state", []), ("torch", None), ("files", {}), ("files", [])]
    + [
        ("files", {"model.safetensors": record})
        for record in (None, {}, {"bytes": 1, "sha256": "", "tensors": {"a": {}}})
    ],
)
def test_names_the_field(broken: Path, field: str, value: object) -> None:
    reseal(broken, {field: value})
    with pytest.raises(CheckpointError, match=rf"state\.json: field '{field}'"):
        load(broken)


def test_a_file_outside_the_folder_is_never_opened(broken: Path) -> None:
    files = json.loads((broken / "state.json").read_bytes())["files"]
    reseal(broken, {"files": {**files, "../../secret.safetensors": files["model.safetensors"]}})
    with pytest.raises(CheckpointError, match=r"field 'files' has an entry '\.\./\.\./secret\.safetensors'"):
        load(broken)


def test_latest_must_name_a_checkpoint_of_the_run(broken: Path, tmp_path: Path) -> None:
    run, file = broken.parent.parent, broken.parent / "latest"
    for content, message in (
        ("step_00000099\n", "names step_00000099, which is not there; .*step_00000012"),
        ("../../elsewhere/step_00000012", "not the name of a checkpoint"),
        (str(broken), "not the name of a checkpoint"),
        ("", "not the name of a checkpoint"),
        ("step_00000012.tmp-a-1-b", "not the name of a checkpoint"),
        ("\udcff\x00", "not the name of a checkpoint"),
    ):
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(CheckpointError, match=message) as caught:
            load(run)
        assert str(file) in str(caught.value)
    elsewhere = shutil.copytree(broken, tmp_path / "elsewhere")
    (broken.parent / "step_00000013").symlink_to(elsewhere)
    file.write_text("step_00000013\n")
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        load(run)
    assert load(elsewhere).step == 12
    file.unlink()
    assert latest(run) is None
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        load(run)


FILES = ("model.safetensors", "optim.safetensors", "state.json")


def holder(data: bytes, position: int) -> str | None:
    """The tensor of a safetensors file that a byte belongs to."""
    start = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:start]).items():
        if start + entry["data_offsets"][0] <= position < start + entry["data_offsets"][1]:
            return name
    return None


@pytest.fixture(scope="module")
def scratch(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scratch") / "step"
    shutil.copytree(good / "checkpoints" / "step_00000012", folder)
    return folder


def refusal(scratch: Path, file: str, data: bytes) -> str:
    """The message with which a checkpoint whose `file` holds `data` is refused."""
    whole = (scratch / file).read_bytes()
    try:
        (scratch / file).write_bytes(data)
        with pytest.raises(CheckpointError) as caught:
            load(scratch).optim()
    finally:
        (scratch / file).write_bytes(whole)
    return str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_changed_byte_is_refused(scratch: Path, file: str, where: float, flip: int) -> None:
    whole = (scratch / file).read_bytes()
    position = int(where * len(whole))
    message = refusal(scratch, file, whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :])
    assert str(scratch / file) in message
    tensor = holder(whole, position) if file != "state.json" else None
    assert tensor is None or f"tensor '{tensor}' is damaged" in message


@settings(max_examples=75, deadline=None)
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.binary(max_size=20))
def test_any_other_length_is_refused(scratch: Path, file: str, where: float, extra: bytes) -> None:
    whole = (scratch / file).read_bytes()
    assert str(scratch / file) in refusal(scratch, file, whole + (extra or b"\n"))
    shorter = whole[: int(where * len(whole))]
    message = refusal(scratch, file, shorter)
    assert str(scratch / file) in message
    if file != "state.json":
        assert "truncated" in message or "is damaged" in message


def test_a_changed_byte_outside_the_tensors_is_refused(scratch: Path) -> None:
    """The header is padded with blanks; a newline there means the same to any reader of JSON."""
    whole = (scratch / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    assert whole[end - 1 : end] == b" "
    changed = whole[: end - 1] + b"\n" + whole[end:]
    assert "its sha256 is not the one of its record" in refusal(scratch, "model.safetensors", changed)


def test_a_cut_file_names_the_tensor_that_is_cut(scratch: Path) -> None:
    whole = (scratch / "model.safetensors").read_bytes()
    last = holder(whole, len(whole) - 1)
    assert f"tensor '{last}' is truncated (it has {len(whole) - 1} bytes where {len(whole)} were written)" in refusal(
        scratch, "model.safetensors", whole[:-1]
    )


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


# -- the optimiser ----------------------------------------------------------------------------------------------------


class Toy(nn.Module):
    """A sine layer with a table of codes and a parameter that is never used."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.tables = nn.ParameterDict({"nose": nn.Parameter(torch.randn(4, 3) * 0.01)})
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 1)
        self.idle = nn.Parameter(torch.zeros(2))

    def loss(self, step: int) -> Tensor:
        points = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        codes = self.tables["nose"][torch.arange(16) % 4]
        sdf = self.last(torch.sin(30 * self.first(torch.cat([points, codes], 1))))[:, 0]
        return (sdf - (points.norm(dim=1) - 1)).square().mean() + codes.square().mean()


def adam(toy: Toy, reverse: bool = False, **options: Any) -> torch.optim.Adam:
    nets = [parameter for name, parameter in toy.named_parameters() if not name.startswith("tables")]
    groups = [
        {"params": nets[::-1] if reverse else nets},
        {"params": list(toy.tables.parameters()), "lr": 3e-3, "betas": (0.8, 0.99)},
    ]
    return torch.optim.Adam(groups, **{"lr": 1e-2, **options})


def train(toy: Toy, optimiser: torch.optim.Adam, first: int, last: int) -> list[float]:
    losses = []
    for step in range(first, last):
        optimiser.param_groups[0]["lr"] = optimiser.param_groups[0]["lr"] * 0.95
        optimiser.zero_grad()
        loss = toy.loss(step)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def store(run: Path, step: int, toy: Toy, optimiser: torch.optim.Adam) -> Path:
    tensors, description = optimiser_tensors(optimiser, toy.named_parameters())
    return save(run, step, toy.state_dict(), tensors, {"optimiser": description})


def resume(run: Path, toy: Toy, optimiser: torch.optim.Adam) -> int:
    found = load(run)
    load_into(toy, found.tensors, found.path)
    restore_optimiser(optimiser, toy.named_parameters(), found.optim(), found.state["optimiser"], found.path)
    return found.step


@pytest.mark.parametrize(
    "options", [{}, {"amsgrad": True, "weight_decay": 0.01}, {"lr": torch.tensor(0.01)}, {"fused": True}], ids=str
)
@pytest.mark.parametrize("reverse", [False, True])
def test_training_resumes_bit_equal(tmp_path: Path, options: dict[str, Any], reverse: bool) -> None:
    toy = Toy(0)
    optimiser = adam(toy, **options)
    train(toy, optimiser, 0, 5)
    store(tmp_path, 5, toy, optimiser)
    expected = train(toy, optimiser, 5, 11)

    fresh = Toy(1)
    again = adam(fresh, reverse, **options)
    train(fresh, again, 0, 2)
    assert resume(tmp_path, fresh, again) == 5
    assert train(fresh, again, 5, 11) == expected
    assert_same(fresh.state_dict(), toy.state_dict())
    assert_same(
        *(optimiser_tensors(one, model.named_parameters())[0] for one, model in ((optimiser, toy), (again, fresh)))
    )
    for own, other in zip(optimiser.param_groups, again.param_groups, strict=True):
        assert {key: value for key, value in own.items() if key != "params"} == {
            k: v for k, v in other.items() if k != "params"
        }
        assert type(own["betas"]) is tuple


def test_the_machine_may_change(tmp_path: Path) -> None:
    toy = Toy(0)
    optimiser = adam(toy, foreach=True)
    train(toy, optimiser, 0, 3)
    store(tmp_path, 3, toy, optimiser)
    again = adam(toy, fused=True)
    resume(tmp_path, toy, again)
    assert again.param_groups[0]["fused"] and not again.param_groups[0]["foreach"]
    assert again.param_groups[0]["lr"] == optimiser.param_groups[0]["lr"]


def test_restored_moments_are_not_the_checkpoints_own() -> None:
    toy = Toy(0)
    optimiser = adam(toy)
    train(toy, optimiser, 0, 2)
    tensors, description = optimiser_tensors(optimiser, toy.named_parameters())
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    again = adam(toy)
    restore_optimiser(again, toy.named_parameters(), tensors, json.loads(json.dumps(description)), "x")
    train(toy, again, 2, 4)
    assert_same(tensors, kept)


def test_refuses_an_optimiser_of_something_else() -> None:
    toy = Toy(0)
    optimiser = adam(toy)
    train(toy, optimiser, 0, 2)
    tensors, description = optimiser_tensors(optimiser, toy.named_parameters())
    groups = description["groups"]
    assert description["kind"] == "Adam" and groups[0]["parameters"]["idle"] == []

    def refuses(message: str, model: nn.Module = toy, other: Any = None, tensors: Any = tensors, **change: Any) -> None:
        other = adam(toy) if other is None else other
        with pytest.raises(CheckpointError, match=message):
            restore_optimiser(other, model.named_parameters(), tensors, {**description, **change}, "run/x")
        assert not other.state

    refuses("run/x: .*'kind' is 'Adam', here it is 'AdamW'", other=torch.optim.AdamW(toy.parameters()))
    refuses("has 2 parameter groups, here it has 1", other=torch.optim.Adam(toy.parameters()))
    refuses("field 'groups' is missing", groups=None)
    refuses(
        "tensor 'exp_avg/first.bias' is missing",
        tensors={k: v for k, v in tensors.items() if k != "exp_avg/first.bias"},
    )
    refuses("tensor 'exp_avg/ears' has no place here", tensors={**tensors, "exp_avg/ears": torch.zeros(1)})
    refuses(
        r"tensor 'exp_avg/first.bias' has shape \[9\] where \[8\]",
        tensors={**tensors, "exp_avg/first.bias": torch.zeros(9)},
    )
    refuses("tensor 'step/first.bias' has dtype torch.int64", tensors={**tensors, "step/first.bias": torch.tensor(2)})
    refuses(
        "tensor 'exp_avg_sq/last.bias' has 1 of 1 values",
        tensors={**tensors, "exp_avg_sq/last.bias": torch.tensor([torch.inf])},
    )
    first, second = groups

    def changed(group: dict[str, Any], field: str, change: dict[str, Any]) -> dict[str, Any]:
        """A group with entries of a field replaced; those set to None are taken out."""
        return {**group, field: {key: value for key, value in {**group[field], **change}.items() if value is not None}}

    refuses("group 0: option 'lr' is missing", groups=[changed(first, "options", {"lr": None}), second])
    refuses("group 1: option 'warm' is unknown", groups=[first, changed(second, "options", {"warm": 1})])
    refuses("group 0: parameter 'idle' is missing", groups=[changed(first, "parameters", {"idle": None}), second])
    refuses("group 1: parameter 'ears' is unknown", groups=[first, changed(second, "parameters", {"ears": []})])
    other = torch.optim.Adam([{"params": [toy.idle]}, {"params": [toy.last.bias]}])
    refuses(r"parameter of shape \[2\] that is not among those named", model=toy.tables, other=other)


# -- killed -----------------------------------------------------------------------------------------------------------

KILLED = textwrap.dedent(
    """
    import os, random, signal, sys, time
    import torch
    from facegraft_model.training.checkpoint import latest, load, save

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
        [sys.executable, "-c", KILLED, str(run), *arguments], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return [int(word) for word in result.stdout.split()]


@pytest.mark.slow
def test_killed_before_every_operation_on_the_disk(tmp_path: Path) -> None:
    assert min(kill(tmp_path, "every", "0")) > 10


def test_killed_at_any_moment(tmp_path: Path) -> None:
    assert kill(tmp_path, "random", "15")[0] >= 17
