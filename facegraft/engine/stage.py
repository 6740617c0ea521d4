"""The interface of stages: a class that is constructed once per worker, and its method that makes one item.

A stage does not depend on Dask, shards or output files. It is named by its import path, "package.module:Class".
"""

from __future__ import annotations

import importlib
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from facegraft.engine.errors import ItemRejected, StageSetupError
from facegraft.errors import FacegraftError
from facegraft.store.errors import RemoteError
from facegraft.store.remote import Location

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_REASON_LENGTH = 300


@dataclass(frozen=True)
class PlannedItem:
    """One item to make. `row`: index columns known at plan time; `spec`: the input of the item function, as plain JSON."""

    key: str
    row: dict[str, Any]
    spec: dict[str, Any]


@dataclass(frozen=True)
class StageContext:
    """Arguments for constructing a stage. `inputs` are paths as strings; `shared` are read-only arrays."""

    output: Location
    inputs: list[str]
    parameters: dict[str, Any]
    shared: dict[str, np.ndarray]
    region_map: dict[str, Any] | None
    seed: int


@dataclass(frozen=True)
class ItemOutput:
    """The result of an item function: the arrays of the schema's fields, and index columns that were unknown at plan time."""

    fields: dict[str, np.ndarray]
    row: dict[str, Any] = field(default_factory=dict)


class Stage(Protocol):
    """A class constructed as Stage(StageContext), once per worker."""

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        """Make one item. Raises ItemRejected to refuse it with a reason; any other exception rejects the item too."""
        ...


@dataclass(frozen=True)
class ItemResult:
    """The outcome of one item: written (`reason` None) or rejected.

    `out_of_memory` marks a MemoryError, which may be the fault of the process as well as of the item; `unreachable` an input in an object
    store that does not answer, which is not the item's fault: it is neither written nor rejected.
    """

    key: str
    fields: dict[str, np.ndarray] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    traceback: str = ""
    offending: dict[str, np.ndarray] = field(default_factory=dict)
    out_of_memory: bool = False
    unreachable: bool = False


def stage_name(stage_path: str) -> str:
    """The class name; random streams are derived from it, so that moving a module does not change the data."""
    _check_path(stage_path)
    return stage_path.partition(":")[2]


def stage_label(stage_path: str) -> str:
    """The stage's name for users: `graft` for `facegraft.stages.graft:GraftStage`."""
    return stage_name(stage_path).removesuffix("Stage").lower()


def build_stage(stage_path: str, context: StageContext) -> Stage:
    """Import and construct a stage. Raises the stage's own FacegraftError, or StageSetupError with the cause in its message."""
    _check_path(stage_path)
    module, _, name = stage_path.partition(":")
    try:
        stage: Stage = getattr(importlib.import_module(module), name)(context)
    except FacegraftError:
        raise
    except Exception as error:
        raise StageSetupError(f"stage {stage_path} cannot be set up: {type(error).__name__}: {error}") from error
    return stage


def process_item(
    stage: Stage, item: PlannedItem, rng: np.random.Generator, memory_reason: str = "killed: out of memory"
) -> ItemResult:
    """Call the item function and turn its output or exception into a result. Only KeyboardInterrupt is passed on."""
    try:
        output = stage.process(item, rng)
        if not isinstance(output, ItemOutput):
            raise TypeError(
                f"process() of {type(stage).__name__} must return an ItemOutput, not {type(output).__name__}"
            )
        fields = {str(name): _plain_array(name, array) for name, array in output.fields.items()}
        row = {
            str(name): value.item() if isinstance(value, np.generic) else value for name, value in output.row.items()
        }
    except ItemRejected as refusal:
        return ItemResult(
            item.key, reason=short_reason(str(refusal)), traceback=traceback.format_exc(), offending=refusal.offending
        )
    except RemoteError as error:
        return ItemResult(item.key, reason=" ".join(str(error).split()), unreachable=True)
    except MemoryError:
        return ItemResult(item.key, reason=memory_reason, traceback=traceback.format_exc(), out_of_memory=True)
    except (Exception, SystemExit) as error:
        return ItemResult(
            item.key, reason=short_reason(f"error: {type(error).__name__}: {error}"), traceback=traceback.format_exc()
        )
    return ItemResult(item.key, fields, row)


def short_reason(text: str) -> str:
    """One line that is the same in every run: white space joined, memory addresses blanked, cut at 300 characters."""
    # Lone surrogates (file names that are not UTF-8) cannot be written to JSON or parquet.
    clean = text.encode(errors="replace").decode()
    line = _ADDRESS.sub("0x…", " ".join(clean.split())) or "no reason given"
    return line if len(line) <= _REASON_LENGTH else line[: _REASON_LENGTH - 1] + "…"


def read_only(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, made read-only: one item must not change the input of the next."""
    for array in arrays.values():
        array.setflags(write=False)
    return dict(arrays)


def _plain_array(name: str, array: object) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        what = f"array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"field {name!r} must be a numpy array of numbers or booleans, not {what}")
    return array


def _check_path(stage_path: str) -> None:
    if not _PATH.fullmatch(stage_path):
        raise StageSetupError(f"stage {stage_path!r} must be named as 'package.module:Class'")
