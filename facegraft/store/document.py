"""JSON documents that carry their own checksum: dataset.json and the commit records.

`document_sha256` is the sha256 of the canonical JSON of all other fields, and the file must be in canonical form,
so that a change of any byte is detected.
"""

from __future__ import annotations

import json
from typing import Any

from facegraft.store.atomic import canonical_json, sha256_bytes
from facegraft.store.errors import DamagedError, StoreError

CHECKSUM = "document_sha256"


def seal(document: dict[str, Any]) -> bytes:
    """The bytes to write for a document."""
    return canonical_json({**document, CHECKSUM: sha256_bytes(canonical_json(document))})


def unseal(data: bytes, what: str, remedy: str) -> dict[str, Any]:
    """The document without its checksum. Raises DamagedError ("<what> is damaged (…); <remedy>") when any byte was changed."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{what} is damaged (not JSON); {remedy}") from error
    if not isinstance(document, dict) or CHECKSUM not in document:
        raise DamagedError(f"{what} is damaged (its {CHECKSUM} is missing); {remedy}")
    document.pop(CHECKSUM)
    if _spelling(document) != data:
        raise DamagedError(f"{what} is damaged (its bytes differ from its {CHECKSUM}); {remedy}")
    return document


def _spelling(document: dict[str, Any]) -> bytes | None:
    try:
        return seal(document)
    except (StoreError, RecursionError):
        return None
