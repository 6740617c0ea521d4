"""Recipes: one YAML file with the parameters of each stage. A recipe is data only; it cannot run code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facegraft.errors import nearest
from facegraft.resources import resource_folder
from facegraft.settings import SettingError, parse_setting, read_yaml
from facegraft.stages import STAGES
from facegraft.store.remote import in_home

MAX_BYTES = 1 << 17


class RecipeError(SettingError):
    """A recipe that cannot be read, or a setting for an unknown stage."""


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
        """A copy with `stage.name=value` settings applied; raises RecipeError naming the nearest stage."""
        parameters = {stage: dict(values) for stage, values in self.parameters.items()}
        for setting in settings:
            stage, name, value = parse_setting(setting)
            if stage is None:
                raise RecipeError(
                    f"--set {setting}: name the stage too, as in --set sample.{name}=…; stages are {_names()}"
                )
            parameters.setdefault(_known_stage(stage, f"--set {setting}"), {})[name] = value
        return Recipe(self.name, self.description, parameters)


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that facegraft ships (`demo`, `pipelines/ict.yaml`)."""
    path = Path(in_home(name))
    if path.is_file():
        return path
    shipped = {file.stem: file for file in sorted(resource_folder("pipelines").glob("*.yaml"))}
    is_shipped_name = path.parent in (Path(), Path("pipelines")) and path.suffix in ("", ".yaml")
    if is_shipped_name and path.stem in shipped:
        return shipped[path.stem]
    hint = nearest(path.stem, shipped, f"shipped recipes are {', '.join(shipped)}")
    raise RecipeError(f"there is no recipe {name!r}: neither a file nor one that facegraft ships{hint}")


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe file; raises RecipeError naming the file and the problem."""
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device may never end
        raise RecipeError(f"{path}: cannot read the recipe (it is not a regular file)")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path}: a recipe has at most {MAX_BYTES} bytes; is this another file?")
    try:
        data = read_yaml(content.decode())
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


def stage_settings(stage: str, settings: Iterable[str]) -> dict[str, Any]:
    """Settings given to the command of one stage: `name=value`, or `stage.name=value` with that stage's name."""
    values = {}
    for setting in settings:
        named, name, value = parse_setting(setting)
        if named not in (None, stage):
            raise RecipeError(f"--set {setting}: this command runs only stage {stage}; write {name}=…")
        values[name] = value
    return values


def _known_stage(stage: str, where: str) -> str:
    names = [known.name for known in STAGES]
    if stage not in names:
        raise RecipeError(f"{where}: unknown stage {stage[:60]!r}{nearest(stage, names, f'stages are {_names()}')}")
    return stage


def _names() -> str:
    return ", ".join(stage.name for stage in STAGES)
