"""DeepSDF (Park et al. 2019): one network of (code of the shape, point), its distances learnt directly; no correspondence."""

from __future__ import annotations

import torch
from torch import Tensor

from facegraft_model.baselines.autodecoder import AutoDecoder, CodedMLP
from facegraft_model.config import Config, FitConfig
from facegraft_model.data.ids import IdTable
from facegraft_model.errors import ModelError
from facegraft_model.method import Batch, Codes, TemplateFacts, Terms, sampled_points

PUBLISHED = (
    "model.method=deepsdf",
    "data.items=64",
    "data.surface=0",
    "data.near=15401",
    "data.free=983",
    "train.epochs=2001",
    "train.lr=5e-4",
    "train.code_lr=1e-3",
    "train.lr_factor=0.5",
    "train.lr_every=500",
    "train.lr_from=500",
    "fit.steps=800",
    "fit.lr=5e-3",
    "fit.surface=0",
    "fit.near=7520",
    "fit.free=480",
    "fit.code=1e-4",
    "fit.init=mean",
)
"""The published schedule as settings (`Config.with_settings`): 16,384 points a shape, 94 % of them near the surface.

Half of the published points are inside: that holds of near points, which lie on both sides alike, so there is no second draw. The
published fit starts at N(0, 0.01^2), which is the mean of the codes for all that it matters.
"""


class DeepSDFField(AutoDecoder):
    """Signed distances of a shape. Code: shape [B,256], one of each head with an expression. 1,843,195 parameters as published.

    Nine layers, the ninth linear into tanh; dropout 0.2 after each of the eight of width 512, in training.
    """

    has_warp = False

    def __init__(self, config: Config, id_table: IdTable, template: TemplateFacts, mm_per_unit: float) -> None:
        own = config.baseline
        dims, ids = {"shape": own.deepsdf_dim}, {"shape": "shape"}
        super().__init__(config, id_table, template, mm_per_unit, dims, ids, own.deepsdf_code_init)
        self.decoder = CodedMLP(
            own.deepsdf_dim, 3, own.deepsdf_width, own.deepsdf_layers, 1, narrow=True, dropout=own.deepsdf_dropout
        )

    def sdf(self, points: Tensor, codes: Codes) -> Tensor:
        return torch.tanh(self.decoder(codes["shape"], points)[..., 0])

    def warp(self, points: Tensor, codes: Codes) -> Tensor:
        """Raises ModelError: there is no template."""
        raise ModelError(
            "deepsdf has no template, so points have no correspondence; take a method that has one, such as i3dmm"
        )

    def training_terms(self, batch: Batch, codes: Codes, epoch: Tensor) -> Terms:
        points, distances, _ = sampled_points(batch)
        error = (self.clamped(self.sdf(points, codes)) - self.clamped(distances)).abs()
        return {"sdf": error.mean(), "code": self.code_length(codes, epoch)}

    def fit_terms(self, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
        points, _, _ = sampled_points(batch)
        error = self.reconstruction(batch, self.sdf(points, codes), fit)
        return {"sdf": error, "code": self.code_prior(codes, fit)}
