"""The table of expressions, and choosing from it."""

from __future__ import annotations

import numpy as np
import pytest

from facegraft.heads.errors import SourceError
from facegraft.heads.expressions import BY_NAME, EXPRESSIONS, choose_expressions


def test_the_list_is_facescapes():
    assert [e.number for e in EXPRESSIONS] == list(range(1, 21))
    assert list(BY_NAME) == [
        "neutral", "smile", "mouth_stretch", "anger", "jaw_left", "jaw_right", "jaw_forward", "mouth_left", "mouth_right", "dimpler",
        "chin_raiser", "lip_puckerer", "lip_funneler", "sadness", "lip_roll", "grin", "cheek_blowing", "eye_closed", "brow_raiser",
        "brow_lower",
    ]  # fmt: skip
    recipes = [tuple(e.shapes.items()) for e in EXPRESSIONS]
    assert len(set(recipes)) == 20
    assert recipes[0] == ()


def test_all_shapes_are_the_models(data_dir):
    model = np.load(data_dir / "ict" / "ict_facekit_light.npz")
    names, deltas = [str(n) for n in model["ex_names"]], model["ex_delta"]
    assert {s for e in EXPRESSIONS for s in e.shapes} <= set(names)
    landmarks = model["lm68"]
    chin = landmarks[8]

    def shift(expression):
        return sum(w * deltas[names.index(s)] for s, w in BY_NAME[expression].shapes.items())

    assert shift("jaw_left")[chin, 0] > 0.3  # cm; +x is the subject's left
    assert shift("jaw_right")[chin, 0] < -0.3
    assert shift("jaw_forward")[chin, 2] > 0.3
    assert shift("mouth_stretch")[chin, 1] < -2
    for corner, side in ((48, -1), (54, 1)):
        assert shift("smile")[landmarks[corner], 1] > 0.3
        assert shift("smile")[landmarks[corner], 0] * side > 0
        assert shift("sadness")[landmarks[corner], 1] < -0.2
    assert shift("brow_raiser")[landmarks[19], 1] > 0.3
    assert shift("brow_lower")[landmarks[19], 1] < -0.2
    assert shift("eye_closed")[landmarks[37], 1] < -0.3


ALL = {s for e in EXPRESSIONS for s in e.shapes}


def test_the_first_so_many():
    chosen, left_out = choose_expressions(3, 20, ALL, "x")
    assert [e.name for e in chosen] == ["neutral", "smile", "mouth_stretch"]
    assert left_out == []
    assert len(choose_expressions(None, 5, ALL, "x")[0]) == 5


def test_what_cannot_be_made_is_passed_over_and_named():
    chosen, left_out = choose_expressions(3, 20, ALL - {"mouthSmile_L"}, "x")
    assert [e.name for e in chosen] == ["neutral", "mouth_stretch", "anger"]
    assert [e.name for e in left_out] == ["smile"]


@pytest.mark.parametrize(
    ("wanted", "there", "says"),
    [
        (
            3,
            {"cheekPuff_L", "cheekPuff_R"},
            "x: only 2 of the 20 expressions can be made, not 3: shapes missing are browDown_L.obj",
        ),
        (21, ALL, "there are 20 named expressions"),
        (("smirk", "smile"), ALL, "no expression 'smirk'"),
        (("smiel",), ALL, "did you mean 'smile'?"),
        (("smile",), ALL - {"cheekSquint_R"}, "expression 'smile' needs cheekSquint_R.obj, not in the folder"),
    ],
)
def test_refusals_name_what_is_missing(wanted, there, says):
    with pytest.raises(SourceError) as caught:
        choose_expressions(wanted, 1, there, "x")
    assert says in str(caught.value)
