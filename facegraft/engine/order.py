"""Which stage over which output folder: what a worker has to be told, and how it sets the stage up from the folder."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load

import facegraft
from facegraft.engine.errors import EngineError
from facegraft.engine.fingerprint import RunRecord, read_run
from facegraft.engine.stage import Stage, StageContext, build_stage, read_only
from facegraft.store.atomic import read_bytes, sha256_bytes
from facegraft.store.remote import place, remote_of
from facegraft.store.writer import REGION_MAP_FILE, SHARED_FILE


@dataclass(frozen=True)
class StageOrder:
    """Everything else is read from the output folder. The stage to import is told by the client and never taken from the folder,
    so that a run.json from a stranger can run no code."""

    stage: str
    output: str
    inputs: list[str]
    commit_sha256: str
    code_version: str


def read_ordered_run(order: StageOrder) -> RunRecord:
    """run.json of the output folder, if it is the run that was ordered and this machine can do it. Raises EngineError."""
    host = socket.gethostname()
    if facegraft.__version__ != order.code_version:
        raise EngineError(
            f"the worker on {host} has facegraft {facegraft.__version__}, this run needs {order.code_version}; install the same version there"
        )
    output = place(order.output)
    if remote_of(output) is None and not output.is_dir():
        raise EngineError(
            f"the worker on {host} does not see {output}; workers need the output folder on a file system that they share"
        )
    run = read_run(output)
    if run.commit_sha256() != order.commit_sha256:
        raise EngineError(f"{output} was changed by another run while this one was going on; run the command again")
    return run


def open_stage(order: StageOrder) -> tuple[Stage, int]:
    """(the stage, the run's seed). Raises EngineError or StoreError for the folder, StageSetupError for the stage itself."""
    run = read_ordered_run(order)
    output = place(order.output)
    shared, region_map = {}, None
    if run.shared_sha256 is not None:
        data = _checked(output / SHARED_FILE, run.shared_sha256)
        try:
            shared = read_only(load(data))
        except SafetensorError as error:
            raise EngineError(
                f"{output / SHARED_FILE} cannot be read ({error}); run the command again: it is written anew"
            ) from error
    if run.region_map_sha256 is not None:
        region_map = json.loads(_checked(output / REGION_MAP_FILE, run.region_map_sha256))
    context = StageContext(output, list(order.inputs), run.parameters, shared, region_map, run.seed)
    return build_stage(order.stage, context), run.seed


def _checked(path: Path, sha256: str) -> bytes:
    data = read_bytes(path)
    if sha256_bytes(data) != sha256:
        raise EngineError(
            f"{path} is damaged (its checksum is not that in run.json); run the command again: it is written anew"
        )
    return data
