"""The shipped region maps meet every threshold, agree with the reference and come out of the builder again."""

import json

import numpy as np
import pytest

from facegraft.regions.build import build_region_map
from facegraft.regions.check import check_region_map, part_faces
from facegraft.resources import resource_folder
from facegraft.surfaces.topology import boundary_loops, euler_characteristic, faces_within

ALL = ["synthetic", "ict", "facescape_v16", "flame"]


@pytest.mark.parametrize("name", ALL)
def test_thresholds(load_template, name: str) -> None:
    template = load_template(name)
    findings, figures = check_region_map(template.region_map, template.vertices, template.faces)
    assert findings == []
    limit = 1.3 if name == "flame" else 1.2
    assert {set_name: set(parts) for set_name, parts in figures.items()} == {
        "eyes": {"nose", "mouth", "eye_left", "eye_right"},
        "goggles": {"nose", "mouth", "goggles"},
    }
    for parts in figures.values():
        for part in parts.values():
            assert part["roughness"] <= limit
            assert part["on_skin"] == 1.0
            assert part["euler"] == part["pieces"] == 1
            assert part["gap"] >= 2
            assert part["mirror_difference"] <= 2


@pytest.mark.parametrize("name", ALL)
def test_parts_share_nothing_and_lie_to_the_left_of_their_loops(load_template, name: str) -> None:
    template = load_template(name)
    region_map = template.region_map
    skin = np.zeros(region_map.vertex_count, dtype=bool)
    skin[region_map.vertices_of("surface", "socket")] = True
    faces = np.asarray(template.faces)[faces_within(template.faces, skin)]
    for parts in region_map.regions.values():
        taken: set[int] = set()
        for part in parts.values():
            members = set(part.loop.tolist()) | set(part.interior.tolist())
            assert not members & taken
            taken |= members
            inside = part_faces(faces, part)
            steps = set(zip(part.loop.tolist(), np.roll(part.loop, -1).tolist(), strict=True))
            directed = {
                tuple(e) for loop in (inside, inside[:, [1, 2, 0]], inside[:, [2, 0, 1]]) for e in loop[:, :2].tolist()
            }
            assert steps <= directed
            assert euler_characteristic(inside) == 2 - len(boundary_loops(inside))


@pytest.mark.parametrize("name", ["ict", "facescape_v16", "flame"])
def test_agreement_with_the_reference(load_template, reference, name: str) -> None:
    region_map, wanted = load_template(name).region_map, reference(name)
    for parts in region_map.regions.values():
        for part_name, part in parts.items():
            ours = set(part.loop.tolist()) | set(part.interior.tolist())
            theirs = wanted[part_name]
            assert len(ours & theirs) / len(ours | theirs) >= 0.8, f"{name} {part_name}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_rebuilding_gives_the_shipped_map(load_template, name: str) -> None:
    template = load_template(name)
    shipped = template.region_map
    built = build_region_map(
        template.vertices,
        template.faces,
        shipped.landmarks68,
        name,
        groups=dict(shipped.groups),
        polygons_sha256=shipped.polygons_sha256,
        provenance=shipped.provenance,
    )
    assert built.mm_per_unit == shipped.mm_per_unit
    assert built.to_json() == shipped.to_json()


@pytest.mark.parametrize("name", ALL)
def test_openings_and_neck_cut(load_template, name: str) -> None:
    template = load_template(name)
    region_map, faces = template.region_map, np.asarray(template.faces)
    surface = np.zeros(region_map.vertex_count, dtype=bool)
    surface[region_map.vertices_of("surface")] = True
    loops = boundary_loops(faces[faces_within(faces, surface)])
    assert sorted(map(len, loops)) == sorted(map(len, region_map.openings.values()))
    expected = {"mouth", "neck"} if name == "flame" else {"eye_left", "eye_right", "mouth", "neck"}
    assert set(region_map.openings) == expected
    height, depth = np.asarray(template.vertices)[:, 1:].T
    chin = height[region_map.landmarks68[8]]
    assert height[region_map.neck_crop_loop].max() < height[region_map.landmarks68[30]]
    throat = region_map.neck_crop_loop[depth[region_map.neck_crop_loop].argmax()]
    assert height[throat] < chin
    kept = surface.copy()
    kept[region_map.neck_crop_drop] = False
    bounds = [set(loop.tolist()) for loop in boundary_loops(faces[faces_within(faces, kept)])]
    assert set(region_map.neck_crop_loop.tolist()) in bounds
    assert len(bounds) == len(region_map.openings)
    if name in ("ict", "flame", "synthetic"):
        assert len(region_map.neck_crop_drop) > 50
        assert (height[region_map.neck_crop_drop] < chin + 40 / region_map.mm_per_unit).all()


def test_ict_keeps_the_published_triangulation_and_groups(load_template, data_dir) -> None:
    template = load_template("ict")
    model = np.load(data_dir / "ict" / "ict_facekit_light.npz")
    region_map = template.region_map
    for name, (start, stop) in zip(model["geo_names"], model["geo_vrange"], strict=True):
        assert any(group.ranges == ((start, stop),) for group in region_map.groups.values()), name
    assert np.array_equal(region_map.vertices_of("surface"), np.arange(11248))
    assert np.array_equal(region_map.vertices_of("surface", "socket"), np.arange(14062))
    left = [g for n, g in region_map.groups.items() if n.endswith("_left")]
    assert all((template.vertices[g.vertices, 0] > 0).all() and g.follows == "eye_left" for g in left)
    sac = region_map.groups["mouth_socket"].vertices
    assert np.isin(sac, region_map.regions["eyes"]["mouth"].interior).all()


def test_maps_hold_no_geometry_and_say_where_they_come_from() -> None:
    for path in sorted(resource_folder("region_maps").glob("*.json")):
        content = json.loads(path.read_text())
        assert set(content) == {
            "format", "version", "name", "vertex_count", "face_count", "faces_sha256", "polygons_sha256", "mm_per_unit",
            "landmarks68", "symmetry", "groups", "regions", "openings", "neck_crop", "provenance",
        }  # fmt: skip
        assert "landmark" in content["provenance"].lower(), path.name


@pytest.mark.parametrize("name", ["facescape_v16", "flame"])
def test_landmarks_are_our_own_and_near_the_published_ones(load_template, name: str) -> None:
    """Ours come from a registration: never the published indices, but at the same places of the face."""
    template = load_template(name)
    ours, theirs = template.region_map.landmarks68, template.published_landmarks
    assert not np.array_equal(ours, theirs)
    gap = np.linalg.norm(template.vertices[ours] - template.vertices[theirs], axis=1) * template.region_map.mm_per_unit
    assert np.median(gap[36:48]) < 3.0
    assert np.median(gap[27:36]) < 4.5
    assert np.median(gap[48:]) < 5.0
    assert np.median(gap[17:27]) < 6.0
