"""The synthetic head family: topology, symmetry, landmarks, anthropometry, variation and expressions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from facegraft.heads import synthetic
from facegraft.heads.synthetic import EXPRESSIONS, IDENTITY_NAMES, SyntheticHeadError, head, sample_identity, template
from facegraft.heads.synthetic.expression import expression_fields, lids
from facegraft.heads.synthetic.features import EYE_CENTRE
from facegraft.heads.synthetic.identity import identity_fields
from facegraft.heads.synthetic.layout import split_quads
from facegraft.heads.synthetic.template import EYE, MOUTH, ROWS, build_layout, half_vertices
from facegraft.surfaces.normals import face_areas, face_normals, signed_volume
from facegraft.surfaces.topology import (
    boundary_loops,
    euler_characteristic,
    faces_sha256,
    is_watertight,
    unique_edges,
    vertex_components,
)

MIRROR = np.array([-1.0, 1.0, 1.0])
ZERO = np.zeros(len(IDENTITY_NAMES))


def skin_faces() -> np.ndarray:
    shape = template()
    return shape.faces[(shape.faces < shape.groups["skin"][0][0][1]).all(axis=1)]


def flipped(vertices: np.ndarray, reference: np.ndarray) -> int:
    """Skin faces that point away from where they pointed."""
    faces = skin_faces()
    return int(((face_normals(vertices, faces) * face_normals(reference, faces)).sum(axis=1) < 0).sum())


@pytest.fixture(scope="module")
def subjects() -> list[np.ndarray]:
    rng = np.random.default_rng(20)
    return [sample_identity(rng) for _ in range(100)]


@pytest.fixture(scope="module")
def neutrals(subjects: list[np.ndarray]) -> np.ndarray:
    return np.stack([head(identity) for identity in subjects])


# ---- topology -------------------------------------------------------------------------------------------------


def test_template_is_deterministic_and_read_only() -> None:
    shape = template()
    layout = build_layout(ROWS, EYE, MOUTH)
    half = half_vertices(layout)
    assert np.array_equal(half, shape.vertices[: layout.count])
    again = split_quads(layout, half)
    assert np.array_equal(again, shape.faces[: len(again)])
    with pytest.raises(ValueError, match="read-only"):
        shape.vertices[0, 0] = 1.0


def test_no_diagonal_hangs_on_rounding() -> None:
    """Positions that differ as much as two machines' arithmetic could give the same faces."""
    layout = template().layout
    half = template().vertices[: layout.count]
    noise = np.random.default_rng(0).normal(scale=1e-7, size=half.shape)
    assert faces_sha256(split_quads(layout, half)) == faces_sha256(split_quads(layout, half + noise))


def test_template_is_built_the_same_every_time() -> None:
    """Bit by bit: a worker that builds it makes the heads of the one that was there before."""
    assert np.array_equal(half_vertices(build_layout(ROWS, EYE, MOUTH)), half_vertices(build_layout(ROWS, EYE, MOUTH)))


def test_skin_is_one_manifold_sheet_with_four_openings() -> None:
    shape, faces = template(), skin_faces()
    assert 8_000 <= len(shape.vertices) <= 20_000
    assert np.array_equal(np.unique(faces), np.arange(shape.groups["skin"][0][0][1]))
    assert len(np.unique(vertex_components(faces, faces.max() + 1))) == 1
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)  # consistently oriented, at most two faces per edge
    loops = boundary_loops(faces)
    assert len(loops) == 4
    assert euler_characteristic(faces) == 2 - 4
    centres = np.array([shape.vertices[loop].mean(axis=0) for loop in loops])
    neck, mouth, eye_a, eye_b = centres  # longest first
    assert neck[1] < -150
    assert abs(mouth[0]) < 1e-9
    assert mouth[1] == pytest.approx(-69.5, abs=1.0)
    assert sorted([eye_a[0], eye_b[0]]) == pytest.approx([-31, 31], abs=1.5)


