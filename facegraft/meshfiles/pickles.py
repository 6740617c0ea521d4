"""Pickles read as data: arrays, lists, dicts, numbers and text. Nothing that a pickle names is imported or called.

A pickle is a program; reading one from somebody else with `pickle.load` runs it. Published face models and masks (FLAME's
`generic_model.pkl`, `FLAME_masks.pkl`) are pickles of Python 2, with arrays inside objects of chumpy and scipy. Here every name
in the file must be one of a few that make numpy arrays, or belongs to a library whose objects are kept as plain attributes.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.errors import printable
from facegraft.meshfiles.errors import MeshError
from facegraft.store.remote import Location

_OPAQUE = ("chumpy.", "scipy.sparse.")
"""Libraries whose objects are kept as their attributes."""


class _Refused(pickle.UnpicklingError):
    """Something that is not data."""


class Opaque:
    """An object of a library that is not imported: only its attributes."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(name): value for name, value in state.items()})


def _made(kind: Any, _base: Any, _state: Any) -> Any:
    """What `copyreg._reconstructor` does, for opaque objects only."""
    if kind is not Opaque:
        raise _Refused("an object of an unknown kind")
    return Opaque()


def _encoded(text: str, encoding: str) -> bytes:
    """What `_codecs.encode` does, for the bytes of arrays only: other codecs can do more than encode."""
    if encoding != "latin1":
        raise _Refused(f"text in encoding {printable(encoding)}")
    return text.encode("latin1")


_KNOWN: dict[str, Any] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _made,
    "builtins.object": object,
    "collections.OrderedDict": OrderedDict,
    # What numpy itself writes into pickles, under its names in numpy 1 and 2.
    **{
        f"numpy.{core}.{name}": made
        for core in ("core", "_core")
        for name, made in (
            ("multiarray._reconstruct", np.zeros(0).__reduce__()[0]),
            ("multiarray.scalar", np.float64(0).__reduce__()[0]),
            ("numeric._frombuffer", np.zeros(0).__reduce_ex__(5)[0]),
        )
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
            return _Data(file, encoding="latin1").load()
    except OSError as error:
        raise MeshError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _Refused as error:
        raise MeshError(
            f"{path}: not read: {error}; only arrays, lists, dicts, numbers and text are read from a pickle, since "
            "anything else could run code; store the arrays in an npz file"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise MeshError(f"{path}: not a pickle, or damaged ({type(error).__name__}); download it again") from error


def plain_array(value: Any) -> NDArray[Any] | None:
    """The array that a value of a pickle is, or that an opaque object of chumpy holds; None for anything else."""
    if isinstance(value, Opaque):
        value = vars(value).get("x")
    if isinstance(value, list | tuple):
        value = np.asarray(value)
    return value if isinstance(value, np.ndarray) and value.dtype.kind in "iufb" else None
