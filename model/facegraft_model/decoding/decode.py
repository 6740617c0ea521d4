"""The head of one set of codes as a triangle mesh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facegraft.arrays import Floats, Labels
from facegraft.lazily import lazy_import
from facegraft_model.decoding.extract import Mesh, extract_surface
from facegraft_model.decoding.grid import Grid
from facegraft_model.decoding.templatemesh import template_mesh
from facegraft_model.errors import ModelError
from facegraft_model.method import Codes, Field


@dataclass(frozen=True, eq=False)
class Decoded:
    """A mesh in unit coordinates, with the field's template coordinates and part labels of its vertices.

    template_coords f64 [n,3]: None for a field without a warp. parts u8 [n], the label of the nearest stage point of the
    template: None also when the field was trained without stage points.
    """

    mesh: Mesh
    template_coords: Floats | None
    parts: Labels | None


def decode(
    field: Field,
    codes: Codes,
    *,
    resolution: int = 256,
    mode: Literal["sparse", "dense"] = "sparse",
    clip_ball: bool = True,
    keep: Literal["all", "largest"] = "all",
    polish: bool = True,
    safety: float = 1.25,
    chunk: int = 1 << 15,
) -> Decoded:
    """The head of one set of codes (each [1, dim]): mesh in unit coordinates, template coordinates and part labels.

    The grid spans [-1, 1]³ with `resolution` nodes per axis; clip_ball leaves out surfaces outside the unit ball.
    A field that can be unwarped (`Field.has_unwarp`) is extracted in the template's space, once, on a finer grid (`template_mesh`), and its
    vertices are moved to the head: all heads of a model then have the same triangles. At most `chunk` points go through the network at a time, in float32,
    without gradients; other arguments are those of `extract_surface`. Raises ModelError for codes of more than one head, and the errors of `extract_surface`.
    """
    wrong = [f"{name} {tuple(code.shape)}" for name, code in codes.items() if code.ndim != 2 or len(code) != 1]
    if wrong or not codes:
        raise ModelError(f"decode: takes the codes of one head, each [1, dim], not {', '.join(wrong) or 'none'}")
    device = next(iter(codes.values())).device
    options: dict[str, Any] = {
        "mode": mode,
        "chunk": chunk,
        "safety": safety,
        "polish": polish,
        "clip_radius": 1.0 if clip_ball else None,
        "keep": keep,
    }

    def ask(what: Callable[[Tensor], Tensor], points: NDArray[np.float32]) -> NDArray[np.float32]:
        return what(torch.from_numpy(points)[None].to(device))[0].float().cpu().numpy()

    def asked(what: Callable[[Tensor], Tensor], points: Floats) -> Floats:
        few = points.astype(np.float32)
        return np.concatenate([ask(what, few[a : a + chunk]) for a in range(0, len(few), chunk)]).astype(np.float64)

    with torch.no_grad(), full_precision(device):
        if field.has_unwarp:
            template = template_mesh(field, resolution, options)
            vertices = asked(lambda x: field.unwarp(x, codes), template.vertices)
            if not np.isfinite(vertices).all():
                raise ModelError("decode: the template's displacement is not finite; the network or its code is damaged")
            return Decoded(Mesh(vertices, template.faces), template.vertices, _part_labels(field, template.vertices))
        mesh = extract_surface(lambda points: ask(lambda x: field.sdf(x, codes), points), Grid.cube(resolution), **options)
        if not field.has_warp:
            return Decoded(mesh, None, None)
        template_coords = asked(lambda x: field.warp(x, codes), mesh.vertices)
    if not np.isfinite(template_coords).all():
        raise ModelError("decode: the warp to the template is not finite; the network or its code is damaged")
    return Decoded(mesh, template_coords, _part_labels(field, template_coords))


def _part_labels(field: Field, template_coords: Floats) -> Labels | None:
    if not len(field.template_points):
        return None
    tree = lazy_import("scipy.spatial").cKDTree(field.template_points.cpu().numpy())
    return field.template_parts.cpu().numpy().astype(np.uint8)[tree.query(template_coords)[1]]


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """float32 matrix products, no TF32 and no autocast, whatever the program has set for training."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
