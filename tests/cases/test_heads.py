"""Heads that people reported as broken: the bad ones are refused for the right reason in one line, the good ones are written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from reported_cases import Cases, rejected, rows

from facegraft.store import open_dataset


@pytest.mark.slow
def test_01_a_stray_vertex_is_refused_and_sets_no_scale(cases: Cases, tmp_path: Path) -> None:
    cases.make("01", tmp_path)
    assert cases.ingest(tmp_path, "raw").code == 0
    found = rejected(tmp_path)
    assert set(found) == {"s0003.obj"}
    assert re.search(r"vertex \d+ lies 4,9\d\d mm from its place in the other heads \(1 such vertices\): .*mend the file or leave it out", found["s0003.obj"])
    cleaned = cases.facegraft(tmp_path, "clean", "heads", "-o", "surfaces", "--scheduler", "sync", "--quiet")
    assert cleaned.code == 0, cleaned.error
    assert 150 < open_dataset(tmp_path / "surfaces").mm_per_unit < 200, "with the stray vertex it was 5,290"


def test_01b_strays_and_poses_of_expressions_are_refused(cases: Cases, tmp_path: Path) -> None:
    cases.make("01b", tmp_path)
    assert cases.ingest(tmp_path, "raw").code == 0
    found = rejected(tmp_path)
    assert set(found) == {f"{s}/2_smile.obj" for s in (1, 2, 3)}
    assert re.search(r"vertex \d+ lies 5,\d{3} mm from its place", found["1/2_smile.obj"])
    for subject, shift in ((2, 250), (3, 60)):
        assert re.search(rf"moved by {shift} mm against its subject's neutral head.*ingest.align=rigid", found[f"{subject}/2_smile.obj"])


@pytest.mark.slow
def test_02_units_poses_and_orders_are_told_apart(cases: Cases, tmp_path: Path) -> None:
    cases.make("02", tmp_path)
    answer = cases.ingest(tmp_path, "raw")
    assert answer.code == 0
    says = {
        "a_mirror_x": "left and right are exchanged",
        "b_backward": "it faces backward: turn it by 180 degrees about y",
        "c_upside": "not upright and facing forward",
        "d_zup": "not upright and facing forward",
        "d2_ydown_zback": "not upright and facing forward",
        "m_mirror_z": "not upright and facing forward",
        "e_metres": "in metres; give mm_per_unit=1000",
        "f_cm": "in centimetres; give mm_per_unit=10",
        "f2_inch": "in inches; give mm_per_unit=25.4",
        "f3_microns": "a scale error of about 0.001",
        "g_mirror_flipped": "its faces are not those of topology synthetic",
        "h_winding": "its faces are not those of topology synthetic",
        "q_perm": "its faces are not those of topology synthetic",
        "r_faceorder": "its faces are not those of topology synthetic",
        "r_rotcorner": "its faces are not those of topology synthetic",
        "j_nan": "vertex 100 is not finite",
        "k_zero": "the outer eye corners are 0 mm apart",
        "o_off1e7": "the head lies 10,000 m from the origin",
        "o_off1e9": "the head lies 1,000,000 m from the origin",
        "i_pitch20": r"turned by 1\d degrees against the others.*ingest.align=rigid",
        "i_pitch30": r"turned by 2\d degrees against the others.*ingest.align=rigid",
    }
    says |= {f"i_{turn}{degrees}": "turned|upright" for turn in ("yaw", "roll", "pitch") for degrees in (20, 30, 45, 60) if f"i_{turn}{degrees}" not in says}
    found = rejected(tmp_path)
    assert {name.removesuffix(".obj") for name in found} == set(says)
    for name, words in says.items():
        assert re.search(words, found[f"{name}.obj"]), found[f"{name}.obj"]
    assert "good_s0002, t_same have the same mesh" in answer.error


@pytest.mark.slow
def test_03_file_names_are_read_or_refused_one_by_one(cases: Cases, tmp_path: Path) -> None:
    cases.make("03", tmp_path)
    for folder, count in (("raw", 12), ("raw_cjk", 3), ("raw_clash", 2)):
        (tmp_path / f"of_{folder}").mkdir()
        assert cases.ingest(tmp_path / f"of_{folder}", f"../{folder}").code == 0
        assert not rejected(tmp_path / f"of_{folder}")
        subjects = {row["subject"] for row in rows(tmp_path / f"of_{folder}")}
        assert len(subjects) == count and all(name.isascii() for name in subjects)
    assert cases.ingest(tmp_path, "raw_latin1").code == 0
    assert rejected(tmp_path) == {r"caf\xe91.obj": r"caf\xe91.obj: its name is not UTF-8 text; rename the file or its folder"}


@pytest.mark.slow
def test_04_subjects_and_expressions(cases: Cases, tmp_path: Path) -> None:
    cases.make("04", tmp_path)
    answers, found = {}, {}
    for name in "ABCDEFG":
        (tmp_path / f"of_{name}").mkdir()
        answers[name] = cases.ingest(tmp_path / f"of_{name}", f"../{name}")
        if answers[name].code == 0:
            assert not rejected(tmp_path / f"of_{name}")
            found[name] = rows(tmp_path / f"of_{name}")
    assert {name: len(items) for name, items in found.items()} == {"A": 8, "B": 6, "C": 2, "D": 6, "E": 6, "F": 3}
    assert [row["expression"] for row in found["A"]].count("neutral") == 4, "Neutral.obj is neutral"
    assert "1 subjects have no neutral head and cannot be grafted: 2" in answers["B"].error
    side = {row["subject"]: row["split"] for row in found["D"]}
    assert all(side[f"p{a}"] == side[f"p{a + 1}"] for a in (0, 2, 4)), "the same mesh is on one side"
    assert re.search(r"subjects p0, p1 have the same mesh", answers["D"].error)
    assert {row["subject"] for row in found["F"]} == {"1", "01", "001"}
    assert answers["G"].line == "a/b_c.obj and a_b/c.obj would both be called a_b_c; rename one of them"


@pytest.mark.slow
def test_11_names_stay_text(cases: Cases, tmp_path: Path) -> None:
    cases.make("11", tmp_path)
    assert cases.ingest(tmp_path, "rawz", "--set", "ingest.test_subjects=[010,012]").code == 0
    assert {row["subject"] for row in rows(tmp_path) if row["split"] == "test"} == {"010", "012"}
    says = {
        "[010,012]": "'010' on the test list is not a subject here (did you mean '10'?)",
        "3": "ingest.test_subjects=3: write a list of names, [3], or the path of a text file of them",
        "3,4": "3,4: cannot read the list of subjects (No such file or directory); give a text file with one subject a line, or the names themselves as a list: [3,4]",
    }
    for value, words in says.items():
        answer = cases.ingest(tmp_path, "raw", "--set", f"ingest.test_subjects={value}", "-o", "other")
        assert answer.code in (1, 2)
        assert answer.line.startswith(words)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("source", "bad", "says"), [("A", 4, r"turned by \d\d degrees against the others"), ("B", 4, r"turned by 12 degrees and moved by 2\d mm against its subject's")])
def test_15_pose_is_refused_and_taken_out_where_asked(cases: Cases, tmp_path: Path, source: str, bad: int, says: str) -> None:
    cases.make("15", tmp_path)
    answer = cases.ingest(tmp_path, source, rejects=0.02)
    assert answer.code == 1
    assert re.search(rf"{bad} of 8 items rejected.*{says}.*ingest.align=rigid", answer.line)
    (tmp_path / "aligned").mkdir()
    assert cases.ingest(tmp_path / "aligned", f"../{source}", "--set", "ingest.align=rigid").code == 0
    assert not rejected(tmp_path / "aligned")
    assert max(nods(tmp_path / "aligned")) - min(nods(tmp_path / "aligned")) < 12, "degrees; the nods were 60 apart"
    if source == "A":
        (tmp_path / "straight").mkdir()
        assert cases.ingest(tmp_path / "straight", "../A0").code == 0
        assert not rejected(tmp_path / "straight")


def nods(folder: Path) -> list[float]:
    """The angles in degrees by which nasion and chin of each head lean forward."""
    heads = open_dataset(folder / "heads")
    marks = [heads[key]["landmarks"].astype(float) for key in heads.keys()]  # noqa: SIM118
    return [float(np.degrees(np.arctan2(m[27, 2] - m[8, 2], m[27, 1] - m[8, 1]))) for m in marks]


def test_18_registered_files_of_other_programs(cases: Cases, tmp_path: Path) -> None:
    cases.make("18", tmp_path)
    assert cases.ingest(tmp_path, "raw").code == 0
    says = {
        "c_utf16": "UTF-16 text, not an OBJ file of plain text; save it as UTF-8",
        "n_decimal_comma": "its numbers have decimal commas: write points",
        "o_vf_plus": r"a vertex coordinate is not a number \('v \+-0",
        "r_object_dup": "its faces are not those of topology synthetic|32321 triangles",
        "s_quads_mixed": "its faces are not those of topology synthetic|triangles",
        "t_isolated": "16325 vertices, but topology synthetic has 16324: 1 at its end in no face",
        "u_short": "27320 triangles, but topology synthetic has 32320; the file is probably truncated",
        "v_nbsp": "its first word is not v or f and a blank",
    }
    found = rejected(tmp_path)
    assert {name.removesuffix(".obj") for name in found} == set(says)
    for name, words in says.items():
        assert re.search(words, found[f"{name}.obj"]), found[f"{name}.obj"]
    heads = open_dataset(tmp_path / "heads")
    first = heads[next(row["key"] for row in rows(tmp_path) if row["source"] == "a_plain.obj")]["vertices"]
    for row in rows(tmp_path):
        if row["status"] == "written":
            np.testing.assert_allclose(heads[row["key"]]["vertices"], first, atol=1e-4, err_msg=row["source"])
