"""What a set of heads looks like as a whole, and which of its heads look odd: every measure beside the bound that ingest judges by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from facegraft.arrays import Floats, Ints
from facegraft.geometry.frame import head_radius
from facegraft.heads.alignment import Motion
from facegraft.heads.extent import ONE_DECIDES, largest_two, one_decides
from facegraft.heads.names import natural_key
from facegraft.heads.ready import Ready, judged_skin
from facegraft.heads.sanity import canthi_mm
from facegraft.heads.twins import NEAR_MM, Twins, near_heads, others_of, signature
from facegraft.heads.typical import (
    FAR_MM,
    FAR_SKIN_MM,
    FEWEST,
    POSED_DEG,
    POSED_MM,
    SPIKE_MM,
    SPIKE_RATIO,
    STRETCH,
    TURN_DEG,
    Likeness,
    fault_of_pose,
    likeness,
    pose_of_expression,
)
from facegraft.regions.regionmap import RegionMap
from facegraft.vocabulary import ACCEPTED_CANTHI_MM, CHIN, NASION, NEUTRAL

SPREAD_DEG = 5.0
"""Largest median turn of the heads against the typical one (among random heads of known pose it is below 1.5: faces differ)."""
NOD_DEG = 15.0
"""Largest median nod of the neutral heads of a set (of the sets of known pose it lies between -4 and 6, of single heads between -7 and 12)."""
_NAMED = 6


@dataclass(frozen=True)
class Measured:
    """What was measured on one head: see `typical.Likeness` and `typical.pose_of_expression`; None where it could not be.

    canthi_mm: distance of the outer eye corners; nod_deg: see `nod_deg`; radius_mm: how far its skin reaches; signature: see `twins.signature`. aligned: the pose that was
    taken out. rejected: it is not written, and decides nothing.
    """

    key: str
    subject: str
    expression: str
    canthi_mm: float
    nod_deg: float
    radius_mm: float
    signature: Floats
    likeness: Likeness | None = None
    pose: Motion | None = None
    aligned: Motion | None = None
    rejected: bool = False


class Measurer:
    """Measures heads of one topology beside their typical head [V, 3] (None: not known); edges [E, 2] of the mesh."""

    def __init__(self, region_map: RegionMap, edges: Ints, typical: Floats | None) -> None:
        self.landmarks, self.skin = np.asarray(region_map.landmarks68), judged_skin(region_map)
        self.edges, self.typical = edges, typical

    def measure(
        self, key: str, subject: str, expression: str, vertices: Floats, neutral: Floats | None, known: Ready | None = None, *, rejected: bool = False
    ) -> Measured:
        """A head [V, 3] in mm; neutral: its subject's neutral head, where it is an expression; known: what ingest measured of it already."""
        like, pose = (None, None) if known is None else (known.likeness, known.pose)
        marks = vertices[self.landmarks]
        if canthi_mm(marks) > 0:  # vertices that are all the same have no pose
            if like is None and self.typical is not None:
                like = likeness(vertices, self.typical, self.edges, self.skin, self.landmarks)
            if pose is None and neutral is not None:
                pose = pose_of_expression(vertices, neutral, self.skin, self.landmarks)
        reach = head_radius(vertices[self.skin], marks)
        return Measured(
            key, subject, expression, canthi_mm(marks), nod_deg(marks), reach, signature(vertices), like, pose, known.aligned if known else None, rejected
        )


def duplicated(heads: Iterable[Measured], sha256: Mapping[str, str | None], load: Callable[[str], Floats]) -> list[Twins]:
    """Groups of heads that are one, by their keys. sha256: of their files, where they have one of their own; load: a head's vertices by its key."""
    groups = near_heads({head.key: head.signature for head in heads if not head.rejected}, load)
    return [Twins(group.names, len({sha256.get(name) for name in group.names} - {None}) == 1 and all(map(sha256.get, group.names))) for group in groups]


@dataclass(frozen=True)
class Statistic:
    """One measure of a set: what was found, its bound in words, what is beyond it, and the keys or subjects that this is about."""

    what: str
    found: str
    bound: str
    odd: tuple[str, ...] = ()
    about: tuple[str, ...] = ()


def statistics(heads: Sequence[Measured], twins: Sequence[Twins]) -> list[Statistic]:
    """The measures of a set of heads. twins: heads (or subjects) that are one."""
    like = {head.key: head.likeness for head in heads if head.likeness is not None}
    posed = {head.key: head.pose for head in heads if head.pose is not None}
    found = [_eye_corners(heads)] if heads else []
    if nods := {head.key: head.nod_deg for head in heads if head.expression == NEUTRAL and not head.rejected}:
        found.append(_nod(nods))
    if like:
        found += [_turn(like), _farthest(like), _spikes(like), _stretch(like)]
    else:
        found.append(Statistic("shape and pose", f"not compared: fewer than {FEWEST} neutral heads", "–"))
    if posed:
        found.append(_poses(posed))
    if taken := {head.key: head.aligned for head in heads if head.aligned is not None}:
        found.append(Statistic("pose that is taken out", _motions(taken), "–"))
    again = others_of(twins)
    radii = {head.subject: head.radius_mm for head in heads if head.expression == NEUTRAL and not head.rejected and head.key not in again}
    return [*found, scale(radii), duplicates(twins)]


