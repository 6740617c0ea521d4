"""How often ingest refuses, moves or warns of heads that are good: it should never.

    FACEGRAFT_DATA=DIR python benchmarks/false_alarms.py [--subjects 200] [--expressions 20] [--family NAME …] [--seed 0]

Every head goes through ingest's own plan and item function, as if it came from a file, but stays in memory. Families: `ict`, identities
N(0, 1) clipped at 2.5 with FaceScape's expressions; `ict-extreme`, each of the model's shapes alone and with the jaw open, at full
weight, and the expressions at 1.5 times theirs; `synthetic`, and `synthetic-extreme` with displacements times 1.5 and 2; `flame` and `facescape`, the
one mesh of each with smooth changes of identity and the jaw opened by up to 35 degrees. Exit 1 where anything was said.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from facegraft.engine import ItemRejected
from facegraft.engine.stage import StageContext
from facegraft.heads import synthetic
from facegraft.heads.expressions import BY_NAME, EXPRESSIONS, expression_intensity
from facegraft.heads.ict import identity_coefficients
from facegraft.heads.sanity import check_head
from facegraft.heads.source import Head, HeadSource, Loader, SourcePlan, subject_name
from facegraft.meshfiles.meshfile import read_triangles
from facegraft.regions.regionmap import RegionMap, load_region_map
from facegraft.seeds import stream, subject_rng
from facegraft.stages import ingest
from facegraft.store.remote import place
from facegraft.surfaces.topology import unique_edges
from facegraft.vocabulary import CHIN, NEUTRAL

Points = NDArray[np.float64]
CLIP = 2.5
REACH_MM, WAVES = 60.0, 12
"""Reach of the smooth changes that make another person of one mesh, and how many of them there are."""
IDENTITY_MM, EXPRESSION_MM = 6.0, 3.0
OPEN_DEG = (0.0, 10.0, 20.0, 30.0, 35.0)
"""The jaw opens by up to about 35 degrees."""
EXAGGERATED = (1.5, 2.0)


@dataclass(frozen=True)
class Family:
    """Good heads: their region map, faces [F, 3], the expressions, neutral first, and the vertices [V, 3] in mm of (subject, expression)."""

    region_map: RegionMap
    faces: NDArray[Any]
    expressions: Sequence[str]
    vertices: Callable[[int, str], Points]


class InMemory(HeadSource):
    """The heads of a family, as if each were a file."""

    def __init__(self, family: Family, subjects: int) -> None:
        self.family, self.subjects = family, subjects

    def plan(self) -> SourcePlan:
        heads = [
            Head(subject_name(s), name, None, {"subject": s, "expression": name}, f"{s}/{name}")
            for s in range(1, self.subjects + 1)
            for name in self.family.expressions
        ]
        return SourcePlan(self.family.region_map, np.asarray(self.family.faces, dtype=np.int32), heads)

    def loader(self, shared: Mapping[str, NDArray[Any]], region_map: RegionMap) -> Loader:
        def load(spec: Mapping[str, Any]) -> Points:
            vertices = self.family.vertices(spec["subject"], spec["expression"])
            check_head(vertices, region_map.landmarks68, 1.0, f"{spec['subject']}/{spec['expression']}")
            return vertices

        return load


@dataclass
class Alarms:
    """What ingest said of a family of good heads: heads seen, reasons of rejects, and warnings (of moved subjects, too)."""

    heads: int
    rejects: list[str]
    warnings: list[str]


def count(family: Family, subjects: int, seed: int) -> Alarms:
    """Ingest so many subjects of a family, writing nothing."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    source, log = InMemory(family, subjects), logging.getLogger("facegraft")
    log.addHandler(handler)
    try:
        with tempfile.TemporaryDirectory() as folder, patch.object(ingest, "make_source", lambda *_: source):
            parameters = ingest.Parameters(kind="meshes", region_map="-")
            plan = ingest.plan_ingest(place(folder), parameters, seed)
            context = StageContext(place(folder), [folder], parameters.model_dump(), plan.shared, plan.region_map, seed)
            stage, rejects = ingest.IngestStage(context), []
            for item in plan.items:
                try:
                    stage.process(item, np.random.default_rng(0))
                except ItemRejected as reason:
                    rejects.append(str(reason))
    finally:
        log.removeHandler(handler)
    return Alarms(len(plan.items), rejects, said)


