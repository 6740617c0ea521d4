"""The pieces of a mini-net: each explicit adjoint against autograd, the folding of landmarks, windows, and how weights start."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from facegraft_model.config import ModelConfig
from facegraft_model.errors import ModelError
from facegraft_model.nets.blend import BlendNet
from facegraft_model.nets.hyper import HyperNet, PlainSiren, siren_bound, siren_shapes, siren_tensors
from facegraft_model.nets.landmarks import LandmarkNet
from facegraft_model.nets.mininet import MiniNet
from facegraft_model.nets.siren import (
    EXACT,
    Matmul,
    Weights,
    affine,
    affine_adjoint,
    fold_landmarks,
    scale_frequency,
    siren_adjoint,
    siren_forward,
)
from facegraft_model.nets.window import part_ellipsoid, part_window
from torch import Tensor

F64 = torch.float64


def random_weights(items: int, shapes: list[tuple[int, int]], dtype: torch.dtype = F64) -> Weights:
    return [
        (torch.randn(items, *shape, dtype=dtype) / math.sqrt(shape[1]), torch.randn(items, shape[0], dtype=dtype))
        for shape in shapes
    ]


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor, cotangent: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(function(x), x, cotangent)[0]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


# -- sine networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [1, 3])
def test_a_sine_network_is_its_formula(items: int) -> None:
    x, weights = torch.randn(3, 7, 4, dtype=F64), random_weights(items, [(5, 4), (5, 5), (2, 5)])
    y, phases = siren_forward(x, scale_frequency(weights, 30.0))
    for b in range(3):
        h = x[b]
        for weight, bias in weights[:-1]:
            h = torch.sin(30.0 * (h @ weight[b % items].T + bias[b % items]))
        weight, bias = weights[-1]
        torch.testing.assert_close(y[b], h @ weight[b % items].T + bias[b % items], rtol=0, atol=1e-12)
    assert [tuple(phase.shape) for phase in phases] == [(3, 7, 5)] * 2


@pytest.mark.parametrize("items", [1, 3])
def test_the_adjoint_of_a_sine_network_is_autograd(items: int) -> None:
    x, weights = torch.randn(3, 7, 4, dtype=F64), scale_frequency(random_weights(items, [(5, 4), (5, 5), (2, 5)]), 5.0)
    g = torch.randn(3, 7, 2, dtype=F64)
    y, phases = siren_forward(x, weights)
    expected = by_autograd(lambda x: siren_forward(x, weights)[0], x, g)
    torch.testing.assert_close(siren_adjoint(g, weights, phases), expected, rtol=1e-12, atol=1e-12)
    assert y.shape == g.shape


def test_gradcheck_of_forward_and_adjoint_with_respect_to_points_weights_and_biases() -> None:
    weights = random_weights(2, [(3, 2), (3, 3), (1, 3)])
    flat = [tensor.requires_grad_(True) for pair in weights for tensor in pair]

    def both(x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        pairs = list(zip(tensors[::2], tensors[1::2], strict=True))
        y, phases = siren_forward(x, pairs)
        return y, siren_adjoint(torch.ones_like(y), pairs, phases)

    assert torch.autograd.gradcheck(both, (torch.randn(2, 2, 2, dtype=F64, requires_grad=True), *flat))


@pytest.mark.parametrize("items", [1, 3])
def test_folding_landmarks_changes_nothing(items: int) -> None:
    x, landmarks = torch.randn(3, 7, 3, dtype=F64), torch.randn(3, 5, 3, dtype=F64)
    weights = random_weights(items, [(6, 15), (2, 6)])
    offsets = (x.unsqueeze(2) - landmarks.unsqueeze(1)).flatten(2)
    unfolded, _ = siren_forward(offsets, weights)
    folded, _ = siren_forward(x, fold_landmarks(weights, landmarks))
    torch.testing.assert_close(folded, unfolded, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("points", [8, 200_000])
def test_rounded_products_are_within_half_precision(items: int, points: int) -> None:
    """precision fp16-hidden: operands of 11 bits, sums in float32, in the value and in both gradients.

    The cotangent is that of a weighted mean, whether over so few points that it is large or so many that it is tiny.
    """
    x = torch.randn(3, points, 4, requires_grad=True)
    weight, bias = torch.randn(items, 6, 4, requires_grad=True), torch.randn(items, 6)
    g = torch.randn(3, points, 6)
    results = []
    for matmul in (EXACT, Matmul(half=True)):
        y = affine(x, weight, bias, matmul)
        gradients = torch.autograd.grad(y, (x, weight), 3e3 * g / (3 * points))
        results.append((y, *gradients, affine_adjoint(g, weight, matmul)))
    for exact, rounded in zip(*results, strict=True):
        assert exact.shape == rounded.shape and rounded.dtype == torch.float32
        assert not torch.equal(exact, rounded)
        assert (exact - rounded).norm() < 1e-3 * exact.norm()


# -- blending ------------------------------------------------------------------------------------------------------------


def test_the_blend_is_a_softmax_mlp_with_layer_norms() -> None:
    net = BlendNet(6, 4).double()
    for parameter in net.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x = torch.randn(2, 9, 3, dtype=F64)
    linear, norm = net.layers, net.norms
    plain = torch.nn.Sequential(
        linear[0], norm[0], torch.nn.LeakyReLU(0.01), linear[1], norm[1], torch.nn.LeakyReLU(0.01), linear[2], norm[2]
    )
    weights = torch.softmax(plain(x), -1)
    trace = net(x)
    torch.testing.assert_close(trace.weights, weights, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(weights)
    expected = by_autograd(lambda x: torch.softmax(plain(x), -1), x, g)
    torch.testing.assert_close(net.adjoint(g, trace), expected, rtol=1e-11, atol=1e-12)


def test_the_adjoint_of_a_mini_net_is_autograd_and_of_its_first_points_too() -> None:
    net = MiniNet(6, 5, 4).double()
    weights = random_weights(2, [(6, 3), (6, 6), (20, 6)])
    x, g = torch.randn(2, 9, 3, dtype=F64), torch.randn(2, 9, 4, dtype=F64)
    trace = net(x, weights)
    expected = by_autograd(lambda x: net(x, weights).out, x, g)
    torch.testing.assert_close(net.adjoint(g, trace, weights), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(net.adjoint(g[:, :4], trace.first(4), weights), expected[:, :4], rtol=1e-11, atol=1e-12)


# -- windows ---------------------------------------------------------------------------------------------------------------

INNER, OUTER = 1.1, 1.6


def cloud() -> Tensor:
    return torch.randn(200, 3, dtype=F64) * torch.tensor([0.2, 0.1, 0.05], dtype=F64) + 0.3


def test_the_ellipsoid_holds_all_points_and_touches_one() -> None:
    points = cloud()
    centre, metric = part_ellipsoid(points)
    offset = points - centre
    radius = ((offset @ metric.double()) * offset).sum(-1).sqrt()
    assert radius.max() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(metric, metric.T)
    assert torch.linalg.eigvalsh(metric).min() > 0


def test_the_ellipsoid_is_the_least_one() -> None:
    """That of a cube's corners is the sphere through them, and an affine map takes least ellipsoids to least ellipsoids."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=F64)] * 3)
    inside = corners[torch.randint(8, (300,))] * torch.rand(300, 1, dtype=F64)
    linear = torch.tensor([[2.0, 0.3, 0.0], [0.0, 1.0, -0.4], [0.1, 0.0, 0.7]], dtype=F64)
    shift = torch.tensor([0.5, -0.2, 3.0], dtype=F64)
    centre, metric = part_ellipsoid(torch.cat([corners, inside]) @ linear.T + shift)
    inverse = torch.linalg.inv(linear)
    torch.testing.assert_close(centre.double(), shift, rtol=0, atol=5e-3)
    torch.testing.assert_close(metric.double(), inverse.T @ inverse / 3, rtol=0, atol=5e-3)


