"""Blend weights of the fields around K landmarks: a softmax of a small network of the position (ImFace's fusion net)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

SLOPE = 0.01
EPS = 1e-5


class BlendTrace(NamedTuple):
    """Values that the adjoint needs: blend weights [B,N,K], and normalised values and scales of the three LayerNorms."""

    weights: Tensor
    normalised: list[Tensor]
    scales: list[Tensor]

    def first(self, count: int) -> BlendTrace:
        """The trace of the first `count` points."""
        return BlendTrace(
            self.weights[:, :count], [t[:, :count] for t in self.normalised], [t[:, :count] for t in self.scales]
        )


class BlendNet(nn.Module):
    """x [B,N,3] → blend weights [B,N,K]: 3-w-w-K, LayerNorm and LeakyReLU twice, LayerNorm before the softmax.

    As in ImFace, it depends only on the position, not on any code.
    """

    def __init__(self, width: int, landmarks: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, landmarks)])
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(landmarks)])

    def _tensors(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight and bias of a layer, factor and shift of the LayerNorm after it."""
        layer, norm = self.layers[index], self.norms[index]
        assert isinstance(layer, nn.Linear) and isinstance(norm, nn.LayerNorm)
        return layer.weight, layer.bias, norm.weight, norm.bias

    def forward(self, x: Tensor) -> BlendTrace:
        normalised, scales = [], []
        h = x
        for index in range(3):
            weight, bias, factor, shift = self._tensors(index)
            z = nn.functional.linear(h, weight, bias)
            centred = z - z.mean(-1, keepdim=True)
            scale = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + EPS)
            n = centred * scale
            normalised.append(n)
            scales.append(scale)
            h = n * factor + shift
            h = torch.softmax(h, -1) if index == 2 else nn.functional.leaky_relu(h, SLOPE)
        return BlendTrace(h, normalised, scales)

    def adjoint(self, g: Tensor, trace: BlendTrace) -> Tensor:
        """Cotangent g [B,N,K] of the blend weights → cotangent [B,N,3] of x."""
        w = trace.weights
        g = w * (g - (w * g).sum(-1, keepdim=True))
        for index in (2, 1, 0):
            weight, _, factor, shift = self._tensors(index)
            n = trace.normalised[index]
            if index < 2:
                positive = (n * factor + shift > 0).to(g.dtype)
                g = g * (SLOPE + (1 - SLOPE) * positive)
            g = g * factor
            g = trace.scales[index] * (g - g.mean(-1, keepdim=True) - n * (g * n).mean(-1, keepdim=True))
            g = g @ weight
        return g
