"""What a plan was made from: enough to tell, without planning, that planning again would give the same plan.

Names are listed and files are hashed, but nothing is parsed. Where anything differs, even a file that the plan does not use, the run is
planned anew, and run.json decides: evidence can only save work. It is kept beside run.json, in `planned_from.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from facegraft.errors import name_fault
from facegraft.resources import installation_sha256
from facegraft.store import DamagedError, StoreError, write_bytes_atomic
from facegraft.store.atomic import read_bytes
from facegraft.store.document import seal, unseal
from facegraft.store.fingerprint import FileHash, combined, hash_file, hash_files, hash_names
from facegraft.store.reader import sound_fingerprint
from facegraft.store.remote import Location, place

EVIDENCE_FILE = "planned_from.json"


@dataclass(frozen=True)
class Evidence:
    """All that a plan depends on, besides parameters, seed and code.

    datasets: fingerprints of the inputs, where these are datasets. Otherwise, of a source of heads: `names`, a hash of all names in its
    folder; `files`, those of it that were read, and `contents`, a hash of them; `beside`, by name, hashes of files in the folder that
    holds the source; `given`, by name, hashes of files that parameters may name. None: there is no such file.
    """

    datasets: list[str] = field(default_factory=list)
    names: str | None = None
    files: list[str] = field(default_factory=list)
    contents: str | None = None
    beside: dict[str, str | None] = field(default_factory=dict)
    given: dict[str, str | None] = field(default_factory=dict)

    def holds(self, inputs: Sequence[Location]) -> bool:
        """Whether the inputs, and the files that parameters name, are still what they were."""
        if self.datasets:
            return [sound_fingerprint(path) for path in inputs] == self.datasets
        source = inputs[0] if inputs else None
        if source is not None and not source.exists():
            return False
        hashes = {} if source is None else hash_files(source_folder(source), self.files)
        return self == evidence_of_source(source, names_in(source), hashes, self.beside, self.given)


def evidence_of_source(
    source: Location | None, names: str | None, files: Mapping[str, FileHash], beside: Iterable[str], given: Iterable[str]
) -> Evidence | None:
    """The evidence of a source of heads (None: they are computed). None where only planning can tell whether it has changed: a source
    in an object store, or a folder that cannot be listed.

    names: what `names_in` gave *before* the source was read. files: hashes of its files, by their names in it. beside: names of files
    in the folder that holds the source. given: texts that may name a file.
    """
    if source is not None and not isinstance(source, Path):
        return None
    if source is not None and source.is_dir() and names is None:
        return None
    named = {text: _on_this_machine(text) for text in sorted(set(given))}
    found = {text: hash_file(path).sha256 for text, path in named.items() if path is not None}
    if found.keys() != named.keys():
        return None
    around = {} if source is None else {name: hash_file(source.parent / name).sha256 for name in sorted(set(beside))}
    return Evidence([], names, sorted(files), str(combined(files)["sha256"]), around, found)


def names_in(source: Location | None) -> str | None:
    """A hash of the names in a source that is a folder of this machine; else None."""
    return hash_names(source) if isinstance(source, Path) and source.is_dir() else None


def _on_this_machine(text: str) -> Path | None:
    if name_fault(text):
        return None
    try:
        path = place(text)
    except StoreError:  # no path, or one in a store that this machine does not know
        return None
    return path if isinstance(path, Path) else None


def source_folder(source: Location) -> Location:
    """The folder to which the names of a source's files are relative."""
    return source if source.is_dir() else source.parent


def write_evidence(folder: Location, run: str, evidence: Evidence) -> None:
    """planned_from.json, atomically; `run`: the hash of the run that was planned (`RunRecord.commit_sha256`). An equal one is left alone."""
    data = seal({"run": run, "code": installation_sha256(), **asdict(evidence)})
    path = folder / EVIDENCE_FILE
    if not path.is_file() or read_bytes(path) != data:
        write_bytes_atomic(path, data)


def read_evidence(folder: Location, run: str) -> Evidence | None:
    """The evidence of this run; None where there is none, or of another run or other code, or a damaged one: then the run is planned."""
    path = folder / EVIDENCE_FILE
    if path.is_symlink() or not path.is_file():
        return None
    try:
        document = unseal(read_bytes(path), str(path), "it is written anew")
    except DamagedError:
        return None
    if document.pop("run", None) != run or document.pop("code", None) != installation_sha256() or not _is_sound(document):
        return None
    return Evidence(**document)


def _is_sound(document: Mapping[str, Any]) -> bool:
    def text(value: Any) -> bool:
        return isinstance(value, str)

    def hash_or_none(value: Any) -> bool:
        return value is None or isinstance(value, str)

    if set(document) != set(Evidence.__dataclass_fields__):
        return False
    lists = [document["datasets"], document["files"]]
    mappings = [document["beside"], document["given"]]
    return (
        all(isinstance(values, list) and all(map(text, values)) for values in lists)
        and all(isinstance(values, dict) and all(map(hash_or_none, values.values())) for values in mappings)
        and all(hash_or_none(document[name]) for name in ("names", "contents"))
        and not any(name_fault(name) for name in (*document["files"], *document["beside"], *document["given"]))
    )
