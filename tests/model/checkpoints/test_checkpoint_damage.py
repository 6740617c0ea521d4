"""Damaged and foreign checkpoints are refused by the name of the file, and of the tensor or field."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from checkpoint_tensors import STATE, moments, some_tensors
from facegraft_model.checkpoints import tensor_file
from facegraft_model.checkpoints.checkpoint import CheckpointError, latest, load, save
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from facegraft.store.document import seal

FILES = ("model.safetensors", "optim.safetensors", "state.json")


def reseal(folder: Path, change: dict[str, Any]) -> None:
    """Change state.json as one who knows its checksum."""
    document = json.loads((folder / "state.json").read_bytes())
    document.pop("document_sha256")
    (folder / "state.json").write_bytes(seal({**document, **change}))


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
