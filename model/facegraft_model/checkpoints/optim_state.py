"""Save an optimiser as named tensors and a JSON value, and restore it bit by bit, without pickle."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from facegraft_model.checkpoints.tensor_file import CheckpointError, check_fits, check_names

# These options depend on the machine and do not belong to the saved state.
_MACHINE_OPTIONS = ("foreach", "fused", "capturable", "differentiable")
_NOT_OPTIONS = ("params", "param_names", *_MACHINE_OPTIONS)

Named = Iterable[tuple[str, nn.Parameter]]


def optimiser_tensors(optimiser: torch.optim.Optimizer, named: Named) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of an optimiser (Adam and its kin) by parameter name, and the rest of it as a JSON value.

    named: `module.named_parameters()` of all its parameters. Returns the tensors "exp_avg/NAME", "exp_avg_sq/NAME", "step/NAME" for
    `checkpoint.save`, and {"kind", "groups": [{"options": {…}, "parameters": {NAME: [names of its tensors]}}]} to be kept in its
    `state`. A parameter that never had a gradient has no tensors.
    Raises CheckpointError for a parameter without a name and for an entry that is not a tensor.
    """
    tensors: dict[str, Tensor] = {}
    groups = []
    for group, parameters in zip(optimiser.param_groups, _names_by_group(optimiser, named), strict=True):
        kinds: dict[str, list[str]] = {}
        for name, parameter in parameters.items():
            entries = optimiser.state.get(parameter, {})
            kinds[name] = sorted(entries)
            for kind, value in entries.items():
                if not isinstance(value, Tensor):
                    raise CheckpointError(
                        f"the optimiser keeps {kind!r} of {name!r} as {type(value).__name__}; only tensors can be saved"
                    )
                tensors[f"{kind}/{name}"] = value
        options = {key: value.item() if isinstance(value, Tensor) else value for key, value in _options(group).items()}
        groups.append({"options": options, "parameters": kinds})
    return tensors, {"kind": type(optimiser).__name__, "groups": groups}


def restore_optimiser(
    optimiser: torch.optim.Optimizer,
    named: Named,
    tensors: Mapping[str, Tensor],
    description: Mapping[str, Any],
    where: str | os.PathLike[str],
) -> None:
    """Restore the result of `optimiser_tensors` in an optimiser of the same kind and parameters; all of it or nothing.

    Parameters are matched by name, in any order within a group. Learning rate, betas and other numbers come from the checkpoint;
    options of the implementation (fused, foreach, …) remain those of this optimiser, so the machine may change.
    where: name of the source in errors. Raises CheckpointError with the first parameter, tensor or option that does not match.
    """
    where = os.fspath(where)
    own = _names_by_group(optimiser, named)
    saved = _saved_groups(optimiser, description, where)
    state: dict[int, dict[str, Tensor]] = {}
    groups: list[dict[str, Any]] = []
    check_names(
        _tensor_names(saved), tensors, where, "the optimiser's tensors and its description do not match"
    )
    index = 0
    for number, (group, parameters) in enumerate(zip(optimiser.param_groups, own, strict=True)):
        kinds, options = saved[number]["parameters"], saved[number]["options"]
        here = f"{where}: optimiser group {number}"
        _check_same(
            parameters,
            kinds,
            f"{here}: parameter",
            "the model has another architecture or other groups than the checkpoint",
        )
        _check_same(_options(group), options, f"{here}: option", "the checkpoint is of another version of torch")
        first = index
        for name, parameter in parameters.items():
            for kind in kinds[name]:
                # A step counter is one float32 number; every moment has the shape and type of its parameter.
                target = torch.zeros(()) if kind == "step" else parameter
                check_fits(f"{kind}/{name}", tensors[f"{kind}/{name}"], target, where)
            if kinds[name]:
                state[index] = {kind: tensors[f"{kind}/{name}"].clone() for kind in kinds[name]}
            index += 1
        numbers = {key: _as_here(value, group[key]) for key, value in options.items()}
        groups.append({**group, **numbers, "params": list(range(first, index))})
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _names_by_group(optimiser: torch.optim.Optimizer, named: Named) -> list[dict[str, nn.Parameter]]:
    """Per group, its parameters by name, in the group's order."""
    names = {parameter: name for name, parameter in named}
    groups = []
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if parameter not in names:
                raise CheckpointError(
                    f"the optimiser has a parameter of shape {list(parameter.shape)} that is not among those named"
                )
        groups.append({names[parameter]: parameter for parameter in group["params"]})
    return groups


def _saved_groups(optimiser: torch.optim.Optimizer, description: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The groups of a description, checked against the optimiser's kind and number of groups."""
    groups = description.get("groups")
    if not isinstance(groups, list) or not all(
        isinstance(group, dict) and {"options", "parameters"} <= group.keys() for group in groups
    ):
        raise CheckpointError(
            f"{where}: the optimiser's field 'groups' is missing or not a list of options and parameters"
        )
    kind, own = description.get("kind"), type(optimiser).__name__
    if kind != own:
        raise CheckpointError(
            f"{where}: the optimiser's field 'kind' is {kind!r}, here it is {own!r}; resume with the same optimiser"
        )
    if len(groups) != len(optimiser.param_groups):
        raise CheckpointError(
            f"{where}: the optimiser has {len(groups)} parameter groups, here it has {len(optimiser.param_groups)}"
        )
    return groups


def _tensor_names(groups: list[dict[str, Any]]) -> set[str]:
    return {f"{kind}/{name}" for group in groups for name, kinds in group["parameters"].items() for kind in kinds}


def _check_same(own: Iterable[str], saved: Iterable[str], what: str, reason: str) -> None:
    own, saved = set(own), set(saved)
    if missing := own - saved:
        raise CheckpointError(f"{what} {min(missing)!r} is missing (one of {len(missing)}); {reason}")
    if unknown := saved - own:
        raise CheckpointError(f"{what} {min(unknown)!r} is unknown here (one of {len(unknown)}); {reason}")


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in _NOT_OPTIONS}


def _as_here(value: Any, own: Any) -> Any:
    """A JSON value converted to the optimiser's type: a tensor (learning rate of a compiled step), a tuple (betas), or itself."""
    if isinstance(own, Tensor):
        return torch.full_like(own, value)
    return tuple(value) if isinstance(own, tuple) else value
