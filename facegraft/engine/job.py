"""The job of a worker: the stage and the output folder, and setting up the stage from that folder."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.numpy import load

import facegraft
from facegraft.engine.errors import EngineError
from facegraft.engine.run_record import RunRecord, read_run
from facegraft.engine.stage import Stage, StageContext, build_stage, read_only
from facegraft.store.atomic import read_bytes, sha256_bytes
from facegraft.store.remote import Location, RemotePath, place
from facegraft.store.writer import REGION_MAP_FILE, SHARED_FILE


@dataclass(frozen=True)
class StageJob:
    """The stage and its output folder; everything else is read from the folder.

    `stage` ("package.module:Class") comes from the client and never from the folder, so that a foreign run.json cannot run code.
    `commit_sha256` and `code_version` are those of the run that the client started.
    """

    stage: str
    output: str
    inputs: list[str]
    commit_sha256: str
    code_version: str


def read_job_run(job: StageJob) -> RunRecord:
    """run.json of the job's folder. Raises EngineError unless it is the client's run and this machine has the same facegraft."""
    host = socket.gethostname()
    if facegraft.__version__ != job.code_version:
        raise EngineError(
            f"the worker on {host} has facegraft {facegraft.__version__}, this run needs {job.code_version}; install the same version there"
        )
    output = place(job.output)
    if not isinstance(output, RemotePath) and not output.is_dir():
        raise EngineError(
            f"the worker on {host} does not see {output}; workers need the output folder on a file system that they share"
        )
    run = read_run(output)
    if run.commit_sha256() != job.commit_sha256:
        raise EngineError(f"{output} was changed by another run during this one; run the command again")
    return run


def open_stage(job: StageJob) -> tuple[Stage, int]:
    """(the stage, the run's seed). Raises EngineError or StoreError for the folder, StageSetupError for the stage itself."""
    run = read_job_run(job)
    output = place(job.output)
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
    context = StageContext(output, list(job.inputs), run.parameters, shared, region_map, run.seed)
    return build_stage(job.stage, context), run.seed


def _checked(path: Location, sha256: str) -> bytes:
    data = read_bytes(path)
    if sha256_bytes(data) != sha256:
        raise EngineError(
            f"{path} is damaged (its checksum is not that in run.json); run the command again: it is written anew"
        )
    return data
