"""The same head under two names: files with the same bytes, and registered vertices that a rigid motion brings together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from facegraft.arrays import Floats
from facegraft.heads.alignment import moved
from facegraft.heads.names import natural_key
from facegraft.heads.source import Head
from facegraft.store.fingerprint import FileHash
from facegraft.surfaces.procrustes import procrustes

NEAR_MM = 0.01
"""Vertices of two heads that are never farther apart than this, after rigid alignment, are one head that was written twice."""
_LENGTHS = 32
_KEPT = 16


@dataclass(frozen=True)
class Twins:
    """Subjects (or heads) that are one, in natural order, and whether their files are the same byte for byte."""

    names: tuple[str, ...]
    exact: bool

    @property
    def what(self) -> str:
        """What they have in common, as it follows their names."""
        return "have the same mesh" if self.exact else f"have the same head, within {NEAR_MM:g} mm after alignment"


def subjects_with_one_file(heads: Iterable[Head], hashes: Mapping[str, FileHash]) -> list[Twins]:
    """Groups of subjects of whom each shares a mesh file, byte for byte, with another of the group. A file that holds several heads tells nothing."""
    owners: dict[str, dict[str, set[str]]] = {}  # content -> file -> subjects
    for head in heads:
        if head.source and (content := hashes[head.source].sha256) is not None:
            owners.setdefault(content, {}).setdefault(head.source, set()).add(head.subject)
    pairs = [sorted(set().union(*files.values())) for files in owners.values() if len(files) > 1]
    return [Twins(names, exact=True) for names in joined(pairs)]


def signature(vertices: Floats) -> Floats:
    """Lengths [32] between fixed vertices of a head [V, 3], which no rigid motion changes: those of near heads differ by at most 2 NEAR_MM."""
    chosen = np.linspace(0, len(vertices) - 1, 2 * _LENGTHS).round().astype(np.int64)
    return np.asarray(np.linalg.norm(vertices[chosen[:_LENGTHS]] - vertices[chosen[_LENGTHS:]], axis=1))


def near_heads(signatures: Mapping[str, Floats], load: Callable[[str], Floats]) -> list[Twins]:
    """Groups of heads that are the same within NEAR_MM, by their signatures; `load` gives a head's vertices [V, 3], for few of them.

    Heads are sorted by one length and compared with their neighbours alone, so that hundreds cost no more than reading them.
    """
    names = sorted(signatures, key=lambda name: (float(signatures[name][0]), natural_key(name)))
    kept = lru_cache(maxsize=_KEPT)(load)
    pairs = list[tuple[str, str]]()
    group = {name: name for name in names}  # a head -> the first of its group
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            if signatures[other][0] - signatures[name][0] > 2 * NEAR_MM:
                break
            if group[other] == group[name] or np.abs(signatures[other] - signatures[name]).max() > 2 * NEAR_MM:
                continue
            if apart_mm(kept(name), kept(other)) <= NEAR_MM:
                pairs.append((name, other))
                first = group[other]
                group |= {member: group[name] for member in names if group[member] == first}
    return [Twins(found, exact=False) for found in joined(pairs)]


def apart_mm(one: Floats, other: Floats) -> float:
    """Largest distance of the vertices [V, 3] of one head from another's, after rigid alignment."""
    return float(np.linalg.norm(moved(one, procrustes(one, other, similarity=False)) - other, axis=1).max())


def others_of(twins: Iterable[Twins]) -> set[str]:
    """All names of the groups but the first of each: without them, nobody is counted twice."""
    return {name for group in twins for name in group.names[1:]}


def together(groups: Iterable[Twins]) -> list[Twins]:
    """The groups, those with a common name made one."""
    known = list(groups)
    exact = {frozenset(group.names) for group in known if group.exact}
    return [Twins(names, exact=frozenset(names) in exact) for names in joined(group.names for group in known)]


def joined(groups: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """Disjoint groups of names, those with a common name made one; in natural order."""
    found: list[set[str]] = []
    for group in groups:
        whole = set(group).union(*(other for other in found if other & set(group)))
        found = [other for other in found if not other & whole] + ([whole] if len(whole) > 1 else [])
    return sorted((tuple(sorted(group, key=natural_key)) for group in found), key=lambda names: natural_key(names[0]))
