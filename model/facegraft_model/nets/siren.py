"""A sine network whose weights may differ from item to item, and the explicit derivative of a scalar of its output.

Everything is a pure function of (x, weights), so a fused kernel could replace it and be tested in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Weights = list[tuple[Tensor, Tensor]]
"""Per layer: weight [B or 1, out, in] and bias [B or 1, out]."""


@dataclass(frozen=True)
class Matmul:
    """Precision of the products in hidden layers: the operands may be rounded to 16 bits; sums and phases stay in float32."""

    half: bool = False

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return _HalfProduct.apply(a, b) if self.half else torch.bmm(a, b)  # type: ignore[no-untyped-call]


EXACT = Matmul()


def cotangent_scale(grad: Tensor) -> float:
    """A power of two that scales the cotangent [B,N,out] of a mean over B N points to the range of float16.

    Unscaled it would underflow for the 10^5..10^6 points of a training step; a fixed scale would overflow for a few hundred points.
    """
    rows = grad.shape[0] * grad.shape[1]
    return 2.0 ** max(rows.bit_length() - 8, 0)


class _HalfProduct(torch.autograd.Function):
    """bmm with operands rounded to float16 and sums in float32, in both directions."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        a16, b16 = a.to(torch.float16), b.to(torch.float16)
        ctx.save_for_backward(a16, b16)
        return _product16(a16, b16)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a16, b16 = ctx.saved_tensors
        scale = cotangent_scale(grad)
        scaled = (grad * scale).to(torch.float16)
        return _product16(scaled, b16.transpose(1, 2)) / scale, _product16(a16.transpose(1, 2), scaled) / scale


def _product16(a: Tensor, b: Tensor) -> Tensor:
    if a.device.type == "cuda":
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())  # the CPU lacks this product: emulate it with the same rounding and sums


def affine(x: Tensor, weight: Tensor, bias: Tensor, matmul: Matmul = EXACT) -> Tensor:
    """x [B,N,in] through weight [B or 1,out,in] and bias [B or 1,out] → [B,N,out]."""
    if weight.shape[0] == 1:
        if matmul.half:
            return matmul(x.reshape(1, -1, x.shape[-1]), weight.transpose(1, 2)).view(*x.shape[:-1], -1) + bias[0]
        return torch.nn.functional.linear(x, weight[0], bias[0])
    if matmul.half:
        return matmul(x, weight.transpose(1, 2)) + bias.unsqueeze(1)
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


def affine_adjoint(g: Tensor, weight: Tensor, matmul: Matmul = EXACT) -> Tensor:
    """Cotangent g [B,N,out] of an affine layer's output → cotangent [B,N,in] of its input."""
    if weight.shape[0] == 1:
        if matmul.half:
            return matmul(g.reshape(1, -1, g.shape[-1]), weight).view(*g.shape[:-1], -1)
        return g @ weight[0]
    return matmul(g, weight)


def scale_frequency(weights: Weights, omega: float) -> Weights:
    """sin(omega (W h + b)) = sin((omega W) h + omega b): it is cheaper to scale the few weights than every point."""
    return [(omega * weight, omega * bias) for weight, bias in weights[:-1]] + [weights[-1]]


def siren_forward(x: Tensor, weights: Weights, matmul: Matmul = EXACT) -> tuple[Tensor, list[Tensor]]:
    """y = W_n sin(... sin(W_1 x + b_1) ...) + b_n, with the frequency already in the weights (`scale_frequency`).

    x [B,N,in] → y [B,N,out] and the phases W_i h + b_i [B,N,width] of the sine layers, for the adjoint.
    The first and the last product are never rounded.
    """
    phases = []
    h = x
    for layer, (weight, bias) in enumerate(weights[:-1]):
        phase = affine(h, weight, bias, matmul if layer else EXACT)
        phases.append(phase)
        h = torch.sin(phase)
    return affine(h, *weights[-1]), phases


def siren_features(x: Tensor, weights: Weights) -> Tensor:
    """Values [B,N,width] of the last sine layer at x [B,N,in]: those that the last, linear layer combines."""
    h = x
    for weight, bias in weights[:-1]:
        h = torch.sin(affine(h, weight, bias))
    return h


def siren_jacobian(x: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """y [B,N,out] at x [B,N,in], and its derivatives [B,N,out,in], from the last layer back to the first.

    The weights of the sine layers are shared by all heads, [1,out,in]; those of the last layer may differ.
    """
    y, phases = siren_forward(x, weights)
    slopes = weights[-1][0].unsqueeze(1)
    for (weight, _), phase in zip(reversed(weights[:-1]), reversed(phases), strict=True):
        slopes = (torch.cos(phase).unsqueeze(2) * slopes) @ weight[0]
    return y, slopes


def at_shared_points(x: Tensor, weights: Weights) -> Tensor:
    """y [B,N,out] at the same points x [N,in] for every head: the sine layers, whose weights all heads share, run once."""
    h = siren_features(x[None], weights)[0]
    weight, bias = weights[-1]
    together = torch.nn.functional.linear(h, weight.flatten(0, 1), bias.flatten())
    return together.view(len(h), *bias.shape).transpose(0, 1)


def siren_adjoint(g: Tensor, weights: Weights, phases: list[Tensor], matmul: Matmul = EXACT) -> Tensor:
    """Cotangent g [B,N,out] of y → cotangent [B,N,in] of x, by ordinary differentiable operations."""
    g = affine_adjoint(g, weights[-1][0])
    for layer in range(len(phases) - 1, -1, -1):
        g = affine_adjoint(torch.cos(phases[layer]) * g, weights[layer][0], matmul if layer else EXACT)
    return g


def fold_landmarks(weights: Weights, landmarks: Tensor) -> Weights:
    """The same network on x instead of on the offsets (x - l_1, …, x - l_K).

    The first layer is linear in the offsets: sum_k W_k (x - l_k) + b = (sum_k W_k) x + (b - sum_k W_k l_k), exactly.
    weights[0]: [B or 1, width, 3K]; landmarks [B or 1, K, 3] → weights whose first layer is [B or 1, width, 3].
    """
    weight, bias = weights[0]
    blocks = weight.view(weight.shape[0], weight.shape[1], -1, 3)
    offset = (blocks * landmarks.unsqueeze(1)).sum((2, 3))
    bias = bias - offset
    return [(blocks.sum(2).expand(len(bias), -1, -1), bias), *weights[1:]]
