"""DeepSDF (Park et al. 2019): one network of (code of the shape, point) for the distances; no correspondence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from facegraft.vocabulary import NEUTRAL
from facegraft_model.baselines.autodecoder import PUBLISHED_FIT, AutoDecoder, AutoDecoderOptions, CodedMLP
from facegraft_model.bounds import at_least, below, positive
from facegraft_model.config import Config, DataConfig, FitConfig, ModelConfig, TrainConfig, own_options
from facegraft_model.data.ids import IdTable
from facegraft_model.errors import ModelError
from facegraft_model.method import Batch, Codes, TemplateFacts, Terms, sampled_points
from facegraft_model.methods import MethodOptions


@dataclass(frozen=True)
class DeepSDFOptions(AutoDecoderOptions):
    """Architecture of DeepSDF, as published."""

    deepsdf_dim: int = positive(256)
    """Length of the code of a shape."""
    deepsdf_width: int = positive(512)
    deepsdf_layers: int = at_least(2, 8, "the code enters in the middle")
    """Hidden layers of the decoder; code and point enter again in their middle."""
    deepsdf_dropout: float = below(1, 0.2)
    """Share of the activations that are dropped after each hidden layer, in training."""
    deepsdf_code_init: float = 256**-0.5
    """Standard deviation of the codes at the start."""


PUBLISHED = Config(
    preset="deepsdf",
    model=ModelConfig(method="deepsdf"),
    baseline=DeepSDFOptions(),
    data=DataConfig(items=64, surface=0, wide=15401, free=983, origins="scan", expressions=(NEUTRAL,)),
    train=TrainConfig(epochs=2001.0, lr=5e-4, code_lr=1e-3, lr_factor=0.5, lr_every=500.0, lr_from=500.0),
    fit=replace(PUBLISHED_FIT, wide=7520, free=480),
)
"""DeepSDF with the published schedule: one code per head; 16,384 points per shape, 94 % of them near the surface, in its wide bands.

It learns neutral scans only, as Gu and Pears trained it: it has one code for a whole shape. Half of the published points are inside. Near
points lie on both sides nearly equally, so they are not drawn separately by side. The published fit starts at N(0, 0.01^2), which is
practically the mean of the codes.
"""


class DeepSDFField(AutoDecoder):
    """Signed distances of a shape. Code: shape [B,256], one per pair of head and expression. 1,843,195 parameters as published.

    Nine layers, the ninth linear into tanh; dropout 0.2 after each of the eight of width 512, in training.
    """

    Options: ClassVar[type[MethodOptions]] = DeepSDFOptions
    presets: ClassVar[tuple[Config, ...]] = (PUBLISHED,)
    has_warp = False

    @classmethod
    def check(cls, config: Config) -> None:
        super().check(config)
        own = own_options(config, DeepSDFOptions)
        if own.deepsdf_width <= own.deepsdf_dim + 3:
            raise ModelError(
                f"baseline.deepsdf_width must be larger than deepsdf_dim + 3 = {own.deepsdf_dim + 3}, which is joined to it"
            )

    def __init__(self, config: Config, id_table: IdTable, template: TemplateFacts, mm_per_unit: float) -> None:
        own = own_options(config, DeepSDFOptions)
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
            "deepsdf has no template, so points have no correspondence; use a method that has one, such as i3dmm"
        )

    def training_terms(self, batch: Batch, codes: Codes, epoch: Tensor) -> Terms:
        points, distances, _ = sampled_points(batch)
        error = (self.clamped(self.sdf(points, codes)) - self.clamped(distances)).abs()
        return {"sdf": error.mean(), "code": self.code_length(codes, epoch)}

    def fit_terms(self, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
        points, _, _ = sampled_points(batch)
        error = self.reconstruction(batch, self.sdf(points, codes), fit)
        return {"sdf": error, "code": self.code_prior(codes, fit)}