def test_the_ellipsoid_of_a_flat_part_has_an_eighth_of_its_extent_in_depth() -> None:
    points = cloud()
    points[:, 2] = 0
    extent = torch.linalg.vector_norm(points - points.mean(0), dim=1).max()
    metric = part_ellipsoid(points)[1].double()
    depth = (1 / torch.linalg.eigvalsh(metric).max().sqrt() / extent).item()
    assert depth * (1 + 1e-3) > 0.125 and depth < 0.15


@pytest.mark.parametrize(
    "points", [torch.zeros(0, 3), torch.ones(1, 3), torch.ones(8, 3)], ids=["none", "one", "one place"]
)
def test_a_part_without_extent_has_no_ellipsoid(points: Tensor) -> None:
    with pytest.raises(ModelError, match="points"):
        part_ellipsoid(points)


def test_a_window_is_one_on_its_part_and_zero_far_away() -> None:
    points = cloud()
    centre, metric = (tensor.double() for tensor in part_ellipsoid(points))
    window = part_window(points[None], centre[None], metric, INNER, OUTER)
    assert torch.equal(window.value, torch.ones_like(window.value)) and window.grad.abs().max() == 0
    away = centre + 2 * (points - centre) / torch.linalg.norm(points - centre, dim=1, keepdim=True)
    window = part_window(away[None], centre[None], metric, INNER, OUTER)
    assert window.value.abs().max() == 0 and window.grad.abs().max() == 0
    at_centre = part_window(centre[None, None], centre[None], metric, INNER, OUTER)
    assert at_centre.value.item() == 1 and torch.isfinite(at_centre.grad).all()


