"""The parts-based implicit face model: the cascade with its losses for training and fitting."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from facegraft_model.cascade import Cascade
from facegraft_model.checkpoints.checkpoint import load
from facegraft_model.checkpoints.modelstate import restored
from facegraft_model.config import FitConfig
from facegraft_model.losses import fit_terms, training_terms
from facegraft_model.method import Batch, Codes, Terms


class FaceField(Cascade):
    """Signed distance fields of faces, part by part. Codes [B,d]: exp, one for each part, rem (or exp, id for imface)."""

    METHODS = ("parts", "imface")

    @classmethod
    def load(cls, run: str | os.PathLike[str], device: str | torch.device = "cpu") -> FaceField:
        """The trained model of a run (its latest checkpoint) or of a checkpoint folder, in evaluation mode.

        Raises CheckpointError for a folder that is not a checkpoint or a damaged one, ModelError for a checkpoint of another method.
        """
        return restored(load(run), dict.fromkeys(cls.METHODS, cls), device)

    def training_terms(self, batch: Batch, codes: Codes, epoch: Tensor) -> Terms:
        return training_terms(self, batch, codes)

    def fit_terms(self, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
        return fit_terms(self, batch, codes, fit)
