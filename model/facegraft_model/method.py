"""The interface of all methods: a signed distance field from latent codes. Training, fitting, scoring and editing use only this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from facegraft.parts import Parts
from facegraft_model.config import Config, FitConfig, own_options
from facegraft_model.data.ids import IdTable
from facegraft_model.data.topology import Topology
from facegraft_model.errors import ModelError
from facegraft_model.methods import MethodOptions
from facegraft_model.nets.siren import Matmul

Batch = Mapping[str, Tensor]
SHARED = ("stage_part_labels", "stage_rows", "template_draws")
"""Tensors of a batch that are the same for all its items; the others have one row for each."""
Codes = Mapping[str, Tensor]
Terms = dict[str, Tensor]
TOPOLOGY = "topology_"
TOPOLOGY_TENSORS = tuple(TOPOLOGY + item.name for item in fields(Topology))
"""Names of the buffers of a field's topology."""


class SDFGrad(NamedTuple):
    """Signed distance [B,N] and its gradient [B,N,3] with respect to the point."""

    sdf: Tensor
    grad: Tensor


@dataclass(frozen=True)
class TemplateFacts:
    """Facts about the template of the training data; they are saved with the weights.

    landmarks [68,3], points [M,3] and parts u8 [M] of the template, in unit coordinates. topology: its mesh; None where the samples
    hold none.
    """

    landmarks: Tensor
    points: Tensor
    parts: Tensor
    topology: Topology | None = None


class Linearised(NamedTuple):
    """A field at points [B,N,3], to first order: distance [B,N], its gradient by the point [B,N,3] and by each code [B,N,d].

    places [B,N,3]: where the points lie in the template's space; inverse [B,N,3,3]: the derivatives of these by the points; trust [B,N]: 0
    for points whose place was not found, else 1.
    """

    sdf: Tensor
    grad: Tensor
    columns: dict[str, Tensor]
    places: Tensor
    trust: Tensor
    inverse: Tensor


@dataclass(frozen=True)
class RegisteredHeads:
    """The registered points of the training scans: stages [n,S,M,3] of the template morph, in units, and landmarks [n,S,68,3].

    vertices [M]: the topology's vertices (`Topology.ids`) that the points are. ids: by id (`table_rows`), the row [n] of each scan's codes. neutral [n]: whether the scan's expression is the neutral one.
    """

    stages: Tensor
    landmarks: Tensor
    vertices: Tensor
    ids: dict[str, Tensor]
    neutral: Tensor
    mm_per_unit: float


class CodeStatistics(NamedTuple):
    """The Gaussian of the trained codes of one kind: mean [d], covariance [d,d]."""

    mean: Tensor
    covariance: Tensor


