"""User settings: `--set name=value` of every command, and the YAML of recipes. They are data only and cannot run code."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from facegraft.errors import FacegraftError, name_fault

_DEEPEST = 20
_NOT_TEXT = (
    ("bool", "yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", "0|-?[1-9][0-9]*", "-0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.0123456789"),
    ("null", "~|null|Null|NULL|", ("~", "n", "N", "")),
    ("merge", "<<", "<"),
)
"""Plain words that are not text: their kind, a regular expression, and their first letters."""


class SettingError(FacegraftError):
    """A setting that cannot be read."""

    exit_code = 2


def parse_setting(setting: str) -> tuple[str | None, str, Any]:
    """`group.name=value` or `name=value` → (group or None, name, value); the value is read as YAML. Raises SettingError."""
    left, equals, text = setting.partition("=")
    if not equals or not left.strip():
        raise SettingError(f"--set {setting}: write it as name=value")
    group, dot, name = left.strip().rpartition(".")
    try:
        value = read_yaml(text)
    except ValueError as error:
        raise SettingError(f"--set {left}=…: cannot read the value ({error})") from error
    return (group if dot else None), name, value


def as_name(value: Any) -> str:
    """A name as it was written, from the value of a setting. Raises ValueError, in words, for what YAML did not read as text.

    A whole number is one that has a single spelling (see `read_yaml`), so that 10 is the name `10`.
    """
    if isinstance(value, str):
        if fault := name_fault(value):
            raise ValueError(f"this name {fault}: rename what it names")
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, bool | float):
        read = "nothing" if value is None else f"the number {value}" if isinstance(value, float) else str(value).lower()
        raise ValueError(f"a name is text, and this was read as {read}: write the name in quotes")
    raise ValueError(f"a name is text, not a {type(value).__name__}")


def read_yaml(text: str) -> Any:
    """One plain YAML document. Raises ValueError, in one line, for any text that is not one.

    Only what has a single spelling is more than text: whole numbers without leading zeros (010, 1_000, 1:30 and dates are text,
    which YAML 1.1 reads as 8, 1000, 90 and days), numbers with a point, true, false, yes, no, on, off, null.
    """
    import yaml

    try:
        return yaml.load(text, _plain_loader())
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:300]) from error
    # For `!!int x`, `2001-99-99` or a number of a million digits, PyYAML passes on any exception that Python raises.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a value cannot be read: {' '.join(str(error).split())[:200]}") from error


@cache
def _plain_loader() -> Any:
    """A loader of safe YAML that reads few words as anything but text (see `read_yaml`), without aliases, repeated names and deep nesting, which make a small file expand to a huge value or
    ambiguous. Built on first use, because training a model needs no YAML.
    """
    import yaml

    class PlainLoader(yaml.SafeLoader):
        depth = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise yaml.composer.ComposerError(
                    None, None, "aliases (*name) are not allowed", parent.start_mark if parent else None
                )
            self.depth += 1
            if self.depth > _DEEPEST:
                raise yaml.composer.ComposerError(
                    None, None, "nested too deeply", parent.start_mark if parent else None
                )
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for name, _ in node.value:
                if (name.tag, str(name.value)) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{str(name.value)[:60]!r} is given twice", name.start_mark
                    )
                seen.add((name.tag, str(name.value)))
            return super().construct_mapping(node, deep)

    PlainLoader.yaml_implicit_resolvers = {}
    for tag, pattern, firsts in _NOT_TEXT:
        PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"), list(firsts))
    return PlainLoader
