"""A linear model of registered heads in the manner of FLAME (Li et al. 2017): PCA of identity, PCA of expression, no network.

vertices = mean + the sum over its codes of z[i] modes[i], where each mode is scaled to unit variance over the training heads, so
that the prior of a code is N(0, 1). `LinearModel.train` gives the codes id and exp; `linearparts` has one with a code for each part.
It is a mesh model, not a field: it has no signed distance.

libigl is imported where points are fitted: training and fitting vertices need neither it nor scipy.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from facegraft.arrays import Floats, Ints
from facegraft.parts import Parts
from facegraft.store import AnyPath, Dataset, open_dataset, sha256_file, write_arrays_atomic, write_json_atomic
from facegraft.surfaces.barycentric import barycentric
from facegraft.surfaces.nearest import nearest_on_surface
from facegraft.surfaces.normals import face_normals
from facegraft.vocabulary import EXP, SCAN, TRAIN
from facegraft_model.data.ids import DataError
from facegraft_model.data.items import Rows, neutral_expression, select_rows
from facegraft_model.decoding.extract import Mesh
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.heightfields import REGISTERED, ClosedReader, height_field_of, is_height_field

ARRAYS_FILE, FACTS_FILE = "linear.safetensors", "linear.json"
FORMAT_NAME, FORMAT_VERSION = "facegraft linear model", 4
IDENTITY = "id"
MODES = "modes."
"""Prefix of the arrays that hold the modes of a code."""
RANK_TOLERANCE = 1e-12
"""Modes with less than this share of the largest variance are rounding errors of the Gram matrix in float64."""
ROUNDING = 2.0**-24
"""Largest rounding error of a coordinate in the unit ball in float32."""
START_NOISE_MM = 5.0
"""Noise in mm in the first iteration on points: the model starts stiff and becomes softer as correspondences improve."""
TRIAL_ITERATIONS, TRIED = 10, 2
"""Iterations after which the expressions nearest to the scan are chosen, and how many of them, besides the mean head, go on to the end."""
FARTHEST = 0.99
"""Quantile of the distances that counts as the farthest."""
REJECTED_MEDIANS = 4.0
"""Points farther from the model than this multiple of the median distance are ignored."""
REJECTED_COSINE = 0.5
"""Points whose normal differs from the model's by more than 60 degrees are ignored."""


class LinearShape(NamedTuple):
    """A decoded head: vertices f64 [V,3] in unit coordinates, faces i64 [F,3], parts u8 [V]."""

    vertices: Floats
    faces: Ints
    parts: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LinearFit:
    """codes: by name [K]; exp only if fitted. mesh: in unit coordinates. rms_mm: rms distance to the fitted points or vertices."""

    codes: dict[str, Floats]
    mesh: Mesh
    rms_mm: float
    iterations: int


class _Fitted(NamedTuple):
    """A fit on its way: code [K], squared distances [n] of the points, whether the model faces their way there [n], and iterations so far."""

    code: Floats
    squared: Floats
    agrees: NDArray[np.bool_]
    used: int


def _far(state: _Fitted) -> float:
    """How badly a fit explains the points: their mean distance, not squared, which a few points at the neck would decide; one that lies on a surface of
    the other side counts as one of the farthest: an opened mouth may lie near closed lips everywhere, but not face their way."""
    distance = np.sqrt(state.squared)
    return float(np.where(state.agrees, distance, np.maximum(distance, np.quantile(distance, FARTHEST))).mean())


