"""The stages as plain functions over folders, and a whole recipe in one call.

    from facegraft.pipeline import graft, run_recipe

The commands of the same names are thin wrappers around these functions; parameters are the same mappings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from facegraft.engine import EngineOptions, RunSummary, ShardClient, SharedClient, already_complete, execute
from facegraft.recipe import Recipe
from facegraft.stages import CLEAN, GRAFT, INGEST, SAMPLE, STAGES, StageDefinition
from facegraft.store.remote import AnyPath, Location, place, recordable

Announce = Callable[[RunSummary], None]


def run_stage(
    stage: StageDefinition,
    inputs: Sequence[AnyPath],
    output: AnyPath,
    parameters: Mapping[str, Any],
    seed: int = 0,
    options: EngineOptions | None = None,
    client: ShardClient | SharedClient | None = None,
) -> RunSummary:
    """Make the dataset of one stage from its inputs, or continue where an earlier run of it stopped.

    Raises ParameterError, the errors of the stage's plan, and those of `engine.execute`.
    """
    checked = stage.parameters.parse(parameters)
    target, places = recordable(place(output)), [recordable(place(path)) for path in inputs]
    # Full paths, so that workers with another working directory find them.
    names = [str(recordable(path.resolve())) for path in places]
    done = already_complete(stage.path, places, names, target, checked.as_json(), seed)
    if done is not None:
        return done
    plan = stage.plan(places, checked, seed)
    return execute(stage.path, plan, names, target, checked.as_json(), seed, options or EngineOptions(), client)


def ingest(
    source: str | None,
    output: Location,
    parameters: Mapping[str, Any],
    seed: int = 0,
    options: EngineOptions | None = None,
    client: ShardClient | SharedClient | None = None,
) -> RunSummary:
    """Source heads (a folder, a file, or None for synthetic ones) → dataset of heads."""
    return run_stage(INGEST, [source] if source else [], output, parameters, seed, options, client)


def graft(
    heads: Location,
    output: Location,
    parameters: Mapping[str, Any],
    seed: int = 0,
    options: EngineOptions | None = None,
    client: ShardClient | SharedClient | None = None,
) -> RunSummary:
    """Heads → composites."""
    return run_stage(GRAFT, [heads], output, parameters, seed, options, client)


def clean(
    inputs: Sequence[Location],
    output: Location,
    parameters: Mapping[str, Any],
    seed: int = 0,
    options: EngineOptions | None = None,
    client: ShardClient | SharedClient | None = None,
) -> RunSummary:
    """Composites and heads → watertight surfaces."""
    return run_stage(CLEAN, list(inputs), output, parameters, seed, options, client)


def sample(
    surfaces: Path,
    output: Location,
    parameters: Mapping[str, Any],
    seed: int = 0,
    options: EngineOptions | None = None,
    client: ShardClient | SharedClient | None = None,
) -> RunSummary:
    """Surfaces → samples."""
    return run_stage(SAMPLE, [surfaces], output, parameters, seed, options, client)


def run_recipe(
    recipe: Recipe,
    source: str | None,
    output: Location,
    seed: int = 0,
    options: EngineOptions | None = None,
    announce: Announce = lambda summary: None,
) -> list[RunSummary]:
    """Run all stages of a recipe, each into the folder of OUT that is named after its kind; resumes an earlier run.

    Every parameter is validated before the first stage starts. One Dask client serves all stages, started for the first that is not complete; `announce` is called
    with each stage's summary.
    """
    for stage in STAGES:
        stage.parameters.parse(recipe.of(stage.name))
    options = options or EngineOptions()
    folder = place(output)
    summaries = []
    with SharedClient(options) as client:
        for stage in STAGES:
            inputs: list[AnyPath] = [folder / kind for kind in stage.reads] or ([source] if source else [])
            parameters = recipe.of(stage.name)
            summaries.append(run_stage(stage, inputs, folder / stage.makes, parameters, seed, options, client))
            announce(summaries[-1])
    return summaries