def test_skin_points_outward() -> None:
    """The head closed by fans over its four openings has positive volume: about 4.5 litres with the neck."""
    shape, faces = template(), skin_faces()
    vertices, closed = shape.vertices, [faces]
    for loop in boundary_loops(faces):
        vertices = np.vstack([vertices, vertices[loop].mean(axis=0)])
        closed.append(np.column_stack([np.roll(loop, -1), loop, np.full(len(loop), len(vertices) - 1)]))
    solid = np.concatenate(closed)
    assert is_watertight(solid)
    assert euler_characteristic(solid) == 2
    assert 3.5e6 < signed_volume(vertices, solid) < 6.0e6


def test_eyeballs_are_closed_spheres_in_their_own_groups() -> None:
    shape = template()
    assert list(shape.groups) == ["skin", "eyeball_left", "eyeball_right"]
    assert [(role, follows) for _, role, follows in shape.groups.values()] == [
        ("surface", None),
        ("inner", "eye_left"),
        ("inner", "eye_right"),
    ]
    spans = [span for ranges, _, _ in shape.groups.values() for span in ranges]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(shape.vertices)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    for name, side in (("eyeball_left", 1), ("eyeball_right", -1)):
        start, stop = shape.groups[name][0][0]
        faces = shape.faces[((shape.faces >= start) & (shape.faces < stop)).all(axis=1)]
        assert is_watertight(faces)
        assert euler_characteristic(faces) == 2
        assert signed_volume(shape.vertices, faces) > 0
        assert np.sign(shape.vertices[start:stop, 0].mean()) == side


def test_mesh_is_exactly_symmetric() -> None:
    shape = template()
    assert np.array_equal(shape.symmetry[shape.symmetry], np.arange(len(shape.vertices)))
    assert np.array_equal(shape.vertices[shape.symmetry], shape.vertices * MIRROR)
    mirrored = np.sort(shape.symmetry[shape.faces], axis=1)
    assert np.array_equal(np.unique(mirrored, axis=0), np.unique(np.sort(shape.faces, axis=1), axis=0))


def test_triangles_are_well_shaped_and_fine_on_the_face() -> None:
    shape, faces = template(), skin_faces()
    edges = unique_edges(faces)
    length = np.linalg.norm(shape.vertices[edges[:, 0]] - shape.vertices[edges[:, 1]], axis=1)
    middle = shape.vertices[edges].mean(axis=1)
    face = (middle[:, 2] > 60) & (middle[:, 1] > -110) & (middle[:, 1] < 35)
    assert np.median(length[face]) < 3.5
    assert np.percentile(length[face], 95) < 6.0
    assert face_areas(shape.vertices, faces).min() > 1e-3
    corner = shape.vertices[faces]
    sides = np.stack([corner[:, (k + 2) % 3] - corner[:, (k + 1) % 3] for k in range(3)], axis=1)
    squares = (sides**2).sum(axis=2)
    quality = 4 * np.sqrt(3) * face_areas(shape.vertices, faces) / squares.sum(axis=1)  # 1 for an equilateral triangle
    assert np.median(quality) > 0.75
    assert (quality < 0.1).mean() < 0.02


# ---- landmarks ------------------------------------------------------------------------------------------------


def test_landmarks_come_in_mirror_pairs() -> None:
    shape = template()
    swap = np.concatenate(
        [
            np.arange(16, -1, -1),
            np.arange(26, 16, -1),
            np.arange(27, 31),
            np.arange(35, 30, -1),
            [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],
            [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55],
            [64, 63, 62, 61, 60, 67, 66, 65],
        ]
    )
    marks = shape.landmarks68
    assert len(np.unique(marks)) == 68
    assert marks.max() < shape.groups["skin"][0][0][1]
    assert np.array_equal(shape.symmetry[marks], marks[swap])
    assert (shape.vertices[marks[[8, 27, 28, 29, 30, 33, 51, 57, 62, 66]], 0] == 0).all()


