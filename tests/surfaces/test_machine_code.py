"""Compiled functions: where nothing can be kept on disk they are compiled all the same, and it is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import pytest

from facegraft.surfaces.compiled.machine_code import compiled


def twice(number: int) -> int:
    return 2 * number


def test_a_cache_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def nowhere(*, cache: bool = False, **options: Any) -> Callable[..., Any]:
        if cache:
            raise RuntimeError("cannot cache function 'twice': no locator available for file 'x.py'")
        return real(**options)

    monkeypatch.setattr(numba, "njit", nowhere)
    with pytest.warns(UserWarning, match="compiled anew in every process .*set NUMBA_CACHE_DIR"):
        assert compiled(twice)(21) == 42


def test_other_faults_of_the_compiler_are_no_matter_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**options: Any) -> Callable[..., Any]:
        raise RuntimeError("out of order")

    monkeypatch.setattr(numba, "njit", broken)
    with pytest.raises(RuntimeError, match="out of order"):
        compiled(twice)
