"""Hashes of a dataset's files, to compare it with that of an undisturbed run, or of a run with other workers."""

from __future__ import annotations

import hashlib
from pathlib import Path

from facegraft.engine.evidence import EVIDENCE_FILE
from facegraft.engine.folder import LOG_FOLDER
from facegraft.engine.locks import LOCK_FILE
from facegraft.store.writer import REJECT_FOLDER, RUN_FILE

# Files of a run's folder that record how and when the run was made; they are not part of the data.
_NOT_DATA = (LOG_FOLDER, REJECT_FOLDER, LOCK_FILE, RUN_FILE, EVIDENCE_FILE)


def dataset_hash(folder: Path) -> dict[str, str]:
    """SHA-256 by file name, of every file that must not depend on workers, kills, the clock or the paths of the inputs."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in files if path.relative_to(folder).parts[0] not in _NOT_DATA]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}
