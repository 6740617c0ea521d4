"""The split of subjects into training and test.

The split is by subject, never by head: all expressions of a subject, and later every composite made of its parts, lie on
one side (test composites must not contain parts of training subjects).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from facegraft.errors import nearest
from facegraft.heads.errors import SourceError
from facegraft.heads.names import clean_name, natural_key
from facegraft.heads.twins import Twins
from facegraft.seeds import digest
from facegraft.settings import as_name
from facegraft.store.remote import place

log = logging.getLogger("facegraft")

TRAIN, TEST = "train", "test"

IMFACE_TEST = (122, 212, 340, 344, 393, 395, 421, 527, 594, 610)
"""FaceScape's subjects that may be shown in publications: ImFace's test list (Zheng et al., CVPR 2022)."""

IMFACE_TRAIN = tuple(n for n in range(1, 360) if n not in IMFACE_TEST)
"""ImFace's published list of 355 training subjects: FaceScape's first 359 without those for testing."""


def split_at_random(
    subjects: Iterable[str], test_fraction: float, seed: int, complaint: Callable[[str], str | None] = lambda _: None
) -> dict[str, str]:
    """The side of each subject, "train" or "test": it depends only on the seed and the names, not on order or machine.

    The subjects are ranked by the SHA-256 of (seed, name) and the first go to the test side, so that adding a few
    subjects moves few others. The number of test subjects is the fraction, rounded, but at least 2 and at most all but 2:
    a subject alone on its side cannot exchange parts. With fewer than 4 subjects or fraction 0, all are for training.
    complaint: why a subject's heads will be rejected, None where they will not; such a subject is passed over, so that the test side is
    not used up by it, and is said.
    """
    names = sorted(set(subjects), key=natural_key)
    count = round(test_fraction * len(names))
    count = min(max(count, 2), len(names) - 2) if test_fraction > 0 and len(names) >= 4 else 0
    chosen, passed = set[str](), list[tuple[str, str]]()
    for name in sorted(names, key=lambda name: digest(int(seed), name)):
        if len(chosen) == count:
            break
        if why := complaint(name):
            passed.append((name, why))
        else:
            chosen.add(name)
    if passed:
        log.warning(
            "%d of the subjects drawn for testing cannot be read, or are not like the others: the next ones take their place: %s (%s)%s",
            len(passed), passed[0][0], passed[0][1], ", …" if len(passed) > 1 else "",
        )  # fmt: skip
    return {name: TEST if name in chosen else TRAIN for name in names}


def split_by_list(subjects: Iterable[str], test: Sequence[str], train: Sequence[str] | None = None) -> dict[str, str]:
    """The side of each subject by lists of names; with a training list, subjects on neither list are left out of the result.

    Raises SourceError for a name that is not a subject (a misspelt test subject would be trained on) or is on both lists.
    """
    names = sorted(set(subjects), key=natural_key)
    sides = {TEST: {_match(name, names, "test") for name in test}}
    sides[TRAIN] = set(names) - sides[TEST] if train is None else {_match(name, names, "training") for name in train}
    if both := sorted(sides[TEST] & sides[TRAIN], key=natural_key):
        raise SourceError(f"subject {both[0]} is on the test list and on the training list; take it off one")
    return {name: TEST if name in sides[TEST] else TRAIN for name in names if name in sides[TEST] | sides[TRAIN]}


def split_imface(subjects: Iterable[str]) -> dict[str, str]:
    """FaceScape's subjects on the sides that ImFace published (355 for training, 10 for testing); others are left out.

    Raises SourceError where none of them is there.
    """
    names = sorted(set(subjects), key=natural_key)
    side = {str(n): TEST for n in IMFACE_TEST} | {str(n): TRAIN for n in IMFACE_TRAIN}
    split = {name: side[name.lstrip("0")] for name in names if name.lstrip("0") in side}
    if not split:
        raise SourceError(
            "split=imface is for FaceScape's subjects, named by their numbers 1, 2, …; none of them is here"
        )
    there = list(split.values())
    log.warning(
        "split imface: %d of %d training and %d of %d test subjects are here; %d others are left out",
        there.count(TRAIN), len(IMFACE_TRAIN), there.count(TEST), len(IMFACE_TEST), len(names) - len(split),
    )  # fmt: skip
    return split


def with_twins_together(split: Mapping[str, str], twins: Iterable[Twins]) -> dict[str, str]:
    """The split with every group of subjects that share a head on one side: the test side, where one of them is there already.

    A face that is trained on says nothing about unseen faces. Says which subjects were moved.
    """
    result = dict(split)
    for group in twins:
        present = [name for name in group.names if name in result]
        if len({result[name] for name in present}) > 1:
            moved = [name for name in present if result[name] == TRAIN]
            result |= dict.fromkeys(moved, TEST)
            log.warning("subjects %s %s: %s moved to the test side, where the others are", _listed(present), group.what, _listed(moved))
        elif len(present) > 1:
            log.warning("subjects %s %s: the same person under several names?", _listed(present), group.what)
    return result


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def read_subject_list(value: str | Sequence[str | int]) -> list[str]:
    """Names given as a list, or as the path of a text file: separated by commas or white space, `#` starts a comment."""
    if not isinstance(value, str):
        return [as_name(name) for name in value]
    try:
        text = place(value).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise SourceError(
            f"{value}: cannot read the list of subjects ({reason}); give a text file with one subject a line, or the names themselves as a "
            f"list: [{value}]"
        ) from error
    names = [name for line in text.splitlines() for name in line.split("#", 1)[0].replace(",", " ").split()]
    if not names:
        raise SourceError(f"{value}: the list of subjects is empty")
    return names


def _match(name: str, names: Sequence[str], what: str) -> str:
    clean = clean_name(name)
    if clean in names:
        return clean
    hint = nearest(clean, names, f"there are {len(names)}, for example {names[0]!r}" if names else "there are none")
    raise SourceError(f"{name!r} on the {what} list is not a subject here{hint}")
