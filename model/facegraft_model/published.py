"""Publish a trained model: a small folder with all that fitting, decoding and editing need, and nothing of the machine it was made on.

Tensors are stored in 16 bits where the surface does not show it: each one's rounding is measured on decoded heads, and those whose
rounding moves the surface most stay in 32 bits, until all others together move it by much less than `LARGEST_ERROR_MM`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facegraft.seeds import item_rng
from facegraft.store import atomic
from facegraft_model.checkpoints.checkpoint import STATE_FILE, load, write_weights
from facegraft_model.checkpoints.modelstate import TEMPLATE_TENSORS
from facegraft_model.decoding.decode import decode
from facegraft_model.errors import ModelError
from facegraft_model.method import TOPOLOGY_TENSORS, Field
from facegraft_model.models import field_of
from facegraft_model.pretrained.shipped import Run, load_run

CARD_FILE = "README.md"
MAX_BYTES = 12_000_000
"""Largest size of a published folder: it travels in every wheel."""
LARGEST_ERROR_MM = 0.01
"""Bound on the change of the distance at the surface; half of it is used, since only some heads are measured."""
HEADS, POINTS, RESOLUTION = 24, 256, 40
"""Trained heads that are measured, points of each one's surface, and the grid that these are found with."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_CARD = """## Data

Not stated.

## Licence

Not stated.

## Scores

Not stated.

## Limits

