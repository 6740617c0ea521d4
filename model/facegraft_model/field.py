"""The parts-based implicit face model, for training and fitting: of neural bases (`morph`), or of hyper-networks (`cascade`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor

from facegraft_model import losses
from facegraft_model.cascade import Cascade
from facegraft_model.checkpoints.modelstate import Make, restored
from facegraft_model.config import Config, FitConfig
from facegraft_model.errors import ModelError
from facegraft_model.method import Batch, Codes, Field, RegisteredHeads, Terms
from facegraft_model.methods import field_class
from facegraft_model.morph import losses as morph_losses
from facegraft_model.morph.morph import Morph
from facegraft_model.morph.start import begin
from facegraft_model.pretrained.shipped import load_run, shipped


class FaceField(Field):
    """Signed distance fields of faces, part by part. Codes [B,d]: exp, one for each part, rem (or exp, id for imface)."""

    METHODS: ClassVar[tuple[str, ...]] = ("parts", "imface")

    @classmethod
    def load(cls, run: str | os.PathLike[str], device: str | torch.device = "cpu") -> FaceField:
        """The trained model of a run (its latest checkpoint), of a checkpoint folder or of a pretrained model's name, in evaluation mode.

        Raises CheckpointError for a folder that is not a checkpoint or a damaged one, ModelError for a checkpoint of another method.
        """
        return restored(load_run(run), cls._maker, device)

    @classmethod
    def pretrained(
        cls, name: str, device: str | torch.device = "cpu", searched: Sequence[Path] | None = None
    ) -> FaceField:
        """A model that ships with the package, such as "ict-head", in evaluation mode. searched: folders of models, by default the package's.

        Raises CheckpointError for an unknown name, which lists the known ones.
        """
        return cls.load(shipped(name, searched), device)

    @classmethod
    def _maker(cls, config: Config) -> Make[FaceField]:
        method = config.model.method
        if method not in cls.METHODS:
            raise ModelError(
                f"this is a model of method {method}, where {' or '.join(cls.METHODS)} is needed; "
                "facegraft_model.models.load_field reads all"
            )
        return cast(Make[FaceField], field_class(method, config.model.nets))


class CascadeField(Cascade, FaceField):
    """A cascade of nets whose weights come from the codes through hyper-networks, as published."""

    def training_terms(self, batch: Batch, codes: Codes, epoch: Tensor) -> Terms:
        return losses.training_terms(self, batch, codes)

    def fit_terms(self, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
        return losses.fit_terms(self, batch, codes, fit)


class MorphField(Morph, FaceField):
    """Displacements of the template that are linear in the codes: neural bases."""

    def begin(self, heads: RegisteredHeads, batch_of: Callable[[int], Batch], seed: int) -> None:
        begin(self, heads, batch_of, seed)

    def training_terms(self, batch: Batch, codes: Codes, epoch: Tensor) -> Terms:
        if torch.compiler.is_compiling() or batch["surface_points"].device.type == "cpu":
            return morph_losses.training_terms(self, batch, codes)
        self.waitless = True
        try:
            return morph_losses.training_terms(self, batch, codes)
        finally:
            self.waitless = False

    def fit_terms(self, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
        return morph_losses.fit_terms(self, batch, codes, fit)
