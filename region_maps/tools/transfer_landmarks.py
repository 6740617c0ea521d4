"""Developer tool: our own 68 landmarks on a template whose public landmark set may not be redistributed.

    python region_maps/tools/transfer_landmarks.py --ict FaceXModel --mesh template.ply --mm-per-unit 1000 -o landmarks.json

The ICT face model (MIT licence: neutral, identity modes, a few expression shapes, and its published landmarks) is
registered to the template, and each of its landmarks goes to the nearest vertex of the template:

1. Nose tips are laid together (the most forward skin vertex of either mesh); both meshes are +y up, +z forward.
2. Trimmed closest-point iterations, point to plane: similarity, identity and expression coefficients together, with a
   Tikhonov prior on the coefficients (unit normal identities) that is relaxed from iteration to iteration.
3. A smooth displacement field takes up what the model cannot express: the minimiser of the same point-to-plane
   distances plus the squared Laplacian of the displacements.
4. Landmarks go to the nearest outer-skin vertex, eye corners to the corners of the lid loop where the template has an
   eye hole, and all are made mirror symmetric with the template's own symmetry map.

No index set, mask or mesh of the template's publishers is read or written. Needs the published FaceXModel folder.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import igl
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from facegraft.arrays import Floats, Ints
from facegraft.geometry.symmetry import mirror_map
from facegraft.regions.landmarks import MIRROR68, FaceFrame
from facegraft.surfaces.mirror import MIRROR, symmetrised
from facegraft.surfaces.normals import face_normals, vertex_normals
from facegraft.surfaces.topology import boundary_loops, compact, face_components, unique_edges

SKIN = 11248  # ICT-FaceKit's vertices 0..11247 are the outer skin
EXPRESSIONS = ("jawOpen", "mouthClose", "eyeBlink_L", "eyeBlink_R", "eyeWide_L", "eyeWide_R", "mouthPucker", "mouthFunnel",
               "mouthShrugUpper", "mouthShrugLower", "mouthRollUpper", "mouthRollLower", "browDown_L", "browDown_R",
               "browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R")  # fmt: skip
IDENTITIES = 60
EXPRESSION_SIGMA = 0.35
RIGID_ROUNDS, MODEL_ROUNDS, SMOOTH_ROUNDS = 15, 45, 8


@dataclass(frozen=True)
class FaceModel:
    """A linear face model in mm: mean [V, 3], modes [K, V, 3] with their prior deviations [K], faces, landmarks [68]."""

    mean: Floats
    modes: Floats
    sigma: Floats
    faces: Ints
    landmarks: Ints

    @classmethod
    def from_arrays(
        cls,
        neutral: NDArray[np.floating],
        identity: NDArray[np.floating],
        expression: NDArray[np.floating],
        faces: Ints,
        landmarks: Ints,
    ) -> FaceModel:
        """From ICT arrays in centimetres; keeps the skin."""
        modes = 10.0 * np.concatenate([identity[:, :SKIN], expression[:, :SKIN]]).astype(np.float64)
        sigma = np.concatenate([np.ones(len(identity)), np.full(len(expression), EXPRESSION_SIGMA)])
        skin = np.asarray(faces, dtype=np.int64)
        skin = skin[(skin < SKIN).all(axis=1)]
        return cls(
            10.0 * np.asarray(neutral[:SKIN], dtype=np.float64),
            modes,
            sigma,
            skin,
            np.asarray(landmarks, dtype=np.int64),
        )

    @classmethod
    def from_folder(cls, folder: Path) -> FaceModel:
        """From the published FaceXModel folder (OBJ files and vertex_indices.json)."""
        from facegraft.meshfiles.meshfile import read_mesh

        base = read_mesh(folder / "generic_neutral_mesh.obj")
        neutral = np.asarray(base.vertices, dtype=np.float64)

        def delta(name: str) -> Floats:
            return np.asarray(read_mesh(folder / f"{name}.obj").vertices, dtype=np.float64) - neutral

        present = [i for i in range(IDENTITIES) if (folder / f"identity{i:03d}.obj").is_file()]
        quads = np.asarray(base.polygons, dtype=np.int64)
        triangles = np.concatenate([quads[:, [0, 1, 2]], quads[quads[:, 3] >= 0][:, [0, 2, 3]]])
        marks = json.loads((folder / "vertex_indices.json").read_text())["idx_to_landmark_verts"]
        return cls.from_arrays(
            neutral,
            np.stack([delta(f"identity{i:03d}") for i in present]),
            np.stack([delta(name) for name in EXPRESSIONS if (folder / f"{name}.obj").is_file()]),
            triangles,
            np.asarray(marks),
        )


@dataclass(frozen=True)
class Target:
    """The template's skin in mm: vertices [V, 3], faces, and the original index of every vertex."""

    vertices: Floats
    faces: Ints
    original: Ints

    @classmethod
    def skin_of(cls, vertices_mm: Floats, faces: Ints) -> Target:
        piece = face_components(faces)
        skin, kept = compact(faces[piece == np.bincount(piece).argmax()], len(vertices_mm))
        return cls(vertices_mm[kept], skin, kept)


