"""Heads of the ICT Face Model Light: identities drawn at random, expressions made from its shapes.

The model is published as a folder of OBJ files that differ only in their vertices: `generic_neutral_mesh.obj`, one
`identityNNN.obj` for each identity mode (the neutral head plus that mode at weight 1) and one file for each expression
shape at weight 1. A head is neutral + Σ c_k · mode_k + Σ w_j · shape_j with c_k ~ N(0, sigma²) clipped at ±clip, as the
model's own sampler draws them (there without a clip). Li et al., "Learning Formation of Physically-Based Face
Attributes", CVPR 2020; https://github.com/ICT-VGL/ICT-FaceKit (MIT licence).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats
from facegraft.heads.errors import SourceError
from facegraft.heads.expressions import Expression, choose_expressions, expression_intensity
from facegraft.heads.folders import list_folder, match_faces
from facegraft.heads.options import IctOptions
from facegraft.heads.sanity import check_head
from facegraft.heads.source import (
    DEFAULT_EXPRESSIONS,
    DEFAULT_SUBJECTS,
    Head,
    HeadSource,
    Loader,
    SourcePlan,
    subject_name,
)
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.obj import parse_obj, parse_obj_vertices
from facegraft.meshfiles.rawmesh import RawMesh, read_bytes
from facegraft.regions.regionmap import RegionMap, load_region_map
from facegraft.seeds import subject_rng
from facegraft.store.remote import Location
from facegraft.surfaces.mirror import symmetrised

log = logging.getLogger("facegraft")

NEUTRAL_FILE = "generic_neutral_mesh.obj"
_IDENTITY = re.compile(r"identity(\d+)\.obj")


def identity_coefficients(seed: int, subject: int, modes: int, sigma: float, clip: float) -> Floats:
    """Coefficients [modes] of a subject: N(0, sigma²) clipped at ±clip (in units of one standard deviation of the model).

    The first coefficients stay the same when there are more modes.
    """
    drawn = subject_rng(seed, "ict", subject, "identity").standard_normal(modes)
    return np.clip(sigma * drawn, -clip, clip)


class IctSource(HeadSource):
    """The model's folder as published (`FaceXModel`)."""

    Options = IctOptions

    def __init__(self, path: Location | None, options: IctOptions, seed: int) -> None:
        assert path is not None
        self.path, self.options, self.seed = path, options, seed

    def plan(self) -> SourcePlan:
        """Read the model once (40 ms a file) and lay out subjects × expressions.

        Raises SourceError for a folder that is not FaceXModel (the message names the missing file) or expressions that
        its shapes cannot make, MeshError for a damaged file of the model, RegionMapError for a file of another topology.
        """
        names = self._names()
        modes = sorted((int(match[1]), name) for name in names if (match := _IDENTITY.fullmatch(name)))
        if not modes:
            raise SourceError(
                f"{self.path}: there are no identity modes (identity000.obj …); unpack the whole FaceXModel folder"
            )
        shape_files = {Path(name).stem for name in names if name.endswith(".obj")}
        chosen, left_out = choose_expressions(
            self.options.expressions, DEFAULT_EXPRESSIONS, shape_files, str(self.path)
        )
        if left_out:
            log.warning(
                "%s: left out because their shapes are missing: expressions %s", self.path, ", ".join(e.name for e in left_out)
            )
        shapes = sorted({shape for expression in chosen for shape in expression.shapes})

        region_map = load_region_map(self.options.region_map or "ict")
        if self.options.symmetrise > 0 and region_map.symmetry is None:
            raise SourceError(
                f"symmetrise={self.options.symmetrise:g} needs a region map with a symmetry; {region_map.name} has none"
            )
        scale, where = self._scale(region_map), str(self.path / NEUTRAL_FILE)
        data = read_bytes(self.path / NEUTRAL_FILE)
        neutral = parse_obj(data, where)
        faces = match_faces(neutral, region_map, where)
        check_head(neutral.vertices * scale, region_map.landmarks68, scale, where)

        shared = {
            "ict_neutral": (scale * neutral.vertices).astype(np.float32),
            "ict_identity": self._deltas(neutral, _after_vertices(data), [name for _, name in modes], scale),
            "ict_modes": np.array([number for number, _ in modes], dtype=np.int32),
            "ict_shapes": self._deltas(neutral, _after_vertices(data), [f"{shape}.obj" for shape in shapes], scale),
        }
        first, count = self.options.first_subject, self.options.subjects or DEFAULT_SUBJECTS
        heads = [
            self._head(number, expression, shapes) for number in range(first, first + count) for expression in chosen
        ]
        files = (NEUTRAL_FILE, *(name for _, name in modes), *(f"{shape}.obj" for shape in shapes))
        return SourcePlan(region_map, faces, heads, shared, files, columns={"intensity": "float64"})

    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        """Neutral plus the subject's modes, pulled to symmetry by `symmetrise`, plus the expression's shapes; float64 [V, 3] in mm."""
        neutral = shared["ict_neutral"].astype(np.float64)
        modes, options, scale = shared["ict_modes"], self.options, self._scale(region_map)

        @lru_cache(maxsize=2)  # a subject's expressions follow each other
        def identity(number: int) -> Floats:
            drawn = identity_coefficients(self.seed, number, int(modes.max()) + 1, options.sigma, options.clip)
            head = neutral + _combine(zip(drawn[modes], shared["ict_identity"], strict=True), neutral.shape)
            if region_map.symmetry is not None and options.symmetrise > 0:
                head += options.symmetrise * (symmetrised(head, region_map.symmetry) - head)
            check_head(head, region_map.landmarks68, scale, subject_name(number))
            return head

        def load(spec: Mapping[str, Any]) -> Floats:
            return identity(spec["number"]) + _combine(
                ((w, shared["ict_shapes"][i]) for i, w in spec["shapes"]), neutral.shape
            )

        return load

    def _names(self) -> set[str]:
        names = {entry.name for entry in list_folder(self.path)}
        if NEUTRAL_FILE not in names:
            inner = self.path / "FaceXModel" / NEUTRAL_FILE
            hint = f"did you mean {inner.parent}?" if inner.is_file() else "name the FaceXModel folder of ICT-FaceKit"
            raise SourceError(f"{self.path}: not a FaceXModel folder, {NEUTRAL_FILE} is missing; {hint}")
        return names

    def _scale(self, region_map: RegionMap) -> float:
        return self.options.mm_per_unit or region_map.mm_per_unit

    def _deltas(self, neutral: RawMesh, rest: bytes, names: Iterable[str], scale: float) -> NDArray[np.float32]:
        """Displacements [K, V, 3] in mm from the neutral head to the named files, which must have its faces."""
        names = list(names)
        deltas = np.empty((len(names), *neutral.vertices.shape), dtype=np.float32)
        for delta, name in zip(deltas, names, strict=True):
            path = self.path / name
            data = read_bytes(path)
            # As published, the text after the vertices equals the neutral head's: then the faces need not be parsed again.
            same = _after_vertices(data) == rest
            vertices = parse_obj_vertices(data, str(path)) if same else parse_obj(data, str(path)).vertices
            if vertices.shape != neutral.vertices.shape:
                raise MeshError(
                    f"{path}: {len(vertices)} vertices, but {NEUTRAL_FILE} has {len(neutral.vertices)}; unpack the model again"
                )
            if not same and not np.array_equal(parse_obj(data, str(path)).polygons, neutral.polygons):
                raise MeshError(f"{path}: its faces are not those of {NEUTRAL_FILE}; unpack the model again")
            delta[:] = scale * (vertices - neutral.vertices)
        return deltas

    def _head(self, number: int, expression: Expression, shapes: list[str]) -> Head:
        intensity = expression_intensity(self.seed, "ict", number, expression)
        weights = [[shapes.index(shape), intensity * weight] for shape, weight in expression.shapes.items()]
        return Head(
            subject=subject_name(number),
            expression=expression.name,
            number=expression.number,
            spec={"number": number, "shapes": weights},
            row={"intensity": intensity if weights else None},
        )


def _combine(terms: Iterable[tuple[float, NDArray[np.float32]]], shape: tuple[int, ...]) -> Floats:
    """Σ weight · displacement in float64, summed in the given order: a BLAS product may round differently on each machine."""
    total, scaled = np.zeros(shape), np.empty(shape)
    for weight, delta in terms:
        np.multiply(delta, weight, out=scaled, dtype=np.float64)
        total += scaled
    return total


def _after_vertices(data: bytes) -> bytes:
    """The text after the last vertex line."""
    last = data.rfind(b"\nv ")
    return data[data.find(b"\n", last + 1) :] if last >= 0 else b""
