"""The training heads' own vertices and triangles, in the template: what makes decoded heads correspond vertex by vertex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from facegraft.store import Dataset
from facegraft_model.data.ids import DataError

ARRAYS = {"vertices": "template_vertices", "faces": "template_faces", "parts": "template_parts", "ids": "template_ids"}
"""The shared arrays of samples (docs/format.md) by the name that they have here."""
CAP_ARRAYS = {"cap_vertices": "template_cap_vertices", "cap_faces": "template_cap_faces"}
"""The same of what closes the template, since version 2.2."""


class SurfacePoints(NamedTuple):
    """Points [n,3] on a surface, and its unit normals [n,3] there."""

    points: Tensor
    normals: Tensor


@dataclass(frozen=True, eq=False)
class Topology:
    """vertices f32 [n,3] of the template in unit coordinates, faces i64 [m,3], parts u8 [n] (labels), ids i64 [n] (vertices of the
    registered meshes, ascending).

    cap_vertices f32 [k,3], cap_faces i64 [c,3]: what closes the template; the faces' numbers go through the vertices and then through
    the caps' own. Both are empty where the samples do not say.
    """

    vertices: Tensor
    faces: Tensor
    parts: Tensor
    ids: Tensor
    cap_vertices: Tensor
    cap_faces: Tensor

    @property
    def closed_vertices(self) -> Tensor:
        """Vertices [n + k,3], those of the caps last."""
        return torch.cat([self.vertices, self.cap_vertices])

    @property
    def closed_faces(self) -> Tensor:
        """Faces [m + c,3] of `closed_vertices`, those of the caps last."""
        return torch.cat([self.faces, self.cap_faces])

    @property
    def closed_parts(self) -> Tensor:
        """Labels u8 [n + k] of `closed_vertices`: a cap lies in the part of its rim."""
        labels = torch.cat([self.parts, self.parts.new_zeros(len(self.cap_vertices))])
        own = torch.arange(len(labels), device=labels.device) >= len(self.parts)
        corners = self.cap_faces.flatten()
        while len(corners):
            reached = labels[self.cap_faces].amax(1).repeat_interleave(3)
            grown = torch.where(own, labels.clone().scatter_reduce(0, corners, reached, "amax"), labels)
            if torch.equal(grown, labels):
                break
            labels = grown
        return labels

    def rows_of(self, vertices: Tensor) -> Tensor:
        """For each vertex [n], its row among registered points, which are these `vertices` [M] of the registered meshes; -1 for none."""
        order = vertices.to(self.ids).argsort()
        place = torch.searchsorted(vertices.to(self.ids)[order], self.ids).clamp_max(len(vertices) - 1)
        return torch.where(vertices.to(self.ids)[order][place] == self.ids, order[place], -1)

    def face_areas(self) -> Tensor:
        """Areas f64 [m + c] of the closed template's faces."""
        corners = self.closed_vertices[self.closed_faces].double()
        cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return torch.linalg.vector_norm(cross, dim=1) / 2

    def face_weights(self) -> Tensor:
        """Weights f64 [m + c] of the faces by which half of the points are drawn evenly over the closed template, and half over the parts,
        where heads have most detail."""
        areas = self.face_areas()
        own = areas * (self.closed_parts[self.closed_faces] > 0).any(1)
        return areas / areas.sum() + (own / own.sum() if float(own.sum()) > 0 else 0)

    def at(self, draws: Tensor, bounds: Tensor) -> SurfacePoints:
        """Points of the closed template for numbers [n,3] in [0, 1): the first chooses a face, the others a place in it. bounds f64 [m + c]:
        the running sum of the faces' weights."""
        chosen = torch.searchsorted(bounds, draws[:, 0].double() * bounds[-1], right=True).clamp_max(len(bounds) - 1)
        corners = self.closed_vertices[self.closed_faces[chosen]]
        near, far = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        u, v = draws[:, 1:2], draws[:, 2:3]
        beyond = u + v > 1
        u, v = torch.where(beyond, 1 - u, u), torch.where(beyond, 1 - v, v)
        cross = torch.linalg.cross(near, far)
        normals = cross / torch.linalg.vector_norm(cross, dim=1, keepdim=True).clamp_min(1e-12)
        return SurfacePoints(corners[:, 0] + u * near + v * far, normals)


def read_topology(samples: Dataset) -> Topology | None:
    """The topology that samples hold; None for samples of an older version, or without a template morph.

    Raises DataError where one of its arrays is missing, or its shapes, triangles or numbers cannot be a mesh.
    """
    found = {name: samples.shared[array] for name, array in ARRAYS.items() if array in samples.shared}
    if not found:
        return None
    where, n = f"{samples.path}: the template's topology", len(found.get("vertices", ()))
    caps = {name: samples.shared[array] for name, array in CAP_ARRAYS.items() if array in samples.shared}
    wanted = {**ARRAYS, **(CAP_ARRAYS if caps else {})}
    missing = [array for name, array in wanted.items() if name not in found and name not in caps]
    if missing:
        raise DataError(f"{where} lacks {', '.join(missing)}; sample anew")
    found |= caps or {name: np.zeros((0, 3), dtype=np.float32) for name in CAP_ARRAYS}
    faces, cap_faces, k = found["faces"], found["cap_faces"], len(found["cap_vertices"])
    shapes = {
        "vertices": (n, 3),
        "faces": (len(faces), 3),
        "parts": (n,),
        "ids": (n,),
        "cap_vertices": (k, 3),
        "cap_faces": (len(cap_faces), 3),
    }
    for name, shape in shapes.items():
        if found[name].shape != shape:
            array = {**ARRAYS, **CAP_ARRAYS}[name]
            raise DataError(f"{where}: {array} has shape {list(found[name].shape)}, not {list(shape)}; sample anew")
    outside = not len(faces) or faces.min() < 0 or faces.max() >= n
    outside |= len(cap_faces) > 0 and (cap_faces.min() < 0 or cap_faces.max() >= n + k)
    if outside or not all(np.isfinite(found[name]).all() for name in ("vertices", "cap_vertices")):
        raise DataError(f"{where} has no triangles, names a vertex that it lacks, or is not finite; sample anew")
    kinds = {
        "vertices": np.float32,
        "faces": np.int64,
        "parts": np.uint8,
        "ids": np.int64,
        "cap_vertices": np.float32,
        "cap_faces": np.int64,
    }
    return Topology(**{name: torch.from_numpy(found[name].astype(kind)) for name, kind in kinds.items()})
