"""A morph to first order about points of its template: the first steps of a fit need no evaluation of its nets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from facegraft_model.nets.basis import BasisNet
from facegraft_model.nets.mask import PartMask


class Expansion(NamedTuple):
    """The displacement of one net at points [n,3], and its derivatives there: mean [n,3], modes [n,3,d]; mean_slope [n,3,3] and
    mode_slopes [n,3,3,d], the last axis but one being that of the derivative."""

    mean: Tensor
    modes: Tensor
    mean_slope: Tensor
    mode_slopes: Tensor

    def at(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Displacements [B,n,3] and derivatives [B,n,3,3] for codes [B,d]."""
        return self.mean + _summed(self.modes, code), self.mean_slope + _summed(self.mode_slopes, code)


def _summed(modes: Tensor, code: Tensor) -> Tensor:
    """Sums [B,...] of modes [...,d], weighted by codes [B,d]."""
    return (modes.flatten(0, -2) @ code.T).T.reshape(len(code), *modes.shape[:-1])


@torch.no_grad()
def expanded(net: BasisNet, points: Tensor, mask: PartMask | None) -> Expansion:
    """The expansion of a net, times its mask if it has one, at points [n,3] of the template."""
    hidden = net.hidden()
    h, slopes = points, torch.eye(3, dtype=points.dtype, device=points.device).expand(len(points), 3, 3)
    for weight, bias in hidden:
        phase = torch.nn.functional.linear(h, weight[0], bias[0])
        slopes = torch.cos(phase).unsqueeze(1) * (slopes @ weight[0].T)  # [n,3,width]: by the axis of the derivative
        h = torch.sin(phase)
    fields = torch.cat([net.mean[None], net.modes])  # [1 + d,3,features + 1]
    flat = fields.flatten(0, 1)
    value = (h @ flat[:, :-1].T + flat[:, -1]).view(len(points), -1, 3).transpose(1, 2)
    slope = (slopes @ flat[:, :-1].T).view(len(points), 3, -1, 3).permute(0, 3, 1, 2)
    if mask is not None:
        here = mask(points[None])
        inside, fading = here.value[0].unsqueeze(1), here.grad[0]
        slope = inside.unsqueeze(3) * slope + value.unsqueeze(2) * fading[:, None, :, None]
        value = inside * value
    return Expansion(value[..., 0], value[..., 1:].contiguous(), slope[..., 0], slope[..., 1:].contiguous())
