"""Labels of faces: a part is what its loop encloses."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from facegraft.geometry.clipping import icosphere
from facegraft.surfaces.labels import face_labels


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_a_face_belongs_to_the_part_of_its_vertices(labels) -> None:
    found = int(face_labels(labels, [[0, 1, 2]])[0])
    parts = [label for label in labels if label > 0]
    assert found in (parts or [0])
    if len(parts) == 3 and len(set(parts)) < 3:
        assert parts.count(found) >= 2


def test_face_labels_are_what_the_loop_encloses() -> None:
    """A disk of a sphere: faces with an interior vertex are those inside the loop, whose vertices are labelled 0."""
    vertices, faces = icosphere(3)
    inside = vertices[faces].mean(axis=1)[:, 2] > 0.7
    interior = np.setdiff1d(faces[inside], faces[~inside])
    labels = np.zeros(len(vertices), dtype=np.uint8)
    labels[interior] = 1
    found = face_labels(labels, faces)
    assert not found[~inside].any()
    on_loop = ~np.isin(faces, interior).any(axis=1)
    assert (found[inside & ~on_loop] == 1).all()
