"""The toy run that the matrix disturbs, as a function and as a command: `python run_toys.py OUTPUT [OPTIONS as JSON]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from toy_runs import STAGE, options
from toy_stages import toy_plan

from facegraft.engine import EngineOptions, RunSummary, ShardClient, StagePlan, execute
from facegraft.errors import FacegraftError
from facegraft.testing.poison import POISONED, poisoned

ITEMS, SHARD_ITEMS, SECONDS = 48, 3, 0.04
SHARDS = ITEMS // SHARD_ITEMS
REFUSED = {"item_009": "refusal"}


def plan(items: int = ITEMS, shard_items: int = SHARD_ITEMS, seconds: float = SECONDS) -> StagePlan:
    return toy_plan(items, shard_items, seconds=seconds)


def toys(
    output: Path,
    client: ShardClient | None = None,
    *,
    of: StagePlan | None = None,
    faults: dict[str, str] = REFUSED,
    seed: int = 0,
    scale: float = 1.0,
    journal: Path | None = None,
    **changes: Any,
) -> RunSummary:
    """Items of the engine's toy stage, one of them refused. `changes`: of the engine's options."""
    parameters = poisoned(STAGE, {"scale": scale}, faults, journal)
    chosen: EngineOptions = options(**changes)
    return execute(POISONED, of or plan(), [str(output.parent)], output, parameters, seed, chosen, client)


def command(output: Path, **changes: Any) -> list[str]:
    """The command line for `toys(output, **changes)`."""
    return [sys.executable, str(Path(__file__).resolve()), str(output), json.dumps(changes)]


if __name__ == "__main__":
    try:
        toys(Path(sys.argv[1]), **json.loads(sys.argv[2]))
    except FacegraftError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
