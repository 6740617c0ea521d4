"""The configuration of training: frozen dataclasses, JSON, and `group.name=value` settings.

Bounds of a number are declared at its field (see `bounds`); a method's requirements on several fields together are in
`Field.check`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from facegraft.errors import nearest
from facegraft.settings import SettingError, parse_setting
from facegraft_model import methods
from facegraft_model.bounds import added, check_bounds, positive
from facegraft_model.errors import ModelError
from facegraft_model.methods import MethodOptions
from facegraft_model.typed import read, typed_setting

Precision = Literal["auto", "fp32", "tf32", "fp16-hidden"]
SETS = ("surface", "near", "free", "wide", "poi")
"""The sets of sampled points of which steps and fits take counts; samples need not have the last two."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture. It is saved in every checkpoint, and a checkpoint only loads into the same architecture."""

    method: str = field(default="parts", metadata={"one_of": tuple(methods.METHODS)})
    """parts: the cascade of part nets; imface: one identity net; others: the baselines of those names (see `methods`)."""
    width: int = positive(128)
    """Width of the four sine layers of every mini-net."""
    omega: float = positive(30.0)
    """Frequency of the sines, sin(omega x) (Sitzmann et al. 2020)."""
    nets: Literal["hyper", "basis"] = "hyper"
    """hyper: a code sets the weights of a cascade of nets, as in the paper; basis: displacements of the template that are linear in the
    codes (method parts only)."""
    hyper: Literal["full", "low-rank", "film"] = "full"
    """How a latent code sets the weights of a net: full tensors, a low-rank change of shared ones, or scales and shifts."""
    hyper_width: int = positive(128)
    """Hidden width of the hyper-networks (one ReLU MLP per tensor, two hidden activations)."""
    hyper_rank: int = positive(8)
    """Rank of the change of each weight matrix, for hyper=low-rank."""
    blend_width: int = positive(128)
    """Hidden width of the networks that blend the fields of the landmarks."""
    landmark_width: int = positive(256)
    """Hidden width of the landmark generators."""
    warp: Literal["translation", "se3"] = added("translation")
    """nets=hyper: what a deformation net gives for a point: its displacement, or a rigid motion of it (a screw, six numbers)."""
    landmarks: Literal["part", "five"] = "part"
    """part: each part's net and the remainder's have their own five landmarks; five: all nets use the same five of the whole face (the
    ablation of the paper's Tables 3 and 4)."""
    window: bool = False
    """Fade the displacement of a part net to zero away from its part."""
    window_inner: float = 1.1
    window_outer: float = 1.4
    """The window is 1 up to window_inner and 0 from window_outer on, in radii of the ellipsoid around the part."""
    features: int = positive(512)
    """nets=basis: width of the last sine layer of the remainder's net, of which all its displacement fields are combined."""
    part_features: int = positive(128)
    """nets=basis: the same for a part's net."""
    exp_features: int = positive(192)
    """nets=basis: the same for the expression's net."""
    basis_omega: float = positive(15.0)
    """nets=basis: frequency of the sines of the nets; omega is that of the template's distance."""
    local_mm: float = 150.0
    """nets=basis: the remainder's modes are local: points farther from each other than this vary nearly independently; 0: they are the
    principal components of the training heads."""
    part_local_mm: float = 0.0
    """nets=basis: the same for the modes of the parts; it pays for a few dozen heads or less."""
    part_dim: int = positive(48)
    """Length of the latent code of each part."""
    rem_dim: int = positive(112)
    """Length of the remainder's code."""
    id_dim: int | None = added(None, positive=True)
    """Length of imface's identity code; default: as long as the codes of all parts and of the remainder together."""
    exp_dim: int = positive(128)
    """Length of the expression's code."""
    code_init: float = 0.01
    """Standard deviation of the codes at the start."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms of the cascade; 0 switches a term off (it is not computed). All terms are means.

    Each field gives a term's name, default and help; `losses.TERMS` has its definition under the same name.
    """

    sdf: float = 3e3
    """|sdf - truth|"""
    eikonal: float = 50.0
    """| |grad| - 1 |"""
    eikonal_neutral: float = 0.0
    """The eikonal term at the point to which the expression net maps (ImFace has it with weight 50, the parts paper does not name it)."""
    normal: float = 100.0
    """1 - cosine of the gradient and the true normal"""
    correction: float = 100.0
    """|epsilon|: RemNet's scalar correction"""
    landmark_generation: float = 1e3
    """|generated landmarks - true landmarks|"""
    landmark_consistency: float = 100.0
    """|landmarks after each net - landmarks of that stage|"""
    code: float = 1e6
    """mean z^2 of each code"""
    neutral: float = 1e4
    """squared displacement by the expression net of a head whose expression is neutral"""
    dense: float = 0.0
    """|displacement of registered surface points by each net - the true displacement of that stage| (in units); for a part net, the
    mean inside the part plus the mean around it"""
    locality: float = 0.0
    """|displacement by a part net| at sampled points around the part: inside its window, but outside the part"""


