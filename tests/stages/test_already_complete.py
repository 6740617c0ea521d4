"""A run that is complete is known as such without planning, and only then; what its evidence names is all that planning reads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from facegraft import pipeline
from facegraft.engine import EngineError, EngineOptions, RunSummary
from facegraft.heads.expressions import BY_NAME
from facegraft.heads.source import KINDS
from facegraft.pipeline import ingest, run_recipe
from facegraft.recipe import Recipe
from facegraft.stages import INGEST
from facegraft.stages.ingest import IngestParameters, plan_ingest

# -- what planning reads -------------------------------------------------------------------------------------------------

_opened: list[str] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | bytes | Path):
        _opened.append(str(Path(arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]).absolute()))


sys.addaudithook(_note)


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """The full names of all files and folders that are opened or listed."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def meshes(toy: ModuleType, root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        toy.write_obj(root / name, (1 + 0.02 * number) * toy.vertices())
    return root


def cases(toy: ModuleType, root: Path) -> dict[str, tuple[Path | None, dict[str, Any]]]:
    """A source and parameters of every kind, with every option that may name a file."""
    toy.region_map(1.0).save(root / "toy.json")
    toy.region_map(10.0).save(root / "toy_cm.json")
    toy.region_map(1000.0).save(root / "toy_m.json")
    toy.write_ict(root / "FaceXModel", list(BY_NAME["brow_lower"].shapes))
    meshes(toy, root / "heads", "ben.obj", "s2/neutral.obj", "s2/3_mouth_stretch.obj", "s10/neutral.obj", "s11/neutral.obj")
    meshes(toy, root / "fs", "2/1_neutral.obj", "2/2_smile.obj", "10/models_reg/1_neutral.obj")
    toy.write_obj(root / "template.obj")
    (root / "test.txt").write_text("s2\n")
    (root / "train.txt").write_text("ben s10\n")
    (root / "dataset").mkdir()
    toy.region_map(1.0).save(root / "dataset" / "region_map.json")
    stacked = np.stack([size * toy.vertices() for size in (1.0, 1.03, 0.96)]) / 1000
    np.savez(root / "fits.npz", shapes=stacked, subjects=["p0", "p1", "p2"], faces=toy.faces())
    lists = {"test_subjects": "test.txt", "train_subjects": "train.txt"}
    return {
        "synthetic": (None, {"kind": "synthetic", "subjects": 2, "expressions": 1}),
        "ict": (root / "FaceXModel", {"kind": "ict", "subjects": 3, "expressions": ["neutral", "brow_lower"], "region_map": "toy_cm.json"}),
        "facescape": (root / "fs", {"kind": "facescape", "region_map": "toy.json", "template": "template.obj"}),
        "flame": (root / "fits.npz", {"kind": "flame", "region_map": "toy_m.json", "align": "none"}),
        "meshes": (root / "heads", {"kind": "meshes", "region_map": "dataset", "template": "template.obj", **lists}),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_names_all_that_planning_reads(kind: str, toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, parameters = cases(toy, tmp_path)[kind]
    checked = IngestParameters.parse(parameters)
    plan_ingest(source, checked, 0)  # imports are done
    with opened_files() as opened:
        plan = plan_ingest(source, checked, 0)
    evidence = plan.evidence
    assert evidence is not None
    root = None if source is None else source if source.is_dir() else source.parent
    files = set() if root is None else {str(root / name) for name in evidence.files}
    given = {str(tmp_path / name): found for name, found in evidence.given.items()}
    beside = set() if source is None else {str(source.parent / name) for name in evidence.beside}
    ours = {path for path in opened if Path(path).is_relative_to(tmp_path)}
    listed = {path for path in ours if Path(path).is_dir()}
    assert not ours - listed - files - given.keys() - beside
    # A hash of the names in the source's folder, and in those below it, is in the evidence.
    assert all(root is not None and root.is_dir() and Path(path).is_relative_to(root) for path in listed)
    assert {path for path, found in given.items() if found} == {str(tmp_path / name) for name in given_files(parameters)}
    assert evidence.holds([] if source is None else [source])


def given_files(parameters: dict[str, Any]) -> list[str]:
    names = [value for value in parameters.values() if isinstance(value, str) and value not in KINDS and value != "none"]
    return [f"{name}/region_map.json" if name == "dataset" else name for name in names]


def test_a_folder_that_hides_a_shipped_map_is_noticed(toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map is looked for in the working folder first, also by the name of a topology."""
    monkeypatch.chdir(tmp_path)
    evidence = plan_ingest(None, IngestParameters.parse({"kind": "synthetic", "subjects": 2, "expressions": 1}), 0).evidence
    assert evidence is not None and evidence.holds([])
    (tmp_path / "synthetic").mkdir()
    toy.region_map(1.0).save(tmp_path / "synthetic" / "region_map.json")
    assert not evidence.holds([])


# -- a run that is started again -----------------------------------------------------------------------------------------


@pytest.fixture
def heads(toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: EngineOptions) -> Callable[..., RunSummary]:
    """Ingest of a folder of meshes, done once: the function does it again, with other parameters."""
    monkeypatch.chdir(tmp_path)
    source, parameters = cases(toy, tmp_path)["meshes"]

    def again(seed: int = 0, **changes: Any) -> RunSummary:
        given = {name: value for name, value in {**parameters, **changes}.items() if value is not None}
        return ingest(str(source), tmp_path / "out", given, seed, sync)

    again()
    return again


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the stages that are planned from now on."""
    names = []
    plan = type(INGEST).plan

    def noted(stage: Any, *arguments: Any) -> Any:
        names.append(stage.name)
        return plan(stage, *arguments)

    monkeypatch.setattr(type(INGEST), "plan", noted)
    return names


def test_ingest_of_the_same_folder_is_not_planned_again(heads: Callable[..., RunSummary], planned: list[str]) -> None:
    summary = heads()
    assert summary.already_complete and summary.written == 4 and not planned


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"subjects": 2, "train_subjects": None, "test_subjects": None}, "parameters.subjects"),
        ({"region_map": "toy.json"}, "parameters.region_map"),
    ],
)
def test_another_recipe_is_refused(heads: Callable[..., RunSummary], planned: list[str], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=f"holds a different run .*{message}"):
        heads(**changes)
    assert planned == ["ingest"]


