"""The folders in which Headspace (by MICA) and FaceScape are published, with stand-ins of their files."""

from __future__ import annotations

import logging
import pickle
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.sparse

from facegraft.engine import EngineOptions
from facegraft.heads.errors import SourceError
from facegraft.heads.facescape import FacescapeSource
from facegraft.heads.flame import FlameSource
from facegraft.heads.flamemodel import read_flame_model
from facegraft.heads.meshes import MeshesSource
from facegraft.heads.options import FlameOptions, FolderOptions
from facegraft.heads.source import SourcePlan
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.pickles import plain_array, read_pickle
from facegraft.pipeline import ingest
from facegraft.stages.ingest import IngestParameters, plan_ingest
from facegraft.store import open_dataset


@pytest.fixture
def metre_map(toy: ModuleType, tmp_path: Path) -> str:
    path = tmp_path / "metres.json"
    toy.region_map(mm_per_unit=1000.0).save(path)
    return str(path)


def names(plan: SourcePlan) -> list[tuple[str, str, int | None, str | None]]:
    return [(h.subject, h.expression, h.number, h.source) for h in plan.heads]


def write_mica(toy: ModuleType, root: Path, subjects: int = 6) -> Path:
    """MICA's folders: a mesh named by the time of its scan and an npz of coefficients for each subject."""
    for i in range(1, subjects + 1):
        stem = f"2015{i:02d}16_134703"
        toy.write_obj(root / "registrations" / f"{i:05d}" / f"{stem}.obj", toy.vertices() / 1000 * (1 + 0.01 * i))
        parameters = root / "FLAME_parameters" / f"{i:05d}"
        parameters.mkdir(parents=True)
        betas = np.zeros(400, dtype=np.float32)
        betas[0], betas[300] = i, 50.0  # the latter is of the expression
        np.savez(parameters / f"{stem}.npz", betas=betas, pose=np.ones(15), trans=np.ones(3))
    return root


class Shaped:
    """What chumpy's arrays leave in a pickle: their attributes, of which `x` is the array."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x


def write_model(toy: ModuleType, path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A FLAME model of the toy head as Python 2 pickled it; returns its shapes [V, 3, 400]."""
    module = ModuleType("chumpy.ch")
    kind = type("Ch", (Shaped,), {"__module__": "chumpy.ch"})
    module.Ch = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chumpy", ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    shapes = np.random.default_rng(0).normal(scale=1e-4, size=(81, 3, 400))
    data = {
        "v_template": kind(toy.vertices() / 1000),
        "shapedirs": kind(shapes),
        "f": toy.faces().astype(np.uint32),
        "J_regressor": scipy.sparse.csc_matrix(np.eye(3)),
        "bs_style": "lbs",
    }
    path.write_bytes(pickle.dumps(data, protocol=2))
    return shapes


