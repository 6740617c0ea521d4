"""`facegraft regions`: region maps of topologies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from facegraft.cli.group import Commands
from facegraft.cli.options import LocalPath

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facegraft.regions.regionmap import RegionMap


@click.group(cls=Commands)
def regions() -> None:
    """Region maps: which vertices of a topology belong to which part of the face."""


@regions.command("build")
@click.argument("template", type=LocalPath())
@click.option(
    "--landmarks",
    type=LocalPath(),
    required=True,
    help="68 landmarks: indices (.npz, .npy, .json, .txt) or barycentric (.npz).",
)
@click.option("--key", default=None, help="Name of the array in the landmark file.")
@click.option("--name", required=True, help="Name of the topology.")
@click.option(
    "--mm-per-unit",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Millimetres per unit of the mesh; default: guessed from the distance between the eyes.",
)
@click.option(
    "--set",
    "sets",
    type=LocalPath(dir_okay=False),
    multiple=True,
    help="Your own region set: a YAML file of outlines, or a JSON or npz file of vertex masks; repeatable. "
    "With it, the map has only the given sets; without it, those that facegraft ships.",
)
@click.option("-o", "--output", type=LocalPath(dir_okay=False), required=True, help="JSON file to write.")
def regions_build(
    template: Path,
    landmarks: Path,
    key: str | None,
    name: str,
    mm_per_unit: float | None,
    sets: tuple[Path, ...],
    output: Path,
) -> None:
    """Find the parts of a new topology from one TEMPLATE mesh (OBJ, PLY) and its 68 landmarks.

    \b
    Examples: facegraft regions build 1_neutral.obj --landmarks landmark_indices.npz --key v10 --name facescape_v10 -o facescape_v10.json
              facegraft regions build head.ply --landmarks marks.json --name mine --set my_parts.yaml --set masks.npz -o mine.json
    """
    from facegraft.regions.build import build_region_map
    from facegraft.regions.check import check_region_map
    from facegraft.regions.landmarks import read_landmarks
    from facegraft.regions.regionsets import read_region_sets

    specs = read_region_sets(sets) if sets else None
    vertices, faces = _read_triangles(template)
    indices = read_landmarks(landmarks, key=key, faces=faces)
    region_map = build_region_map(vertices, faces, indices, name, mm_per_unit=mm_per_unit, sets=specs, where=str(template))
    region_map.save(output)
    click.echo(f"{output}: {name}, {len(vertices)} vertices")
    _say_check(check_region_map(region_map, vertices, faces))


@regions.command("show")
@click.argument("region_map")
@click.argument("template", type=LocalPath())
@click.option("-o", "--output", type=LocalPath(dir_okay=False), required=True, help="PNG file to write.")
def regions_show(region_map: str, template: Path, output: Path) -> None:
    """Draw REGION_MAP (a shipped name or a JSON file) on one mesh of its topology.

    \b
    Example: facegraft regions show ict generic_neutral_mesh.obj -o regions.png
    """
    from facegraft.regions.regionmap import load_region_map
    from facegraft.regions.show import show_region_map

    found = load_region_map(region_map)
    vertices, faces = _read_triangles(template, found)
    show_region_map(found, vertices, faces, output)
    click.echo(str(output))


@regions.command("check")
@click.argument("region_map")
@click.argument("template", type=LocalPath())
def regions_check(region_map: str, template: Path) -> None:
    """Measure REGION_MAP on one mesh of its topology: loops, disks, gaps, symmetry; exit 1 where it is not sound.

    \b
    Example: facegraft regions check ict generic_neutral_mesh.obj
    """
    from facegraft.regions.check import check_region_map
    from facegraft.regions.regionmap import load_region_map

    found = load_region_map(region_map)
    vertices, faces = _read_triangles(template, found)
    found.check_mesh(len(vertices), faces, str(template))
    _say_check(check_region_map(found, vertices, faces))


def _read_triangles(path: Path, region_map: RegionMap | None = None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices and triangles of a mesh file, in file order; quads are split as ingest splits them."""
    from facegraft.meshfiles.meshfile import read_triangles

    return read_triangles(path, None if region_map is None else region_map.symmetry)


def _say_check(found: tuple[list[str], dict[str, dict[str, dict[str, object]]]]) -> None:
    findings, figures = found
    for set_name, disks in figures.items():
        for disk, values in disks.items():
            row = "  ".join(f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in values.items())
            click.echo(f"  {set_name}.{disk}: {row}")
    for finding in findings:
        click.echo(f"  NOT SOUND: {finding}")
    if findings:
        raise click.exceptions.Exit(1)
    click.echo("  sound")
