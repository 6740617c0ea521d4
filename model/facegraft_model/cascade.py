"""The nets of the parts-based implicit face model (Gu and Pears 2024); ImFace (Zheng et al. 2022) is the same cascade of two nets.

Phi(p) = S(p_n) + epsilon(p_{n-1}), p_{i+1} = p_i + w_i(p_i) v_i(p_i), in the order expression, parts, remainder, template. With
`model.warp=se3`, v_i(p) is the displacement of p by a screw that the net gives at p (`nets/rigid.py`), as in ImFace's training configuration.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from facegraft.parts import Parts
from facegraft.vocabulary import EXP, FACE_LANDMARKS, REM, REM_LANDMARKS
from facegraft_model.config import Config, ModelConfig
from facegraft_model.data.ids import IdTable
from facegraft_model.errors import ModelError
from facegraft_model.method import Codes, Field, SDFGrad, TemplateFacts
from facegraft_model.nets.hyper import HyperNet, PlainSiren, siren_shapes
from facegraft_model.nets.landmarks import LandmarkNet
from facegraft_model.nets.mininet import MiniNet, NetTrace
from facegraft_model.nets.rigid import TWIST, screw, screw_adjoint
from facegraft_model.nets.siren import EXACT, Matmul, Weights, fold_landmarks, scale_frequency
from facegraft_model.nets.window import WindowTrace, part_ellipsoid, part_window

MOVES = {"translation": 3, "se3": TWIST}
"""Outputs of a net that say how a point moves, by `model.warp`."""


class NetSpec(NamedTuple):
    """One deformation net: the codes that condition it and its landmarks, the stages between which it maps, its part's label."""

    name: str
    code: str
    landmark_codes: tuple[str, ...]
    outputs: int
    stage_from: int
    stage_to: int
    part: int | None


def net_specs(method: str, parts: Parts, warp: str = "translation") -> list[NetSpec]:
    """The cascade of a method, expression first. The last net also gives the scalar correction, as its last output."""
    last, moves = len(parts.stages) - 1, MOVES[warp]
    if method == "imface":
        return [NetSpec(EXP, EXP, (EXP, "id"), moves, 0, 1, None), NetSpec("id", "id", ("id",), moves + 1, 1, last, None)]
    labelled = [(name, parts.label(name)) for name in parts]
    return [
        NetSpec(EXP, EXP, (EXP, *parts, REM), moves, 0, 1, None),
        *(NetSpec(name, name, (name, REM), moves, label, label + 1, label) for name, label in labelled),
        NetSpec(REM, REM, (REM,), moves + 1, last - 1, last, None),
    ]


def code_sizes(config: ModelConfig, parts: Parts) -> dict[str, int]:
    """Length of each code of a method, by name."""
    if config.method == "imface":
        return {EXP: config.exp_dim, "id": config.id_dim or config.part_dim * len(parts) + config.rem_dim}
    return {EXP: config.exp_dim, **dict.fromkeys(parts, config.part_dim), REM: config.rem_dim}


def code_ids(parts: Parts) -> dict[str, str]:
    """For each code, the id of an item that selects the row of its table: part codes belong to subjects, so grafts share them."""
    return {EXP: "expression", **{name: name for name in parts}, REM: "recipient", "id": "head"}


def net_landmarks(name: str, parts: Parts, chosen: str) -> tuple[int, ...]:
    """The five landmarks (iBUG 68) around which a net's field is blended: those of its part, or of the whole face.

    chosen: `ModelConfig.landmarks`. The paper does not say which landmarks it uses: these are our choice.
    """
    if chosen == "part" and name in parts.labelled:
        return REM_LANDMARKS if name == REM else parts.landmarks(name)
    return FACE_LANDMARKS


def _check_nameable(parts: Parts) -> None:
    """Raises ModelError for a part whose name cannot be used for a torch module."""
    taken = (nn.ModuleDict(), nn.ParameterDict())
    for name in parts:
        if any(hasattr(module, name) for module in taken):
            raise ModelError(f"a network cannot be called {name!r}, a name that torch reserves; give that part another name")


class Conditioning(NamedTuple):
    """The weights for a batch of heads: folded weights and landmarks [B,K,3] of each net; the template's weights; expression_on [B,1,1]."""

    weights: dict[str, Weights]
    landmarks: dict[str, Tensor]
    template: Weights
    expression_on: Tensor | None


