"""Convert input values to the types that a dataclass declares."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar

from facegraft.errors import nearest
from facegraft_model.errors import ModelError

T = TypeVar("T")


def read(kind: type[T], document: Any, where: str, kinds: Mapping[str, type] | None = None) -> T:
    """A dataclass of dataclasses from JSON with exactly its fields. kinds: classes of fields, where they differ from the declared ones.

    Only a field that was added since (`bounds.added`) may be missing: it gets its default, which is what the older version did. Raises ModelError for an unknown or missing key, or a value of another type.
    """
    if not isinstance(document, Mapping):
        raise ModelError(f"{where}: expected a JSON object, found {type(document).__name__}")
    hints = typing.get_type_hints(kind) | dict(kinds or {})
    unknown = sorted(set(document) - set(hints))
    if unknown:
        raise ModelError(
            f"{where}: unknown setting {unknown[0]!r}{nearest(unknown[0], hints)}; it was made by another version: train anew, or "
            "use that version"
        )
    metadata = {item.name: item.metadata for item in fields(typing.cast(Any, kind))}
    missing = sorted(name for name in set(hints) - set(document) if not metadata[name].get("added"))
    if missing:
        raise ModelError(
            f"{where}: setting {missing[0]!r} is missing; it was made by another version: train anew, or use that version"
        )
    values = {
        name: read(hint, document[name], f"{where}.{name}")
        if is_dataclass(hint) and isinstance(hint, type)
        else typed(hint, metadata[name], document[name], f"{where}.{name}")
        for name, hint in hints.items()
        if name in document
    }
    return kind(**values)


def typed(hint: Any, metadata: Mapping[str, Any], value: Any, where: str) -> Any:
    """The value as the hinted type. metadata: of its field, with the allowed values as `one_of`. Raises ModelError for another type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    choices = arguments if origin is Literal else metadata.get("one_of")
    if choices is not None:
        if value not in choices:
            raise ModelError(f"{where}: {value!r} is none of {', '.join(map(str, choices))}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return typed(next(item for item in arguments if item is not type(None)), metadata, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple) or not all(isinstance(entry, arguments[0]) for entry in value):
            raise ModelError(f"{where}: expected a list of {arguments[0].__name__}, such as [a, b], found {value!r}")
        return tuple(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ModelError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value


def typed_setting(hint: Any, metadata: Mapping[str, Any], value: Any, where: str) -> Any:
    """The same for a setting's value from YAML, which reads 1e-3, NaN and none as text, and on and off as true and false. One name
    may stand for a list of it."""
    arguments = typing.get_args(hint) or (hint,)
    if isinstance(value, str) and value.lower() == "none" and type(None) in arguments:
        return None
    if typing.get_origin(hint) is tuple and isinstance(value, arguments[0]):
        value = [value]
    if isinstance(value, bool) and {"on", "off"} <= set(arguments):
        value = "on" if value else "off"
    if isinstance(value, str) and float in arguments:
        try:
            value = float(value)
        except ValueError as error:
            raise ModelError(f"{where}: expected float, found {value!r}") from error
    return typed(hint, metadata, value, where)