def ict(data: Path, seed: int, extreme: bool, clip: float = CLIP) -> Family:
    """ICT identities with FaceScape's expressions; `extreme`: every shape alone and with an open jaw, and the expressions at 1.5 times their weights."""
    model = np.load(data / "ict" / "ict_facekit_light.npz")
    region_map = load_region_map("ict")
    scale = region_map.mm_per_unit
    neutral, modes, shapes = (scale * model[name].astype(np.float64) for name in ("neutral", "id_delta", "ex_delta"))
    numbers = {str(name): i for i, name in enumerate(model["ex_names"])}

    @lru_cache(maxsize=2)
    def identity(subject: int) -> Points:
        return neutral + np.tensordot(identity_coefficients(seed, subject, len(modes), 1.0, clip), modes, axes=1)

    def named(subject: int, name: str) -> dict[str, float]:
        """Weights of the shapes of an expression of one of the forms NAME, NAME*FACTOR, shape SHAPE, shape SHAPE + jawOpen."""
        if name.startswith("shape "):
            return dict.fromkeys(name.removeprefix("shape ").split(" + "), 1.0)
        plain, _, factor = name.partition("*")
        intensity = float(factor) if factor else expression_intensity(seed, "ict", subject, BY_NAME[plain])
        return {shape: intensity * weight for shape, weight in BY_NAME[plain].shapes.items()}

    def vertices(subject: int, name: str) -> Points:
        head = identity(subject).copy()
        for shape, weight in named(subject, name).items():
            head += weight * shapes[numbers[shape]]
        return head

    expressions = [expression.name for expression in EXPRESSIONS]
    if extreme:
        expressions = [NEUTRAL, *(f"{e.name}*{EXAGGERATED[0]:g}" for e in EXPRESSIONS if e.weights)]
        expressions += [f"shape {shape}{more}" for shape in numbers for more in ("", " + jawOpen") if shape != "jawOpen" or not more]
    return Family(region_map, model["faces"], expressions, vertices)


def synthetic_heads(seed: int, extreme: bool) -> Family:
    """The synthetic family; `extreme`: the displacements of its expressions times `EXAGGERATED`."""

    @lru_cache(maxsize=2)
    def identity(subject: int) -> Points:
        return synthetic.sample_identity(subject_rng(seed, "synthetic", subject, "identity"))

    def vertices(subject: int, name: str) -> Points:
        plain, _, factor = name.partition("*")
        if not factor:
            return synthetic.head(identity(subject), plain, expression_intensity(seed, "synthetic", subject, BY_NAME[plain]))
        neutral = synthetic.head(identity(subject), NEUTRAL, 1.0)
        return neutral + float(factor) * (synthetic.head(identity(subject), plain, 1.0) - neutral)

    expressions = list(synthetic.EXPRESSIONS)
    if extreme:
        expressions = [NEUTRAL, *(f"{name}*{factor:g}" for name in synthetic.EXPRESSIONS if name != NEUTRAL for factor in EXAGGERATED)]
    return Family(load_region_map("synthetic"), synthetic.template().faces, expressions, vertices)


def one_mesh(name: str, data: Path, seed: int) -> Family:
    """People made of the one mesh of topology `flame` or `facescape`, with the jaw opened by `OPEN_DEG`."""
    if name == "flame":
        region_map = load_region_map("flame")
        points, faces = read_triangles(data / "flame" / "template.ply")
    else:
        region_map = load_region_map("facescape_v16")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sample.obj"
            path.write_bytes(gzip.decompress((data / "facescape" / "facescape_v16_sample.obj.gz").read_bytes()))
            points, faces = read_triangles(path, region_map.symmetry)
    points = region_map.mm_per_unit * points
    marks = region_map.landmarks68
    sides = lip_sides(points, faces, marks)

    @lru_cache(maxsize=2)
    def identity(subject: int) -> Points:
        return points if subject == 1 else waved(points, points, IDENTITY_MM, stream(seed, "false alarms", name, str(subject)))

    def vertices(subject: int, expression: str) -> Points:
        if expression == NEUTRAL:
            return identity(subject)
        draw = stream(seed, "false alarms", name, str(subject), expression)
        head = waved(identity(subject), identity(subject)[marks[48:]], EXPRESSION_MM, draw)
        return opened(head, marks, sides, float(expression.removeprefix("jaw ")))

    return Family(region_map, faces, [NEUTRAL, *(f"jaw {angle:g}" for angle in OPEN_DEG)], vertices)