def test_micas_registrations_are_neutral_whatever_their_names(toy: ModuleType, metre_map: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_mica(toy, tmp_path / "LYHM")
    toy.write_obj(root / "registrations" / "00001" / "model_fit_0.obj", toy.vertices())
    with caplog.at_level(logging.WARNING, "facegraft"):
        source = FlameSource(root, FlameOptions(region_map=metre_map), 0)
        plan = source.plan()
    assert names(plan) == [
        (f"{i:05d}", "neutral", 1, f"registrations/{i:05d}/2015{i:02d}16_134703.obj") for i in range(1, 7)
    ]
    assert "left out: 1 meshes named model_fit*" in caplog.text
    load = source.loader({"faces": plan.faces, **plan.shared}, plan.region_map)
    assert np.allclose(load(plan.heads[2].spec), 1.03 * toy.vertices(), atol=1e-4)


def test_micas_folders_without_registrations_say_what_to_do(toy: ModuleType, metre_map: str, tmp_path: Path) -> None:
    root = write_mica(toy, tmp_path / "MICA" / "LYHM")
    with pytest.raises(SourceError, match=r"holds datasets of MICA \(LYHM\); name one, such as .*MICA/LYHM$"):
        FlameSource(root.parent, FlameOptions(region_map=metre_map), 0).plan()
    (root / "registrations").rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match=r"holds FLAME_parameters but no registrations; unpack .*ingest\.flame_model="):
        FlameSource(root, FlameOptions(region_map=metre_map), 0).plan()


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_coefficients_become_neutral_heads(
    toy: ModuleType, metre_map: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    root = write_mica(toy, tmp_path / "LYHM")
    model = tmp_path / f"generic_model{suffix}"
    if suffix == ".pkl":
        shapes = write_model(toy, model, monkeypatch)
        monkeypatch.undo()  # chumpy is not installed where the file is read
    else:
        shapes = np.random.default_rng(1).normal(scale=1e-4, size=(81, 3, 400))
        np.savez(model, v_template=toy.vertices() / 1000, shapedirs=shapes, f=toy.faces())
    source = FlameSource(root, FlameOptions(region_map=metre_map, flame_model=str(model)), 0)
    plan = source.plan()
    assert [h.subject for h in plan.heads] == [f"{i:05d}" for i in range(1, 7)]
    load = source.loader({"faces": plan.faces, **plan.shared}, plan.region_map)
    for i, head in enumerate(plan.heads, 1):
        assert np.allclose(load(head.spec), toy.vertices() + 1000 * i * shapes[:, :, 0], atol=1e-3)
    assert not plan.shared, "the model's arrays are not for the dataset"
    other = FlameSource(root, FlameOptions(region_map=metre_map, flame_model=str(model)), 0).plan()
    assert plan.identity == other.identity and len(plan.identity["flame_model"]) == 64


def test_several_scans_of_a_subject(toy: ModuleType, metre_map: str, tmp_path: Path) -> None:
    """MICA names meshes by time: no part of a name is a number or an expression."""
    root = write_mica(toy, tmp_path / "LYHM", 2)
    toy.write_obj(root / "registrations" / "00002" / "20150216_180000.obj", toy.vertices() / 1000)
    assert [(s, e) for s, e, _, _ in names(FlameSource(root, FlameOptions(region_map=metre_map), 0).plan())] == [
        ("00001", "neutral"), ("00002", "20150216_134703"), ("00002", "20150216_180000"),
    ]  # fmt: skip
    first = FlameSource(root, FlameOptions(region_map=metre_map, neutral="first"), 0).plan()
    assert [(s, e) for s, e, _, _ in names(first)] == [("00001", "neutral"), ("00002", "neutral"), ("00002", "20150216_180000")]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"betas": np.array(["a", "b"])}, "its betas are <U1"),
        ({"betas": np.zeros((5, 100))}, r"its betas are float64 \[5, 100\]"),
        ({"pose": np.zeros(3)}, "no `betas`; it holds pose"),
        (b"PK\x03\x04 damaged", "not an npz file, or damaged"),
    ],
)
def test_one_bad_file_of_coefficients_is_one_reject(
    toy: ModuleType, metre_map: str, tmp_path: Path, arrays: dict[str, np.ndarray] | bytes, said: str
) -> None:
    root = write_mica(toy, tmp_path / "LYHM")
    bad = next((root / "FLAME_parameters" / "00004").iterdir())
    if isinstance(arrays, bytes):
        bad.write_bytes(arrays)
    else:
        np.savez(bad, **arrays)
    np.savez(tmp_path / "model.npz", v_template=toy.vertices() / 1000, shapedirs=np.zeros((81, 3, 300)), f=toy.faces())
    parameters = {"kind": "flame", "region_map": metre_map, "flame_model": str(tmp_path / "model.npz")}
    ingest(str(root), tmp_path / "heads", parameters, options=EngineOptions(scheduler="sync", progress=False, max_rejects=1))
    rows = {row["subject"]: row for row in open_dataset(tmp_path / "heads").index.to_pylist()}
    assert [subject for subject, row in rows.items() if row["status"] == "rejected"] == ["00004"]
    assert re.search(said, rows["00004"]["reason"]) and bad.name in rows["00004"]["reason"] and "\n" not in rows["00004"]["reason"]