@dataclass(frozen=True)
class DataConfig:
    """The data of one training step."""

    items: int = positive(36)
    """Items per step, over all processes."""
    surface: int = 15401
    near: int = 0
    free: int = 983
    """Points of each kind per item; preset paper: 16,384, of which 94 % surface and 6 % free."""
    wide: int = added(0)
    """The same of points in the wide bands with which DeepSDF was published (samples made with sample.wide)."""
    poi: int = added(0)
    """The same of points mostly near eyes, nose and mouth, with which i3DMM was published (samples made with sample.poi)."""
    stage: int = 0
    """Registered surface points per item, for the dense stage supervision."""
    template: int = 0
    """nets=basis: points of the template's own surface per step, caps included, at which its distance is 0; half of them are drawn
    in the parts only."""
    origins: Literal["all", "scan"] = "all"
    """scan: leave the composites out (how ImFace, i3DMM and DeepSDF were trained)."""
    expressions: tuple[str, ...] = added(())
    """Train on heads of these expressions only, by name; empty: on all. Composites are neutral heads. Held-out heads are fitted whatever
    their expression."""
    backend: Literal["auto", "resident", "stream"] = "auto"
    """resident: the whole dataset on the device; stream: read ahead from disk; auto: resident when it fits."""


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation: steps, learning rates, precision. These settings do not change the meaning of a checkpoint."""

    steps: int | None = positive(None)
    """Optimiser steps; default: epochs x items / batch."""
    epochs: float = positive(850.0)
    lr: float = positive(1e-4)
    """Adam's learning rate of the networks."""
    head_lr: float | None = positive(None)
    """Learning rate of the hyper-networks' last layers; default: lr. An Adam step moves a predicted weight by this times the hidden width."""
    code_lr: float | None = positive(None)
    """Learning rate of the latent codes; default: lr."""
    schedule: Literal["step", "cosine"] = "step"
    """step: x lr_factor every lr_every epochs from epoch lr_from on; cosine: down to 1 % of lr over the whole run."""
    lr_factor: float = 0.95
    lr_every: float = positive(10.0)
    lr_from: float = 200.0
    pretrain: int = 0
    """nets=basis: steps of the regressions before training: of each net to the modes of the registered heads, and of the template's
    distance with the nets held; 0: the nets start at zero displacement and the template at random."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    clip_grad: float = 0.0
    """Largest norm of the gradient; 0: no clipping. Normal norms are about 2e3; when the eikonal term explodes they reach 1e7."""
    accumulate: int = positive(1)
    """Number of pieces into which a batch is split to fit in memory; the gradient is that of the whole batch."""
    precision: Precision = "auto"
    """auto: tf32 on CUDA, fp32 on CPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the step; auto: on for CUDA."""
    deterministic: bool = False
    """Deterministic algorithms on CUDA (slower; on CPU every run is)."""
    log_every: int = positive(10)
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = positive(2)
    validate_every: int = 0
    """Steps between validations on held-out subjects; 0: at the end only."""
    validate_steps: int = 60
    """Iterations of the fit of held-out codes within a validation."""


@dataclass(frozen=True)
class FitConfig:
    """Fitting codes to unseen heads (Eq. 12), with frozen weights."""

    solver: Literal["adam", "gauss-newton"] = "adam"
    """adam: `steps` iterations of Adam, for every method; gauss-newton: Levenberg-Marquardt, for methods that are nearly linear in their
    codes (nets=basis)."""
    steps: int = positive(1000)
    """Iterations; gauss-newton stops earlier once it has converged."""
    lr: float = positive(1e-4)
    """Adam's learning rate."""
    schedule: Literal["cosine", "step"] = added("cosine")
    """cosine: from lr down to 1 % of it; step: x lr_factor every lr_every iterations from iteration lr_from on."""
    lr_factor: float = added(0.95)
    lr_every: float = added(10.0, positive=True)
    lr_from: float = added(200.0)
    noise_mm: float = positive(0.3)
    """gauss-newton: standard deviation of a point's distance that weighs as much as one of a code."""
    items: int = positive(16)
    """Heads fitted at once."""
    surface: int = 15401
    near: int = 0
    free: int = 983
    wide: int = added(0)
    poi: int = added(0)
    robust_mm: float = 0.0
    """Scale of the Geman-McClure loss of the distances, for scans with outliers; 0: plain L1."""
    init: Literal["random", "mean"] = "random"
    """Start of the codes: N(0, code_init^2), or the mean of the training codes."""
    prior: Literal["norm", "gaussian"] = "norm"
    """Regularisation: mean z^2 as in training, or the squared Mahalanobis distance to the training codes."""
    code: float = 1e6
    """Weight of the regularisation with prior=norm."""
    gaussian: float = 1.0
    """Weight of the regularisation with prior=gaussian."""
    locality: float = 0.0
    """Weight of |displacement by a part net| at surface and near points around the part, as labelled by their place in the template"""
    correction: float | None = added(None)
    """Weight of |epsilon|, the scalar correction, with nets=hyper; default: as in training (loss.correction)."""


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run."""

    preset: str = "paper"
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    baseline: MethodOptions = field(default_factory=MethodOptions)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str = "configuration") -> Config:
        """Raises ModelError for an unknown or missing key, or a value of another type."""
        kinds = {"baseline": MethodOptions}
        if isinstance(document, Mapping) and isinstance(document.get("model"), Mapping):
            # The options depend on the method; an unknown method is refused together with the rest of its group.
            method = document["model"].get("method")
            kinds["baseline"] = options_of(method) if method in tuple(methods.METHODS) else MethodOptions
        return read(cls, document, where, kinds)

    def of_method(self, method: str) -> Config:
        """This configuration for another method, with the default values of that method's own options."""
        return replace(self, model=replace(self.model, method=method), baseline=options_of(method)())

    def with_settings(self, settings: Sequence[str]) -> Config:
        """The configuration with `group.name=value` applied (`train.lr=1e-3`). Raises ModelError for an unknown setting.

        model.method is applied first, wherever it is listed, since it decides which options `baseline` has.
        """
        config = self
        parsed = [(setting, *_parsed(setting)) for setting in settings]
        for setting, group, name, value in sorted(parsed, key=lambda entry: entry[1:3] != ("model", "method")):
            part = getattr(config, group)
            hints = typing.get_type_hints(type(part))
            if name not in hints:
                raise ModelError(f"--set {setting}: {_whose(config, group)} has no setting {name!r}{nearest(name, hints)}")
            item = next(item for item in fields(part) if item.name == name)
            value = typed_setting(hints[name], item.metadata, value, f"--set {setting}")
            if (group, name) == ("model", "method"):
                config = config if value == config.model.method else config.of_method(value)
            else:
                changes: dict[str, Any] = {group: replace(part, **{name: value})}
                config = replace(config, **changes)
        return config.checked()

    def checked(self) -> Config:
        """This configuration. Raises ModelError for values that cannot work."""
        for group in GROUPS:
            check_bounds(getattr(self, group), group)
        if not sum(windows(self.data).values()):
            raise ModelError("data: a step needs points; set data.surface, data.near or data.free")
        if not sum(windows(self.fit).values()):
            raise ModelError("fit: a fit needs points; set fit.surface, fit.near or fit.free")
        if self.data.items % self.train.accumulate:
            raise ModelError(
                f"data.items {self.data.items} cannot be split into train.accumulate={self.train.accumulate} equal parts"
            )
        methods.field_class(self.model.method, self.model.nets).check(self)
        return self