def test_the_gradient_of_a_window_is_autograd_and_gradcheck_holds() -> None:
    centre, metric = torch.tensor([[0.3, 0.3, 0.3]], dtype=F64), part_ellipsoid(cloud())[1].double()
    x = (centre + 0.4 * torch.randn(1, 400, 3, dtype=F64)).requires_grad_(True)
    window = part_window(x, centre, metric, INNER, OUTER)
    between = (window.value > 0) & (window.value < 1)
    assert between.sum() > 20
    (expected,) = torch.autograd.grad(window.value.sum(), x)
    torch.testing.assert_close(window.grad, expected, rtol=1e-12, atol=1e-12)
    some = x.detach()[:, between[0, :, 0]][:, :5].requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x, c: tuple(part_window(x, c, metric, INNER, OUTER)), (some, centre.clone().requires_grad_(True))
    )


def test_a_window_is_twice_continuously_differentiable() -> None:
    """Along a ray from the centre, value and first two derivatives are continuous where the pieces meet (differences vanish with h)."""
    metric, centre = torch.eye(3, dtype=F64), torch.zeros(1, 3, dtype=F64)

    def derivatives(r: float) -> Tensor:
        x = torch.tensor([[[r, 0.0, 0.0]]], dtype=F64, requires_grad=True)
        window = part_window(x, centre, metric, INNER, OUTER)
        (second,) = torch.autograd.grad(window.grad[..., 0].sum(), x)
        return torch.stack([window.value.squeeze(), window.grad[0, 0, 0], second[0, 0, 0]]).detach()

    for border in (INNER, OUTER):
        jumps = [(derivatives(border - h) - derivatives(border + h)).abs().max() for h in (1e-3, 1e-5)]
        assert jumps[1] < 1e-2 * jumps[0] * 2 and jumps[1] < 1e-2
    assert derivatives((INNER + OUTER) / 2)[0].item() == pytest.approx(0.5)


# -- how weights start -----------------------------------------------------------------------------------------------------


def test_sine_weights_start_uniform_in_sitzmanns_bounds() -> None:
    shapes, omega = siren_shapes(15, 128, 5), 30.0
    assert shapes == [(128, 15), (128, 128), (128, 128), (128, 128), (5, 128)]
    for layer, ((out, fan_in), (weight, bias)) in enumerate(
        zip(shapes, siren_tensors(shapes, omega, False), strict=True)
    ):
        bound = 1 / 15 if layer == 0 else math.sqrt(6 / 128) / 30
        assert siren_bound(layer, fan_in, omega) == pytest.approx(bound)
        assert weight.shape == (out, fan_in) and bias.shape == (out,)
        assert weight.abs().max() <= bound and bias.abs().max() <= 1 / math.sqrt(fan_in)
        # The standard deviation of a uniform distribution is bound / sqrt(3); of n numbers it is known to about 1 / sqrt(n).
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=4 / math.sqrt(weight.numel()))
        assert weight.mean().item() == pytest.approx(0, abs=4 * bound / math.sqrt(3 * weight.numel()))