class Field(nn.Module, ABC):
    """Base class of all methods: tables of the trained latent codes, and the signed distance field of any codes.

    parts: those of the training data. code_dims: length of each code by name. code_ids: by code, the id of a batch's items that
    selects the row of its table. has_warp: whether points can be mapped to a template. mm_per_unit: scale of the unit ball.
    template_points [M,3], template_parts u8 [M] and template_landmarks [68,3]: see `TemplateFacts`. has_unwarp: whether the method
    can say which points warp to given ones (`unwarp`).
    """

    Options: ClassVar[type[MethodOptions]] = MethodOptions
    """The method's own options, the group `baseline` of its configurations."""
    presets: ClassVar[tuple[Config, ...]] = ()
    """Named configurations that the method defines."""
    parts: Parts
    code_dims: dict[str, int]
    code_ids: dict[str, str]
    has_warp: bool = True
    has_unwarp: ClassVar[bool] = False
    """Whether `unwarp` gives positions on the head of points of the template, without a search."""
    has_derivatives: ClassVar[bool] = False
    """Whether `linearise` and `unwarp_columns` give the derivatives by the codes that a Gauss-Newton fit needs."""
    lr_factors: ClassVar[dict[str, float]] = {}
    """Factor on the learning rate of the parameters whose name starts with a key."""
    matmul: Matmul | None = None
    """Precision of the products in hidden layers; None for methods where it is fixed."""
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
        self.derived: dict[Any, Any] = {}
        self.register_buffer("template_points", template.points.float())
        self.register_buffer("template_parts", template.parts.to(torch.uint8))
        self.register_buffer("template_landmarks", template.landmarks.float())
        self.has_topology = template.topology is not None
        if template.topology is not None:
            for name in TOPOLOGY_TENSORS:
                self.register_buffer(name, getattr(template.topology, name.removeprefix(TOPOLOGY)))
        rows = table_rows(id_table)
        self.tables = nn.ParameterDict(
            {name: nn.Parameter(self.initial_code(name, rows[code_ids[name]])) for name in code_dims}
        )

    @property
    def topology(self) -> Topology | None:
        """The mesh of the training heads' topology in the template; None for a model of samples without it."""
        if not self.has_topology:
            return None
        return Topology(**{name.removeprefix(TOPOLOGY): getattr(self, name) for name in TOPOLOGY_TENSORS})

    # What is made of the weights, for a field that is not in training (such as the template's mesh), is kept in `derived` until they may change.

    def train(self, mode: bool = True) -> Self:
        self.derived.clear()
        return super().train(mode)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self.derived.clear()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    @classmethod
    def check(cls, config: Config) -> None:
        """Raises ModelError for a configuration that this method cannot use; `Config.checked` has already checked each single number."""
        own_options(config, cls.Options)

    def initial_code(self, name: str, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Initial codes [count,d] of training: N(0, code_init^2)."""
        return self.config.model.code_init * torch.randn(count, self.code_dims[name], generator=generator)

    def codes_of(self, batch: Batch) -> dict[str, Tensor]:
        """The codes [B,d] of a batch's items, by name. The expression code of a composite is to be ignored: it has no expression."""
        return {name: self.tables[name][batch[ids]] for name, ids in self.code_ids.items()}

    def code_statistics(self, name: str) -> CodeStatistics:
        """Mean and covariance of the trained codes: the Gaussian from which new codes are drawn."""
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
        """Positions [B,N,3] of points [B,N,3] in the template's space. Only where `has_warp`."""

    def unwarp(self, template_points: Tensor, codes: Codes) -> Tensor:
        """Points [B,N,3] that `warp` maps to template_points [B,N,3], in units: their positions on the heads. Only where `has_unwarp`."""
        raise ModelError(f"method {self.config.model.method} has no map from the template to a head")

    def template_distance(self, template_points: Tensor) -> SDFGrad:
        """The template's signed distance [B,N] and its gradient at points [B,N,3] of its space. Only where `has_unwarp`."""
        raise ModelError(f"method {self.config.model.method} has no map from the template to a head")

    def template_sdf(self, template_points: Tensor) -> Tensor:
        """The template's signed distance [B,N] alone, for extraction."""
        return self.template_distance(template_points).sdf

    def linearise(
        self,
        points: Tensor,
        codes: Codes,
        *,
        normals: Tensor | None = None,
        before: Linearised | None = None,
        renew: bool = True,
    ) -> Linearised:
        """Distance at points [B,N,3] and its derivatives, without gradients. Only where `has_derivatives`.

        normals [B,N,3]: of the surface near the points, 0 where unknown. before: the result for the same points and nearly the same codes,
        with whose places the search begins; without renew its derivatives by the codes are taken over too, and only the distance and its
        gradient by the point are new.
        """
        raise ModelError(f"method {self.config.model.method} gives no derivatives by its codes; use fit.solver=adam")

    def linearise_coarsely(self, points: Tensor, codes: Codes, normals: Tensor | None = None) -> Linearised:
        """`linearise`, good enough for the first steps of a fit, where a faster way is known."""
        return self.linearise(points, codes, normals=normals)

    def unwarp_columns(self, template_points: Tensor, name: str) -> Tensor:
        """The derivatives [N,3,d] of `unwarp` by a code, at points [N,3] of the template's space. Only where `has_derivatives`."""
        raise ModelError(f"method {self.config.model.method} gives no derivatives by its codes; use fit.solver=adam")

    def counters(self) -> dict[str, float]:
        """Numbers about the steps so far that the log of training shows beside the loss."""
        return {}

    def begin(self, heads: RegisteredHeads, batch_of: Callable[[int], Batch], seed: int) -> None:
        """Prepare a new model for training on these heads, before its first step; batch_of: the batch of a step."""

    @abstractmethod
    def training_terms(self, batch: Batch, codes: Codes, epoch: Tensor) -> Terms:
        """Weighted terms of the training loss, scalars by name; the loss is their sum."""

    @abstractmethod
    def fit_terms(self, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
        """Weighted terms [B] of the loss of each head, when codes alone are fitted."""


def table_rows(id_table: IdTable) -> dict[str, int]:
    """Number of rows of the code tables, by the id that selects the row."""
    subjects = dict.fromkeys(("subject", "recipient", *id_table.parts), len(id_table.subjects))
    return {
        **subjects,
        "expression": len(id_table.expressions),
        "head": len(id_table.heads),
        "shape": len(id_table.shapes),
        "expression_name": len(id_table.expression_names),
    }


def sampled_points(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The points of a batch, set after set, the free ones last: points [B,N,3], distances [B,N], normals [B,N,3]."""
    surface = batch["surface_points"]
    off = [name for name in ("near", "wide", "poi", "free") if f"{name}_points" in batch]
    points = torch.cat([surface, *(batch[f"{name}_points"] for name in off)], 1)
    distances = torch.cat([surface.new_zeros(surface.shape[:2]), *(batch[f"{name}_sdf"] for name in off)], 1)
    normals = torch.cat([batch["surface_normals"], *(batch[f"{name}_normals"] for name in off)], 1)
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
