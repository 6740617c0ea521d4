"""Principal and local modes of registered heads."""

from __future__ import annotations

import torch
from facegraft_model.nets.modes import local_modes, principal_modes, spread_points
from small_morphs import sphere
from torch import Tensor

F64 = torch.float64


def test_principal_modes_reproduce_their_heads() -> None:
    heads = torch.randn(7, 40, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    found = principal_modes(heads, 99)
    assert found.modes.shape == (6, 40, 3)
    rebuilt = found.mean + torch.einsum("nk,kmj->nmj", found.scores, found.modes)
    torch.testing.assert_close(rebuilt, heads)
    # Unit variance, as for a code N(0, 1).
    torch.testing.assert_close(found.scores.square().sum(0) / 6, torch.ones(6, dtype=F64))


def test_modes_of_equal_heads_are_none() -> None:
    assert len(principal_modes(torch.ones(3, 5, 3), 4).modes) == 0
    assert len(local_modes(torch.ones(3, 5, 3), sphere(5), 0.5, 4, 0).modes) == 0


def test_modes_of_no_heads_are_none() -> None:
    """Samples of neutral heads have no expression to take modes from."""
    found = principal_modes(torch.zeros(0, 5, 3), 4, centred=False)
    assert found.modes.shape == (0, 5, 3) and found.scores.shape == (0, 0) and not found.mean.any()


def test_local_modes_are_those_of_the_covariance_times_the_kernel() -> None:
    points, heads = sphere(60), torch.randn(5, 60, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    reach = 0.8
    found = local_modes(heads, points, reach, 30, seed=0)
    centred = (heads - heads.mean(0)).flatten(1)
    covariance = centred.T @ centred / 4
    kernel = torch.exp(-torch.cdist(points, points).square() / (2 * reach**2))
    local = covariance * kernel.repeat_interleave(3, 0).repeat_interleave(3, 1)
    values = torch.linalg.eigvalsh(local).flip(0)[:30]
    torch.testing.assert_close(found.modes.square().sum((1, 2)), values, rtol=2e-3, atol=1e-6)
    # More shapes than the four of the plain components, and a new head is nearer to them.
    assert len(found.modes) == 30 > len(principal_modes(heads, 30).modes)
    new = torch.randn(1, 60, 3, dtype=F64, generator=torch.Generator().manual_seed(3)).flatten() - heads.mean(0).flatten()

    def left(modes: Tensor) -> float:
        basis = torch.linalg.qr(modes.flatten(1).T)[0]
        return float(torch.linalg.vector_norm(new - basis @ (basis.T @ new)))

    assert left(found.modes) < 0.95 * left(principal_modes(heads, 30).modes)


def test_spread_points_are_far_apart() -> None:
    points = sphere(300)
    chosen = points[spread_points(points, 20)]
    distances = torch.cdist(chosen, chosen) + 9 * torch.eye(20, dtype=F64)
    assert float(distances.min()) > 0.4
