"""Pickles read as data: arrays, lists, dicts, numbers and text. Nothing that a pickle names is imported or called.

A pickle is a program; reading one from somebody else with `pickle.load` runs it. Published face models and masks (FLAME's
`generic_model.pkl`, `FLAME_masks.pkl`) are pickles of Python 2, with arrays inside objects of chumpy and scipy. Here every name
in the file stands for a class of this module: numpy's own trust the bytes that they are given, down to addresses in memory.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.errors import printable
from facegraft.meshfiles.errors import MeshError
from facegraft.store.remote import Location

MAX_BYTES = 1 << 31
"""Largest accepted file."""
_OPAQUE = ("chumpy.", "scipy.sparse.")
"""Libraries whose objects are kept as their attributes."""
_PLAIN = re.compile(r"[<>|=]?([biufSU])(\d{1,4})")
"""Kinds of numbers and text that an array may hold."""
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")


class _Refused(pickle.UnpicklingError):
    """Something that is not data."""


class Opaque:
    """An object of a library that is not imported: only its attributes."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(name): value for name, value in state.items()})


class _Dtype:
    """numpy.dtype(text, …), with its byte order from the state."""

    def __init__(self, text: Any, *_: Any) -> None:
        match = _PLAIN.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise _Refused(f"an array of {printable(str(text))[:40]}")
        self.order, self.kind, self.size = "=", match[1], int(match[2])

    def __setstate__(self, state: Any) -> None:
        order, inner = state[1], state[2:5]
        if order not in tuple("<>|=") or any(part is not None for part in inner):
            raise _Refused("an array of records")
        self.order = order

    def made(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order if self.kind != 'b' else ''}{self.kind}{self.size}")


class _Array:
    """numpy.ndarray, as it is built from its state; `values` once it is."""

    values: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, by_columns, raw = state
        self.values = _values(raw, kind, shape, "F" if by_columns else "C")


class _ArrayType:
    """The name numpy.ndarray, which only `_reconstruct` takes."""

    def __init__(self, *_: Any) -> None:
        raise _Refused("it makes an array without its values")


def _values(raw: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    data = raw.encode("latin1") if isinstance(raw, str) else bytes(raw) if isinstance(raw, bytes | bytearray) else None
    sizes = shape if isinstance(shape, tuple) else (shape,)
    if data is None or not isinstance(kind, _Dtype) or not all(type(n) is int and n >= 0 for n in sizes) or order not in ("C", "F"):
        raise _Refused("an array of objects")
    made = kind.made()
    if math.prod(sizes) * made.itemsize != len(data):
        raise _Refused("an array whose size is not that of its bytes")
    return np.frombuffer(data, made).reshape(sizes, order=order).copy()


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _ArrayType:
        raise _Refused("an array of an unknown kind")
    return _Array()


def _frombuffer(raw: Any, kind: Any, shape: Any, order: Any = "C", *_: Any) -> _Array:
    array = _Array()
    array.values = _values(raw, kind, shape, order)
    return array


def _scalar(kind: Any, raw: Any = None) -> Any:
    return _values(raw, kind, (1,), "C")[0]


def _object(kind: Any, _base: Any, _state: Any) -> Opaque:
    """What `copyreg._reconstructor` does, for opaque objects only."""
    if kind is not Opaque:
        raise _Refused("an object of an unknown kind")
    return Opaque()


def _encoded(text: Any, encoding: Any) -> bytes:
    """What `_codecs.encode` does, for the bytes of arrays only: other codecs can do more than encode."""
    if encoding != "latin1" or not isinstance(text, str):
        raise _Refused(f"text in encoding {printable(str(encoding))[:40]}")
    return text.encode("latin1")


_KNOWN: dict[str, Any] = {
    "numpy.ndarray": _ArrayType,
    "numpy.dtype": _Dtype,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _object,
    "builtins.object": object,
    "collections.OrderedDict": OrderedDict,
    # What numpy itself writes into pickles, under its names in numpy 1 and 2.
    **{
        f"numpy.{core}.{name}": made
        for core in ("core", "_core")
        for name, made in (("multiarray._reconstruct", _reconstruct), ("multiarray.scalar", _scalar), ("numeric._frombuffer", _frombuffer))
    },
}


class _Data(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in _KNOWN:
            return _KNOWN[f"{module}.{name}"]
        if module.startswith(_OPAQUE):
            return Opaque
        raise _Refused(f"it names {printable(module)}.{printable(name)}")

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to objects outside the file")


def read_pickle(path: Location) -> Any:
    """The data of a pickle, made by Python 2 or 3. Objects of chumpy and scipy are `Opaque`.

    Raises MeshError for a file that is missing, damaged, or holds anything else: such a file could run code when it is read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise MeshError(f"{path}: more than {MAX_BYTES >> 30} GiB; is this another file?")
            _check_memo(data)
            file.seek(0)
            return _plain(_Data(file, encoding="latin1").load(), {})
    except MeshError:
        raise
    except OSError as error:
        raise MeshError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _Refused as error:
        raise MeshError(
            f"{path}: not read: {error}; only arrays, lists, dicts, numbers and text are read from a pickle, since "
            "anything else could run code; store the arrays in an npz file"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise MeshError(f"{path}: not a pickle, or damaged ({type(error).__name__}); download it again") from error


def _check_memo(data: bytes) -> None:
    """Refuse places in the reader's memory that are far beyond what the file can fill: they would be allocated."""
    for number, (code, argument, _) in enumerate(pickletools.genops(data)):
        if code.name in _PUTS and int(str(argument)) > number + 1:
            raise _Refused("it asks for more memory than it fills")


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """The value with its arrays as numpy's; `done`: those that are already made, by identity, None for those that hold each other."""
    if isinstance(value, _Array):
        if value.values is None:
            raise _Refused("it makes an array without its values")
        return value.values
    if not isinstance(value, dict | list | tuple | Opaque):
        return value
    if id(value) in done:
        if done[id(value)] is None:
            raise _Refused("it holds itself")
        return done[id(value)]
    done[id(value)] = None
    made: Any
    if isinstance(value, dict):
        made = {name: _plain(inner, done) for name, inner in value.items()}
    elif isinstance(value, Opaque):
        made = Opaque()
        made.__dict__.update({name: _plain(inner, done) for name, inner in vars(value).items()})
    else:
        made = type(value)(_plain(inner, done) for inner in value)
    done[id(value)] = made
    return made


def plain_array(value: Any) -> NDArray[Any] | None:
    """The array of numbers that a value of a pickle is, or a flat list of numbers, or what an opaque object of chumpy holds; else None."""
    if isinstance(value, Opaque):
        value = vars(value).get("x")
    if isinstance(value, list | tuple) and all(isinstance(number, int | float | np.number) for number in value):
        value = np.asarray(value)
    return value if isinstance(value, np.ndarray) and value.dtype.kind in "iufb" else None
