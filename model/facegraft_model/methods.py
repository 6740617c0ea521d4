"""The list of methods. To add one, write its file and a line here.

A method is a class (`method.Field`) with its own options, checks and presets. It is listed here by name and imported on first
use, so that reading a configuration does not import the networks of all methods.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol, cast

from facegraft_model.errors import ModelError


@dataclass(frozen=True)
class MethodOptions:
    """The group `baseline` of a configuration: options of one method besides the other groups. Each method has its own class."""


class MethodClass(Protocol):
    """The part of a method's class that a configuration needs; `method.Field` has the whole interface."""

    Options: type[MethodOptions]
    presets: tuple[Any, ...]

    def check(self, config: Any) -> None: ...


METHODS = {
    "parts": "facegraft_model.field:CascadeField",
    "imface": "facegraft_model.field:CascadeField",
    "i3dmm": "facegraft_model.baselines.i3dmm:I3DMMField",
    "deepsdf": "facegraft_model.baselines.deepsdf:DeepSDFField",
}
"""Module and class of each method, by its name in `model.method`."""

BASIS = {"parts": "facegraft_model.field:MorphField"}
"""The methods that can also be built of neural bases (`model.nets=basis`), and the class that does so."""


def field_class(method: str, nets: str = "hyper") -> MethodClass:
    """The class of a method. Raises ModelError for an unknown name, or a method that cannot be built of such nets."""
    if method not in METHODS:
        raise ModelError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
    if nets == "basis" and method not in BASIS:
        raise ModelError(f"model.nets=basis: method {method} has no neural bases; methods that have: {', '.join(BASIS)}")
    module, _, name = (BASIS if nets == "basis" else METHODS)[method].partition(":")
    return cast(MethodClass, getattr(importlib.import_module(module), name))
