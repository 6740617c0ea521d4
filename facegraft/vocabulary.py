"""Names and numbers that are the same for all datasets: landmark names, mirror pairs, kinds of dataset, units.

Names that differ between datasets, above all the parts, are in `facegraft.parts` and are stored with the data.
Landmarks are iBUG's 68 (Sagonas et al. 2013), counted from 0: 0-16 jaw from the subject's right ear to the left, 17-26 brows,
27-30 bridge to tip of the nose, 31-35 base of the nose, 36-41 right eye, 42-47 left eye, 48-59 outer lip, 60-67 inner lip.
"""

from __future__ import annotations

from typing import Final

REM: Final = "rem"
"""The remainder: everything that belongs to no part. Its label is 0. (Gu & Pears 2024 call its network RemNet and its code z_rem.)"""

EXP: Final = "exp"
"""The expression: the model's net and code of what an expression moves. (ExpNet and z_exp in the same paper.)"""

NEUTRAL: Final = "neutral"
"""The expression of heads between which parts are grafted."""

KINDS: Final = ("heads", "composites", "surfaces", "samples")
"""Kinds of dataset, in the order in which the stages make them; also the folders of a run."""

DEFAULT_REGION_SET: Final = "eyes"
"""The region set of Gu & Pears (2024), which every shipped topology has."""

TRAIN, TEST = "train", "test"
SPLITS: Final = (TRAIN, TEST)

SCAN, COMPOSITE = "scan", "composite"
ORIGINS: Final = (SCAN, COMPOSITE)
"""Origin of an item: one subject's registered head, or a graft."""

LANDMARK_COUNT: Final = 68
NOSE_TIP: Final = 30
NASION: Final = 27
CHIN: Final = 8
OUTER_CANTHI: Final = (36, 45)
"""Outer corners of the right and the left eye."""
CANTHI: Final = (36, 39, 42, 45)
"""Corners of both eyes, from the subject's right to the left."""

MIRROR_PAIRS: Final = (
    *((i, 16 - i) for i in range(8)),
    *((17 + i, 26 - i) for i in range(5)),
    (31, 35),
    (32, 34),
    (36, 45),
    (37, 44),
    (38, 43),
    (39, 42),
    (40, 47),
    (41, 46),
    (48, 54),
    (49, 53),
    (50, 52),
    (59, 55),
    (58, 56),
    (60, 64),
    (61, 63),
    (67, 65),
)
"""Pairs of landmarks that are mirror images, right one first; landmarks that are not listed lie on the midline."""

FACE_LANDMARKS: Final = (36, 45, 30, 48, 54)
"""Five landmarks of the whole face: outer canthi, tip of the nose, corners of the mouth."""
REM_LANDMARKS: Final = (8, 4, 12, 19, 24)
"""Five landmarks of the remainder: chin, jaw, brows."""

OPENING_LANDMARKS: Final = {"eye_left": range(42, 48), "eye_right": range(36, 42), "mouth": range(60, 68)}
"""The landmarks around each opening of a head's skin. Openings whose names start with `eye` are closed by a piece of a sphere."""
NECK: Final = "neck"
"""The opening at the lower end of a head."""

CANTHI_MM: Final = (80.0, 100.0)
"""Range of the distance between the outer canthi of adults."""
ACCEPTED_CANTHI_MM: Final = (70.0, 115.0)
"""Accepted distance between the outer canthi of a head: that of adults, widened for children and caricatures."""
MEAN_CANTHI_MM: Final = 90.0

UNITS: Final = {
    1.0: "millimetres",
    10.0: "centimetres",
    1000.0: "metres",
    100.0: "decimetres",
    25.4: "inches",
    250.0: "quarter metres",
}
"""Units of meshes by their length in millimetres; the first three are the usual ones."""
USUAL_UNITS: Final = (1.0, 10.0, 1000.0)
