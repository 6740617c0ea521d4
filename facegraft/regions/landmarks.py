"""The 68 face landmarks (iBUG/Multi-PIE order, see `facegraft.vocabulary`) on a template: reading, checking, and the face frame."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from facegraft.arrays import Floats, Ints
from facegraft.errors import FacegraftError
from facegraft.vocabulary import (
    ACCEPTED_CANTHI_MM,
    CHIN,
    LANDMARK_COUNT,
    MIRROR_PAIRS,
    NASION,
    NOSE_TIP,
    OUTER_CANTHI,
    USUAL_UNITS,
)


class LandmarkError(FacegraftError):
    """A landmark set that cannot be read, or that does not fit its mesh."""


def _mirror68() -> Ints:
    swap = np.arange(LANDMARK_COUNT)
    for a, b in MIRROR_PAIRS:
        swap[a], swap[b] = b, a
    return swap


MIRROR68 = _mirror68()
"""For every landmark, the landmark on the other side of the face."""


NAMED = 3
"""How many landmarks a message names."""

# Measured on the templates and on 30 heads with smiles and open mouths, our landmarks and published ones. Mirror images to within 8.4 mm
# (jaw 8.0), midline landmarks to 2.0 mm, steps up to 30 mm (jaw 32), inner lips that overlap by 3.7 mm, order kept by more than 4 mm.
FACE_MM = (80.0, 160.0)
"""Range of the distance from nasion to chin."""
PAIRED_MM, PAIRED_JAW_MM = 12.0, 25.0
MIDLINE_MM, MIDLINE_JAW_MM = 6.0, 12.0
STEP_MM, STEP_JAW_MM = 42.0, 50.0
ORDER_MM, LIDS_MM, INNER_LIPS_MM = 2.0, 3.0, 6.0
MAY_MEET = ((48, 60), (54, 64), (61, 67), (62, 66), (63, 65))
"""Landmarks of the lips that lie within a millimetre of each other, and on a coarse mesh on one vertex: corners, and a shut mouth."""
CHAINS = ((0, 16), (17, 21), (22, 26), (27, 30), (31, 35), (36, 41), (42, 47), (48, 59), (60, 67))
"""First and last landmark of each line of neighbours."""


def read_landmarks(
    path: str | Path, key: str | None = None, faces: ArrayLike | None = None, option: str = "--key"
) -> Ints:
    """68 vertex indices from a .npy, .npz, .json or .txt file.

    `key` names the entry of an .npz or of a JSON object that holds several sets. A barycentric embedding (an .npz with
    `lmk_face_idx` [68] and `lmk_b_coords` [68, 3]) becomes the vertex with the largest weight of each face; this needs `faces`.
    `option` is what messages call the option of the key.
    Raises LandmarkError naming the file and, where a key is wrong or missing, the available keys.
    """
    path = Path(path)
    try:
        content = _load(path)
    except FileNotFoundError as error:
        raise LandmarkError(f"{path}: there is no such landmark file") from error
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:  # a lone array in an .npz has no files
        raise LandmarkError(f"{path}: cannot read landmarks ({error})") from error
    if isinstance(content, Mapping):
        if key is None and {"lmk_face_idx", "lmk_b_coords"} <= set(content):
            return _from_barycentric(path, content, faces)
        if key is None and len(content) == 1:
            key = next(iter(content))
        if key is None or key not in content:
            what = "holds several sets" if key is None else f"has no key {key!r}"
            raise LandmarkError(f"{path}: {what}; choose one with {option}: {', '.join(sorted(content))}")
        content = content[key]
    array = np.asarray(content)
    if array.dtype.kind == "f" and array.shape == (68,) and np.array_equal(array, np.round(array)):
        array = array.astype(np.int64)
    if array.shape != (68,) or array.dtype.kind not in "iu":
        raise LandmarkError(f"{path}: expected 68 vertex indices, found {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def _load(path: Path) -> object:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if suffix == ".json":
        return json.loads(path.read_text())
    if suffix == ".txt":
        return np.array([float(word) for word in path.read_text().replace(",", " ").split()])
    raise ValueError(f"unknown suffix {path.suffix!r}; use .npz, .npy, .json or .txt")


def _from_barycentric(path: Path, content: Mapping[str, ArrayLike], faces: ArrayLike | None) -> Ints:
    if faces is None:
        raise LandmarkError(f"{path}: a barycentric embedding needs the mesh's faces")
    face, weight = np.asarray(content["lmk_face_idx"]).astype(np.int64), np.asarray(content["lmk_b_coords"])
    f = np.asarray(faces, dtype=np.int64)
    if face.shape != (68,) or weight.shape != (68, 3):
        raise LandmarkError(
            f"{path}: expected lmk_face_idx [68] and lmk_b_coords [68, 3], found {face.shape} and {weight.shape}"
        )
    if face.min() < 0 or face.max() >= len(f):
        raise LandmarkError(
            f"{path}: names face {face.max()}, but the mesh has {len(f)} faces; it belongs to another topology"
        )
    return np.asarray(f[face, weight.argmax(axis=1)])


def guess_mm_per_unit(vertices: ArrayLike, landmarks: ArrayLike) -> float:
    """Millimetres per unit, from the outer eye corners (36, 45): 1, 10 or 1000. Raises LandmarkError if none fits, which names
    landmarks out of place where the face has the size of a face all the same."""
    v, lm = np.asarray(vertices, dtype=np.float64), np.asarray(landmarks, dtype=np.int64)
    right, left = OUTER_CANTHI
    canthi = float(np.linalg.norm(v[lm[right]] - v[lm[left]]))
    for unit in USUAL_UNITS:
        if ACCEPTED_CANTHI_MM[0] <= canthi * unit <= ACCEPTED_CANTHI_MM[1]:
            return unit
    for unit in USUAL_UNITS:  # eye corners that are wrong themselves say nothing of the unit
        if FACE_MM[0] <= float(np.linalg.norm(v[lm[NASION]] - v[lm[CHIN]])) * unit <= FACE_MM[1]:
            off = _misfits(v, lm, unit, None)
            if off:
                raise _misfit(_size(v[lm] * unit) + off)
    raise LandmarkError(
        f"outer eye corners (landmarks 36, 45) lie {canthi:.4g} units apart, not {ACCEPTED_CANTHI_MM[0]:.0f}-{ACCEPTED_CANTHI_MM[1]:.0f} mm in mm, cm or m; "
        "either the landmark set belongs to another topology, or give the unit (--mm-per-unit; in ingest `--set ingest.mm_per_unit=…`)"
    )


def check_indices(landmarks: ArrayLike, vertex_count: int) -> None:
    """Raise LandmarkError unless there are 68 indices below the vertex count; it names the first that is out of range."""
    lm = np.asarray(landmarks)
    if lm.shape != (68,):
        raise LandmarkError(f"expected 68 landmark indices, got shape {lm.shape}")
    if lm.min() < 0:
        missing = np.flatnonzero(lm < 0)
        raise LandmarkError(
            f"landmark {missing[0]} is vertex {lm[missing[0]]}{f', and {len(missing) - 1} more are below 0 too' * (len(missing) > 1)}: each of "
            "the 68 needs a vertex; where the mesh ends before a landmark (of the jaw, on a mesh cut before the ears), give the nearest vertex"
        )
    if lm.max() >= vertex_count:
        bad = int(np.flatnonzero(lm >= vertex_count)[0])
        raise LandmarkError(
            f"landmark {bad} is vertex {lm[bad]}, but the mesh has {vertex_count} vertices; the set belongs to another topology"
        )


def check_landmarks(
    vertices: ArrayLike, landmarks: ArrayLike, mm_per_unit: float, surface: ArrayLike | None = None
) -> None:
    """Raise LandmarkError for a landmark set that does not fit its mesh; one error lists all problems.

    A set made for another topology of similar size (FaceScape's v10 on a v16 mesh) has valid indices: only the geometry
    shows that it is wrong. `surface`: vertices that count as skin (default all).
    """
    v, lm = np.asarray(vertices, dtype=np.float64), np.asarray(landmarks, dtype=np.int64)
    check_indices(lm, len(v))
    off = _size(v[lm] * mm_per_unit) + _misfits(v, lm, mm_per_unit, surface)
    if off:
        raise _misfit(off)


def _misfit(off: list[str]) -> LandmarkError:
    return LandmarkError("landmarks do not fit this mesh: " + "; ".join(off) + "; the set may belong to another topology")


def _size(p: Floats) -> list[str]:
    canthi = float(np.linalg.norm(p[OUTER_CANTHI[0]] - p[OUTER_CANTHI[1]]))
    if ACCEPTED_CANTHI_MM[0] <= canthi <= ACCEPTED_CANTHI_MM[1]:
        return []
    return [f"outer eye corners {canthi:.1f} mm apart (expected {ACCEPTED_CANTHI_MM[0]:.0f}-{ACCEPTED_CANTHI_MM[1]:.0f})"]


def _misfits(v: Floats, lm: Ints, mm_per_unit: float, surface: ArrayLike | None) -> list[str]:
    """A text for everything but the size that is wrong with landmarks on vertices [V, 3]."""
    p = v[lm] * mm_per_unit
    off = _identities(lm, surface)
    crossed = [(a, b) for a, b in MIRROR_PAIRS if p[b, 0] <= p[a, 0]]
    if 2 * len(crossed) > len(MIRROR_PAIRS):
        off.append("left and right are swapped, or +x is not the subject's left (landmark 36 must have x < 0)")
        return off  # the chains would all be out of order too
    elif crossed:
        names = ", ".join(f"{a} and {b}" for a, b in crossed[:NAMED])
        off.append(f"landmarks {names}{', ...' * (len(crossed) > NAMED)} are swapped: the first must lie on the subject's right")
    if not p[27, 1] > p[33, 1] > p[57, 1] > p[8, 1] or p[19, 1] < p[37, 1]:
        off.append("brow, eye, nose, mouth and chin do not follow each other downward (+y must be up)")
    if p[NOSE_TIP, 2] < p[[36, 45, 27, 48, 54], 2].max():
        off.append("the nose tip (30) does not stand out toward +z")
    else:
        skin = v[np.asarray(surface)] * mm_per_unit if surface is not None else v * mm_per_unit
        near = skin[np.linalg.norm(skin - p[NOSE_TIP], axis=1) < 15.0]
        if near[:, 2].max(initial=-np.inf) - p[NOSE_TIP, 2] > 5.0:
            off.append(
                f"the nose tip (30) lies {near[:, 2].max() - p[NOSE_TIP, 2]:.1f} mm behind the most forward skin around it"
            )
    return off + _asymmetry(p) + _disorder(p)


def _identities(lm: Ints, surface: ArrayLike | None) -> list[str]:
    """A text for landmarks that share a vertex, and one for those that are no vertices of the skin."""
    values, counts = np.unique(lm, return_counts=True)
    shared = [tuple(np.flatnonzero(lm == vertex).tolist()) for vertex in values[counts > 1]]
    off = [
        f"landmarks {', '.join(map(str, marks))} are the same vertex ({lm[marks[0]]})"
        for marks in [marks for marks in shared if marks not in MAY_MEET][:NAMED]
    ]
    if surface is not None:
        loose = np.flatnonzero(~np.isin(lm, np.asarray(surface)))
        if len(loose):
            which = ", ".join(f"{mark} (vertex {lm[mark]})" for mark in loose[:NAMED])
            off.append(f"not on the skin, but on a loose piece or in no face: landmark {which}{', ...' * (len(loose) > NAMED)}")
    return off


def _asymmetry(p: Floats) -> list[str]:
    """Texts for the pair that is furthest from being mirror images after removing the pose, and the midline landmark furthest off it."""
    local = FaceFrame.of(p).apply(p)
    gap = np.linalg.norm(local - local[MIRROR68] * [-1.0, 1.0, 1.0], axis=1)
    middle = np.arange(LANDMARK_COUNT) == MIRROR68
    gap[middle] *= 0.5
    excess = gap / np.where(middle, MIDLINE_MM, PAIRED_MM)
    excess[:17] = gap[:17] / np.where(middle[:17], MIDLINE_JAW_MM, PAIRED_JAW_MM)
    off = []
    pair, alone = int(np.where(middle, 0.0, excess).argmax()), int(np.where(middle, excess, 0.0).argmax())
    if excess[pair] > 1.0:
        off.append(f"landmarks {pair} and {int(MIRROR68[pair])} are {gap[pair]:.0f} mm from being mirror images")
    if excess[alone] > 1.0:
        off.append(f"landmark {alone} lies {gap[alone]:.0f} mm beside the middle of the face")
    return off


def _disorder(p: Floats) -> list[str]:
    """A text for each chain of landmarks that is out of order: sideways, downward, or by a step that is too long."""
    off = []
    local = FaceFrame.of(p).apply(p)
    for name, chain in (("right brow", range(17, 22)), ("left brow", range(22, 27)), ("nose base", range(31, 36))):
        if (np.diff(p[list(chain), 0]) <= 0).any():
            off.append(f"the landmarks of the {name} ({chain[0]}-{chain[-1]}) are not in order from right to left")
    for name, line in (
        ("right eye", [36, 37, 38, 39]), ("right eye", [36, 41, 40, 39]), ("left eye", [42, 43, 44, 45]), ("left eye", [42, 47, 46, 45]),
        ("lips", [*range(48, 55)]), ("lips", [48, *range(59, 53, -1)]), ("inner lips", [*range(60, 65)]), ("inner lips", [60, 67, 66, 65, 64]),
    ):  # fmt: skip
        if (np.diff(local[line, 0]) < -ORDER_MM).any():
            off.append(f"the landmarks of the {name} ({', '.join(map(str, line))}) are not in order from right to left")
    if (np.diff(p[27:31, 1]) >= 0).any():
        off.append("the nose bridge (27-30) does not run downward")
    for name, upper, lower, least in (
        ("right eye", [37, 38], [41, 40], -LIDS_MM), ("left eye", [43, 44], [47, 46], -LIDS_MM),
        ("lips", [49, 50, 51, 52, 53], [59, 58, 57, 56, 55], -LIDS_MM), ("inner lips", [61, 62, 63], [67, 66, 65], -INNER_LIPS_MM),
    ):  # fmt: skip
        if (local[upper, 1] - local[lower, 1] < least).any():
            off.append(f"above and below are swapped at the {name} ({', '.join(map(str, upper))} must lie above {', '.join(map(str, lower))})")
    steps = {mark: float(np.linalg.norm(local[mark + 1] - local[mark])) for chain in CHAINS for mark in range(chain[0], chain[1])}
    longest = max(steps, key=lambda mark: steps[mark] / (STEP_JAW_MM if mark < 16 else STEP_MM))
    if steps[longest] > (STEP_JAW_MM if longest < 16 else STEP_MM):
        off.append(f"landmarks {longest} and {longest + 1} lie {steps[longest]:.0f} mm apart: one of them is far from its place")
    return off


@dataclass(frozen=True)
class FaceFrame:
    """A frame in which the face's midline plane is x = 0: x toward the subject's left, y up, z forward."""

    rotation: Floats
    origin: Floats

    @classmethod
    def of(cls, points68: ArrayLike) -> FaceFrame:
        """From the 68 landmark positions [68, 3]: lateral axis = mean pair direction; the given vertical is kept."""
        p = np.asarray(points68, dtype=np.float64)
        left = np.flatnonzero(p[:, 0] >= p[MIRROR68, 0])
        left = left[MIRROR68[left] != left]
        lateral = (p[left] - p[MIRROR68[left]]).sum(axis=0)
        x = lateral / np.linalg.norm(lateral)
        y = np.array([0.0, 1.0, 0.0]) - x[1] * x
        y /= np.linalg.norm(y)
        origin = 0.5 * (p[left] + p[MIRROR68[left]]).mean(axis=0)
        origin = x * (x @ origin)  # only the lateral position matters
        return cls(np.stack([x, y, np.cross(x, y)]), origin)

    def apply(self, points: ArrayLike) -> Floats:
        """Points [N, 3] in this frame."""
        return np.asarray((np.asarray(points, dtype=np.float64) - self.origin) @ self.rotation.T)
