"""The output folder of a run: it belongs to one run, and contains everything that workers need."""

from __future__ import annotations

from facegraft.engine.errors import EngineError
from facegraft.engine.locks import LOCK_FILE
from facegraft.engine.plan import StagePlan
from facegraft.engine.run_record import RunRecord, read_run, refuse_other_run, write_run
from facegraft.store import DamagedError, write_region_map, write_shared
from facegraft.store.atomic import is_temporary, make_folder, read_bytes, unwritable
from facegraft.store.document import unseal
from facegraft.store.remote import Location
from facegraft.store.writer import DATASET_FILE, REJECT_FOLDER, RUN_FILE, SHARD_FOLDER

LOG_FOLDER = "logs"


def make_output(folder: Location) -> None:
    """Create the folder. Raises EngineError where the path is a file, StoreError where it cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise EngineError(f"{folder} is a file; choose another output folder (-o)")
    try:
        make_folder(folder)
    except OSError as error:
        raise unwritable(folder, error) from error


def bind_to_run(folder: Location, record: RunRecord) -> None:
    """Write run.json into a new folder; accept a folder of this same run. Raises EngineError with the differences for another run."""
    if (folder / RUN_FILE).is_file():
        there = read_run(folder)
        refuse_other_run(folder, there, record)
        # Inputs that have moved are the same inputs; only `retry` needs their new place.
        if there.inputs != record.inputs:
            write_run(folder, record)
        return
    refuse_foreign_folder(folder)
    write_run(folder, record)


def refuse_foreign_folder(folder: Location) -> None:
    """Raises EngineError where the folder contains anything but a run of facegraft."""
    if (folder / RUN_FILE).is_file():
        return
    # A listing of an object store may lag, so a dataset is also looked up by its name.
    foreign = [DATASET_FILE] if (folder / DATASET_FILE).is_file() else []
    foreign = foreign or sorted(
        path.name for path in folder.iterdir() if path.name != LOCK_FILE and not is_temporary(path.name)
    )
    if foreign:
        raise EngineError(
            f"{folder} is not empty and holds no facegraft run (there is {', '.join(foreign[:3])}{', …' if len(foreign) > 3 else ''}); "
            "choose another output folder (-o) or empty this one"
        )


def refuse_links(folder: Location) -> None:
    """Raises EngineError where a folder of the run is a link: files would be written outside the run's folder."""
    for name in (SHARD_FOLDER, REJECT_FOLDER, LOG_FOLDER):
        if (folder / name).is_symlink():
            raise EngineError(
                f"{folder / name} is a link and leads out of the run's folder; remove it, or choose another output folder (-o)"
            )


def write_attachments(folder: Location, plan: StagePlan) -> None:
    """Write shared.safetensors and region_map.json at every start, so that damaged ones are replaced."""
    if plan.shared:
        write_shared(folder, plan.shared)
    if plan.region_map is not None:
        write_region_map(folder, plan.region_map)


def finished_counts(folder: Location) -> dict[str, int] | None:
    """The counts in dataset.json; None where the dataset is not complete, or dataset.json is damaged and will be written again."""
    path = folder / DATASET_FILE
    if path.is_symlink() or not path.is_file():
        return None
    try:
        counts: dict[str, int] = unseal(read_bytes(path), str(path), "run again")["counts"]
    except (DamagedError, KeyError):
        return None
    return counts
