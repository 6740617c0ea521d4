"""Everything that decides what is trained and how: frozen dataclasses, presets, JSON, and `name=value` settings."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from facegraft_model.errors import ModelError

Method = Literal["parts", "imface", "i3dmm", "deepsdf"]
Precision = Literal["auto", "fp32", "tf32", "fp16-hidden"]


@dataclass(frozen=True)
class ModelConfig:
    """Architecture. It is saved in every checkpoint, and a checkpoint only loads into the same one."""

    method: Method = "parts"
    """parts: the cascade of part nets; imface: one identity net; i3dmm and deepsdf: the baselines of those names."""
    width: int = 128
    """Width of the four sine layers of every mini-net."""
    omega: float = 30.0
    """Frequency of the sines, sin(omega x) (Sitzmann et al. 2020)."""
    hyper: Literal["full", "low-rank", "film"] = "full"
    """How a latent code sets the weights of a net: whole tensors, a low-rank change of shared ones, or scales and shifts."""
    hyper_width: int = 128
    """Hidden width of the hyper-networks (one ReLU MLP a tensor, two hidden activations)."""
    hyper_rank: int = 8
    """Rank of the change of each weight matrix, for hyper=low-rank."""
    blend_width: int = 128
    """Hidden width of the networks that blend the fields of the landmarks."""
    landmark_width: int = 256
    """Hidden width of the landmark generators."""
    landmarks: Literal["part", "five"] = "part"
    """part: five landmarks of its own for each part's net and the remainder's; five: the whole face's five for all nets (the ablation of the
    paper's Tables 3 and 4)."""
    window: bool = False
    """Fade the displacement of a part net to zero away from its part."""
    window_inner: float = 1.1
    window_outer: float = 1.4
    """The window is 1 up to window_inner and 0 from window_outer on, in radii of the ellipsoid around the part."""
    part_dim: int = 48
    """Length of the latent code of each part."""
    rem_dim: int = 112
    """Length of the remainder's code; imface's identity code is as long as the codes of all parts and of the remainder together."""
    exp_dim: int = 128
    """Length of the expression's code."""
    code_init: float = 0.01
    """Standard deviation of the codes at the start."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; 0 switches a term off (it is not computed). All terms are means."""

    sdf: float = 3e3
    """|sdf - truth|"""
    eikonal: float = 50.0
    """| |grad| - 1 |"""
    eikonal_neutral: float = 0.0
    """The same at the point that the expression net leads to (ImFace has it with 50, the parts paper does not name it)."""
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
    """|displacement of registered surface points by each net - the true displacement of that stage| (in units); of a part net, the mean inside the part plus the mean around it"""
    locality: float = 0.0
    """|displacement by a part net| at sampled points around the part: within its window, but not of the part"""


@dataclass(frozen=True)
class BaselineConfig:
    """Architecture and losses of the baselines, as published; the groups model and loss mean nothing to them, but for model.method."""

    deepsdf_dim: int = 256
    """Length of DeepSDF's code of a shape."""
    deepsdf_width: int = 512
    deepsdf_layers: int = 8
    """Hidden layers of DeepSDF's decoder; code and point enter again in their middle."""
    deepsdf_dropout: float = 0.2
    """Share of the activations that are dropped after each hidden layer, in training."""
    deepsdf_code_init: float = 256**-0.5
    """Standard deviation of the codes at the start."""
    i3dmm_id_dim: int = 128
    i3dmm_exp_dim: int = 128
    """Lengths of i3DMM's codes; its third, of the hairstyle, has no counterpart in heads without hair."""
    i3dmm_width: int = 1024
    i3dmm_layers: int = 8
    """Hidden layers of the deformation net; codes and point enter again in their middle."""
    i3dmm_reference_width: int = 512
    i3dmm_reference_layers: int = 3
    """Hidden layers of the reference net."""
    i3dmm_frequencies: int = 6
    """Octaves of the positional encoding."""
    i3dmm_code_init: float = 384**-0.5
    """Standard deviation of the codes at the start."""
    i3dmm_pretrain_epochs: float = 0.0
    """Epochs in which the reference net learns alone, from undeformed neutral heads, before the deformation net sets in."""
    clamp: float = 0.1
    """Distances count up to here, in units of the ball."""
    code: float = 1e-4
    """Weight of |z| in training."""
    code_warmup_epochs: float = 100.0
    """Epochs over which that weight rises from 0."""
    code_bound: float = 1.0
    """Largest norm of a trained code."""
    deformation: float = 1e-4
    """Weight of the length of i3DMM's deformation, in training and fitting."""
    landmark: float = 1.0
    """Weight of the mean distance, in i3DMM's reference space, between the same landmarks of two heads of a batch."""


