"""Identity: named shape parameters of the head, each a displacement field whose coefficient is about N(0, 1).

All fields are linear: a head is template + coefficients . fields. The numbers below are the displacement in mm (or the
relative stretch) of one standard deviation; they were set so that the spread of facial measures is close to adult
anthropometry (see the tests).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from facegraft.arrays import Floats
from facegraft.heads.synthetic.features import EYE_CENTRE, smoothstep
from facegraft.heads.synthetic.fields import Shift, Stretch, Term, Turn, total
from facegraft.heads.synthetic.template import MOUTH_STEPS, SyntheticTemplate, template

CLIP = 2.5  # coefficients are drawn from N(0, 1) between -CLIP and CLIP
_WIDE = (1e4, 1e4, 1e4)

LOCAL: dict[str, tuple[Term, ...]] = {
    "size": (Stretch((0, -20, 0), _WIDE, (0.022, 0.022, 0.022)),),
    "head_width": (Stretch((0, 0, 0), _WIDE, (0.030, 0, 0)),),
    "head_depth": (Stretch((0, 20, 0), (1e4, 90, 1e4), (0, 0, 0.030)),),
    "skull_height": (Stretch((0, 30, 0), (1e4, 80, 1e4), (0, 0.035, 0)),),
    "skull_back": (Shift((0, 30, -95), (60, 55, 45), (0, 0, -4.0)),),
    "forehead_slope": (Shift((0, 62, 85), (80, 28, 70), (0, 0, 3.2)),),
    "forehead_bulge": (Shift((0, 42, 98), (32, 17, 40), (0, 0, 2.4)),),
    "temple_width": (Shift((66, 28, 40), (25, 22, 30), (2.4, 0, 0)),),
    "brow_ridge": (Shift((22, 20, 101), (16, 8, 18), (0, -0.48, 1.92)), Shift((0, 19, 101), (9, 9, 15), (0, 0, 0.48))),
    "brow_height": (Shift((28, 21, 99), (20, 9, 22), (0, 1.92, 0)),),
    "brow_tilt": (Turn((28, 21, 99), (16, 9, 22), 2.88),),
    "cheekbone_width": (Shift((58, -20, 62), (16, 17, 26), (2.4, 0, 0.48)),),
    "cheekbone_height": (Shift((46, -23, 84), (14, 12, 20), (0, 2.4, 0)),),
    "cheekbone_front": (Shift((42, -22, 88), (14, 12, 20), (0.4, 0, 2.4)),),
    "cheek_fullness": (Shift((44, -56, 72), (17, 19, 26), (2.4, 0, 2.4)),),
    "jaw_width": (Shift((54, -78, 34), (18, 22, 34), (3.2, 0, 0)),),
    "jaw_angle": (Shift((53, -80, 22), (18, 20, 24), (0, -4, -0.8)),),
    "face_length": (Shift((0, -98, 82), (48, 30, 60), (0, -3.36, 0)),),
    "chin_height": (Shift((0, -106, 92), (30, 13, 32), (0, -2.56, 0)),),
    "chin_front": (Shift((0, -99, 96), (26, 15, 30), (0, 0, 2.88)),),
    "chin_width": (Stretch((0, -101, 88), (26, 14, 30), (0.128, 0, 0)),),
    "chin_cleft": (Shift((0, -99, 103), (3.2, 7, 12), (0, 0, -0.96)),),
    "throat_fullness": (Shift((0, -116, 58), (34, 15, 24), (0, -4, 2)),),
    "neck_width": (Stretch((0, -160, -18), (1e4, 38, 1e4), (0.075, 0, 0.05)),),
    "nose_length": (Shift((0, -43, 110), (17, 13, 26), (0, -2.1, 0)),),
    "nose_front": (Shift((0, -37, 117), (11, 14, 16), (0, 0, 2.08)),),
    "nose_bridge_height": (Shift((0, -11, 106), (9, 16, 16), (0, 0, 1.76)),),
    "nose_bridge_width": (Stretch((0, -12, 100), (14, 17, 22), (0.12, 0, 0)),),
    "nose_root_depth": (Shift((0, 6, 98), (9, 9, 14), (0, 0, 1.76)),),
    "nose_hump": (Shift((0, -17, 111), (7, 6.5, 12), (0, 0, 1.2)), Shift((0, -29, 117), (8, 5, 12), (0, 0, -0.64))),
    "nose_width": (Stretch((0, -43, 104), (16, 10, 18), (0.12, 0, 0)),),
    "nose_wing_height": (Shift((14, -43, 104), (6.5, 6, 11), (0, 1.44, 0)),),
    "nose_tip_turn": (Shift((0, -40, 121), (9, 8, 10), (0, 2.24, 0.48)),),
    "nose_tip_width": (Stretch((0, -38, 117), (10, 9, 11), (0.16, 0.056, 0)),),
    "eye_distance": (Shift((31, 2, 90), (17, 15, 26), (1.235, 0, 0)),),
    "eye_size": (Stretch((31, 0, 80), (17, 12, 30), (0.064, 0.064, 0.064)),),
    "eye_tilt": (Turn((31, 0, 90), (15, 10, 25), 3.36),),
    "eye_depth": (Shift((31, 1, 88), (15, 10, 24), (0, 0, 1.52)),),
    "eye_height": (Shift((31, 0, 90), (19, 12, 26), (0, 1.36, 0)),),
    "eye_bags": (Shift((32, -13, 91), (11, 4.5, 16), (0, 0, 0.96)),),
    "lid_fold": (Shift((33, 11, 95), (12, 4.2, 16), (0, -1.26, 1.35)),),
    "mouth_width": (Stretch((0, -70, 98), (26, 17, 34), (0.061, 0, 0)),),
    "mouth_height": (Shift((0, -70, 98), (32, 13, 32), (0, 1.84, 0)),),
    "mouth_front": (Shift((0, -69, 102), (24, 15, 30), (0, 0, 2.08)),),
    "mouth_bow": (Shift((25, -70, 94), (9, 9, 20), (0, 1.36, -0.48)),),
    "lips_apart_depth": (
        Shift((0, -64, 106), (20, 6, 16), (0, 0, 0.72)),
        Shift((0, -77, 104), (18, 5, 16), (0, 0, -0.72)),
    ),
    "philtrum_depth": (
        Shift((0, -55, 104), (3, 6, 12), (0, 0, -0.64)),
        Shift((5.5, -55, 104), (2.4, 6, 12), (0, 0, 0.4)),
    ),
    "nasolabial_fold": (
        Shift((26, -57, 96), (5, 13, 16), (0, 0, -0.8)),
        Shift((36, -52, 90), (8, 12, 18), (0, 0, 0.88)),
    ),
    "ear_size": (Stretch((76, -17, -14), (26, 34, 26), (0.05, 0.09, 0.09)),),
    "ear_standing": (Shift((80, -15, -26), (14, 30, 13), (4.0, 0, -1.5)),),
    "ear_height": (Shift((76, -17, -12), (24, 38, 28), (0, 3.0, 0)),),
}
LIPS = ("upper_lip_fullness", "lower_lip_fullness")
SMOOTH, UNEVEN = 8, 8  # numbers of random low-frequency fields: symmetric and not
SMOOTH_MM, UNEVEN_MM = 0.8, 0.35  # RMS displacement on the face at coefficient 1
IDENTITY_NAMES: tuple[str, ...] = (
    *LOCAL,
    *LIPS,
    *(f"smooth_{k}" for k in range(SMOOTH)),
    *(f"asymmetry_{k}" for k in range(UNEVEN)),
)


def _fullness(head: SyntheticTemplate, upper: bool) -> Floats:
    """Thicker lip: its border moves away from the mouth line and its red part comes forward."""
    rings = head.layout.mouth
    count = rings.shape[1]
    corner = count // 2
    share = np.concatenate([1 - smoothstep(0.0, 0.85, MOUTH_STEPS), [1.0, 0.80, 0.55, 0.28, 0.10, 0.0]])[:, None]
    forward = np.concatenate([np.zeros(len(MOUTH_STEPS)), [0.10, 0.55, 0.95, 1.0, 0.7, 0.4]])[:, None]
    away = (np.arange(count) - corner) / corner * (1 if upper else -1)
    along = smoothstep(0.02, 0.65, away)
    field = np.zeros_like(head.vertices)
    field[rings, 1] = (1.25 if upper else -1.35) * share * along
    field[rings, 2] = (1.0 if upper else 1.1) * forward * along
    mirrored = head.symmetry[rings]
    field[mirrored] = field[rings] * [-1, 1, 1]
    return field


def _waves(points: Floats, rng: np.random.Generator, scale: float, symmetric: bool) -> Floats:
    """A random smooth vector field: a few cosines with wavelengths of the given scale (mm) and more."""
    field = np.zeros_like(points)
    mirror = np.array([-1.0, 1.0, 1.0])
    for _ in range(6):
        wave = rng.normal(size=3) * 2 * np.pi / scale / np.sqrt(3)
        phase, direction = rng.uniform(0, 2 * np.pi), rng.normal(size=3)
        field += np.cos(points @ wave + phase)[:, None] * direction
        if symmetric:
            field += np.cos((points * mirror) @ wave + phase)[:, None] * direction * mirror
    return field


def carry_eyeballs(head: SyntheticTemplate, fields: Floats) -> Floats:
    """Fields [..., V, 3] in which the eyeballs follow the lid margins, moved and scaled as spheres."""
    result = fields.copy()
    rim = head.layout.eye[-1]
    for name, margin in (("eyeball_left", rim), ("eyeball_right", head.symmetry[rim])):
        start, stop = head.groups[name][0][0]
        centre = EYE_CENTRE * ([1, 1, 1] if name == "eyeball_left" else [-1, 1, 1])
        arm = head.vertices[margin] - centre
        moved = fields[..., margin, :]
        mean_arm, mean_moved = arm.mean(axis=0), moved.mean(axis=-2)
        flat = arm - mean_arm
        growth = ((moved - mean_moved[..., None, :]) * flat).sum(axis=(-1, -2)) / (flat * flat).sum()
        origin = mean_moved - growth[..., None] * mean_arm
        result[..., start:stop, :] = origin[..., None, :] + growth[..., None, None] * (
            head.vertices[start:stop] - centre
        )
    return result


@lru_cache(maxsize=1)
def identity_fields() -> Floats:
    """Displacement fields [len(IDENTITY_NAMES), V, 3] in mm; read-only."""
    head = template()
    points = head.vertices
    fields = [total(points, terms) for terms in LOCAL.values()]
    fields += [_fullness(head, upper=True), _fullness(head, upper=False)]
    rng = np.random.default_rng(68)  # fixes the family, not the subjects
    face = (points[:, 2] > 30) & (points[:, 1] > -120) & (points[:, 1] < 60)
    for number, scale, rms, symmetric in ((SMOOTH, 105.0, SMOOTH_MM, True), (UNEVEN, 120.0, UNEVEN_MM, False)):
        for _ in range(number):
            field = _waves(points, rng, scale, symmetric)
            field -= field[face].mean(axis=0)  # no shift of the whole head
            fields.append(field * (rms / np.sqrt((field[face] ** 2).sum(axis=1).mean())))
    result = carry_eyeballs(head, np.stack(fields))
    result.setflags(write=False)
    return result


def sample_identity(rng: np.random.Generator, asymmetry: float = 1.0) -> Floats:
    """Coefficients [len(IDENTITY_NAMES)] of a random subject: N(0, 1) truncated at CLIP.

    `asymmetry` scales the asymmetric fields; 0 gives perfectly symmetric subjects.
    """
    count = len(IDENTITY_NAMES)
    coefficients = rng.standard_normal(count)
    while (outside := np.abs(coefficients) > CLIP).any():
        coefficients[outside] = rng.standard_normal(int(outside.sum()))
    coefficients[count - UNEVEN :] *= asymmetry
    return coefficients
