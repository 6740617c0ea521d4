"""The masks of parts."""

from __future__ import annotations

import pytest
import torch
from facegraft_model.errors import ModelError
from facegraft_model.nets.mask import PartMask
from small_morphs import sphere

F64 = torch.float64


def test_a_mask_is_1_at_its_part_and_0_at_all_other_points() -> None:
    points = sphere(400).float()
    labels = (points[:, 2] > 0.8).to(torch.uint8)
    mask = PartMask(points, labels, 1, 0.001, 0.05)
    value = mask(points[None]).value[0, :, 0]
    assert bool((value[labels == 0] == 0).all()) and bool((value[labels == 1] > 0.999).all())
    reached = mask.closeness(points[None])[0] > 0
    assert bool(reached[labels == 1].all())
    around = 1.2 * torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, -1.0, 1.0])
    value, reached = mask(around[None]).value[0, :, 0], mask.closeness(around[None])[0] > 0
    assert 100 < int((value > 0).sum()) <= int(reached.sum()) < 1.1 * int((value > 0).sum())
    assert bool(reached[value > 0].all())


def test_a_masks_gradient_is_that_of_finite_differences() -> None:
    points = sphere(200)
    mask = PartMask(points, (points[:, 2] > 0.7).to(torch.uint8), 1, 0.2, 0.3).double()
    q = (points[None, points[:, 2] > 0.5] * 1.05).clone()
    step = 1e-6
    differences = [
        (mask(q + offset).value - mask(q - offset).value) / (2 * step) for offset in step * torch.eye(3, dtype=F64)
    ]
    here = mask(q)
    assert float(here.grad.abs().max()) > 1
    torch.testing.assert_close(here.grad, torch.cat(differences, 2), rtol=0, atol=1e-5)


def test_a_part_without_points_has_no_mask() -> None:
    points = sphere(50).float()
    with pytest.raises(ModelError, match="0 registered points of part 2"):
        PartMask(points, torch.ones(50, dtype=torch.uint8), 2, 0.1, 0.2)
