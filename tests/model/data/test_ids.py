"""Which items are chosen, and which rows of the code tables are theirs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from facegraft_model.data.batches import BatchSource
from facegraft_model.data.ids import DataError, IdTable, head_of
from facegraft_model.data.items import POINT_SETS, WHOLE_FIELDS
from facegraft_model.testing import made_up_parts
from toy_parts import EYES

from facegraft.store import OPTIONAL_SETS, open_dataset, samples_fields

TRAIN_KEYS = ["anna-bert", "anna_neutral", "anna_smile", "bert_neutral", "cleo_neutral"]


def of(path: Path, **changes: Any) -> BatchSource:
    windows = {"surface": 4, "near": 2, "free": 1, "stage": 0}
    return BatchSource(path, **{"items": 5, **windows, "backend": "stream", **changes})


def test_a_table_holds_whoever_lends_a_part_and_the_ids_of_an_item_are_its_rows(samples: Path) -> None:
    with of(samples) as data:
        ids = {name: tensor.tolist() for name, tensor in data.ids.items()}
    assert data.keys == TRAIN_KEYS
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
    assert ids == {
        "subject": [0, 0, 0, 1, 2],
        "recipient": [0, 0, 0, 1, 2],
        "nose": [1, 0, 0, 1, 2],
        "eyes": [1, 0, 0, 1, 2],
        "mouth": [2, 0, 0, 1, 2],
        "expression": [0, 0, 1, 2, 3],
        "head": [1, 0, 0, 2, 3],
        "shape": [2, 0, 1, 3, 4],
        "expression_name": [0, 0, 1, 0, 0],
        "is_composite": [True, False, False, False, False],
        "is_neutral": [False, True, False, True, True],
    }


def test_a_table_has_a_donor_for_each_part_whatever_parts_there_are(tmp_path: Path) -> None:
    for parts in (made_up_parts(1), made_up_parts(8)):
        own = dict.fromkeys(("subject", *parts.head_columns), "a") | {"expression": "neutral"}
        grafted = own | dict.fromkeys(parts.donor_columns.values(), "b")
        table = IdTable.from_rows([own, grafted], parts)
        assert table.heads == (("a",) * (len(parts) + 1), ("a", *"b" * len(parts)))
        assert table.head(head_of(grafted, parts)) == 1
        assert table.shape(table.heads[1], "neutral") == 1
        table.save(tmp_path / "ids.json")
        assert IdTable.load(tmp_path / "ids.json") == table
        with pytest.raises(DataError, match=f"heads must have {len(parts) + 1} names each, with the parts patch_a"):
            replace(table, heads=(("a",) * (len(parts) + 2),))


def test_splits(samples: Path) -> None:
    assert of(samples, split="test").keys == ["dora_neutral"]
    assert of(samples, split=None).keys == [*TRAIN_KEYS, "dora_neutral"]
    with pytest.raises(DataError, match=r"has no items of split 'tset'; its splits are None, test, train"):
        of(samples, split="tset")


def test_another_kind_of_dataset_is_refused(write_samples: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="holds surfaces; a model learns from samples"):
        of(write_samples(kind="surfaces"))


def test_missing_columns_are_named(write_samples: Callable[..., Path]) -> None:
    folder = write_samples(columns={"subject": "string", "split": "string"})
    with pytest.raises(
        DataError, match="lacks the columns recipient, donor_nose, donor_eyes, donor_mouth, expression, origin"
    ):
        of(folder)


def test_bad_rows_are_named(write_samples: Callable[..., Path]) -> None:
    row = {
        **dict.fromkeys(("subject", "recipient", "donor_nose", "donor_eyes", "donor_mouth"), "anna"),
        "expression": "neutral",
    }
    strange = write_samples(rows={"x": {**row, "split": "train", "origin": "dream"}})
    with pytest.raises(DataError, match="item x has origin 'dream', which is neither scan nor composite"):
        of(strange)
    nobody = write_samples(rows={"x": {**row, "donor_nose": None, "split": "train", "origin": "scan"}})
    with pytest.raises(DataError, match="items without subject, recipient, donor or expression"):
        of(nobody)


def test_the_id_table_of_a_model_decides_the_rows(samples: Path, tmp_path: Path) -> None:
    everyone = IdTable.from_index(open_dataset(samples).index, EYES)
    assert everyone.subjects == ("anna", "bert", "cleo", "dora")
    everyone.save(tmp_path / "ids.json")
    loaded = IdTable.load(tmp_path / "ids.json")
    assert loaded == everyone
    item = of(samples, items=1, split="test", id_table=loaded).batch(0)
    assert (int(item["subject"]), int(item["expression"])) == (3, 4)


def test_somebody_unknown_to_the_id_table_is_named(samples: Path) -> None:
    train = IdTable.from_index(open_dataset(samples).index, EYES, "train")
    with pytest.raises(DataError, match="item dora_neutral: subject 'dora' is not in the id table of 3 subjects"):
        of(samples, split="test", id_table=train)
    fewer = replace(train, expressions=tuple(pair for pair in train.expressions if pair != ("anna", "smile")))
    with pytest.raises(
        DataError, match="item anna_smile: expression 'smile' of subject 'anna' is not in the id table; it has neutral"
    ):
        of(samples, id_table=fewer)
    shapes = replace(train, shapes=tuple(shape for shape in train.shapes if shape[-1] != "smile"))
    with pytest.raises(
        DataError,
        match=r"item anna_smile: the head of 'anna' .* has no expression 'smile' in the id table; it has neutral",
    ):
        of(samples, id_table=shapes)
    heads = replace(train, heads=train.heads[:1], shapes=train.shapes[:1])
    words = "item anna-bert: the head of 'anna' with the nose of 'bert', eyes of 'bert', mouth of 'cleo' is not in the id table of 1 heads"
    with pytest.raises(DataError, match=words):
        of(samples, id_table=heads)
    with pytest.raises(DataError, match="expression 'frown' is not in the id table; it has neutral, smile"):
        train.expression_name("frown")
    with pytest.raises(DataError, match=r"subject 'ana' .* \(did you mean 'anna'\?\)"):
        train.subject("ana")


TABLE = {
    "parts": EYES.to_json(),
    "subjects": ["a", "b"],
    "expressions": [["a", "neutral"]],
    "heads": [["a", "a", "a", "a"]],
    "shapes": [["a", "a", "a", "a", "neutral"]],
    "expression_names": ["neutral"],
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts": None}, "not an id table: it lacks 'parts'"),
        ({"parts": {"region_set": "x", "parts": []}}, "not an id table: its parts: region set 'x' has 0 parts"),
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


def test_the_reader_needs_nothing_else_of_facegraft() -> None:
    """A machine that trains has neither the engine's nor the geometry's packages."""
    program = """
import sys
import facegraft_model.data.batches
ours = {name for name in sys.modules if name.split(".")[0] == "facegraft"}
other = {name for name in ours if name not in ("facegraft", "facegraft.errors", "facegraft.parts", "facegraft.seeds", "facegraft.settings", "facegraft.vocabulary") and not name.startswith("facegraft.store")}
heavy = {"dask", "distributed", "scipy", "igl", "trimesh", "pyvista", "vtk", "pydantic", "manifold3d"} & set(sys.modules)
sys.exit(f"{other} {heavy}" if other or heavy else 0)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_every_field_of_samples_is_read() -> None:
    assert {field for fields in POINT_SETS.values() for field in fields} | set(WHOLE_FIELDS) == set(samples_fields(EYES, OPTIONAL_SETS))
