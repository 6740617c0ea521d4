"""The methods there are. To add one, write its file and its line here.

A method is a class (`method.Field`) that brings its own options, checks and presets. It is named here and loaded when it is asked
for, so that reading a configuration does not load every method's networks.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

from facegraft_model.errors import ModelError


@dataclass(frozen=True)
class MethodOptions:
    """The group `baseline` of a configuration: what a method has besides the other groups. Each method has a class of its own."""


class MethodClass(Protocol):
    """What a configuration needs of a method's class; `method.Field` says what else it is."""

    Options: type[MethodOptions]
    presets: tuple[Any, ...]

    def check(self, config: Any) -> None: ...


METHODS = {
    "parts": "facegraft_model.field:FaceField",
    "imface": "facegraft_model.field:FaceField",
    "i3dmm": "facegraft_model.baselines.i3dmm:I3DMMField",
    "deepsdf": "facegraft_model.baselines.deepsdf:DeepSDFField",
}
"""By the name that `model.method` gives them: module and class."""


def field_class(method: str) -> MethodClass:
    """The class of a method. Raises ModelError for a name that is not there."""
    if method not in METHODS:
        raise ModelError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
    module, _, name = METHODS[method].partition(":")
    return cast(MethodClass, getattr(importlib.import_module(module), name))