@dataclass(frozen=True)
class Transfer:
    """Landmarks as vertices of the template, the registered model [V, 3] in the template's mm, and its distances [V]."""

    landmarks: Ints
    registered: Floats
    distance: Floats


def nose_tip(vertices: Floats) -> Floats:
    """The most forward skin vertex near the middle of the head."""
    middle = 0.5 * (vertices[:, 0].min() + vertices[:, 0].max())
    near = np.flatnonzero(np.abs(vertices[:, 0] - middle) < 25.0)
    return vertices[near[vertices[near, 2].argmax()]]


def transfer_landmarks(model: FaceModel, vertices: Floats, faces: Ints, mm_per_unit: float) -> Transfer:
    """Register the model to a template [V, 3], faces [F, 3], and carry its landmarks over. Deterministic."""
    target = Target.skin_of(np.asarray(vertices, dtype=np.float64) * mm_per_unit, np.asarray(faces, dtype=np.int64))
    shift = nose_tip(target.vertices) - nose_tip(model.mean)
    front = model.mean[:, 2] > model.mean[model.landmarks[[0, 16]], 2].mean() - 15.0
    chin, nasion = model.mean[model.landmarks[8]], model.mean[model.landmarks[27]]
    face = front & (model.mean[:, 1] > chin[1] - 8.0) & (model.mean[:, 1] < nasion[1] + 0.55 * (nasion[1] - chin[1]))
    shape = _fit_model(model, target, shift, np.flatnonzero(face))
    shape = _fit_displacement(shape, model.faces, target, face)
    distance = np.sqrt(igl.point_mesh_squared_distance(shape, target.vertices, target.faces)[0])
    return Transfer(
        _land(shape[model.landmarks], target, np.asarray(vertices), np.asarray(faces), mm_per_unit), shape, distance
    )


def _closest(points: Floats, normals: Floats, target: Target, share: float) -> tuple[Floats, Floats, Floats]:
    """Closest points, their normals and weights: 0 beyond the trimming share or where normals disagree by over 60 degrees."""
    squared, face, closest = igl.point_mesh_squared_distance(points, target.vertices, target.faces)
    plane = face_normals(target.vertices, target.faces)[face]
    agree = np.einsum("ij,ij->i", plane, normals) > 0.5
    rim = np.zeros(len(target.vertices), dtype=bool)
    for loop in boundary_loops(target.faces):
        rim[loop] = True
    usable = agree & ~rim[target.faces[face]].any(axis=1)
    limit = np.quantile(squared[usable], share) if usable.any() else 0.0
    scale = 4.0
    weight = np.where(usable & (squared <= limit), 1.0 / (1.0 + squared / scale**2), 0.0)
    return closest, plane, weight


def _fit_model(model: FaceModel, target: Target, shift: Floats, active: Ints) -> Floats:
    """Trimmed point-to-plane fit of similarity and coefficients; returns the posed shape [V, 3]."""
    rotation, scale, offset = np.eye(3), 1.0, shift.copy()
    coefficient = np.zeros(len(model.modes))
    modes = model.modes[:, active]
    for round_ in range(RIGID_ROUNDS + MODEL_ROUNDS):
        fit_modes = round_ >= RIGID_ROUNDS
        progress = max(0, round_ - RIGID_ROUNDS) / MODEL_ROUNDS
        local = model.mean + np.tensordot(coefficient, model.modes, axes=1)
        posed = scale * local @ rotation.T + offset
        points, normals = posed[active], vertex_normals(posed, model.faces)[active]
        closest, plane, weight = _closest(points, normals, target, 0.85 if fit_modes else 0.75)
        middle = points.mean(axis=0)
        arm = points - middle
        columns = [np.cross(arm, plane), plane, np.einsum("ij,ij->i", arm, plane)[:, None]]
        prior = [np.zeros(6), [0.0]]
        pull = [np.zeros(7)]
        if fit_modes:
            columns.append(np.einsum("kvi,vi->vk", scale * modes @ rotation.T, plane))
            strength = len(active) * 1e-3 * 10.0 ** (1.0 - 2.0 * progress)
            prior.append(strength / model.sigma**2)
            pull.append(strength / model.sigma**2 * coefficient)
        jacobian = np.concatenate(columns, axis=1)
        gap = np.einsum("ij,ij->i", closest - points, plane)
        normal = jacobian.T @ (weight[:, None] * jacobian) + np.diag(np.concatenate(prior) + 1e-6)
        step = np.linalg.solve(normal, jacobian.T @ (weight * gap) - np.concatenate(pull))
        turn = Rotation.from_rotvec(step[:3]).as_matrix()
        growth = 1.0 + float(np.clip(step[6], -0.05, 0.05))
        rotation, scale = turn @ rotation, growth * scale
        offset = growth * turn @ (offset - middle) + middle + step[3:6]
        if fit_modes:
            coefficient += step[7:]
    return scale * (model.mean + np.tensordot(coefficient, model.modes, axes=1)) @ rotation.T + offset


