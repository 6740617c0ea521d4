"""No change of any byte of any file goes unnoticed: an error or the right data, never wrong data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facegraft.store import DamagedError, StoreError, open_dataset, verify_dataset
from facegraft.store.document import seal, unseal

MANY = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Damaged:
    """A file with other bytes, for the length of a `with` block."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.whole = path, data, path.read_bytes()

    def __enter__(self) -> None:
        self.path.write_bytes(self.data)

    def __exit__(self, *error: object) -> None:
        self.path.write_bytes(self.whole)


def read_everything(folder: Path) -> Iterator[Any]:
    ds = open_dataset(folder)
    yield from (ds.keys(), ds.index.to_pylist(), ds.faces.tolist(), ds.region_map, ds.mm_per_unit, ds.schema)
    for key in ds:
        yield {name: (str(array.dtype), array.tolist()) for name, array in ds[key].items()}


def assert_noticed(toy, right: list[Any], name: str, data: bytes) -> None:
    with Damaged(toy.folder / name, data):
        findings = verify_dataset(toy.folder)
        assert findings, f"verify_dataset finds {name} whole"
        assert any(Path(name).stem in finding for finding in findings)
        try:
            read = list(read_everything(toy.folder))
        except StoreError as error:
            assert Path(name).name in str(error)
            assert any(word in str(error) for word in ("delete it", "again"))
        else:
            # Only the commit records are not needed for reading.
            assert Path(name).parent.name == "shards"
            assert Path(name).suffix == ".json"
            assert read == right


@pytest.fixture
def right(toy) -> list[Any]:
    return list(read_everything(toy.folder))


@MANY
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_noticed(toy, right: list[Any], data: st.DataObject) -> None:
    files = toy.files()
    name = data.draw(st.sampled_from(sorted(files)))
    changed = bytearray(files[name])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert_noticed(toy, right, name, bytes(changed))


@MANY
@given(data=st.data())
def test_a_cut_or_longer_file_is_noticed(toy, right: list[Any], data: st.DataObject) -> None:
    files = toy.files()
    name = data.draw(st.sampled_from(sorted(files)))
    whole = files[name]
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert_noticed(
        toy,
        right,
        name,
        data.draw(st.sampled_from([whole[:cut], whole + whole[:1], whole[:cut] + bytes(len(whole) - cut - 1) + b"!"])),
    )


def test_every_bit_of_a_sealed_document_counts(toy) -> None:
    data = (toy.folder / "shards" / "00000-of-00002.json").read_bytes()
    unnoticed = []
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            try:
                unseal(bytes(changed), "it", "mend it")
            except DamagedError:
                continue
            unnoticed.append((position, bit))
    assert unnoticed == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"{}",
        b"\xff\xfe",
        b'{"document_sha256": NaN}',
        b'{"a": NaN, "document_sha256": ""}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_sealed_document(text: bytes) -> None:
    with pytest.raises(DamagedError, match=r"it is damaged \(.*\); mend it"):
        unseal(text, "it", "mend it")


def test_sealed_documents_come_back() -> None:
    document = {"b": [1, 2.5, None, "é"], "a": {"x": True}}
    assert unseal(seal(document), "", "") == document


def test_a_shard_may_be_swapped_for_another_of_the_same_size_but_not_unnoticed(toy, right: list[Any]) -> None:
    shards = toy.folder / "shards"
    first, second = (shards / f"0000{number}-of-00002.safetensors" for number in (0, 1))
    assert first.stat().st_size == second.stat().st_size
    assert not np.array_equal(np.frombuffer(first.read_bytes(), np.uint8), np.frombuffer(second.read_bytes(), np.uint8))
    assert_noticed(toy, right, "shards/00000-of-00002.safetensors", second.read_bytes())
