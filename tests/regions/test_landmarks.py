"""Reading landmark files and refusing sets that do not fit their mesh, each with one line that says what is off."""

import json

import numpy as np
import pytest

from facegraft.regions.landmarks import (
    MIRROR68,
    FaceFrame,
    LandmarkError,
    check_landmarks,
    guess_mm_per_unit,
    read_landmarks,
)


@pytest.fixture
def face(load_template):
    template = load_template("synthetic")
    return template.vertices, template.region_map.landmarks68


def test_mirror_table_is_an_involution_that_swaps_the_eyes() -> None:
    assert np.array_equal(MIRROR68[MIRROR68], np.arange(68))
    assert sorted(MIRROR68[36:42]) == list(range(42, 48))
    assert np.array_equal(np.flatnonzero(np.arange(68) == MIRROR68), [8, 27, 28, 29, 30, 33, 51, 57, 62, 66])


def test_every_file_form_reads_alike(tmp_path) -> None:
    marks = np.arange(68) * 3
    np.save(tmp_path / "a.npy", marks)
    np.savez(tmp_path / "one.npz", only=marks)
    np.savez(tmp_path / "two.npz", v10=marks + 1, v16=marks)
    (tmp_path / "a.json").write_text(json.dumps(marks.tolist()))
    (tmp_path / "b.json").write_text(json.dumps({"landmarks68": marks.tolist()}))
    (tmp_path / "a.txt").write_text("\n".join(map(str, marks)))
    for name, key in (
        ("a.npy", None),
        ("one.npz", None),
        ("two.npz", "v16"),
        ("a.json", None),
        ("b.json", None),
        ("a.txt", None),
    ):
        assert np.array_equal(read_landmarks(tmp_path / name, key), marks), name


