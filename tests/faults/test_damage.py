"""Every region of every file of a run, flipped and cut: an error of ours that names file and remedy, or the right data; and the remedy works.

tests/store/test_damage.py does the like for a dataset alone and flips anywhere; here each region gets its share, run.json and plan.parquet
are among the files, and what the message tells the user to do is done.
"""

from __future__ import annotations

import re
import shutil
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fuzzing import limits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_runs import STAGE, dataset_hash, options, run
from toy_stages import toy_plan

from facegraft.engine import retry, status
from facegraft.errors import FacegraftError
from facegraft.store import open_dataset, verify_dataset

SYNC = {"scheduler": "sync"}
SHARD, RECORD = "shards/00000-of-00003.safetensors", "shards/00000-of-00003.json"
FILES = (
    "dataset.json",
    "index.parquet",
    "run.json",
    "plan.parquet",
    "shared.safetensors",
    "region_map.json",
    SHARD,
    RECORD,
)
DATASET_FILES = tuple(name for name in FILES if name not in ("run.json", "plan.parquet"))
JSON_FIELD = re.compile(rb'^ "(\w+)":', re.MULTILINE)
PER_REGION = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def make(folder: Path) -> Any:
    """Ten items in three shards, one of them rejected; the same command again resumes or repairs."""
    return run(toy_plan(10, 4, {5: "refuse"}), folder, **SYNC)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage") / "run"
    make(folder)
    return folder


@pytest.fixture(scope="module")
def right(whole: Path) -> list[Any]:
    return everything(whole)


@pytest.fixture(scope="module")
def copy(whole: Path) -> Path:
    """The folder that is damaged; `damage` makes it whole before."""
    folder = whole.parent / "copy"
    shutil.copytree(whole, folder)
    return folder


def regions(name: str, data: bytes) -> dict[str, tuple[int, int]]:
    """Name → half-open range of bytes."""
    if name.endswith(".json"):
        starts = [(match[1].decode(), match.start()) for match in JSON_FIELD.finditer(data)]
        stops = [start for _, start in starts[1:]] + [len(data)]
        return {
            "opening": (0, starts[0][1]),
            **{field: (start, stop) for (field, start), stop in zip(starts, stops, strict=True)},
        }
    if name.endswith(".safetensors"):
        body = 8 + struct.unpack("<Q", data[:8])[0]
        return {"length": (0, 8), "header": (8, body), "tensors": (body, len(data))}
    footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    return {
        "magic": (0, 4),
        "pages": (4, footer),
        "footer": (footer, len(data) - 8),
        "footer length": (len(data) - 8, len(data) - 4),
        "end": (len(data) - 4, len(data)),
    }


REGIONS = {
    "dataset.json": "opening attachments columns counts document_sha256 fields format frame index kind mm_per_unit must_understand parts shards topology version",
    "run.json": "opening code_version document_sha256 format input_fingerprint inputs parameters plan_sha256 planned region_map_sha256 schema seed shard_items shards shared_sha256 stage version",
    RECORD: "opening bytes document_sha256 plan planned rows sha256 shard",
    "region_map.json": "opening name",
    **dict.fromkeys((SHARD, "shared.safetensors"), "length header tensors"),
    **dict.fromkeys(("index.parquet", "plan.parquet"), "magic,pages,footer,footer length,end"),
}
CASES = [
    (name, region)
    for name in FILES
    for region in (REGIONS[name].split(",") if "," in REGIONS[name] else REGIONS[name].split())
]


def test_the_regions_are_all_there_are(whole: Path) -> None:
    for name in FILES:
        data = (whole / name).read_bytes()
        found = regions(name, data)
        assert [region for file, region in CASES if file == name] == list(found), name
        spans = sorted(found.values())
        assert spans[0][0] == 0 and spans[-1][1] == len(data) and all(a[1] == b[0] for a, b in pairwise(spans))


def everything(folder: Path) -> list[Any]:
    ds = open_dataset(folder)
    items = {key: {name: (str(array.dtype), array.tolist()) for name, array in ds[key].items()} for key in ds}
    return [ds.index.to_pylist(), items, ds.region_map, ds.faces.tolist()]


def damage(whole: Path, copy: Path, name: str, data: bytes) -> None:
    for path in FILES:
        (copy / path).write_bytes((whole / path).read_bytes())
    (copy / name).write_bytes(data)


