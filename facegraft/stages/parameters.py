"""Typed stage parameters: validated once on input, then frozen.

A preset is a named set of defaults; values given explicitly override it. The message for an unknown parameter names the
nearest known one.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from facegraft.errors import FacegraftError, nearest

_MOST_TOLD = 8
"""Number of wrong parameters that one message lists."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200
"""Formats untrusted values for messages: on one line and shortened."""


class ParameterError(FacegraftError):
    """A parameter that does not exist or cannot have the given value."""

    exit_code = 2


class StageParameters(BaseModel):
    """Base of all stage parameters. Subclasses set STAGE, and PRESETS where they have any."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True)

    STAGE: ClassVar[str]
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "preset" not in values or not cls.PRESETS:
            return values
        preset = values["preset"]
        if not isinstance(preset, str) or preset not in cls.PRESETS:
            raise ValueError(f"there is no preset {_SHORT.repr(preset)}; presets are {', '.join(cls.PRESETS)}")
        return {**cls.PRESETS[preset], **values}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Validate; raises ParameterError, one line that names the wrong parameters."""
        try:
            return cls(**values)
        except ValidationError as error:
            details = error.errors()
            told = [cls._explain(dict(detail)) for detail in details[:_MOST_TOLD]]
            more = [f"and {len(details) - len(told)} more"] if len(details) > len(told) else []
            raise ParameterError("; ".join(told + more)) from None

    @classmethod
    def _explain(cls, detail: dict[str, Any]) -> str:
        name = str(detail["loc"][0]) if detail["loc"] else ""
        if detail["type"] == "extra_forbidden":
            # With the stage's name, so that short names are similar enough to match too.
            known = [f"{cls.STAGE}.{field}" for field in cls.model_fields]
            hint = nearest(f"{cls.STAGE}.{name}", known, f"{cls.STAGE} has: {', '.join(sorted(cls.model_fields))}")
            return f"unknown parameter {cls.STAGE}.{name if name.isidentifier() else _SHORT.repr(name)}{hint}"
        message = detail["msg"].removeprefix("Value error, ")
        if not name:
            return f"{cls.STAGE}: {message}"
        if detail["type"] == "missing":
            return f"{cls.STAGE}.{name} has to be given"
        return f"{cls.STAGE}.{name}={_SHORT.repr(detail['input'])}: {message[0].lower()}{message[1:]}"

    def as_json(self) -> dict[str, Any]:
        """JSON-able values; infinity as the string "inf"."""
        values: dict[str, Any] = self.model_dump(mode="json")
        for name, value in self.model_dump().items():
            if isinstance(value, float) and value in (float("inf"), float("-inf")):
                values[name] = str(value)
        return values
