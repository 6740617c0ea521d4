"""run.json: the run that a folder belongs to, and the test whether a command is the same run.

Two runs are the same when stage, parameters, seed, inputs (by content), code version and plan agree. Limits, number of workers and
the paths of the inputs are ignored: they do not change the output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import facegraft
from facegraft.engine.errors import EngineError
from facegraft.engine.plan import ShardedPlan, StagePlan
from facegraft.errors import name_fault, printable
from facegraft.store import DatasetSchema, StoreError, canonical_json, write_bytes_atomic
from facegraft.store.atomic import arrays_to_bytes, read_bytes, sha256_bytes
from facegraft.store.document import seal, unseal
from facegraft.store.remote import Location
from facegraft.store.writer import RUN_FILE

RUN_FORMAT = "facegraft-run"
RUN_VERSION = 1
_SHOWN = 8
# The causes of a difference; if one of them differs, its consequences are not listed.
_CAUSES = ("stage", "parameters", "seed", "input_fingerprint", "code_version", "shard_items")
_CONSEQUENCES = ("schema", "shared_sha256", "region_map_sha256", "plan_sha256")


@dataclass(frozen=True)
class RunRecord:
    """The contents of run.json. `inputs` are the paths of the inputs, for `retry`; they are not compared."""

    stage: str
    parameters: dict[str, Any]
    seed: int
    input_fingerprint: dict[str, Any]
    code_version: str
    shard_items: int
    schema: dict[str, Any]
    shared_sha256: str | None
    region_map_sha256: str | None
    plan_sha256: str
    planned: int
    shards: int
    inputs: list[str]

    def dataset_schema(self) -> DatasetSchema:
        return DatasetSchema.from_json(self.schema)

    def commit_sha256(self) -> str:
        """The value of "plan" in every commit record of this run: a hash of the plan and of everything that decides the items' bytes."""
        same = {name: getattr(self, name) for name in (*_CAUSES, *_CONSEQUENCES)}
        return hashlib.sha256(canonical_json(same)).hexdigest()


def run_record(
    stage: str, plan: StagePlan, sharded: ShardedPlan, inputs: list[str], parameters: Mapping[str, Any], seed: int
) -> RunRecord:
    """Describe a run. Raises EngineError for parameters or a fingerprint that JSON cannot hold."""
    return RunRecord(
        stage=stage,
        parameters=_plain("parameters", parameters),
        seed=int(seed),
        input_fingerprint=_plain("input fingerprint", plan.input_fingerprint),
        code_version=facegraft.__version__,
        shard_items=plan.shard_items,
        schema=plan.schema.to_json(),
        shared_sha256=sha256_bytes(arrays_to_bytes(plan.shared)) if plan.shared else None,
        region_map_sha256=None if plan.region_map is None else sha256_bytes(canonical_json(plan.region_map)),
        plan_sha256=sharded.sha256(),
        planned=len(sharded.items),
        shards=sharded.shard_count,
        inputs=list(inputs),
    )


def is_asked_for(there: RunRecord, stage: str, parameters: Mapping[str, Any], seed: int) -> bool:
    """Whether a command asks for this run as far as can be told without its plan: stage, parameters, seed and code version agree."""
    asked = (stage, _plain("parameters", parameters), int(seed), facegraft.__version__)
    return (there.stage, there.parameters, there.seed, there.code_version) == asked


def write_run(folder: Location, record: RunRecord) -> None:
    """run.json, atomically."""
    write_bytes_atomic(folder / RUN_FILE, seal({"format": RUN_FORMAT, "version": RUN_VERSION, **asdict(record)}))


def read_run(folder: Location) -> RunRecord:
    """Read run.json. Raises EngineError where the folder holds no run, and DamagedError where the file is damaged."""
    path = folder / RUN_FILE
    if path.is_symlink():
        raise EngineError(f"{path} is a link; a run's folder holds its own files: remove it, or choose another folder")
    if not path.is_file():
        raise EngineError(f"{folder} holds no facegraft run ({RUN_FILE} is missing); check the path")
    document = unseal(read_bytes(path), str(path), "delete the folder and run the command again")
    if document.pop("format", None) != RUN_FORMAT or document.pop("version", None) != RUN_VERSION:
        raise EngineError(
            f"{path} is of another facegraft (this one reads {RUN_FORMAT} {RUN_VERSION}); use that version, or another folder"
        )
    try:
        record = RunRecord(**document)
        record.dataset_schema()
        _check_types(record)
    except (TypeError, ValueError, StoreError) as error:
        raise EngineError(
            f"{path} is not a run record ({printable(error, 200)}); delete the folder and run the command again"
        ) from error
    return record


def _check_types(record: RunRecord) -> None:
    texts = {name: getattr(record, name) for name in ("stage", "code_version", "plan_sha256")}
    texts |= (
        {f"inputs[{i}]": path for i, path in enumerate(record.inputs)}
        if isinstance(record.inputs, list)
        else {"inputs": None}
    )
    counts = {name: getattr(record, name) for name in ("seed", "shard_items", "planned", "shards")}
    wrong = [name for name, value in texts.items() if not isinstance(value, str) or name_fault(value)]
    wrong += [name for name, value in counts.items() if type(value) is not int or not 0 <= value < 2**63]
    wrong += [name for name in ("parameters", "input_fingerprint") if not isinstance(getattr(record, name), dict)]
    wrong += [
        name for name in ("shared_sha256", "region_map_sha256") if not isinstance(getattr(record, name), str | None)
    ]
    if wrong or record.shard_items < 1 or record.shards != -(-record.planned // record.shard_items):
        raise ValueError(f"{', '.join(wrong[:3]) or 'its number of shards'} cannot be right")


def differences(there: RunRecord, now: RunRecord) -> list[str]:
    """'parameters.near: 5000 there, 8000 now' and so on; empty when it is the same run."""
    found = _differing(there, now, _CAUSES)
    return found or _differing(there, now, _CONSEQUENCES)


def refuse_other_run(folder: Location, there: RunRecord, now: RunRecord) -> None:
    """Raises EngineError with the differing fields unless it is the same run."""
    found = differences(there, now)
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise EngineError(
            f"{folder} holds a different run ({'; '.join(found[:_SHOWN])}{more}); choose another output folder (-o) or delete this one"
        )


def _differing(there: RunRecord, now: RunRecord, names: tuple[str, ...]) -> list[str]:
    found = []
    for name in names:
        before, after = dict(_flat(name, getattr(there, name))), dict(_flat(name, getattr(now, name)))
        differing = [
            path for path in dict.fromkeys([*before, *after]) if before.get(path, _ABSENT) != after.get(path, _ABSENT)
        ]
        found += [f"{path}: {_show(before, path)} there, {_show(after, path)} now" for path in differing]
    return found


# Marks a field that one side does not have (None is a value).
_ABSENT = object()


def _flat(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [entry for name in value for entry in _flat(f"{path}.{name}", value[name])]
    return [(path, value)]


def _show(values: dict[str, Any], path: str) -> str:
    if path not in values:
        return "absent"
    text = json.dumps(values[path], ensure_ascii=False)
    return text if len(text) <= 60 else text[:28] + "…" + text[-28:]


def _plain(what: str, value: Mapping[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(canonical_json(dict(value)))
    except StoreError as error:
        raise EngineError(f"the {what} of this run cannot be recorded: {error}") from error
    return plain
