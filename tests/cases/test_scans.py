"""Scans that people reported as broken: the unit, the pose and the columns of a file are read right, said, or refused in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reported_cases import Answer, Cases

from facegraft.errors import FacegraftError
from facegraft.meshfiles.points import read_points

READ = {
    "ascii.ply", "be.ply", "be_crlf.ply", "blank.ply", "cr.ply", "crlf.ply", "endheader_comment.ply", "intcount.ply", "meshlab_uv.ply", "neg_pad.ply",
    "vertexidx.ply", "bom.obj", "bomcomment.obj", "cont.obj", "cr.obj", "crlf.obj", "latin.obj", "lines.obj", "neg.obj", "ok.obj", "rgb.obj",
    "uppercase.OBJ", "vertline.obj", "vn0.obj", "w.obj",
}  # fmt: skip
"""Meshes that are the scan."""
CLOUDS = {
    "bom.xyz", "csv.xyz", "tab.xyz", "xyzn.xyz", "f16.npy", "points.obj", "normals_named.ply", "trailing.ply", "tristrips.ply", "zero_faces.ply",
}  # fmt: skip
"""Clouds that are the scan's points."""
COLOURS = r"columns 4 to 6 must be normals of length 1, but they lie between .* as colours do"
REFUSED = {
    "xyzrgb.xyz": COLOURS,
    "xyzrgb01.xyz": COLOURS,
    "xyzrgb.npy": COLOURS,
    "u8.npy": "numbers of one byte .* are colours, not points",
    "xyzi.xyz": r"\[n,3\] \(points\) or \[n,6\]",
    "xyznrgb.xyz": r"\[n,3\] \(points\) or \[n,6\]",
    "organised.npy": r"\[n,3\] \(points\) or \[n,6\]",
    "T.npy": r"\[n,3\] \(points\) or \[n,6\]",
    "obj.npy": "not Python objects",
    "comma_dec.xyz": "both commas and blanks stand between numbers",
    "comma.obj": "its numbers have decimal commas",
    "semicolon.xyz": "semicolons separate its numbers",
    "header.xyz": "names of columns, not numbers",
    "count.xyz": "the count of points",
    "nan.xyz": "point 6740 is not finite|point \\d+ is not finite",
    "nan.ply": r"vertex \d+ is not finite",
    "empty.xyz": "holds no points",
    "empty.ply": "no vertices",
    "XYZ.ply": "no x, y and z .*there is X, Y, Z",
    "dbl_upper.ply": "header line not understood: 'property DOUBLE x'",
    "utf16.obj": "UTF-16 text",
    "float_idx.obj": "a face corner is not a vertex index",
    "twof.obj": "a face with 2 corners",
    "scan.stl": "cannot read .stl; take .ply, .obj, .xyz or .npy",
    "a.pcd": "cannot read .pcd",
    "a.gz": "cannot read .gz",
    "dir.ply": "Is a directory",
}
OTHERS = {"ngon.obj", "zeros.npy", "dup.npy", "plane.npy"}
"""What is read as something else than the scan: refused by a fit, or with a face more."""