def test_a_pickle_is_read_and_never_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "was_run"),)  # type: ignore[return-value]

    bad = tmp_path / "masks.pkl"
    for data in (Harmful(), {"v_template": [Harmful()]}):
        bad.write_bytes(pickle.dumps(data))
        with pytest.raises(MeshError, match=r"masks\.pkl: not read: it names pathlib.*since anything else could run code"):
            read_pickle(bad)
    bad.write_bytes(b"cos\nsystem\n(S'touch was_run'\ntR.")
    with pytest.raises(MeshError, match=r"it names os\.system"):
        read_pickle(bad)
    bad.write_bytes(b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.")
    with pytest.raises(MeshError, match=r"text in encoding zip"):
        read_pickle(bad)
    assert not (tmp_path / "was_run").exists()
    for damaged in (b"", b"\x80\x02}q\x00", b"not a pickle"):
        bad.write_bytes(damaged)
        with pytest.raises(MeshError, match=r"masks\.pkl: not a"):
            read_pickle(bad)
    with pytest.raises(MeshError, match=r"gone\.pkl: cannot be read"):
        read_pickle(tmp_path / "gone.pkl")


FORGED = {
    "object": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbS'AAAAAAAA'\ntR.",
    "records": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'|'\nNN(dI-1\nI-1\nI0\ntbS'AAAAAAAA'\ntR.",
    "short": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'f8'\nI0\nI1\ntRS'AAAA'\ntR.",
    "empty": b"cnumpy\nndarray\n(I1000000000000\ntR.",
    "memo": b"Nr\x80\xf0\xfa\x02.",
    "itself": b"]q\x00h\x00a.",
}
"""Pickles made to confuse a reader: with numpy's own classes the first ones read memory that is not theirs."""


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_pickle_is_refused(tmp_path: Path, forged: str) -> None:
    (tmp_path / "bad.pkl").write_bytes(FORGED[forged])
    with pytest.raises(MeshError, match=r"bad\.pkl: not"):
        read_pickle(tmp_path / "bad.pkl")


def test_lists_that_share_lists_are_no_array(tmp_path: Path) -> None:
    laughs: list[object] = [1.0] * 10
    for _ in range(40):
        laughs = [laughs] * 10
    (tmp_path / "laughs.pkl").write_bytes(pickle.dumps({"nose": laughs}))
    assert plain_array(read_pickle(tmp_path / "laughs.pkl")["nose"]) is None


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays_are_whole(tmp_path: Path, protocol: int) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "face": np.array([3, 1], dtype=">i4"), "n": np.float64(2.5), "text": "é"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
    read = read_pickle(tmp_path / "a.pkl")
    assert list(read) == list(arrays) and read["n"] == 2.5
    assert np.array_equal(read["a"], arrays["a"]) and np.array_equal(read["face"], arrays["face"])


def test_another_file_is_not_the_flame_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", vertices=np.zeros((3, 3)))
    with pytest.raises(MeshError, match=r"a\.npz: not the FLAME model: no array 'v_template'; it holds vertices"):
        read_flame_model(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", v_template=np.zeros((4, 3)), shapedirs=np.zeros((3, 3, 9)), f=np.zeros((2, 3), int))
    with pytest.raises(MeshError, match=r"v_template \[4, 3\], shapedirs \[3, 3, 9\] and f \[2, 3\] should be"):
        read_flame_model(tmp_path / "b.npz")


def test_which_mesh_is_neutral(toy: ModuleType, toy_map: str, tmp_path: Path) -> None:
    def expressions(folder: str, **more: str) -> list[tuple[str, str]]:
        source = MeshesSource(tmp_path / folder, FolderOptions(region_map=toy_map, **more), 0)  # type: ignore[arg-type]
        return [(h.subject, h.expression) for h in source.plan().heads]

    def write(folder: str, *names: str) -> None:
        for name in names:
            toy.write_obj(tmp_path / folder / name)

    write("called", "a/Neutral.obj", "a/wink.obj", "b/smirk.obj")
    assert expressions("called") == [("a", "neutral"), ("a", "wink"), ("b", "smirk")], "b has no neutral mesh, as others have"
    with pytest.raises(SourceError, match=r"ingest\.neutral=smirk, but a/Neutral\.obj is called neutral"):
        expressions("called", neutral="smirk")
    write("times", "a/20150216_134703.obj", "b/20150217_090000.obj", "c/20150301_100000.obj", "c/20150302_100000.obj")
    assert expressions("times")[:2] == [("a", "neutral"), ("b", "neutral")]
    assert [e for _, e in expressions("times", neutral="first")] == ["neutral", "neutral", "neutral", "100000"]
    write("named", "a/rest.obj", "a/wink.obj", "b/rest.obj", "c/smile.obj")
    assert expressions("named", neutral="REST") == [("a", "neutral"), ("a", "wink"), ("b", "neutral"), ("c", "smile")]
    write("none", "a/rest.obj", "a/wink.obj", "b/smile.obj")
    with pytest.raises(SourceError, match=r"no mesh is called 'neutral', .* the names here are rest, smile, wink; .*ingest\.neutral=NAME"):
        expressions("none")


def test_subjects_drawn_at_random_are_recorded(toy: ModuleType, toy_map: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(30):
        toy.write_obj(tmp_path / "h" / f"p{i}.obj")

    def drawn(seed: int, draw: int) -> list[str]:
        parameters = IngestParameters.parse({"kind": "meshes", "region_map": toy_map, "draw": draw})
        plan = plan_ingest(tmp_path / "h", parameters, seed)
        assert plan.input_fingerprint["drawn"] == [item.row["subject"] for item in plan.items]
        return plan.input_fingerprint["drawn"]

    first = drawn(0, 10)
    assert len(first) == 10 and first == drawn(0, 10) != drawn(1, 10)
    assert first != [f"p{i}" for i in range(10)] and set(first) < set(drawn(0, 20))
    with caplog.at_level(logging.WARNING, "facegraft"):
        assert len(drawn(0, 300)) == 30
    assert "draw=300, but the folder holds 30 subjects: all are taken" in caplog.text
    with pytest.raises(ValueError, match="give either subjects, the first so many, or draw"):
        FolderOptions(subjects=3, draw=3)


def test_facescapes_archives(toy: ModuleType, toy_map: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two unpacked archives of which one lacks a mesh, one that is still packed, and a loose subject."""
    root = tmp_path / "fs"
    written = []
    for archive, subjects in (("facescape_trainset_001_100", (1, 2)), ("facescape_trainset_101_200", (101, 120)), ("", (847,))):
        for subject in subjects:
            for expression in ("1_neutral", "2_smile", "3_mouth_stretch"):
                if (subject, expression) == (120, "3_mouth_stretch"):
                    continue
                name = "/".join(filter(None, (archive, str(subject), "models_reg", f"{expression}.obj")))
                toy.write_obj(root / name)
                written.append(name)
            (root / archive / str(subject) / "dpmap").mkdir()
    (root / "facescape_trainset_201_300.zip").write_bytes(b"PK")
    (root / "facescape_trainset_001_100.zip").write_bytes(b"PK")
    with caplog.at_level(logging.WARNING, "facegraft"):
        plan = FacescapeSource(root, FolderOptions(region_map=toy_map), 0).plan()
    assert [h.source for h in plan.heads] == written
    assert [h.subject for h in plan.heads if h.expression == "neutral"] == ["1", "2", "101", "120", "847"]
    assert "1 archives may not be unpacked, so that their subjects are missing: facescape_trainset_201_300.zip" in caplog.text
    assert "1 of 5 subjects have fewer meshes than the others' 3: 120 (2); is an archive half unpacked?" in caplog.text
    one = FacescapeSource(root / "facescape_trainset_101_200", FolderOptions(region_map=toy_map), 0).plan()
    assert [h.source for h in one.heads][:1] == ["101/models_reg/1_neutral.obj"]


def test_stray_meshes_of_facescape_hide_no_subject(toy: ModuleType, toy_map: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("trainset/template.obj", "trainset/1_neutral.obj", "trainset/1/1_neutral.obj", "trainset/2/models_reg/1_neutral.obj"):
        toy.write_obj(tmp_path / name)
    with caplog.at_level(logging.WARNING, "facegraft"):
        plan = FacescapeSource(tmp_path, FolderOptions(region_map=toy_map), 0).plan()
    assert [h.subject for h in plan.heads] == ["1", "2"]
    assert "left out: 2 meshes beside the folders of subjects" in caplog.text
    with pytest.raises(SourceError, match=r"trainset/2: is the folder of one subject; name the folder that holds those of all"):
        FacescapeSource(tmp_path / "trainset" / "2", FolderOptions(region_map=toy_map), 0).plan()
