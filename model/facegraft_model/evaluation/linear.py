"""A linear model of registered heads in the manner of FLAME (Li et al. 2017): PCA of identity, PCA of expression, no network.

vertices = mean + the sum over its codes of z[i] modes[i], where each mode is scaled to unit variance over the training heads, so
that the prior of a code is N(0, 1). `LinearModel.train` gives the codes id and exp; `linearparts` has one with a code for each part.
It is a mesh model, not a field: it has no signed distance.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from facegraft.arrays import Floats, Ints
from facegraft.parts import Parts
from facegraft.store import AnyPath, sha256_file, write_arrays_atomic, write_json_atomic
from facegraft.vocabulary import EXP, SCAN, TRAIN
from facegraft_model.decoding.extract import Mesh
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.heightfields import REGISTERED, height_field_of
from facegraft_model.evaluation.pointfit import LinearMesh, chosen_points, fit_points, ridge
from facegraft_model.evaluation.trainingheads import TrainingHeads, principal_modes

ARRAYS_FILE, FACTS_FILE = "linear.safetensors", "linear.json"
FORMAT_NAME, FORMAT_VERSION = "facegraft linear model", 4
IDENTITY = "id"
MODES = "modes."
"""Prefix of the arrays that hold the modes of a code."""


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
        return cls.of(heads, mean, modes)

    @classmethod
    def of(cls, heads: TrainingHeads, mean: Floats, modes: Mapping[str, Floats]) -> LinearModel:
        """The model of a mean [3 V] and modes [k, 3 V] by code, learnt from the heads."""
        shape = (-1, len(heads.reader.parts), 3)
        return cls(
            mean.reshape(shape)[0],
            {name: of_code.reshape(shape) for name, of_code in modes.items()},
            heads.reader.faces.astype(np.int64),
            heads.reader.parts,
            heads.expression_codes(modes[EXP]),
            heads.facts(len(modes[EXP]) > 0),
        )

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
            code = ridge(self._gram[:count, :count], flat.T @ offset, noise_mm / self.mm_per_unit)
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
        scan, directions = chosen_points(points, normals, max_points, seed)
        if not (noise_mm > 0 and iterations > 0 and slide >= 0):
            raise ModelError(
                f"noise_mm ({noise_mm}) and iterations ({iterations}) must be positive, slide ({slide}) not negative"
            )
        count = self._count(expression)
        starts = np.zeros((1 + (len(self.expressions) if expression else 0), count))
        if expression:
            starts[1:, count - self.expressions.shape[1] :] = self.expressions
        mesh = LinearMesh(self.mean, self._joined, self.faces, self.mm_per_unit)
        best = fit_points(mesh, scan, directions, list(starts), noise_mm, slide, iterations)
        return self._fit(best.code, expression, best.squared, best.used)

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
