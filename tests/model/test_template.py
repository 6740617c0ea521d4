"""Points around a template's surface, against exact distances to its mesh."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from facegraft_model.data.topology import Topology
from facegraft_model.morph.template import FAR_MM, points_around

from facegraft.surfaces.distance import signed_distance

MM = 100.0


def topology_of(mesh: trimesh.Trimesh) -> Topology:
    vertices = torch.from_numpy(mesh.vertices).float()
    none = torch.zeros(0, 3)
    return Topology(
        vertices, torch.from_numpy(mesh.faces), torch.zeros(len(vertices), dtype=torch.uint8), torch.arange(len(vertices)), none, none.long()
    )


def test_points_around_a_head_know_their_side_and_distance() -> None:
    """A box with a deep slot, as a mouth is: sides by the winding number, distances too large by a part of a mm at most."""
    outline = [(-0.5, -0.4), (0.5, -0.4), (0.5, -0.05), (-0.2, -0.05), (-0.2, 0.05), (0.5, 0.05), (0.5, 0.4), (-0.5, 0.4)]
    rim = np.array(outline)
    low, high = (np.column_stack([rim, np.full(len(rim), z)]) for z in (-0.3, 0.3))
    count = len(rim)
    sides = [(i, (i + 1) % count, count + i) for i in range(count)]
    sides += [((i + 1) % count, count + (i + 1) % count, count + i) for i in range(count)]
    cover = [(0, 1, 2), (0, 2, 3), (0, 3, 4), (0, 4, 7), (4, 5, 6), (4, 6, 7)]
    faces = sides + [(c, b, a) for a, b, c in cover] + [(count + a, count + b, count + c) for a, b, c in cover]
    box = trimesh.Trimesh(np.concatenate([low, high]), faces, process=False)
    assert box.is_watertight and box.volume > 0
    found = points_around(topology_of(box), None, MM, seed=0)
    assert found is not None and len(found.q) > 2000
    exact = signed_distance(box.vertices, box.faces, found.q.double().numpy(), backend="winding").sdf
    assert (np.sign(exact) == np.sign(found.sdf.numpy())).all()
    excess = MM * (found.sdf.abs().numpy() - np.abs(exact))
    assert excess.min() > -1e-3 and excess.mean() < 0.3 and excess.max() < 2
    assert (exact < 0).mean() > 0.1 and (exact > 0).mean() > 0.1
    assert float(found.sdf.abs().min()) >= FAR_MM / MM
    torch.testing.assert_close(found.grad.norm(dim=1), torch.ones(len(found.q)))


def test_a_sheet_has_no_inside() -> None:
    sheet = trimesh.creation.box((1.2, 1.2, 0.0))
    flat = trimesh.Trimesh(sheet.vertices, sheet.faces[(np.abs(sheet.face_normals[:, 2]) > 0.9) & (sheet.face_normals[:, 2] > 0)], process=False)
    found = points_around(topology_of(flat), None, MM, seed=0)
    assert found is None or float(found.sdf.min()) > 0