def scale(radii: dict[str, float]) -> Statistic:
    """Whether one subject alone decides the scale, by the radii in mm of neutral heads."""
    first = largest_two(radii)
    if first is None:
        told = "fewer than two neutral heads"
    else:
        told = f"{first[0]} reaches farthest: {first[1]:.1f} mm; the next {first[2]:.1f} mm ({first[1] / first[2] - 1:+.1%})"
    odd = (first[0],) if first is not None and one_decides(radii) else ()
    return Statistic("size, which sets the scale", told, f"up to {ONE_DECIDES - 1:.0%} more than the next", odd, odd)


def duplicates(twins: Iterable[Twins]) -> Statistic:
    """Heads that are one."""
    known = list(twins)
    groups = tuple(
        f"{' = '.join(group.names[:_NAMED])}{' = …' if len(group.names) > _NAMED else ''}{' (same file)' if group.exact else ''}" for group in known
    )
    told = f"{len(groups)} {'group' if len(groups) == 1 else 'groups'} of heads that are one" if groups else "none"
    bound = f"the same bytes, or within {NEAR_MM:g} mm after alignment"
    return Statistic("duplicates", told, bound, groups, tuple(name for group in known for name in group.names))


def missing_neutrals(written: Iterable[tuple[str, str]]) -> Statistic:
    """Subjects without a neutral head, of (subject, expression) of all heads that are written."""
    known = list(written)
    lacking = tuple(sorted({subject for subject, _ in known} - {subject for subject, name in known if name == NEUTRAL}, key=natural_key))
    told = f"{len(lacking):,} subjects, who cannot be grafted" if lacking else "none"
    return Statistic("missing neutral heads", told, "each subject has one", lacking)


def listed(names: Sequence[str], count: int = _NAMED) -> str:
    """The first names and how many more there are."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def _eye_corners(heads: Sequence[Measured]) -> Statistic:
    values = {head.key: head.canthi_mm for head in heads}
    low, high = ACCEPTED_CANTHI_MM
    odd = tuple(key for key, value in values.items() if not low <= value <= high)
    every = list(values.values())
    return Statistic("outer eye corners", f"{min(every):.0f} to {max(every):.0f} mm apart, median {np.median(every):.0f}", f"{low:.0f} to {high:.0f} mm", odd, odd)


def nod_deg(landmarks: Floats) -> float:
    """Angle of the line from chin to nasion against the vertical, seen from the side, of a head with these landmarks [68, 3]: above 0 it looks down."""
    up = landmarks[NASION] - landmarks[CHIN]
    return math.degrees(math.atan2(up[2], up[1]))


def _nod(nods: dict[str, float]) -> Statistic:
    every = list(nods.values())
    median = float(np.median(every))
    odd = (f"half of the heads look {'down' if median > 0 else 'up'} by more than {abs(median):.0f}°: turn them upright",) if abs(median) > NOD_DEG else ()
    return Statistic("nod, chin to nasion", f"{min(every):.0f} to {max(every):.0f}°, median {median:.0f}°", f"median within {NOD_DEG:g}°", odd)


def _turn(like: dict[str, Likeness]) -> Statistic:
    values = {key: one.turn_deg for key, one in like.items()}
    median = float(np.median(list(values.values())))
    turned = _beyond(values, TURN_DEG)
    spread = (f"half of them by more than {median:.0f}°",) if median > SPREAD_DEG else ()
    return Statistic("turn against the typical head", _told(values, "°"), f"{TURN_DEG:g}°, half of them {SPREAD_DEG:g}°", (*spread, *turned), turned)


def _farthest(like: dict[str, Likeness]) -> Statistic:
    values = {key: one.apart_mm for key, one in like.items()}
    odd = tuple(key for key, one in like.items() if one.beyond)
    return Statistic("farthest vertex from its place", _told(values, " mm"), f"{FAR_SKIN_MM:g} mm of the face's skin, {FAR_MM:g} mm elsewhere", odd, odd)


def _spikes(like: dict[str, Likeness]) -> Statistic:
    spiked = {key: one for key, one in like.items() if one.edge is not None}
    told = f"{len(spiked)} heads, longest {max(one.edge_mm for one in spiked.values()):.0f} mm" if spiked else "none"
    return Statistic("spikes", told, f"an edge over {SPIKE_MM:g} mm and {SPIKE_RATIO:g} times its usual length", tuple(spiked), tuple(spiked))


def _stretch(like: dict[str, Likeness]) -> Statistic:
    values = {key: one.stretch for key, one in like.items()}
    odd = _beyond(values, STRETCH)
    return Statistic("stretch, strongest by weakest", _told(values, "", 2), f"{STRETCH:g}", odd, odd)


def _poses(posed: dict[str, Motion]) -> Statistic:
    odd = tuple(key for key, one in posed.items() if fault_of_pose(one))
    return Statistic("pose of expressions against neutral", _motions(posed), f"{POSED_DEG:g}°, {POSED_MM:g} mm", odd, odd)


def _motions(known: dict[str, Motion]) -> str:
    turns, shifts = ({key: getattr(one, name) for key, one in known.items()} for name in ("turn_deg", "shift_mm"))
    return f"turn {_told(turns, '°')}; shift {_told(shifts, ' mm')}"


def _told(values: dict[str, float], unit: str, digits: int = 1) -> str:
    worst = max(values, key=lambda key: values[key])
    return f"median {np.median(list(values.values())):.{digits}f}{unit}, largest {values[worst]:.{digits}f}{unit} ({worst})"


def _beyond(values: dict[str, float], bound: float) -> tuple[str, ...]:
    return tuple(key for key, value in values.items() if value > bound)
