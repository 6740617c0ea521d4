"""Short fuzzing of every reader in the ordinary tests, and what the long runs (`make fuzz`) have found, one input each."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import MANIFESTS, RESEALED, TARGETS, check, mutated, ply_seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SHORT = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_whole_files_are_read(name: str, folder: Path) -> None:
    seeds = TARGETS[name].seeds(folder)
    refused = [check(TARGETS[name], seed, folder) for seed in seeds]
    # Of the recipes' seeds none may be refused but those that leave something out on purpose.
    assert all(error is None for error in refused[: len(seeds) if name != "recipe" else -2]), refused


@pytest.mark.parametrize("name", sorted(TARGETS))
@SHORT
@given(data=st.data())
def test_damaged_files_are_understood_or_refused_in_one_line(name: str, folder: Path, data: st.DataObject) -> None:
    target = TARGETS[name]
    check(target, data.draw(mutated(target.seeds(folder), target.tokens)), folder)


def ply(text: str, body: bytes = b"") -> bytes:
    return text.replace(" | ", "\n").encode() + b"\nend_header\n" + body


VERTICES = "element vertex 3 | property float x | property float y | property float z"
FACES = "element face 1 | property list uchar int vertex_indices"
TRIANGLE = b"0 0 0\n1 0 0\n0 1 0\n"
MAP = '{"format":"facegraft-region-map","version":2,"name":"t","vertex_count":70,"face_count":9,"faces_sha256":"","mm_per_unit":1,'
MAP += f'"landmarks68":{list(range(68))},"regions":{{}},"groups":{{}}'

FOUND: dict[str, tuple[str, bytes, str]] = {
    "a vertex line indented by a page": ("obj", b" " * 200_000 + b"v 0 0 0\n" + b"v 1 0 0\nv 0 1 0\n" * 20_000 + b"f 1 2 99999\n", "does not exist"),
    "a count below zero": ("ply", ply(f"ply | format ascii 1.0 | {VERTICES.replace('3', '-3', 1)} | {FACES}", TRIANGLE), "header line not understood"),
    "10^12 vertices": ("ply", ply(f"ply | format ascii 1.0 | {VERTICES.replace('3', '1000000000000', 1)} | {FACES}", TRIANGLE), "ends too early"),
    "10^12 vertices, binary": ("ply", ply(f"ply | format binary_little_endian 1.0 | {VERTICES.replace('3', '1000000000000', 1)} | {FACES}"), "ends too early"),
    "10^12 rows without properties": ("ply", ply("ply | format ascii 1.0 | element vertex 1000000000000"), "rows but no property"),
    "rows of nothing, binary": ("ply", ply("ply | format binary_little_endian 1.0 | element vertex 9"), "rows but no property"),
    "a property twice": ("ply", ply(f"ply | format binary_little_endian 1.0 | {VERTICES} | property float x", b"\0" * 48), "a property twice"),
    "a list of length -1 for ever": ("ply", ply(f"ply | format ascii 1.0 | {VERTICES} | {FACES.replace('1', '1000000000000', 1)}", TRIANGLE + b"-1 0 0\n"), "length -1"),
    "a list of length nan": ("ply", ply(f"ply | format ascii 1.0 | {VERTICES} | {FACES}", TRIANGLE + b"nan 0 1 2\n"), "length nan"),
    "a list of length -1, binary": (
        "ply",
        ply(f"ply | format binary_little_endian 1.0 | {VERTICES} | {FACES.replace('uchar', 'char')}", b"\0" * 36 + b"\xff" * 13),
        "length -1",
    ),
    "a list of length inf, binary": (
        "ply",
        ply(f"ply | format binary_big_endian 1.0 | {VERTICES} | {FACES.replace('uchar', 'float')}", b"\0" * 36 + b"\x7f\x80\0\0" + b"\0" * 12),
        "length inf",
    ),
    "a list of four billion, binary": (
        "ply",
        ply(f"ply | format binary_little_endian 1.0 | {VERTICES} | {FACES.replace('uchar', 'uint')}", b"\0" * 36 + b"\xff" * 16),
        "ends too early",
    ),
    "half a corner": ("ply", ply(f"ply | format ascii 1.0 | {VERTICES} | {FACES}", TRIANGLE + b"3 0 1 1.5\n"), "no whole number"),
    "a header line of a megabyte": ("ply", ply("ply | format ascii 1.0 | " + "x" * 1_000_000), "header line not understood"),
    "no text": ("regions", b"\xff\xfe\xfa{}", "not a JSON file"),
    "nested beyond the stack": ("regions", b"[" * 100_000, "not a JSON file"),
    "a number of a million digits": ("regions", (MAP + ',"symmetry":[' + "9" * 1_000_000 + "]}").encode(), "not a JSON file"),
    "a number beyond 64 bits": ("regions", (MAP + ',"symmetry":[99999999999999999999]}').encode(), "symmetry must be a list of vertex indices"),
    "a number beyond all bounds": ("regions", (MAP + "}").replace('"vertex_count":70', '"vertex_count":1e999').encode(), "vertex_count must be a whole number"),
    "an array of a terabyte": ("regions", (MAP + "}").replace('"vertex_count":70', '"vertex_count":1000000000000').encode(), "vertex_count must be"),
    "a list for a table": ("regions", (MAP + "}").replace('"regions":{}', '"regions":[]').encode(), "regions must map names to values"),
    "the same range a thousand times": (
        "regions",
        (MAP + "}").replace('"groups":{}', f'"groups":{{"a":{{"role":"surface","ranges":{[[0, 70]] * 1000}}}}}').encode(),
        "groups overlap",
    ),
    "half a vertex": ("regions", (MAP + ',"openings":{"eye":[1.5]}}').encode(), "openings.eye must be a list of vertex indices"),
    "a field twice": ("regions", (MAP + ',"name":"u"}').encode(), "'name' comes twice"),
    "a name that clears the screen": ("regions", (MAP + "}").replace('"name":"t"', '"name":"\\u001b[2J"').encode(), "name must be a line of text"),
    "no unit": ("regions", (MAP + "}").replace('"mm_per_unit":1', '"mm_per_unit":NaN').encode(), "mm_per_unit must be a positive number"),
    "aliases that double thirty times": (
        "recipe",
        b"graft: {a: &a [x, x], " + b", ".join(b"%c: &%c [*%c, *%c]" % (b + 1, b + 1, b, b) for b in range(97, 121)) + b"}\n",
        "aliases",
    ),
    "python": ("recipe", b"graft: {donors: !!python/object/apply:os.system [exit 1]}\n", "could not determine a constructor"),
    "a list nested beyond the stack": ("recipe", b"graft: {donors: " + b"[" * 50_000, "not a YAML file"),
    "an integer of five thousand digits": ("recipe", b"graft: {donors: " + b"9" * 5000 + b"}\n", "a value cannot be read"),
    "an integer that is none": ("recipe", b"graft: {donors: !!int x}\n", "a value cannot be read"),
    "an integer of nothing": ("recipe", b"graft: {donors: !!int ''}\n", "a value cannot be read"),
    "a truth that is none": ("recipe", b"graft: {donors: !!bool x}\n", "a value cannot be read"),
    "a time that is none": ("recipe", b"graft: {donors: !!timestamp x}\n", "a value cannot be read"),
    "a day that is none": ("recipe", b"graft: {donors: !!timestamp 2001-99-99}\n", "a value cannot be read"),
    "a stage twice": ("recipe", b"graft: {donors: 4}\ngraft: {donors: 5}\n", "'graft' is given twice"),
    "a parameter without a name": ("recipe", b"graft: {4: 4}\n", "a parameter's name is a word"),
    "a parameter's name of two lines": ("recipe", b'ingest: {kind: synthetic, "a\\nb": 1}\n', r"unknown parameter ingest.'a\nb'"),
    "three thousand unknown parameters": ("recipe", b"ingest: {" + b", ".join(b"a%d: 1" % i for i in range(3000)) + b"}\n", "and 2993 more"),
    "a value of ten thousand entries": ("recipe", b"ingest: {kind: synthetic, subjects: [" + b"1, " * 9_999 + b"1]}\n", "ingest.subjects=[1, 1,"),
    "a preset that is a list": ("recipe", b"ingest: {kind: synthetic}\ngraft: {preset: [paper]}\n", "there is no preset ['paper']"),
    "a recipe of a megabyte": ("recipe", b"# " + b"x" * 1_000_000, "a recipe has at most"),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(FOUND))
def test_what_fuzzing_has_found_stays_refused(what: str, tmp_path: Path) -> None:
    name, data, says = FOUND[what]
    error = check(TARGETS[name], data, tmp_path)
    assert error is not None and says in str(error), error


def test_other_lists_than_corners_may_hold_any_numbers(tmp_path: Path) -> None:
    """Texture coordinates are a list of floats; long rows and wide types are no damage either."""
    text = f"ply | format ascii 1.0 | {VERTICES} | {FACES} | property list uchar float texcoord"
    assert check(TARGETS["ply"], ply(text, TRIANGLE + b"3 0 1 2 6 0.5 0.5 0.25 0 1 1e9\n"), tmp_path) is None
    wide = f"ply | format ascii 1.0 | {VERTICES} | element strip 1 | property list int float s | {FACES}"
    assert check(TARGETS["ply"], ply(wide, TRIANGLE + b"70000 " + b"1 " * 70_000 + b"3 0 1 2\n"), tmp_path) is None


@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_a_pipe_is_no_mesh(suffix: str, tmp_path: Path) -> None:
    import os

    from facegraft.meshfiles.errors import MeshError
    from facegraft.meshfiles.meshfile import read_mesh

    os.mkfifo(tmp_path / f"head{suffix}")
    with pytest.raises(MeshError, match="is not a regular file"):
        read_mesh(tmp_path / f"head{suffix}")


def test_a_small_ply_stays_small_in_memory(tmp_path: Path) -> None:
    """A byte a row, of an element that nobody asked for."""
    import tracemalloc

    rows = 50_000
    whole = ply_seeds(tmp_path)[1]
    data = whole.replace(
        b"end_header\n",
        f"element strip {rows}\nproperty list uchar int s\nproperty list uchar int t\nend_header\n".encode(),
    )
    data += b"\0" * (2 * rows)
    tracemalloc.start()
    assert check(TARGETS["ply"], data, tmp_path) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * len(data)


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize("name", MANIFESTS)
def test_every_manifest_may_be_anything(name: str, forged: bool, folder: Path) -> None:
    choice = bytes([MANIFESTS.index(name) + (RESEALED if forged else 0)])
    for content in (
        b"",
        b"\0" * 100,
        b"{}",
        b"[]",
        b"null",
        b'{"document_sha256":""}',
        b"[" * 50_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b"PAR1" * 9,
        b"\xff" * 64,
    ):
        error = check(TARGETS["manifest"], choice + content, folder)
        # The commit record is not needed for reading, nor is it believed; the region map may hold any object.
        assert error is not None or name.startswith("shards") or (name == "region_map.json" and forged), content[:20]