def assert_noticed(copy: Path, right: list[Any], name: str) -> str | None:
    """Reading, verifying, status: an error with file and remedy, or the right data. Returns the reader's message."""
    with limits():
        findings = verify_dataset(copy)
        assert name not in DATASET_FILES or any(Path(name).stem in finding for finding in findings)
        message = None
        try:
            assert everything(copy) == right
            assert name in (RECORD, "run.json", "plan.parquet"), "read as if nothing were wrong"
        except FacegraftError as error:
            message = str(error)
            assert name in DATASET_FILES
            assert_says(message, name)
        try:
            found = status(copy)
            assert (found.planned, found.shards) == (10, 3) and found.shards_done in (2, 3)
        except FacegraftError as error:
            assert name == "run.json"
            assert_says(str(error), name)
    return message


def assert_says(message: str, name: str) -> None:
    assert "\n" not in message
    assert Path(name).name in message
    assert any(remedy in message for remedy in ("delete", "again", "remove")), message


@pytest.mark.parametrize(("name", "region"), CASES)
@PER_REGION
@given(data=st.data())
def test_a_flipped_bit_in_every_region(
    whole: Path, copy: Path, right: list[Any], name: str, region: str, data: st.DataObject
) -> None:
    content = bytearray((whole / name).read_bytes())
    start, stop = regions(name, bytes(content))[region]
    content[data.draw(st.integers(start, stop - 1))] ^= 1 << data.draw(st.integers(0, 7))
    damage(whole, copy, name, bytes(content))
    assert_noticed(copy, right, name)


@pytest.mark.parametrize("name", FILES)
@PER_REGION
@given(data=st.data())
def test_a_file_cut_at_any_offset(whole: Path, copy: Path, right: list[Any], name: str, data: st.DataObject) -> None:
    content = (whole / name).read_bytes()
    edges = sorted({edge for span in regions(name, content).values() for edge in span} - {len(content)})
    cut = data.draw(st.one_of(st.sampled_from(edges), st.integers(0, len(content) - 1)))
    damage(whole, copy, name, content[:cut])
    assert_noticed(copy, right, name)


# Documents are sealed as a whole, so a few of their fields stand for all.
MENDED = [(name, region) for i, (name, region) in enumerate(CASES) if not name.endswith(".json") or i % 5 == 0]


@pytest.mark.parametrize(("name", "region"), MENDED)
def test_the_same_command_again_after_damage(
    whole: Path, tmp_path: Path, right: list[Any], name: str, region: str
) -> None:
    """Without a remedy: it mends, refuses, or leaves a folder whose reader still notices. With the remedy: the bytes of an undisturbed run."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    content = bytearray((folder / name).read_bytes())
    start, stop = regions(name, bytes(content))[region]
    content[(start + stop) // 2] ^= 1
    (folder / name).write_bytes(content)
    try:
        make(folder)
        told = verify_dataset(folder)
    except FacegraftError as error:
        told = [str(error)]
        assert name == "run.json"
        assert_says(told[0], name)
    if told:
        follow(told[0], folder, name)
        make(folder)
    assert verify_dataset(folder) == []
    assert everything(folder) == right
    assert without_plan(folder) == without_plan(whole)


def without_plan(folder: Path) -> dict[str, str]:
    """Hashes of the dataset's files. The plan is for making shards: a finished run is not given a new one."""
    return {name: sha256 for name, sha256 in dataset_hash(folder).items() if name != "plan.parquet"}


def follow(message: str, folder: Path, name: str) -> None:
    """Do what the message tells the user to."""
    if "delete the folder" in message:
        shutil.rmtree(folder)
        return
    assert "delete it" in message, message
    (folder / name).unlink()
    record = re.search(r"and its (\S+\.json)", message)
    if record is not None:
        (folder / "shards" / record[1]).unlink()


@pytest.mark.parametrize(
    "name", ["index.parquet", "shared.safetensors", "region_map.json", "plan.parquet", SHARD, RECORD, "dataset.json"]
)
def test_a_file_that_was_taken_away_comes_back(whole: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / name).unlink()
    make(folder)
    assert verify_dataset(folder) == []
    assert without_plan(folder) == without_plan(whole)


@pytest.mark.parametrize("region", ["magic", "pages", "footer", "footer length", "end"])
def test_retry_notices_a_damaged_plan(whole: Path, tmp_path: Path, region: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    content = bytearray((folder / "plan.parquet").read_bytes())
    start, stop = regions("plan.parquet", bytes(content))[region]
    content[(start + stop) // 2] ^= 1
    (folder / "plan.parquet").write_bytes(content)
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"}
    with limits():
        try:
            retry(folder, STAGE, options(**SYNC))
        except FacegraftError as error:
            assert_says(str(error), "plan.parquet")
            assert {path: path.read_bytes() for path in before} == before, "refused before anything was changed"
        else:
            # A byte that means nothing to the decoder: the plan that was read is the plan that was made.
            assert dataset_hash(folder)["index.parquet"] == dataset_hash(whole)["index.parquet"]
