"""Grafting: a donor's parts onto a host of the same topology.

Everything that depends on the topology alone is computed once, in a `Grafter`; one graft is then four small fits
and four matrix products. Every fit uses the untouched host, so the order of the parts changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facegraft.arrays import Floats, Ints
from facegraft.geometry.affine import AffineFit, fit_affines, fit_similarity
from facegraft.geometry.pockets import PocketOperator, pocket_operator
from facegraft.geometry.quality import LoopEdges, dihedral_angles, dihedral_excess, flipped_faces, loop_edges
from facegraft.geometry.seam import SeamMethod, SeamOperator, seam_operator
from facegraft.surfaces.topology import compact, faces_within, grow_rings, vertex_adjacency

SURE_RANGE = (0.6, 1.6)
"""A graft with a singular value outside this range is flagged: pairs of adults need less squeezing or stretching."""

SANE_RANGE = (0.4, 2.5)
"""A graft with a singular value outside this range, or a determinant that is not positive, is rejected."""


@dataclass(frozen=True)
class PartQuality:
    """Quality of one grafted part: residual on the loop in mm, seam excess in degrees, flipped skin faces."""

    loop_residual: float
    singular_values: Floats
    determinant: float
    seam_excess_rms: float
    seam_excess_max: float
    flips: int

    @property
    def flagged(self) -> bool:
        return bool(self.singular_values[-1] < SURE_RANGE[0] or self.singular_values[0] > SURE_RANGE[1])

    @property
    def sane(self) -> bool:
        low, high = SANE_RANGE
        return bool(self.determinant > 0 and self.singular_values[-1] >= low and self.singular_values[0] <= high)


@dataclass(frozen=True)
class Graft:
    """A composite head: vertices [V, 3] in mm, and the affine fit of every grafted part."""

    vertices: Floats
    fits: Mapping[str, AffineFit]


@dataclass(frozen=True)
class _Disk:
    rim: Ints
    rim_weights: Floats
    seam: SeamOperator
    followers: Ints
    skin_faces: Ints
    skin_vertices: Ints
    seam_edges: LoopEdges
    pocket: PocketOperator | None


class Grafter:
    """The parts of one topology, ready to graft.

    Arguments: template [V, 3] in mm (the mean head: depths and Laplacians are taken on it); faces [F, 3]; skin mask
    [V] of the outer surface; parts: name → (loop [n], interior [m]), where interior vertices that are not skin lie in
    pockets (see `facegraft.geometry.pockets`); followers: name → vertices (eyeballs, lashes) that move with the part
    by its *similarity*, since an affine map would turn eyeballs into ellipsoids; stiffness of the affine fit
    (0 = plain affine, inf = similarity); rings: number of rings of skin on each side of the loop that join the fit;
    seam, width, length: see `facegraft.geometry.seam`.
    """

    def __init__(
        self,
        template: Floats,
        faces: Ints,
        skin: NDArray[np.bool_],
        parts: Mapping[str, tuple[Ints, Ints]],
        followers: Mapping[str, Ints] | None = None,
        *,
        stiffness: float = 0.1,
        rings: int = 2,
        seam: SeamMethod = "blend",
        width: float = 8.0,
        length: float = 4.0,
    ) -> None:
        self.stiffness = stiffness
        faces = np.asarray(faces, dtype=np.int64)
        skin_faces = faces[faces_within(faces, skin)]
        adjacency = vertex_adjacency(skin_faces, len(template))
        owner = np.full(len(template), -1)
        for number, (_, interior) in enumerate(parts.values()):
            owner[interior] = number
        self.disks: dict[str, _Disk] = {}
        for number, (name, (loop, interior)) in enumerate(parts.items()):
            layers = [loop, *grow_rings(adjacency, loop, rings)]
            near = np.concatenate(layers)
            # Each ring weighs half as much as the one before: donor and host must meet at the loop.
            weights = np.concatenate([np.full(len(layer), 0.5**k) for k, layer in enumerate(layers)])
            free = (owner[near] == -1) | (owner[near] == number)
            inside = np.zeros(len(template), dtype=bool)
            inside[interior] = inside[loop] = True
            own_faces = skin_faces[faces_within(skin_faces, inside)]
            part_faces, part_vertices = compact(own_faces, len(template))
            outer, behind = interior[skin[interior]], interior[~skin[interior]]
            pocket = pocket_operator(template, faces, behind, 2.0 * length) if len(behind) else None
            self.disks[name] = _Disk(
                rim=near[free],
                rim_weights=weights[free],
                seam=seam_operator(template, skin_faces, loop, outer, seam, width, length),
                followers=(followers or {}).get(name, np.empty(0, dtype=np.int64)),
                skin_faces=part_faces,
                skin_vertices=part_vertices,
                pocket=pocket,
                seam_edges=loop_edges(skin_faces, loop),
            )
        self._skin_faces = skin_faces

    def graft(self, donors: Floats | Mapping[str, Floats], host: Floats, parts: Iterable[str] | None = None) -> Graft:
        """Move parts of one donor, or of a donor per part, onto a host.

        Shapes: donors [V, 3], or part name → [V, 3]; host [V, 3]; all float64 in mm. `parts` defaults to all.
        Returns a new array; the host's vertices outside the parts, and on their loops, are unchanged to the bit.
        Raises DegenerateRim (see `fit_affine`).
        """
        names = list(self.disks if parts is None else parts)
        own = {name: donors[name] if isinstance(donors, Mapping) else donors for name in names}
        rims = [(own[name][self.disks[name].rim], host[self.disks[name].rim]) for name in names]
        weights = [self.disks[name].rim_weights for name in names]
        found = fit_affines([a for a, _ in rims], [b for _, b in rims], self.stiffness, weights) if names else []
        fits = dict(zip(names, found, strict=True))
        vertices = host.copy()
        for name, rim in zip(names, rims, strict=True):
            disk, donor, fit = self.disks[name], own[name], fits[name]
            vertices[disk.seam.interior] = disk.seam.apply(
                fit(donor[disk.seam.loop]), fit(donor[disk.seam.interior]), host
            )
            if disk.pocket is not None:
                disk.pocket.apply(vertices, host)
            if len(disk.followers):
                vertices[disk.followers] = fit_similarity(*rim, disk.rim_weights)(donor[disk.followers])
        return Graft(vertices, fits)

    def quality(self, graft: Graft, donors: Floats | Mapping[str, Floats], host: Floats) -> dict[str, PartQuality]:
        """Quality of every part of a graft (seam excess: see `dihedral_excess`)."""
        figures = {}
        for name, fit in graft.fits.items():
            disk = self.disks[name]
            donor = donors[name] if isinstance(donors, Mapping) else donors
            gap = host[disk.seam.loop] - fit(donor[disk.seam.loop])
            angles = [dihedral_angles(v, self._skin_faces, disk.seam_edges) for v in (graft.vertices, donor, host)]
            excess = dihedral_excess(*angles)
            own = graft.vertices[disk.skin_vertices]
            mapped = fit(donor[disk.skin_vertices])
            flips = flipped_faces(own, mapped, disk.skin_faces)
            figures[name] = PartQuality(
                loop_residual=float(np.sqrt((gap**2).sum(axis=1).mean())),
                singular_values=fit.singular_values,
                determinant=fit.determinant,
                seam_excess_rms=float(np.sqrt((excess**2).mean())),
                seam_excess_max=float(excess.max()),
                flips=flips,
            )
        return figures