def waved(vertices: Points, where: Points, size_mm: float, draw: np.random.Generator) -> Points:
    """Vertices [V, 3] after smooth random displacements of about `size_mm` about random points of `where` [n, 3]."""
    moved = vertices.copy()
    for centre in where[draw.integers(len(where), size=WAVES)]:
        reach = np.exp(-((vertices - centre) ** 2).sum(1) / (2 * REACH_MM**2))
        moved += size_mm * draw.normal(size=3) * reach[:, None] / WAVES**0.5
    return moved


def opened(vertices: Points, marks: NDArray[np.int64], sides: Points, degrees: float) -> Points:
    """Vertices [V, 3] with the lower jaw turned down about an axis through the jaw's joints; marks: the vertices of the 68 landmarks; sides: `lip_sides`."""
    joint, chin = vertices[marks[[1, 15]]].mean(axis=0), vertices[marks[CHIN]]
    corners = vertices[marks[[60, 64]]].mean(axis=0)
    ahead = np.clip((vertices[:, 2] - joint[2]) / (corners[2] - joint[2]), 0, 1)
    below = joint[1] + ahead * (corners[1] - joint[1]) - vertices[:, 1]
    by_height = np.clip(0.5 + below / 25.0, 0, 1)
    near = np.clip(2.0 - np.abs(sides[:, 1]) / 20.0, 0, 1)
    weight = near * sides[:, 0] + (1 - near) * by_height
    weight *= np.clip((vertices[:, 2] - joint[2]) / 40.0, 0, 1)
    weight *= np.clip(1 - (chin[1] - 10.0 - vertices[:, 1]) / 50.0, 0, 1)  # the neck stays
    angle = np.radians(degrees) * weight
    y, z = (vertices - joint)[:, 1], (vertices - joint)[:, 2]
    turned = np.column_stack([vertices[:, 0], y * np.cos(angle) - z * np.sin(angle), y * np.sin(angle) + z * np.cos(angle)])
    return turned + np.array([0, joint[1], joint[2]])


def lip_sides(vertices: Points, faces: NDArray[Any], marks: NDArray[np.int64]) -> Points:
    """For each vertex [V, 2]: 0 at the upper lip to 1 at the lower one, by the ways along the mesh, which do not cross the slit; and the way in mm to the nearer."""
    edges = unique_edges(np.asarray(faces, dtype=np.int64))
    lengths = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    graph = coo_matrix((lengths, edges.T), shape=(len(vertices), len(vertices))).tocsr()
    upper, lower = (dijkstra(graph, directed=False, indices=marks[lip], min_only=True) for lip in ([49, 50, 51, 52, 53, 61, 62, 63], [55, 56, 57, 58, 59, 65, 66, 67]))
    with np.errstate(invalid="ignore"):
        side = np.clip(0.5 + (upper - lower) / 10.0, 0, 1)
    return np.column_stack([np.where(np.isfinite(side), side, 0.0), np.minimum(np.minimum(upper, lower), 1e6)])


FAMILIES = ("ict", "ict-extreme", "synthetic", "synthetic-extreme", "flame", "facescape")


def family(name: str, data: Path, seed: int, expressions: int | None = None) -> Family:
    """One of `FAMILIES`, with its first so many expressions (default: all)."""
    if name.startswith("ict"):
        found = ict(data, seed, name.endswith("extreme"))
    elif name.startswith("synthetic"):
        found = synthetic_heads(seed, name.endswith("extreme"))
    else:
        found = one_mesh(name, data, seed)
    return Family(found.region_map, found.faces, found.expressions[:expressions], found.vertices)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FACEGRAFT_DATA", "../shared/data")))
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--expressions", type=int, help="the first so many (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| family | heads | rejected | warnings |\n|---|---|---|---|")
    alarms = []
    for name in options.family:
        found = count(family(name, options.data, options.seed, options.expressions), options.subjects, options.seed)
        print(f"| {name} | {found.heads:,} | {len(found.rejects)} | {len(found.warnings)} |", flush=True)
        alarms += [f"{name}: {text}" for text in found.rejects + found.warnings]
    print(*alarms[:20], sep="\n", file=sys.stderr)
    sys.exit(1 if alarms else 0)


if __name__ == "__main__":
    main()
