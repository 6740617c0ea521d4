"""Part labels of faces, from those of their vertices: the rule for labelling samples and for scores by part."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Labels


def face_labels(vertex_labels: ArrayLike, faces: ArrayLike) -> Labels:
    """Part label [F] of every face: that of its vertices with a part (where they differ, the label that two of them share).

    A part is the area inside its loop, and the loop's own vertices have label 0, the remainder. So a face belongs to a
    part as soon as one of its vertices does. (A majority vote would leave half a ring along every loop to the remainder.)
    """
    corners = np.asarray(vertex_labels, dtype=np.uint8)[np.asarray(faces, dtype=np.int64)]
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    middle = np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))
    return np.where(middle > 0, middle, np.maximum(np.maximum(a, b), c))
