"""A blended landmark field: one sine network of the offsets to K landmarks, whose K outputs are blended by position."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from facegraft_model.nets.blend import BlendNet, BlendTrace
from facegraft_model.nets.siren import EXACT, Matmul, Weights, siren_adjoint, siren_forward


class NetTrace(NamedTuple):
    """Output [B,N,o] of a mini-net, and the values that its adjoint needs: the fields [B,N,K,o], phases, and the blend."""

    out: Tensor
    fields: Tensor
    phases: list[Tensor]
    blend: BlendTrace

    def first(self, count: int) -> NetTrace:
        """The trace of the first `count` points."""
        return NetTrace(
            self.out[:, :count], self.fields[:, :count], [t[:, :count] for t in self.phases], self.blend.first(count)
        )


class MiniNet(nn.Module):
    """f(x) = sum_k w_k(x) f_k(x - l_1, …, x - l_K) (Eq. 7 of Gu and Pears 2024; Zheng et al. 2022).

    The weights of the sine network are an argument; they are already folded onto x and scaled by the frequency
    (`siren.fold_landmarks`, `siren.scale_frequency`).
    """

    def __init__(self, blend_width: int, landmarks: int, outputs: int) -> None:
        super().__init__()
        self.blend = BlendNet(blend_width, landmarks)
        self.landmarks, self.outputs = landmarks, outputs

    def forward(self, x: Tensor, weights: Weights, matmul: Matmul = EXACT) -> NetTrace:
        """x [B,N,3] → out [B,N,o]."""
        blend = self.blend(x)
        y, phases = siren_forward(x, weights, matmul)
        fields = y.view(*y.shape[:-1], self.landmarks, self.outputs)
        return NetTrace((blend.weights.unsqueeze(-1) * fields).sum(2), fields, phases, blend)

    def adjoint(self, g: Tensor, trace: NetTrace, weights: Weights, matmul: Matmul = EXACT) -> Tensor:
        """Cotangent g [B,N,o] of the output → cotangent [B,N,3] of x."""
        g = g.unsqueeze(2)
        g_fields = (trace.blend.weights.unsqueeze(-1) * g).flatten(2)
        g_blend = (trace.fields * g).sum(-1)
        return siren_adjoint(g_fields, weights, trace.phases, matmul) + self.blend.adjoint(g_blend, trace.blend)
