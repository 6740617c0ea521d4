"""Import on first use, for packages that meshes, surfaces and scores need but training does not."""

from __future__ import annotations

import importlib
from typing import Any

from facegraft.errors import FacegraftError


class MissingPackageError(FacegraftError):
    """A required package is not installed; the message says how to install it."""


def lazy_import(name: str) -> Any:
    """A module by name. Raises MissingPackageError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            f"this needs {name.partition('.')[0]}, which is not installed ({error}): pip install facegraft"
        ) from error
