"""The twenty expressions of FaceScape, and how each is made from the ICT model's 53 shapes.

FaceScape's subjects were recorded with these expressions (Yang et al., CVPR 2020); the numbers are those of its file
names. The ICT shapes have the names of ARKit's blend shapes. The weights are ours, chosen by eye so that each expression
matches its name at intensity 1 and the lips and lids do not intersect themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from facegraft.errors import nearest
from facegraft.heads.errors import SourceError
from facegraft.seeds import subject_rng


@dataclass(frozen=True)
class Expression:
    """A named expression: the weight of each shape at intensity 1, and the range of intensities over subjects.

    A shape written `name_` means both `name_L` and `name_R`.
    """

    number: int
    name: str
    weights: Mapping[str, float] = field(default_factory=dict)
    intensity: tuple[float, float] = (0.7, 1.0)

    @property
    def shapes(self) -> dict[str, float]:
        """Weight of every shape in alphabetical order, with left and right as separate shapes."""
        sides = {
            s: w
            for name, w in self.weights.items()
            for s in ([name + "L", name + "R"] if name.endswith("_") else [name])
        }
        return dict(sorted(sides.items()))


EXPRESSIONS = (
    Expression(1, "neutral", {}, (1.0, 1.0)),
    Expression(2, "smile", {"mouthSmile_": 0.9, "cheekSquint_": 0.5, "mouthDimple_": 0.2}),
    Expression(3, "mouth_stretch", {"jawOpen": 0.85, "mouthStretch_": 0.3}),
    Expression(
        4, "anger", {"browDown_": 1.0, "noseSneer_": 0.7, "eyeSquint_": 0.5, "mouthPress_": 0.6, "mouthUpperUp_": 0.2}
    ),
    Expression(5, "jaw_left", {"jawLeft": 1.0}),
    Expression(6, "jaw_right", {"jawRight": 1.0}),
    Expression(7, "jaw_forward", {"jawForward": 1.0}),
    Expression(8, "mouth_left", {"mouthLeft": 0.9}),
    Expression(9, "mouth_right", {"mouthRight": 0.9}),
    Expression(10, "dimpler", {"mouthDimple_": 1.0, "mouthPress_": 0.3}),
    Expression(11, "chin_raiser", {"mouthShrugLower": 1.0, "mouthShrugUpper": 0.6}),
    Expression(12, "lip_puckerer", {"mouthPucker": 1.0}),
    Expression(13, "lip_funneler", {"mouthFunnel": 1.0, "jawOpen": 0.1}),
    Expression(14, "sadness", {"browInnerUp_": 1.0, "mouthFrown_": 0.9, "mouthShrugLower": 0.3}),
    Expression(15, "lip_roll", {"mouthRollLower": 0.8, "mouthRollUpper": 0.8}),
    Expression(16, "grin", {"mouthSmile_": 0.5, "mouthUpperUp_": 0.7, "mouthLowerDown_": 0.7, "mouthStretch_": 0.4}),
    Expression(17, "cheek_blowing", {"cheekPuff_": 1.0}),
    Expression(18, "eye_closed", {"eyeBlink_": 1.0}, (1.0, 1.0)),  # lids at 0.7 would be half open
    Expression(19, "brow_raiser", {"browInnerUp_": 1.0, "browOuterUp_": 1.0}),
    Expression(20, "brow_lower", {"browDown_": 1.0}),
)

BY_NAME = {expression.name: expression for expression in EXPRESSIONS}


def expression_intensity(seed: int, family: str, subject: int, expression: Expression) -> float:
    """Intensity of this expression for this computed subject, uniform in the expression's range."""
    low, high = expression.intensity
    rng = subject_rng(seed, family, subject, f"expression {expression.name}")
    return float(rng.uniform(low, high)) if low < high else high


def choose_expressions(
    wanted: int | Sequence[str] | None, default: int, available: Iterable[str], where: str
) -> tuple[list[Expression], list[Expression]]:
    """The expressions (chosen, left out) of the list, given the available shapes.

    A number chooses the first so many that can be made; those before the last chosen one that cannot be made are left out.
    Names are taken in the order of the list. Raises SourceError with the missing shapes, or the nearest known name.
    """
    there = set(available)
    possible = [e for e in EXPRESSIONS if there >= set(e.shapes)]
    if wanted is None or isinstance(wanted, int):
        count = default if wanted is None else wanted
        if count > len(EXPRESSIONS):
            raise SourceError(f"expressions={count}: there are {len(EXPRESSIONS)} named expressions")
        if count > len(possible):
            missing = sorted({s for e in EXPRESSIONS for s in e.shapes} - there)
            raise SourceError(
                f"{where}: only {len(possible)} of the {len(EXPRESSIONS)} expressions can be made, not {count}: "
                f"shapes missing are {_listed(f'{s}.obj' for s in missing)}"
            )
        chosen = possible[:count]
        return chosen, [e for e in EXPRESSIONS if chosen and e.number < chosen[-1].number and e not in chosen]
    check_names(wanted, BY_NAME)
    chosen = [e for e in EXPRESSIONS if e.name in set(wanted)]
    for expression in chosen:
        missing = sorted(set(expression.shapes) - there)
        if missing:
            raise SourceError(
                f"{where}: expression {expression.name!r} needs {_listed(f'{s}.obj' for s in missing)}, not in the folder"
            )
    return chosen, []


def check_names(wanted: Iterable[str], known: Collection[str]) -> None:
    """Raise SourceError for the first unknown name among the wanted expressions, with the nearest known name."""
    for name in wanted:
        if name not in known:
            raise SourceError(f"there is no expression {name!r}{nearest(name, known)}")


def _listed(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
