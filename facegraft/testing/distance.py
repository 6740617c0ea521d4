"""Tests of a distance backend: a pytest class to inherit from.

    class TestMine(DistanceSuite):
        backend = "mine"
        tolerance = 1e-9

It calls `signed_distance`, so the backend must be registered in `facegraft.surfaces.distance.BACKENDS`. Results are compared
with the closed forms of a sphere and a box, and, on a head, with brute force over all triangles in plain numpy, which shares
no code with any backend. Set `sheet` for a backend that takes open sheets facing +z; all others are tested on closed meshes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from facegraft.arrays import Floats, Ints
from facegraft.geometry.clipping import icosphere
from facegraft.heads import synthetic
from facegraft.surfaces.distance import BACKENDS, signed_distance
from facegraft.surfaces.errors import DistanceError
from facegraft.surfaces.signed import SignedDistance
from facegraft.surfaces.topology import boundary_loops

BOX_HALF = np.array([0.5, 0.4, 0.7])


class DistanceSuite:
    """Inherit from this class, and set the name and the accuracy of the backend.

    backend: its name; tolerance: largest error of a distance and of a nearest point on shapes of size 1 to 3; sheet: it takes
    open sheets that face +z (as `height_field` does) instead of closed meshes; sign_errors: share of the points whose
    sign may be wrong (0 for an exact backend), among those farther from the surface than the tolerance; points: number of points.
    """

    backend: ClassVar[str]
    tolerance: ClassVar[float] = 1e-9
    sheet: ClassVar[bool] = False
    sign_errors: ClassVar[float] = 0.0
    points: ClassVar[int] = 600

    def ask(self, vertices: Floats, faces: Ints, points: Floats) -> SignedDistance:
        """Signed distances by the backend under test."""
        return signed_distance(vertices, faces, points, backend=self.backend)

    def sample(self, seed: int = 0) -> Floats:
        """Points [n, 3] in and around the shapes."""
        return np.random.default_rng(seed).uniform(-1.2, 1.2, (self.points, 3))

    def shape(self) -> tuple[Floats, Ints]:
        """The mesh for tests of general properties: a sphere, or a sheet of hills where the backend takes sheets."""
        return _hills() if self.sheet else icosphere(4)

    # -- the registration ------------------------------------------------------------------------------------------------

    def test_it_is_registered_with_a_line_of_description(self) -> None:
        assert self.backend in BACKENDS
        assert BACKENDS[self.backend].closed != self.sheet
        assert BACKENDS[self.backend].summary and "\n" not in BACKENDS[self.backend].summary

    # -- right numbers ---------------------------------------------------------------------------------------------------

    def test_a_sphere(self) -> None:
        vertices, faces = icosphere(5)
        points = self.sample(1)
        found = self.ask(vertices, faces, points)
        radius = np.linalg.norm(points, axis=1)
        nearest = points / radius[:, None]
        chord = (
            1.0 - np.linalg.norm(vertices[faces].mean(axis=1), axis=1).min()
        )  # the largest distance of the triangles from the sphere
        assert np.abs(np.abs(found.sdf) - np.abs(radius - 1.0)).max() <= chord + self.tolerance
        expected = self.expected(radius - 1.0, points, nearest)
        away = np.abs(expected) > chord + self.tolerance
        self.assert_signs(found.sdf[away], expected[away])

    def test_a_box(self) -> None:
        vertices, faces = _box()
        points = self.sample(2)
        beyond = np.abs(points) - BOX_HALF
        signed = np.linalg.norm(np.maximum(beyond, 0.0), axis=1) + np.minimum(beyond.max(axis=1), 0.0)
        nearest = np.clip(points, -BOX_HALF, BOX_HALF)
        inside = np.flatnonzero(signed < 0.0)
        side = beyond[inside].argmax(axis=1)
        nearest[inside, side] = np.sign(points[inside, side]) * BOX_HALF[side]
        found = self.ask(vertices, faces, points)
        assert np.abs(np.abs(found.sdf) - np.abs(signed)).max() <= self.tolerance
        self.assert_signs(found.sdf, self.expected(signed, points, nearest))

    def test_a_head_against_all_triangles(self) -> None:
        """A synthetic head: its holes closed by simple fans or, for sheets, open."""
        vertices, faces = _head(closed=not self.sheet)
        rng = np.random.default_rng(3)
        near = vertices[rng.integers(len(vertices), size=30)] + 0.02 * rng.standard_normal((30, 3))
        points = np.concatenate([near, rng.uniform(-1.0, 1.0, (30, 3))])
        found = self.ask(vertices, faces, points)
        distance, nearest = brute_force_nearest(vertices, faces, points)
        assert np.abs(np.abs(found.sdf) - distance).max() <= self.tolerance
        inside = np.zeros(len(points)) if self.sheet else brute_force_winding(vertices, faces, points)
        self.assert_signs(found.sdf, self.expected(np.where(inside > 0.5, -distance, distance), points, nearest))

    def test_signs_beside_every_side(self) -> None:
        """A short step off the surface to either side: inside and outside, with gradients away from the inside."""
        vertices, faces = self.shape()
        corners = vertices[faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        step = max(1e-4, 2.0 * self.tolerance)
        for side in (1.0, -1.0):
            found = self.ask(vertices, faces, corners.mean(axis=1) + side * step * normals)
            self.assert_signs(found.sdf, np.full(len(faces), side))
            along = (found.gradient * normals).sum(axis=1)
            assert np.median(along) > 0.9 and (along > 0).mean() >= 1.0 - self.sign_errors

    # -- a consistent answer ---------------------------------------------------------------------------------------------

    def test_shapes_and_types_of_the_answer(self) -> None:
        vertices, faces = self.shape()
        points = self.sample(4)
        found = self.ask(vertices, faces, points)
        n = len(points)
        assert found.sdf.shape == (n,) and found.closest_points.shape == found.gradient.shape == (n, 3)
        assert found.face_index.shape == (n,) and found.face_index.dtype == np.int64
        assert found.sdf.dtype == found.closest_points.dtype == found.gradient.dtype == np.float64
        assert all(np.isfinite(a).all() for a in (found.sdf, found.closest_points, found.gradient))

    def test_gradients_have_length_one(self) -> None:
        vertices, faces = self.shape()
        on = vertices[faces[:100]].mean(axis=1)  # also points on the surface, whose direction is undefined
        found = self.ask(vertices, faces, np.concatenate([self.sample(5), on]))
        np.testing.assert_allclose(np.linalg.norm(found.gradient, axis=1), 1.0, atol=1e-6)

    def test_nearest_points_lie_on_their_faces_at_the_distance(self) -> None:
        vertices, faces = self.shape()
        points = self.sample(6)
        found = self.ask(vertices, faces, points)
        distance = np.linalg.norm(points - found.closest_points, axis=1)
        assert np.abs(distance - np.abs(found.sdf)).max() <= self.tolerance
        gap, _ = brute_force_nearest(
            vertices[faces[found.face_index]].reshape(-1, 3), None, found.closest_points, paired=True
        )
        assert gap.max() <= 1e-9

    def test_the_same_question_has_the_same_answer(self) -> None:
        vertices, faces = self.shape()
        one, two = (self.ask(vertices, faces, self.sample(7)) for _ in range(2))
        assert one.sdf.tobytes() == two.sdf.tobytes() and one.gradient.tobytes() == two.gradient.tobytes()
        order = np.random.default_rng(8).permutation(self.points)
        turned = self.ask(vertices, faces, self.sample(7)[order])
        np.testing.assert_allclose(turned.sdf, one.sdf[order], atol=self.tolerance)

    def test_no_points_no_distances(self) -> None:
        found = self.ask(*self.shape(), np.empty((0, 3)))
        assert found.sdf.shape == found.face_index.shape == (0,)
        assert found.closest_points.shape == found.gradient.shape == (0, 3)

    # -- refusals --------------------------------------------------------------------------------------------------------

    def test_open_meshes_are_refused_where_they_must(self) -> None:
        vertices, faces = icosphere(2)
        if self.sheet:
            assert len(self.ask(vertices, faces[1:], np.zeros((1, 3))).sdf) == 1
            return
        with pytest.raises(DistanceError, match="3 open"):
            self.ask(vertices, faces[1:], np.zeros((1, 3)))
        with pytest.raises(DistanceError, match="point inward"):
            self.ask(vertices, faces[:, ::-1], np.zeros((1, 3)))

    def test_numbers_that_are_not_finite_are_refused(self) -> None:
        vertices, faces = self.shape()
        with pytest.raises(DistanceError, match="1 of the 2 points are not finite"):
            self.ask(vertices, faces, np.array([[0.0, 0, 0], [np.nan, 0, 0]]))

    def expected(self, signed: Floats, points: Floats, nearest: Floats) -> Floats:
        """Numbers [n] with the expected sign: by the inside or, for sheets, by the z of the nearest point."""
        if not self.sheet:
            return signed
        ahead = points[:, 2] - nearest[:, 2]
        return np.asarray(np.sign(ahead) * np.minimum(np.abs(ahead), np.abs(signed)))

    def assert_signs(self, found: Floats, expected: Floats) -> None:
        """At most the stated share of the signs differs, leaving aside points where the sign changes within the tolerance."""
        clear = np.abs(expected) > max(self.tolerance, 1e-6)
        assert clear.any()
        wrong = (np.sign(found[clear]) != np.sign(expected[clear])).mean()
        assert wrong <= self.sign_errors, f"{wrong:.2%} of the signs are wrong"


def brute_force_nearest(
    vertices: Floats, faces: Ints | None, points: Floats, *, paired: bool = False
) -> tuple[Floats, Floats]:
    """Distance [n] and nearest point [n, 3] over all triangles, by the regions of Ericson, "Real-Time Collision Detection", 5.1.5.

    paired: point i is compared with triangle i alone (vertices [3n, 3] in threes).
    """
    triangles = vertices.reshape(-1, 3, 3) if faces is None else vertices[faces]
    best, nearest = np.full(len(points), np.inf), np.empty((len(points), 3))
    for i, point in enumerate(points):
        a, b, c = triangles[[i] if paired else slice(None)].transpose(1, 0, 2)
        candidates = np.concatenate(
            [_on_plane(point, a, b, c), *(_on_edge(point, x, y) for x, y in ((a, b), (b, c), (c, a)))]
        )
        gaps = np.linalg.norm(candidates - point, axis=1)
        k = int(np.nanargmin(gaps))
        best[i], nearest[i] = gaps[k], candidates[k]
    return best, nearest


def brute_force_winding(vertices: Floats, faces: Ints, points: Floats) -> Floats:
    """Winding numbers [n]: the sum of the solid angles of all triangles (Van Oosterom and Strackee 1983)."""
    winding = np.empty(len(points))
    for i, point in enumerate(points):
        a, b, c = (vertices[faces] - point).transpose(1, 0, 2)
        la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
        volume = (a * np.cross(b, c)).sum(axis=1)
        rest = la * lb * lc + (a * b).sum(axis=1) * lc + (b * c).sum(axis=1) * la + (c * a).sum(axis=1) * lb
        winding[i] = np.arctan2(volume, rest).sum() / (2.0 * np.pi)
    return winding


def _on_edge(point: Floats, a: Floats, b: Floats) -> Floats:
    """Nearest points [F, 3] of the segments a b."""
    along = b - a
    share = ((point - a) * along).sum(axis=1) / np.maximum((along * along).sum(axis=1), np.finfo(np.float64).tiny)
    return np.asarray(a + np.clip(share, 0.0, 1.0)[:, None] * along)


def _on_plane(point: Floats, a: Floats, b: Floats, c: Floats) -> Floats:
    """Feet [F, 3] of the perpendiculars on the triangles; NaN where a foot lies outside its triangle."""
    normal = np.cross(b - a, c - a)
    square = np.maximum((normal * normal).sum(axis=1), np.finfo(np.float64).tiny)
    foot = point - (((point - a) * normal).sum(axis=1) / square)[:, None] * normal
    inside = np.ones(len(a), dtype=bool)
    for x, y in ((a, b), (b, c), (c, a)):
        inside &= (np.cross(y - x, foot - x) * normal).sum(axis=1) >= 0.0
    return np.where(inside[:, None], foot, np.nan)


def _box() -> tuple[Floats, Ints]:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * BOX_HALF
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return corners, np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], dtype=np.int64)


def _hills(side: int = 25) -> tuple[Floats, Ints]:
    """A sheet over [-1, 1]² that faces +z."""
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    vertices = np.stack([x, y, 0.2 * np.sin(3 * x) * np.cos(2 * y)], axis=-1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(side - 1), np.arange(side - 1), indexing="ij")
    a = (i * side + j).ravel()
    return vertices, np.concatenate([np.c_[a, a + side, a + 1], np.c_[a + 1, a + side, a + side + 1]])


def _head(closed: bool) -> tuple[Floats, Ints]:
    """A synthetic head in units of 150 mm: all of its pieces, each hole closed by a fan about the middle of its rim if asked."""
    vertices = synthetic.head(synthetic.sample_identity(np.random.default_rng(1))) / 150.0
    faces = synthetic.template().faces.astype(np.int64)
    for loop in boundary_loops(faces) if closed else ():
        fan = np.stack([np.roll(loop, -1), loop, np.full(len(loop), len(vertices))], axis=1)
        faces = np.concatenate([faces, fan])
        vertices = np.concatenate([vertices, vertices[loop].mean(axis=0)[None]])
    return vertices, faces
