"""Mirror maps: an involution found whatever the vertex order, and none where there is no symmetry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facegraft.geometry.symmetry import mirror_map, preserved_edges
from facegraft.surfaces.mirror import MIRROR, symmetrised


def mirrored_sheet(columns: int = 7, rows: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A curved sheet symmetric about x = 0, its quads split alike on both sides: vertices, faces, mirror map."""
    x, y = np.meshgrid(np.arange(-columns, columns + 1), np.arange(rows), indexing="ij")
    wide = 1.0 + 0.05 * y
    vertices = np.stack([x * wide, y * 1.1 + 0.02 * x**2, 8 - 0.03 * x**2 - 0.02 * (y - 5) ** 2], axis=-1).reshape(
        -1, 3
    )
    index = np.arange(len(vertices)).reshape(x.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    left = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    mirror = index[::-1].reshape(-1)
    positive = vertices[left].mean(axis=1)[:, 0] > 0
    faces = np.concatenate([left[positive], mirror[left[positive]][:, ::-1]])
    return vertices, faces, mirror


def test_exact_mirror_is_found_by_position() -> None:
    vertices, faces, mirror = mirrored_sheet()
    assert np.array_equal(mirror_map(vertices, faces), mirror)
    assert preserved_edges(mirror, faces) == 1.0


@settings(max_examples=2, deadline=None, derandomize=True)
@given(st.integers(0, 2**31), st.floats(0.0, 1.2))
def test_asymmetric_shape_is_mapped_by_its_connectivity(seed: int, size: float) -> None:
    """A smooth asymmetry larger than an edge makes nearest neighbours wrong; the faces still tell. Order plays no part."""
    rng = np.random.default_rng(seed)
    vertices, faces, mirror = mirrored_sheet()
    bent = vertices + size * np.stack(
        [np.sin(vertices[:, 1] / 5), 0.8 * np.sin(vertices[:, 0] / 6), np.cos(vertices[:, 0] / 9)], axis=1
    )
    order = rng.permutation(len(bent))
    place = np.argsort(order)
    shuffled = place[faces][rng.permutation(len(faces))]
    found = mirror_map(bent[order], shuffled)
    assert found is not None
    assert np.array_equal(found, place[mirror[order]])


def test_two_pieces_are_swapped() -> None:
    vertices, faces, _ = mirrored_sheet(3, 6)
    apart = vertices + np.array([20.0, 0, 0])
    both = np.concatenate([apart, apart * MIRROR])
    found = mirror_map(both, np.concatenate([faces, faces[:, ::-1] + len(vertices)]))
    assert found is not None
    assert np.array_equal(found[: len(vertices)], np.arange(len(vertices)) + len(vertices))


def test_no_map_without_symmetry() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(-1, 1, (150, 2))
    from scipy.spatial import Delaunay

    faces = Delaunay(points).simplices
    assert mirror_map(np.column_stack([points, np.zeros(150)]) * [1, 1, 0], faces) is None


def test_symmetrised_shape_is_its_own_mirror_image() -> None:
    vertices, _, mirror = mirrored_sheet()
    shape = symmetrised(vertices + np.random.default_rng(0).normal(0, 0.3, vertices.shape), mirror)
    np.testing.assert_allclose(shape[mirror], shape * MIRROR, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_map_is_always_an_involution(count: int) -> None:
    """One quad split along the other diagonal on one side must not spoil the rest."""
    vertices, faces, mirror = mirrored_sheet()
    faces = faces.copy()
    if count:
        quad = faces[10]
        partner = np.flatnonzero([len(set(f) & set(quad)) == 2 and set(f) != set(quad) for f in faces.tolist()])[0]
        (a,), (b,) = set(quad) - set(faces[partner]), set(faces[partner]) - set(quad)
        c, d = sorted(set(quad) & set(faces[partner]))
        faces[10], faces[partner] = [a, c, b], [a, b, d]
    found = mirror_map(vertices, faces)
    assert found is not None
    assert np.array_equal(found[found], np.arange(len(found)))
    assert (found == mirror).mean() > 0.98
