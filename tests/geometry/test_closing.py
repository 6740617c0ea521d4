"""Closing heads: what a closed head promises, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import igl
import numpy as np
import pytest

from facegraft.geometry.closing import ClosedHead, ClosingError, HeadCloser
from facegraft.heads import synthetic
from facegraft.regions.regionmap import RegionMap
from facegraft.resources import resource_path
from facegraft.surfaces.normals import signed_volume, vertex_normals
from facegraft.surfaces.topology import boundary_loops, euler_characteristic, face_components, is_watertight


def assert_closed(head: ClosedHead) -> None:
    assert is_watertight(head.faces)
    assert euler_characteristic(head.faces) == 2
    assert face_components(head.faces).max() == 0
    assert len(np.unique(head.faces)) == len(head.vertices) == len(head.vertex_labels) == len(head.source)
    assert signed_volume(head.vertices, head.faces) > 0
    assert head.vertices.dtype == np.float64 and head.faces.dtype == np.int64 and head.vertex_labels.dtype == np.uint8


def test_globe_is_closed_and_its_skin_untouched(globe) -> None:
    rng = np.random.default_rng(0)
    closer = globe.closer()
    for _ in range(2):
        shape = globe.vertices * (1 + 0.1 * rng.standard_normal(3)) + rng.standard_normal(globe.vertices.shape) * 0.3
        head = closer.close(shape)
        assert_closed(head)
        skin = head.source >= 0
        np.testing.assert_array_equal(head.vertices[skin], shape[head.source[skin]])
        np.testing.assert_array_equal(head.vertex_labels[skin], globe.labels[head.source[skin]])
    assert set(head.source[skin].tolist()) == set(np.unique(globe.faces).tolist())  # every skin vertex, and no eyeball


def test_caps_carry_the_labels_of_what_they_close(closed_globe) -> None:
    head = closed_globe
    new = np.flatnonzero(head.source < 0)
    where = head.vertices[new]
    eyes = where[:, 1] > 0
    assert (head.vertex_labels[new[eyes]] == 2).all() and eyes.sum() > 10
    assert (head.vertex_labels[new[~eyes]] == 0).all() and (~eyes).sum() > 10  # neck


def test_eye_caps_bulge_out_and_the_neck_is_flat(globe, closed_globe) -> None:
    head = closed_globe
    left = (head.source < 0) & (head.vertices[:, 1] > 0) & (head.vertices[:, 0] > 0)
    rim = globe.vertices[globe.openings["eye_left"]]
    assert head.vertices[left, 2].max() > rim[:, 2].mean() + 1.0
    neck = (head.source < 0) & (head.vertices[:, 1] < -50)
    rim_y = globe.vertices[globe.openings["neck"], 1]
    assert rim_y.min() - 1e-9 <= head.vertices[neck, 1].min() and head.vertices[neck, 1].max() <= rim_y.max() + 1e-9
    normals = vertex_normals(head.vertices, head.faces)
    assert normals[left, 2].min() > 0.3 and normals[neck, 1].max() < -0.5


def test_neck_is_cut_at_its_loop(globe) -> None:
    low = globe.vertices[:, 1] < -57
    kept = globe.faces[~low[globe.faces].any(axis=1)]
    loop = next(loop for loop in boundary_loops(kept) if globe.vertices[loop, 1].mean() < -40)
    cut = replace(globe, neck_loop=loop, neck_drop=np.flatnonzero(low))
    head = cut.closer().close(globe.vertices)
    assert_closed(head)
    rim = globe.vertices[loop]
    edge = np.linalg.norm(np.roll(rim, -1, axis=0) - rim, axis=1).mean()
    assert head.vertices[:, 1].min() >= rim[:, 1].min() - edge  # just below the loop, along a plane
    bottom = head.vertices[np.unique(head.faces[cut.closer().neck_faces])]
    spread = np.linalg.svd(bottom - bottom.mean(axis=0), compute_uv=False)[2] / np.sqrt(len(bottom))
    assert spread < 1e-6 or np.ptp(rim[:, 1]) < 0.25 * edge
    assert set(loop.tolist()) <= set(head.source.tolist())
    with pytest.raises(ClosingError, match="neck loop is not a boundary"):
        replace(cut, neck_loop=np.roll(loop, 1)[:-1]).closer()


def test_closing_is_repeatable(globe, closed_globe) -> None:
    one, two = globe.closer().close(globe.vertices), closed_globe
    assert one.vertices.tobytes() == two.vertices.tobytes() and one.faces.tobytes() == two.faces.tobytes()


def test_faces_shared_by_all_heads_cannot_be_written(closed_globe) -> None:
    with pytest.raises(ValueError, match="read-only"):
        closed_globe.faces[0, 0] = 1


def test_heads_that_cannot_be_closed(globe) -> None:
    closer = globe.closer()
    broken = globe.vertices.copy()
    broken[globe.faces[7, 1], 2] = np.nan
    with pytest.raises(ClosingError, match=rf"not finite, the first is vertex {globe.faces[7, 1]}"):
        closer.close(broken)
    with pytest.raises(ClosingError, match="inside out"):
        closer.close(globe.vertices * [-1.0, 1.0, 1.0])
    with pytest.raises(ClosingError, match=r"shape \(10, 3\)"):
        closer.close(globe.vertices[:10])
    collapsed = globe.vertices.copy()
    collapsed[globe.openings["mouth"]] = collapsed[globe.openings["mouth"][0]]
    with pytest.raises(ClosingError, match="mouth has collapsed"):
        closer.close(collapsed)
    ball = globe.vertices.copy()
    ball[globe.eyeballs["eye_left"]] = np.inf
    with pytest.raises(ClosingError, match="eyeball behind eye_left"):
        closer.close(ball)


def test_topologies_that_cannot_be_closed(globe) -> None:
    without = {name: loop for name, loop in globe.openings.items() if name != "mouth"}
    with pytest.raises(ClosingError, match="none of the openings"):
        replace(globe, openings=without).closer()
    extra = {**globe.openings, "nostril": globe.faces[100]}
    with pytest.raises(ClosingError, match="nostril are no boundary loops"):
        replace(globe, openings=extra).closer()
    with pytest.raises(ClosingError, match="labels have shape"):
        replace(globe, labels=globe.labels[:-1]).closer()
    with pytest.raises(ClosingError, match="inside out"):
        HeadCloser(
            globe.vertices,
            globe.faces[:, ::-1],
            {name: loop[::-1] for name, loop in globe.openings.items()},
            globe.labels,
        )
    floating = np.concatenate([globe.faces, globe.eyeballs["eye_left"][np.array([[0, 1, 2], [0, 2, 1]])]])
    with pytest.raises(ClosingError, match="pieces"):
        replace(globe, faces=floating).closer()


EXPRESSIONS = [
    {},
    {"jawOpen": 1.0},
    {"eyeBlink_L": 1.0, "eyeBlink_R": 1.0},
    {"mouthPucker": 1.0, "eyeWide_L": 1.0},
    {"mouthSmile_L": 1.0, "mouthSmile_R": 1.0},
]


def test_ict_heads_close_whatever_the_expression(ict) -> None:
    closer = ict.closer
    rng = np.random.default_rng(5)
    for i in range(10):
        head = closer.close(ict.head(rng, **EXPRESSIONS[i % len(EXPRESSIONS)]))
        if i == 0:  # the faces are the same for all
            assert_closed(head)
        points = head.vertices.min(axis=0) + np.ptp(head.vertices, axis=0) * rng.random((300, 3))
        exact = igl.winding_number(head.vertices, head.faces, points)
        np.testing.assert_allclose(exact, np.round(exact), atol=1e-6)  # no point is neither inside nor outside
        fast = igl.fast_winding_number(head.vertices, head.faces, points)
        assert np.abs(fast - exact).max() < 0.01
        assert np.array_equal(fast > 0.5, exact > 0.5)


def test_ict_eye_caps_follow_the_eyeball(ict) -> None:
    """Distance of the cap to the eyeball's own sphere: the lids ride about a millimetre inside it."""
    closer = ict.closer
    rng = np.random.default_rng(6)
    for _ in range(5):
        shape = ict.head(rng)
        head = closer.close(shape)
        for side, name in ((1, "eye_left"), (-1, "eye_right")):
            ball = shape[ict.template.eyeballs[name]]
            centre = 0.5 * (ball.max(axis=0) + ball.min(axis=0))
            cap = (head.source < 0) & (head.vertex_labels == 2) & (side * head.vertices[:, 0] > 0)
            radius = np.linalg.norm(head.vertices[cap] - centre, axis=1)
            assert cap.sum() > 50
            assert np.ptp(radius) < 5.0 and abs(radius.mean() - 15.5) < 2.5


