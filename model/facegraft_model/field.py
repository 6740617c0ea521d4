"""The parts-based implicit face model: the cascade with its losses for training and fitting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from facegraft_model.cascade import Cascade
from facegraft_model.checkpoints.modelstate import restored
from facegraft_model.config import FitConfig
from facegraft_model.losses import fit_terms, training_terms
from facegraft_model.method import Batch, Codes, Terms
from facegraft_model.pretrained.shipped import load_run, shipped


class FaceField(Cascade):
    """Signed distance fields of faces, part by part. Codes [B,d]: exp, one for each part, rem (or exp, id for imface)."""

    METHODS = ("parts", "imface")

    @classmethod
    def load(cls, run: str | os.PathLike[str], device: str | torch.device = "cpu") -> FaceField:
        """The trained model of a run (its latest checkpoint), of a checkpoint folder or of a pretrained model's name, in evaluation mode.

        Raises CheckpointError for a folder that is not a checkpoint or a damaged one, ModelError for a checkpoint of another method.
        """
        return restored(load_run(run), dict.fromkeys(cls.METHODS, cls), device)

    @classmethod
    def pretrained(
        cls, name: str, device: str | torch.device = "cpu", searched: Sequence[Path] | None = None
    ) -> FaceField:
        """A model that ships with the package, such as "ict-head", in evaluation mode. searched: folders of models, by default the package's.

        Raises CheckpointError for an unknown name, which lists the known ones.
        """
        return cls.load(shipped(name, searched), device)

    def training_terms(self, batch: Batch, codes: Codes, epoch: Tensor) -> Terms:
        return training_terms(self, batch, codes)

    def fit_terms(self, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
        return fit_terms(self, batch, codes, fit)
