"""Small stages for the engine's tests: importable by workers and their children (conftest puts this folder on PYTHONPATH)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np

from facegraft.engine import ItemOutput, ItemRejected, PlannedItem, StageContext, StagePlan
from facegraft.store import DatasetSchema, FieldSpec
from facegraft.testing.poison import FAULTS, Make

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

        def make() -> ItemOutput:
            vertices = (self.scale * rng.normal(size=(4, 3))).astype(np.float32)
            return ItemOutput(
                {"vertices": vertices, "extra": rng.integers(0, 9, item.spec["size"])}, {"mean": vertices.mean()}
            )

        return make() if item.spec["fault"] is None else self.misbehave(item.spec["fault"], make)

    def misbehave(self, fault: str, make: Make) -> ItemOutput:
        """Do the fault: one of the kit's, or one of those below, which need the stage or its input."""
        return FAULTS[fault](make) if fault in FAULTS else getattr(self, fault)(make)

    def nameless(self, make: Make) -> NoReturn:
        raise ValueError(f"bad object at {hex(id(self))}")

    def refuse(self, make: Make) -> NoReturn:
        raise ItemRejected("too few faces", offending={"vertices": make().fields["vertices"]})

    def endless(self, make: Make) -> NoReturn:
        """Never ends; who waits for it to be in the middle waits for the file "endless" in the input."""
        (Path(self.inputs[0]) / "endless").touch()
        while True:
            time.sleep(3600)

    def noise(self, make: Make) -> ItemOutput:
        print("printed on stdout")
        sys.stdout.flush()
        os.write(1, b"FGW1" * 50_000)
        ctypes.CDLL(None).puts(b"native noise")
        ctypes.CDLL(None).fflush(None)
        return make()

    def wrong_dtype(self, make: Make) -> ItemOutput:
        made = make()
        return ItemOutput({**made.fields, "vertices": made.fields["vertices"].astype(np.float64)}, made.row)

    def killed_once(self, make: Make) -> ItemOutput:
        """By somebody else, as the system does when memory is short."""
        if self.first_time("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return make()

    def once(self, make: Make) -> ItemOutput:
        """Fails until somebody mends the input."""
        if not (Path(self.inputs[0]) / "mended").exists():
            raise ValueError("not mended yet")
        return make()

    def drift(self, make: Make) -> ItemOutput:
        """Another value where the surroundings have changed."""
        made = make()
        if (Path(self.inputs[0]) / "drifted").exists():
            made.fields["vertices"][1, 2] += 1
            made.row["mean"] = made.fields["vertices"].mean()
        return made

    def breaks(self, make: Make) -> ItemOutput:
        if (Path(self.inputs[0]) / "drifted").exists():
            raise ValueError("no longer possible")
        return make()

    def leak(self, make: Make) -> ItemOutput:
        self.leaked = np.empty(700_000_000, np.uint8)
        return make()

    def poisons_next(self, make: Make) -> ItemOutput:
        """Harmless itself; the process that ran it dies with the next item."""
        self.process = self.die  # type: ignore[method-assign]
        return make()

    def kill_worker(self, make: Make) -> ItemOutput:
        """The worker of this child, once."""
        if self.first_time("worker_killed"):
            os.kill(os.getppid(), signal.SIGKILL)
        return make()

    def kill_worker_always(self, make: Make) -> NoReturn:
        os.kill(os.getppid(), signal.SIGKILL)
        while True:  # until the end of the worker ends this process too
            time.sleep(3600)

    def first_time(self, name: str) -> bool:
        mark = Path(self.inputs[0]) / name
        if mark.exists():
            return False
        mark.touch()
        return True

    def die(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        os.abort()


class BrokenStage:
    def __init__(self, context: StageContext) -> None:
        raise RuntimeError("the template is missing")

    def process(self, item: PlannedItem, rng: np.random.Generator) -> ItemOutput:
        raise AssertionError
