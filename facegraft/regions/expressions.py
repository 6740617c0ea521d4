"""Arithmetic in region sets: `top + 0.04 * height`, `mean(y43, y44)`. It only evaluates numbers and names; no code is run."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping

import numpy as np

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FUNCTIONS: dict[str, Callable[[list[float]], float]] = {
    "min": min,
    "max": max,
    "mean": lambda values: float(np.mean(values)),
}
_LONGEST = 500


def evaluate(text: str | float, names: Mapping[str, float]) -> float:
    """The value of an expression of numbers, names, + - * /, min, max and mean. Raises ValueError, in one line, for any other text."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return _finite(text, text)
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise ValueError(f"{str(text)[:60]!r} is neither a number nor an expression")
    try:
        return _finite(_value(ast.parse(text.strip(), mode="eval").body, names), text)
    except (SyntaxError, ZeroDivisionError, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"{text!r} cannot be computed ({type(error).__name__})") from error


def _finite(value: float, text: str | float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a finite number")
    return number


def _value(node: ast.expr, names: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.Name(id=name):
            if name not in names:
                raise ValueError(f"{name!r} is not known here; there are x0 … x67, y0 … y67, the names of `let` and, where the mesh has ears, ear_front, ear_back, ear_top, ear_bottom")
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, names)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](_value(left, names), _value(right, names))
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as args, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name]([_value(arg, names) for arg in args])
    raise ValueError(f"{ast.unparse(node)[:60]!r} is not understood; use numbers, names, + - * /, min, max and mean")
