"""The shipped region maps meet every threshold, agree with the reference and come out of the builder again."""

import json

import numpy as np
import pytest

from facegraft.regions.build import build_region_map, face_chart
from facegraft.regions.check import check_region_map, disk_faces
from facegraft.regions.ears import ear_folds
from facegraft.regions.landmarks import MIRROR68, FaceFrame
from facegraft.regions.regionsets import shipped_sets
from facegraft.regions.tracing import FaceSurface
from facegraft.resources import resource_folder
from facegraft.surfaces.mirror import MIRROR, symmetrised
from facegraft.surfaces.topology import boundary_loops, euler_characteristic, faces_within

ALL = ["synthetic", "ict", "facescape_v16", "flame"]
PARTS = {spec.name: {part.name: {disk.name for disk in part.disks} for part in spec.parts} for spec in shipped_sets()}
"""set → part → disks, parts in cascade order, as the files of region_maps/sets have them."""
SHORT = 30
"""Loops of fewer vertices are measured with less smoothing, and to a lower limit."""


def test_names_that_recipes_and_datasets_rely_on() -> None:
    assert {name: tuple(PARTS[name]) for name in ("eyes", "goggles")} == dict.fromkeys(("eyes", "goggles"), ("nose", "eyes", "mouth"))
    assert PARTS["eyes"]["eyes"] == {"eye_left", "eye_right"} and PARTS["goggles"]["eyes"] == {"goggles"}
    assert {"nose", "eye_left", "eye_right", "mouth", "brows", "ears", "chin", "cheeks"} <= set(PARTS["full"])


@pytest.mark.parametrize("name", ALL)
def test_thresholds(load_template, name: str) -> None:
    template = load_template(name)
    findings, figures = check_region_map(template.region_map, template.vertices, template.faces)
    assert findings == []
    limit = 1.3 if name == "flame" else 1.2
    regions = template.region_map.regions
    assert {s: {part: set(region.disks) for part, region in found.regions.items()} for s, found in regions.items()} == PARTS
    assert {s: found.parts.names for s, found in regions.items()} == {s: tuple(parts) for s, parts in PARTS.items()}
    for set_name, disks in figures.items():
        assert set(disks) == set.union(*PARTS[set_name].values())
        for disk in disks.values():
            assert disk["roughness"] <= (1.2 if disk["loop"] < SHORT else limit)
            assert disk["on_skin"] == 1.0
            assert disk["euler"] == disk["pieces"] == 1
            assert disk["gap"] >= 2
            assert disk["mirror_difference"] <= 2


@pytest.mark.parametrize("name", ALL)
def test_parts_share_nothing_and_lie_to_the_left_of_their_loops(load_template, name: str) -> None:
    template = load_template(name)
    region_map = template.region_map
    skin = np.zeros(region_map.vertex_count, dtype=bool)
    skin[region_map.vertices_of("surface", "socket")] = True
    faces = np.asarray(template.faces)[faces_within(template.faces, skin)]
    for found in region_map.regions.values():
        taken: set[int] = set()
        for disk in found.disks.values():
            members = set(disk.loop.tolist()) | set(disk.interior.tolist())
            assert not members & taken
            taken |= members
            inside = disk_faces(faces, disk)
            steps = set(zip(disk.loop.tolist(), np.roll(disk.loop, -1).tolist(), strict=True))
            directed = {
                tuple(e) for loop in (inside, inside[:, [1, 2, 0]], inside[:, [2, 0, 1]]) for e in loop[:, :2].tolist()
            }
            assert steps <= directed
            assert euler_characteristic(inside) == 2 - len(boundary_loops(inside))


@pytest.mark.parametrize("name", ["ict", "facescape_v16", "flame"])
def test_agreement_with_the_reference(load_template, reference, name: str) -> None:
    region_map, wanted = load_template(name).region_map, reference(name)
    for set_name, found in region_map.regions.items():
        for disk_name in set(found.disks) & set(wanted):
            disk, theirs = found.disks[disk_name], wanted[disk_name]
            ours = set(disk.loop.tolist()) | set(disk.interior.tolist())
            assert len(ours & theirs) / len(ours | theirs) >= 0.8, f"{name} {set_name} {disk_name}"


@pytest.mark.parametrize("name", ALL)
def test_parts_of_full_hold_what_they_are_called_after(load_template, name: str) -> None:
    """The ears all of the auricle's folds and no landmark, the brows their landmarks; the cheeks and the chin lie between."""
    region_map = load_template(name).region_map
    found, marks = region_map.region_set("full"), region_map.landmarks68
    face, flat = symmetric_face(load_template(name))
    y, x = face.flat[:, 1], np.abs(face.flat[:, 0])
    folds = ear_folds(face, region_map.mask_of("surface"), flat)
    assert len(folds) > 100
    assert np.isin(folds, found.disks["ear_left"].interior).all()
    assert region_map.symmetry is not None
    assert np.isin(region_map.symmetry[folds], found.disks["ear_right"].interior).all()
    ear, cheek, chin = (found.disks[disk] for disk in ("ear_left", "cheek_left", "chin"))
    assert not np.isin(marks, ear.interior).any()
    assert x[ear.loop].max() - x[folds].max() < 25.0 and y[ear.loop].max() - y[folds].max() < 25.0  # and not the hair around it
    assert np.isin(marks[[18, 19, 20, 23, 24, 25]], np.concatenate([d.interior for d in found.regions["brows"].disks.values()])).all()
    assert marks[8] in chin.interior and y[chin.loop].max() < y[marks[57]]
    assert y[cheek.loop].max() < y[marks[[46, 47]]].min()
    assert x[cheek.loop].min() > x[marks[35]] and x[cheek.loop].max() < x[ear.loop].min()


def symmetric_face(template) -> tuple[FaceSurface, np.ndarray]:
    """The template as the builder sees it, and its landmarks in the chart."""
    region_map = template.region_map
    marks, unit = region_map.landmarks68, region_map.mm_per_unit
    vertices = np.asarray(template.vertices) * unit
    shape = symmetrised(FaceFrame.of(vertices[marks]).apply(vertices), region_map.symmetry)
    points = 0.5 * (shape[marks] + shape[marks][MIRROR68] * MIRROR)
    faces = np.asarray(template.faces)[faces_within(template.faces, region_map.mask_of("surface", "socket"))]
    chart = face_chart(points)
    return FaceSurface.build(shape, faces, chart, region_map.symmetry), chart.flatten(points)


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
    assert all((template.vertices[g.vertices, 0] > 0).all() and g.behind == "eye_left" for g in left)
    sac = region_map.groups["mouth_socket"].vertices
    for found in region_map.regions.values():
        assert np.isin(sac, found.disks["mouth"].interior).all()
        followers = {name: set(disk.followers) for name, disk in found.disks.items() if disk.followers}
        assert set.union(*followers.values()) == {n for n, g in region_map.groups.items() if g.role == "inner"}
        assert followers["mouth"] == {"gums_tongue", "teeth"}


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
