"""Functions that numba compiles to machine code at their first call, and keeps on disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from facegraft.lazily import lazy_import

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function in machine code, kept in `__pycache__` beside its file or in the user's cache folder (NUMBA_CACHE_DIR names another).

    Sums are in the order that is written, without fused multiplications, so that results do not depend on the processor. Divisions by 0 give
    infinities, as in numpy. Where neither folder can be written it is compiled in every process, which takes seconds, and a warning says so.
    """
    numba = lazy_import("numba")
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        warnings.warn(f"compiled anew in every process ({error}); set NUMBA_CACHE_DIR to a folder that can be written", stacklevel=2)
        return numba.njit(error_model="numpy")(function)
