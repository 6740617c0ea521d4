"""The mask of a part in the template's space: 1 in the part, 0 wherever the nearest of the template's points is another part's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from facegraft_model.errors import ModelError
from facegraft_model.nets.modes import spread_points

LEAST = 1e-12
FULL, NONE = 1.2, 1.6
"""Above and below the skin nothing bounds a part, so the mask fades between these radii of the sphere around it."""
FEW = 96
"""Points of either side that tell most of the points where the mask is 0."""


class Mask(NamedTuple):
    """Value [B,N,1] of a mask, and its gradient [B,N,3]."""

    value: Tensor
    grad: Tensor


class PartMask(nn.Module):
    """m(q) = smoothstep((d_out - d_in) / fade): d_in and d_out are the distances to the nearest of the template's points in the part and to
    the nearest of the others. It is exactly 0 at every point of the others, so a part's code moves nothing else, and 1 at every point
    of the part, as far as `fade`, the least distance of a point of the part from the others, is within `narrow` and `wide`.

    points [M,3] and labels u8 [M] of the template. Raises ModelError for a part without points.
    """

    centre: Tensor
    inside: Tensor
    outside: Tensor
    few_inside: Tensor
    few_outside: Tensor

    def __init__(self, points: Tensor, labels: Tensor, part: int, narrow: float, wide: float) -> None:
        super().__init__()
        chosen = labels == part
        if int(chosen.sum()) < 4 or bool((points[chosen] == points[chosen][0]).all()):
            raise ModelError(
                f"the template has {int(chosen.sum())} registered points of part {part}, which are too few or in one place; sample "
                "with more stage points, and with part labels"
            )
        inside, outside = points[chosen].float(), points[~chosen].float()
        centre = (inside.amin(0) + inside.amax(0)) / 2
        gaps = torch.cdist(inside, outside).min(1).values if len(outside) else inside.new_tensor([wide])
        self.fade = float(gaps.min().clamp(narrow, wide))
        self.radius = float(torch.linalg.vector_norm(inside - centre, dim=1).max())
        # The nearest of the others to a point in the sphere is in a sphere of twice the size, if any of them counts at all.
        near = torch.linalg.vector_norm(outside - centre, dim=1) < 2 * NONE * self.radius
        self.register_buffer("centre", centre, persistent=False)
        self.register_buffer("inside", inside, persistent=False)
        outside = outside[near]
        self.register_buffer("outside", outside, persistent=False)
        few = inside[spread_points(inside, FEW)]
        self.register_buffer("few_inside", few, persistent=False)
        self.register_buffer("few_outside", outside[spread_points(outside, FEW)] if len(outside) else outside, persistent=False)
        # No point of the part is nearer to q than the nearest of the few, less this.
        self.covered = float(torch.cdist(inside, few).amin(1).max())

    def closeness(self, q: Tensor) -> Tensor:
        """[B,N]: above 0 for every point [B,N,3] where the mask can be above 0."""
        bound = NONE * self.radius - torch.linalg.vector_norm(q - self.centre, dim=2)
        if not len(self.outside):
            return bound
        within, without = (torch.cdist(q, few.to(q.dtype).expand(len(q), -1, -1)).amin(2) for few in (self.few_inside, self.few_outside))
        return torch.minimum(bound, without - within + self.covered)

    def forward(self, q: Tensor) -> Mask:
        """The mask at points q [B,N,3]."""
        within, toward = _nearest(q, self.inside)
        if not len(self.outside):
            value, grad = torch.ones_like(within), torch.zeros_like(toward)
        else:
            without, away = _nearest(q, self.outside)
            value, slope = _smoothstep((without - within) / self.fade)
            grad = slope / self.fade * (away - toward)
        offset = q - self.centre
        distance = (offset * offset).sum(2, keepdim=True).clamp_min(LEAST).sqrt()
        width = (NONE - FULL) * self.radius
        bound, slope = _smoothstep((NONE * self.radius - distance) / width)
        return Mask(bound * value, bound * grad - value * slope / width * offset / distance)


def _smoothstep(s: Tensor) -> tuple[Tensor, Tensor]:
    """The quintic step from 0 at 0 to 1 at 1, and its slope."""
    s = s.clamp(0, 1)
    return s * s * s * (10 + s * (6 * s - 15)), 30 * s * s * (1 - s) * (1 - s)


def _nearest(q: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Distance [B,N,1] of q to the nearest of the points, and the direction [B,N,3] away from it."""
    with torch.no_grad():
        # |q - p|^2 without |q|^2, which is the same for all points p.
        points = points.to(q.dtype)
        index = torch.addmm(points.square().sum(1), q.flatten(0, 1), points.T, alpha=-2).argmin(1).view(q.shape[:2])
    offset = q - points[index]
    distance = (offset * offset).sum(2, keepdim=True).clamp_min(LEAST).sqrt()
    return distance, offset / distance
