"""Visibility from the front, and the published height-field surface."""

from __future__ import annotations

import numpy as np
import pytest

from facegraft.geometry.clipping import ClippingError, crop_to_ball, icosphere
from facegraft.geometry.visibility import visible_from_front, visible_sheet
from facegraft.surfaces.distance import signed_distance
from facegraft.surfaces.normals import face_normals
from facegraft.surfaces.topology import boundary_loops, euler_characteristic


def test_a_square_hides_what_lies_behind_it() -> None:
    front = np.array([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    behind = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [3.0, 0.0, 0]])  # the last looks out to the right
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(
        visible_from_front(np.concatenate([front, behind]), faces), [True] * 4 + [False, False, True]
    )


def test_the_front_half_of_a_sphere_is_visible() -> None:
    vertices, faces = icosphere(4)
    vertices = 100.0 * vertices + [500.0, -20.0, 3.0]
    seen = visible_from_front(vertices, faces)
    z = vertices[:, 2] - 3.0
    assert seen[z > 10.0].all() and not seen[z < -10.0].any()


def test_a_head_agrees_with_exact_rays(closed_globe) -> None:
    """Against a plain test of every vertex with every triangle in x, y."""
    rng = np.random.default_rng(0)
    f = closed_globe.faces
    v = closed_globe.vertices + 0.1 * rng.standard_normal(
        closed_globe.vertices.shape
    )  # no vertex exactly behind another
    seen = visible_from_front(v, f)
    corners = v[f]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    disagree = 0
    for i in rng.choice(len(v), 300, replace=False):
        p = v[i]
        signs = np.stack(
            [
                (corners[:, (k + 1) % 3, 0] - corners[:, k, 0]) * (p[1] - corners[:, k, 1])
                - (corners[:, (k + 1) % 3, 1] - corners[:, k, 1]) * (p[0] - corners[:, k, 0])
                for k in range(3)
            ]
        )
        over = ((signs > 1e-9).all(axis=0) | (signs < -1e-9).all(axis=0)) & (f != i).all(axis=1)
        n, c = normal[over], corners[over, 0]
        height = c[:, 2] - ((p[0] - c[:, 0]) * n[:, 0] + (p[1] - c[:, 1]) * n[:, 1]) / n[:, 2]
        disagree += bool((height > p[2] + 1e-3).any()) == bool(seen[i])
    assert disagree <= 2  # rays that graze an edge


def test_the_sheet_is_a_height_field_without_duplicates(closed_globe) -> None:
    head = closed_globe
    vertices = head.vertices - [0.0, 0.0, 75.0]
    sheet = visible_sheet(vertices, head.faces, head.vertex_labels, 100.0)
    assert (face_normals(sheet.vertices, sheet.faces)[:, 2] >= 0).all()
    assert len(boundary_loops(sheet.faces)) == 1 and euler_characteristic(sheet.faces) == 1
    assert len(np.unique(sheet.vertices, axis=0)) == len(sheet.vertices)
    kept = sheet.source >= 0
    np.testing.assert_array_equal(sheet.vertices[kept], vertices[sheet.source[kept]])
    np.testing.assert_array_equal(sheet.vertex_labels[kept], head.vertex_labels[sheet.source[kept]])
    cropped = crop_to_ball(vertices, head.faces, head.vertex_labels, 100.0)
    seen = visible_from_front(cropped.vertices, cropped.faces)
    assert len(sheet.vertices) == seen.sum()
    assert np.linalg.norm(sheet.vertices, axis=1).max() <= 100.0 + 1e-9


def test_sign_of_a_sheet_is_its_order_in_z(closed_globe) -> None:
    head = closed_globe
    sheet = visible_sheet(head.vertices - [0.0, 0.0, 75.0], head.faces, head.vertex_labels, 100.0)
    middle = sheet.vertices[np.linalg.norm(sheet.vertices[:, :2], axis=1) < 40]
    for step in (0.01, 2.0):
        ahead = signed_distance(
            sheet.vertices, sheet.faces, middle + np.array([0.0, 0.0, step]), backend="height_field"
        )
        behind = signed_distance(
            sheet.vertices, sheet.faces, middle - np.array([0.0, 0.0, step]), backend="height_field"
        )
        assert (ahead.sdf > 0).mean() > 0.99 and (behind.sdf < 0).mean() > 0.99
        assert (ahead.gradient[:, 2] >= 0).all() and (behind.gradient[:, 2] >= 0).all()
        np.testing.assert_allclose(np.linalg.norm(behind.gradient, axis=1), 1.0)


def test_a_surface_on_edge_spans_nothing() -> None:
    vertices = np.array([[0.0, 0, 0], [0, 0.5, 0], [0, 0.2, 0.5]])
    with pytest.raises(ClippingError, match="span no surface"):
        visible_sheet(vertices, np.array([[0, 1, 2]]), np.zeros(3, dtype=np.uint8), 1.0)
