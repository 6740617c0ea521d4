"""The four stages as plain functions over folders, and a whole recipe in one call.

    from facegraft.pipeline import graft, run_recipe

The commands of the same names are thin over these; parameters are the same mappings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from facegraft.engine import EngineOptions, RunSummary, ShardClient, StagePlan, execute, start_client
from facegraft.recipe import Recipe
from facegraft.store import open_dataset
from facegraft.store.remote import place

Announce = Callable[[RunSummary], None]


def ingest(
    source: str | None,
    output: Path,
    parameters: Mapping[str, Any],
    seed: int = 0,
    options: EngineOptions | None = None,
    client: ShardClient | None = None,
) -> RunSummary:
    """Source heads (a folder, a file, or None for synthetic ones) → dataset of heads."""
    from facegraft.stages import ingest as stage

    checked = stage.IngestParameters.parse(parameters)
    return _execute(
        stage.STAGE_PATH,
        stage.plan_ingest(place(source) if source else None, checked, seed),
        [source] if source else [],
        output,
        checked.as_json(),
        seed,
        options,
        client,
    )


def graft(
    heads: Path,
    output: Path,
    parameters: Mapping[str, Any],
    seed: int = 0,
    options: EngineOptions | None = None,
    client: ShardClient | None = None,
) -> RunSummary:
    """Heads → composites."""
    from facegraft.stages import graft as stage

    checked = stage.GraftParameters.parse(parameters)
    plan = stage.plan_graft(open_dataset(heads), checked, seed)
    return _execute(stage.STAGE_PATH, plan, [heads], output, checked.as_json(), seed, options, client)


def clean(
    inputs: Sequence[Path],
    output: Path,
    parameters: Mapping[str, Any],
    seed: int = 0,
    options: EngineOptions | None = None,
    client: ShardClient | None = None,
) -> RunSummary:
    """Composites and heads → watertight surfaces."""
    from facegraft.stages import clean as stage

    checked = stage.CleanParameters.parse(parameters)
    plan = stage.plan_clean([open_dataset(path) for path in inputs], checked, seed)
    return _execute(stage.STAGE_PATH, plan, list(inputs), output, checked.as_json(), seed, options, client)


def sample(
    surfaces: Path,
    output: Path,
    parameters: Mapping[str, Any],
    seed: int = 0,
    options: EngineOptions | None = None,
    client: ShardClient | None = None,
) -> RunSummary:
    """Surfaces → samples."""
    from facegraft.stages import sample as stage

    checked = stage.SampleParameters.parse(parameters)
    plan = stage.plan_sample(open_dataset(surfaces), checked, seed)
    return _execute(stage.STAGE_PATH, plan, [surfaces], output, checked.as_json(), seed, options, client)


def run_recipe(
    recipe: Recipe,
    source: str | None,
    output: Path,
    seed: int = 0,
    options: EngineOptions | None = None,
    announce: Announce = lambda summary: None,
) -> list[RunSummary]:
    """All stages of a recipe into OUT/heads, composites, surfaces, samples; resumes what is there.

    Every parameter is validated before the first stage starts. One Dask client serves all stages; `announce` is called
    with each stage's summary.
    """
    from facegraft.stages.clean import CleanParameters
    from facegraft.stages.graft import GraftParameters
    from facegraft.stages.ingest import IngestParameters
    from facegraft.stages.sample import SampleParameters

    for kind in (IngestParameters, GraftParameters, CleanParameters, SampleParameters):
        kind.parse(recipe.of(kind.STAGE))
    options = options or EngineOptions()
    output = place(output)
    heads, composites, surfaces, samples = (output / name for name in ("heads", "composites", "surfaces", "samples"))
    steps: list[Callable[[ShardClient], RunSummary]] = [
        lambda client: ingest(source, heads, recipe.of("ingest"), seed, options, client),
        lambda client: graft(heads, composites, recipe.of("graft"), seed, options, client),
        lambda client: clean([composites, heads], surfaces, recipe.of("clean"), seed, options, client),
        lambda client: sample(surfaces, samples, recipe.of("sample"), seed, options, client),
    ]
    summaries = []
    with start_client(options) as client:
        for step in steps:
            summaries.append(step(client))
            announce(summaries[-1])
    return summaries


def _execute(
    stage_path: str,
    plan: StagePlan,
    inputs: Sequence[str | Path],
    output: Path,
    parameters: dict[str, Any],
    seed: int,
    options: EngineOptions | None,
    client: ShardClient | None,
) -> RunSummary:
    return execute(
        stage_path,
        plan,
        [str(place(path).resolve()) for path in inputs],
        place(output),
        parameters,
        seed,
        options or EngineOptions(),
        client,
    )