def test_barycentric_embedding_takes_the_heaviest_corner(tmp_path) -> None:
    faces = np.arange(300).reshape(100, 3)
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 68)
    np.savez(tmp_path / "e.npz", lmk_face_idx=np.arange(68), lmk_b_coords=weights)
    assert np.array_equal(read_landmarks(tmp_path / "e.npz", faces=faces), faces[np.arange(68), weights.argmax(1)])
    with pytest.raises(LandmarkError, match="needs the mesh's faces"):
        read_landmarks(tmp_path / "e.npz")
    with pytest.raises(LandmarkError, match="names face 67, but the mesh has 10 faces"):
        read_landmarks(tmp_path / "e.npz", faces=faces[:10])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.npy", None, "no such landmark file"),
        ("a.csv", b"1,2", "unknown suffix"),
        ("a.json", b"{", "cannot read landmarks"),
        ("a.json", b"[1, 2]", "expected 68 vertex indices"),
        ("a.txt", b"one two", "cannot read landmarks"),
        ("a.npz", b"nonsense", "cannot read landmarks"),
        ("a.npz", b"PK\x03\x04 and no more", "cannot read landmarks"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, message) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LandmarkError, match=message) as caught:
        read_landmarks(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_sets_need_a_key_and_list_them(tmp_path) -> None:
    np.savez(tmp_path / "two.npz", v10=np.arange(68), v16=np.arange(68))
    with pytest.raises(LandmarkError, match="choose one with --key: v10, v16"):
        read_landmarks(tmp_path / "two.npz")
    with pytest.raises(LandmarkError, match=r"no key 'v12'.*v10, v16"):
        read_landmarks(tmp_path / "two.npz", "v12")


@pytest.mark.parametrize("unit", [1.0, 10.0, 1000.0])
def test_unit_is_guessed_from_the_eye_corners(face, unit: float) -> None:
    vertices, marks = face
    assert guess_mm_per_unit(vertices / unit, marks) == unit
    with pytest.raises(LandmarkError, match="--mm-per-unit"):
        guess_mm_per_unit(vertices * 0.3, marks)


def test_a_fitting_set_passes(face) -> None:
    check_landmarks(*face, 1.0)


def test_misfits_are_named(face) -> None:
    vertices, marks = face
    cases = {
        "left and right are swapped": (vertices, marks[MIRROR68], 1.0),
        r"outer eye corners 8\.. mm apart": (vertices * 0.1, marks, 1.0),
        r"\+y must be up": (vertices * [1, -1, 1], marks, 1.0),
        "nose tip": (vertices * [1, 1, -1], marks, 1.0),
        "the mesh has 50 vertices": (vertices[:50], marks, 1.0),
        "got shape": (vertices, marks[:5], 1.0),
        "landmarks 36 and 45 are .* mm from being mirror images": (vertices, np.where(np.arange(68) == 45, marks[25], marks), 1.0),
        "landmarks 31 and 35 are swapped: the first must lie on the subject's right": (vertices, swapped(marks, 31, 35), 1.0),
        "landmarks 3 and 13 are swapped": (vertices, swapped(marks, 3, 13), 1.0),
        "the landmarks of the left eye .* not in order": (vertices, marks[[*range(42), 45, 44, 43, 42, 47, 46, *range(48, 68)]], 1.0),
        "above and below are swapped at the right eye": (vertices, swapped(swapped(marks, 37, 41), 38, 40), 1.0),
        r"landmarks 4, 5 are the same vertex \(\d+\)": (vertices, np.where(np.arange(68) == 5, marks[4], marks), 1.0),
        "landmark 30 lies .* mm beside the middle": (vertices, np.where(np.arange(68) == 30, marks[35], marks), 1.0),
        "landmarks 6 and 7 lie .* mm apart: one of them is far from its place": (vertices, np.where(np.arange(68) == 6, marks[17], marks), 1.0),
        "landmark 0 is vertex -1: .* give the nearest vertex": (vertices, np.where(np.arange(68) == 0, -1, marks), 1.0),
    }
    for message, (v, lm, unit) in cases.items():
        with pytest.raises(LandmarkError, match=message) as caught:
            check_landmarks(v, lm, unit)
        assert "\n" not in str(caught.value)


def swapped(marks: np.ndarray, a: int, b: int) -> np.ndarray:
    order = np.arange(68)
    order[[a, b]] = b, a
    return marks[order]


def test_every_landmark_that_is_moved_far_away_is_noticed(face) -> None:
    vertices, marks = face
    for mark in range(68):
        far = int(np.linalg.norm(vertices - vertices[marks[mark]], axis=1).argmax())
        with pytest.raises(LandmarkError, match="do not fit"):
            check_landmarks(vertices, np.where(np.arange(68) == mark, far, marks), 1.0)


def test_landmarks_off_the_skin_are_named(face) -> None:
    vertices, marks = face
    more = np.vstack([vertices, vertices[marks[40]]])
    moved = np.where(np.arange(68) == 40, len(vertices), marks)
    with pytest.raises(LandmarkError, match=rf"not on the skin, but on a loose piece or in no face: landmark 40 \(vertex {len(vertices)}\)"):
        check_landmarks(more, moved, 1.0, np.arange(len(vertices)))


def test_one_vertex_may_be_both_corners_of_a_lip_on_a_coarse_mesh(face) -> None:
    vertices, marks = face
    check_landmarks(vertices, np.where(np.arange(68) == 60, marks[48], marks), 1.0)


def test_eye_corners_that_are_wrong_do_not_blame_the_unit(face) -> None:
    vertices, marks = face
    with pytest.raises(LandmarkError, match=r"eye corners .* mm apart \(expected 70-115\); .*left eye .* not in order"):
        guess_mm_per_unit(vertices, marks[[*range(42), 45, 44, 43, 42, 47, 46, *range(48, 68)]])


@pytest.mark.parametrize("name", ["ict", "facescape_v16", "flame"])
def test_published_landmarks_pass(load_template, name: str) -> None:
    template = load_template(name)
    surface = template.region_map.vertices_of("surface")
    for marks in (template.published_landmarks, template.region_map.landmarks68):
        check_landmarks(template.vertices, marks, template.region_map.mm_per_unit, surface)


def test_an_index_set_of_another_facescape_version_is_refused(load_template, data_dir) -> None:
    """v10's indices are all valid on the 26278-vertex mesh; only the geometry gives them away."""
    template = load_template("facescape_v16")
    path = data_dir / "facescape" / "landmark_indices.npz"
    check_landmarks(template.vertices, read_landmarks(path, "v16"), 1.0)
    with pytest.raises(LandmarkError, match="may belong to another topology"):
        check_landmarks(template.vertices, read_landmarks(path, "v10"), 1.0)


def test_face_frame_undoes_a_turned_head(face) -> None:
    from scipy.spatial.transform import Rotation

    vertices, marks = face
    turned = vertices @ Rotation.from_euler("yz", [12, -7], degrees=True).as_matrix().T + [4.0, 5.0, 6.0]
    local = FaceFrame.of(turned[marks]).apply(turned)[marks]
    np.testing.assert_allclose(local * [-1, 1, 1], local[MIRROR68], atol=1e-6)