class Trace(NamedTuple):
    """A pass through the cascade: points[i] before net i (the last one in the template's space) and displacements[i], [B,R,3] each.

    sdf and correction [B,N] are those of the first N rows.
    """

    sdf: Tensor
    correction: Tensor
    points: list[Tensor]
    displacements: list[Tensor]
    nets: list[NetTrace]
    windows: list[WindowTrace | None]
    template: NetTrace


class Gradients(NamedTuple):
    """d sdf / d p at the point itself and at the neutral point, [B,N,3] each."""

    point: Tensor
    neutral: Tensor


class Cascade(Field):
    """A chain of deformation nets, then the template's distances. Codes [B,d]: exp, one for each part, rem (or exp, id for imface)."""

    def __init__(self, config: Config, id_table: IdTable, template: TemplateFacts, mm_per_unit: float) -> None:
        model, parts = config.model, id_table.parts
        _check_nameable(parts)
        dims, chosen_by = code_sizes(model, parts), code_ids(parts)
        super().__init__(config, id_table, template, mm_per_unit, dims, {name: chosen_by[name] for name in dims})
        self.specs, self.moves = net_specs(model.method, parts, model.warp), MOVES[model.warp]
        self.matmul: Matmul = EXACT
        names = [*(spec.name for spec in self.specs), "sdf"]
        self.landmark_ids = {name: list(net_landmarks(name, parts, model.landmarks)) for name in names}
        for name, ids in self.landmark_ids.items():
            self.register_buffer(f"{name}_landmark_rows", torch.tensor(ids), persistent=False)
        self.hyper, self.nets, self.generators = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for spec in self.specs:
            ids = self.landmark_ids[spec.name]
            shapes = siren_shapes(3 * len(ids), model.width, spec.outputs * len(ids))
            self.hyper[spec.name] = HyperNet(model, dims[spec.code], shapes)
            self.nets[spec.name] = MiniNet(model.blend_width, len(ids), spec.outputs)
            codes = sum(dims[name] for name in spec.landmark_codes)
            self.generators[spec.name] = LandmarkNet(codes, model.landmark_width, template.landmarks[ids].float())
            if spec.part is not None:
                self._add_ellipsoid(spec, template)
        count = len(self.landmark_ids["sdf"])
        self.template_weights: PlainSiren = PlainSiren(siren_shapes(3 * count, model.width, count), model.omega)
        self.template_net = MiniNet(model.blend_width, count, 1)

    def _add_ellipsoid(self, spec: NetSpec, template: TemplateFacts) -> None:
        points = template.points[template.parts == spec.part]
        centre, metric = part_ellipsoid(points)
        offset = centre - template.landmarks[self.landmark_ids[spec.name]].float().mean(0)
        self.register_buffer(f"{spec.name}_offset", offset)
        self.register_buffer(f"{spec.name}_metric", metric)

    @classmethod
    def check(cls, config: Config) -> None:
        super().check(config)
        if config.data.surface == 0 and config.loss.neutral > 0:
            raise ModelError("loss.neutral is measured at surface points: set data.surface, or loss.neutral=0")
        if config.loss.dense > 0 and config.data.stage == 0:
            raise ModelError("loss.dense needs registered points: set data.stage (such as 512), or loss.dense=0")
        if not config.model.window_outer > config.model.window_inner:
            raise ModelError("model.window_outer must be larger than model.window_inner")

    # -- conditioning -------------------------------------------------------------------------------------------------

    def condition(self, codes: Codes, expression_on: Tensor | None = None) -> Conditioning:
        """The weights for a batch of heads. expression_on [B] switches the expression net for each head; without its code it is off."""
        weights, landmarks = {}, {}
        for spec in self.specs:
            if spec.code not in codes:
                continue
            landmarks[spec.name] = self.generators[spec.name](
                torch.cat([codes[name] for name in spec.landmark_codes], 1)
            )
            weights[spec.name] = self._folded(self.hyper[spec.name](codes[spec.code]), landmarks[spec.name])
        template = self._folded(self.template_weights(), self.template_landmarks[self.landmark_rows("sdf")][None])
        return Conditioning(
            weights, landmarks, template, None if expression_on is None else expression_on.view(-1, 1, 1)
        )

    def landmark_rows(self, name: str) -> Tensor:
        """`landmark_ids` of a net, int64 on the field's device: a list would be copied there in each step, and the host would wait."""
        rows = getattr(self, f"{name}_landmark_rows")
        assert isinstance(rows, Tensor)
        return rows

    def _folded(self, weights: Weights, landmarks: Tensor) -> Weights:
        return scale_frequency(fold_landmarks(weights, landmarks), self.config.model.omega)

    # -- the field ----------------------------------------------------------------------------------------------------

    def _net(self, spec: NetSpec) -> MiniNet:
        net = self.nets[spec.name]
        assert isinstance(net, MiniNet)
        return net

    def used(self, conditioning: Conditioning) -> list[NetSpec]:
        """The nets that a head passes through: all, without the expression net where there is no expression code."""
        return [spec for spec in self.specs if spec.name in conditioning.weights]

    def _window(self, spec: NetSpec, x: Tensor, landmarks: Tensor) -> WindowTrace | None:
        model = self.config.model
        if not model.window or spec.part is None:
            return None
        centre = landmarks.mean(1) + getattr(self, f"{spec.name}_offset")
        return part_window(x, centre, getattr(self, f"{spec.name}_metric"), model.window_inner, model.window_outer)

    def _displacement(self, x: Tensor, out: Tensor) -> Tensor:
        """Displacement [B,N,3] of points x [B,N,3] by a net's outputs there."""
        return out[..., :3] if self.moves == 3 else screw(x, out[..., : self.moves])

    def trace(self, points: Tensor, conditioning: Conditioning, count: int | None = None) -> Trace:
        """The cascade at points [B,R,3]; signed distances of the first `count` rows (default: all)."""
        count = points.shape[1] if count is None else count
        xs, displacements, nets, windows = [points], [], [], []
        correction = points.new_zeros(points.shape[:2])[:, :count]
        for spec in self.used(conditioning):
            x = xs[-1]
            net = self._net(spec)(x, conditioning.weights[spec.name], self.matmul)
            window = self._window(spec, x, conditioning.landmarks[spec.name])
            move = self._displacement(x, net.out)
            if window is not None:
                move = window.value * move
            if spec.name == EXP and conditioning.expression_on is not None:
                move = conditioning.expression_on * move
            if spec.outputs > self.moves:
                correction = net.out[:, :count, self.moves]
            nets.append(net)
            windows.append(window)
            displacements.append(move)
            xs.append(x + move)
        template = self.template_net(xs[-1][:, :count], conditioning.template, self.matmul)
        return Trace(template.out[..., 0] + correction, correction, xs, displacements, nets, windows, template)

    def gradients(self, trace: Trace, conditioning: Conditioning) -> Gradients:
        """The explicit adjoint of the cascade: d sdf / d p as ordinary, differentiable tensor operations.

        One pass backwards through the nets, S first, so that training needs no second derivative from autograd.
        """
        count = trace.sdf.shape[1]
        ones = torch.ones_like(trace.sdf).unsqueeze(-1)
        g = self.template_net.adjoint(ones, trace.template, conditioning.template, self.matmul)
        neutral = g
        for index, spec in reversed(list(enumerate(self.used(conditioning)))):
            full = trace.nets[index]
            net = full if full.out.shape[1] == count else full.first(count)
            x, through = trace.points[index][:, :count], g
            if spec.name == EXP:
                neutral = g
                if conditioning.expression_on is not None:
                    through = conditioning.expression_on * g
            window = trace.windows[index]
            if window is not None:
                value, slope = window.value[:, :count], window.grad[:, :count]
                g = g + slope * (self._displacement(x, net.out) * through).sum(-1, keepdim=True)
                through = value * through
            if self.moves > 3:
                direct, through = screw_adjoint(through, x, net.out[..., : self.moves])
                g = g + direct
            cotangent = torch.cat([through, ones], -1) if spec.outputs > self.moves else through
            g = g + self._net(spec).adjoint(cotangent, net, conditioning.weights[spec.name], self.matmul)
        if EXP not in conditioning.weights:
            neutral = g
        return Gradients(g, neutral)

    def sdf(self, points: Tensor, codes: Codes) -> Tensor:
        return self.trace(points, self.condition(codes)).sdf

    def sdf_and_grad(self, points: Tensor, codes: Codes) -> SDFGrad:
        conditioning = self.condition(codes)
        trace = self.trace(points, conditioning)
        return SDFGrad(trace.sdf, self.gradients(trace, conditioning).point)

    def warp(self, points: Tensor, codes: Codes) -> Tensor:
        return self.trace(points, self.condition(codes), 0).points[-1]

    def stages(self, points: Tensor, codes: Codes) -> dict[str, Tensor]:
        """Positions [B,N,3] of points [B,N,3] after each net, by the name of the net."""
        conditioning = self.condition(codes)
        trace = self.trace(points, conditioning, 0)
        return {spec.name: moved for spec, moved in zip(self.used(conditioning), trace.points[1:], strict=True)}
