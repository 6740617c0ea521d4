"""`facegraft model`: train on samples, fit to heads, extract, score, and edit part by part."""

from facegraft.cli.model.editing import model_components, model_generate, model_interpolate, model_swap
from facegraft.cli.model.group import model
from facegraft.cli.model.paper import paper
from facegraft.cli.model.scoring import model_compare, model_evaluate, model_extract
from facegraft.cli.model.training import model_fit, model_publish, model_train

for command in (
    model_train,
    model_fit,
    model_extract,
    model_evaluate,
    model_compare,
    model_swap,
    model_interpolate,
    model_generate,
    model_components,
    model_publish,
):
    model.add_command(command)

__all__ = ["model", "paper"]
