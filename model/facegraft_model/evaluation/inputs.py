"""The datasets that a dataset was made from: those that its run.json records, and the ones beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from facegraft.store import Dataset, Location, RemotePath, open_dataset, place
from facegraft.store.writer import DATASET_FILE, RUN_FILE
from facegraft_model.errors import ModelError


@dataclass(frozen=True)
class Inputs:
    """The inputs of the dataset in folder `made`: fingerprints and folders; both are empty where it has no run.json."""

    made: Location
    fingerprints: tuple[str, ...]
    folders: tuple[str, ...]

    @classmethod
    def of(cls, made: Dataset) -> Inputs:
        """Those that run.json records. Raises ModelError where it cannot be read."""
        path = made.path / RUN_FILE
        if not path.exists():
            return cls(made.path, (), ())
        try:
            document = json.loads(path.read_bytes())
            fingerprints = tuple(str(fingerprint) for fingerprint in document["input_fingerprint"].values())
            return cls(made.path, fingerprints, tuple(str(folder) for folder in document["inputs"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} does not record what the {made.kind} were made from ({error!r})") from error

    @property
    def matched_by(self) -> str:
        """How an input is recognised: by its "fingerprint", or without a record by its "items", which the caller compares."""
        return "fingerprint" if self.fingerprints else "items"

    def accepts(self, store: Dataset) -> bool:
        """Whether a dataset is one of the inputs; without a record, any may be."""
        return not self.fingerprints or store.fingerprint in self.fingerprints

    def found(self, kind: str, looked: list[str]) -> Iterator[Dataset]:
        """The inputs of a kind: in the recorded folders, then in the folder with the kind's name beside `made`, each opened when it
        is asked for. Appends to `looked`, in words, the places where there is none."""
        # A run.json on this machine must not cause requests to remote addresses.
        recorded = [place(path) for path in self.folders if isinstance(self.made, RemotePath) or "://" not in path]
        seen: set[str] = set()
        for folder in dict.fromkeys([*recorded, self.made.parent / kind]):
            if not (folder / DATASET_FILE).is_file():
                looked.append(f"{folder} (no dataset)")
                continue
            store = open_dataset(folder)
            if store.kind != kind:
                looked.append(f"{folder} ({store.kind})")
            elif not self.accepts(store):
                looked.append(f"{folder} (other {kind})")
            elif store.fingerprint not in seen:
                seen.add(store.fingerprint)
                yield store
