"""What a plan was made from: whatever changes is noticed, and a finished run of which nothing has changed is known without a plan."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from toy_runs import STAGE, dataset_hash, options, run
from toy_stages import toy_plan

from facegraft.engine import EngineError, Evidence, RunSummary, SharedClient, already_complete, execute
from facegraft.engine.evidence import (
    EVIDENCE_FILE,
    evidence_of_source,
    names_in,
    read_evidence,
    source_folder,
    write_evidence,
)
from facegraft.engine.locks import locked
from facegraft.store.document import seal, unseal
from facegraft.store.fingerprint import hash_files, hash_names
from facegraft.store.remote import place

READ = ("a.obj", "deep/er/b.obj", "missing.obj")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files, one of them only listed, with a map in the working folder and a file beside the source."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "raw" / "source"
    (root / "deep" / "er").mkdir(parents=True)
    for name in ("a.obj", "deep/er/b.obj", "deep/unread.obj", ".hidden"):
        (root / name).write_text(f"v {name}\n")
    (tmp_path / "raw" / "beside.npz").write_bytes(b"landmarks")
    (tmp_path / "map.json").write_text("{}")
    return root


def evidence_of(source: Path) -> Evidence:
    """The evidence of a plan that read READ."""
    hashes = hash_files(source_folder(source), READ if source.is_dir() else [source.name])
    found = evidence_of_source(source, names_in(source), hashes, ["beside.npz"], ["map.json", "other.json", "kind"])
    assert found is not None
    return found


CHANGES: dict[str, Callable[[Path], object]] = {
    "a file that was read, of the same size": lambda root: (root / "a.obj").write_text("v b.obj\n"),
    "the date alone": lambda root: os.utime(root / "a.obj", (0, 0)),
    "a file in a folder, of the same size": lambda root: (root / "deep/er/b.obj").write_text("v deep/er/c.obj\n"),
    "a file that was there is gone": lambda root: (root / "a.obj").unlink(),
    "a file that was listed is gone": lambda root: (root / "deep/unread.obj").unlink(),
    "a file that was missing is there": lambda root: (root / "missing.obj").write_text("v\n"),
    "a new file": lambda root: (root / "new.obj").write_text("v\n"),
    "a new file in a folder": lambda root: (root / "deep/er/new.obj").write_text("v\n"),
    "a new folder": lambda root: (root / "s9").mkdir(),
    "another name": lambda root: (root / "deep/unread.obj").rename(root / "deep/neutral.obj"),
    "a folder in place of a file": lambda root: ((root / "deep/unread.obj").unlink(), (root / "deep/unread.obj").mkdir()),
    "a file beside the source": lambda root: (root.parent / "beside.npz").write_bytes(b"Landmarks"),
    "a file that a parameter names": lambda root: Path("map.json").write_text('{"other": 1}'),
    "a file that a parameter names is gone": lambda root: Path("map.json").unlink(),
    "a file that a parameter may name is there": lambda root: Path("other.json").write_text("{}"),
    "the source is gone": lambda root: root.rename(root.with_name("elsewhere")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_noticed(source: Path, change: str) -> None:
    evidence = evidence_of(source)
    assert evidence.holds([source])
    CHANGES[change](source)
    assert evidence.holds([source]) == (change == "the date alone")


def test_a_source_that_has_moved_is_the_same(source: Path, tmp_path: Path) -> None:
    evidence = evidence_of(source)
    (tmp_path / "raw").rename(tmp_path / "moved")
    assert not evidence.holds([source]) and evidence.holds([tmp_path / "moved" / "source"])


def test_a_source_that_is_a_file(source: Path) -> None:
    file = source / "a.obj"
    evidence = evidence_of(file)
    (source / "new.obj").write_text("v\n")
    assert evidence.holds([file])
    file.write_text("v other\n")
    assert not evidence.holds([file])


def test_what_cannot_be_told_cheaply_has_no_evidence(source: Path) -> None:
    names = names_in(source)
    assert evidence_of_source(source, names, {}, [], ["map.json"]) is not None
    assert evidence_of_source(source, None, {}, [], []) is None
    assert evidence_of_source(place("memory://bucket/source"), None, {}, [], []) is None
    for text in ("memory://bucket/map.json", "nonsense://x/y", "two\nlines"):
        assert evidence_of_source(source, names, {}, [], [text]) is None


def test_links_are_followed_and_a_circle_ends(source: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    before = hash_names(source)
    (source / "link").symlink_to(linked)
    assert hash_names(source) != before
    (source / "circle").symlink_to(source)
    before = hash_names(source)
    (linked / "new.obj").write_text("v\n")
    assert hash_names(source) != before


def test_a_pipe_is_not_waited_for(source: Path) -> None:
    os.mkfifo(source / "missing.obj")
    os.mkfifo("other.json")
    evidence = evidence_of(source)
    assert evidence.given["other.json"] is None and evidence.holds([source])


def test_evidence_is_of_one_run_and_one_code(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, folder = evidence_of(source), tmp_path / "out"
    write_evidence(folder, "run 1", evidence)
    assert read_evidence(folder, "run 1") == evidence
    assert read_evidence(folder, "run 2") is None
    monkeypatch.setattr("facegraft.engine.evidence.installation_sha256", lambda: "changed")
    assert read_evidence(folder, "run 1") is None


def test_damaged_or_strange_evidence_is_none(source: Path, tmp_path: Path) -> None:
    evidence, folder = evidence_of(source), tmp_path / "out"
    path = folder / EVIDENCE_FILE
    write_evidence(folder, "run 1", evidence)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert read_evidence(folder, "run 1") is None
    document = unseal(whole, "", "")
    for name in asdict(evidence):
        for strange in ({name: 7}, {name: [7]}, {name: {"x": 7}}):
            path.write_bytes(seal({**document, **strange}))
            assert read_evidence(folder, "run 1") is None
        path.write_bytes(seal({key: value for key, value in document.items() if key != name}))
        assert read_evidence(folder, "run 1") is None
    path.unlink()
    (folder / "elsewhere.json").write_bytes(whole)
    path.symlink_to(folder / "elsewhere.json")
    assert read_evidence(folder, "run 1") is None


# -- a run ---------------------------------------------------------------------------------------------------------------


def asked_for(source: Path, output: Path, scale: float = 1.0, seed: int = 0, stage: str = STAGE) -> RunSummary | None:
    return already_complete(stage, [source], [str(source)], output, {"scale": scale, "near": 3}, seed)


@pytest.fixture
def finished(source: Path, tmp_path: Path) -> Path:
    output = tmp_path / "out"
    execute(
        STAGE,
        replace(toy_plan(6, 2, {3: "refuse"}), evidence=evidence_of(source)),
        [str(source)],
        output,
        {"scale": 1.0, "near": 3},
        0,
        options(scheduler="sync"),
    )
    return output


def test_a_finished_run_is_known_without_a_plan(source: Path, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    summary = asked_for(source, finished)
    assert summary is not None and summary.already_complete
    assert (summary.planned, summary.written, summary.rejected, summary.reasons) == (6, 5, 1, {"too few faces": 1})
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"} == before


def test_another_run_is_not(source: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_for(source, finished, scale=2.0) is None
    assert asked_for(source, finished, seed=1) is None
    assert asked_for(source, finished, stage="toy_stages:OtherStage") is None
    assert asked_for(source, finished.with_name("nowhere")) is None
    monkeypatch.setattr("facegraft.__version__", "0.0.0")
    assert asked_for(source, finished) is None


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no dataset.json": lambda out: (out / "dataset.json").unlink(),
    "a damaged dataset.json": lambda out: (out / "dataset.json").write_bytes(b"{}"),
    "a shard is gone": lambda out: (out / "shards/00001-of-00003.safetensors").unlink(),
    "a shard is short": lambda out: os.truncate(out / "shards/00001-of-00003.safetensors", 100),
    "a record is gone": lambda out: (out / "shards/00001-of-00003.json").unlink(),
    "a record is damaged": lambda out: (out / "shards/00001-of-00003.json").write_bytes(b"{}"),
    "a damaged index": lambda out: flip(out / "index.parquet"),
    "a damaged attachment": lambda out: flip(out / "shared.safetensors"),
    "no evidence": lambda out: (out / EVIDENCE_FILE).unlink(),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_dataset_is_not_called_complete(source: Path, finished: Path, damage: str) -> None:
    before = dataset_hash(finished)
    DAMAGE[damage](finished)
    assert asked_for(source, finished) is None
    plan = replace(toy_plan(6, 2, {3: "refuse"}), evidence=evidence_of(source))
    execute(STAGE, plan, [str(source)], finished, {"scale": 1.0, "near": 3}, 0, options(scheduler="sync"))
    assert dataset_hash(finished) == before and asked_for(source, finished) is not None


def test_a_changed_source_is_planned_again(source: Path, finished: Path) -> None:
    (source / "deep/unread.obj").write_text("v changed, but the plan did not read it\n")
    assert asked_for(source, finished) is not None
    (source / "new.obj").write_text("v\n")
    assert asked_for(source, finished) is None
    # The plan is the same after all: from now on that is known.
    plan = replace(toy_plan(6, 2, {3: "refuse"}), evidence=evidence_of(source))
    assert execute(STAGE, plan, [str(source)], finished, {"scale": 1.0, "near": 3}, 0, options(scheduler="sync")).already_complete
    assert asked_for(source, finished) is not None


def test_the_new_place_of_an_input_is_noted(source: Path, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "source"
    assert asked_for(moved, finished) is not None
    assert json.loads((finished / "run.json").read_text())["inputs"] == [str(moved)]


def test_a_folder_in_use_is_refused(source: Path, finished: Path) -> None:
    with locked(finished), pytest.raises(EngineError, match=r"in use|another|holds"):
        asked_for(source, finished)


# -- one client for several runs -----------------------------------------------------------------------------------------


def test_a_shared_client_is_started_by_the_first_run_that_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facegraft.engine.cluster import shared

    started = []
    start = shared.start_client
    monkeypatch.setattr(shared, "start_client", lambda given: started.append(given) or start(given))
    with SharedClient(options(scheduler="sync")) as client:
        run(toy_plan(4, 2), tmp_path / "one", client)
        run(toy_plan(4, 2), tmp_path / "two", client)
    assert len(started) == 1
    with SharedClient(options(scheduler="sync")) as client:
        assert run(toy_plan(4, 2), tmp_path / "one", client).already_complete
    assert len(started) == 1


def test_a_cluster_that_cannot_be_reached_is_named_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facegraft.engine.cluster.connect.CONNECT_S", 1.0)
    with (
        pytest.raises(EngineError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        SharedClient(options(scheduler="tcp://127.0.0.1:9")) as client,
    ):
        run(toy_plan(4, 2), tmp_path / "out", client)