def _fit_displacement(shape: Floats, faces: Ints, target: Target, active: NDArray[np.bool_]) -> Floats:
    """Smooth displacement onto the target: point-to-plane distances against the squared Laplacian of the field."""
    n = len(shape)
    edges = unique_edges(faces)
    adjacency = sp.coo_matrix(
        (np.ones(2 * len(edges)), (edges.T.ravel(), edges[:, ::-1].T.ravel())), shape=(n, n)
    ).tocsr()
    degree = np.maximum(np.asarray(adjacency.sum(axis=1)).ravel(), 1.0)
    laplacian = sp.identity(n) - sp.diags(1.0 / degree) @ adjacency
    bending = sp.kron(laplacian.T @ laplacian, sp.identity(3), format="csc")
    moved = shape.copy()
    for round_ in range(SMOOTH_ROUNDS):
        stiffness = 300.0 * 0.55**round_
        closest, plane, weight = _closest(moved, vertex_normals(moved, faces), target, 0.9)
        weight = weight * active
        rows = np.repeat(np.arange(n), 3)
        pick = sp.csr_matrix((plane.ravel(), (rows, np.arange(3 * n))), shape=(n, 3 * n))
        gap = np.einsum("ij,ij->i", closest - shape, plane)
        system = pick.T @ sp.diags(weight) @ pick + stiffness * bending + 1e-3 * sp.identity(3 * n)
        moved = shape + splu(sp.csc_matrix(system)).solve(pick.T @ (weight * gap)).reshape(n, 3)
    return moved


def _land(points68: Floats, target: Target, vertices: Floats, faces: Ints, mm_per_unit: float) -> Ints:
    """Nearest template vertices of the landmark positions, mirror symmetric where the template is."""
    in_mm = np.asarray(vertices, dtype=np.float64) * mm_per_unit
    frame = FaceFrame.of(points68)
    local, points = frame.apply(in_mm), frame.apply(points68)
    mirror = mirror_map(local, faces)
    candidates = target.original
    if mirror is None:
        return np.asarray(candidates[cKDTree(local[candidates]).query(points)[1]])
    local = symmetrised(local, mirror)
    points = 0.5 * (points + points[MIRROR68] * MIRROR)
    points = _snap_eye_corners(points, local, target)
    landmarks = np.full(68, -1, dtype=np.int64)
    middle = np.intersect1d(candidates, np.flatnonzero(mirror == np.arange(len(mirror))))
    for i in range(68):
        other = int(MIRROR68[i])
        if other == i:
            landmarks[i] = middle[cKDTree(local[middle]).query(points[i])[1]]
        elif points[i, 0] > 0:
            landmarks[i] = candidates[cKDTree(local[candidates]).query(points[i])[1]]
            landmarks[other] = mirror[landmarks[i]]
    return landmarks


def _snap_eye_corners(points: Floats, local: Floats, target: Target, reach: float = 5.0) -> Floats:
    """Move the eye corners (left 42, 45) to the ends of the lid loop where the template has an eye hole near them."""
    points = points.copy()
    for loop in boundary_loops(target.faces):
        rim = local[target.original[loop]]
        for inner, outer in ((42, 45), (39, 36)):
            side = np.sign(points[outer, 0])
            ends = rim[np.argmin(rim[:, 0] * side)], rim[np.argmax(rim[:, 0] * side)]
            if all(np.linalg.norm(end - points[i]) < reach for end, i in zip(ends, (inner, outer), strict=True)):
                points[inner], points[outer] = ends
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ict", type=Path, required=True, help="the published FaceXModel folder")
    parser.add_argument("--mesh", type=Path, required=True, help="the template (.obj or .ply)")
    parser.add_argument("--mm-per-unit", type=float, required=True)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="landmarks as a JSON list of 68 vertex indices"
    )
    options = parser.parse_args()
    from facegraft.meshfiles.meshfile import read_mesh

    mesh = read_mesh(options.mesh)
    transfer = transfer_landmarks(
        FaceModel.from_folder(options.ict), mesh.vertices, np.asarray(mesh.polygons)[:, :3], options.mm_per_unit
    )
    options.output.write_text(json.dumps(transfer.landmarks.tolist()) + "\n")
    print(f"{options.output}: registered to {np.median(transfer.distance):.2f} mm (median distance)")


if __name__ == "__main__":
    main()