def test_ict_with_its_shipped_region_map(ict) -> None:
    """The shipped openings, neck crop, groups and labels make a closed head; the neck is cut below the chin."""
    region_map = RegionMap.from_json(resource_path("region_maps/ict.json"))
    skin = np.zeros(region_map.vertex_count, dtype=bool)
    skin[region_map.vertices_of("surface")] = True
    closer = HeadCloser(
        ict.template.vertices,
        ict.template.faces[skin[ict.template.faces].all(axis=1)],
        region_map.openings,
        region_map.vertex_labels("eyes"),
        neck_loop=region_map.neck_crop_loop,
        neck_drop=region_map.neck_crop_drop,
        eyeballs={
            name: region_map.groups[name.replace("eye", "eyeball")].vertices for name in ("eye_left", "eye_right")
        },
    )
    head = closer.close(ict.head(np.random.default_rng(9)))
    assert_closed(head)
    assert np.ptp(head.vertices[:, 1]) < 300.0
    for label in (1, 2, 3):
        assert (head.vertex_labels == label).sum() > 200


def test_synthetic_heads_close_whatever_the_expression() -> None:
    """The built-in family with its shipped region map: needs no data."""
    shape, region_map = synthetic.template(), RegionMap.from_json(resource_path("region_maps/synthetic.json"))
    skin = np.zeros(region_map.vertex_count, dtype=bool)
    skin[region_map.vertices_of("surface")] = True
    closer = HeadCloser(
        shape.vertices,
        shape.faces[skin[shape.faces].all(axis=1)],
        region_map.openings,
        region_map.vertex_labels("eyes"),
        neck_loop=region_map.neck_crop_loop,
        neck_drop=region_map.neck_crop_drop,
        eyeballs={
            name: region_map.groups[name.replace("eye", "eyeball")].vertices for name in ("eye_left", "eye_right")
        },
    )
    rng = np.random.default_rng(10)
    for expression in synthetic.EXPRESSIONS:
        head = closer.close(synthetic.head(synthetic.sample_identity(rng), expression))
        points = head.vertices.min(axis=0) + np.ptp(head.vertices, axis=0) * rng.random((100, 3))
        exact = igl.winding_number(head.vertices, head.faces, points)
        np.testing.assert_allclose(exact, np.round(exact), atol=1e-6)
    assert_closed(head)
