"""How the remainder's modes move the insides of parts."""

from __future__ import annotations

import torch
from facegraft_model.morph.carry import RIM_MM, SEAM_MM, carried_by_rims, part_depths
from facegraft_model.nets.modes import Modes
from torch import Tensor

F64 = torch.float64
MM = 100.0


def face() -> tuple[Tensor, Tensor]:
    """Points of a curved sheet, and labels: a disk of 25 mm is the part 1."""
    x, y = torch.meshgrid(torch.linspace(-0.5, 0.5, 41, dtype=F64), torch.linspace(-0.5, 0.5, 41, dtype=F64), indexing="ij")
    points = torch.stack([x.flatten(), y.flatten(), 0.3 - x.flatten() ** 2 - 0.5 * y.flatten() ** 2], 1)
    return points, (points[:, :2].norm(dim=1) < 0.25).to(torch.uint8)


def test_depths_are_distances_to_other_labels() -> None:
    points, labels = face()
    depths = part_depths(points, labels, points, labels)
    middle = int(points.norm(dim=1, p=2).sub(0.3).abs().argmin())
    assert labels[middle] == 1 and 0.24 < float(depths[middle]) < 0.30
    for row in (0, 700, 840):
        apart = (points[labels != labels[row]] - points[row]).norm(dim=1).min()
        torch.testing.assert_close(depths[row], apart)
    assert torch.isinf(part_depths(points, labels * 0, points, labels * 0)).all()


def test_a_part_is_carried_by_the_map_of_its_rim() -> None:
    """Affine modes stay as they are; a mode that moves the part alone is gone at its core, and stays at the seam."""
    points, labels = face()
    draw = torch.Generator().manual_seed(0)
    affine = torch.einsum("kab,pb->kpa", 0.1 * torch.randn(5, 3, 3, generator=draw, dtype=F64), points)
    bump = torch.zeros(1, *points.shape, dtype=F64)
    bump[0, labels == 1, 2] = 0.05
    modes = Modes(torch.zeros_like(points), torch.cat([affine, bump]), torch.zeros(1, 6))
    heads = torch.einsum("nk,kpa->npa", torch.randn(30, 5, generator=draw, dtype=F64), affine)
    depths = part_depths(points, labels, points, labels)
    found = carried_by_rims(modes, heads, points, labels, depths, MM)
    assert torch.equal(found[:, labels == 0], modes.modes[:, labels == 0])
    assert float((found[:5] - affine).norm(dim=2).max()) < 1e-4
    core = (labels == 1) & (depths * MM >= SEAM_MM)
    seam = (labels == 1) & (depths * MM < 0.5 * SEAM_MM)
    assert int(core.sum()) > 50 and int(seam.sum()) > 50
    assert float(found[5, core].norm(dim=1).max()) < 1e-9
    assert float(found[5, seam, 2].min()) > 0.5 * 0.05 - 1e-9


def test_a_part_without_a_rim_keeps_its_modes() -> None:
    points, labels = face()
    lonely = labels.clone()
    far = points[:, :2].norm(dim=1) < 0.25 + 1.5 * RIM_MM / MM
    points = points[far & (labels == 1) | (points[:, 0] > 0.45)]
    lonely = (points[:, 0] <= 0.45).to(torch.uint8)
    modes = Modes(torch.zeros_like(points), torch.randn(3, *points.shape, dtype=F64), torch.zeros(1, 3))
    depths = part_depths(points, lonely, points, lonely)
    found = carried_by_rims(modes, modes.modes, points, lonely, depths, MM)
    assert torch.equal(found, modes.modes)
