"""Displacement fields on the template: Gaussian lobes that shift or stretch, mirrored on the other side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facegraft.arrays import Floats

Triple = tuple[float, float, float]


def lobe(points: Floats, centre: Triple, radii: Triple) -> Floats:
    """Weights [n] of an ellipsoidal Gaussian with the given standard deviations in mm."""
    q = (points - np.array(centre)) / np.array(radii)
    return np.asarray(np.exp(-0.5 * (q * q).sum(axis=1)))


@dataclass(frozen=True)
class Shift:
    """Moves a lobe by a vector (mm at its centre). A lobe off the midline has a mirrored copy."""

    centre: Triple
    radii: Triple
    vector: Triple

    def __call__(self, points: Floats) -> Floats:
        vector = np.array(self.vector)
        moved = lobe(points, self.centre, self.radii)[:, None] * vector
        if self.centre[0] != 0:
            mirror = np.array([-1.0, 1.0, 1.0])
            moved += lobe(points * mirror, self.centre, self.radii)[:, None] * vector * mirror
        return moved


@dataclass(frozen=True)
class Stretch:
    """Stretches a lobe about its centre: displacement = weight * rates * (point - centre). Mirrored like Shift."""

    centre: Triple
    radii: Triple
    rates: Triple

    def __call__(self, points: Floats) -> Floats:
        def one(p: Floats) -> Floats:
            return lobe(p, self.centre, self.radii)[:, None] * (p - np.array(self.centre)) * np.array(self.rates)

        moved = one(points)
        if self.centre[0] != 0:
            mirror = np.array([-1.0, 1.0, 1.0])
            moved += one(points * mirror) * mirror
        return moved


@dataclass(frozen=True)
class Turn:
    """Turns a lobe in the front view about its centre, by degrees (counter-clockwise on the left side)."""

    centre: Triple
    radii: Triple
    degrees: float

    def __call__(self, points: Floats) -> Floats:
        def one(p: Floats) -> Floats:
            d = p - np.array(self.centre)
            angle = np.radians(self.degrees)
            turned = np.column_stack([-d[:, 1], d[:, 0], np.zeros(len(d))]) * angle
            return lobe(p, self.centre, self.radii)[:, None] * turned

        moved = one(points)
        if self.centre[0] != 0:
            mirror = np.array([-1.0, 1.0, 1.0])
            moved += one(points * mirror) * mirror
        return moved


Term = Shift | Stretch | Turn


def total(points: Floats, terms: tuple[Term, ...]) -> Floats:
    """Sum [n, 3] of the terms' displacements."""
    moved = np.zeros_like(points)
    for term in terms:
        moved += term(points)
    return moved
