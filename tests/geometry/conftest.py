"""Heads for the tests of closing, clipping and distances: a synthetic one, and ICT heads where the data is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from facegraft.geometry.clipping import icosphere
from facegraft.geometry.closing import ClosedHead, HeadCloser
from facegraft.surfaces import topology


@pytest.fixture(scope="session")
def brute_force() -> ModuleType:
    """benchmarks/brute_force.py, the oracle that shares no code with the package."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "brute_force.py"
    spec = importlib.util.spec_from_file_location("brute_force", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class OpenHead:
    """A registered head with openings, as a topology's template, and a way to close it."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    openings: dict[str, NDArray[np.int64]]
    labels: NDArray[np.uint8]
    eyeballs: dict[str, NDArray[np.int64]]
    neck_loop: NDArray[np.int64] | None = None
    neck_drop: NDArray[np.int64] | None = None

    def closer(self) -> HeadCloser:
        return HeadCloser(
            self.vertices,
            self.faces,
            self.openings,
            self.labels,
            neck_loop=self.neck_loop,
            neck_drop=self.neck_drop,
            eyeballs=self.eyeballs,
        )


@pytest.fixture(scope="session")
def globe() -> OpenHead:
    """A dented ellipsoid of 100 mm with two eye holes, a slit for a mouth, an open neck, and loose eyeballs behind the eyes."""
    unit, faces = icosphere(5)
    places = {
        "eye_left": (np.array([0.35, 0.25, 0.9]), np.array([0.16, 0.09, 1.0])),
        "eye_right": (np.array([-0.35, 0.25, 0.9]), np.array([0.16, 0.09, 1.0])),
        "mouth": (np.array([0.0, -0.35, 0.94]), np.array([0.3, 0.05, 1.0])),
    }
    open_at = unit[:, 1] < -0.8
    labels = np.zeros(len(unit), dtype=np.uint8)
    for name, (where, extent) in places.items():
        off = (unit - where)[:, :2] / extent[:2]
        radius = np.linalg.norm(off, axis=1)
        front = unit[:, 2] > 0
        open_at |= front & (radius < 1.0)
        labels[front & (radius < 1.8)] = 3 if name == "mouth" else 2
    skin = faces[~open_at[faces].any(axis=1)]
    skin = skin[topology.face_components(skin) == np.bincount(topology.face_components(skin)).argmax()]
    vertices = unit * np.array([75.0, 110.0, 95.0])
    vertices[:, 2] += 20.0 * np.exp(-((unit[:, :2] / 0.15) ** 2).sum(axis=1)) * (unit[:, 2] > 0)
    loops = topology.boundary_loops(skin)
    openings = {}
    for loop in loops:
        middle = unit[loop].mean(axis=0)
        name = (
            "neck" if middle[1] < -0.7 else "mouth" if middle[1] < 0 else "eye_left" if middle[0] > 0 else "eye_right"
        )
        openings[name] = loop
    assert len(openings) == len(loops) == 4
    ball, _ = icosphere(2)
    eyeballs, every, count = {}, [vertices], len(vertices)
    for name in ("eye_left", "eye_right"):
        rim = vertices[openings[name]]
        every.append(ball * 13.0 + rim.mean(axis=0) - [0.0, 0.0, 8.0])
        eyeballs[name] = np.arange(count, count + len(ball))
        count += len(ball)
    labels = np.concatenate([labels, np.zeros(count - len(labels), dtype=np.uint8)])
    return OpenHead(np.concatenate(every), skin, openings, labels, eyeballs)


@pytest.fixture(scope="session")
def closed_globe(globe: OpenHead) -> ClosedHead:
    """The globe, closed."""
    return globe.closer().close(globe.vertices)


@dataclass(frozen=True)
class IctHeads:
    """The ICT topology's template in mm, and heads of it."""

    template: OpenHead
    closer: HeadCloser
    nose_tip: int
    head: Callable[..., NDArray[np.float64]]

    def closed(self, rng: np.random.Generator, **expression: float) -> ClosedHead:
        """A random head, closed, with the nose tip 40 mm in front of the origin."""
        head = self.closer.close(self.head(rng, **expression))
        tip = head.vertices[int(np.flatnonzero(head.source == self.nose_tip)[0])]
        return replace(head, vertices=head.vertices - tip + [0.0, 0.0, 40.0])


@pytest.fixture(scope="session")
def ict(data_dir: Path) -> IctHeads:
    """ICT heads: skin, openings and labels derived from the published groups, neck cut along a band of edges below the chin."""
    with np.load(data_dir / "ict" / "ict_facekit_light.npz") as model:
        neutral = model["neutral"].astype(np.float64) * 10.0
        faces = model["faces"].astype(np.int64)
        modes = model["id_delta"][:60].copy()
        shapes = dict(zip(model["ex_names"].tolist(), model["ex_delta"], strict=True))
        groups = dict(zip(model["geo_names"].tolist(), model["geo_vrange"].tolist(), strict=True))
        landmarks = model["lm68"].astype(np.int64)
    skin = faces[(faces < 11248).all(axis=1)]
    openings = {}
    for loop in topology.boundary_loops(skin):
        middle = neutral[loop].mean(axis=0)
        name = (
            "neck" if middle[1] < -100 else "mouth" if middle[1] < 0 else "eye_left" if middle[0] > 0 else "eye_right"
        )
        openings[name] = loop
    low = np.zeros(len(neutral), dtype=bool)
    low[:11248] = (neutral[:11248] - neutral[landmarks[8]]) @ [0.0, np.cos(0.2618), -np.sin(0.2618)] < -25.0
    kept = skin[~low[skin].any(axis=1)]
    named = [frozenset(loop.tolist()) for loop in openings.values()]
    cuts = [loop for loop in topology.boundary_loops(kept) if frozenset(loop.tolist()) not in named]
    assert len(cuts) == 1
    low[:11248][~np.isin(np.arange(11248), kept)] = True
    labels = np.zeros(len(neutral), dtype=np.uint8)
    for label, where in ((1, landmarks[27:36]), (2, landmarks[36:48]), (3, landmarks[48:68])):
        away = np.linalg.norm(neutral[:11248, None] - neutral[where][None], axis=2).min(axis=1)
        labels[:11248][away < 10.0] = label
    balls = {"eye_left": groups["eyeball_l"], "eye_right": groups["eyeball_r"]}
    eyeballs = {name: np.arange(*span, dtype=np.int64) for name, span in balls.items()}
    template = OpenHead(neutral, skin, openings, labels, eyeballs, cuts[0], np.flatnonzero(low))

    def head(rng: np.random.Generator, **expression: float) -> NDArray[np.float64]:
        weights = np.clip(rng.standard_normal(len(modes)), -2.5, 2.5)
        shape = neutral + 10.0 * np.tensordot(weights, modes, axes=1)
        for name, weight in expression.items():
            shape = shape + 10.0 * weight * shapes[name]
        return np.asarray(shape, dtype=np.float64)

    return IctHeads(template, template.closer(), int(landmarks[30]), head)
