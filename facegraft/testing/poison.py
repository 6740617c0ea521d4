"""A wrapper of another stage in which chosen items misbehave, to test that exactly these are rejected, with the right reason.

    parameters = poisoned("my.package:MyStage", my_parameters, {"s0003_e01": "segfault", "s0007_e00": "hang"})
    execute(POISONED, my_plan, inputs, output, parameters, seed, options)

Without faults the same wrapper gives the expected result of all other items.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from facegraft.engine import ItemOutput, ItemRejected, PlannedItem, StageContext
from facegraft.engine.stage import build_stage

POISONED = "facegraft.testing.poison:PoisonedStage"
HOG_BYTES = 10 * 10**9


class PoisonedStage:
    """Parameters: `stage` (import path of the real one), `parameters` (its own), `faults` (item key → name in FAULTS), and `journal`:
    a file that gets a line (the item's key) at every attempt at an item, or null."""

    def __init__(self, context: StageContext) -> None:
        self._faults: dict[str, str] = context.parameters["faults"]
        unknown = sorted(set(self._faults.values()) - FAULTS.keys())
        if unknown:
            raise ValueError(f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
        self._journal: str | None = context.parameters["journal"]
        self._stage = build_stage(
            context.parameters["stage"], replace(context, parameters=context.parameters["parameters"])
        )

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        if self._journal is not None:
            note(Path(self._journal), item.key)
        fault = self._faults.get(item.key)
        if fault is None:
            return self._stage.process(item, rng)
        return FAULTS[fault](lambda: self._stage.process(item, rng))


def poisoned(
    stage: str, parameters: Mapping[str, Any], faults: Mapping[str, str], journal: Path | None = None
) -> dict[str, Any]:
    """The parameters of PoisonedStage."""
    return {
        "stage": stage,
        "parameters": dict(parameters),
        "faults": dict(faults),
        "journal": None if journal is None else str(journal),
    }


def note(journal: Path, line: str) -> None:
    """Add a line in one write, so that lines of several processes do not mix."""
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def attempts(journal: Path) -> Counter[str]:
    """How often each item was tried."""
    return Counter(journal.read_text().split())


Make = Callable[[], ItemOutput]


def _exception(make: Make) -> NoReturn:
    raise ValueError("poison")


def _refusal(make: Make) -> NoReturn:
    raise ItemRejected("poison")


def _segfault(make: Make) -> ItemOutput:
    ctypes.string_at(0)
    return make()


def _abort(make: Make) -> NoReturn:
    os.abort()


def _exit(make: Make) -> NoReturn:
    os._exit(3)


def _hang(make: Make) -> NoReturn:
    while True:
        pass


def _sleep(make: Make) -> NoReturn:
    while True:
        time.sleep(3600)


def _hog(make: Make) -> ItemOutput:
    # Ones, not zeros: memory is only allocated when it is written.
    np.ones(HOG_BYTES, np.uint8)
    return make()


def _nan(make: Make) -> ItemOutput:
    output = make()
    name = next(name for name, array in output.fields.items() if array.dtype.kind == "f" and array.size)
    spoilt = output.fields[name].copy()
    spoilt.flat[0] = np.nan
    return ItemOutput({**output.fields, name: spoilt}, output.row)


def _killed(make: Make) -> ItemOutput:
    # As the system does it when memory is short.
    os.kill(os.getpid(), signal.SIGKILL)
    return make()


FAULTS: Mapping[str, Callable[[Make], ItemOutput]] = {
    "exception": _exception,
    "refusal": _refusal,
    "segfault": _segfault,
    "abort": _abort,
    "exit": _exit,
    "hang": _hang,
    "sleep": _sleep,
    "memory": _hog,
    "nan": _nan,
    "killed": _killed,
}
