"""Grafts and seams: on an analytic face-like surface, and on real heads."""

from __future__ import annotations

from pathlib import Path

import igl
import numpy as np
import pytest
from numpy.typing import NDArray

from facegraft.geometry.graft import Grafter
from facegraft.geometry.seam import geodesic_depth, seam_operator, seam_widths, smoothstep
from facegraft.heads import synthetic
from facegraft.regions.closer import make_closer
from facegraft.regions.regionmap import load_region_map
from facegraft.stages.graft import GraftParameters, make_grafter
from facegraft.surfaces.normals import signed_volume
from facegraft.surfaces.topology import boundary_loops, faces_within, is_watertight

N = 41


def grid_faces() -> NDArray[np.int64]:
    i, j = np.meshgrid(np.arange(N - 1), np.arange(N - 1), indexing="ij")
    a = (i * N + j).ravel()
    return np.concatenate([np.c_[a, a + N, a + 1], np.c_[a + 1, a + N, a + N + 1]])


def bump_surface(rng: np.random.Generator) -> NDArray[np.float64]:
    """A curved 80 mm sheet with two bumps of random height: two "parts" on a face."""
    x, y = np.meshgrid(np.linspace(-40, 40, N), np.linspace(-40, 40, N), indexing="ij")
    z = (
        -0.004 * rng.uniform(0.6, 1.4) * x**2
        - 0.003 * rng.uniform(0.6, 1.4) * y**2
        + 1.5 * np.sin(x / 17 + rng.uniform(0, 6))
    )
    for centre in (-18.0, 18.0):
        z = z + rng.uniform(4, 14) * np.exp(-((x - centre) ** 2 + y**2) / rng.uniform(30, 60))
    scale = rng.uniform(0.9, 1.1)
    return scale * np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)