@dataclass(frozen=True, eq=False)
class LinearModel:
    """mean [V,3] and modes [K,V,3] by code, f64 in unit coordinates; faces i64 [F,3], parts u8 [V]. expressions [e,K]: the mean code of
    each trained expression, with which fits of points begin.

    The code exp, of the expression, is the last one; a neutral head has none. facts: mm_per_unit, topology, frame, part_set (the meaning of the labels), and the training data.
    """

    mean: Floats
    modes: dict[str, Floats]
    faces: Ints
    parts: NDArray[np.uint8]
    expressions: Floats
    facts: dict[str, Any] = field(repr=False)

    @property
    def mm_per_unit(self) -> float:
        return float(self.facts["mm_per_unit"])

    @property
    def part_set(self) -> Parts:
        """The parts of its labels."""
        return Parts.from_json(self.facts["part_set"])

    @property
    def code_dims(self) -> dict[str, int]:
        return {name: len(modes) for name, modes in self.modes.items()}

    # -- training -----------------------------------------------------------------------------------------------------

    @classmethod
    def train(
        cls,
        surfaces: AnyPath,
        split: str = TRAIN,
        identity: int = 300,
        expression: int = 100,
        origins: Sequence[str] = (SCAN,),
    ) -> LinearModel:
        """PCA on the heads of a split of a dataset of surfaces. identity, expression: largest number of modes (default: FLAME's);
        there are fewer where the heads span less.

        Identity modes come from the neutral heads about their mean; expression modes from the offsets of each subject's expressive
        scans from the neutral one, about 0, so that code 0 is neutral. origins=("scan", "composite") takes grafted heads, which are
        neutral, as further identities. Expressive scans of a subject without neutral scan are left out and listed in `facts`.
        Where the surfaces are height fields, it learns from the heads that they were made from (`heightfields`).
        Raises DataError when closed items do not share faces, when the heads of height fields are not found, and when there are fewer
        than two neutral heads.
        """
        if identity < 1 or expression < 0:
            raise ModelError(f"identity ({identity}) must be at least 1 and expression ({expression}) at least 0")
        heads = TrainingHeads.read(surfaces, split, origins)
        mean = heads.neutral.mean(0)
        modes = {
            IDENTITY: principal_modes(heads.neutral - mean, identity, len(heads.neutral) - 1),
            EXP: heads.expression_modes(expression),
        }
        return heads.model(mean, modes)

    # -- codes to a head ----------------------------------------------------------------------------------------------

    def decode(self, codes: Mapping[str, ArrayLike]) -> LinearShape:
        """The head of codes [K] by name; without exp it is neutral. Raises ModelError for codes of another size or name."""
        needed = [name for name in self.modes if name != EXP]
        if not set(needed) <= set(codes) <= set(self.modes):
            raise ModelError(
                f"the linear model takes codes {', '.join(needed)} and (where not neutral) exp, not {', '.join(codes) or 'none'}"
            )
        vertices = self.mean.copy()
        for name, given in codes.items():
            modes, code = self.modes[name], np.asarray(given, dtype=np.float64)
            if code.shape != (len(modes),):
                raise ModelError(
                    f"code {name} of the linear model has {len(modes)} numbers, not shape {list(code.shape)}"
                )
            vertices += np.tensordot(code, modes, axes=1)
        return LinearShape(vertices, self.faces, self.parts)

    def surface_of(self, fit: LinearFit) -> Mesh:
        """The mesh of a fit as the surfaces that it learnt from have it: of height fields, a height field. Raises ClippingError where no
        part of such a head lies in the unit ball."""
        return height_field_of(fit.mesh) if REGISTERED in self.facts else fit.mesh

    def _fit(self, code: Floats, expression: bool, squared: Floats, iterations: int) -> LinearFit:
        """squared [n]: squared distances, in units, to the fitted points or vertices."""
        names = [name for name in self.modes if expression or name != EXP]
        ends = np.cumsum([len(self.modes[name]) for name in names])[:-1]
        codes = dict(zip(names, np.split(code, ends), strict=True))
        mesh = Mesh(self.decode(codes).vertices, self.faces)
        return LinearFit(codes, mesh, float(np.sqrt(squared.mean())) * self.mm_per_unit, iterations)

    # -- fitting ------------------------------------------------------------------------------------------------------

    @cached_property
    def _joined(self) -> Floats:
        """The modes of all codes [V,3,K] with vertices as the first axis, so that surface points can gather the rows of their triangle."""
        return np.ascontiguousarray(np.concatenate(list(self.modes.values())).transpose(1, 2, 0))

    @cached_property
    def _gram(self) -> Floats:
        flat = self._joined.reshape(-1, self._joined.shape[2])
        return flat.T @ flat

    def _count(self, expression: bool) -> int:
        return sum(len(modes) for name, modes in self.modes.items() if expression or name != EXP)

    def fit_vertices(self, vertices: ArrayLike, *, noise_mm: float = 0.1, expression: bool = True) -> LinearFit:
        """Codes of a registered head [V,3] in unit coordinates: least |v - head(z)|^2 / noise^2 + |z|^2.

        noise_mm: standard deviation of each coordinate, which weighs the data against the prior; 0: no prior. expression=False:
        fit only the identity. Raises ModelError for a wrong number of vertices.
        """
        target = np.asarray(vertices, dtype=np.float64)
        if target.shape != self.mean.shape or not np.isfinite(target).all():
            raise ModelError(
                f"a head of this linear model is {len(self.mean)} finite vertices [V,3], not shape {list(target.shape)}; "
                "fit points (fit_points) where the mesh is not registered"
            )
        count = self._count(expression)
        flat = self._joined.reshape(-1, self._joined.shape[2])[:, :count]
        offset = (target - self.mean).ravel()
        if noise_mm > 0:
            code = _ridge(self._gram[:count, :count], flat.T @ offset, noise_mm / self.mm_per_unit)
        else:
            code = np.asarray(np.linalg.lstsq(flat, offset, rcond=None)[0], dtype=np.float64)
        squared = ((offset - flat @ code) ** 2).reshape(-1, 3).sum(1)
        return self._fit(code, expression, squared, 1)

    def fit_points(
        self,
        points: ArrayLike,
        normals: ArrayLike | None = None,
        *,
        noise_mm: float = 0.5,
        slide: float = 0.1,
        iterations: int = 30,
        max_points: int = 4000,
        expression: bool = True,
        seed: int = 0,
    ) -> LinearFit:
        """Codes of a scan, points [n,3] in unit coordinates: non-rigid ICP onto the coefficients, without landmarks.

        Each iteration finds the nearest point q_i of the model's surface to every p_i, and solves for the codes that minimise
        sum_i ((n_i . d_i)^2 + slide^2 |d_i|^2) / noise^2 + |z|^2, with d_i = p_i - q_i(z) and n_i the model's normal at q_i. The noise
        falls from 5 mm to noise_mm in the first two thirds of the iterations; the fit ends when no point moves by 0.001 mm.
        It begins with the mean head, and with its trained expressions (from a closed mouth no small step leads to an open one); those that are
        nearest to the scan after a few iterations, and the mean head, go on, and the fit that is nearest in the end is taken.
        normals [n,3] (outward) prevent matches with surfaces that face the other way. Of more than max_points points, a random
        choice is used. The scan must already be in the model's frame: no rigid motion is fitted. Raises ModelError for points that are not finite.
        """
        scan, directions = _chosen(points, normals, max_points, seed)
        if not (noise_mm > 0 and iterations > 0 and slide >= 0):
            raise ModelError(
                f"noise_mm ({noise_mm}) and iterations ({iterations}) must be positive, slide ({slide}) not negative"
            )
        noises = np.geomspace(max(START_NOISE_MM, noise_mm), noise_mm, max(2 * iterations // 3, 1)) / self.mm_per_unit
        noises = np.concatenate([noises, np.full(iterations - len(noises), noises[-1])])
        count = self._count(expression)
        starts = np.zeros((1 + (len(self.expressions) if expression else 0), count))
        if expression:
            starts[1:, count - self.expressions.shape[1] :] = self.expressions
        trial = min(TRIAL_ITERATIONS, iterations)
        mean, *expressive = (_Fitted(start, np.empty(0), np.empty(0, dtype=bool), 0) for start in starts)
        begun = [self._improved(state, scan, directions, noises[:trial], slide) for state in expressive]
        ended = [self._improved(mean, scan, directions, noises, slide)]
        ended += [self._improved(state, scan, directions, noises[trial:], slide) for state in sorted(begun, key=_far)[:TRIED]]
        best = min(ended, key=_far)
        return self._fit(best.code, expression, best.squared, best.used)

    def _improved(self, state: _Fitted, scan: Floats, directions: Floats | None, noises: Floats, slide: float) -> _Fitted:
        """The state after an iteration for each of the noises, in units, or fewer where it converges at the last one."""
        count = len(state.code)
        code, used = state.code, state.used
        vertices: Floats = self.mean + self._joined[..., :count] @ code
        faces = np.ascontiguousarray(self.faces, dtype=np.int64)
        for noise in noises:
            _, face, nearest = nearest_on_surface(vertices, faces, scan)
            corners = faces[face]
            weights = barycentric(nearest, vertices[corners])
            facing = face_normals(vertices, corners)
            kept = _counterparts(scan - nearest, facing, directions)
            equations = _Equations(self._joined, self.mean, corners[kept], weights[kept], count)
            system, right = equations.normal_equations(scan[kept], facing[kept], slide)
            before = vertices
            code = _ridge(system, right, noise)
            vertices = self.mean + self._joined[..., :count] @ code
            used += 1
            if noise == noises[-1] and np.abs(vertices - before).max() * self.mm_per_unit < 1e-3:
                break
        distance, face, _ = nearest_on_surface(vertices, faces, scan)
        agrees = np.ones(len(scan), dtype=bool)
        if directions is not None:
            agrees = np.einsum("nj,nj->n", face_normals(vertices, faces[face]), directions) >= REJECTED_COSINE
        return _Fitted(code, distance**2, agrees, used)

    # -- on disk ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write FOLDER/linear.safetensors and then linear.json, which holds its checksum. Returns the folder."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name) for name in ("mean", "faces", "parts", "expressions")}
        arrays |= {MODES + name: modes for name, modes in self.modes.items()}
        write_arrays_atomic(path / ARRAYS_FILE, arrays)
        document = {"format": FORMAT_NAME, "version": FORMAT_VERSION, "sha256": sha256_file(path / ARRAYS_FILE)}
        document["codes"] = list(self.modes)
        write_json_atomic(path / FACTS_FILE, {**document, "facts": self.facts})
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> LinearModel:
        """Read a model. Raises ModelError when the folder has no linear model, one of another version, or a damaged one."""
        path = Path(folder)
        try:
            document = json.loads((path / FACTS_FILE).read_bytes())
            data = (path / ARRAYS_FILE).read_bytes()
        except (OSError, ValueError) as error:
            raise ModelError(f"no linear model in {path}: {error}") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT_NAME:
            raise ModelError(f"{path / FACTS_FILE} does not describe a linear model")
        if document.get("version") != FORMAT_VERSION:
            raise ModelError(
                f"{path} is a linear model of version {document.get('version')!r}, not {FORMAT_VERSION}; train it anew"
            )
        if hashlib.sha256(data).hexdigest() != document.get("sha256"):
            raise ModelError(
                f"{path / ARRAYS_FILE} is damaged (its bytes are not those that were written); train it anew"
            )
        try:
            arrays = load_arrays(data)
            return cls(
                arrays["mean"],
                {name: arrays[MODES + name] for name in document["codes"]},
                arrays["faces"],
                arrays["parts"],
                arrays["expressions"],
                document["facts"],
            )
        except (SafetensorError, KeyError) as error:
            raise ModelError(f"{path} is not a complete linear model ({error}); train it anew") from error


def principal_modes(offsets: Floats, count: int, freedom: int) -> Floats:
    """The first `count` principal modes [k,D] of offsets [n,D], each as long as its standard deviation (`freedom` in the denominator).

    With X = U S V^T, they are S V^T / sqrt(freedom) = U^T X / sqrt(freedom), with U from the Gram matrix X X^T: there are far
    fewer heads than coordinates. Modes as small as the rounding errors of stored vertices are left out.
    """
    variance, vectors = np.linalg.eigh(offsets @ offsets.T)
    variance, vectors = variance[::-1], vectors[:, ::-1]
    smallest = max(RANK_TOLERANCE * variance[0], offsets.shape[1] * ROUNDING**2)
    rank = int(np.count_nonzero(variance > smallest))
    modes: Floats = vectors[:, : min(rank, count)].T @ offsets / np.sqrt(freedom)
    return modes


class Reader(Protocol):
    """Reads the vertices of items of a dataset of surfaces: faces i32 [F,3] and parts u8 [V] are the same for all of them."""

    store: Dataset
    faces: NDArray[np.int32]
    parts: NDArray[np.uint8]

    def vertices(self, rows: Rows) -> Floats:
        """[n, 3 V] f64 in unit coordinates."""

    def describe(self) -> dict[str, Any]:
        """What else than the surfaces it has read, for the facts of a model."""


class Registered:
    """Reads the vertices of items and checks that their faces and parts equal those of the first."""

    def __init__(self, store: Dataset, first: str) -> None:
        self.store, self.first = store, first
        self.faces: NDArray[np.int32] = store.read(first, "faces")
        self.parts: NDArray[np.uint8] = store.read(first, "vertex_parts")

    def vertices(self, rows: Rows) -> Floats:
        """[n, 3 V] f64 in unit coordinates. Raises DataError for an item with other faces."""
        heads = np.empty((len(rows), 3 * len(self.parts)))
        for head, row in zip(heads, rows, strict=True):
            key = row["key"]
            for name, own in (("faces", self.faces), ("vertex_parts", self.parts)):
                if not np.array_equal(self.store.read(key, name), own):
                    raise DataError(
                        f"{self.store.path}: {name} of item {key} differ from those of item {self.first}; a linear model needs heads "
                        "that are all closed in the same way (facegraft clean --set mode=head)"
                    )
            head[:] = self.store.read(key, "vertices").astype(np.float64).ravel()
        return heads

    def describe(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, eq=False)
class TrainingHeads:
    """The registered heads that a linear model learns from, in unit coordinates: the surfaces themselves, or where these are height
    fields, the heads that they were made from (`heightfields`).

    neutral f64 [n, 3 V] and their index rows; expressive f64 [m, 3 V]: offsets of expressive scans from the neutral scan of the same
    subject, and the names [m] of their expressions; unpaired: keys of the expressive scans without one.
    """

    reader: Reader
    neutral: Floats
    rows: Rows
    expressive: Floats
    names: list[str]
    unpaired: list[str]
    split: str
    origins: tuple[str, ...]

    @classmethod
    def read(cls, surfaces: AnyPath, split: str, origins: Sequence[str]) -> TrainingHeads:
        """The heads of a split of a dataset of surfaces. Raises DataError when closed items do not share faces, when the heads of
        height fields are not found, and when there are fewer than two neutral heads."""
        store = open_dataset(surfaces)
        if store.kind != "surfaces":
            raise DataError(f"{store.path} holds {store.kind}; the linear model learns from surfaces (facegraft clean)")
        neutral_name = neutral_expression(store)
        rows = select_rows(store, split, origins=tuple(origins))
        reader: Reader = ClosedReader(store) if is_height_field(rows[0]) else Registered(store, rows[0]["key"])
        neutral = [row for row in rows if row["expression"] == neutral_name]
        if len(neutral) < 2:
            raise DataError(
                f"{store.path} has {len(neutral)} heads of expression {neutral_name!r} in split {split!r}; a linear model needs at least two"
            )
        heads = reader.vertices(neutral)
        of_subject = {row["subject"]: head for row, head in zip(neutral, heads, strict=True) if row["origin"] == SCAN}
        expressive = [row for row in rows if row["expression"] != neutral_name]
        paired = [row for row in expressive if row["subject"] in of_subject]
        offsets = reader.vertices(paired)
        for offset, row in zip(offsets, paired, strict=True):
            offset -= of_subject[row["subject"]]
        unpaired = sorted(row["key"] for row in expressive if row["subject"] not in of_subject)
        names = [str(row["expression"]) for row in paired]
        return cls(reader, heads, neutral, offsets, names, unpaired, split, tuple(origins))

    def expression_modes(self, count: int) -> Floats:
        """At most `count` modes [k, 3 V] of the expressive offsets about 0, so that code 0 is neutral."""
        if count == 0 or not len(self.expressive):
            return np.empty((0, self.neutral.shape[1]))
        return principal_modes(self.expressive, count, len(self.expressive))

    def expression_codes(self, modes: Floats) -> Floats:
        """The mean code [e, k] of each expression, in the order of their names, for modes [k, 3 V], which are orthogonal."""
        codes = self.expressive @ modes.T / (modes**2).sum(1)
        names = np.asarray(self.names, dtype=str)
        own = sorted(set(self.names)) if len(modes) else []
        return np.stack([codes[names == name].mean(0) for name in own]) if own else np.empty((0, len(modes)))

    def model(self, mean: Floats, modes: Mapping[str, Floats]) -> LinearModel:
        """The model of a mean [3 V] and modes [k, 3 V] by code, with what it learnt from in its facts."""
        store, shape = self.reader.store, (-1, len(self.reader.parts), 3)
        facts = {
            "mm_per_unit": store.mm_per_unit,
            "topology": dict(store.schema.topology),
            "frame": store.schema.frame,
            "part_set": store.parts.to_json(),
            "neutral_expression": neutral_expression(store),
            **self.reader.describe(),
            "trained_on": {
                "surfaces": str(store.path.resolve()),
                "fingerprint": store.fingerprint,
                "split": self.split,
                "origins": list(self.origins),
                "neutral_heads": len(self.neutral),
                "expressive_heads": len(self.expressive) if len(modes[EXP]) else 0,
                "without_neutral_head": self.unpaired,
            },
        }
        return LinearModel(
            mean.reshape(shape)[0],
            {name: of_code.reshape(shape) for name, of_code in modes.items()},
            self.reader.faces.astype(np.int64),
            self.reader.parts,
            self.expression_codes(modes[EXP]),
            facts,
        )


class _Equations:
    """q(z) = offset + rows z for points given by the corners [n,3] of their triangles and barycentric weights [n,3]."""

    def __init__(self, modes: Floats, mean: Floats, corners: Ints, weights: Floats, count: int) -> None:
        self.offset = np.einsum("nc,ncj->nj", weights, mean[corners])
        self.rows = np.zeros((len(corners), 3, count))
        for corner, weight in zip(corners.T, weights.T, strict=True):
            self.rows += weight[:, None, None] * modes[corner, :, :count]

    def normal_equations(self, points: Floats, normals: Floats, slide: float) -> tuple[Floats, Floats]:
        """Matrix [K,K] and right side [K] of least sum_i (n_i . d_i)^2 + slide^2 |d_i|^2, d = points - q(z)."""
        d = points - self.offset
        along = np.einsum("nj,njk->nk", normals, self.rows)
        system: Floats = along.T @ along
        right: Floats = along.T @ np.einsum("nj,nj->n", normals, d)
        if slide > 0:
            flat = self.rows.reshape(-1, self.rows.shape[2])
            system += slide**2 * (flat.T @ flat)
            right += slide**2 * (flat.T @ d.ravel())
        return system, right


def _ridge(system: Floats, right: Floats, noise: float) -> Floats:
    """z of least |A z - b|^2 / noise^2 + |z|^2, given A^T A and A^T b."""
    return np.asarray(np.linalg.solve(system + noise**2 * np.eye(len(system)), right), dtype=np.float64)


def _counterparts(gaps: Floats, facing: Floats, directions: Floats | None) -> NDArray[np.bool_]:
    """Mask [n] of the scan points with a counterpart, from the gaps [n,3] to the model, its normals [n,3] there and the scan's normals."""
    distance = np.linalg.norm(gaps, axis=1)
    kept = distance <= REJECTED_MEDIANS * np.median(distance) + np.finfo(np.float64).eps
    if directions is not None:
        agrees = np.einsum("nj,nj->n", facing, directions) >= REJECTED_COSINE
        # If no normal agrees, the scan's normals point inwards or it is not in the model's frame: nothing can be fitted.
        if not (kept & agrees).any():
            raise ModelError(
                "no point of the scan faces the way the model does; are its normals outward, and is it in the model's frame?"
            )
        kept &= agrees
    result: NDArray[np.bool_] = kept
    return result


def _chosen(points: ArrayLike, normals: ArrayLike | None, most: int, seed: int) -> tuple[Floats, Floats | None]:
    scan = np.asarray(points, dtype=np.float64)
    directions = None if normals is None else np.asarray(normals, dtype=np.float64)
    if scan.ndim != 2 or scan.shape[1] != 3 or not len(scan) or not np.isfinite(scan).all():
        raise ModelError(f"a scan is finite points [n,3], not shape {list(scan.shape)} or with NaN")
    if directions is not None and directions.shape != scan.shape:
        raise ModelError(f"normals must be [n,3] as the points, but have shape {list(directions.shape)}")
    if len(scan) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(len(scan), most, replace=False))
        scan, directions = scan[chosen], None if directions is None else directions[chosen]
    return scan, directions
