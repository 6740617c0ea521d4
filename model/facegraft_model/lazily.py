"""Packages that meshes and scores need and training does not: imported when they are used."""

from __future__ import annotations

import importlib
from typing import Any

from facegraft_model.errors import ModelError


def lazy_import(name: str) -> Any:
    """A module by name. Raises ModelError saying how to install it where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            f"this needs {name.partition('.')[0]}, which is not installed ({error}): pip install facegraft"
        ) from error
