"""The template's morph: heads as displacements of the template that are linear in the codes of their parts.

    x(q; z) = q + v_exp(q; z_exp) + sum over parts of m(q) v_part(q; z_part) + v_rem(q; z_rem);   sdf(p) = S(q) where x(q; z) = p

q is a point of the template's space, v a neural basis (`nets.basis`), m a part's mask (`nets.mask`), S the template's distance. A point
of a head is brought to the template by solving x(q; z) = p (`Morph.locate`), and a point of the template to the head by one evaluation
(`Morph.unwarp`), so heads of one template are in correspondence.

The lips of a template touch. A field that has to open them would jump between two points in the same place; so the template holds
its mouth open, half as far as its expressions do, and every head's displacement starts by closing it (`opening.mouth_opening`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from facegraft.vocabulary import EXP, REM
from facegraft_model.config import Config
from facegraft_model.data.ids import IdTable
from facegraft_model.errors import ModelError
from facegraft_model.method import Codes, Field, Linearised, SDFGrad, TemplateFacts
from facegraft_model.morph.expansion import Expansion, expanded
from facegraft_model.morph.search import Located, inverse_jacobian, newton_step, picked, shortened, solved
from facegraft_model.nets.basis import BasisNet
from facegraft_model.nets.hyper import PlainSiren, siren_shapes
from facegraft_model.nets.mask import Mask, PartMask
from facegraft_model.nets.siren import (
    Weights,
    at_shared_points,
    scale_frequency,
    siren_adjoint,
    siren_features,
    siren_forward,
    siren_jacobian,
)

COMPILED_SHARE = 0.5
"""Share of a head's points at which a part's net runs in a compiled step, whose shapes are fixed."""
SOLVED_MM = {torch.float32: 1e-3, torch.float64: 1e-8}
"""A point is solved when the morph takes it back to within this distance, of which rounding allows no much smaller one."""
LOST_MM = 1.0
"""A point that the search leaves farther than this from its place teaches nothing."""
NEAR_MM = 6.0
"""A point that is farther than this from its place before its last step does not count in a fit (`Morph.linearise`)."""
LEAST_VERTICES = 16
"""A part of which the topology has fewer vertices gets its mask from the registered points."""
RIM_MM = (1.0, 4.0)
"""Bounds of the width over which a part's displacement fades to 0 at its rim."""
TURNED_MM = 8.0
"""A registered point whose normal is opposite to that of a point counts as if it were this far away, or farther (`Morph.start`)."""
ANCHOR_EVERY = 4
"""Of the remainder's registered points, one in so many serves for the first guess of where a point lies."""


class Conditioning(NamedTuple):
    """The weights of a batch of heads: of each net, and of the template."""

    weights: dict[str, Weights]
    template: Weights


class Reach(NamedTuple):
    """The points of a batch that a part's mask reaches: their rows [B,n], places [B,n,3], and the mask there."""

    rows: Tensor
    points: Tensor
    mask: Mask


