"""What a reader is given, and what it is told when something is wrong."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sphere_heads import write_spheres

from facegraft.store import DamagedError, StoreError, UnknownKeyError, open_dataset, reader, shard_name, verify_dataset
from facegraft.store.document import seal, unseal


def reseal(folder: Path, change: Callable[[dict], None]) -> None:
    """Change dataset.json and give it a checksum that agrees, as somebody who means harm would."""
    path = folder / "dataset.json"
    document = unseal(path.read_bytes(), "", "")
    change(document)
    path.write_bytes(seal(document))


def test_what_a_dataset_offers(toy) -> None:
    ds = toy.open()
    assert (ds.kind, ds.mm_per_unit, len(ds), ds.keys()) == ("heads", 1.0, 4, ["s0a", "s0b", "s1a", "s1b"])
    assert list(ds) == ds.keys()
    assert "s0a" in ds
    assert "s0c" not in ds
    assert ds.shards == [toy.folder / "shards" / shard_name(number, 2) for number in (0, 1)]
    assert ds.index.column_names == ["key", "shard", "status", "reason", "subject", "score", "count"]
    assert ds.index["key"].to_pylist() == ["s0a", "s0b", "s0c", "s1a", "s1b", "s1c"]
    np.testing.assert_array_equal(ds.faces, [[0, 1, 2], [2, 3, 4]])
    assert not ds.faces.flags.writeable
    assert ds.region_map == {"name": "toy"}
    assert ds.fingerprint == hashlib.sha256((toy.folder / "dataset.json").read_bytes()).hexdigest()
    assert "heads, 4 items in 2 shards" in repr(ds)


def test_a_dataset_without_attachments(write_samples: Callable) -> None:
    ds = open_dataset(write_samples())
    assert ds.shared == {}
    assert ds.region_map is None
    with pytest.raises(StoreError, match="has no faces that all items share; a dataset of samples has none"):
        _ = ds.faces


def test_unknown_names_are_answered_with_the_nearest(toy) -> None:
    ds = toy.open()
    with pytest.raises(UnknownKeyError, match=r"has no item 's0aa' \(did you mean 's0a'\?\)") as error:
        ds["s0aa"]
    assert isinstance(error.value, KeyError)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    with pytest.raises(UnknownKeyError, match="item 's0c' was rejected: mesh is not closed"):
        ds["s0c"]
    with pytest.raises(StoreError, match=r"has no field 'vertex' \(did you mean 'vertices'\?\)"):
        ds.read("s0a", "vertex")


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 1), (0, 6), (6, 6)])
def test_a_window_that_is_not_there_is_refused(toy, start: int, stop: int) -> None:
    with pytest.raises(
        StoreError, match=rf"item s0a, field vertices has shape \[5, 3\]: there are no rows {start} to {stop}"
    ):
        toy.open().window("s0a", "vertices", start, stop)


def test_what_is_no_dataset(tmp_path: Path, toy) -> None:
    with pytest.raises(StoreError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=r"is no facegraft dataset: it has no dataset.json"):
        open_dataset(tmp_path / "empty")
    reseal(toy.folder, lambda document: document.update(format="other"))
    with pytest.raises(StoreError, match="is no facegraft-dataset"):
        toy.open()


def test_versions(toy) -> None:
    reseal(toy.folder, lambda document: document.update(version="2.7", something_new=1))
    assert len(toy.open()) == 4
    reseal(toy.folder, lambda document: document.update(must_understand=["packed_normals"]))
    with pytest.raises(StoreError, match=r"needs .'packed_normals'., which this facegraft does not know"):
        toy.open()
    reseal(toy.folder, lambda document: document.update(version="3.0"))
    with pytest.raises(StoreError, match=r"has format version 3.0, this facegraft reads 2.2: install a newer one"):
        toy.open()
    reseal(toy.folder, lambda document: document.update(version="1.0"))
    with pytest.raises(StoreError, match=r"has format version 1.0, this facegraft reads 2.2: make it again: delete"):
        toy.open()


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["shards"][0].update(name="../../secret.safetensors"),
        lambda document: document["shards"][0].update(name="/etc/00000-of-00001.safetensors"),
        lambda document: document["shards"][0].pop("name"),
        lambda document: document["shards"][0].pop("sha256"),
        lambda document: document["shards"][0].update(bytes="12"),
        lambda document: document["shards"].append(document["shards"][0]),
        lambda document: document["shards"].append("x"),
        lambda document: document["shards"].pop(),
        lambda document: document["attachments"].update({"../secret": {"bytes": 1, "sha256": ""}}),
        lambda document: document.pop("index"),
        lambda document: document.pop("shards"),
        lambda document: document["counts"].update(written=3),
        lambda document: document["shards"][0].update(items=1),
        lambda document: document["columns"].pop(),
        lambda document: document["fields"].clear(),
    ],
)
def test_a_forged_dataset_json_is_refused(toy, change: Callable[[dict], None]) -> None:
    reseal(toy.folder, change)
    with pytest.raises(StoreError):
        toy.open()
    assert verify_dataset(toy.folder)


@pytest.mark.parametrize(
    "name",
    [
        "dataset.json",
        "index.parquet",
        "region_map.json",
        "shared.safetensors",
        "shards/00001-of-00002.safetensors",
        "shards",
    ],
)
def test_links_that_leave_the_folder_are_refused(toy, tmp_path: Path, name: str) -> None:
    inside, outside = toy.folder / name, tmp_path / "outside"
    inside.rename(outside)
    inside.symlink_to(outside)
    with pytest.raises(StoreError, match="is a link or leads out of the dataset's folder"):
        ds = toy.open()
        _ = ds.region_map, ds.faces
    assert any("is a link or leads out" in finding for finding in verify_dataset(toy.folder))


def test_links_within_the_folder_are_refused_too(toy) -> None:
    shards = toy.folder / "shards"
    (shards / shard_name(0, 2)).rename(toy.folder / "elsewhere")
    (shards / shard_name(0, 2)).symlink_to(toy.folder / "elsewhere")
    with pytest.raises(StoreError, match=r"00000-of-00002.safetensors is a link"):
        toy.open()


def test_a_link_put_in_later_is_refused_too(toy, tmp_path: Path) -> None:
    ds = toy.open()
    shard = toy.folder / "shards" / shard_name(0, 2)
    shutil.copy(shard, tmp_path / "outside")
    shard.unlink()
    shard.symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="is a link"):
        ds["s0a"]


def test_a_dataset_may_itself_be_reached_by_a_link(toy, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(toy.folder)
    assert len(open_dataset(tmp_path / "link")["s0a"]) == 3


def test_missing_files_are_named(toy) -> None:
    shard = toy.folder / "shards" / shard_name(1, 2)
    shard.unlink()
    with pytest.raises(StoreError, match=f"shard {shard} is missing; run the command that made this dataset again"):
        toy.open()
    toy.write()
    (toy.folder / "region_map.json").unlink()
    ds = toy.open()
    with pytest.raises(StoreError, match=r"region_map.json is missing; run the command"):
        _ = ds.region_map
    (toy.folder / "index.parquet").unlink()
    with pytest.raises(StoreError, match=r"index.parquet is missing; run the command"):
        toy.open()


def test_a_damaged_shard_says_what_to_do(toy) -> None:
    path = toy.folder / "shards" / shard_name(0, 2)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    ds = toy.open()
    with pytest.raises(DamagedError) as error:
        ds["s0a"]
    assert str(error.value) == (
        f"{path} is damaged (sha256 differs from its commit record); "
        "delete it and its 00000-of-00002.json and run the same command again to rebuild it"
    )
    assert len(ds["s1a"]) == 3
    assert str(error.value) in verify_dataset(toy.folder)


def test_without_verification_the_bytes_are_taken_as_they_are(toy) -> None:
    path = toy.folder / "shards" / shard_name(0, 2)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert len(toy.open(verify=False)["s0a"]) == 3


def test_a_shard_is_hashed_once_and_at_most_so_many_stay_open(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed, opened = [], []
    real_hash, real_open = reader.sha256_file, reader.safe_open
    monkeypatch.setattr(reader, "sha256_file", lambda path: hashed.append(path.name) or real_hash(path))
    monkeypatch.setattr(
        reader, "safe_open", lambda path, framework: opened.append(path.name) or real_open(path, framework=framework)
    )
    monkeypatch.setattr(reader, "OPEN_SHARDS", 1)
    ds = toy.open()
    for _ in range(3):
        for key in ds:
            for name, array in ds[key].items():
                np.testing.assert_array_equal(array, toy.items[key][name])
        assert len(ds._handles) == 1
    assert sorted(hashed) == ["00000-of-00002.safetensors", "00001-of-00002.safetensors", "index.parquet"]
    assert len(opened) == 6
    monkeypatch.setattr(reader, "OPEN_SHARDS", 2)
    opened.clear()
    for _ in range(3):
        assert [len(ds[key]) for key in ds] == [3, 3, 3, 3]
    assert len(opened) == 1


def test_what_is_read_can_be_changed_without_harm(toy) -> None:
    ds = toy.open()
    ds["s0a"]["vertices"][:] = 0
    window = ds.window("s0a", "vertices", 1, 3)
    window[:] = 0
    np.testing.assert_array_equal(ds["s0a"]["vertices"], toy.items["s0a"]["vertices"])


def test_a_pickled_dataset_opens_by_path_and_notices_a_change(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy.folder.parent)
    pickled = pickle.dumps(open_dataset("toy", verify=False))
    assert len(pickled) < 1000
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    assert again.verify is False
    assert len(again["s1b"]) == 3
    reseal(toy.folder, lambda document: document.update(frame="another"))
    with pytest.raises(StoreError, match="changed since it was opened elsewhere"):
        pickle.loads(pickled)


def test_threads_may_share_a_dataset(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "OPEN_SHARDS", 1)
    ds = toy.open()

    def wrong_reads() -> int:
        return sum(
            not np.array_equal(ds.read(key, "vertices"), toy.items[key]["vertices"]) for _ in range(50) for key in ds
        )

    with ThreadPoolExecutor(4) as pool:
        assert [future.result() for future in [pool.submit(wrong_reads) for _ in range(4)]] == [0, 0, 0, 0]


def test_an_unreadable_file_is_told(toy) -> None:
    (toy.folder / "index.parquet").unlink()
    (toy.folder / "index.parquet").mkdir()
    with pytest.raises(StoreError, match=r"cannot read .*index.parquet: Is a directory"):
        toy.open()


def test_the_json_files_are_plain_json(toy) -> None:
    document = json.loads((toy.folder / "dataset.json").read_bytes())
    assert document["counts"] == {"planned": 6, "written": 4, "rejected": 2}
    record = json.loads((toy.folder / "shards" / "00000-of-00002.json").read_bytes())
    assert record["planned"] == ["s0a", "s0b", "s0c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts["parts"].reverse(), "its parts ask for the index columns donor_mouth, donor_eyes, donor_nose in this order"),
        (lambda parts: parts["parts"][0].update(name="beak"), "its parts ask for .* donor_beak, .* but it has donor_eyes, donor_mouth"),
        (lambda parts: parts["parts"][1].update(name="nose"), "names part 'nose' twice"),
        (lambda parts: parts["parts"][0].update(landmarks=[1]), "part 'nose' needs five landmarks"),
        (lambda parts: parts.clear(), "does not list its parts"),
    ],
)
def test_parts_that_are_not_those_of_the_index_are_refused(tmp_path: Path, change: Callable[[dict], None], message: str) -> None:
    """Labels follow from the parts' order: in another one they would mean other parts."""
    folder = write_spheres(tmp_path / "samples")
    assert open_dataset(folder).parts.names == ("nose", "eyes", "mouth")
    reseal(folder, lambda document: change(document["parts"]))
    with pytest.raises(StoreError, match=message) as caught:
        open_dataset(folder)
    assert str(caught.value).startswith(f"{folder / 'dataset.json'}: ")
    assert verify_dataset(folder) == [str(caught.value)]