@dataclass(frozen=True)
class DataConfig:
    """What one training step sees."""

    items: int = 36
    """Items a step, over all processes."""
    surface: int = 15401
    near: int = 0
    free: int = 983
    """Points of each kind an item; preset paper: 94 % surface and 6 % free of 16,384."""
    stage: int = 0
    """Registered surface points an item, for the dense stage supervision."""
    origins: Literal["all", "scan"] = "all"
    """scan: leave the composites out (how ImFace and i3DMM were trained)."""
    backend: Literal["auto", "resident", "stream"] = "auto"
    """resident: the whole dataset on the device; stream: read ahead from disk; auto: resident when it fits."""


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast. None of it changes what a checkpoint means."""

    steps: int | None = None
    """Optimiser steps; default: epochs x items / batch."""
    epochs: float = 850.0
    lr: float = 1e-4
    """Adam's learning rate of the networks."""
    head_lr: float | None = None
    """Learning rate of the hyper-networks' last layers; default: lr. Adam moves a predicted weight by this times the hidden width."""
    code_lr: float | None = None
    """Learning rate of the latent codes; default: lr."""
    schedule: Literal["step", "cosine"] = "step"
    """step: x lr_factor every lr_every epochs from epoch lr_from on; cosine: down to 1 % of lr over the whole run."""
    lr_factor: float = 0.95
    lr_every: float = 10.0
    lr_from: float = 200.0
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    clip_grad: float = 0.0
    """Largest norm of the gradient; 0: no clipping. A norm is some 2e3 when all is well, and 1e7 where the eikonal term explodes."""
    accumulate: int = 1
    """Parts that a batch is split into, to fit in memory; the gradient is that of the whole batch."""
    precision: Precision = "auto"
    """auto: tf32 on CUDA, fp32 on CPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the step; auto: on for CUDA."""
    deterministic: bool = False
    """Deterministic algorithms on CUDA (slower; on CPU every run is)."""
    log_every: int = 10
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    validate_every: int = 0
    """Steps between validations on held-out subjects; 0: at the end only."""
    validate_steps: int = 60
    """Iterations of the fit of held-out codes within a validation."""


