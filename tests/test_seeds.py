"""Random streams belong to what they are for, and stay what they are."""

from hypothesis import given
from hypothesis import strategies as st

from facegraft.heads.split import split_at_random
from facegraft.seeds import derived_seed, digest, item_rng, score_rng, stream, subject_rng, topology_rng, words

NAMES = st.tuples(st.integers(0, 2**63), st.text(), st.text())


def test_streams_are_the_same_for_ever() -> None:
    """Written down once: a change of these numbers changes every dataset ever made."""
    assert words(digest(0, "GraftStage", "s0001_e00"))[:2] == [3871684409, 3292629927]
    assert item_rng(0, "GraftStage", "s0001_e00").bit_generator.random_raw(2).tolist() == [
        3960162347159529221,
        16983306313760820161,
    ]
    assert item_rng(7, "GraftStage", "s0003_e01").integers(0, 2**63, 2).tolist() == [
        4008548100733474892,
        823071675863706224,
    ]
    assert subject_rng(7, "ict", 12, "identity").integers(0, 2**63, 2).tolist() == [
        7930261947779864500,
        4847878839151964679,
    ]
    assert topology_rng("abc").integers(0, 2**63, 2).tolist() == [1387031862235092765, 7241668919036104582]
    assert score_rng(4, "a", "bc").integers(0, 2**63, 2).tolist() == [4462441147155152479, 7605100576953810156]
    assert (derived_seed(3, "masks", 5), derived_seed(0)) == (3197587368766501847, 2033344993903900207)
    sides = split_at_random([f"s{number:04d}" for number in range(12)], 0.3, 5)
    assert [name for name, side in sides.items() if side == "test"] == ["s0001", "s0007", "s0008", "s0009"]


@given(NAMES, NAMES)
def test_different_items_have_different_streams(a: tuple[int, str, str], b: tuple[int, str, str]) -> None:
    assert (digest(*a) == digest(*b)) == (a == b)


def test_parts_of_the_name_are_kept_apart() -> None:
    assert digest(1, "ab", "c") != digest(1, "a", "bc")
    assert stream(1, "ab", "c").random() != stream(1, "a", "bc").random()
