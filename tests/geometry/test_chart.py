"""The face chart: coordinates, and which vertices are outer skin."""

import numpy as np
import trimesh

from facegraft.geometry.chart import CylinderChart, outer_skin


def test_flattening_is_true_on_the_cylinder() -> None:
    chart = CylinderChart(axis_z=-5.0, radius=60.0)
    angle = np.array([-1.0, 0.0, 0.7])
    points = np.column_stack([60 * np.sin(angle), [3.0, 4.0, 5.0], 60 * np.cos(angle) - 5])
    np.testing.assert_allclose(chart.flatten(points), np.column_stack([60 * angle, [3, 4, 5]]), atol=1e-12)
    np.testing.assert_allclose(chart.distance(points), 60.0)


def test_skin_behind_other_skin_is_not_outer() -> None:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=50.0)
    plate = trimesh.creation.box(extents=(20, 20, 2)).apply_translation([0, 0, 60])
    vertices = np.concatenate([ball.vertices, plate.vertices])
    faces = np.concatenate([ball.faces, plate.faces + len(ball.vertices)])
    chart = CylinderChart(0.0, 50.0)
    seen = outer_skin(vertices, faces, chart, np.arange(len(ball.vertices)))
    v = ball.vertices
    angle, height = np.degrees(np.arctan2(v[:, 0], v[:, 2])), v[:, 1]
    hidden = (np.abs(angle) < 8) & (np.abs(height) < 9)
    free = (np.abs(angle) > 15) & (np.abs(height) < 40) & (np.abs(angle) < 150)
    assert hidden.sum() > 3
    assert not seen[hidden].any()
    assert seen[free].all()
    alone = outer_skin(ball.vertices, ball.faces, chart, np.arange(len(v)))
    assert alone[hidden].all()


def test_faces_toward_the_axis_are_not_outer() -> None:
    ball = trimesh.creation.icosphere(subdivisions=2, radius=50.0)
    seen = outer_skin(ball.vertices, ball.faces[:, ::-1], CylinderChart(0.0, 50.0), np.arange(len(ball.vertices)))
    assert not seen[np.abs(ball.vertices[:, 1]) < 40].any()