def test_landmarks_lie_in_ibug_order() -> None:
    x, y, z = template().vertices[template().landmarks68].T
    assert (np.diff(x[:17]) > 0).all()  # jaw from the subject's right (x < 0) to the left
    assert y[8] == y[:17].min()
    assert (np.diff(x[17:27]) > 0).all()
    assert (y[17:27] > y[36:48].max()).all()  # brows above the eyes
    assert (np.diff(y[27:31]) < 0).all()
    assert z[30] == z.max()  # the tip of the nose
    assert (np.diff(x[31:36]) > 0).all()
    assert x[36] == x[36:42].min() < x[37] < x[38] < x[39] == x[36:42].max() < 0
    assert min(y[37], y[38]) > max(y[41], y[40])
    assert 0 < x[42] == x[42:48].min() < x[43] < x[44] < x[45] == x[42:48].max()
    assert min(y[43], y[44]) > max(y[46], y[47])
    assert (np.diff(x[48:55]) > 0).all()
    assert (np.diff(x[54:60]) < 0).all()
    assert y[49:54].min() > y[55:60].max()
    assert (np.diff(x[60:65]) > 0).all()
    assert y[61:64].min() > y[65:68].max()
    assert y[50] > y[51] < y[52]  # the bow of the upper lip


def test_lid_and_inner_lip_landmarks_lie_at_their_openings() -> None:
    shape = template()
    loops = boundary_loops(skin_faces())
    lids = np.concatenate(loops[2:])
    assert np.isin(shape.landmarks68[36:48], lids).all()
    mouth = shape.vertices[loops[1]]
    for mark in shape.landmarks68[60:68]:
        assert np.linalg.norm(mouth - shape.vertices[mark], axis=1).min() < 7.0


# ---- anthropometry and variation ------------------------------------------------------------------------------

