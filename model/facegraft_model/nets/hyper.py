"""Hyper-networks: they map a latent code to the weights of a mini-net."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from facegraft_model.config import ModelConfig
from facegraft_model.nets.siren import Weights


def siren_shapes(inputs: int, width: int, outputs: int) -> list[tuple[int, int]]:
    """(out, in) of the five linear layers."""
    return [(width, inputs), *[(width, width)] * 3, (outputs, width)]


def siren_bound(layer: int, fan_in: int, omega: float) -> float:
    """Half-width of the uniform initialisation: 1/n of the first layer, sqrt(6/n)/omega after it (Sitzmann et al. 2020)."""
    return 1 / fan_in if layer == 0 else math.sqrt(6 / fan_in) / omega


def siren_tensors(shapes: list[tuple[int, int]], omega: float, zero_last: bool) -> list[tuple[Tensor, Tensor]]:
    """Freshly drawn weights and biases; zero_last: the network starts at zero."""
    tensors = []
    for layer, (out, fan_in) in enumerate(shapes):
        bound = siren_bound(layer, fan_in, omega)
        weight = torch.empty(out, fan_in).uniform_(-bound, bound)
        bias = torch.empty(out).uniform_(-1, 1) / math.sqrt(fan_in)
        if zero_last and layer == len(shapes) - 1:
            weight, bias = torch.zeros(out, fan_in), torch.zeros(out)
        tensors.append((weight, bias))
    return tensors


class PlainSiren(nn.Module):
    """Weights that no code changes (the template's SDFNet)."""

    def __init__(self, shapes: list[tuple[int, int]], omega: float) -> None:
        super().__init__()
        tensors = siren_tensors(shapes, omega, zero_last=False)
        self.weights = nn.ParameterList([weight for weight, _ in tensors])
        self.biases = nn.ParameterList([bias for _, bias in tensors])

    def forward(self) -> Weights:
        """Per layer: weight [1,out,in], bias [1,out]."""
        return [(weight[None], bias[None]) for weight, bias in zip(self.weights, self.biases, strict=True)]


class HyperNet(nn.Module):
    """z [B,d] → weights of a sine network of five linear layers, per layer [B,out,in] and [B,out].

    There is one ReLU MLP (d-h-h-numel) per tensor; the MLPs' hidden layers run as two batched products. The MLP predicts,
    full: the tensor itself; low-rank: factors U [out,r], V [r,in] of a change of a shared matrix, the rows of V scaled to unit
    length; film: a factor and a shift per output, (1 + s) * W, as FiLM does. Biases are always predicted as changes of shared ones.
    The shared tensors start as a SIREN, the predicted changes near zero and the last layer at zero: no deformation at first.
    """

    def __init__(self, config: ModelConfig, code_dim: int, shapes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.kind, self.shapes, self.rank = config.hyper, shapes, config.hyper_rank
        base = siren_tensors(shapes, config.omega, zero_last=True)
        self.base_weights = nn.ParameterList([weight for weight, _ in base])
        self.base_biases = nn.ParameterList([bias for _, bias in base])
        sizes = [size for shape in shapes for size in (self._weight_size(shape), shape[0])]
        hidden, heads = config.hyper_width, len(sizes)
        self.first_weight = nn.Parameter(_kaiming((heads, hidden, code_dim), code_dim))
        self.first_bias = nn.Parameter(torch.empty(heads, hidden).uniform_(-1, 1) / math.sqrt(code_dim))
        self.second_weight = nn.Parameter(_kaiming((heads, hidden, hidden), hidden))
        self.second_bias = nn.Parameter(torch.empty(heads, hidden).uniform_(-1, 1) / math.sqrt(hidden))
        self.heads = nn.ParameterList([_kaiming((size, hidden), hidden) / 100 for size in sizes])

    def _weight_size(self, shape: tuple[int, int]) -> int:
        out, fan_in = shape
        return {"full": out * fan_in, "low-rank": (out + fan_in) * self.rank, "film": out}[self.kind]

    def forward(self, z: Tensor) -> Weights:
        trunk = torch.relu(torch.einsum("bd,thd->tbh", z, self.first_weight) + self.first_bias[:, None])
        trunk = torch.relu(torch.baddbmm(self.second_bias[:, None], trunk, self.second_weight.transpose(1, 2)))
        weights: Weights = []
        for layer, (out, fan_in) in enumerate(self.shapes):
            change = nn.functional.linear(trunk[2 * layer], self.heads[2 * layer])
            bias = self.base_biases[layer] + nn.functional.linear(trunk[2 * layer + 1], self.heads[2 * layer + 1])
            base = self.base_weights[layer]
            if self.kind == "full":
                weight = base + change.view(-1, out, fan_in)
            elif self.kind == "film":
                weight = base * (1 + change).unsqueeze(2)
            else:
                left, right = change[:, : out * self.rank], change[:, out * self.rank :]
                # With both factors free, their scales diverge: single heads got weights a hundred times the shared ones'.
                directions = nn.functional.normalize(right.reshape(-1, self.rank, fan_in), dim=2)
                weight = base + torch.bmm(left.reshape(-1, out, self.rank), directions)
            weights.append((weight, bias))
        return weights


def _kaiming(shape: tuple[int, ...], fan_in: int) -> Tensor:
    return torch.randn(shape) * math.sqrt(2 / fan_in)
