"""What is fuzzed: the readers of files that strangers may have made, seeds for each, and the limits that every input runs under.

A reader either understands its input or raises a FacegraftError of one short line; anything else (another exception, more than
SECONDS, more than MEMORY beyond what the process had) is a finding.
"""

from __future__ import annotations

import io
import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from hypothesis import strategies as st

from facegraft.engine import PlannedItem, StagePlan, status
from facegraft.engine.plan import PLAN_FILE, read_plan, shard_plan, write_plan
from facegraft.engine.run_record import read_run, run_record, write_run
from facegraft.errors import FacegraftError
from facegraft.heads import synthetic
from facegraft.meshfiles.meshfile import read_mesh
from facegraft.meshfiles.points import read_points
from facegraft.meshfiles.rawmesh import RawMesh
from facegraft.recipe import load_recipe
from facegraft.regions.regionmap import ROLES, RegionMap, load_region_map
from facegraft.resources import resource_folder
from facegraft.settings import parse_setting
from facegraft.stages import STAGES
from facegraft.store import (
    DatasetSchema,
    FieldSpec,
    RejectedItem,
    ShardItem,
    canonical_json,
    finish_dataset,
    open_dataset,
    verify_dataset,
    write_region_map,
    write_shard,
    write_shared,
)
from facegraft.store.atomic import sha256_bytes
from facegraft.store.document import CHECKSUM, seal, unseal
from facegraft.store.schema import commit_name
from facegraft.store.writer import (
    DATASET_FILE,
    INDEX_FILE,
    REGION_MAP_FILE,
    RUN_FILE,
    SHARD_FOLDER,
    SHARED_FILE,
    load_commit,
)

SECONDS, WALL_SECONDS = 20.0, 300.0
MEMORY = 1 << 30
LONGEST_LINE = 4000


class Hang(BaseException):
    """One input took longer than SECONDS of the processor, or WALL_SECONDS of waiting."""


@dataclass(frozen=True)
class Target:
    """A kind of file: `seeds(folder)` makes whole ones, `feed(data, folder)` has the reader read one; `tokens` are its words.

    `prepare(folder)` makes what feeding needs. It runs outside of the limits: the writer is not under test, and Arrow reserves a gigabyte
    of addresses when it first allocates.
    """

    seeds: Callable[[Path], list[bytes]]
    feed: Callable[[bytes, Path], None]
    tokens: tuple[bytes, ...]
    prepare: Callable[[Path], object] = lambda folder: None


def check(target: Target, data: bytes, folder: Path) -> FacegraftError | None:
    """Feed one input under the limits; the refusal, None where it was understood. Everything else is raised."""
    target.prepare(folder)
    with limits():
        try:
            target.feed(data, folder)
        except FacegraftError as error:
            text = str(error)
            assert "\n" not in text and "\r" not in text, f"more than one line: {text[:500]!r}"
            assert 0 < len(text) <= LONGEST_LINE, f"a message of {len(text)} characters: {text[:500]!r}"
            return error
    return None


@contextmanager
def limits(seconds: float = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """At most so much time (raises Hang) and so much more address space (MemoryError) than now."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise Hang(f"no end within {seconds:g} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    # Time of the processor, because a machine may be busy with other work; and of the clock, because a pipe costs no time of the processor.
    timers = {signal.ITIMER_PROF: (signal.SIGPROF, seconds), signal.ITIMER_REAL: (signal.SIGALRM, WALL_SECONDS)}
    before = {number: signal.signal(number, ring) for number, _ in timers.values()}
    for timer, (_, wait) in timers.items():
        signal.setitimer(timer, wait)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes], tokens: tuple[bytes, ...]) -> bytes:
    """A seed with a few edits: bits flipped, pieces cut out, doubled, moved, replaced by words of the format or by odd numbers."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["bit", "byte", "cut", "end", "double", "token", "token", "number", "splice"]))
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 32))
        if kind == "bit" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "end":
            del data[at:]
        elif kind == "double":
            data[at:at] = data[at : at + length] * draw(st.sampled_from([1, 2, 50]))
        elif kind == "token":
            data[at : at + draw(st.integers(0, 8))] = draw(st.sampled_from(tokens))
        elif kind == "number":
            at, stop = _number_near(data, at)
            data[at:stop] = draw(st.sampled_from(NUMBERS))
        else:
            other = draw(st.sampled_from(seeds))
            data[at:] = other[draw(st.integers(0, max(0, len(other) - 1))) :]
    return bytes(data)


