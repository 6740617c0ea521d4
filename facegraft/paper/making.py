"""Make what the page shows: the comparison of the methods with the landmark ablation, and the edits of one of the models."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegraft_model.devices import choose_device
from facegraft_model.editing.commands import first_neutral_heads, interpolate_fitted
from facegraft_model.editing.edit import DecodeSettings, Edit, component_heads, figure_heads
from facegraft_model.editing.partcodes import has_part_codes, part_codes
from facegraft_model.errors import ModelError
from facegraft_model.evaluation.compared import COMPARED, Task, fits_folder, method_named
from facegraft_model.evaluation.comparison import Comparison, compare_methods
from facegraft_model.fitting.fits import FITS_FILE, Fits, load_fits

from facegraft.errors import FacegraftError
from facegraft.modelresults import SHEET_FILE, save_edit, true_ends
from facegraft.vocabulary import EXP

COMPARED_FOLDER = "compared"
COMPONENTS, INTERPOLATED, GENERATED = "components", "interpolated", "generated"
FIVE_LANDMARKS = "model.landmarks=five"

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Shapes:
    """How many heads the figures show: principal components of each part (None: three, or as many as there are), random draws of each
    part, and steps of the interpolation of each part."""

    components: int | None = None
    draws: int = 2
    steps: int = 3


@dataclass(frozen=True)
class Plan:
    """What is asked for. task: samples and settings of the comparison; command: the words of `facegraft model compare` that stand for it,
    without output and methods; figures: the method whose model is edited, None: the last that can be."""

    output: Path
    methods: tuple[str, ...]
    task: Task
    command: tuple[str, ...]
    figures: str | None = None
    shapes: Shapes = Shapes()
    announce: Announce = lambda text: None


@dataclass(frozen=True)
class Shown:
    """A picture that was drawn, with the command that draws it; picture None: `why` says what is missing."""

    command: str
    picture: Path | None
    why: str = ""


@dataclass(frozen=True)
class Made:
    """comparison: of all methods; main: those that were asked for; ablated: pairs of a method and the same with five landmarks;
    command: makes the comparison. edits: pictures by folder name."""

    comparison: Comparison
    main: tuple[str, ...]
    ablated: tuple[tuple[str, str], ...]
    command: str
    model: str | None
    edits: dict[str, Shown]


def five_of(name: str) -> str | None:
    """The name of a method with the five landmarks of the whole face in place of each part's; None for a method to which they mean nothing."""
    five = f"{name}-five"
    config = getattr(method_named(name), "config", None)
    if config is None or config.model.method != "parts" or config.model.landmarks == "five" or config.model.nets != "hyper":
        return None
    return five if five in COMPARED else f"{name}@{FIVE_LANDMARKS}"


def make(plan: Plan) -> Made:
    """Compare the methods (finished work is kept) and edit the heads of one. Raises ModelError for an unknown method."""
    ablated = tuple((name, five) for name in plan.methods if (five := five_of(name)) and five not in plan.methods)
    names = [*plan.methods, *(five for _, five in ablated)]
    folder = plan.output / COMPARED_FOLDER
    if plan.figures is not None and plan.figures not in names:
        raise ModelError(f"--figures {plan.figures}: name one of the methods that are compared: {', '.join(names)}")
    comparison = compare_methods(names, folder, plan.task)
    plan.announce(comparison.table)
    command = told("facegraft", "model", "compare", *plan.command, "-o", folder, "--methods", ",".join(names))
    model, fits = _edited_model(plan, comparison, folder)
    edits = {} if fits is None else _edits(plan, fits)
    return Made(comparison, plan.methods, ablated, command, model, edits)


def told(*words: object) -> str:
    """A command as one types it."""
    return shlex.join(map(str, words))


def _edited_model(plan: Plan, comparison: Comparison, folder: Path) -> tuple[str | None, Fits | None]:
    """The method whose model is edited, and its fits; (None, None) where no scored method has codes of parts.

    Raises ModelError where the method that was asked for has none."""
    scored = [result.method for result in comparison.scores]
    for name in [plan.figures] if plan.figures is not None else reversed(plan.methods):
        path = fits_folder(folder / name, plan.task)
        if name in scored and (path / FITS_FILE).exists():
            fits = load_fits(path, choose_device(plan.task.device))
            if has_part_codes(fits.field):
                return name, fits
    if plan.figures is not None:
        raise ModelError(f"--figures {plan.figures}: it has no codes of parts to edit, or no scores; name another, or none")
    return None, None


def _edits(plan: Plan, fits: Fits) -> dict[str, Shown]:
    """The edits of Figures 1, 7, 2 and 8, drawn; for one that cannot be made, the reason."""
    settings = DecodeSettings(resolution=plan.task.settings.resolution)
    grid = ("--resolution", settings.resolution)
    field, shapes = fits.field, plan.shapes
    few = () if shapes.components is None else ("--components", shapes.components)
    expressive = EXP in field.code_dims and len(field.id_table.expression_names) > 1
    codes = [*part_codes(field.parts), *([EXP] if expressive else [])]

    def made(
        name: str, words: Sequence[object], edit: Callable[[], Edit], title: str, ends: Sequence[Mapping[str, Any]] = ()
    ) -> Shown:
        plan.announce(f"{plan.output / name}: {title}")
        command = told("facegraft", "model", *words, *grid, "-o", plan.output / name)
        try:
            save_edit(plan.output / name, edit(), title, ends=ends)
        except FacegraftError as error:  # such as a head without a surface: hours of training must still end in a page
            plan.announce(f"not made: {error}")
            return Shown(command, None, f"{command}: {error}")
        return Shown(command, plan.output / name / SHEET_FILE)

    components = made(
        COMPONENTS,
        ("components", fits.path, "--parts", ",".join(codes), *few),
        lambda: component_heads(field, codes, shapes.components, settings=settings),
        "Principal components of the parts",
    )
    try:
        heads = first_neutral_heads(fits)
    except ModelError as error:
        plan.announce(f"not made: {error}")
        without = Shown("", None, str(error))
        return {COMPONENTS: components, GENERATED: without, INTERPOLATED: without}
    generated = made(
        GENERATED,
        ("generate", fits.path, "--figure", "--count", shapes.draws, "--seed", plan.task.seed),
        lambda: figure_heads(field, heads, shapes.draws, plan.task.seed, settings=settings),
        "Random parts of held-out heads",
    )
    if len(heads) < 2:
        why = f"One held-out subject is not enough to interpolate: {fits.path} has only {heads[0].name}."
        return {COMPONENTS: components, GENERATED: generated, INTERPOLATED: Shown("", None, why)}
    start, end = (head.name for head in heads[:2])
    ends, missing = true_ends(fits, (start, end), resolution=settings.resolution)
    if missing:
        plan.announce(f"the picture of the interpolation is without the true heads: {missing}")
    interpolated = made(
        INTERPOLATED,
        ("interpolate", fits.path, "--from", start, "--to", end, "--steps", shapes.steps),
        lambda: interpolate_fitted(fits, start, end, None, shapes.steps, settings),
        f"{start} to {end}, part after part",
        ends,
    )
    return {COMPONENTS: components, GENERATED: generated, INTERPOLATED: interpolated}
