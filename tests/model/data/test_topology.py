"""The template's mesh: from samples to checkpoints, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facegraft_model.checkpoints import checkpoint as checkpoints
from facegraft_model.data.batches import BatchSource
from facegraft_model.data.ids import DataError
from facegraft_model.data.topology import read_topology
from facegraft_model.decoding.registered import RegistrationError, registered_vertices
from facegraft_model.errors import ModelError
from facegraft_model.method import TOPOLOGY_TENSORS
from facegraft_model.models import load_field
from facegraft_model.training.train import train
from sphere_heads import TEMPLATE_RADIUS, template_mesh

from facegraft.store import open_dataset


def test_a_checkpoint_has_the_topology_of_its_samples(trained: Path) -> None:
    topology, mesh = load_field(trained).topology, template_mesh()
    assert topology is not None
    kinds = {"vertices": torch.float32, "faces": torch.int64, "parts": torch.uint8, "ids": torch.int64}
    kinds |= {"cap_vertices": torch.float32, "cap_faces": torch.int64}
    for name, kind in kinds.items():
        found = getattr(topology, name)
        assert found.dtype == kind and np.array_equal(found.numpy(), mesh[f"template_{name}"]), name
    assert torch.allclose(topology.vertices.norm(dim=1), torch.tensor(TEMPLATE_RADIUS))


def test_samples_of_an_older_version_still_train(write_spheres: Callable[..., Path], tiny: Any, tmp_path: Path) -> None:
    older = write_spheres(mesh={})
    assert read_topology(open_dataset(older)) is None
    train(older, tmp_path / "run", tiny.with_settings(["train.steps=1"]), device="cpu", progress=False)
    field = load_field(tmp_path / "run")
    assert field.topology is None and not set(TOPOLOGY_TENSORS) & set(field.state_dict())
    codes = {name: table[:1] for name, table in field.tables.items()}
    with pytest.raises(RegistrationError, match="sample anew"):
        registered_vertices(field, codes)


def test_samples_without_caps_have_a_topology(write_spheres: Callable[..., Path]) -> None:
    """Those of version 2.1 had none."""
    mesh = {name: array for name, array in template_mesh().items() if "cap" not in name}
    topology = read_topology(open_dataset(write_spheres(mesh=mesh)))
    assert topology is not None and topology.cap_vertices.shape == topology.cap_faces.shape == (0, 3)
    assert torch.equal(topology.closed_faces, topology.faces)


def test_stage_points_of_unknown_vertices_are_refused(write_spheres: Callable[..., Path]) -> None:
    folder = write_spheres(mesh=template_mesh() | {"stage_vertices": np.arange(3, dtype=np.int32)})
    with pytest.raises(DataError, match=r"the vertex of each of the 120 stage points, but there are those of shape \[3\]"):
        BatchSource(folder, items=2, surface=8, near=4, free=4, stage=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": None}, "lacks template_ids; sample anew"),
        ({"parts": np.zeros(3, np.uint8)}, r"template_parts has shape \[3\], not \[642\]; sample anew"),
        ({"faces": np.full((4, 3), 642, np.int32)}, "names a vertex that it lacks"),
        ({"cap_faces": None}, "lacks template_cap_faces; sample anew"),
        ({"cap_faces": np.zeros((2, 4), np.int32)}, r"template_cap_faces has shape \[2, 4\], not \[2, 3\]; sample anew"),
        ({"cap_faces": np.full((2, 3), 642, np.int32)}, "names a vertex that it lacks"),
        ({"vertices": np.full((642, 3), np.nan, np.float32)}, "is not finite"),
    ],
)
def test_a_mesh_that_is_none_is_refused(
    write_spheres: Callable[..., Path], change: dict[str, np.ndarray | None], message: str
) -> None:
    mesh = template_mesh() | {f"template_{name}": array for name, array in change.items()}  # type: ignore[dict-item]
    folder = write_spheres(mesh={name: array for name, array in mesh.items() if array is not None})
    with pytest.raises(DataError, match=message):
        read_topology(open_dataset(folder))


def test_a_checkpoint_with_half_a_topology_is_refused(trained: Path, tmp_path: Path) -> None:
    found = checkpoints.load(trained)
    tensors = {name: tensor for name, tensor in found.tensors.items() if name != "topology_ids"}
    checkpoints.save(tmp_path / "run", 1, tensors, {}, found.state)
    with pytest.raises(ModelError, match="topology_ids is missing"):
        load_field(tmp_path / "run")