def disk_part(centre: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    flat = np.stack(np.meshgrid(np.linspace(-40, 40, N), np.linspace(-40, 40, N), indexing="ij"), axis=-1).reshape(
        -1, 2
    )
    inside = np.hypot(flat[:, 0] - centre, flat[:, 1]) <= 13
    faces = grid_faces()
    loop = boundary_loops(faces[faces_within(faces, inside)])[0]
    return loop, np.setdiff1d(np.flatnonzero(inside), loop)


@pytest.fixture(scope="module")
def parts() -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    return {"nose": disk_part(-18.0), "mouth": disk_part(18.0)}


@pytest.fixture(scope="module")
def surfaces() -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    return [bump_surface(rng) for _ in range(6)]


def grafter(surfaces: list[NDArray[np.float64]], parts: dict, **options: object) -> Grafter:
    return Grafter(np.mean(surfaces, axis=0), grid_faces(), np.ones(N * N, dtype=bool), parts, **options)


def test_self_graft_changes_nothing(surfaces: list, parts: dict) -> None:
    for options in ({}, {"stiffness": 0.0, "seam": "hard"}, {"stiffness": np.inf}, {"seam": "harmonic"}):
        g = grafter(surfaces, parts, **options)
        for head in surfaces:
            assert np.abs(g.graft(head, head).vertices - head).max() < 1e-9


def test_host_outside_and_on_the_loops_is_untouched_to_the_bit(surfaces: list, parts: dict) -> None:
    g = grafter(surfaces, parts)
    moved = np.concatenate([interior for _, interior in parts.values()])
    rest = np.setdiff1d(np.arange(N * N), moved)
    composite = g.graft(surfaces[0], surfaces[1]).vertices
    assert np.array_equal(composite[rest], surfaces[1][rest])
    assert np.abs(composite[moved] - surfaces[1][moved]).max() > 1.0


def test_a_similarity_of_the_donor_changes_nothing(surfaces: list, parts: dict) -> None:
    rng = np.random.default_rng(5)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    moved = 1.7 * surfaces[0] @ (q * np.sign(np.linalg.det(q))).T + [10.0, -20.0, 5.0]
    for stiffness in (0.0, 0.1, np.inf):
        g = grafter(surfaces, parts, stiffness=stiffness)
        assert np.abs(g.graft(moved, surfaces[1]).vertices - g.graft(surfaces[0], surfaces[1]).vertices).max() < 1e-9


def test_parts_commute_and_take_their_own_donors(surfaces: list, parts: dict) -> None:
    g = grafter(surfaces, parts)
    a, b, host = surfaces[:3]
    both = g.graft({"nose": a, "mouth": b}, host).vertices
    reversed_order = g.graft({"nose": a, "mouth": b}, host, parts=["mouth", "nose"]).vertices
    assert np.array_equal(both, reversed_order)
    nose_alone = g.graft(a, host, parts=["nose"]).vertices
    assert np.array_equal(both[parts["nose"][1]], nose_alone[parts["nose"][1]])
    assert np.array_equal(nose_alone[parts["mouth"][1]], host[parts["mouth"][1]])


def test_blend_smooths_the_seam_that_a_hard_switch_breaks(surfaces: list, parts: dict) -> None:
    def excess(seam: str) -> float:
        g = grafter(surfaces, parts, seam=seam)
        values = []
        for i in range(len(surfaces)):
            a, b = surfaces[i], surfaces[(i + 1) % len(surfaces)]
            values += [q.seam_excess_rms for q in g.quality(g.graft(a, b), a, b).values()]
        return float(np.median(values))

    blend, harmonic, hard = excess("blend"), excess("harmonic"), excess("hard")
    assert blend < 0.5 * harmonic < 0.5 * hard


def test_core_of_the_part_is_the_mapped_donor(surfaces: list, parts: dict) -> None:
    g = grafter(surfaces, parts, length=1.5, width=6.0)
    graft = g.graft(surfaces[0], surfaces[1], parts=["nose"])
    loop, interior = parts["nose"]
    depth = geodesic_depth(np.mean(surfaces, axis=0), grid_faces(), loop)[interior]
    core = interior[depth > 10]
    assert len(core) >= 8
    assert np.abs(graft.vertices[core] - graft.fits["nose"](surfaces[0][core])).max() < 0.02


def test_operator_against_a_dense_solve(surfaces: list, parts: dict) -> None:
    """The carried residual minimises the Dirichlet energy plus damping: compare with a dense least-squares solution."""
    template = np.mean(surfaces, axis=0)
    loop, interior = parts["nose"]
    operator = seam_operator(template, grid_faces(), loop, interior, width=8.0, length=4.0)
    faces = grid_faces()
    inside = np.isin(np.arange(N * N), np.concatenate([loop, interior]))
    part_faces = faces[faces_within(faces, inside)]
    laplacian, mass = np.zeros((N * N, N * N)), np.zeros(N * N)
    for face in part_faces:
        p = template[face]
        area = np.linalg.norm(np.cross(p[1] - p[0], p[2] - p[0])) / 2
        mass[face] += area / 3
        for k in range(3):
            i, j, o = face[k], face[(k + 1) % 3], p[(k + 2) % 3]
            u, v = p[k] - o, p[(k + 1) % 3] - o
            weight = 0.5 * (u @ v) / np.linalg.norm(np.cross(u, v))
            laplacian[i, i] += weight
            laplacian[j, j] += weight
            laplacian[i, j] -= weight
            laplacian[j, i] -= weight
    system = laplacian[np.ix_(interior, interior)] + np.diag(mass[interior]) / 16.0
    dense = -np.linalg.solve(system, laplacian[np.ix_(interior, loop)])
    assert np.allclose(operator.carry, operator.weight[:, None] * dense, atol=1e-9)
    assert operator.weight.min() >= 0 and operator.weight.max() <= 1


def test_seam_width_grows_on_coarse_meshes(surfaces: list, parts: dict) -> None:
    loop = parts["nose"][0]
    assert seam_widths(surfaces[0], loop, 8.0, 4.0) == (8.0, 4.0)
    width, length = seam_widths(3 * surfaces[0], loop, 8.0, 4.0)
    assert width > 12 and length == pytest.approx(width / 2)


def test_smoothstep_is_clamped_and_monotone() -> None:
    values = smoothstep(np.linspace(-1, 2, 301))
    assert values[0] == 0 and values[-1] == 1 and (np.diff(values) >= 0).all()


@pytest.fixture(scope="module")
def ict(data_dir: Path) -> tuple:
    model = np.load(data_dir / "ict" / "ict_facekit_light.npz")
    neutral = model["neutral"].astype(float) * 10
    rng = np.random.default_rng(11)
    weights = np.clip(rng.normal(size=(6, 100)), -2.5, 2.5)
    heads = [neutral + np.tensordot(w, model["id_delta"].astype(float) * 10, 1) for w in weights]
    return neutral, model["faces"].astype(np.int64), heads


@pytest.mark.parametrize("region_set", ["eyes", "goggles"])
def test_real_heads_meet_the_seam_thresholds(ict: tuple, region_set: str) -> None:
    neutral, faces, heads = ict
    region_map = load_region_map("ict")
    g = make_grafter(neutral, faces, region_map, GraftParameters(region_set=region_set))
    pairs = [(a, b) for a in heads for b in heads if a is not b]
    figures = [g.quality(g.graft(a, b), a, b) for a, b in pairs]
    for part in region_map.region_set(region_set).disks:
        excess = np.array([f[part].seam_excess_rms for f in figures])
        assert np.median(excess) < 3.0 and np.percentile(excess, 95) < 6.0, part
        assert all(f[part].sane for f in figures)
        assert np.mean([f[part].flips for f in figures]) <= (4 if part == "goggles" else 1)


def test_eyeballs_stay_spheres(ict: tuple) -> None:
    """Eyeballs follow the eye's similarity: their shape changes by one factor, never by an affine."""
    neutral, faces, heads = ict
    region_map = load_region_map("ict")
    g = make_grafter(neutral, faces, region_map, GraftParameters())
    followers = g.disks["eye_left"].followers
    assert len(followers) > 700
    composite = g.graft(heads[0], heads[1])
    before, after = heads[0][followers], composite.vertices[followers]
    ratio = np.linalg.norm(after - after.mean(0), axis=1) / np.linalg.norm(before - before.mean(0), axis=1)
    assert np.ptp(ratio) < 1e-6 * ratio.mean() + 1e-9


def assert_closed_after_grafting(
    neutral: NDArray[np.float64],
    faces: NDArray[np.int64],
    host: NDArray[np.float64],
    donor: NDArray[np.float64],
    name: str,
) -> None:
    region_map = load_region_map(name)
    g = make_grafter(neutral, faces, region_map, GraftParameters())
    closer = make_closer(neutral, faces, region_map, region_map.vertex_labels("eyes"))
    composite = g.graft(donor, host).vertices
    assert composite.shape == host.shape and np.abs(composite - host).max() > 1.0
    before, after = closer.close(host), closer.close(composite)
    for closed in (before, after):
        assert np.isfinite(closed.vertices).all()
        assert is_watertight(closed.faces)
    assert np.array_equal(np.unique(after.faces), np.arange(len(after.vertices)))
    volume = signed_volume(before.vertices, before.faces)
    assert volume > 0 and signed_volume(after.vertices, after.faces) == pytest.approx(volume, rel=0.1)


def test_grafts_stay_closed() -> None:
    """The composite of two heads closes to a watertight mesh that encloses about as much as the host: no hole, no face turned."""
    rng = np.random.default_rng(3)
    host, donor = (synthetic.head(synthetic.sample_identity(rng)) for _ in range(2))
    template = synthetic.template()
    assert_closed_after_grafting(template.vertices, template.faces.astype(np.int64), host, donor, "synthetic")


def test_grafts_of_ict_heads_stay_closed(ict: tuple) -> None:
    neutral, faces, heads = ict
    assert_closed_after_grafting(neutral, faces, heads[0], heads[1], "ict")


def test_pockets_stay_inside(ict: tuple) -> None:
    """A donor's mouth sac must not come through the host's cheeks: sockets lie inside the closed composite."""
    neutral, faces, heads = ict
    region_map = load_region_map("ict")
    g = make_grafter(neutral, faces, region_map, GraftParameters())
    closer = make_closer(neutral, faces, region_map, region_map.vertex_labels("eyes"))
    sac = region_map.groups["mouth_socket"].vertices

    def outside(head: NDArray[np.float64]) -> int:
        closed = closer.close(head)
        return int((igl.fast_winding_number(closed.vertices, closed.faces, head[sac]) < 0.5).sum())

    for a, b in [(i, j) for i in range(6) for j in range(6) if i != j]:
        composite = g.graft(heads[a], heads[b]).vertices
        assert outside(composite) <= outside(heads[b]) + 10, (a, b)
