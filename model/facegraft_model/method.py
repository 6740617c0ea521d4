"""What every method is: latent codes in, a signed distance field out. Training, fitting, scoring and editing know no more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from facegraft.parts import Parts
from facegraft_model.config import Config, FitConfig, own_options
from facegraft_model.data.ids import IdTable
from facegraft_model.methods import MethodOptions
from facegraft_model.nets.siren import Matmul

Batch = Mapping[str, Tensor]
Codes = Mapping[str, Tensor]
Terms = dict[str, Tensor]


class SDFGrad(NamedTuple):
    """Signed distance [B,N] and its gradient [B,N,3] with respect to the point."""

    sdf: Tensor
    grad: Tensor


@dataclass(frozen=True)
class TemplateFacts:
    """What a model must know of its training data beside the samples; it is saved with the weights.

    landmarks [68,3], points [M,3] and parts u8 [M] of the template, in unit coordinates.
    """

    landmarks: Tensor
    points: Tensor
    parts: Tensor


class CodeStatistics(NamedTuple):
    """The Gaussian of the trained codes of one kind: mean [d], covariance [d,d]."""

    mean: Tensor
    covariance: Tensor


class Field(nn.Module, ABC):
    """Base of all methods: a table of latent codes for what it was trained on, and the distances that codes stand for.

    parts: those of the training data. code_dims: length of a code by name. code_ids: which id of a batch's items chooses the row of
    a code's table. has_warp: whether points can be taken to a template. mm_per_unit: scale of the unit ball. template_points [M,3],
    template_parts u8 [M] and template_landmarks [68,3]: see `TemplateFacts`.
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    """The method's own options, the group `baseline` of its configurations."""
    presets: ClassVar[tuple[Config, ...]] = ()
    """Named configurations that the method brings."""
    parts: Parts
    code_dims: dict[str, int]
    code_ids: dict[str, str]
    has_warp: bool = True
    lr_factors: ClassVar[dict[str, float]] = {}
    """Learning rate of parameters by the beginning of their name, relative to the other networks'."""
    matmul: Matmul | None = None
    """How hidden layers are multiplied, where a method leaves that open."""
    provenance: dict[str, Any]
    template_points: Tensor
    template_parts: Tensor
    template_landmarks: Tensor

    def __init__(
        self,
        config: Config,
        id_table: IdTable,
        template: TemplateFacts,
        mm_per_unit: float,
        code_dims: dict[str, int],
        code_ids: dict[str, str],
    ) -> None:
        super().__init__()
        self.config, self.id_table, self.mm_per_unit = config, id_table, mm_per_unit
        self.parts = id_table.parts
        self.code_dims, self.code_ids = code_dims, code_ids
        self.provenance = {}
        self.register_buffer("template_points", template.points.float())
        self.register_buffer("template_parts", template.parts.to(torch.uint8))
        self.register_buffer("template_landmarks", template.landmarks.float())
        rows = table_rows(id_table)
        self.tables = nn.ParameterDict(
            {name: nn.Parameter(self.initial_code(name, rows[code_ids[name]])) for name in code_dims}
        )

    @classmethod
    def check(cls, config: Config) -> None:
        """Raises ModelError for a configuration that this method cannot work with; `Config.checked` has seen each number by itself."""
        own_options(config, cls.Options)

    def initial_code(self, name: str, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Codes [count,d] as training starts them: N(0, code_init^2)."""
        return self.config.model.code_init * torch.randn(count, self.code_dims[name], generator=generator)

    def codes_of(self, batch: Batch) -> dict[str, Tensor]:
        """The codes of a batch's items, name → [B,d]. A composite's expression code means nothing: it has none."""
        return {name: self.tables[name][batch[ids]] for name, ids in self.code_ids.items()}

    def code_statistics(self, name: str) -> CodeStatistics:
        """Mean and covariance of the trained codes, the Gaussian that new ones are drawn from."""
        table = self.tables[name].detach().double()
        centred = table - table.mean(0)
        covariance = centred.T @ centred / max(len(table) - 1, 1)
        return CodeStatistics(table.mean(0).float(), covariance.float())

    @abstractmethod
    def sdf(self, points: Tensor, codes: Codes) -> Tensor:
        """Signed distance [B,N], negative inside, of points [B,N,3], in units. Codes [B,d]; without "exp" the head is neutral."""

    @abstractmethod
    def sdf_and_grad(self, points: Tensor, codes: Codes) -> SDFGrad:
        """Signed distance and its exact gradient, differentiable once more."""

    @abstractmethod
    def warp(self, points: Tensor, codes: Codes) -> Tensor:
        """Where points [B,N,3] come to lie in the template's space [B,N,3]. Only where `has_warp`."""

    @abstractmethod
    def training_terms(self, batch: Batch, codes: Codes, epoch: Tensor) -> Terms:
        """Weighted terms of the training loss, scalars by name; the loss is their sum."""

    @abstractmethod
    def fit_terms(self, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
        """Weighted terms [B] of the loss of each head, when codes alone are fitted."""


def table_rows(id_table: IdTable) -> dict[str, int]:
    """Rows of a code table by the id that chooses them."""
    subjects = dict.fromkeys(("subject", "recipient", *id_table.parts), len(id_table.subjects))
    return {
        **subjects,
        "expression": len(id_table.expressions),
        "head": len(id_table.heads),
        "shape": len(id_table.shapes),
        "expression_name": len(id_table.expression_names),
    }


def sampled_points(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Surface, near and free points of a batch, one after the other: points [B,N,3], distances [B,N], normals [B,N,3]."""
    surface = batch["surface_points"]
    points = torch.cat([surface, batch["near_points"], batch["free_points"]], 1)
    distances = torch.cat([surface.new_zeros(surface.shape[:2]), batch["near_sdf"], batch["free_sdf"]], 1)
    normals = torch.cat([batch["surface_normals"], batch["near_normals"], batch["free_normals"]], 1)
    return points, distances, normals


def mahalanobis(code: Tensor, statistics: CodeStatistics, floor: float = 0.05) -> Tensor:
    """Mean over dimensions of the squared Mahalanobis distance [B] of codes [B,d] to the trained ones.

    Fewer heads than dimensions leave directions without variance: those get `floor` of the mean variance.
    """
    dim = code.shape[1]
    ridge = floor * statistics.covariance.diagonal().mean()
    precision = torch.linalg.inv(
        statistics.covariance.double() + ridge.double() * torch.eye(dim, dtype=torch.float64, device=code.device)
    ).to(code.dtype)
    offset = code - statistics.mean
    return ((offset @ precision) * offset).mean(1)
