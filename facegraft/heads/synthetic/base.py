"""The bare head: skull, cheeks, jaw and neck as a loft of sections, without eyes, nose, lips or ears.

Each section runs from the front midline over the side to the back midline. Its front and its back part are
quarters of superellipses, |x/a|^n + |z/b|^n = 1; the section is not flat: its height goes smoothly from front to side
to back, so that one section is the jaw line. Between the sections below, splines.
Frame: mm, +y up with 0 at the pupils, +z out of the face with 0 at the ears, +x the subject's left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, RectBivariateSpline

Floats = NDArray[np.float64]

# front y, front z | side x, y, z | back y, z | front exponent, back exponent
SECTIONS = np.array(
    [
        [-182, 30, 74, -172, -24, -160, -84, 2.0, 2.0],  # neck opening
        [-160, 26, 60, -154, -21, -144, -76, 2.0, 2.0],
        [-136, 29, 55.5, -133, -17, -126, -68, 2.0, 2.0],
        [-119, 36, 55, -117, -11, -110, -66, 2.0, 2.0],  # throat
        [-114.5, 56, 54.5, -110, -4, -102, -66, 1.95, 2.0],  # under the chin
        [-113, 77, 54, -104, 4, -95, -66.5, 1.9, 2.0],
        [-110, 91, 54, -98, 10, -88, -67, 1.88, 2.0],  # chin, lower border (gnathion)
        [-104, 97.5, 55, -90.5, 13, -80, -68, 1.9, 2.0],
        [-95, 99, 57, -81, 14, -71, -70, 1.95, 2.0],  # chin, front (pogonion); jaw angle
        [-82, 97.5, 60.5, -68, 13, -60, -72.5, 2.0, 2.05],
        [-66, 100.5, 64.5, -54, 11, -49, -76, 2.06, 2.1],  # mouth
        [-48, 100.5, 67.5, -40, 8, -37, -80, 2.12, 2.15],  # nose base
        [-26, 97, 70, -23, 4, -22, -85, 2.18, 2.2],
        [0, 96, 73.5, 0, -2, -2, -90, 2.25, 2.25],  # pupils
        [20, 100, 76, 20, -7, 18, -93, 2.3, 2.25],  # brow
        [45, 97.5, 77.5, 44, -10, 42, -94, 2.3, 2.25],
        [70, 85.5, 73.5, 67, -11, 66, -87, 2.25, 2.25],
        [88, 67, 63.5, 85, -11, 85, -73, 2.2, 2.2],
        [101, 43, 47, 99, -11, 99, -53, 2.15, 2.15],  # rim of the crown patch
    ],
    dtype=np.float64,
)
CROWN_TOP = 111.5


class BareHead:
    """The lofted surface B(s, y): s = share of a section's half circumference (0 front, 1 back), y = height of its front point."""

    def __init__(self) -> None:
        front = SECTIONS[:, 0]
        fine = np.linspace(front[0], front[-1], 400)
        _, zf, xs, ys, zs, yb, zb, nf, nb = CubicSpline(front, SECTIONS, axis=0)(fine).T
        angle = np.linspace(0, np.pi, 481)
        c, s = np.cos(angle), np.sin(angle)
        ahead = c >= 0
        power = np.where(ahead[None], 2 / nf[:, None], 2 / nb[:, None])
        x = xs[:, None] * s[None] ** power
        reach = np.where(ahead[None], (zf - zs)[:, None], (zb - zs)[:, None])
        z = zs[:, None] + reach * np.abs(c[None]) ** power
        ease = (c**2)[None]  # 1 at the front and the back, 0 at the side, level there
        end = np.where(ahead[None], fine[:, None], yb[:, None])
        y = ys[:, None] + (end - ys[:, None]) * ease
        points = np.stack([x, y, z], axis=-1)
        arc = np.concatenate([np.zeros((len(fine), 1)), np.cumsum(np.linalg.norm(np.diff(points, axis=1), axis=2), axis=1)], axis=1)
        share = np.linspace(0, 1, 361)
        even = np.empty((len(fine), len(share), 3))
        for row in range(len(fine)):
            for axis in range(3):
                even[row, :, axis] = np.interp(share, arc[row] / arc[row, -1], points[row, :, axis])
        self._patches = [RectBivariateSpline(fine, share, even[..., axis], kx=3, ky=3) for axis in range(3)]
        self.half_girth = CubicSpline(fine, arc[:, -1])

    def __call__(self, share: Floats, front_y: Floats) -> Floats:
        """Points [..., 3] of the surface."""
        return np.stack([patch.ev(front_y, share) for patch in self._patches], axis=-1)

    def share_at(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Chart coordinates (share, front y) of the front surface's points over given x >= 0 and y (Newton's method)."""
        front_y = np.array(y, dtype=np.float64)
        share = np.asarray(x) / self.half_girth(front_y)
        px, py, _ = self._patches
        for _ in range(8):
            miss_x, miss_y = x - px.ev(front_y, share), y - py.ev(front_y, share)
            xs, xy = px.ev(front_y, share, dy=1), px.ev(front_y, share, dx=1)
            ys, yy = py.ev(front_y, share, dy=1), py.ev(front_y, share, dx=1)
            det = xs * yy - xy * ys
            share = np.clip(share + (yy * miss_x - xy * miss_y) / det, 0, 0.5)
            front_y = front_y + (xs * miss_y - ys * miss_x) / det
        return share, front_y