NUMBERS = (
    b"0", b"-1", b"1e999", b"-1e999", b"nan", b"inf", b"1e-400", b"0.5", b"2147483648", b"4294967295", b"-9223372036854775808",
    b"9223372036854775808", b"18446744073709551616", b"1000000000000", b"9" * 5000, b"1_0", b"0x10", b"1:2:3", b"\xd9\xa3", b"",
)  # fmt: skip


def _number_near(data: bytearray, at: int) -> tuple[int, int]:
    """Where the next number from `at` starts and ends."""
    while at < len(data) and not 48 <= data[at] <= 57:
        at += 1
    stop = at
    while stop < len(data) and 48 <= data[stop] <= 57:
        stop += 1
    return at, stop


# -- meshes -------------------------------------------------------------------------------------------------------------


def small_head(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """The first triangles [F, 3] of a synthetic head, and their vertices [V, 3] in mm."""
    head = synthetic.head(synthetic.sample_identity(np.random.default_rng(1)))
    used, corners = np.unique(synthetic.template().faces[:count], return_inverse=True)
    return head[used], corners.reshape(-1, 3)


def obj_seeds(_folder: Path) -> list[bytes]:
    """Plain, with texture corners and comments, with negative corners and CRLF, quads."""
    vertices, faces = small_head()
    plain = "".join(f"v {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in vertices)
    corners = "".join(f"f {a} {b} {c}\n" for a, b, c in faces + 1)
    textured = "# a head\nmtllib head.mtl\ng skin\n" + plain + "vt 0.5 0.5\nvn 0 0 1\nusemtl skin\n"
    textured += "".join(f"f {a}/1/1 {b}//1 {c}/1\n" for a, b, c in faces + 1) + "l 1 2\n"
    counted = plain + "".join(f"  f {a} {b} \\\n {c} # last\n" for a, b, c in faces[:20] - len(vertices))
    quads = plain + "".join(
        f"f {a} {b} {c} {d}\n" for (a, b, c), (_, _, d) in zip(faces[::2] + 1, faces[1::2] + 1, strict=False)
    )
    return [text.encode() for text in (plain + corners, textured, counted.replace("\n", "\r\n"), quads)]


def ply_seeds(_folder: Path) -> list[bytes]:
    """ASCII and binary of both byte orders, with a colour, and with a further element and face property."""
    vertices, faces = small_head()

    def header(encoding: str, more: str = "") -> bytes:
        return (
            f"ply\nformat {encoding} 1.0\ncomment synthetic head\nelement vertex {len(vertices)}\nproperty float x\nproperty float y\n"
            f"property float z\nproperty uchar red\nelement face {len(faces)}\nproperty list uchar int vertex_indices\n{more}end_header\n"
        ).encode()

    rows = [f"{x:.4f} {y:.4f} {z:.4f} 200\n" for x, y, z in vertices] + [f"3 {a} {b} {c}\n" for a, b, c in faces]
    seeds = [header("ascii") + "".join(rows).encode()]
    for order, name in (("<", "binary_little_endian"), (">", "binary_big_endian")):
        body = np.zeros(len(vertices), [("p", order + "f4", 3), ("red", "u1")])
        body["p"] = vertices
        lists = np.zeros(len(faces), [("n", "u1"), ("v", order + "i4", 3)])
        lists["n"], lists["v"] = 3, faces
        flagged = np.zeros(len(faces), [("n", "u1"), ("v", order + "i4", 3), ("flag", "u1")])
        flagged["n"], flagged["v"] = 3, faces
        seeds.append(header(name) + body.tobytes() + lists.tobytes())
        seeds.append(
            header(name, "property uchar flag\nelement edge 0\nproperty int a\n") + body.tobytes() + flagged.tobytes()
        )
    return seeds


def mesh_feeder(suffix: str) -> Callable[[bytes, Path], None]:
    def feed(data: bytes, folder: Path) -> None:
        path = folder / f"head{suffix}"
        path.write_bytes(data)
        _sound(read_mesh(path))

    return feed


def scan_seeds(suffix: str) -> Callable[[Path], list[bytes]]:
    """Points with and without normals, and what the mesh formats can hold of a scan beside a head's."""
    vertices, faces = small_head()

    def seeds(folder: Path) -> list[bytes]:
        if suffix == ".npy":
            found = []
            for table in (
                vertices,
                np.hstack([vertices, vertices / np.linalg.norm(vertices, axis=1, keepdims=True)]).astype("<f4"),
                np.asfortranarray(vertices.astype(">f8")),
            ):
                stream = io.BytesIO()
                np.save(stream, table)
                found.append(stream.getvalue())
            return found
        if suffix == ".xyz":
            rows = "".join(f"{x:.4f}, {y:.4f} {z:.4f}\n" for x, y, z in vertices)
            oriented = "# x y z nx ny nz\r\n" + "".join(
                f"{x:.4f}\t{y:.4f} {z:.4f} 0 0 1 # p\r\n" for x, y, z in vertices
            )
            return [rows.encode(), oriented.encode()]
        if suffix == ".ply":
            head = "ply\nformat ascii 1.0\nelement vertex 5\n" + "".join(
                f"property float {p}\n" for p in ("x", "y", "z", "nx", "ny", "nz")
            )
            head += (
                "element face 1\nproperty list uchar int vertex_index\nproperty list uchar float texcoord\nend_header\n"
            )
            return [*ply_seeds(folder), (head + "0 1 2 0 0 1\n" * 5 + "5 0 1 2 3 4 2 0.5 0.5\n").encode()]
        plain = "".join(f"v {x:.4f} {y:.4f} {z:.4f}\nvn 0 {i} 1\n" for i, (x, y, z) in enumerate(vertices))
        corners = "".join(f"f {a}//{a} {b}/1/{b} {c}//-1\n" for a, b, c in faces + 1)
        return [*obj_seeds(folder), plain.encode(), (plain + corners + "f 1 2 3 4 5 6 7\n").encode()]

    return seeds


def scan_feeder(suffix: str) -> Callable[[bytes, Path], None]:
    def feed(data: bytes, folder: Path) -> None:
        path = folder / f"scan{suffix}"
        path.write_bytes(data)
        cloud = read_points(path)
        n = len(cloud.points)
        assert n and cloud.points.shape == (n, 3) and np.isfinite(cloud.points).all()
        if cloud.normals is not None:
            assert cloud.normals.shape == (n, 3) and not np.isnan(cloud.normals).any()
        if cloud.faces is not None:
            assert cloud.faces.shape[1] == 3 and cloud.faces.min() >= 0 and cloud.faces.max() < n

    return feed


def _sound(mesh: RawMesh) -> None:
    assert (
        mesh.vertices.ndim == 2
        and mesh.vertices.shape[1] == 3
        and len(mesh.vertices)
        and np.isfinite(mesh.vertices).all()
    )
    assert mesh.polygons.ndim == 2 and mesh.polygons.shape[1] == 4 and len(mesh.polygons)
    assert (
        mesh.polygons[:, :3].min() >= 0 and mesh.polygons[:, 3].min() >= -1 and mesh.polygons.max() < len(mesh.vertices)
    )
    assert len(mesh.polygons_sha256) == 64


# -- region maps --------------------------------------------------------------------------------------------------------


def region_seeds(_folder: Path) -> list[bytes]:
    """The map of the synthetic heads with shorter lists, one topology field a line as `save` writes it, and without what is optional."""
    whole = load_region_map("synthetic").to_json()
    for parts in whole["regions"].values():
        for disk in (disk for part in parts for disk in part["disks"]):
            disk["loop"], disk["interior"] = disk["loop"][:6], disk["interior"][:8]
    for group in whole["groups"].values():
        group["ranges"] = group["ranges"][:2]
    whole |= {"symmetry": None, "openings": {name: loop[:6] for name, loop in whole["openings"].items()}}
    if whole["neck_crop"] is not None:
        whole["neck_crop"] = {name: values[:6] for name, values in whole["neck_crop"].items()}
    tiny = {**whole, "vertex_count": 70, "landmarks68": list(range(68)), "symmetry": list(range(70)), "neck_crop": None}
    tiny |= {"openings": {}, "groups": {"skin": {"ranges": [[0, 40], [50, 70]], "role": "surface"}}}
    disk = {"disk": "nose", "loop": [1, 2, 3], "interior": [4, 5], "followers": [], "residual_mm": [1.3, 1.1]}
    part = {"part": "nose", "landmarks": [27, 30, 31, 33, 35], "holds": [30], "disks": [disk]}
    tiny |= {"regions": {"eyes": [part]}, "provenance": "made for a test"}
    return [json.dumps(document, separators=(",", ":")).encode() for document in (whole, tiny)]


def feed_region_map(data: bytes, folder: Path) -> None:
    path = folder / "map.json"
    path.write_bytes(data)
    found = RegionMap.from_json(path)
    for name in found.regions:
        assert len(found.vertex_labels(name)) == found.vertex_count
    for role in ROLES:
        chosen = found.vertices_of(role)
        assert not len(chosen) or (chosen.min() >= 0 and chosen.max() < found.vertex_count)
    assert RegionMap.from_json(found.to_json()).to_json() == found.to_json()
    canonical_json(found.to_json())


# -- recipes ------------------------------------------------------------------------------------------------------------


def recipe_seeds(_folder: Path) -> list[bytes]:
    """All shipped recipes, and settings of the command line."""
    shipped = [path.read_bytes() for path in sorted(resource_folder("pipelines").glob("*.yaml"))]
    return [
        *shipped,
        b"graft: {donors: 4, stiffness: .inf}\n",
        b"ingest:\n  kind: meshes\n  expressions: [neutral, smile]\n  test_subjects: [1, b]\n",
    ]


def feed_recipe(data: bytes, folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_bytes(data)
    if len(data) < 100:
        parse_setting("sample.near=" + data.decode("utf-8", "replace"))
    recipe = load_recipe(path)
    for stage in STAGES:
        canonical_json(stage.parameters.parse(recipe.of(stage.name)).as_json())


# -- manifests ----------------------------------------------------------------------------------------------------------

PLAN = "5" * 64
SHARDS = {"00000-of-00002.safetensors": ["a0", "a1", "a2"], "00001-of-00002.safetensors": ["b0", "b1"]}
FIRST = next(iter(SHARDS))
MANIFESTS = (
    DATASET_FILE, f"{SHARD_FOLDER}/{commit_name(FIRST)}", RUN_FILE, INDEX_FILE, PLAN_FILE, REGION_MAP_FILE, SHARED_FILE, f"{SHARD_FOLDER}/{FIRST}",
)  # fmt: skip
RESEALED = len(MANIFESTS)
"""First byte of a manifest's input: which file it is for; + RESEALED: with checksums made to agree, as somebody who means harm would."""


def make_dataset(folder: Path) -> Path:
    """A finished dataset with run.json and plan.parquet: five items (one rejected) of ten vertices of a synthetic head."""
    vertices, _ = small_head()
    fields = {
        "vertices": FieldSpec("float32", ("V", 3), "mm", "head", "points"),
        "labels": FieldSpec("uint8", ("n",), "label", "", "labels"),
    }
    topology = {"name": "toy", "vertex_count": 10, "faces_sha256": None}
    schema = DatasetSchema("heads", topology, 1.0, "head", fields, {"subject": "string", "score": "float64"})
    keys = list(chain.from_iterable(SHARDS.values()))
    items = [
        PlannedItem(key, {"subject": key[0]}, {"number": number, "file": f"{key}.obj"})
        for number, key in enumerate(keys)
    ]
    shared = {"faces": np.array([[0, 1, 2], [2, 3, 4]], np.int32)}
    plan = StagePlan(schema, items, shared, {"name": "toy"}, 3, {"toy": "1"})
    sharded = shard_plan(plan)
    record = run_record("toy:Toy", plan, sharded, [], {"near": 3}, 0)
    folder.mkdir()
    write_plan(folder, sharded)
    write_run(folder, record)
    write_shared(folder, shared)
    write_region_map(folder, {"name": "toy"})
    for number, (shard, planned) in enumerate(SHARDS.items()):
        written = [
            ShardItem(
                key,
                {
                    "vertices": vertices[5 * number + i :][:10].astype(np.float32),
                    "labels": np.arange(i, dtype=np.uint8),
                },
                {"subject": key[0], "score": i / 3},
            )
            for i, key in enumerate(planned[: 2 - number])
        ]
        rejected = [RejectedItem(key, "mesh is not closed", {"subject": key[0]}) for key in planned[len(written) :]]
        write_shard(folder, shard, written, rejected, schema, record.commit_sha256())
    finish_dataset(folder, schema, SHARDS, record.commit_sha256())
    return folder


def manifest_seeds(folder: Path) -> list[bytes]:
    """Every file of a finished dataset, as it is and for resealing."""
    whole = _pristine(folder)
    files = [(whole / name).read_bytes() for name in MANIFESTS]
    return [bytes([number + resealed]) + data for resealed in (0, RESEALED) for number, data in enumerate(files)]


def feed_manifest(data: bytes, folder: Path) -> None:
    """Put the file into a copy of a finished dataset and read all of it, in every way there is."""
    whole, copy = _pristine(folder), folder / "dataset"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(whole, copy)
    choice, content = (data[0] if data else 0) % (2 * RESEALED), data[1:]
    name = MANIFESTS[choice % RESEALED]
    place(copy, name, content, forge=choice >= RESEALED)
    refusals = [error for action in (read_all, read_run_folder) if (error := _refusal(action, copy)) is not None]
    findings = verify_dataset(copy)
    assert all("\n" not in finding and len(finding) <= LONGEST_LINE for finding in findings)
    if refusals and refusals[0] is not None:
        raise refusals[0]


def place(folder: Path, name: str, content: bytes, *, forge: bool) -> None:
    """Write one file of a dataset; `forge`: seal it anew where it is a sealed document, and let dataset.json agree with it."""
    if forge and name in MANIFESTS[:3]:
        content = _resealed(content)
    (folder / name).write_bytes(content)
    if not forge or name in MANIFESTS[:3]:
        return
    document = unseal((folder / DATASET_FILE).read_bytes(), "", "")
    agreed = {"bytes": len(content), "sha256": sha256_bytes(content)}
    if name == INDEX_FILE:
        document["index"] = agreed
    elif name in document["attachments"]:
        document["attachments"][name] = agreed
    else:
        for shard in document["shards"]:
            if name == f"{SHARD_FOLDER}/{shard['name']}":
                shard |= agreed
    (folder / DATASET_FILE).write_bytes(seal(document))


def _resealed(content: bytes) -> bytes:
    try:
        document = json.loads(content)
        document.pop(CHECKSUM, None)
        return seal(document)
    except (ValueError, AttributeError, TypeError, RecursionError, FacegraftError):
        return content


def read_all(folder: Path) -> list[Any]:
    """Everything that a dataset's reader offers; dtypes and shapes must be those of the schema."""
    ds = open_dataset(folder)
    everything: list[Any] = [ds.index.to_pylist(), ds.region_map, sorted(ds.shared)]
    for key in ds:
        item = ds[key]
        for name, array in item.items():
            field = ds.schema.fields[name]
            assert array.dtype.name == field.dtype and array.ndim == len(field.shape)
            assert ds.shape(key, name) == array.shape
            everything.append(ds.window(key, name, 0, min(2, len(array))) if array.ndim else array)
        everything.append(item)
    return everything


def read_run_folder(folder: Path) -> None:
    """What status and retry read of a run's folder."""
    status(folder)
    record = read_run(folder)
    read_plan(folder, record.dataset_schema().columns).sha256()
    for shard in SHARDS:
        load_commit(folder, shard)


def _refusal(action: Callable[[Path], Any], folder: Path) -> FacegraftError | None:
    try:
        action(folder)
    except FacegraftError as error:
        return error
    return None


def _pristine(folder: Path) -> Path:
    """A finished dataset, made once; never a part of one."""
    whole = folder / "pristine"
    if not whole.exists():
        make_dataset(folder / "unfinished").rename(whole)
    return whole


# fmt: off
_OBJ_WORDS = (b"v ", b"f ", b"vt ", b"vn ", b"\n", b"\r", b" ", b"#", b"\\\n", b"/", b"//", b"-", b"\t", b"\0", b"\x0b", b"\xff", b" " * 300, b"\nv", b"\nf ")
_PLY_WORDS = (
    b"ply\n", b"end_header\n", b"element ", b"element vertex ", b"element face ", b"property ", b"property list ", b"list ", b"char ", b"uchar ",
    b"int ", b"uint ", b"float ", b"double ", b"short ", b"x\n", b"vertex_indices\n", b"format ascii 1.0\n", b"format binary_little_endian 1.0\n",
    b"format binary_big_endian 1.0\n", b"comment ", b"\n", b"\r\n", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\xc0\x7f",
)
TARGETS: dict[str, Target] = {
    "scan.obj": Target(scan_seeds(".obj"), scan_feeder(".obj"), _OBJ_WORDS),
    "scan.ply": Target(scan_seeds(".ply"), scan_feeder(".ply"), _PLY_WORDS),
    "scan.xyz": Target(scan_seeds(".xyz"), scan_feeder(".xyz"), (b"\n", b"\r", b",", b" ", b"#", b"\t", b"\0", b"\x0b", b"nan", b"\xff\xfe", b"-", b"0 0 0\n")),
    "scan.npy": Target(
        scan_seeds(".npy"), scan_feeder(".npy"),
        (b"\x93NUMPY", b"'descr': ", b"'<f8'", b"'|O'", b"'<i4'", b"'<c16'", b"True", b"(3,)", b"(-1, 3)", b"[" * 3000, b"{", b"}", b"\n", b"'", b"\x03\x00"),
    ),
    "obj": Target(obj_seeds, mesh_feeder(".obj"), _OBJ_WORDS),
    "ply": Target(ply_seeds, mesh_feeder(".ply"), _PLY_WORDS),
    "regions": Target(
        region_seeds,
        feed_region_map,
        (b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"NaN", b"Infinity", b'""', b"[" * 3000, b'"\\ud800"', b'{"a":1}', b"[0,70]", b"1.5", b'"vertex_count":'),
    ),
    "recipe": Target(
        recipe_seeds,
        feed_recipe,
        (
            b": ", b"- ", b"&a ", b"*a", b"<<: ", b"!!python/object/apply:os.system ", b"!!int ", b"!!float ", b"!!timestamp ", b"!!bool ", b"!!binary ", b"!!set ",
            b"? ", b"[", b"]", b"{", b"}", b"|", b">", b"'", b'"', b"\n", b"\n  ", b"---\n", b"...\n", b"%YAML 1.1\n", b"2001-99-99", b"0b", b"0x", b"0o", b"[" * 2000, b"preset: paper",
        ),
    ),
    "manifest": Target(
        manifest_seeds,
        feed_manifest,
        (b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"{}", b"[]", b'""', b'"../x"', b'"a\\u0000b"', b'"\\ud800"', b'"\\u001b[2J"', b"\x00\x00\x00\x7f", b"\xff" * 8, b"PAR1"),
        _pristine,
    ),
}
# fmt: on
