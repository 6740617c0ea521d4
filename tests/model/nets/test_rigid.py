"""Rigid motions by screws: against the matrix exponential, and the explicit adjoint against autograd."""

from __future__ import annotations

import pytest
import torch
from facegraft_model.nets.rigid import TWIST, factors, screw, screw_adjoint
from torch import Tensor

F64 = torch.float64


def by_matrix(x: Tensor, twist: Tensor) -> Tensor:
    """The displacement by the exponential of the 4 x 4 matrix [[w]x v; 0 0]."""
    (a, b, c), zero = twist[..., :3].unbind(-1), torch.zeros_like(twist[..., 0])
    skew = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero], -1).unflatten(-1, (3, 3))
    matrix = torch.zeros(*twist.shape[:-1], 4, 4, dtype=twist.dtype)
    matrix[..., :3, :3], matrix[..., :3, 3] = skew, twist[..., 3:]
    motion = torch.matrix_exp(matrix)
    return (motion[..., :3, :3] @ x[..., None])[..., 0] + motion[..., :3, 3] - x


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 0.3, 0.999, 1.001, 3.0])
def test_points_move_by_the_matrix_exponential_and_the_adjoint_is_autograds(angle: float) -> None:
    """Values and first derivatives, and those of the adjoint itself, on both sides of the change from series to closed form."""
    g = torch.Generator().manual_seed(1)
    x, v, cotangent = (torch.randn(2, 5, 3, dtype=F64, generator=g) for _ in range(3))
    w = angle * torch.nn.functional.normalize(torch.randn(2, 5, 3, dtype=F64, generator=g), dim=-1)
    twist = torch.cat([w, v], -1)
    assert twist.shape[-1] == TWIST
    torch.testing.assert_close(screw(x, twist), by_matrix(x, twist), rtol=1e-12, atol=1e-13)
    inputs = [value.requires_grad_() for value in (cotangent, x, twist)]
    true = torch.autograd.grad((screw(x, twist) * cotangent).sum(), [x, twist], create_graph=True)
    ours = screw_adjoint(cotangent, x, twist)
    again = [torch.autograd.grad(sum(each.square().sum() for each in pair), inputs) for pair in (ours, true)]
    for one, other in zip((*ours, *again[0]), (*true, *again[1]), strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_factors_do_not_jump_where_the_series_ends() -> None:
    below, above = (factors(torch.tensor([1.0 + side * 1e-12], dtype=F64)) for side in (-1, 1))
    for one, other in zip(below, above, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=0)
