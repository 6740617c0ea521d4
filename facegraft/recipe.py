"""Recipes: one YAML file that says how each stage is to run. Data only; a recipe can run no code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from facegraft.errors import FacegraftError
from facegraft.resources import resource_folder

STAGES = ("ingest", "graft", "clean", "sample")

MAX_BYTES = 1 << 17
_DEEPEST = 20


class RecipeError(FacegraftError):
    """A recipe or an override that cannot be read."""

    exit_code = 2


@dataclass(frozen=True)
class Recipe:
    """Parameters by stage, as written (not yet validated), with a name and a description."""

    name: str
    description: str = ""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, stage: str) -> dict[str, Any]:
        """The parameters of one stage."""
        return dict(self.parameters.get(stage, {}))

    def override(self, settings: Iterable[str]) -> Recipe:
        """A copy with `stage.name=value` settings put in place; raises RecipeError naming the nearest stage."""
        parameters = {stage: dict(values) for stage, values in self.parameters.items()}
        for setting in settings:
            stage, name, value = parse_setting(setting)
            if stage is None:
                raise RecipeError(
                    f"--set {setting}: say which stage it is for, as in --set sample.{name}=…; stages are {', '.join(STAGES)}"
                )
            parameters.setdefault(_known_stage(stage, f"--set {setting}"), {})[name] = value
        return Recipe(self.name, self.description, parameters)


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that facegraft ships (`demo`, `pipelines/ict.yaml`)."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(resource_folder("pipelines").glob("*.yaml"))}
    is_shipped_name = path.parent in (Path(), Path("pipelines")) and path.suffix in ("", ".yaml")
    if is_shipped_name and path.stem in shipped:
        return shipped[path.stem]
    near = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f"did you mean {near[0]}?" if near else f"shipped recipes are {', '.join(shipped)}"
    raise RecipeError(f"there is no recipe {name!r}: neither a file nor one that facegraft ships; {hint}")


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file; raises RecipeError naming the file and what is wrong in it."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device has no end
        raise RecipeError(f"{path}: cannot read the recipe (it is no plain file)")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path}: a recipe has at most {MAX_BYTES} bytes; is this another file?")
    try:
        data = _read_yaml(content.decode())
    except ValueError as error:
        raise RecipeError(f"{path}: not a YAML file ({error})") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe maps stage names to parameters; this file holds {type(data).__name__}")
    parameters: dict[str, Mapping[str, Any]] = {}
    for key, value in data.items():
        if key in ("name", "description"):
            continue
        stage = _known_stage(str(key), str(path))
        if not isinstance(value, dict):
            raise RecipeError(f"{path}: {stage} must map parameter names to values, not {str(value)[:60]!r}")
        for name in value:
            if not isinstance(name, str):
                raise RecipeError(f"{path}: {stage}.{str(name)[:60]}: a parameter's name is a word")
        parameters[stage] = value
    return Recipe(str(data.get("name", path.stem)), str(data.get("description", "")), parameters)


def parse_setting(setting: str) -> tuple[str | None, str, Any]:
    """`stage.name=value` or `name=value` → (stage or None, name, value); the value is read as YAML."""
    left, equals, text = setting.partition("=")
    if not equals or not left.strip():
        raise RecipeError(f"--set {setting}: write it as name=value")
    stage, dot, name = left.strip().rpartition(".")
    try:
        value = _read_yaml(text)
    except ValueError as error:
        raise RecipeError(f"--set {left}=…: cannot read the value ({error})") from error
    return (stage if dot else None), name, value


def stage_settings(stage: str, settings: Iterable[str]) -> dict[str, Any]:
    """Settings given to the command of one stage: `name=value`, or with the stage's own name before it."""
    values = {}
    for setting in settings:
        named, name, value = parse_setting(setting)
        if named not in (None, stage):
            raise RecipeError(f"--set {setting}: this command runs stage {stage} alone; write {name}=…")
        values[name] = value
    return values


def _read_yaml(text: str) -> Any:
    """One plain document. Raises ValueError, in one line, for all that is none, whatever PyYAML makes of it."""
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:300]) from error
    # PyYAML turns `!!int x`, `2001-99-99` or a number of a million digits into whatever Python raises for it.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"a value cannot be read: {' '.join(str(error).split())[:200]}") from error


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML without what lets a small file stand for a large or a doubtful one: no aliases, no name twice, no deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                None, None, "aliases (*name) are not for recipes", parent.start_mark if parent else None
            )
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.composer.ComposerError(None, None, "nested too deeply", parent.start_mark if parent else None)
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


def _known_stage(stage: str, where: str) -> str:
    if stage not in STAGES:
        near = difflib.get_close_matches(stage, STAGES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"stages are {', '.join(STAGES)}"
        raise RecipeError(f"{where}: unknown stage {stage[:60]!r}; {hint}")
    return stage
