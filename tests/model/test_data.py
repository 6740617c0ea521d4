"""The training data: right windows, right rows of the code tables, and the same whoever loads them."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from facegraft_model.data.windows import POINT_SETS, WHOLE_FIELDS, DataError, IdTable, SampleWindows
from torch.utils.data import DataLoader

from facegraft.store import DamagedError, open_dataset, samples_fields

WINDOWS = {"surface": 16, "near": 8, "free": 4}
TRAIN_KEYS = ["anna-bert", "anna_neutral", "anna_smile", "bert_neutral", "cleo_neutral"]


def test_an_item_has_windows_whole_fields_and_ids(samples: Path) -> None:
    data = SampleWindows(samples, **WINDOWS)
    assert data.keys == TRAIN_KEYS
    assert len(data) == 5
    item = data[0]
    shapes = {name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in item.items()}
    ids = dict.fromkeys(
        ("item", "subject", "recipient", "nose", "eyes", "mouth", "expression", "head", "shape", "expression_name"),
        ("int64", ()),
    )
    assert shapes == {
        "surface_points": ("float32", (16, 3)),
        "surface_normals": ("float32", (16, 3)),
        "surface_parts": ("uint8", (16,)),
        "near_points": ("float32", (8, 3)),
        "near_sdf": ("float32", (8,)),
        "near_normals": ("float32", (8, 3)),
        "near_parts": ("uint8", (8,)),
        "free_points": ("float32", (4, 3)),
        "free_sdf": ("float32", (4,)),
        "free_normals": ("float32", (4, 3)),
        "landmarks": ("float32", (6, 68, 3)),
        "stage_points": ("float32", (6, 7, 3)),
        "to_mm": ("float64", (4, 4)),
        "is_composite": ("bool", ()),
        "is_neutral": ("bool", ()),
        **ids,
    }
    table = data.id_table
    assert table.subjects == ("anna", "bert", "cleo")
    assert table.expressions == (("anna", "neutral"), ("anna", "smile"), ("bert", "neutral"), ("cleo", "neutral"))
    own = {name: (name,) * 4 for name in table.subjects}
    mixed = ("anna", "bert", "bert", "cleo")
    assert table.heads == (own["anna"], mixed, own["bert"], own["cleo"])
    assert table.shapes == (
        (*own["anna"], "neutral"),
        (*own["anna"], "smile"),
        (*mixed, "neutral"),
        (*own["bert"], "neutral"),
        (*own["cleo"], "neutral"),
    )
    assert table.expression_names == ("neutral", "smile")
    rows = (*ids, "is_composite", "is_neutral")
    assert [int(item[name]) for name in rows] == [0, 0, 0, 1, 1, 2, 0, 1, 2, 0, True, False]
    assert [int(data[1][name]) for name in rows] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, False, True]
    assert [int(data[2][name]) for name in rows] == [2, 0, 0, 0, 0, 0, 1, 0, 1, 1, False, False]
    assert [int(data[3][name]) for name in rows] == [3, 1, 1, 1, 1, 1, 2, 2, 3, 0, False, True]


def test_windows_are_contiguous_row_matched_and_of_the_right_item(samples: Path) -> None:
    data = SampleWindows(samples, **WINDOWS)
    numbers = {key: number for number, key in enumerate(sorted([*TRAIN_KEYS, "bert-zoe", "dora_neutral"]))}
    wrapped = 0
    for epoch in range(12):
        data.set_epoch(epoch)
        for index, key in enumerate(data.keys):
            item, starts = data[index], data.starts(index)
            for name, fields in POINT_SETS.items():
                points = item[f"{name}_points"]
                size = {"surface": 50, "near": 20, "free": 10}[name]
                rows = (starts[name] + np.arange(WINDOWS[name])) % size
                wrapped += rows[-1] < rows[0]
                assert (points[:, 0] == numbers[key]).all()
                np.testing.assert_array_equal(points[:, 1], rows)
                np.testing.assert_array_equal(item[f"{name}_normals"], points + 100)
                if f"{name}_sdf" in fields:
                    np.testing.assert_array_equal(item[f"{name}_sdf"], rows)
                if f"{name}_parts" in fields:
                    np.testing.assert_array_equal(item[f"{name}_parts"], rows % 4)
            assert (item["landmarks"] == numbers[key]).all()
            assert (item["stage_points"] == numbers[key]).all()
    assert wrapped > 10


def test_starts_are_uniform_and_differ_between_items_epochs_and_seeds(samples: Path) -> None:
    data = SampleWindows(samples, surface=1, near=1, free=1)
    counts = {name: Counter() for name in POINT_SETS}
    for epoch in range(1000):
        data.set_epoch(epoch)
        for name, start in data.starts(epoch % 5).items():
            counts[name][start] += 1
    for name, size in {"surface": 50, "near": 20, "free": 10}.items():
        assert set(counts[name]) == set(range(size))
        expected = 1000 / size
        chi_squared = sum((count - expected) ** 2 / expected for count in counts[name].values())
        # Of chi-squared with size - 1 degrees of freedom, less than one in 10^5 lies this far above the mean.
        assert chi_squared < size - 1 + 6 * np.sqrt(2 * (size - 1))
    data.set_epoch(3)
    first = [data.starts(index) for index in range(5)]
    assert len({tuple(starts.values()) for starts in first}) == 5
    data.set_epoch(4)
    assert [data.starts(index) for index in range(5)] != first
    other = SampleWindows(samples, surface=1, near=1, free=1, seed=1)
    other.set_epoch(3)
    assert [other.starts(index) for index in range(5)] != first


def test_whole_sets_and_empty_windows(samples: Path, write_samples: Callable[..., Path]) -> None:
    whole = SampleWindows(samples, surface=50, near=20, free=0)[1]
    assert sorted(whole["surface_points"][:, 1].tolist()) == list(range(50))
    assert whole["free_points"].shape == (0, 3)
    assert whole["free_sdf"].shape == (0,)
    without_near = write_samples(sizes={"surface": 50, "near": 0, "free": 10})
    assert SampleWindows(without_near, surface=5, near=0, free=5)[0]["near_points"].shape == (0, 3)


def test_a_window_larger_than_its_set_is_refused(samples: Path) -> None:
    with pytest.raises(
        DataError, match=r"a window of 21 near points is larger than the 20 of item anna-bert in .*; ask for at most 20"
    ):
        SampleWindows(samples, surface=1, near=21, free=1)
    with pytest.raises(DataError, match="free must not be negative, but is -1"):
        SampleWindows(samples, surface=1, near=1, free=-1)
    with pytest.raises(DataError, match="seed must not be negative"):
        SampleWindows(samples, **WINDOWS, seed=-1)
    with pytest.raises(DataError, match="epoch must not be negative"):
        SampleWindows(samples, **WINDOWS).set_epoch(-1)


def test_splits(samples: Path) -> None:
    assert SampleWindows(samples, **WINDOWS, split="test").keys == ["dora_neutral"]
    assert SampleWindows(samples, **WINDOWS, split=None).keys == [*TRAIN_KEYS, "dora_neutral"]
    with pytest.raises(DataError, match=r"has no items of split 'tset'; its splits are None, test, train"):
        SampleWindows(samples, **WINDOWS, split="tset")
    with pytest.raises(IndexError):
        SampleWindows(samples, **WINDOWS)[5]


def test_another_kind_of_dataset_is_refused(write_samples: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="holds surfaces; a model learns from samples"):
        SampleWindows(write_samples(kind="surfaces"), **WINDOWS)


def test_missing_columns_are_named(write_samples: Callable[..., Path]) -> None:
    folder = write_samples(columns={"subject": "string", "split": "string"})
    with pytest.raises(
        DataError, match="lacks the columns recipient, donor_nose, donor_eyes, donor_mouth, expression, origin"
    ):
        SampleWindows(folder, **WINDOWS)


def test_bad_rows_are_named(write_samples: Callable[..., Path]) -> None:
    row = {
        **dict.fromkeys(("subject", "recipient", "donor_nose", "donor_eyes", "donor_mouth"), "anna"),
        "expression": "neutral",
    }
    strange = write_samples(rows={"x": {**row, "split": "train", "origin": "dream"}})
    with pytest.raises(DataError, match="item x has origin 'dream', which is neither scan nor composite"):
        SampleWindows(strange, **WINDOWS)
    nobody = write_samples(rows={"x": {**row, "donor_nose": None, "split": "train", "origin": "scan"}})
    with pytest.raises(DataError, match="items without subject, recipient, donor or expression"):
        SampleWindows(nobody, **WINDOWS)


def test_the_id_table_of_a_model_decides_the_rows(samples: Path, tmp_path: Path) -> None:
    everyone = IdTable.from_index(open_dataset(samples).index)
    assert everyone.subjects == ("anna", "bert", "cleo", "dora")
    everyone.save(tmp_path / "ids.json")
    loaded = IdTable.load(tmp_path / "ids.json")
    assert loaded == everyone
    item = SampleWindows(samples, **WINDOWS, split="test", id_table=loaded)[0]
    assert (int(item["subject"]), int(item["expression"])) == (3, 4)


def test_somebody_unknown_to_the_id_table_is_named(samples: Path) -> None:
    train = IdTable.from_index(open_dataset(samples).index, "train")
    with pytest.raises(DataError, match="item dora_neutral: subject 'dora' is not in the id table of 3 subjects"):
        SampleWindows(samples, **WINDOWS, split="test", id_table=train)
    fewer = replace(train, expressions=tuple(pair for pair in train.expressions if pair != ("anna", "smile")))
    with pytest.raises(
        DataError, match="item anna_smile: expression 'smile' of subject 'anna' is not in the id table; it has neutral"
    ):
        SampleWindows(samples, **WINDOWS, id_table=fewer)
    shapes = replace(train, shapes=tuple(shape for shape in train.shapes if shape[4] != "smile"))
    with pytest.raises(
        DataError,
        match=r"item anna_smile: the head of 'anna' .* has no expression 'smile' in the id table; it has neutral",
    ):
        SampleWindows(samples, **WINDOWS, id_table=shapes)
    heads = replace(train, heads=train.heads[:1], shapes=train.shapes[:1])
    words = "item anna-bert: the head of 'anna' with the nose of 'bert', eyes of 'bert' and mouth of 'cleo' is not in the id table of 1 heads"
    with pytest.raises(DataError, match=words):
        SampleWindows(samples, **WINDOWS, id_table=heads)
    with pytest.raises(DataError, match="expression 'frown' is not in the id table; it has neutral, smile"):
        train.expression_name("frown")
    with pytest.raises(DataError, match=r"subject 'ana' .* \(did you mean 'anna'\?\)"):
        train.subject("ana")


TABLE = {
    "subjects": ["a", "b"],
    "expressions": [["a", "neutral"]],
    "heads": [["a", "a", "a", "a"]],
    "shapes": [["a", "a", "a", "a", "neutral"]],
    "expression_names": ["neutral"],
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": None}, "not an id table: it lacks 'heads'; it was written by an older version"),
        ({"heads": None, "shapes": None, "expression_names": None}, "it lacks 'heads', 'shapes', 'expression_names'"),
        ({"expressions": [["a"]]}, "'expressions' must be a list of lists of 2 names"),
        ({"shapes": {}}, "'shapes' must be a list of lists of 5 names"),
        ({"subjects": [1]}, "'subjects' must be a list of names"),
        ({"subjects": ["b", "a"]}, "subjects must be sorted and without repeats"),
        ({"expression_names": ["neutral", "neutral"]}, "expression_names must be sorted and without repeats"),
        ({"expressions": [["z", "neutral"]]}, "expressions of 'z', who is not among the subjects"),
        ({"heads": [["a", "a", "a", "a"], ["a", "a", "a", "z"]]}, "heads of 'z', who is not among the subjects"),
        (
            {"shapes": [["a", "a", "a", "b", "neutral"]]},
            "a shape of the head of 'a' .* mouth of 'b', which is not among the heads",
        ),
        ({"expression_names": ["smile"]}, "expression 'neutral' is not among the expression names"),
    ],
)
def test_what_is_no_id_table(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(TABLE))
    assert IdTable.load(path).to_json() == TABLE
    path.write_text(json.dumps({name: value for name, value in (TABLE | changes).items() if value is not None}))
    with pytest.raises(DataError, match=words):
        IdTable.load(path)


def test_a_file_that_holds_no_id_table(tmp_path: Path) -> None:
    for text, words in (("[]", "not a JSON object"), ("{", "no id table at")):
        (tmp_path / "ids.json").write_text(text)
        with pytest.raises(DataError, match=words):
            IdTable.load(tmp_path / "ids.json")
    with pytest.raises(DataError, match="no id table at"):
        IdTable.load(tmp_path / "nowhere.json")


def epochs(loader: DataLoader, data: SampleWindows) -> list[list[dict[str, torch.Tensor]]]:
    batches = []
    for epoch in range(2):
        data.set_epoch(epoch)
        batches.append(list(loader))
    return batches


def assert_same(first: list, second: list) -> None:
    for epoch, other_epoch in zip(first, second, strict=True):
        for batch, other in zip(epoch, other_epoch, strict=True):
            assert batch.keys() == other.keys()
            for name in batch:
                torch.testing.assert_close(batch[name], other[name], rtol=0, atol=0)


@pytest.mark.parametrize(("context", "persistent"), [("fork", False), ("fork", True), ("spawn", True)])
def test_workers_load_the_same_data(samples: Path, context: str, persistent: bool) -> None:
    data = SampleWindows(samples, **WINDOWS)
    alone = epochs(DataLoader(data, batch_size=2), data)
    assert [len(epoch) for epoch in alone] == [3, 3]
    assert alone[0][0]["surface_points"].shape == (2, 16, 3)
    assert not torch.equal(alone[0][0]["surface_points"], alone[1][0]["surface_points"])
    loader = DataLoader(
        data, batch_size=2, num_workers=2, multiprocessing_context=context, persistent_workers=persistent
    )
    assert_same(epochs(loader, data), alone)


def test_an_error_in_a_worker_reaches_the_user(write_samples: Callable[..., Path]) -> None:
    folder = write_samples()
    shard = sorted((folder / "shards").glob("*.safetensors"))[2]
    loader = DataLoader(SampleWindows(folder, **WINDOWS), num_workers=1, multiprocessing_context="fork")
    changed = bytearray(shard.read_bytes())
    changed[-1] ^= 1
    shard.write_bytes(changed)
    with pytest.raises(DamagedError, match="is damaged"):
        list(loader)


def test_it_pickles(samples: Path) -> None:
    data = SampleWindows(samples, **WINDOWS, seed=5)
    data.set_epoch(7)
    again = pickle.loads(pickle.dumps(data))
    assert again.epoch == 7
    assert_same([[again[3]]], [[data[3]]])


def test_the_reader_needs_nothing_else_of_facegraft() -> None:
    """A machine that trains has neither the engine's nor the geometry's packages."""
    program = """
import sys
import facegraft_model.data.batches, facegraft_model.data.windows
ours = {name for name in sys.modules if name.split(".")[0] == "facegraft"}
other = {name for name in ours if name not in ("facegraft", "facegraft.errors") and not name.startswith("facegraft.store")}
heavy = {"dask", "distributed", "scipy", "igl", "trimesh", "pyvista", "vtk", "pydantic", "manifold3d"} & set(sys.modules)
sys.exit(f"{other} {heavy}" if other or heavy else 0)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_every_field_of_samples_is_read() -> None:
    assert {field for fields in POINT_SETS.values() for field in fields} | set(WHOLE_FIELDS) == set(samples_fields())