@dataclass(frozen=True)
class FitConfig:
    """Fitting codes to unseen heads (Eq. 12): weights frozen."""

    steps: int = 1000
    lr: float = 1e-4
    items: int = 16
    """Heads fitted at once."""
    surface: int = 15401
    near: int = 0
    free: int = 983
    robust_mm: float = 0.0
    """Scale of the Geman-McClure loss of the distances, for scans with outliers; 0: plain L1."""
    init: Literal["random", "mean"] = "random"
    """Where the codes start: N(0, code_init^2), or the mean of the training codes."""
    prior: Literal["norm", "gaussian"] = "norm"
    """Regularisation: mean z^2 as in training, or the squared Mahalanobis distance to the training codes."""
    code: float = 1e6
    """Weight of the regularisation with prior=norm."""
    gaussian: float = 1.0
    """Weight of the regularisation with prior=gaussian."""
    locality: float = 0.0
    """Weight of |displacement by a part net| at surface and near points around the part, told apart by where the model takes them in the template"""


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run."""

    preset: str = "paper"
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str = "configuration") -> Config:
        """Raises ModelError for an unknown or missing key, or a value of another type."""
        return _read(cls, document, where)

    def with_settings(self, settings: Sequence[str]) -> Config:
        """The configuration with `group.name=value` applied (`train.lr=1e-3`). Raises ModelError for what is unknown."""
        config = self
        for setting in settings:
            name, equals, text = setting.partition("=")
            group, dot, key = name.strip().partition(".")
            if not (equals and dot):
                raise ModelError(f"--set {setting}: write group.name=value, such as train.lr=1e-3")
            groups = [item.name for item in fields(Config) if item.name != "preset"]
            if group not in groups:
                raise ModelError(f"--set {setting}: no group {group!r}; the groups are {', '.join(groups)}")
            part = getattr(config, group)
            hints = typing.get_type_hints(type(part))
            if key not in hints:
                raise ModelError(f"--set {setting}: {group} has no setting {key!r}{_near(key, hints)}")
            value = _checked(hints[key], _parsed(text.strip()), f"--set {setting}")
            changes: dict[str, Any] = {group: replace(part, **{key: value})}
            config = replace(config, **changes)
        return config.checked()

    def checked(self) -> Config:
        """This configuration. Raises ModelError for values that cannot work."""
        for part, names in (
            (
                self.model,
                (
                    "width",
                    "hyper_width",
                    "hyper_rank",
                    "blend_width",
                    "landmark_width",
                    "omega",
                    "part_dim",
                    "rem_dim",
                    "exp_dim",
                ),
            ),
            (
                self.baseline,
                (
                    "deepsdf_dim",
                    "deepsdf_width",
                    "i3dmm_id_dim",
                    "i3dmm_exp_dim",
                    "i3dmm_width",
                    "i3dmm_reference_width",
                    "i3dmm_reference_layers",
                    "clamp",
                    "code_bound",
                ),
            ),
            (self.data, ("items",)),
            (self.train, ("lr", "epochs", "accumulate", "log_every", "keep_checkpoints", "lr_every")),
            (self.fit, ("steps", "lr", "items")),
        ):
            for name in names:
                if getattr(part, name) <= 0:
                    raise ModelError(f"{name} must be positive, but is {getattr(part, name)}")
        for name in ("steps", "head_lr", "code_lr"):
            if getattr(self.train, name) == 0:
                raise ModelError(f"{name} must be positive, but is 0; leave it out (none) for its default")
        for group in (self.model, self.loss, self.baseline, self.data, self.train, self.fit):
            for item in fields(group):
                value = getattr(group, item.name)
                if (
                    isinstance(value, int | float)
                    and not isinstance(value, bool)
                    and (value < 0 or not math.isfinite(value))
                ):
                    raise ModelError(f"{item.name} must not be negative or infinite, but is {value}")
        if self.data.surface + self.data.near + self.data.free == 0:
            raise ModelError("data: a step needs points; set data.surface, data.near or data.free")
        if self.fit.surface + self.fit.near + self.fit.free == 0:
            raise ModelError("fit: a fit needs points; set fit.surface, fit.near or fit.free")
        if self.model.method in ("parts", "imface") and self.data.surface == 0 and self.loss.neutral > 0:
            raise ModelError("loss.neutral is measured at surface points: set data.surface, or loss.neutral=0")
        if min(self.baseline.deepsdf_layers, self.baseline.i3dmm_layers) < 2:
            raise ModelError(
                "baseline: deepsdf_layers and i3dmm_layers must be at least 2, since the code enters in the middle"
            )
        if self.baseline.deepsdf_width <= self.baseline.deepsdf_dim + 3:
            raise ModelError(
                f"baseline.deepsdf_width must be larger than deepsdf_dim + 3 = {self.baseline.deepsdf_dim + 3}, which is joined to it"
            )
        if self.baseline.deepsdf_dropout >= 1:
            raise ModelError(f"baseline.deepsdf_dropout must be below 1, but is {self.baseline.deepsdf_dropout}")
        if self.loss.dense > 0 and self.data.stage == 0:
            raise ModelError("loss.dense needs registered points: set data.stage (such as 512), or loss.dense=0")
        if self.data.items % self.train.accumulate:
            raise ModelError(
                f"data.items {self.data.items} cannot be split into train.accumulate={self.train.accumulate} equal parts"
            )
        if not self.model.window_outer > self.model.window_inner:
            raise ModelError("model.window_outer must be larger than model.window_inner")
        return self


T = TypeVar("T")


def _read(kind: type[T], document: Any, where: str) -> T:
    if not isinstance(document, Mapping):
        raise ModelError(f"{where}: expected a JSON object, found {type(document).__name__}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(document) - set(hints))
    if unknown:
        raise ModelError(
            f"{where}: unknown setting {unknown[0]!r}{_near(unknown[0], hints)}; it was made by another version: train anew, or use that version"
        )
    missing = sorted(set(hints) - set(document))
    if missing:
        raise ModelError(f"{where}: setting {missing[0]!r} is missing; it was made by another version: train anew, or use that version")
    values = {
        name: _read(hint, document[name], f"{where}.{name}")
        if is_dataclass(hint) and isinstance(hint, type)
        else _checked(hint, document[name], f"{where}.{name}")
        for name, hint in hints.items()
    }
    return kind(**values)


def _parsed(text: str) -> Any:
    if text.lower() in ("true", "false", "null", "none"):
        return {"true": True, "false": False}.get(text.lower())
    try:
        return json.loads(text)
    except ValueError:
        return text


def _checked(hint: Any, value: Any, where: str) -> Any:
    """The value as the hinted type. Raises ModelError when it is of another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in arguments:
            raise ModelError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _checked(next(item for item in arguments if item is not type(None)), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ModelError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value


def _near(name: str, known: typing.Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else f"; there are {', '.join(sorted(known))}"
