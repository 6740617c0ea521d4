"""A head in another unit or pose is refused with what it seems to be."""

from __future__ import annotations

import numpy as np
import pytest

from facegraft.heads.sanity import check_head
from facegraft.meshfiles.errors import MeshError


def test_a_head_passes(toy):
    check_head(toy.vertices(), toy.landmarks(), 1.0, "head.obj")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: v / 1000, "seems to be in metres; give mm_per_unit=1000 (it was read with 1)"),
        (lambda v: v / 10, "seems to be in centimetres; give mm_per_unit=10"),
        (lambda v: v / 25.4, "seems to be in inches; give mm_per_unit=25.4"),
        (lambda v: v * 3, "a scale error of about 0.333"),
        (lambda v: v * 0, "another topology, or the mesh is empty"),
        (lambda v: v * [-1, 1, 1], "left and right are exchanged"),
        (lambda v: v * [-1, 1, -1], "faces backward: turn it by 180 degrees about y"),
        (lambda v: v[:, [0, 2, 1]] * [1, 1, -1], "not upright and facing forward"),
        (lambda v: v[:, [1, 0, 2]], "not upright and facing forward"),
    ],
)
def test_what_is_wrong_is_said(toy, change, says):
    with pytest.raises(MeshError) as caught:
        check_head(change(toy.vertices()), toy.landmarks(), 1.0, "head.obj")
    assert str(caught.value).startswith("head.obj: ")
    assert says in str(caught.value)


def test_landmarks_of_another_topology(data_dir, facescape_folder):
    """FaceScape publishes two landmark sets; the wrong one lies scattered over the face."""
    from facegraft.meshfiles.meshfile import read_mesh

    sets = np.load(data_dir / "facescape" / "landmark_indices.npz")
    mesh = read_mesh(facescape_folder / "1" / "1_neutral.obj")
    check_head(mesh.vertices, sets["v16"], 1.0, "right")
    with pytest.raises(MeshError, match="another topology"):
        check_head(mesh.vertices, sets["v10"], 1.0, "wrong")