def windows(group: DataConfig | FitConfig) -> dict[str, Any]:
    """Points of each set (`SETS`) that a step takes of an item."""
    return {name: getattr(group, name) for name in SETS}


GROUPS = tuple(item.name for item in fields(Config) if item.name != "preset")
"""Groups of settings."""

Own = TypeVar("Own", bound=MethodOptions)


def options_of(method: str) -> type[MethodOptions]:
    """The class of a method's own options."""
    return methods.field_class(method).Options


def own_options(config: Config, kind: type[Own]) -> Own:
    """The group `baseline`, if it has the options of this class; raises ModelError if they belong to another method."""
    if not isinstance(config.baseline, kind):
        raise ModelError(
            f"method {config.model.method} needs the options of {kind.__name__}, not of {type(config.baseline).__name__}; "
            "change the method with Config.of_method or `--set model.method=…`"
        )
    return config.baseline


def _parsed(setting: str) -> tuple[str, str, Any]:
    """Group, name and value of a setting. Raises ModelError."""
    try:
        group, name, value = parse_setting(setting)
    except SettingError as error:
        if "=" in setting:
            raise ModelError(str(error)) from error
        group, name, value = None, "", None
    if group is None:
        raise ModelError(f"--set {setting}: write group.name=value, such as train.lr=1e-3")
    if group not in GROUPS:
        raise ModelError(f"--set {setting}: no group {group!r}; the groups are {', '.join(GROUPS)}")
    return group, name, value


def _whose(config: Config, group: str) -> str:
    return group if group != "baseline" else f"baseline, with method {config.model.method},"
