"""i3DMM's geometry (Yenamandra et al. 2021): a reference head and a deformation into its space. Colour is left out."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from facegraft.vocabulary import EXP, NEUTRAL
from facegraft_model.baselines.autodecoder import (
    PUBLISHED_FIT,
    AutoDecoder,
    AutoDecoderOptions,
    CodedMLP,
    WeightNormLinear,
    unbiased_linear,
)
from facegraft_model.bounds import at_least, positive
from facegraft_model.config import Config, DataConfig, FitConfig, ModelConfig, TrainConfig, own_options
from facegraft_model.data.ids import IdTable
from facegraft_model.errors import ModelError
from facegraft_model.losses import length
from facegraft_model.method import Batch, Codes, RegisteredHeads, TemplateFacts, Terms, sampled_points
from facegraft_model.methods import MethodOptions


@dataclass(frozen=True)
class I3DMMOptions(AutoDecoderOptions):
    """Architecture and losses of i3DMM, as published."""

    i3dmm_id_dim: int = positive(128)
    i3dmm_exp_dim: int = positive(128)
    """Lengths of the codes; the paper's third code, of the hairstyle, is left out because the heads have no hair."""
    i3dmm_width: int = positive(1024)
    i3dmm_layers: int = at_least(2, 8, "the codes enter in the middle")
    """Hidden layers of the deformation net; codes and point enter again in their middle."""
    i3dmm_reference_width: int = positive(512)
    i3dmm_reference_layers: int = positive(3)
    """Hidden layers of the reference net."""
    i3dmm_frequencies: int = 6
    """Octaves of the positional encoding."""
    i3dmm_code_init: float = 384**-0.5
    """Standard deviation of the codes at the start."""
    i3dmm_pretrain_epochs: float = 0.0
    """Steps before training in which only the reference net learns, undeformed neutral heads. The published name is kept: its
    pre-training has one head, so each epoch is a step."""
    deformation: float = 1e-4
    """Weight of the length of the deformation, in training and fitting."""
    landmark: float = 1.0
    """Weight of the mean distance, in the reference space, between the same landmarks of two heads of a batch."""


PUBLISHED = Config(
    preset="i3dmm",
    model=ModelConfig(method="i3dmm"),
    baseline=I3DMMOptions(i3dmm_pretrain_epochs=1001.0),
    data=DataConfig(items=64, surface=0, poi=15401, free=983, origins="scan"),
    train=TrainConfig(epochs=1001.0, lr=5e-4, code_lr=1e-3, lr_factor=0.5, lr_every=250.0, lr_from=250.0),
    fit=replace(PUBLISHED_FIT, poi=15401, free=983),
)
"""The geometry of i3DMM with the published schedule, on scans; 94 % of its points are near the surface, most of these around eyes, nose and
mouth. See `I3DMMField.lr_factors` for the reference net's rate."""

LANDMARKS = (36, 39, 42, 45, 30, 48, 54, 8)
"""Eight landmarks (iBUG 68) that the loss makes coincide in the reference space: canthi, nose tip, mouth corners, chin."""


