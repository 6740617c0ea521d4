"""Small stages for the engine's tests: importable by workers and their children (conftest puts this folder on PYTHONPATH)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from facegraft.engine import ItemOutput, ItemRejected, PlannedItem, StageContext, StagePlan
from facegraft.store import DatasetSchema, FieldSpec

SCHEMA = DatasetSchema(
    kind="heads",
    topology={"name": "toy", "vertex_count": 4, "faces_sha256": None},
    mm_per_unit=1.0,
    frame="none",
    fields={
        "vertices": FieldSpec("float32", ("V", 3), "mm", "", "four points"),
        "extra": FieldSpec("int64", ("n",), "", "", "as many numbers as the item likes"),
    },
    columns={"subject": "int64", "note": "string", "mean": "float64"},
)


def toy_plan(
    count: int = 20, shard_items: int = 4, faults: dict[int, str] | None = None, seconds: float = 0.0
) -> StagePlan:
    """`faults`: number of the item -> what it does."""
    items = [
        PlannedItem(
            f"item_{i:03d}", {"subject": i}, {"size": i % 5, "seconds": seconds, "fault": (faults or {}).get(i)}
        )
        for i in range(count)
    ]
    return StagePlan(
        schema=SCHEMA,
        # Any order will do: the engine sorts.
        items=items[::-1],
        shared={"faces": np.array([[0, 1, 2], [0, 2, 3]], np.int32)},
        region_map={"name": "toy"},
        shard_items=shard_items,
        input_fingerprint={"toy": "1"},
    )


GATE = "FACEGRAFT_TOY_GATE"


def gate(path: Path, first: int) -> dict[str, str]:
    """The environment of processes in which the items from number `first` on wait until the file `path` is there: a run that is in
    the middle for as long as a test needs, on a machine of any speed. What is made stays the same, and so does the plan."""
    return {GATE: f"{first} {path}"}


def _wait_at_gate(key: str) -> None:
    if GATE in os.environ:
        first, _, path = os.environ[GATE].partition(" ")
        if int(key.removeprefix("item_")) >= int(first):
            while not Path(path).exists():
                time.sleep(0.01)


class ToyStage:
    """Random points from the item's generator, scaled by a parameter; does the fault that its item asks for."""

    def __init__(self, context: StageContext) -> None:
        self.scale = float(context.parameters["scale"])
        self.faces = context.shared["faces"]
        assert context.region_map == {"name": "toy"}
        assert not self.faces.flags.writeable
        self.inputs = context.inputs

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        _wait_at_gate(item.key)
        time.sleep(item.spec["seconds"])
        vertices = (self.scale * rng.normal(size=(4, 3))).astype(np.float32)
        if item.spec["fault"] is not None:
            vertices = self.misbehave(item.spec["fault"], vertices)
        return ItemOutput(
            {"vertices": vertices, "extra": rng.integers(0, 9, item.spec["size"])}, {"mean": vertices.mean()}
        )

    def misbehave(self, fault: str, vertices: np.ndarray) -> np.ndarray:
        if fault == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif fault == "exit":
            os._exit(3)
        elif fault == "hang":
            (Path(self.inputs[0]) / "hangs").touch()
            while True:
                time.sleep(3600)
        elif fault == "memory":
            np.ones(10 * 10**9, np.uint8)
        elif fault == "exception":
            raise ValueError(f"bad object at {hex(id(vertices))}")
        elif fault == "refuse":
            raise ItemRejected("too few faces", offending={"vertices": vertices})
        elif fault == "nan":
            vertices[2, 1] = np.nan
        elif fault == "noise":
            print("printed on stdout")
            sys.stdout.flush()
            os.write(1, b"FGW1" * 50_000)
            ctypes.CDLL(None).puts(b"native noise")
            ctypes.CDLL(None).fflush(None)
        elif fault == "wrong_dtype":
            return vertices.astype(np.float64)
        elif fault == "outside_once":
            # Killed by somebody else the first time, as the system does when memory is short.
            mark = Path(self.inputs[0]) / "killed"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "outside_always":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "once":
            # Fails until somebody mends the input.
            if not (Path(self.inputs[0]) / "mended").exists():
                raise ValueError("not mended yet")
        elif fault == "drift":
            # Another value where the surroundings have changed.
            if (Path(self.inputs[0]) / "drifted").exists():
                vertices[1, 2] += 1
        elif fault == "breaks":
            if (Path(self.inputs[0]) / "drifted").exists():
                raise ValueError("no longer possible")
        elif fault == "leak":
            self.leaked = np.empty(700_000_000, np.uint8)
        elif fault == "poisons_next":
            # Harmless itself; the process that ran it dies with the next item.
            self.process = self.die  # type: ignore[method-assign]
        elif fault == "kill_worker":
            # The worker of this child, once.
            mark = Path(self.inputs[0]) / "worker_killed"
            if not mark.exists():
                mark.touch()
                os.kill(os.getppid(), signal.SIGKILL)
        elif fault == "kill_worker_always":
            os.kill(os.getppid(), signal.SIGKILL)
            while True:  # until the end of the worker ends this process too
                time.sleep(3600)
        else:
            raise AssertionError(fault)
        return vertices

    def die(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        os.abort()


class BrokenStage:
    def __init__(self, context: StageContext) -> None:
        raise RuntimeError("the template is missing")

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        raise AssertionError
