"""From names on disk to subjects, expressions and keys."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facegraft.heads.errors import SourceError
from facegraft.heads.names import clean_name, clean_names, head_key, natural_key, split_number


def test_natural_order():
    assert sorted(["s10", "s2", "a", "10", "9", "s02"], key=natural_key) == ["9", "10", "a", "s02", "s2", "s10"]


@given(st.lists(st.text(max_size=8)))
def test_natural_order_is_total(names):
    assert sorted(names, key=natural_key) == sorted(sorted(names, reverse=True), key=natural_key)
    assert len({natural_key(n) for n in names}) == len(set(names))


@given(st.text(max_size=20))
def test_clean_names_are_valid_and_stable(name):
    assert re.fullmatch(r"[A-Za-z0-9_]*", clean_name(name))
    assert clean_name(clean_name(name)) == clean_name(name)


LETTERS = st.text(st.characters(min_codepoint=0xC0, categories=("L", "N", "So")), min_size=1, max_size=8)


@given(LETTERS, LETTERS)
def test_names_that_differ_in_a_letter_stay_different(one, other):
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert (clean_name(one) == clean_name(other)) == same


def test_letters_of_any_script_have_names():
    assert clean_name("张三") == "u5f20_u4e09"
    assert clean_name("Müller") == clean_name("Mu\u0308ller") == "M_u00fc_ller"
    assert clean_name("scan\u00a0two") == "scan_two"
    assert clean_name("---") == "u002d_u002d_u002d"
    long = [clean_name("x" * n) for n in (80, 81, 200)]
    assert long[0] == "x" * 80 and len(set(long)) == 3 and max(map(len, long)) == 80


def test_numbers_and_keys():
    assert split_number("12_lip_puckerer") == (12, "lip_puckerer")
    assert split_number("smile") == (None, "smile")
    assert split_number("2024") == (None, "2024")
    assert head_key("s0017", 3, "mouth_stretch") == "s0017_e03"
    assert head_key("anna", None, "wink") == "anna_wink"


def test_collisions_are_refused():
    assert clean_names(["a b", "c"], "subject", "x") == {"a b": "a_b", "c": "c"}
    with pytest.raises(SourceError, match="subjects 'a b' and 'a-b' would both be called 'a_b'; rename one"):
        clean_names(["a-b", "a b"], "subject", "x")
    assert clean_names(["--", "a"], "subject", "x") == {"--": "u002d_u002d", "a": "a"}
