"""The methods there are. To add one, write its file and its line here.

A method is a class (`method.Field`) that brings its own options, checks and presets. It is named here and loaded when it is asked
for, so that reading a configuration does not load every method's networks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from facegraft_model.errors import ModelError

if TYPE_CHECKING:
    from facegraft_model.method import Field

METHODS = {
    "parts": "facegraft_model.field:FaceField",
    "imface": "facegraft_model.field:FaceField",
    "i3dmm": "facegraft_model.baselines.i3dmm:I3DMMField",
    "deepsdf": "facegraft_model.baselines.deepsdf:DeepSDFField",
}
"""By the name that `model.method` gives them: module and class."""


def field_class(method: str) -> type[Field]:
    """The class of a method. Raises ModelError for a name that is not there."""
    if method not in METHODS:
        raise ModelError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
    module, _, name = METHODS[method].partition(":")
    found: type[Field] = getattr(importlib.import_module(module), name)
    return found