@pytest.fixture(scope="module")
def folder(cases: Cases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scans of case 05, and those of case 06 in `files`."""
    found = tmp_path_factory.mktemp("scans")
    cases.make("05", found)
    (found / "files").mkdir()
    (found / "files" / "scan_base.npz").write_bytes((found / "scan_base.npz").read_bytes())
    cases.make("06", found / "files")
    return found


def test_06_files_are_read_right_or_refused_by_name(folder: Path) -> None:
    base = np.load(folder / "scan_base.npz", allow_pickle=True)
    files = {path.name for path in (folder / "files").iterdir()} - {"scan_base.npz"}
    assert files == READ | CLOUDS | set(REFUSED) | OTHERS
    for name in sorted(READ | CLOUDS):
        cloud = read_points(folder / "files" / name)
        np.testing.assert_allclose(cloud.points, base["v"], atol=0.05, err_msg=name)
        assert (cloud.faces is None) == (name in CLOUDS), name
        assert name in CLOUDS or np.array_equal(cloud.faces, base["f"]), name
    for name, words in REFUSED.items():
        with pytest.raises(FacegraftError) as caught:
            read_points(folder / "files" / name)
        assert re.search(words, str(caught.value)), str(caught.value)
        assert "\n" not in str(caught.value)


def test_06b_a_byte_order_mark_shifts_no_faces(cases: Cases, folder: Path) -> None:
    # The script names the reader by where it was when the case was written.
    (script,) = cases.scripts.glob("06b_*.py")
    code = (
        "import runpy, sys, types; from facegraft.meshfiles.points import read_points; old = types.ModuleType('meshio'); old.read_points = read_points; "
        f"sys.modules['facegraft_model.meshes'] = types.ModuleType('meshes'); sys.modules['facegraft_model.meshes.meshio'] = old; runpy.run_path({str(script)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=cases.environment(), capture_output=True, text=True, timeout=120)
    found = re.search(r"vertices (\d+) -> (\d+) longest edge mm (\S+) -> (\S+)", done.stdout)
    assert found is not None, done.stderr
    assert found[1] == found[2] and found[3] == found[4]


def fit(cases: Cases, folder: Path, scan: str, *more: object, points: int = 600) -> tuple[Answer, dict[str, Any]]:
    """Fit the model that ships to a scan: the answer, and what is known of the fit."""
    name = Path(scan).stem
    answer = cases.facegraft(folder, "model", "fit", "ict-head", "--points", scan, "-o", f"fits_{name}", "--device", "cpu", "--quiet", "--set", f"fit.surface={points}", *more)
    if answer.code:
        return answer, {}
    (item,) = json.loads((folder / f"fits_{name}" / "fits.json").read_text())["items"]
    return answer, item["scan"] | {"error_mm": item["error_mm"]}


@pytest.mark.parametrize(
    ("scan", "says"),
    [
        ("metres.ply", r"metres\.ply: it is 0\.\d+ x 0\.\d+ x 0\.\d+ mm large, which is no face: the file seems to be in metres; give --unit-mm 1000 \(it was read with 1\)"),
        ("cm.ply", r"cm\.ply: it is .* mm large, which is no face: the file seems to be in centimetres; give --unit-mm 10\b.*"),
        ("files/dup.npy", r"files/dup\.npy: holds 5000 points, of which 1 differ; a fit needs at least 100"),
        ("files/zeros.npy", r"files/zeros\.npy: holds 5000 points, of which 1 differ; a fit needs at least 100"),
        ("files/plane.npy", r"files/plane\.npy: its points lie in a plane; is this the right file, and has it a depth\?"),
    ],
)
@pytest.mark.slow
def test_05_scans_that_are_no_face_are_refused(cases: Cases, folder: Path, scan: str, says: str) -> None:
    answer, _ = fit(cases, folder, scan)
    assert answer.code == 1
    assert re.fullmatch(says, answer.line)


TURNED = r"it was turned by (8\d|9\d|17\d|180) degrees to fit \(its head points to {up}, its face to {ahead}\); scans should be upright"
SAID = {
    "ok": None,
    "cloud": None,
    "flipped": r"its normals \(the order of its triangles' corners\) face inward; they were taken the other way round",
    "backward": TURNED.format(up=r"\+y", ahead="-z"),
    "zup": TURNED.format(up=r"\+z", ahead="-y"),
}


@pytest.mark.parametrize("scan", SAID)
@pytest.mark.slow
def test_05_pose_and_winding_are_found_and_said(cases: Cases, folder: Path, scan: str) -> None:
    answer, found = fit(cases, folder, f"{scan}.ply", points=2000)
    assert answer.code == 0, answer.error
    assert found["error_mm"] < 0.5 and found["near"] > 0.95 and found["covered"] > 0.6
    said = [line for line in answer.error.splitlines() if f"{scan}.ply: " in line]
    assert len(said) == (SAID[scan] is not None), answer.error
    assert all(re.search(SAID[scan] or "", line) for line in said), answer.error


@pytest.mark.parametrize("scan", ["ok", "outliers"])
@pytest.mark.slow
def test_05b_a_similarity_keeps_the_size(cases: Cases, folder: Path, scan: str) -> None:
    answer, found = fit(cases, folder, f"{scan}.ply", "--align", "similarity")
    assert answer.code == 0, answer.error
    # It was 0.29, and 0.000 without outliers. These heads are not of the model's family, so that their size is a matter of a few percent.
    assert 0.75 < found["scale"] < 1.33
    assert ("times its size; check --unit-mm" in answer.error) == (not 1 / 1.2 < found["scale"] < 1.2)
    if scan == "outliers":
        assert re.search(r"outliers\.ply: 2\d % of its points lie more than 3 mm from the fitted head", answer.error)
