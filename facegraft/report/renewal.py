"""The report of a run that is started again: made anew only where something that it shows has changed.

Beside the page, `made_from.json` holds the hashes of the page and of all that it was made from.
"""

from __future__ import annotations

from facegraft.engine.folder import LOG_FOLDER
from facegraft.report import PAGE, write_report
from facegraft.report.modelfiles import MODEL_FILES
from facegraft.resources import installation_sha256
from facegraft.store import DamagedError, write_bytes_atomic
from facegraft.store.atomic import read_bytes
from facegraft.store.document import seal, unseal
from facegraft.store.fingerprint import combined, hash_file, hash_files
from facegraft.store.reader import sound_fingerprint
from facegraft.store.remote import Location
from facegraft.store.writer import RUN_FILE
from facegraft.vocabulary import KINDS

MADE_FROM_FILE = "made_from.json"


def renew_report(folder: Location, output: Location) -> Location:
    """As `write_report` of a run's folder, but a page that would be the same is left as it is. Raises the same errors."""
    page, note = output / PAGE, output / MADE_FROM_FILE
    made_from = _made_from(folder)
    if made_from is not None and note.is_file() and _noted(note) == {**made_from, "page": hash_file(page).sha256}:
        return page
    page = write_report(folder, output)
    if made_from is not None:
        write_bytes_atomic(note, seal({**made_from, "page": hash_file(page).sha256}))
    return page


def _made_from(folder: Location) -> dict[str, object] | None:
    """What the page of this folder is made from; None where some dataset is missing or not whole, which the page would say."""
    datasets = {kind: sound_fingerprint(folder / kind) for kind in KINDS}
    if None in datasets.values():
        return None
    runs = hash_files(folder, [f"{kind}/{RUN_FILE}" for kind in KINDS])
    logs = {kind: folder / kind / LOG_FOLDER for kind in KINDS}
    timings = {f"{kind}/{path.name}": hash_file(path) for kind, logged in logs.items() if logged.is_dir() for path in logged.iterdir()}
    model = hash_files(folder, MODEL_FILES)
    return {
        "folder": str(folder.resolve()),  # the page has commands with paths
        "code": installation_sha256(),
        "datasets": datasets,
        "files": combined({**runs, **timings, **model})["sha256"],
    }


def _noted(note: Location) -> dict[str, object] | None:
    try:
        return unseal(read_bytes(note), str(note), "it is written anew")
    except DamagedError:
        return None
