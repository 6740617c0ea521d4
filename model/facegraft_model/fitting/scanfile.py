"""A scan from a file: a mesh or a point cloud, with given landmarks or without."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facegraft.meshfiles.points import PointCloud, read_points
from facegraft.meshfiles.precision import check_precision
from facegraft.seeds import derived_seed
from facegraft.surfaces.errors import SamplingError
from facegraft.surfaces.sampling import sample_surface
from facegraft_model.errors import ModelError
from facegraft_model.fitting.plausible import check_points

SURFACE_SAMPLES = 100_000
FAR_MM = 10_000.0
"""A scan that lies farther from the origin is centred before its numbers are cut to 32 bits."""


@dataclass(frozen=True)
class Scan:
    """A scan: points in mm, f32 [n,3], normals f32 [n,3] (0 where unknown), and the given landmarks by iBUG index.

    unit_mm: millimetres per unit of its file, for messages. centre: what was taken from points and landmarks, in mm.
    """

    points: Tensor
    normals: Tensor
    landmarks: dict[int, NDArray[np.float64]]
    unit_mm: float = 1.0
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)


def read_scan(
    path: str | os.PathLike[str], unit_mm: float, landmarks: str | os.PathLike[str] | None, seed: int
) -> Scan:
    """Read a mesh (sampled evenly over its area) or a point cloud. unit_mm: millimetres per unit of the file.

    landmarks: JSON object iBUG index → [x, y, z], or a list of 68 points, in the file's unit. A scan far from the origin is centred, and a
    cloud's points that are there twice count once.
    Raises MeshError for a file that cannot be read, or whose numbers are rounded coarsely, ModelError for a mesh without area, too few
    different points, and points on a line or in a plane.
    """
    cloud = read_points(path)
    check_precision(cloud.points, unit_mm, str(path), scanned=True)
    rng = np.random.default_rng(derived_seed(seed, "scan"))
    if cloud.faces is not None:
        try:
            drawn = sample_surface(cloud.points, cloud.faces, SURFACE_SAMPLES, rng)
        except SamplingError as error:
            raise ModelError(f"{path}: {error}; export the mesh again, or give only its points") from error
        points, normals = drawn.points, drawn.normals
    else:
        points, normals = _cloud_samples(cloud, rng)
    try:
        check_points(points)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    if cloud.faces is None:
        points, normals = _different(points, normals)
    points = unit_mm * points
    middle = np.round(np.median(points, axis=0))
    centre = middle if np.abs(middle).max() > FAR_MM else np.zeros(3)
    given = {} if landmarks is None else _read_landmarks(Path(landmarks), unit_mm)
    x, y, z = centre.tolist()
    return Scan(
        torch.from_numpy(points - centre).float(),
        torch.from_numpy(normals).float(),
        {index: point - centre for index, point in given.items()},
        unit_mm,
        (x, y, z),
    )


def _cloud_samples(cloud: PointCloud, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    chosen = rng.permutation(len(cloud.points))[:SURFACE_SAMPLES]
    normals = np.zeros_like(cloud.points) if cloud.normals is None else cloud.normals
    return cloud.points[chosen], normals[chosen]


def _different(points: NDArray[np.float64], normals: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each of the points [n,3] once, in their order: scans that were joined repeat some, and programs fill gaps with one and the same."""
    first = np.sort(np.unique(points, axis=0, return_index=True)[1])
    return points[first], normals[first]


def _read_landmarks(path: Path, unit_mm: float) -> dict[int, NDArray[np.float64]]:
    try:
        document: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no landmarks: {error}") from error
    pairs = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    found: dict[int, NDArray[np.float64]] = {}
    for name, value in pairs:
        point = np.asarray(value, dtype=np.float64) if isinstance(value, list) else np.zeros(0)
        if point.shape != (3,) or not np.isfinite(point).all() or not str(name).isdigit() or int(name) > 67:
            raise ModelError(f"{path}: landmark {name!r} must be an iBUG index 0..67 with [x, y, z], found {value!r}")
        found[int(name)] = unit_mm * point
    if not found:
        raise ModelError(f"{path}: no landmarks; write a JSON object of iBUG index and [x, y, z]")
    return found