def test_phases_keep_their_spread_from_layer_to_layer() -> None:
    """What the bounds are for: phases of standard deviation about 1 in every layer after the first, whatever the depth."""
    net = PlainSiren(siren_shapes(3, 256, 1), 30.0)
    _, phases = siren_forward(2 * torch.rand(1, 2000, 3) - 1, scale_frequency(net(), 30.0))
    bias_only = math.sqrt((30.0**2) / 3 / 256)  # the biases' own share, uniform in 30 / sqrt(fan in)
    for phase in phases[1:]:
        assert math.hypot(0.8, bias_only * 0.8) < phase.std().item() < math.hypot(1.2, bias_only * 1.2)


@pytest.mark.parametrize("kind", ["full", "low-rank", "film"])
def test_a_hyper_network_starts_as_a_sine_network_without_output(kind: str) -> None:
    config = ModelConfig(hyper=kind, width=64, hyper_width=64, hyper_rank=4)  # type: ignore[arg-type]
    shapes = siren_shapes(15, 64, 15)
    net = HyperNet(config, 12, shapes)
    weights = net(0.01 * torch.randn(3, 12))
    for layer, ((weight, bias), shape) in enumerate(zip(weights, shapes, strict=True)):
        assert weight.shape == (3, *shape) and bias.shape == (3, shape[0])
        base = net.base_weights[layer]
        bound = siren_bound(layer, shape[1], config.omega)
        if layer == len(shapes) - 1:
            assert base.abs().max() == 0
        assert (weight - base).std().item() < 0.25 * bound
    y, _ = siren_forward(
        torch.randn(3, 100, 3), scale_frequency(fold_landmarks(weights, torch.randn(3, 5, 3)), config.omega)
    )
    assert y.abs().mean() < 0.05


@pytest.mark.parametrize("kind", ["full", "low-rank", "film"])
def test_every_weight_depends_on_the_code(kind: str) -> None:
    config = ModelConfig(hyper=kind, width=8, hyper_width=8, hyper_rank=2)  # type: ignore[arg-type]
    net = HyperNet(config, 4, siren_shapes(6, 8, 2)).double()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    one, other = net(torch.randn(1, 4, dtype=F64)), net(torch.randn(1, 4, dtype=F64))
    for (weight, bias), (weight2, bias2) in zip(one, other, strict=True):
        assert (weight != weight2).all() and (bias != bias2).all()
    both = net(torch.cat([torch.zeros(1, 4, dtype=F64), torch.ones(1, 4, dtype=F64)]))
    alone = net(torch.ones(1, 4, dtype=F64))
    for (weight, bias), (weight2, bias2) in zip(both, alone, strict=True):
        torch.testing.assert_close(weight[1:], weight2, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(bias[1:], bias2, rtol=1e-12, atol=1e-14)


def test_a_hyper_network_is_one_mlp_a_tensor() -> None:
    """Batched trunks are the same as separate MLPs z-h-h-numel."""
    net = HyperNet(ModelConfig(hyper="full", width=8, hyper_width=8), 4, siren_shapes(6, 8, 2)).double()
    z = torch.randn(3, 4, dtype=F64)
    for number, head in enumerate(net.heads):
        h = torch.relu(z @ net.first_weight[number].T + net.first_bias[number])
        h = torch.relu(h @ net.second_weight[number].T + net.second_bias[number])
        layer, is_bias = divmod(number, 2)
        base = (net.base_biases if is_bias else net.base_weights)[layer]
        expected = base + (h @ head.T).view(3, *base.shape)
        torch.testing.assert_close(net(z)[layer][is_bias], expected, rtol=1e-12, atol=1e-14)


def test_generated_landmarks_start_near_the_templates() -> None:
    base = torch.randn(5, 3)
    net = LandmarkNet(20, 256, base)
    generated = net(0.01 * torch.randn(4, 20))
    assert generated.shape == (4, 5, 3)
    assert (generated - base).abs().max() < 0.02