class Morph(Field):
    """Codes [B,d]: exp, one for each part, rem. Without "exp", or with zeros for it, a head is neutral."""

    overflow: Tensor
    topology_vertices: Tensor
    topology_cap_vertices: Tensor
    face_bounds: Tensor
    anchors: Tensor
    waitless = False
    """Whether sizes do not depend on values: in a training step on a GPU, compiled or not, which then is the same step."""
    has_unwarp = True
    has_derivatives = True
    lr_factors: ClassVar[dict[str, float]] = {"nets.": 0.01}
    """The nets begin as the solution of their regression, whose last layers are large sums: they bear only small steps."""

    def __init__(self, config: Config, id_table: IdTable, template: TemplateFacts, mm_per_unit: float) -> None:
        model, parts = config.model, id_table.parts
        dims = {EXP: model.exp_dim, **dict.fromkeys(parts, model.part_dim), REM: model.rem_dim}
        ids = {EXP: "expression", **{name: name for name in parts}, REM: "recipient"}
        super().__init__(config, id_table, template, mm_per_unit, dims, ids)
        self.nets, self.masks = nn.ModuleDict(), nn.ModuleDict()
        for name, dim in dims.items():
            own = name in parts
            features = model.part_features if own else model.exp_features if name == EXP else model.features
            self.nets[name] = BasisNet(model.width, features, model.basis_omega, dim)
        self.template_weights = PlainSiren(siren_shapes(3, model.width, 1), model.omega)
        self.register_buffer("overflow", torch.zeros((), dtype=torch.int64), persistent=False)
        self.set_template(self.template_points, self.template_landmarks)
        self.register_load_state_dict_post_hook(_follow_template)  # type: ignore[no-untyped-call]

    @classmethod
    def check(cls, config: Config) -> None:
        super().check(config)
        if config.data.stage == 0 and config.loss.dense > 0:
            raise ModelError("loss.dense needs registered points: set data.stage (such as 512), or loss.dense=0")
        if config.model.warp != "translation":
            raise ModelError(f"model.warp={config.model.warp} is for model.nets=hyper; neural bases are displacements (translation)")

    def set_template(self, points: Tensor, landmarks: Tensor) -> None:
        """Replace the template's registered points [M,3] and landmarks [68,3]; the masks follow them."""
        self.template_points, self.template_landmarks = points.clone(), landmarks.clone()
        self._make_masks()

    def set_topology(self, vertices: Tensor, cap_vertices: Tensor) -> None:
        """Replace the vertices [n,3] of the topology and those [k,3] of its caps in the template; the masks follow them."""
        self.topology_vertices.copy_(vertices)
        self.topology_cap_vertices.copy_(cap_vertices)
        self._make_masks()

    def _make_masks(self) -> None:
        """What follows the template: the masks of the parts, by the topology's vertices, or by the registered points, which are fewer, where
        it has none of a part (there is no topology, or the part is outside the ball)."""
        self.derived.clear()
        topology = self.topology
        if topology is not None:
            self.register_buffer("face_bounds", topology.face_weights().cumsum(0), persistent=False)
        # Guesses need fewer points than there are, but all of the parts, where lips and lids touch.
        numbers = torch.arange(len(self.template_parts), device=self.template_parts.device)
        anchors = ((self.template_parts > 0) | (numbers % ANCHOR_EVERY == 0)).nonzero()[:, 0]
        self.register_buffer("anchors", anchors, persistent=False)
        for name in self.parts:
            label = self.parts.label(name)
            rim = (mm / self.mm_per_unit for mm in RIM_MM)
            points, labels = self.template_points, self.template_parts
            if topology is not None and int((topology.parts == label).sum()) >= LEAST_VERTICES:
                points, labels = topology.vertices, topology.parts
            self.masks[name] = PartMask(points.cpu(), labels.cpu(), label, *rim).to(points)
            for kind, labels_of in (("rows", self.template_parts), ("anchors", self.template_parts[anchors])):
                self.register_buffer(f"{kind}_{name}", (labels_of == label).nonzero()[:, 0], persistent=False)

    # -- conditioning -------------------------------------------------------------------------------------------------

    def condition(self, codes: Codes, on: Tensor | None = None) -> Conditioning:
        """The weights of the heads of `codes`. on [B]: 0 for a head whose expression code is to be ignored."""
        weights: dict[str, Weights] = {}
        some = next(iter(codes.values()))
        for name in self.code_dims:
            code = codes.get(name)
            if code is None:
                if name != EXP:
                    raise ModelError(f"a head of this model needs the code {name}; there are {', '.join(codes)}")
                code = some.new_zeros(len(some), self.code_dims[EXP])
            elif name == EXP and on is not None:
                code = on.view(-1, 1) * code
            weights[name] = self.nets[name](code)
        return Conditioning(weights, self._template())

    def _template(self) -> Weights:
        return scale_frequency(self.template_weights(), self.config.model.omega)

    # -- the morph ----------------------------------------------------------------------------------------------------

    def displacements(self, q: Tensor, conditioning: Conditioning) -> dict[str, Tensor]:
        """The displacement [B,N,3] by each net, mask included, at points q [B,N,3] of the template's space."""
        result = {}
        for name, weights in conditioning.weights.items():
            if name in self.masks:
                reach = self._reach(name, q)
                moved = reach.mask.value * siren_forward(reach.points, weights)[0]
                result[name] = torch.zeros_like(q).scatter(1, reach.rows.unsqueeze(2).expand(-1, -1, 3), moved)
            else:
                result[name] = siren_forward(q, weights)[0]
        return result

    def displacement(self, q: Tensor, conditioning: Conditioning) -> Tensor:
        """The whole displacement [B,N,3] at points q [B,N,3]."""
        return torch.stack(list(self.displacements(q, conditioning).values())).sum(0)

    def displacement_jacobian(
        self, q: Tensor, conditioning: Conditioning, reaches: Mapping[str, Reach] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The whole displacement [B,N,3] at q [B,N,3], and its derivatives [B,N,3,3]. reaches: those of the parts at q, if they are known."""
        total, slopes = None, None
        for name, weights in conditioning.weights.items():
            if name in self.masks:
                reach = self._reach(name, q) if reaches is None else reaches[name]
                value, own_slope = siren_jacobian(reach.points, weights)
                own_slope = reach.mask.value.unsqueeze(3) * own_slope + value.unsqueeze(3) * reach.mask.grad.unsqueeze(2)
                wide = reach.rows.unsqueeze(2).expand(-1, -1, 3)
                move = torch.zeros_like(q).scatter(1, wide, reach.mask.value * value)
                slope = q.new_zeros(*q.shape, 3).scatter(1, wide.unsqueeze(3).expand(-1, -1, -1, 3), own_slope)
            else:
                move, slope = siren_jacobian(q, weights)
            total = move if total is None else total + move
            slopes = slope if slopes is None else slopes + slope
        assert total is not None and slopes is not None
        return total, slopes

    def _reach(self, name: str, q: Tensor) -> Reach:
        """The points of each head at which a part's net has to run.

        A compiled step needs a fixed number of them: COMPILED_SHARE of the points; more than that near the part are counted in `overflow`,
        and those farthest from it are left out. So does each training step on a GPU (`waitless`): the host would wait for each number. Else
        they are those where the mask is not 0, of the head that has most of these.
        """
        mask = self.masks[name]
        assert isinstance(mask, PartMask)
        fixed = torch.compiler.is_compiling() or self.waitless
        with torch.no_grad():
            closeness = mask.closeness(q)
            near = (closeness > 0).sum(1)
            if fixed:
                most = math.ceil(COMPILED_SHARE * closeness.shape[1])
                self.overflow += (near - most).clamp_min(0).sum()
            else:
                # At one at least: processes that train together wait for a gradient of every parameter.
                most = min(max(int(near.max()), 1), closeness.shape[1])
            index = closeness.topk(most, dim=1).indices
        points = picked(q, index)
        here = mask(points)
        if fixed:
            return Reach(index, points, here)
        value = here.value.detach()[..., 0]
        rows = value.topk(min(max(int((value > 0).sum(1).max()), 1), value.shape[1]), dim=1).indices
        return Reach(index.gather(1, rows), picked(points, rows), Mask(picked(here.value, rows), picked(here.grad, rows)))

    def counters(self) -> dict[str, float]:
        """overflow: points near parts that steps with a fixed number of them have left out so far."""
        return {"overflow": float(self.overflow)}

    def registered(self, conditioning: Conditioning, rows: Tensor | None = None) -> dict[str, Tensor]:
        """The displacement [B,M,3] of the template's registered points, or of those in `rows`, by each net: a part's is 0 off its
        points."""
        if rows is None:
            return self._shared(self.template_points, "rows", conditioning)
        points, result = self.template_points[rows], {}
        for name, weights in conditioning.weights.items():
            result[name] = at_shared_points(points, weights)
            if name in self.masks:
                # A compiled step needs sizes that do not depend on the labels of its points, which are few.
                result[name] = (self.template_parts[rows] == self.parts.label(name)).unsqueeze(1) * result[name]
        return result

    def _shared(self, points: Tensor, kind: str, conditioning: Conditioning) -> dict[str, Tensor]:
        """The displacement [B,n,3] by each net at points [n,3] of the template, of which those in the buffer KIND_PART are the part's."""
        result = {}
        for name, weights in conditioning.weights.items():
            if name not in self.masks:
                result[name] = at_shared_points(points, weights)
                continue
            own = getattr(self, f"{kind}_{name}")
            moved = at_shared_points(points[own], weights)
            result[name] = moved.new_zeros(len(moved), len(points), 3).index_copy(1, own, moved)
        return result

    @torch.no_grad()
    def start(
        self, points: Tensor, conditioning: Conditioning, normals: Tensor | None = None, chunk: int = 1 << 12
    ) -> Tensor:
        """First guesses q [B,N,3] of points [B,N,3]: as far from a registered point as the point is from that one on the head.

        normals [B,N,3] at the points, 0 where unknown: a registered point that faces another way counts as TURNED_MM farther away. So
        points of one lip are not taken for points of the other.
        """
        anchors = self.template_points[self.anchors]
        moved = anchors + torch.stack(list(self._shared(anchors, "anchors", conditioning).values())).sum(0)
        index = self._nearest_anchors(points, moved, conditioning.template, normals, chunk).unsqueeze(2).expand(-1, -1, 3)
        anchors = anchors.to(points.dtype).expand(len(points), -1, -1)
        return points - moved.gather(1, index) + anchors.gather(1, index)

    def _nearest_anchors(
        self, points: Tensor, moved: Tensor, template: Weights, normals: Tensor | None, chunk: int = 1 << 12
    ) -> Tensor:
        """Which [B,N] of the anchors, moved to [B,n,3], is nearest to each point; see `start`."""
        facing = None if normals is None else self._facing(template)
        farther = (TURNED_MM / self.mm_per_unit) ** 2 / 2
        nearest = []
        for first in range(0, points.shape[1], chunk):
            distance = torch.cdist(points[:, first : first + chunk], moved)
            if normals is not None and facing is not None:
                distance = distance.square() - farther * (normals[:, first : first + chunk] @ facing)
            nearest.append(distance.argmin(2))
        return torch.cat(nearest, 1)

    def _facing(self, template: Weights) -> Tensor:
        """The normals [1,3,n] of the template at the anchors."""
        found: Tensor | None = self.derived.get("facing")
        if found is None:
            slopes = distance_at(self.template_points[self.anchors][None], template)[1]
            found = torch.nn.functional.normalize(slopes, dim=2).transpose(1, 2)
            if not self.training:
                self.derived["facing"] = found
        return found

    @torch.no_grad()
    def locate_nearly(self, points: Tensor, conditioning: Conditioning, start: Tensor | None = None) -> Located:
        """One Newton step from a good guess (None: `self.start`): enough where `attach` takes the next."""
        q = self.start(points, conditioning) if start is None else start
        return newton_step(lambda at: self.displacement_jacobian(at, conditioning), points, q)

    @torch.no_grad()
    def locate(self, points: Tensor, conditioning: Conditioning, start: Tensor | None = None) -> Located:
        """The points q of the template's space with x(q) = points [B,N,3]. start: where the search begins; None: at `self.start`."""
        q = self.start(points, conditioning) if start is None else start
        limit = SOLVED_MM[points.dtype] / self.mm_per_unit
        return solved(lambda at: self.displacement_jacobian(at, conditioning), points, q, limit)

    def attach(self, points: Tensor, located: Located, conditioning: Conditioning) -> Located:
        """q [B,N,3] again, now as a function of points, codes and weights: one more Newton step, whose derivatives are those of the
        solution (the implicit function theorem), with the Jacobian held fixed. gap: before this step."""
        q = located.q
        miss = q + self.displacement(q, conditioning) - points
        gap = torch.linalg.vector_norm(miss.detach(), dim=2)
        return Located(q - (located.inverse @ miss.unsqueeze(3)).squeeze(3), located.inverse, gap)

    # -- the field ----------------------------------------------------------------------------------------------------

    def sdf(self, points: Tensor, codes: Codes) -> Tensor:
        conditioning = self.condition(codes)
        q = self.attach(points, self.locate(points, conditioning), conditioning).q
        return siren_forward(q, conditioning.template)[0][..., 0]

    def sdf_and_grad(self, points: Tensor, codes: Codes) -> SDFGrad:
        conditioning = self.condition(codes)
        q = self.attach(points, self.locate(points, conditioning), conditioning).q
        sdf, own = distance_at(q, conditioning.template)
        slope = self.displacement_jacobian(q, conditioning)[1]
        eye = torch.eye(3, dtype=q.dtype, device=q.device)
        grad = torch.linalg.solve((eye + slope).transpose(2, 3), own.unsqueeze(3)).squeeze(3)
        return SDFGrad(sdf, grad)

    def template_distance(self, template_points: Tensor) -> SDFGrad:
        return SDFGrad(*distance_at(template_points, self._template()))

    def template_sdf(self, template_points: Tensor) -> Tensor:
        return siren_forward(template_points, self._template())[0][..., 0]

    @torch.no_grad()
    def linearise(
        self,
        points: Tensor,
        codes: Codes,
        *,
        normals: Tensor | None = None,
        before: Linearised | None = None,
        renew: bool = True,
    ) -> Linearised:
        """See `method.Field`."""
        conditioning = self.condition(codes)
        if before is not None and not renew:
            q, inverse, columns = before.places, before.inverse, before.columns
            move = self.displacement(q, conditioning)
        else:
            if before is not None:
                q = before.places
            else:
                q = self.locate_nearly(points, conditioning, self.start(points, conditioning, normals)).q
            reaches = {name: self._reach(name, q) for name in self.masks}
            move, slope = self.displacement_jacobian(q, conditioning, reaches)
            inverse, columns = inverse_jacobian(slope), None
        miss = q + move - points
        # The next Newton step is taken to first order: the distance after it needs no other evaluation.
        change = shortened((inverse @ miss.unsqueeze(3)).squeeze(3))
        sdf, own = distance_at(q, conditioning.template)
        grad = (own.unsqueeze(2) @ inverse).squeeze(2)
        if columns is None:
            columns = {name: self._columns(name, q, -grad, reaches.get(name)) for name in codes}
        found = torch.linalg.vector_norm(miss, dim=2) < NEAR_MM / self.mm_per_unit
        return Linearised(sdf - (own * change).sum(2), grad, columns, q - change, found.to(sdf.dtype), inverse)

    @torch.no_grad()
    def linearise_coarsely(self, points: Tensor, codes: Codes, normals: Tensor | None = None) -> Linearised:
        """The field to first order about the anchor nearest to each point, without an evaluation of the nets."""
        expansions, template = self._expansions(), self._template()
        anchors = self.template_points[self.anchors]
        parts = [expansions[name].at(code) for name, code in codes.items()]
        if EXP not in codes:
            parts.append(expansions[EXP].at(anchors.new_zeros(len(points), self.code_dims[EXP])))
        moved = anchors + torch.stack([move for move, _ in parts]).sum(0)
        index = self._nearest_anchors(points, moved, template, normals)
        inverse = picked(inverse_jacobian(torch.stack([slope for _, slope in parts]).sum(0)), index)
        q = anchors[index] + shortened((inverse @ (points - picked(moved, index)).unsqueeze(3)).squeeze(3))
        sdf, own = distance_at(q, template)
        grad = (own.unsqueeze(2) @ inverse).squeeze(2)
        columns = {name: -(grad.unsqueeze(2) @ expansions[name].modes[index]).squeeze(2) for name in codes}
        return Linearised(sdf, grad, columns, q, torch.ones_like(sdf), inverse)

    def _expansions(self) -> dict[str, Expansion]:
        """The nets about the anchors."""
        found: dict[str, Expansion] | None = self.derived.get("expansions")
        if found is None:
            anchors = self.template_points[self.anchors]
            found = {}
            for name, net in self.nets.items():
                assert isinstance(net, BasisNet)
                mask = dict(self.masks.items()).get(name)
                assert mask is None or isinstance(mask, PartMask)
                found[name] = expanded(net, anchors, mask)
            if not self.training:
                self.derived["expansions"] = found
        return found

    def _columns(self, name: str, q: Tensor, along: Tensor, reach: Reach | None = None) -> Tensor:
        """along . dx(q)/dz [B,N,d] for the code of a net; q and along [B,N,3]. reach: that of a part at q, if it is known."""
        net = self.nets[name]
        assert isinstance(net, BasisNet)
        modes = net.modes.flatten(1)
        if name not in self.masks:
            return _projected(net, q, along) @ modes.T
        reach = self._reach(name, q) if reach is None else reach
        own = _projected(net, reach.points, reach.mask.value * picked(along, reach.rows)) @ modes.T
        return q.new_zeros(*q.shape[:2], len(modes)).scatter(1, reach.rows.unsqueeze(2).expand(-1, -1, len(modes)), own)

    def unwarp_columns(self, template_points: Tensor, name: str) -> Tensor:
        """The derivatives [N,3,d] of `unwarp` by the code of a net, at points [N,3] of the template's space."""
        return torch.stack(
            [self._columns(name, template_points[None], axis.expand(1, len(template_points), 3))[0] for axis in torch.eye(3).to(template_points)],
            1,
        )

    def warp(self, points: Tensor, codes: Codes) -> Tensor:
        conditioning = self.condition(codes)
        return self.attach(points, self.locate(points, conditioning), conditioning).q

    def unwarp(self, template_points: Tensor, codes: Codes) -> Tensor:
        """Positions [B,N,3] on the heads of points [B,N,3] of the template's space: the inverse of `warp`."""
        return template_points + self.displacement(template_points, self.condition(codes))


def _follow_template(field: Morph, _: object) -> None:
    """Masks, anchors and weights of faces are not saved, but made of the template, which a checkpoint brings."""
    field.set_template(field.template_points, field.template_landmarks)


def _projected(net: BasisNet, q: Tensor, along: Tensor) -> Tensor:
    """Products [B,N,3 (features + 1)] of directions along [B,N,3] with the features of a net at q [B,N,3]."""
    hidden = net.hidden()
    h = siren_features(q, [*hidden, hidden[-1]])
    h = torch.cat([h, h.new_ones(*h.shape[:2], 1)], 2)
    return (along.unsqueeze(3) * h.unsqueeze(2)).flatten(2)


def distance_at(q: Tensor, template: Weights) -> tuple[Tensor, Tensor]:
    """The template's distance [B,N] at q [B,N,3], and its gradient [B,N,3] there."""
    value, phases = siren_forward(q, template)
    return value[..., 0], siren_adjoint(torch.ones_like(value), template, phases)
