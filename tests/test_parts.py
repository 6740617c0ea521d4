"""The parts of a region set: their order is their labels, and what cannot be is refused by name."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facegraft.parts import MAX_PARTS, RESERVED, Part, Parts, PartsError
from facegraft.store.schema import OPTIONAL_SETS, samples_fields
from facegraft.vocabulary import REM

MARKS = (0, 1, 15, 16, 27)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,29}", fullmatch=True).filter(lambda name: name not in RESERVED)
PARTS = st.builds(
    lambda names, marks: Parts("mine", tuple(Part(name, tuple(marks)) for name in names)),
    st.lists(NAMES, min_size=1, max_size=20, unique=True),
    st.lists(st.integers(0, 67), min_size=5, max_size=5),
)


@given(PARTS)
def test_order_decides_labels_columns_and_stages(parts: Parts) -> None:
    assert [parts.label(name) for name in (REM, *parts)] == list(range(len(parts) + 1))
    assert parts.head_columns == ("recipient", *(f"donor_{name}" for name in parts))
    assert parts.stages[0] == "as_scanned" and parts.stages[-1] == "template" and len(parts.stages) == len(parts) + 3
    assert [parts.stages[parts.label(name) + 1] for name in parts] == [f"template_{name}" for name in parts]


@given(PARTS)
def test_json_gives_the_same_parts_back(parts: Parts) -> None:
    assert Parts.from_json(json.loads(json.dumps(parts.to_json()))) == parts


@given(PARTS, st.data())
def test_a_self_graft_takes_everything_from_one_subject(parts: Parts, data: st.DataObject) -> None:
    row = dict.fromkeys(parts.head_columns, "s0001")
    assert parts.is_self_graft(row)
    other = data.draw(st.sampled_from(parts.head_columns))
    assert not parts.is_self_graft({**row, other: "s0002"})


def test_as_many_parts_as_labels() -> None:
    many = tuple(Part(f"p{number}", MARKS) for number in range(MAX_PARTS))
    assert Parts("many", many).label(f"p{MAX_PARTS - 1}") == MAX_PARTS == 255
    with pytest.raises(PartsError, match="256 parts; there must be 1 to 255"):
        Parts("many", (*many, Part("one_more", MARKS)))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((), "has 0 parts"),
        ((Part("ears", MARKS), Part("ears", MARKS)), "names part 'ears' twice"),
        ((Part("Ears", MARKS),), "'Ears'"),
        ((Part("rem", MARKS),), "cannot be called 'rem'"),
        ((Part("ears", MARKS[:4]),), "part 'ears' needs five landmarks"),
        ((Part("ears", (0, 1, 2, 3, 68)),), "part 'ears' needs five landmarks"),
        ((Part("ears", (0, 1, 2, 3, True)),), "part 'ears' needs five landmarks"),
    ],
)
def test_what_cannot_be_is_refused(parts: tuple[Part, ...], says: str) -> None:
    with pytest.raises(PartsError, match=re.escape(says)):
        Parts("mine", parts)


@pytest.mark.parametrize("document", [None, [], {}, {"region_set": "mine"}, {"region_set": "mine", "parts": [{"name": "ears"}]}])
def test_another_document_is_refused_with_where(document: object) -> None:
    with pytest.raises(PartsError, match=r"^dataset\.json"):
        Parts.from_json(document, "dataset.json")


def test_no_part_is_called_as_a_field_of_samples() -> None:
    """A batch holds the fields beside tables that are called as the parts."""
    assert set(samples_fields(Parts("mine", (Part("ears", MARKS),)), OPTIONAL_SETS)) <= RESERVED