class ReferenceNet(nn.Module):
    """Signed distance of the reference head: encoded points, padded with zeros to the width, through ReLU layers into tanh.

    The padding is that of the published architecture: it gives 790,017 parameters and the initial scale of the first layer.
    """

    def __init__(self, own: I3DMMOptions) -> None:
        super().__init__()
        self.frequencies = own.i3dmm_frequencies
        self.width = max(own.i3dmm_reference_width, encoded_size(self.frequencies))
        sizes = [self.width] + [own.i3dmm_reference_width] * own.i3dmm_reference_layers
        self.hidden = nn.ModuleList(WeightNormLinear(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes))
        self.last = unbiased_linear(own.i3dmm_reference_width, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Points [B,N,3] of the reference space → [B,N]."""
        encoded = encode(points, self.frequencies)
        h = functional.pad(encoded, (0, self.width - encoded.shape[-1]))
        for layer in self.hidden:
            h = functional.relu(layer(h))
        return torch.tanh(self.last(h)[..., 0])


def deformation_net(own: I3DMMOptions, code_dim: int) -> CodedMLP:
    """Displacement into the reference space: eight layers of 1024 and a linear one. 8,225,795 parameters for codes of 384."""
    return CodedMLP(code_dim, encoded_size(own.i3dmm_frequencies), own.i3dmm_width, own.i3dmm_layers, 3, narrow=False)


def encode(points: Tensor, frequencies: int) -> Tensor:
    """Points and their sines and cosines at 2^0 … 2^(L-1) rad per unit, [...,3] → [...,3 + 6 L] (Mildenhall et al. 2020, without pi)."""
    scaled = [2.0**octave * points for octave in range(frequencies)]
    return torch.cat([points, *(wave for each in scaled for wave in (torch.sin(each), torch.cos(each)))], -1)


def encoded_size(frequencies: int) -> int:
    """Length of an encoded point: its three coordinates, and a sine and a cosine of each at every frequency."""
    return 3 + 6 * frequencies


def neutral_row(id_table: IdTable) -> int | None:
    """Row of the neutral expression among the shared ones: that of grafted heads, which are all neutral; without any, the one
    named "neutral".

    None where no expression is known to be neutral. Raises ModelError when grafted heads have several expressions.
    """
    grafted = sorted({shape[-1] for shape in id_table.shapes if len(set(shape[:-1])) > 1})
    if len(grafted) > 1:
        raise ModelError(
            f"the id table has grafted heads of the expressions {', '.join(grafted)}; they must all be neutral"
        )
    name = grafted[0] if grafted else NEUTRAL
    return id_table.expression_name(name) if name in id_table.expression_names else None


class I3DMMField(AutoDecoder):
    """Signed distances of a head: S(x + D(z_id, z_exp, x)). Codes: id [B,128] of a head, exp [B,128] of an expression, shared by all heads.

    Without exp the head is neutral: its code is the trained code of the neutral expression, or zeros where the training data has
    no expression that is known to be neutral (see `neutral_row`).
    """

    Options: ClassVar[type[MethodOptions]] = I3DMMOptions
    options: I3DMMOptions
    landmark_rows: Tensor
    presets: ClassVar[tuple[Config, ...]] = (PUBLISHED,)
    lr_factors: ClassVar[dict[str, float]] = {"reference.": 0.2}
    """Factor on the learning rate of the parameters whose name starts with a key; the published rates are 1e-4 and 5e-4."""

    def __init__(self, config: Config, id_table: IdTable, template: TemplateFacts, mm_per_unit: float) -> None:
        own = own_options(config, I3DMMOptions)
        dims, ids = {"id": own.i3dmm_id_dim, EXP: own.i3dmm_exp_dim}, {"id": "head", EXP: "expression_name"}
        super().__init__(config, id_table, template, mm_per_unit, dims, ids, own.i3dmm_code_init)
        self.neutral = neutral_row(id_table)
        self.register_buffer("landmark_rows", torch.tensor(LANDMARKS), persistent=False)  # on the device, so that no step waits for a copy
        self.deformation = deformation_net(own, sum(dims.values()))
        self.reference = ReferenceNet(own)

    def begin(self, heads: RegisteredHeads, batch_of: Callable[[int], Batch], seed: int) -> None:
        """Pre-train the reference net alone, with the networks' learning rate (in training its own is a fifth of it).

        The published reference learns one chosen mesh; no head is chosen here, so it learns the median of the neutral ones. Raises
        ModelError where no scan is neutral.
        """
        steps = round(self.options.i3dmm_pretrain_epochs)
        if steps and not bool(heads.neutral.any()):
            raise ModelError(
                "i3dmm: the reference net is pre-trained on neutral scans, and there are none to train on; add them (see data.expressions), "
                "or set baseline.i3dmm_pretrain_epochs=0"
            )
        optimiser = torch.optim.Adam(self.reference.parameters(), lr=self.config.train.lr)
        done = number = 0
        while done < steps:
            batch, number = batch_of(number), number + 1
            neutral = batch["is_neutral"] | batch["is_composite"]
            if not bool(neutral.any()):
                continue
            points, distances, _ = sampled_points(batch)
            error = (self.clamped(self.reference(points[neutral])) - self.clamped(distances[neutral])).abs().mean()
            optimiser.zero_grad()
            error.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            done += 1
        self.zero_grad()

    def displacement(self, points: Tensor, codes: Codes) -> Tensor:
        """Displacement of points [B,N,3] into the reference space, [B,N,3]."""
        expression = codes[EXP] if EXP in codes else self._neutral_code(codes["id"])
        code = torch.cat([codes["id"], expression], 1)
        move: Tensor = self.deformation(code, encode(points, self.options.i3dmm_frequencies))
        return move

    def _neutral_code(self, identity: Tensor) -> Tensor:
        table = self.tables[EXP]
        code = torch.zeros_like(table[0]) if self.neutral is None else table[self.neutral]
        return code.expand(len(identity), -1)

    def sdf(self, points: Tensor, codes: Codes) -> Tensor:
        distance: Tensor = self.reference(self.warp(points, codes))
        return distance

    def warp(self, points: Tensor, codes: Codes) -> Tensor:
        return points + self.displacement(points, codes)

    def training_terms(self, batch: Batch, codes: Codes, epoch: Tensor) -> Terms:
        own = self.options
        points, distances, _ = sampled_points(batch)
        count = points.shape[1]
        landmarks = batch["landmarks"][:, 0, self.landmark_rows]
        start = torch.cat([points, landmarks], 1)
        move = self.displacement(start, codes)
        error = (self.clamped(self.reference(points + move[:, :count])) - self.clamped(distances)).abs()
        terms = {"sdf": error.mean(), "code": self.code_length(codes, epoch)}
        if own.deformation > 0:
            terms["deformation"] = own.deformation * length(move).mean()
        if own.landmark > 0 and len(points) > 1:
            terms["landmark"] = own.landmark * pairwise_distance((start + move)[:, count:])
        return terms

    def fit_terms(self, batch: Batch, codes: Codes, fit: FitConfig) -> Terms:
        points, _, _ = sampled_points(batch)
        move = self.displacement(points, codes)
        predicted = self.reference(points + move)
        terms = {"sdf": self.reconstruction(batch, predicted, fit), "code": self.code_prior(codes, fit)}
        if self.options.deformation > 0:
            terms["deformation"] = self.options.deformation * length(move).mean(1)
        return terms


def pairwise_distance(points: Tensor) -> Tensor:
    """Mean distance between the same point [B,L,3] of two heads, over all pairs of heads and all points."""
    heads = len(points)
    pairs = length(points.unsqueeze(0) - points.unsqueeze(1))
    off = ~torch.eye(heads, dtype=torch.bool, device=points.device)
    return (pairs * off[..., None]).sum() / (heads * (heads - 1) * points.shape[1])
