"""Shared by DeepSDF and i3DMM: weight-normalised ReLU networks of (code, point), clamped distances, bounded codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from facegraft_model.bounds import positive
from facegraft_model.config import Config, FitConfig, own_options
from facegraft_model.data.ids import IdTable
from facegraft_model.losses import robust
from facegraft_model.method import Batch, Codes, Field, SDFGrad, TemplateFacts, mahalanobis, sampled_points
from facegraft_model.methods import MethodOptions

PUBLISHED_FIT = FitConfig(
    steps=800, lr=5e-3, schedule="step", lr_factor=0.1, lr_every=400.0, lr_from=400.0, surface=0, code=1e-4, init="mean"
)
"""The fit that DeepSDF was published with and i3DMM took over: the rate falls to a tenth halfway. Each adds its own points."""


class WeightNormLinear(nn.Module):
    """y = g v / |v| x + b, row by row (Salimans and Kingma 2016); it starts as PyTorch's Linear does."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        plain = nn.Linear(inputs, outputs)
        self.direction = nn.Parameter(plain.weight.detach().clone())
        self.gain = nn.Parameter(plain.weight.detach().norm(dim=1, keepdim=True))
        self.bias = nn.Parameter(plain.bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        return self.gain * functional.normalize(self.direction, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


def unbiased_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer whose bias starts at 0.

    PyTorch's own initial bias, ± inputs^-1/2, is within the clamped distances at the published widths, but beyond them in a narrow
    network: then all its distances are clamped at the start and have no gradient.
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.bias)
    return layer


class CodedMLP(nn.Module):
    """A ReLU network of code and point, which are concatenated to the activations again before layer `layers` // 2.

    narrow: the layer before has fewer outputs, so that the concatenated activations are `width` long (DeepSDF); otherwise it
    has `width` outputs, and they are longer (i3DMM). Hidden layers are weight-normalised, the last one is not.
    """

    def __init__(
        self,
        code_dim: int,
        point_dim: int,
        width: int,
        layers: int,
        outputs: int,
        *,
        narrow: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        entered = code_dim + point_dim
        self.code_dim, self.point_dim, self.joint, self.dropout = code_dim, point_dim, layers // 2, dropout
        sizes_in, sizes_out = [entered] + [width] * (layers - 1), [width] * layers
        if narrow:
            sizes_out[self.joint - 1] -= entered
        else:
            sizes_in[self.joint] += entered
        self.hidden = nn.ModuleList(
            WeightNormLinear(inputs, size) for inputs, size in zip(sizes_in, sizes_out, strict=True)
        )
        self.last = unbiased_linear(width, outputs)

    def forward(self, code: Tensor, points: Tensor) -> Tensor:
        """Codes [B,c] and (encoded) points [B,N,p] → [B,N,outputs]."""
        h: Tensor | None = None
        for index, layer in enumerate(self.hidden):
            assert isinstance(layer, WeightNormLinear)
            h = self._entering(layer, h, code, points) if index in (0, self.joint) else layer(h)
            h = functional.dropout(functional.relu(h), self.dropout, self.training)
        y: Tensor = self.last(h)
        return y

    def _entering(self, layer: WeightNormLinear, h: Tensor | None, code: Tensor, points: Tensor) -> Tensor:
        """The layer of (h, code, point); the code's share of the product is the same for all points of a head and computed once."""
        weight = layer.weight
        kept = weight.shape[1] - self.code_dim - self.point_dim
        of_h, of_code, of_point = weight[:, :kept], weight[:, kept : -self.point_dim], weight[:, -self.point_dim :]
        y = functional.linear(points, of_point) + functional.linear(code, of_code, layer.bias).unsqueeze(1)
        return y if h is None else y + functional.linear(h, of_h)


@dataclass(frozen=True)
class AutoDecoderOptions(MethodOptions):
    """Options shared by DeepSDF and i3DMM, as published. Both ignore the groups model (except model.method) and loss."""

    clamp: float = positive(0.1)
    """Distances are clamped to ± this, in units of the ball."""
    code: float = 1e-4
    """Weight of |z| in training."""
    code_warmup_epochs: float = 100.0
    """Epochs over which that weight rises from 0."""
    code_bound: float = positive(1.0)
    """Largest norm of a trained code."""


class AutoDecoder(Field):
    """Base of DeepSDF and i3DMM (their auto-decoders are trained alike). Distances are clamped as published, codes bounded in norm."""

    options: AutoDecoderOptions

    def __init__(
        self,
        config: Config,
        id_table: IdTable,
        template: TemplateFacts,
        mm_per_unit: float,
        code_dims: dict[str, int],
        code_ids: dict[str, str],
        code_init: float,
    ) -> None:
        self.code_init, self.options = code_init, own_options(config, AutoDecoderOptions)
        super().__init__(config, id_table, template, mm_per_unit, code_dims, code_ids)

    def initial_code(self, name: str, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Initial codes [count,d] of training: N(0, 1 / length of the published code)."""
        return self.code_init * torch.randn(count, self.code_dims[name], generator=generator)

    def codes_of(self, batch: Batch) -> dict[str, Tensor]:
        """The codes [B,d] of a batch's items, by name. In training, rows longer than code_bound are first shortened to it.

        This applies to all rows, not only the batch's, so that processes that share a batch keep equal tables.
        """
        if self.training:
            with torch.no_grad():
                for table in self.tables.values():
                    bound = self.options.code_bound / table.norm(dim=1, keepdim=True)
                    table.mul_(bound.clamp(max=1.0))
        return super().codes_of(batch)

    def sdf_and_grad(self, points: Tensor, codes: Codes) -> SDFGrad:
        """Signed distance and its gradient by autograd; differentiable once more only where gradients are being recorded."""
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            x = points if again and points.requires_grad else points.detach().requires_grad_(True)
            sdf = self.sdf(x, codes)
            (grad,) = torch.autograd.grad(sdf.sum(), x, create_graph=again)
        return SDFGrad(sdf if again else sdf.detach(), grad)

    def clamped(self, distances: Tensor) -> Tensor:
        """Distances within ± baseline.clamp."""
        return distances.clamp(-self.options.clamp, self.options.clamp)

    def code_length(self, codes: Codes, epoch: Tensor) -> Tensor:
        """Weighted mean over the items of |z|, where z are all codes of an item; the weight rises from 0 over the first epochs."""
        weights = self.options
        rise = (
            (epoch / weights.code_warmup_epochs).clamp(max=1.0)
            if weights.code_warmup_epochs > 0
            else epoch.new_ones(())
        )
        joined = torch.cat([codes[name] for name in self.code_dims], 1)
        return weights.code * rise * torch.linalg.vector_norm(joined, dim=1).mean()

    def reconstruction(self, batch: Batch, predicted: Tensor, fit: FitConfig) -> Tensor:
        """Mean clamped error [B] of the distances [B,N] at a batch's points, with the robust loss if the fit sets a scale for it."""
        _, distances, _ = sampled_points(batch)
        error = (self.clamped(predicted) - self.clamped(distances)).abs()
        if fit.robust_mm > 0:
            error = robust(error, fit.robust_mm / self.mm_per_unit)
        return error.mean(1)

    def code_prior(self, codes: Codes, fit: FitConfig) -> Tensor:
        """Regularisation [B] of the fitted codes: fit.code x mean z^2 over all of them together, or their Gaussian."""
        fitted = [name for name in self.code_dims if name in codes]
        if fit.prior == "gaussian":
            distance = torch.stack([mahalanobis(codes[name], self.code_statistics(name)) for name in fitted]).sum(0)
            return fit.gaussian * distance
        return fit.code * torch.cat([codes[name] for name in fitted], 1).square().mean(1)