Not stated.
"""


class PublishError(ModelError):
    """A model that cannot be published, or a folder that it cannot be published to."""


@dataclass(frozen=True)
class Published:
    """What was written. error_mm: largest change of the distance at the measured points; halved: tensors stored in 16 bits."""

    folder: Path
    bytes: int
    error_mm: float
    halved: int
    tensors: int


def publish(run: Run, folder: Path, *, card: Path | None = None) -> Published:
    """Write FOLDER (its name is the model's) from a run, a checkpoint or a pretrained model. card: a Markdown file
    on data, licence, scores and limits.

    Replaces a folder that holds a published model. Raises PublishError for a name that cannot be one, a folder with other contents, more
    than MAX_BYTES, or a state that names a path; CheckpointError for a run that cannot be read.
    """
    name = folder.resolve().name
    if not _NAME.fullmatch(name):
        raise PublishError(f"{folder}: a model's name is lower case letters, digits, - and _, not {name!r}; choose another folder")
    _check_replaceable(folder)
    written = "" if card is None else _text_of(card)
    checkpoint = load_run(run)
    field = field_of(checkpoint)
    before = checkpoint.state.get("published")  # rounded already: rounding more would add to its error
    halved, error = halvable(field) if before is None else (set(before["float16"]), before["error_mm"])
    tensors = {key: tensor.half() if key in halved else tensor for key, tensor in field.state_dict().items()}
    state = {key: checkpoint.state[key] for key in ("method", "config", "id_table", "mm_per_unit", "seed")}
    state["data"] = {key: value for key, value in checkpoint.state["data"].items() if key != "samples"}
    state["published"] = {"name": name, "error_mm": error, "float16": sorted(halved)}
    _check_portable(state)
    text = _card(name, field, checkpoint.step, error, written or _CARD)
    temporary = folder.with_name(atomic.temporary_name(name))
    atomic.make_folder(folder.parent)
    temporary.mkdir()
    try:
        write_weights(temporary, checkpoint.step, tensors, state)
        atomic.write_and_sync(temporary / CARD_FILE, text.encode())
        size = sum(file.stat().st_size for file in temporary.iterdir())
        if size > MAX_BYTES:
            raise PublishError(
                f"{folder} would have {size / 1e6:.1f} MB, more than the {MAX_BYTES / 1e6:g} MB that may ship; publish a smaller model"
            )
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Published(folder, size, error, len(halved), len(tensors))


def halvable(field: Field, limit_mm: float = 0.5 * LARGEST_ERROR_MM) -> tuple[set[str], float]:
    """The tensors of a field that may be rounded to float16, and by how much (mm) that changes its distances on the surface at most.

    A tensor whose rounding no measured distance shows is not known to be harmless, and stays, unless float16 holds it exactly. The
    template's coordinates stay too: they are read as they are, and rounding moves them by up to 0.05 mm.
    """
    measure = _Measure(field)
    read = {*TEMPLATE_TENSORS, *TOPOLOGY_TENSORS}
    floats = {
        name: tensor for name, tensor in field.state_dict().items() if tensor.dtype == torch.float32 and name not in read
    }
    fitting = {name for name, tensor in floats.items() if bool(torch.isfinite(tensor.half()).all())}
    lossless = {name for name in fitting if torch.equal(floats[name].half().float(), floats[name])}
    alone = {name: measure.error_mm([name]) for name in sorted(fitting - lossless)}
    # Those that save many bytes for little error first. Roundings are independent, so their squares add up, nearly; the loop below
    # measures what is really so.
    order = sorted((name for name in alone if alone[name] > 0), key=lambda name: (alone[name] / floats[name].numel(), name))
    chosen: list[str] = []
    total = 0.0
    for name in order:
        if total + alone[name] ** 2 <= limit_mm**2:
            chosen.append(name)
            total += alone[name] ** 2
    while chosen and measure.error_mm(chosen) > limit_mm:
        chosen.remove(max(chosen, key=lambda name: (alone[name], name)))
    return lossless | set(chosen), measure.error_mm(chosen)


class _Measure:
    """Distances of trained heads on their own surfaces, with some tensors rounded."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.ids = measured_heads(field)
        with torch.no_grad():
            codes = field.codes_of(self.ids)
            count = len(next(iter(codes.values())))
            points = []
            for head in range(count):
                mesh = decode(field, {name: code[head : head + 1] for name, code in codes.items()}, resolution=RESOLUTION).mesh
                chosen = item_rng(0, "publish", str(head)).integers(0, len(mesh.vertices), POINTS)
                points.append(torch.from_numpy(mesh.vertices[chosen].astype(np.float32)))
            self.points = torch.stack(points)
        self.before = self.distances()

    def distances(self) -> Tensor:
        with torch.no_grad():
            return self.field.sdf(self.points, self.field.codes_of(self.ids))

    def error_mm(self, names: Iterable[str]) -> float:
        """Largest change of a distance, in mm, when these tensors are rounded to float16; not finite: a useless model."""
        with _rounded(self.field, names):
            change = (self.distances() - self.before).abs().max()
        return float(torch.nan_to_num(change, nan=torch.inf)) * self.field.mm_per_unit


@contextmanager
def _rounded(field: Field, names: Iterable[str]) -> Iterator[None]:
    """A field with some tensors rounded to float16, for a while."""
    own = {name: tensor for name, tensor in field.state_dict().items() if name in set(names)}
    kept = {name: tensor.clone() for name, tensor in own.items()}
    try:
        for name, tensor in own.items():
            tensor.copy_(kept[name].half())
        yield
    finally:
        for name, tensor in own.items():
            tensor.copy_(kept[name])


def measured_heads(field: Field, count: int = HEADS) -> dict[str, Tensor]:
    """The ids, int64 [n], of at most `count` trained scans, evenly over the table of expressions.

    Raises PublishError for a model that has learnt no scan.
    """
    table = field.id_table
    scans = [entry for entry in table.expressions if (entry[0],) * (1 + len(table.parts)) in table.heads]
    if not scans:
        raise PublishError("the model has learnt no scan, so nothing can be measured; publish a model that was trained on scans")
    chosen = [scans[i] for i in np.unique(np.linspace(0, len(scans) - 1, min(count, len(scans))).round().astype(int))]
    rows: dict[str, list[int]] = {name: [] for name in set(field.code_ids.values())}
    for subject, expression in chosen:
        head = (subject,) * (1 + len(table.parts))
        for name in rows:
            match name:
                case "expression":
                    row = table.expression(subject, expression)
                case "expression_name":
                    row = table.expression_name(expression)
                case "head":
                    row = table.head(head)
                case "shape":
                    row = table.shape(head, expression)
                case _:  # subject, recipient and the parts' donors
                    row = table.subject(subject)
            rows[name].append(row)
    return {name: torch.tensor(values) for name, values in rows.items()}


def _text_of(card: Path) -> str:
    try:
        return atomic.read_bytes(card).decode()
    except UnicodeDecodeError as error:
        raise PublishError(f"{card} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error


def _check_replaceable(folder: Path) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not (folder / STATE_FILE).is_file() or "published" not in load(folder).state:
        raise PublishError(f"{folder} holds something else than a published model; choose another folder")


def _check_portable(state: Mapping[str, Any]) -> None:
    """Raises PublishError for a text that is a path of this machine, or its name."""
    host = atomic.host_name()
    for where, text in _texts(state, "state"):
        if Path(text).is_absolute() or text == host:
            raise PublishError(f"{where} is {text[:80]!r}, which belongs to this machine; leave it out of the model's state")


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """All texts in a JSON value, with where they are."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts(each, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _texts(each, f"{where}[{number}]")


def _card(name: str, field: Field, step: int, error_mm: float, text: str) -> str:
    parameters = sum(parameter.numel() for parameter in field.parameters())
    data = field.provenance["data"]
    facts = {
        "method, preset": f"{field.config.model.method}, {field.config.preset}",
        "parts": f"{', '.join(field.parts)} (region set {field.parts.region_set})",
        "topology": str(data["coordinates"].get("topology", {}).get("name")) + (", in the model" if field.topology else ""),
        "trained on": f"{len(field.id_table.subjects)} subjects, {len(field.id_table.expressions)} scans, {step:,} steps",
        "fingerprint of the samples": str(data.get("fingerprint")),
        "parameters": f"{parameters:,}",
        "mm per unit": f"{field.mm_per_unit:g}",
        "stored in 16 bits": f"where the surface moves by less than {LARGEST_ERROR_MM:g} mm (measured: {error_mm:.4f} mm)",
    }
    rows = "".join(f"| {what} | {value} |\n" for what, value in facts.items())
    return f"# {name}\n\n{text.strip()}\n\n## Facts\n\n| | |\n|---|---|\n{rows}"
