"""Reference for the explicit adjoint: gradients by autograd, once for the point and once more for the weights.

Slow and memory-hungry; the tests and benchmarks compare the adjoint to it.
"""

from __future__ import annotations

import torch

from facegraft.vocabulary import EXP
from facegraft_model.cascade import Conditioning, Gradients, Trace
from facegraft_model.field import CascadeField


def double_backward_gradients(trace: Trace, create_graph: bool = True) -> Gradients:
    """d sdf / d p by torch.autograd.grad, at the points that `trace` was made from (they require a gradient) and after the first net."""
    count = trace.sdf.shape[1]
    point, neutral = torch.autograd.grad(trace.sdf.sum(), [trace.points[0], trace.points[1]], create_graph=create_graph)
    return Gradients(point[:, :count], neutral[:, :count])


class DoubleBackwardField(CascadeField):
    """The same model with the gradients of `double_backward_gradients`, as in ImFace."""

    def trace(self, points: torch.Tensor, conditioning: Conditioning, count: int | None = None) -> Trace:
        if not points.requires_grad:
            points = points.detach().requires_grad_(True)
        return super().trace(points, conditioning, count)

    def gradients(self, trace: Trace, conditioning: Conditioning) -> Gradients:
        gradients = double_backward_gradients(trace)
        # Without an expression the point itself is the neutral one.
        return gradients if EXP in conditioning.weights else Gradients(gradients.point, gradients.point)
