"""The ingest stage: parameters, plan, item function, and a whole run through the engine."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from facegraft.cli.main import cli
from facegraft.engine import EngineOptions, ItemRejected, StageContext, execute
from facegraft.errors import FacegraftError
from facegraft.heads.errors import SourceError
from facegraft.pipeline import run_stage
from facegraft.regions.regionmap import RegionMapError, RegionSet, load_region_map
from facegraft.stages import INGEST
from facegraft.stages.ingest import IngestParameters, IngestStage, plan_ingest
from facegraft.stages.parameters import ParameterError
from facegraft.store import StoreError, open_dataset, place


@pytest.fixture(scope="session")
def toy():
    path = Path(__file__).parents[1] / "heads" / "toy_head.py"
    spec = importlib.util.spec_from_file_location("facegraft_toy_head", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy_map(toy, tmp_path):
    path = tmp_path / "toy.json"
    toy.region_map().save(path)
    return str(path)


@pytest.fixture
def folder(toy, tmp_path):
    """Six subjects with two expressions each, of which one mesh has a NaN and one is truncated."""
    root = tmp_path / "raw"
    rng = np.random.default_rng(1)
    for i in range(1, 7):
        size = rng.uniform(0.9, 1.1)  # a smile keeps the size of the head
        for name in ("1_neutral", "2_smile"):
            toy.write_obj(root / f"p{i}" / f"{name}.obj", toy.vertices() * size * rng.uniform(0.98, 1.02))
    bad = toy.vertices()
    bad[3, 2] = np.nan
    toy.write_obj(root / "p2" / "2_smile.obj", bad)
    cut = root / "p5" / "2_smile.obj"
    cut.write_text(cut.read_text()[:-300])
    return root


def parameters(**values):
    return IngestParameters.parse(values)


def stage_of(plan, inputs, chosen, seed=0):
    context = StageContext(
        Path("unused"), [str(i) for i in inputs], chosen.as_json(), plan.shared, plan.region_map, seed
    )
    return IngestStage(context)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "meshes", "subject": 3}, "unknown parameter ingest.subject (did you mean 'ingest.subjects'?)"),
        ({"kind": "basel"}, "ingest.kind='basel'"),
        ({}, "ingest.kind"),
        ({"kind": "ict", "subjects": 0}, "ingest.subjects=0"),
        ({"kind": "ict", "expressions": 0}, "expressions must be 1 or more"),
        ({"kind": "ict", "test_fraction": 1.0}, "ingest.test_fraction=1.0"),
        ({"kind": "meshes", "sigma": 0.8}, "sigma is for kind synthetic, ict, not meshes"),
        ({"kind": "ict", "split": "imface"}, "split=imface is for kind facescape, not ict"),
        ({"kind": "facescape", "split": "imface", "test_subjects": ["1"]}, "either split or test_subjects"),
        ({"kind": "facescape", "train_subjects": ["1"]}, "train_subjects needs test_subjects"),
    ],
)
def test_wrong_parameters_are_named(values, says):
    with pytest.raises(ParameterError) as caught:
        IngestParameters.parse(values)
    assert says in str(caught.value)


def test_parameters_survive_json():
    chosen = parameters(kind="ict", expressions=["neutral", "smile"], test_subjects=["s0001", 7], sigma=0.8)
    assert IngestParameters.parse(chosen.as_json()) == chosen


def test_the_plan(folder, toy, toy_map):
    plan = plan_ingest(folder, parameters(kind="meshes", region_map=toy_map), 0)
    assert [item.key for item in plan.items] == [f"p{i}_e{e:02d}" for i in range(1, 7) for e in (1, 2)]
    assert np.array_equal(plan.shared["faces"], toy.faces())
    assert plan.shared["faces"].dtype == np.int32
    assert plan.region_map["name"] == plan.schema.topology["name"] == "toy"
    sides = {(item.row["subject"], item.row["split"]) for item in plan.items}
    assert len(sides) == 6, "all heads of a subject lie on one side"
    assert sum(side == "test" for _, side in sides) == 2
    row = plan.items[1].row
    assert (row["subject"], row["expression"], row["source"]) == ("p1", "smile", "p1/2_smile.obj")
    assert len(row["source_sha256"]) == 64
    assert plan.input_fingerprint["files"] == 12


def test_the_fingerprint_tells_every_change(folder, toy, toy_map):
    def fingerprint():
        return plan_ingest(folder, parameters(kind="meshes", region_map=toy_map), 0).input_fingerprint

    before = fingerprint()
    assert fingerprint() == before
    path = folder / "p3" / "1_neutral.obj"
    text = path.read_text()
    path.write_text(text + "# touched\n")
    changed = fingerprint()
    assert changed["sha256"] != before["sha256"]
    path.write_text(text)
    path.rename(folder / "p3" / "3_anger.obj")
    renamed = fingerprint()
    assert renamed["bytes"] == before["bytes"]
    assert renamed["sha256"] != before["sha256"]


def test_items_are_read_or_rejected_with_the_reason(folder, toy, toy_map):
    chosen = parameters(kind="meshes", region_map=toy_map)
    plan = plan_ingest(folder, chosen, 0)
    stage = stage_of(plan, [folder], chosen)
    reasons = {}
    for item in plan.items:
        try:
            output = stage.process(item, np.random.default_rng(0))
        except ItemRejected as refusal:
            reasons[item.key] = str(refusal)
            continue
        assert output.fields["vertices"].dtype == np.float32
        assert output.fields["vertices"].shape == (81, 3)
        assert np.array_equal(output.fields["landmarks"], output.fields["vertices"][toy.landmarks()])
    assert set(reasons) == {"p2_e02", "p5_e02"}
    assert reasons["p2_e02"].startswith("p2/2_smile.obj: line 4: vertex 3 is not finite")
    assert reasons["p5_e02"].startswith("p5/2_smile.obj: ")


ODD_NAMES = {
    "scan\u00a0two": "scan_two", "scan\u202f3 PM": "scan_3_PM", "soft\u00adhyphen4": "soft_hyphen4", "张三": "u5f20_u4e09", "李四": "u674e_u56db",
    "Müller": "M_u00fc_ller", "Möller": "M_u00f6_ller", "Muller": "Muller", "e\u0301six": "u00e9_six", "---": "u002d_u002d_u002d", "😀": "u1f600",
    "x" * 180: "x" * 64 + "_06b6bce48b25", "#9": "9",
}  # fmt: skip


def test_odd_names_are_read_and_have_keys_of_their_own(toy, toy_map, tmp_path):
    root = tmp_path / "raw\u00a0heads"
    for number, name in enumerate(ODD_NAMES):
        toy.write_obj(root / f"{name}.obj", toy.vertices() * (1 + number / 1000))  # each its own mesh
    options = EngineOptions(scheduler="sync", progress=False)
    chosen = {"kind": "meshes", "region_map": toy_map, "test_subjects": ["张三", "Möller"]}
    for written in (len(ODD_NAMES), len(ODD_NAMES)):  # a second run reads the record of the first
        summary = run_stage(INGEST, [root], tmp_path / "heads\u00a0out", chosen, 0, options)
        assert (summary.written, summary.rejected) == (written, 0)
    rows = open_dataset(tmp_path / "heads\u00a0out").index.to_pylist()
    assert {row["source"].removesuffix(".obj"): row["subject"] for row in rows} == ODD_NAMES
    assert {row["key"] for row in rows} == {f"{name}_e01" for name in ODD_NAMES.values()}
    assert {row["subject"] for row in rows if row["split"] == "test"} == {"u5f20_u4e09", "M_u00f6_ller"}


def test_a_name_that_no_record_can_hold_rejects_that_head(toy, toy_map, tmp_path):
    root = tmp_path / "raw"
    for name in ("ok1", "ok2", "caf", "line"):
        toy.write_obj(root / f"{name}.obj")
    (root / "caf.obj").rename(root / os.fsdecode(b"caf\xe9.obj"))
    (root / "line.obj").rename(root / "li\nne.obj")
    toy.write_obj(root / os.fsdecode(b"sub\xff") / "neutral.obj")
    options = EngineOptions(scheduler="sync", progress=False, max_rejects=1.0)
    summary = run_stage(INGEST, [root], tmp_path / "heads", {"kind": "meshes", "region_map": toy_map}, 0, options)
    assert (summary.written, summary.rejected) == (2, 3)
    reasons = {row["key"]: row["reason"] for row in open_dataset(tmp_path / "heads").index.to_pylist() if row["reason"]}
    assert reasons == {
        "caf_udce9_e01": r"caf\xe9.obj: its name is not UTF-8 text; rename the file or its folder",
        "li_ne_e01": r"li\nne.obj: its name holds a control character or the end of a line; rename the file or its folder",
        "sub_udcff_e01": r"sub\xff/neutral.obj: its name is not UTF-8 text; rename the file or its folder",
    }


def test_folders_that_no_record_can_name(toy, toy_map, tmp_path, monkeypatch):
    bad = tmp_path / os.fsdecode(b"l\xe9t")
    toy.write_obj(bad / "a.obj")
    toy.write_obj(tmp_path / "raw" / "a.obj")
    chosen, options = {"kind": "meshes", "region_map": toy_map}, EngineOptions(scheduler="sync", progress=False)
    message = r"l\\xe9t.*: the name of this path is not UTF-8 text, .* rename that file or folder"
    with pytest.raises(StoreError, match=message):
        run_stage(INGEST, [bad], tmp_path / "heads", chosen, 0, options)
    with pytest.raises(StoreError, match=message):
        run_stage(INGEST, [tmp_path / "raw"], bad / "heads", chosen, 0, options)
    monkeypatch.chdir(bad)
    with pytest.raises(StoreError, match=message):
        run_stage(INGEST, ["."], tmp_path / "heads", chosen, 0, options)
    assert run_stage(INGEST, [tmp_path / "raw"], tmp_path / "heads", chosen, 0, options).written == 1
    done = CliRunner().invoke(cli, ["status", "heads"])
    assert done.exit_code == 2 and "is not UTF-8 text" in done.output


def test_rejected_subjects_do_not_use_up_the_test_side(toy, toy_map, tmp_path, caplog):
    root = tmp_path / "raw"
    for i in range(12):
        toy.write_obj(root / f"p{i}.obj", toy.vertices() * (1 + i / 1000))
    chosen = parameters(kind="meshes", region_map=toy_map)
    before = plan_ingest(root, chosen, 0)
    first = sorted(item.row["subject"] for item in before.items if item.row["split"] == "test")
    assert len(first) == 2
    for name in first:
        (root / f"{name}.obj").write_text("v 0 0 0\n")
    with caplog.at_level(logging.WARNING, "facegraft"):
        plan = plan_ingest(root, chosen, 0)
    sides = {item.row["subject"]: item.row["split"] for item in plan.items}
    assert [sides[name] for name in first] == ["train", "train"]
    assert list(sides.values()).count("test") == 2
    assert re.search(r"2 of the subjects drawn for testing cannot be read, .* take their place: p\d+ \(p\d+\.obj: 1 vertices but no faces", caplog.text)


@pytest.mark.parametrize("surplus", [1, 7])
def test_loose_vertices_are_named(toy, toy_map, tmp_path, surplus):
    root = tmp_path / "raw"
    toy.write_obj(root / "a.obj")
    toy.write_obj(root / "b.obj")
    rows = (root / "b.obj").read_text().splitlines()
    last = max(i for i, row in enumerate(rows) if row.startswith("v "))
    (root / "b.obj").write_text("\n".join([*rows[: last + 1], *["v 0 0 0"] * surplus, *rows[last + 1 :]]) + "\n")
    chosen = parameters(kind="meshes", region_map=toy_map)
    plan = plan_ingest(root, chosen, 0)
    stage = stage_of(plan, [root], chosen)
    with pytest.raises(ItemRejected, match=rf"b\.obj: {81 + surplus} vertices, but topology toy has 81: {surplus} at its end in no face; export"):
        stage.process(plan.items[1], np.random.default_rng(0))
    assert stage.process(plan.items[0], np.random.default_rng(0)).fields["vertices"].shape == (81, 3)


def test_a_registered_head_may_begin_with_a_byte_order_mark(toy, toy_map, tmp_path):
    toy.write_obj(tmp_path / "raw" / "a.obj")
    plain = (tmp_path / "raw" / "a.obj").read_bytes()
    (tmp_path / "raw" / "b.obj").write_bytes(b"\xef\xbb\xbf" + plain)
    chosen = parameters(kind="meshes", region_map=toy_map)
    plan = plan_ingest(tmp_path / "raw", chosen, 0)
    stage = stage_of(plan, [tmp_path / "raw"], chosen)
    one, two = (stage.process(item, np.random.default_rng(0)).fields["vertices"] for item in plan.items)
    assert np.array_equal(one, two)


@pytest.mark.parametrize("spelling", ["Neutral", "NEUTRAL", "1_Neutral"])
def test_neutral_in_any_case(toy, toy_map, tmp_path, spelling):
    for i in range(4):
        toy.write_obj(tmp_path / "raw" / f"p{i}" / f"{spelling}.obj")
        toy.write_obj(tmp_path / "raw" / f"p{i}" / "Smile.obj")
    plan = plan_ingest(tmp_path / "raw", parameters(kind="meshes", region_map=toy_map), 0)
    assert [item.row["expression"] for item in plan.items].count("neutral") == 4


def test_landmarks_of_several_sets_name_the_option_of_ingest(toy, tmp_path):
    toy.write_obj(tmp_path / "raw" / "a.obj")
    np.savez(tmp_path / "two.npz", one=np.arange(68), other=np.arange(68))
    with pytest.raises(SourceError, match=r"choose one with `--set ingest\.landmarks_key=NAME`: one, other"):
        plan_ingest(tmp_path / "raw", parameters(kind="meshes", landmarks=str(tmp_path / "two.npz")), 0)


def test_the_home_folder(toy, toy_map, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    toy.write_obj(tmp_path / "home" / "raw" / "a.obj")
    Path(toy_map).rename(tmp_path / "home" / "map.json")
    done = CliRunner().invoke(
        cli, ["ingest", "~/raw", "--kind=meshes", "--region-map=~/map.json", "--output=~/heads", "--scheduler=sync", "--quiet"], catch_exceptions=False
    )
    assert done.exit_code == 0 and len(open_dataset(tmp_path / "home" / "heads")) == 1
    assert not (tmp_path / "~").exists()
    assert str(place("~/heads")) == str(tmp_path / "home" / "heads")
    assert [str(place(text)) for text in ("./~", "~11.obj", "a/~")] == ["~", "~11.obj", "a/~"]
    assert place(Path("~/x")) == Path("~/x"), "a Path is meant as it is"


def test_splits_by_list(folder, toy_map, tmp_path, caplog):
    listed = tmp_path / "test.txt"
    listed.write_text("p1\np3\n")
    plan = plan_ingest(
        folder, parameters(kind="meshes", region_map=toy_map, test_subjects=str(listed), train_subjects=["p4"]), 0
    )
    assert {(i.row["subject"], i.row["split"]) for i in plan.items} == {("p1", "test"), ("p3", "test"), ("p4", "train")}
    with pytest.raises(SourceError, match="'p9' on the test list is not a subject here"):
        plan_ingest(folder, parameters(kind="meshes", region_map=toy_map, test_subjects=["p9"]), 0)
    with caplog.at_level(logging.WARNING, "facegraft"):
        plan = plan_ingest(folder, parameters(kind="meshes", region_map=toy_map, subjects=3), 0)
    assert {i.row["split"] for i in plan.items} == {"train"}
    assert "only 3 subjects: all are for training" in caplog.text


def test_heads_without_a_neutral_are_announced(folder, toy_map, caplog):
    with caplog.at_level(logging.WARNING, "facegraft"):
        plan_ingest(folder, parameters(kind="meshes", region_map=toy_map, expressions=["smile"]), 0)
    assert "6 subjects have no neutral head and cannot be grafted: p1, p2, p3, …" in caplog.text


def test_imface_split_of_facescape(toy, toy_map, tmp_path):
    for subject in ("1", "122", "360", "359"):
        toy.write_obj(tmp_path / "fs" / subject / "1_neutral.obj", toy.vertices() * (1 + int(subject) / 10_000))
    plan = plan_ingest(tmp_path / "fs", parameters(kind="facescape", split="imface", region_map=toy_map), 0)
    assert {(i.row["subject"], i.row["split"]) for i in plan.items} == {
        ("1", "train"),
        ("122", "test"),
        ("359", "train"),
    }
    assert [i.key for i in plan.items] == ["1_e01", "122_e01", "359_e01"]


def test_keys_that_would_be_equal(toy, toy_map, tmp_path):
    for subject, expression in (("a", "b_wink"), ("a_b", "wink")):
        toy.write_obj(tmp_path / "h" / subject / f"{expression}.obj")
        toy.write_obj(tmp_path / "h" / subject / "neutral.obj")
    with pytest.raises(SourceError, match=r"a/b_wink\.obj and a_b/wink\.obj would both be called a_b_wink; rename one"):
        plan_ingest(tmp_path / "h", parameters(kind="meshes", region_map=toy_map), 0)


def test_an_unreadable_file_is_an_item_not_the_end(folder, toy_map, tmp_path):
    (folder / "p6" / "3_anger.obj").symlink_to(tmp_path / "nowhere")
    chosen = parameters(kind="meshes", region_map=toy_map)
    plan = plan_ingest(folder, chosen, 0)
    item = next(i for i in plan.items if i.key == "p6_e03")
    assert item.row["source_sha256"] is None
    with pytest.raises(ItemRejected, match=r"p6/3_anger\.obj: cannot be read \(No such file"):
        stage_of(plan, [folder], chosen).process(item, np.random.default_rng(0))


def test_synthetic_needs_no_folder_and_takes_none(tmp_path):
    with pytest.raises(SourceError, match="kind synthetic reads no files; leave the folder out"):
        plan_ingest(tmp_path, parameters(kind="synthetic"), 0)
    chosen = parameters(kind="synthetic", subjects=3, expressions=2)
    plan = plan_ingest(None, chosen, 5)
    assert [i.key for i in plan.items] == ["s0001_e01", "s0001_e02", "s0002_e01", "s0002_e02", "s0003_e01", "s0003_e02"]
    assert set(plan.shared) == {"faces"}
    assert plan.input_fingerprint == {"kind": "synthetic", "family": "synthetic", "version": 1}
    stage = stage_of(plan, [], chosen, seed=5)
    heads = [stage.process(item, np.random.default_rng(0)).fields["vertices"] for item in plan.items]
    assert all(np.isfinite(v).all() for v in heads)
    assert np.abs(heads[0] - heads[1]).max() > 1, "an expression moves the face"
    assert np.abs(heads[0] - heads[2]).max() > 1, "subjects differ"
    alone = parameters(kind="synthetic", subjects=1, expressions=["smile"], first_subject=2)
    plan = plan_ingest(None, alone, 5)
    assert np.array_equal(
        stage_of(plan, [], alone, seed=5).process(plan.items[0], np.random.default_rng(0)).fields["vertices"], heads[3]
    )
    with pytest.raises(SourceError, match=r"no expression 'smlie' \(did you mean 'smile'"):
        plan_ingest(None, parameters(kind="synthetic", expressions=["smlie"]), 0)
    with pytest.raises(SourceError, match="expressions=99: the synthetic family has"):
        plan_ingest(None, parameters(kind="synthetic", expressions=99), 0)


def test_a_run_through_the_engine(folder, toy, toy_map, tmp_path):
    chosen = parameters(kind="meshes", region_map=toy_map, shard_items=5)
    plan = plan_ingest(folder, chosen, 3)
    options = EngineOptions(scheduler="sync", max_rejects=0.5, progress=False)
    execute(INGEST.path, plan, [str(folder)], tmp_path / "heads", chosen.as_json(), 3, options)
    heads = open_dataset(tmp_path / "heads")
    assert heads.kind == "heads"
    assert heads.mm_per_unit == 1.0
    assert len(heads) == 10
    assert np.array_equal(heads.faces, toy.faces())
    table = heads.index.to_pydict()
    rejected = {k: r for k, r, s in zip(table["key"], table["reason"], table["status"], strict=True) if s == "rejected"}
    assert set(rejected) == {"p2_e02", "p5_e02"}
    assert "p2/2_smile.obj: line 4: vertex 3 is not finite" in rejected["p2_e02"]
    assert heads["p1_e02"]["landmarks"].shape == (68, 3)
    assert set(table["split"]) == {"train", "test"}


def test_an_ict_run_is_the_same_whoever_makes_it(toy, tmp_path):
    toy.write_ict(tmp_path / "FaceXModel", ["cheekPuff_L", "cheekPuff_R"])
    toy.region_map(mm_per_unit=10.0).save(tmp_path / "cm.json")
    chosen = parameters(kind="ict", subjects=4, expressions=2, region_map=str(tmp_path / "cm.json"))
    for name in ("one", "two"):
        plan = plan_ingest(tmp_path / "FaceXModel", chosen, 0)
        options = EngineOptions(scheduler="sync", progress=False)
        execute(INGEST.path, plan, [str(tmp_path / "FaceXModel")], tmp_path / name, chosen.as_json(), 0, options)
    one, two = open_dataset(tmp_path / "one"), open_dataset(tmp_path / "two")
    assert one.fingerprint == two.fingerprint
    assert one.keys() == [f"s{n:04d}_e{e}" for n in range(1, 5) for e in ("01", "17")]
    intensity = one.index.to_pydict()["intensity"]
    assert intensity[0] is None
    assert 0.7 <= intensity[1] <= 1.0


def test_a_region_map_that_is_not_there(tmp_path):
    (tmp_path / "h").mkdir()
    with pytest.raises(FacegraftError, match=r"none\.json: cannot read the region map"):
        plan_ingest(tmp_path / "h", parameters(kind="meshes", region_map=str(tmp_path / "none.json")), 0)


def test_synthetic_heads_take_a_region_map_of_one_s_own(tmp_path) -> None:
    shipped = load_region_map("synthetic")
    nose = RegionSet("mine", {"nose": shipped.region_set("eyes").regions["nose"]})
    replace(shipped, regions={"mine": nose}).save(tmp_path / "mine.json")
    chosen = {"kind": "synthetic", "subjects": 4, "expressions": 1}
    own = plan_ingest(None, parameters(**chosen, region_map=str(tmp_path / "mine.json")), 0)
    usual = plan_ingest(None, parameters(**chosen), 0)
    assert list(own.region_map["regions"]) == ["mine"] and list(usual.region_map["regions"]) != ["mine"]
    assert [item.key for item in own.items] == [item.key for item in usual.items]
    replace(shipped, mm_per_unit=10.0).save(tmp_path / "cm.json")
    with pytest.raises(SourceError, match=r"cm\.json: its unit is 10 mm, the synthetic family's 1 mm"):
        plan_ingest(None, parameters(**chosen, region_map=str(tmp_path / "cm.json")), 0)
    with pytest.raises(RegionMapError, match="the synthetic family: 16324 vertices, but topology ict has 26719"):
        plan_ingest(None, parameters(**chosen, region_map="ict"), 0)