CHANGES: dict[str, Callable[[ModuleType], object]] = {
    "a mesh": lambda toy: toy.write_obj(Path("heads/ben.obj"), 1.001 * toy.vertices()),
    "a mesh that a link leads to": lambda toy: toy.write_obj(Path("heads/s2/neutral.obj"), 1.001 * toy.vertices()),
    "no mesh of an expression": lambda toy: Path("heads/s2/3_mouth_stretch.obj").unlink(),
    "one more expression": lambda toy: toy.write_obj(Path("heads/s10/4_smile.obj")),
    "the list of subjects": lambda toy: Path("train.txt").write_text("ben s11\n"),
    "the region map": lambda toy: replace(toy.region_map(1.0), symmetry=None).save(Path("dataset/region_map.json")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_it_is_made_from_is_refused(
    heads: Callable[..., RunSummary], planned: list[str], toy: ModuleType, change: str
) -> None:
    CHANGES[change](toy)
    with pytest.raises(EngineError, match="holds a different run"):
        heads()
    assert planned == ["ingest"]


def test_a_change_that_does_not_count_is_planned_once(heads: Callable[..., RunSummary], planned: list[str]) -> None:
    Path("heads/notes.txt").write_text("scanned in May\n")
    assert heads().already_complete and planned == ["ingest"]
    assert heads().already_complete and planned == ["ingest"]


def test_a_change_of_the_code_is_planned_once(
    heads: Callable[..., RunSummary], planned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facegraft.engine.evidence.installation_sha256", lambda: "changed")
    assert heads().already_complete and planned == ["ingest"]
    assert heads().already_complete and planned == ["ingest"]


def test_a_complete_recipe_starts_nothing(
    small_run: Path, small_recipe: Recipe, sync: EngineOptions, planned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facegraft.engine.cluster.shared.start_client", lambda options: pytest.fail("a cluster was started"))
    summaries = run_recipe(small_recipe, None, small_run, seed=3, options=sync)
    assert all(summary.already_complete for summary in summaries) and len(summaries) == len(pipeline.STAGES)
    assert not planned


def test_a_stage_whose_input_is_damaged_says_so(small_run: Path, sync: EngineOptions, tmp_path: Path) -> None:
    """Also where its own dataset is complete: what the input is cannot be known."""
    import shutil

    from facegraft.store import StoreError

    for kind in ("heads", "composites"):
        shutil.copytree(small_run / kind, tmp_path / kind)
    parameters = {"donors": 3, "independent": 0.7, "stage_points": 512}
    assert pipeline.graft(tmp_path / "heads", tmp_path / "composites", parameters, 3, sync).already_complete
    for name in ("index.parquet", "shared.safetensors", "dataset.json"):
        path = tmp_path / "heads" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(StoreError, match=f"{name} is damaged"):
            pipeline.graft(tmp_path / "heads", tmp_path / "composites", parameters, 3, sync)
        path.write_bytes(whole)
