"""The group `facegraft model`, with the options that its commands share, and opening fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facegraft.cli.group import Commands
from facegraft.cli.options import LocalPath, Place
from facegraft.errors import FacegraftError

if TYPE_CHECKING:
    from facegraft_model.fitting.fits import Fits

FOLDER = LocalPath(file_okay=False)
DATASET = Place(file_okay=False)
FILE = LocalPath(dir_okay=False)


class NoTorchError(FacegraftError):
    """The model's packages are not installed."""


class ModelCommands(Commands):
    """A group of commands that need torch, with a clear message where it is missing."""

    def invoke(self, ctx: click.Context) -> Any:
        require_torch("facegraft model")
        return super().invoke(ctx)


def require_torch(command: str) -> None:
    """Raises NoTorchError, naming the command, where the model's packages are not installed."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise NoTorchError(f"{command} needs the package {error.name}: pip install 'facegraft[model]'") from error


@click.group(cls=ModelCommands)
def model() -> None:
    """The parts-based implicit face model: train, fit, score, edit.

    \b
    facegraft model train OUT/samples -o run --preset tiny     a small model on a CPU, in minutes
    facegraft model fit run OUT/samples -o fits                codes of the held-out heads
    facegraft model evaluate fits OUT/samples -o scores        scores by part
    facegraft model swap fits --host A --nose B -o swapped     B's nose on A, in latent space
    """


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-o FOLDER`, required."""
    return click.option("-o", "--output", type=FOLDER, required=True, help="Folder to write.")(command)


def device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--device auto|cpu|cuda`."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="Device to compute on; auto: CUDA if available.",
    )(command)


def resolution_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--resolution N`, of grids that meshes are extracted from."""
    return click.option(
        "--resolution", type=click.IntRange(8, 512), default=256, help="Nodes of the grid along each axis."
    )(command)


def settings_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--set GROUP.NAME=VALUE`, repeatable."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="GROUP.NAME=VALUE",
        help="Any setting of the configuration; repeatable.",
    )(command)


def quiet_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--quiet`."""
    return click.option("--quiet", is_flag=True, help="No progress display.")(command)


def open_fits(path: Path, device: str) -> Fits:
    """Fits and their model on a device ("auto": CUDA if available)."""
    from facegraft_model.devices import choose_device
    from facegraft_model.fitting.fits import load_fits

    return load_fits(path, choose_device(device))