# name: landmarks, mean range, standard deviation range in mm (adults, men and women together)
MEASURES = {
    "biocular width": (36, 45, (86, 93), (3.0, 6.5)),
    "intercanthal width": (39, 42, (31, 37), (2.0, 4.7)),
    "nose length": (27, 33, (47, 54), (2.5, 5.0)),
    "nose protrusion": (33, 30, (18, 24), (1.3, 3.0)),
    "mouth width": (48, 54, (49, 55), (2.5, 5.5)),
    "face length": (27, 8, (108, 118), (4.0, 7.5)),
    "lid fissure": (42, 45, (26, 31), (1.0, 2.6)),
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_are_those_of_adults(name: str, neutrals: np.ndarray) -> None:
    first, second, mean, spread = MEASURES[name]
    marks = template().landmarks68
    length = np.linalg.norm(neutrals[:, marks[first]] - neutrals[:, marks[second]], axis=1)
    assert mean[0] < length.mean() < mean[1]
    assert spread[0] < length.std() < spread[1]


def test_head_is_as_high_and_as_broad_as_adults_are(neutrals: np.ndarray) -> None:
    shape = template()
    skin = neutrals[:, : shape.groups["skin"][0][0][1]]
    height = skin[:, :, 1].max(axis=1) - neutrals[:, shape.landmarks68[8], 1]
    above_ears = shape.vertices[: skin.shape[1], 1] > 25
    breadth = np.ptp(skin[:, above_ears, 0], axis=1)
    assert 214 < height.mean() < 228
    assert 148 < breadth.mean() < 160
    assert 3 < breadth.std() < 9


@pytest.mark.parametrize(
    ("part", "centre", "radius", "least"),
    [("nose", (0, -28, 110), 24, 1.5), ("mouth", (0, -70, 100), 27, 1.5), ("eye", (31, 0, 90), 20, 0.9)],
)
def test_parts_differ_between_subjects(
    part: str, centre: tuple[float, float, float], radius: float, least: float, neutrals: np.ndarray
) -> None:
    """RMS distance between two subjects' parts after the best similarity between them: shape, not size or place."""
    shape = template()
    skin = shape.vertices[: shape.groups["skin"][0][0][1]]
    chosen = np.flatnonzero(np.linalg.norm(skin - centre, axis=1) < radius)
    rms = []
    for a, b in zip(neutrals[:40, chosen], neutrals[1:41, chosen], strict=True):
        x, y = a - a.mean(axis=0), b - b.mean(axis=0)
        u, s, vt = np.linalg.svd(x.T @ y)
        s[2] *= np.sign(np.linalg.det(u @ vt))
        rms.append(np.sqrt(((y**2).sum() - s.sum() ** 2 / (x**2).sum()) / len(x)))
    assert least < np.median(rms) < 4.0


def test_every_parameter_changes_the_head_noticeably_and_smoothly() -> None:
    base = head(ZERO)
    for k, name in enumerate(IDENTITY_NAMES):
        one = ZERO.copy()
        one[k] = 1.0
        moved = np.linalg.norm(head(one) - base, axis=1)
        assert 0.4 < moved.max() < 12.0, name
        assert flipped(head(2.5 * one), base) <= 12, name
        assert flipped(head(-2.5 * one), base) <= 12, name


def test_named_parameters_do_what_they_say() -> None:
    marks = template().landmarks68
    base = head(ZERO)

    def with_one(name: str) -> np.ndarray:
        one = ZERO.copy()
        one[IDENTITY_NAMES.index(name)] = 1.0
        return head(one)

    def width(v: np.ndarray, a: int, b: int) -> float:
        return float(np.linalg.norm(v[marks[a]] - v[marks[b]]))

    assert width(with_one("mouth_width"), 48, 54) > width(base, 48, 54) + 1
    assert width(with_one("eye_distance"), 39, 42) > width(base, 39, 42) + 1
    assert width(with_one("nose_length"), 27, 33) > width(base, 27, 33) + 1
    assert width(with_one("nose_width"), 31, 35) > width(base, 31, 35) + 1
    assert width(with_one("nose_front"), 33, 30) > width(base, 33, 30) + 0.5
    assert width(with_one("face_length"), 27, 8) > width(base, 27, 8) + 1
    assert width(with_one("jaw_width"), 4, 12) > width(base, 4, 12) + 2
    assert width(with_one("upper_lip_fullness"), 51, 62) > width(base, 51, 62) + 0.5
    assert width(with_one("lower_lip_fullness"), 57, 66) > width(base, 57, 66) + 0.5
    assert with_one("chin_front")[marks[8], 2] > base[marks[8], 2] + 1


def test_identities_are_finite_and_keep_their_faces_upright(neutrals: np.ndarray) -> None:
    assert np.isfinite(neutrals).all()
    reference = template().vertices
    flips = [flipped(v, reference) for v in neutrals[:30]]
    assert np.median(flips) <= 2
    assert max(flips) <= 30


def test_lids_stay_off_the_eyeballs(neutrals: np.ndarray) -> None:
    shape = template()
    for name, loop in zip(
        ("eyeball_left", "eyeball_right"), (shape.layout.eye[-1], shape.symmetry[shape.layout.eye[-1]]), strict=True
    ):
        start, stop = shape.groups[name][0][0]
        for vertices in neutrals[:20]:
            ball = vertices[start:stop]
            centre = ball.mean(axis=0)
            radius = np.linalg.norm(ball - centre, axis=1)
            assert np.ptp(radius) < 1e-9  # still a sphere
            gap = np.linalg.norm(vertices[loop] - centre, axis=1) - radius.mean()
            assert gap.min() > -0.5
            assert np.median(gap) < 2.0


# ---- coefficients ---------------------------------------------------------------------------------------------


def test_coefficients_are_truncated_normal() -> None:
    rng = np.random.default_rng(3)
    drawn = np.stack([sample_identity(rng) for _ in range(400)])
    assert drawn.shape == (400, len(IDENTITY_NAMES))
    assert np.abs(drawn).max() <= synthetic.CLIP
    assert abs(drawn.mean()) < 0.02
    assert drawn.std() == pytest.approx(0.9546, abs=0.01)  # of N(0, 1) truncated at 2.5
    between = np.corrcoef(drawn.T) - np.eye(drawn.shape[1])
    assert np.abs(between).max() < 0.25  # independent


def test_sampling_and_heads_are_deterministic() -> None:
    one, two = sample_identity(np.random.default_rng(7)), sample_identity(np.random.default_rng(7))
    assert np.array_equal(one, two)
    assert np.array_equal(head(one, "smile"), head(two, "smile"))


def test_without_asymmetry_heads_are_mirror_images_of_themselves() -> None:
    identity = sample_identity(np.random.default_rng(1), asymmetry=0.0)
    vertices = head(identity)
    assert np.abs(vertices[template().symmetry] - vertices * MIRROR).max() < 1e-9
    uneven = head(sample_identity(np.random.default_rng(1), asymmetry=1.0))
    gap = np.linalg.norm(uneven[template().symmetry] - uneven * MIRROR, axis=1)
    assert 0.2 < np.sqrt((gap**2).mean()) < 3.0


def test_names_are_unique_and_enough() -> None:
    assert len(IDENTITY_NAMES) == len(set(IDENTITY_NAMES)) >= 20
    assert EXPRESSIONS[0] == "neutral"
    assert len(EXPRESSIONS) == len(set(EXPRESSIONS)) >= 11


def test_template_is_the_mean_head() -> None:
    assert np.abs(head(ZERO) - template().vertices).max() < 1e-9


# ---- expressions ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces_of(subjects: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.stack([head(s, name) for s in subjects[:6]]) for name in EXPRESSIONS}


@pytest.mark.parametrize("expression", EXPRESSIONS[1:])
def test_expressions_move_the_face_and_nothing_else(expression: str, faces_of: dict[str, np.ndarray]) -> None:
    shape = template()
    moved = np.linalg.norm(faces_of[expression] - faces_of["neutral"], axis=2)
    assert np.isfinite(moved).all()
    assert 2.0 < moved.max() < 45.0
    skull = (shape.vertices[:, 1] > 85) | ((shape.vertices[:, 2] < -40) & (shape.vertices[:, 1] > -60))
    assert moved[:, skull].max() < 0.5
    opening = shape.layout.grid[0]
    assert moved[:, opening].max() < 1.0
    start = shape.groups["eyeball_left"][0][0][0]
    assert moved[:, start:].max() == 0.0  # the eyes keep looking ahead


# turned legitimately by more than a right angle: the lining of the lips when the mouth opens, the margin of a closing lid
FLIPS = {"mouth_stretch": 120, "eye_closed": 30}


@pytest.mark.parametrize("expression", EXPRESSIONS[1:])
def test_expressions_fold_few_faces(expression: str, faces_of: dict[str, np.ndarray]) -> None:
    pairs = zip(faces_of[expression], faces_of["neutral"], strict=True)
    assert max(flipped(v, n) for v, n in pairs) <= FLIPS.get(expression, 20)


def test_expressions_do_what_they_say(faces_of: dict[str, np.ndarray]) -> None:
    marks = template().landmarks68
    rest = faces_of["neutral"][:, marks]

    def change(name: str, mark: int, axis: int) -> np.ndarray:
        return faces_of[name][:, marks[mark], axis] - rest[:, mark, axis]

    def opening(name: str, upper: int, lower: int) -> np.ndarray:
        return np.linalg.norm(faces_of[name][:, marks[upper]] - faces_of[name][:, marks[lower]], axis=1)

    assert (change("mouth_stretch", 8, 1) < -15).all()  # the chin drops
    assert (opening("mouth_stretch", 62, 66) > 20).all()
    assert (opening("neutral", 62, 66) < 4).all()
    assert (opening("lip_funneler", 62, 66) > 4).all()
    assert (np.abs(change("mouth_stretch", 51, 1)) < 1.5).all()  # the upper lip stays
    for mark in (48, 54):
        assert (change("smile", mark, 1) > 3).all()
        assert (change("sadness", mark, 1) < -3).all()
    assert (opening("smile", 48, 54) > opening("neutral", 48, 54) + 5).all()
    assert (opening("lip_puckerer", 48, 54) < opening("neutral", 48, 54) - 10).all()
    assert (change("lip_puckerer", 51, 2) > 3).all()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        assert (opening("eye_closed", upper, lower) < 0.2 * opening("neutral", upper, lower)).all()
    for mark in (18, 19, 20, 23, 24, 25):
        assert (change("brow_raiser", mark, 1) > 4).all()
        assert (change("brow_lower", mark, 1) < -2).all()
        assert (change("anger", mark, 1) < -2).all()
    assert (change("jaw_left", 8, 0) > 6).all()  # +x is the subject's left
    assert (change("jaw_right", 8, 0) < -6).all()
    assert (change("mouth_left", 51, 0) > 6).all()
    assert (change("mouth_right", 51, 0) < -6).all()
    assert (opening("dimpler", 48, 54) > opening("neutral", 48, 54) + 5).all()
    assert (change("dimpler", 54, 2) < -3).all()
    cheek = np.linalg.norm(template().vertices - [50, -62, 70], axis=1).argmin()
    assert ((faces_of["cheek_blowing"] - faces_of["neutral"])[:, cheek, 0] > 5).all()


def test_mirrored_expressions_are_mirror_images() -> None:
    mirror = template().symmetry
    for left, right in (
        ("jaw_left", "jaw_right"),
        ("mouth_left", "mouth_right"),
        ("smile", "smile"),
        ("eye_closed", "eye_closed"),
    ):
        assert np.abs(head(ZERO, left)[mirror] * MIRROR - head(ZERO, right)).max() < 1e-6


def test_strength_goes_from_neutral_to_the_full_expression() -> None:
    assert np.array_equal(head(ZERO, "smile", 0.0), head(ZERO))
    corner = template().landmarks68[54]
    height = [head(ZERO, "smile", s)[corner, 1] for s in (0.0, 0.5, 1.0)]
    assert height[1] == pytest.approx(0.5 * (height[0] + height[2]), abs=0.05)


def test_eyeballs_follow_the_eyes() -> None:
    one = ZERO.copy()
    one[IDENTITY_NAMES.index("eye_distance")] = 2.0
    start, stop = template().groups["eyeball_left"][0][0]
    shift = (head(one) - head(ZERO))[start:stop].mean(axis=0)
    assert shift[0] == pytest.approx(2 * 1.2, abs=0.6)
    assert head(ZERO)[start:stop].mean(axis=0) == pytest.approx(EYE_CENTRE, abs=1e-9)


def test_only_the_first_head_builds_template_and_fields() -> None:
    """They take seconds; a head after the first is sums over them, and takes milliseconds (benchmarks/pipeline_speed.py)."""
    identity = sample_identity(np.random.default_rng(0))
    head(identity, "smile")
    built = (template, identity_fields, expression_fields, lids)
    before = [function.cache_info().misses for function in built]
    head(identity, "smile")
    head(identity, "jaw_left")
    assert min(before) >= 1 and before == [function.cache_info().misses for function in built]


# ---- refusals -------------------------------------------------------------------------------------------------


def test_wrong_input_is_named() -> None:
    with pytest.raises(SyntheticHeadError, match=rf"shape \(3,\); a synthetic head takes {len(IDENTITY_NAMES)}"):
        head([0.0, 1.0, 2.0])
    bad = ZERO.copy()
    bad[IDENTITY_NAMES.index("jaw_width")] = np.nan
    with pytest.raises(SyntheticHeadError, match="'jaw_width' is not finite"):
        head(bad)
    with pytest.raises(SyntheticHeadError, match=r"unknown expression 'smil' \(did you mean 'smile'"):
        head(ZERO, "smil")
    with pytest.raises(SyntheticHeadError, match="strength is inf"):
        head(ZERO, "smile", float("inf"))
