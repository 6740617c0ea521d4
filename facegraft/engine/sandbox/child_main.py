"""The child process that runs a stage's native code: `python -m facegraft.engine.sandbox.child_main <parent pid> <memory limit in bytes>`.

It answers requests on its original stdin and stdout. It dies with its parent, is the first choice of the system's out-of-memory
killer, and limits its own memory. The output of the stage's code goes to stderr, so that it cannot mix with the messages.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from facegraft.engine.errors import StageSetupError
from facegraft.engine.job import StageJob, open_stage
from facegraft.engine.sandbox import wire
from facegraft.engine.stage import ItemResult, PlannedItem, Stage, process_item, stage_name
from facegraft.errors import FacegraftError
from facegraft.seeds import item_rng

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve items until the pipe closes; die with the parent, and within the memory that it allows."""
    parent, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    requests, replies = _take_over_pipes()
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _offer_to_memory_killer()
    _limit_memory(memory_bytes)
    faulthandler.enable()
    _serve(requests, replies, f"killed: memory limit {memory_bytes / 1e9:g} GB")


def _take_over_pipes() -> tuple[int, int]:
    """Move the pipes to other descriptors; stdin becomes empty and stdout becomes stderr, for native code too."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the line above; on other systems than Linux, the end of stdin ends the child.
    if os.getppid() != parent:
        os._exit(1)


def _offer_to_memory_killer() -> None:
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000")


def _limit_memory(memory_bytes: int) -> None:
    # RLIMIT_DATA counts private writable memory (Linux >= 4.7); RLIMIT_AS would count reserved and mapped address space as well.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    # Crashes are expected now and then; avoid gigabytes of core dumps in the user's folder.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve(requests: int, replies: int, memory_reason: str) -> None:
    stage: Stage | None = None
    job: StageJob | None = None
    seed = 0
    while (request := _read(requests)) is not None:
        if request["op"] == "open":
            # Free the old stage before the new one is built: both may be large.
            stage = None
            job = StageJob(**request["job"])
            try:
                stage, seed = open_stage(job)
            except (FacegraftError, MemoryError) as error:
                _reply_setup_failure(replies, error)
            else:
                _write_buffers(replies, wire.encode({"status": "ready", "memory": _data_bytes()}))
        else:
            assert stage is not None and job is not None
            item = PlannedItem(request["key"], request["row"], request["spec"])
            result = process_item(stage, item, item_rng(seed, stage_name(job.stage), item.key), memory_reason)
            _reply_item(replies, result, memory_reason)


def _reply_setup_failure(replies: int, error: Exception) -> None:
    known = isinstance(error, FacegraftError) and not isinstance(error, StageSetupError)
    message = str(error) or type(error).__name__
    _write_buffers(
        replies,
        wire.encode({"status": "failed", "message": message, "known": known, "traceback": traceback.format_exc()}),
    )


def _reply_item(replies: int, result: ItemResult, memory_reason: str) -> None:
    header = {
        "status": "done",
        "row": result.row,
        "reason": result.reason,
        "traceback": result.traceback,
        "out_of_memory": result.out_of_memory,
        "unreachable": result.unreachable,
        "offending": bool(result.offending),
        "memory": _data_bytes(),
    }
    try:
        buffers = wire.encode(header, result.fields or result.offending)
    except (TypeError, ValueError) as error:
        failure = {**header, "row": {}, "reason": f"invalid output: {error}", "offending": False}
        buffers = wire.encode(failure)
    except MemoryError:
        buffers = wire.encode({**header, "row": {}, "reason": memory_reason, "offending": False, "out_of_memory": True})
    _write_buffers(replies, buffers)


def _read(descriptor: int) -> dict[str, Any] | None:
    prefix = _read_exactly(descriptor, wire.PREFIX.size)
    if prefix is None:
        return None
    header, payload = wire.read_prefix(prefix, 1 << 32)
    text, body = _read_exactly(descriptor, header), _read_exactly(descriptor, payload)
    if text is None or body is None:
        return None
    return wire.decode(text, body)[0]


def _read_exactly(descriptor: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = os.read(descriptor, min(size - len(data), 1 << 20))
        if not piece:
            return None
        data += piece
    return bytes(data)


def _write_buffers(descriptor: int, buffers: list[bytes | memoryview]) -> None:
    for buffer in buffers:
        view = memoryview(buffer)
        while view:
            view = view[os.write(descriptor, view) :]


def _data_bytes() -> int:
    """Private writable memory of this process, as counted by RLIMIT_DATA; 0 where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
