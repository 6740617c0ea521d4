"""The bare head: skull, cheeks, jaw and neck as a loft of sections, without eyes, nose, lips or ears.

Each section runs from the front midline over the side to the back midline. Its front and its back part are
quarters of superellipses, |x/a|^n + |z/b|^n = 1. The section is not flat: its height changes smoothly from front to
side to back, so that one section is the jaw line. Splines interpolate between the sections below.
Frame: mm, +y up with 0 at the pupils, +z out of the face with 0 at the ears, +x to the subject's left.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline, RectBivariateSpline
from scipy.ndimage import gaussian_filter1d

from facegraft.arrays import Floats

# front y, front z | side x, y, z | back y, z | front exponent, back exponent
SECTIONS = np.array(
    [
        [-182, 30, 72, -172, -24, -160, -84, 2.0, 2.0],  # neck opening
        [-160, 26, 56, -154, -21, -144, -76, 2.0, 2.0],
        [-138, 28, 51, -134, -17, -126, -68, 2.0, 2.0],
        [-122, 37, 51, -116, -11, -112, -66, 2.0, 2.0],  # throat
        [-116, 55, 51.5, -107.5, -5, -103, -66, 2.0, 2.0],  # under the chin
        [-113, 74, 52.5, -99.5, 2, -95, -66.5, 2.0, 2.0],
        [-109, 88, 54, -92.5, 6.5, -88, -67.5, 2.0, 2.0],  # chin, lower border (gnathion)
        [-103, 95, 55.2, -88, 9, -83.5, -68.5, 2.0, 2.0],
        [-95, 97.5, 56.5, -83, 10.5, -79, -70, 2.0, 2.0],  # chin, front (pogonion); jaw angle
        [-82, 97.5, 59, -73.5, 11, -70, -72.5, 2.0, 2.05],
        [-66, 100, 62.8, -60.5, 10, -58, -76, 2.06, 2.1],  # mouth
        [-48, 100.5, 66.4, -45, 7.5, -43, -80, 2.12, 2.15],  # nose base
        [-26, 97, 69.8, -25, 3, -24, -85, 2.18, 2.2],
        [0, 96, 72.5, 0, -3, -2, -90, 2.25, 2.25],  # pupils
        [20, 100, 75, 20, -7, 18, -93, 2.28, 2.25],  # brow
        [45, 98, 76, 44, -10, 42, -94, 2.25, 2.25],
        [70, 86, 71, 67, -11, 66, -87, 2.2, 2.2],
        [88, 67, 59, 85, -11, 85, -72, 2.15, 2.15],
        [100, 44, 42, 98.5, -11, 98.5, -53, 2.1, 2.1],  # rim of the crown patch
    ],
    dtype=np.float64,
)
CROWN_TOP = 111.5


SMOOTHING = 4.0  # mm, sd of the Gaussian that rounds off the spline through the sections


class BareHead:
    """The lofted surface B(share, station).

    share: part of a section's half circumference (0 front midline, 1 back midline).
    station: arc length in mm along the front midline, 0 at the neck opening.
    """

    def __init__(self) -> None:
        chord = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(SECTIONS[:, :2], axis=0).T))])
        stations = np.arange(0, chord[-1] + 0.5, 1.0) * (chord[-1] / np.floor(chord[-1] + 0.5))
        table = CubicSpline(chord, SECTIONS, axis=0)(stations)
        rounded = gaussian_filter1d(table, SMOOTHING, axis=0, mode="nearest")
        ends = np.minimum(stations, stations[-1] - stations)[:, None] / (3 * SMOOTHING)
        table = np.where(ends < 1, table + ends * (rounded - table), rounded)
        yf, zf, xs, ys, zs, yb, zb, nf, nb = table.T
        angle = np.linspace(0, np.pi, 721)
        c, s = np.cos(angle), np.sin(angle)
        ahead = c >= 0
        power = np.where(ahead[None], 2 / nf[:, None], 2 / nb[:, None])
        x = xs[:, None] * np.abs(s[None]) ** power
        reach = np.where(ahead[None], (zf - zs)[:, None], (zb - zs)[:, None])
        z = zs[:, None] + reach * np.abs(c[None]) ** power
        end = np.where(ahead[None], yf[:, None], yb[:, None])
        y = ys[:, None] + (end - ys[:, None]) * (c**2)[None]  # level at the front, the side and the back
        points = np.stack([x, y, z], axis=-1)
        arc = np.concatenate(
            [np.zeros((len(x), 1)), np.cumsum(np.linalg.norm(np.diff(points, axis=1), axis=2), axis=1)], axis=1
        )
        share = np.linspace(0, 1, 241)
        even = np.stack([CubicSpline(a / a[-1], p)(share) for a, p in zip(arc, points, strict=True)])
        self._patches = [RectBivariateSpline(stations, share, even[..., axis], kx=3, ky=3) for axis in range(3)]
        self._front_y, self._stations = yf, stations
        self.half_girth = CubicSpline(stations, arc[:, -1])

    def __call__(self, share: Floats, station: Floats) -> Floats:
        """Points [..., 3] of the surface."""
        return np.stack([patch.ev(station, share) for patch in self._patches], axis=-1)

    def station(self, front_y: Floats) -> Floats:
        """Stations whose front point has the given height."""
        return np.interp(front_y, self._front_y, self._stations)

    def chart(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Share and station of the front surface's points at the given x >= 0 and y (Newton's method)."""
        station = self.station(y)
        share = np.asarray(x) / self.half_girth(station)
        px, py, _ = self._patches
        for _ in range(8):
            miss_x, miss_y = x - px.ev(station, share), y - py.ev(station, share)
            xs, xy = px.ev(station, share, dy=1), px.ev(station, share, dx=1)
            ys, yy = py.ev(station, share, dy=1), py.ev(station, share, dx=1)
            det = xs * yy - xy * ys
            share = np.clip(share + (yy * miss_x - xy * miss_y) / det, 0, 0.5)
            station = station + (xs * miss_y - ys * miss_x) / det
        return share, station
