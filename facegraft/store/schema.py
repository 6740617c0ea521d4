"""The schema of a dataset: fields, index columns and names; and the fields of the four kinds.

The format is specified in docs/format.md; a test compares the field tables there with the functions here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from facegraft.errors import nearest, printable
from facegraft.parts import Parts, PartsError
from facegraft.store.errors import FieldError, StoreError
from facegraft.vocabulary import KINDS

FORMAT_NAME = "facegraft-dataset"
FORMAT_VERSION = "2.2"
DTYPES = ("float64", "float32", "int64", "int32", "int16", "uint8", "bool")
COLUMN_TYPES = ("string", "int64", "float64", "bool")
OWN_COLUMNS = {"key": "string", "shard": "string", "status": "string", "reason": "string"}
MAX_KEY_LENGTH = 200

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_SHARD = re.compile(r"([0-9]{5,12})-of-([0-9]{5,12})\.safetensors")
_LONGEST = 1 << 40


@dataclass(frozen=True)
class FieldSpec:
    """One array of an item: numpy dtype name, shape (a number, or a name for a length that the item decides), unit, frame, meaning.

    The name "V" is the vertex count of the dataset's topology; any other name must have the same length everywhere within an item.
    """

    dtype: str
    shape: tuple[int | str, ...]
    unit: str
    frame: str
    meaning: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.dtype not in DTYPES:
            raise FieldError(f"dtype {printable(repr(self.dtype))} is not one of {', '.join(DTYPES)}")
        for dim in self.shape:
            if isinstance(dim, bool) or not (
                (isinstance(dim, int) and 0 <= dim <= _LONGEST)
                or (isinstance(dim, str) and dim.isidentifier() and len(dim) < 100)
            ):
                raise FieldError(
                    f"shape {printable(self.shape)}: {printable(repr(dim))} is neither a length nor a name"
                )

    def to_json(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "unit": self.unit,
            "frame": self.frame,
            "meaning": self.meaning,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FieldSpec:
        _demand(document, {"dtype": str, "shape": list, "unit": str, "frame": str, "meaning": str}, "a field")
        return cls(
            document["dtype"], tuple(document["shape"]), document["unit"], document["frame"], document["meaning"]
        )


@dataclass(frozen=True)
class DatasetSchema:
    """The schema that all items of a dataset share.

    topology: {"name", "vertex_count", "faces_sha256"}, each possibly None; columns: the stage's own index columns, name -> one of
    COLUMN_TYPES, in the order of the index (key, shard, status and reason come before them and are not listed); parts: they define
    the labels, donors and stages of its items; None for heads, which have no parts yet.
    """

    kind: str
    topology: Mapping[str, Any]
    mm_per_unit: float
    frame: str
    fields: Mapping[str, FieldSpec]
    columns: Mapping[str, str]
    parts: Parts | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise StoreError(f"dataset kind {printable(repr(self.kind))} is not one of {', '.join(KINDS)}")
        object.__setattr__(self, "mm_per_unit", float(self.mm_per_unit))
        if not (math.isfinite(self.mm_per_unit) and self.mm_per_unit > 0):
            raise StoreError(f"mm_per_unit must be a positive number, not {self.mm_per_unit}")
        unknown = set(self.topology) ^ {"name", "vertex_count", "faces_sha256"}
        if unknown:
            raise StoreError(
                f"topology has name, vertex_count and faces_sha256 (null where unknown); these differ: {printable(sorted(unknown))}"
            )
        for what in ("name", "faces_sha256"):
            if not isinstance(text := self.topology[what], str | None) or (text is not None and not text.isprintable()):
                raise StoreError(f"the topology's {what} must be a line of text or null")
        vertex_count = self.topology["vertex_count"]
        if vertex_count is not None and (
            isinstance(vertex_count, bool) or not isinstance(vertex_count, int) or not 0 <= vertex_count <= _LONGEST
        ):
            raise StoreError(
                f"the topology's vertex_count must be a whole number or null, not {printable(repr(vertex_count))}"
            )
        if not self.fields:
            raise StoreError("a dataset needs at least one field")
        for name in [*self.fields, *self.columns]:
            if not _NAME.fullmatch(name):
                raise StoreError(
                    f"field or column name {printable(repr(name))} must be lower case letters, digits and underscores"
                )
        for name, kind in self.columns.items():
            if name in OWN_COLUMNS:
                raise StoreError(f"index column {name!r} is the store's own: leave it out of the schema's columns")
            if kind not in COLUMN_TYPES:
                raise StoreError(
                    f"index column {name!r} has type {printable(repr(kind))}; it must be one of {', '.join(COLUMN_TYPES)}"
                )

    def to_json(self) -> dict[str, Any]:
        """The schema's part of dataset.json. Columns are a list, because their order matters."""
        return {
            "kind": self.kind,
            "topology": dict(self.topology),
            "mm_per_unit": self.mm_per_unit,
            "frame": self.frame,
            "fields": {name: field.to_json() for name, field in self.fields.items()},
            "columns": [{"name": name, "type": kind} for name, kind in self.columns.items()],
            "parts": None if self.parts is None else self.parts.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DatasetSchema:
        """The schema from dataset.json. Raises StoreError, which names a missing entry or one of a wrong type."""
        wanted = {"kind": str, "topology": dict, "mm_per_unit": float, "frame": str, "fields": dict, "columns": list}
        _demand(document, wanted, "the schema")
        fields = {}
        for name, field in document["fields"].items():
            if not isinstance(field, dict):
                raise StoreError(f"field {name!r} is not described by an object")
            fields[name] = FieldSpec.from_json(field)
        columns = {}
        for column in document["columns"]:
            if not isinstance(column, dict):
                raise StoreError("an index column is not described by an object")
            _demand(column, {"name": str, "type": str}, "an index column")
            columns[column["name"]] = column["type"]
        if "parts" not in document:
            raise StoreError("the schema lacks 'parts'")
        try:
            parts = None if document["parts"] is None else Parts.from_json(document["parts"], "its parts")
        except PartsError as error:
            raise StoreError(str(error)) from error
        return cls(
            document["kind"], document["topology"], document["mm_per_unit"], document["frame"], fields, columns, parts
        )

    def require_parts(self) -> Parts:
        """The parts. Raises StoreError for a dataset without parts (heads)."""
        if self.parts is None:
            raise StoreError(f"a dataset of {self.kind} has no parts; they come with composites, surfaces and samples")
        return self.parts


def _demand(document: Mapping[str, Any], wanted: Mapping[str, type], what: str) -> None:
    for name, kind in wanted.items():
        if name not in document:
            raise StoreError(f"{what} lacks {name!r}")
        if not isinstance(document[name], kind):
            raise StoreError(f"{what}: {name!r} must be {kind.__name__}, not {type(document[name]).__name__}")


def check_key(key: str) -> str:
    """Return a valid key, else raise StoreError: keys name files and tensors, so only letters, digits, _ and - are allowed."""
    if not isinstance(key, str) or not _KEY.fullmatch(key) or len(key) > MAX_KEY_LENGTH:
        raise StoreError(f"item key {printable(repr(key))} must be 1 to {MAX_KEY_LENGTH} letters, digits, '_' or '-'")
    return key


def shard_name(number: int, count: int) -> str:
    """File name of shard `number` (from 0) of `count`: 00012-of-00400.safetensors."""
    if not 0 <= number < count:
        raise StoreError(f"there is no shard {number} of {count}")
    return f"{number:05d}-of-{count:05d}.safetensors"


def check_shard_name(name: str) -> str:
    """Return a valid shard name, else raise StoreError; a name that could leave the folder is never valid."""
    if not isinstance(name, str) or not _SHARD.fullmatch(name):
        raise StoreError(
            f"shard name {printable(repr(name))} must look like 00012-of-00400.safetensors; see facegraft.store.shard_name"
        )
    return name


def commit_name(shard: str) -> str:
    """File name of the commit record beside a shard."""
    return check_shard_name(shard).removesuffix(".safetensors") + ".json"


def check_fields(key: str, arrays: Mapping[str, np.ndarray], schema: DatasetSchema) -> None:
    """Check that an item has exactly the fields of the schema, with their dtypes and shapes, and finite floats. Raises FieldError naming item
    and field."""
    for name in arrays:
        if name not in schema.fields:
            raise FieldError(f"item {key}: unknown field {name!r}{nearest(name, schema.fields)}")
    lengths: dict[str, tuple[int, str]] = {}
    vertex_count = schema.topology["vertex_count"]
    if vertex_count is not None:
        lengths["V"] = (vertex_count, "the topology")
    for name, field in schema.fields.items():
        if name not in arrays:
            raise FieldError(f"item {key}: field {name!r} is missing")
        array = arrays[name]
        if not isinstance(array, np.ndarray):
            raise FieldError(
                f"item {key}, field {name}: a {type(array).__name__} where a numpy array of {field.dtype} belongs"
            )
        check_array(f"item {key}, field {name}", array.dtype.name, array.shape, field, lengths)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(np.count_nonzero(~np.isfinite(array)))
            raise FieldError(f"item {key}, field {name}: {bad} of {array.size} values are NaN or infinite")


def check_array(
    what: str, dtype: str, shape: tuple[int, ...], field: FieldSpec, lengths: dict[str, tuple[int, str]]
) -> None:
    """Compare dtype and shape with the field; `lengths` collects the values of the named lengths of this item."""
    if dtype != field.dtype:
        raise FieldError(f"{what}: dtype {dtype} where the schema says {field.dtype}")
    wanted = "[" + ",".join(map(str, field.shape)) + "]"
    if len(shape) != len(field.shape):
        raise FieldError(f"{what}: shape {list(shape)} where the schema says {wanted}")
    for dim, length in zip(field.shape, shape, strict=True):
        if isinstance(dim, int):
            if dim != length:
                raise FieldError(f"{what}: shape {list(shape)} where the schema says {wanted}")
        else:
            known, source = lengths.setdefault(dim, (length, what))
            if known != length:
                raise FieldError(
                    f"{what}: shape {list(shape)} where the schema says {wanted}, and {dim} is {known} by {source}"
                )


def check_row(key: str, row: Mapping[str, object], columns: Mapping[str, str]) -> dict[str, Any]:
    """An index row with every column: plain values of the column's type, None where missing.

    NaN and infinity become None: null in the index means a missing number. Raises FieldError for an unknown column or a wrong type.
    """
    for name in row:
        if name not in columns:
            raise FieldError(f"item {key}: unknown index column {name!r}{nearest(name, columns)}")
    return {name: _column_value(key, name, row.get(name), kind) for name, kind in columns.items()}


def _column_value(key: str, name: str, value: object, kind: str) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return None
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "int64" and isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return value
    if kind == "float64" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    raise FieldError(f"item {key}, index column {name}: {value!r} is not a {kind}")


_ITEM_FRAME = "head: +y up, +z out of the face, +x the subject's left"
_UNIT_FRAME = "unit ball, axes as head"
_TRANSFORMS = "affine map, donor to recipient, of each disk that was grafted, in alphabetical order (column vectors)"
_TO_MM = "unit coordinates to the input mesh's mm (column vectors)"


def _stage_landmarks(parts: Parts) -> str:
    return f"the 68 landmarks at each stage of the template morph: {parts.describe_stages()}"


def _stage_points(parts: Parts) -> str:
    return f"M registered skin vertices at each stage of the template morph: {parts.describe_stages()}"


def heads_fields() -> dict[str, FieldSpec]:
    """Registered heads: one topology, one item per subject and expression."""
    return {
        "vertices": FieldSpec("float32", ("V", 3), "mm", _ITEM_FRAME, "vertices of the topology, in its order"),
        "landmarks": FieldSpec("float32", (68, 3), "mm", _ITEM_FRAME, "the 68 iBUG landmarks"),
    }


def composites_fields(parts: Parts) -> dict[str, FieldSpec]:
    """Heads composed of several subjects' parts, and the morph from each to the template."""
    count = len(parts.stages)
    return {
        **heads_fields(),
        "stage_landmarks": FieldSpec("float32", (count, 68, 3), "mm", _ITEM_FRAME, _stage_landmarks(parts)),
        "stage_points": FieldSpec("float32", (count, "M", 3), "mm", _ITEM_FRAME, _stage_points(parts)),
        "transforms": FieldSpec("float64", ("P", 4, 4), "mm", _ITEM_FRAME, _TRANSFORMS),
    }


def surfaces_fields(parts: Parts) -> dict[str, FieldSpec]:
    """One watertight mesh per item, in the unit ball."""
    return {
        "vertices": FieldSpec("float32", ("v", 3), "unit", _UNIT_FRAME, "vertices of the watertight mesh"),
        "faces": FieldSpec("int32", ("f", 3), "index", "", "triangles, counter-clockwise seen from outside"),
        "vertex_parts": FieldSpec("uint8", ("v",), "label", "", f"part of each vertex: {parts.describe_labels()}"),
        "face_cut": FieldSpec(
            "uint8",
            ("f",),
            "label",
            "",
            "1 for triangles made by cutting (the neck's cap, the ball of a frontal solid), 0 for all others",
        ),
        "landmarks": FieldSpec("float32", ("S", 68, 3), "unit", _UNIT_FRAME, _stage_landmarks(parts)),
        "stage_points": FieldSpec("float32", ("S", "M", 3), "unit", _UNIT_FRAME, _stage_points(parts)),
        "to_mm": FieldSpec("float64", (4, 4), "mm per unit", _UNIT_FRAME, _TO_MM),
    }


OPTIONAL_SETS = ("wide", "poi")
"""Sets of points near the surface that samples only have if they were asked for (sample.wide, sample.poi)."""


def samples_fields(parts: Parts, optional: Collection[str] = ()) -> dict[str, FieldSpec]:
    """Points, normals and signed distances. Each set is stored shuffled, so that any contiguous window is a uniform random subset.

    optional: which of `OPTIONAL_SETS` there are. Another set that a preset leaves out (near-surface points in `paper`) has length 0.
    """

    def points(count: str, what: str) -> FieldSpec:
        return FieldSpec("float32", (count, 3), "unit", _UNIT_FRAME, what)

    def normals(count: str, what: str) -> FieldSpec:
        return FieldSpec("float32", (count, 3), "direction", _UNIT_FRAME, what)

    def distances(count: str, what: str) -> FieldSpec:
        return FieldSpec("float32", (count,), "unit", "", what)

    def labels(count: str, what: str) -> FieldSpec:
        return FieldSpec("uint8", (count,), "label", "", f"{what}: {parts.describe_labels()}")

    surfaces = surfaces_fields(parts)
    meant = {
        "wide": ("N_w", "surface points moved by Gaussian offsets (sigmas as shares of the ball's radius)"),
        "poi": ("N_p", "surface points, most of them near eyes, nose tip and mouth, moved by Gaussian offsets (sigmas in mm)"),
    }
    further: dict[str, FieldSpec] = {}
    for name in (name for name in OPTIONAL_SETS if name in optional):
        count, what = meant[name]
        further |= {
            f"{name}_points": points(count, what),
            f"{name}_sdf": distances(count, f"exact signed distance of the {name} points, negative inside"),
            f"{name}_normals": normals(count, f"gradient of the signed distance at the {name} points"),
            f"{name}_parts": labels(count, f"part of the surface point nearest to each {name} point"),
        }
    return {
        "surface_points": points("N_s", "points on the surface"),
        "surface_normals": normals("N_s", "unit outward normals of the surface points"),
        "surface_parts": labels("N_s", "part of each surface point"),
        "near_points": points("N_n", "surface points moved by Gaussian offsets (sigmas in mm)"),
        "near_sdf": distances("N_n", "exact signed distance of the near points, negative inside"),
        "near_normals": normals("N_n", "gradient of the signed distance at the near points"),
        "near_parts": labels("N_n", "part of the surface point nearest to each near point"),
        "free_points": points("N_f", "points uniform in the unit ball"),
        "free_sdf": distances("N_f", "exact signed distance of the free points, negative inside"),
        "free_normals": normals("N_f", "gradient of the signed distance at the free points"),
        **further,
        "landmarks": surfaces["landmarks"],
        "stage_points": surfaces["stage_points"],
        "to_mm": surfaces["to_mm"],
    }


def fields_of(kind: str, parts: Parts | None) -> dict[str, FieldSpec]:
    """All fields of a kind, with these parts (heads have none). Raises StoreError for an unknown kind, or missing parts."""
    if kind == "heads":
        return heads_fields()
    makers = {"composites": composites_fields, "surfaces": surfaces_fields}
    if kind not in (*makers, "samples"):
        raise StoreError(f"dataset kind {kind!r} is not one of {', '.join(KINDS)}")
    if parts is None:
        raise StoreError(f"a dataset of {kind} needs parts")
    return makers[kind](parts) if kind in makers else samples_fields(parts, OPTIONAL_SETS)
