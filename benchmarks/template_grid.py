"""What the grid and the merging of triangles cost the template's surface, by part.

    python benchmarks/template_grid.py RUN [--resolutions 256 512]

RUN: of a method with neural bases whose samples held a topology, or ict-head. The zero level of the exact distance of the template's own mesh,
marched at each resolution, and that of the model, are compared with that mesh: mean distance in mm from the mesh to the level. Then
random heads: how far merged triangles lie from the surface that they stand for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
import trimesh
from facegraft_model.decoding.extract import Mesh, extract_surface
from facegraft_model.decoding.grid import Grid
from facegraft_model.decoding.templatemesh import template_mesh
from facegraft_model.method import Field
from facegraft_model.models import load_field

from facegraft.surfaces.distance import signed_distance
from facegraft.surfaces.nearest import nearest_on_surface

POINTS, HEADS = 60_000, 3
OPTIONS = {"mode": "sparse", "clip_radius": 1.0, "keep": "all", "polish": True}


def sampled(mesh: Mesh, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on a mesh, evenly, and their faces."""
    points, faces = trimesh.sample.sample_surface(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), POINTS, seed=seed)
    return np.asarray(points), np.asarray(faces)


def merged_error_mm(field: Field, mesh: Mesh) -> np.ndarray:
    """Distances along the normal of points of merged triangles, moved with their corners, from the same points moved by the model."""
    draw, errors = torch.Generator().manual_seed(0), []
    for head in range(HEADS):
        codes = {}
        for name, dim in field.code_dims.items():
            known = field.code_statistics(name)
            root = torch.linalg.cholesky(known.covariance + 1e-6 * torch.eye(dim))
            codes[name] = known.mean + torch.randn(1, dim, generator=draw) @ root.T

        def moved(points: np.ndarray, codes: dict[str, torch.Tensor] = codes) -> np.ndarray:
            parts = torch.split(torch.from_numpy(points).float(), 1 << 15)
            return np.concatenate([field.unwarp(part[None], codes)[0].numpy() for part in parts]).astype(np.float64)

        points, faces = sampled(mesh, head)
        weights = trimesh.triangles.points_to_barycentric(mesh.vertices[mesh.faces[faces]], points)  # type: ignore[no-untyped-call]
        corners = moved(mesh.vertices)[mesh.faces[faces]]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-15)
        offsets = moved(points) - (weights[:, :, None] * corners).sum(1)
        errors.append(np.abs((offsets * normals).sum(1)) * field.mm_per_unit)
    return np.concatenate(errors)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[256, 512])
    arguments = parser.parse_args()
    field = load_field(arguments.run)
    topology = field.topology
    if topology is None:
        raise SystemExit(f"{arguments.run} knows no topology: its samples are of an older version")
    truth = Mesh(topology.closed_vertices.double().numpy(), topology.closed_faces.numpy())
    points, faces = sampled(truth, 0)
    labels = topology.closed_parts.numpy()[truth.faces[faces]].max(1)
    inside = np.linalg.norm(points, axis=1) < 0.97  # away from the ball, where the level is cut

    def exact(at: np.ndarray) -> np.ndarray:
        return signed_distance(truth.vertices, truth.faces, at.astype(np.float64), backend="winding").sdf

    def model(at: np.ndarray) -> np.ndarray:
        return field.template_sdf(torch.from_numpy(at)[None])[0].numpy()

    names = ["rem", *field.parts.names]
    print(f"{'level':<24}" + "".join(f"{name:>10}" for name in names) + f"{'triangles':>12}")

    def row(name: str, mesh: Mesh) -> None:
        distance = nearest_on_surface(mesh.vertices, mesh.faces, points).distance * field.mm_per_unit
        means = [distance[inside & (labels == label)].mean() for label in range(len(names))]
        print(f"{name:<24}" + "".join(f"{mean:>10.3f}" for mean in means) + f"{len(mesh.faces):>12,}", flush=True)

    sources: tuple[tuple[str, Callable[[np.ndarray], np.ndarray]], ...] = (("exact", exact), ("model", model))
    for resolution in arguments.resolutions:
        for name, distance in sources:
            row(f"{name}, {resolution} nodes", extract_surface(distance, Grid.cube(resolution), clip_radius=1.0, polish=True, chunk=1 << 15))
    merged = template_mesh(field, 256, OPTIONS)
    row("model, as decoded", merged)
    error = merged_error_mm(field, merged)
    print(f"\nmerged triangles on {HEADS} random heads: mean {error.mean():.4f} mm, 99.9 % below {np.percentile(error, 99.9):.3f} mm")


if __name__ == "__main__":
    main()
