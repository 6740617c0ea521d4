"""Neural bases: displacement fields that are linear in a code, over a sine network whose hidden layers all codes share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facegraft_model.nets.hyper import siren_shapes, siren_tensors
from facegraft_model.nets.siren import Weights


class BasisNet(nn.Module):
    """v(q; z) = B_0(q) + sum_j z_j B_j(q): the fields B are the outputs of one sine network, their sum that of its last layer.

    The last layer is contracted with the code before it meets any point, so a head costs one network with three outputs, however long
    its code. width: of the hidden layers; features: of the last sine layer, which the fields are linear in; modes: length of the code.
    """

    def __init__(self, width: int, features: int, omega: float, modes: int) -> None:
        super().__init__()
        self.omega = omega
        *hidden, _ = siren_shapes(3, width, features)
        tensors = siren_tensors([hidden[0], hidden[1], (features, width)], omega, zero_last=False)
        self.weights = nn.ParameterList([weight for weight, _ in tensors])
        self.biases = nn.ParameterList([bias for _, bias in tensors])
        self.mean = nn.Parameter(torch.zeros(3, features + 1))
        self.modes = nn.Parameter(torch.zeros(modes, 3, features + 1))

    def hidden(self) -> Weights:
        """The shared layers, with the frequency in their weights, each [1,out,in] and [1,out]."""
        layers = [(weight[None], bias[None]) for weight, bias in zip(self.weights, self.biases, strict=True)]
        return [(self.omega * weight, self.omega * bias) for weight, bias in layers]

    def forward(self, z: Tensor) -> Weights:
        """z [B,modes] → per layer weight [1,out,in] and bias [1,out], of the last one [B,3,features] and [B,3]."""
        last = self.mean + torch.einsum("bk,kow->bow", z, self.modes)
        return [*self.hidden(), (last[..., :-1], last[..., -1])]
