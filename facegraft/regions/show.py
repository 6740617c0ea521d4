"""A picture of a region map: its parts, loops, landmarks and neck cut on a template mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from facegraft.colours import CLAY, part_colours
from facegraft.regions.regionmap import RegionMap
from facegraft.surfaces.topology import faces_within

VIEWS = {"front": 0.0, "three-quarter": 45.0, "side": 90.0}


def show_region_map(
    region_map: RegionMap, vertices: ArrayLike, faces: ArrayLike, png_path: str | Path, size: int = 700
) -> Path:
    """Write a PNG with one row per region set, seen from the front, from 45 degrees to the subject's left and from the left side.

    Skin and sockets of `vertices` [V, 3] (mesh units) and `faces` [F, 3]; parts in colour, loops and the neck cut black,
    landmarks red. Off-screen. Returns the path. Raises RegionMapError if the mesh is not of the map's topology.
    """
    import pyvista as pv
    from vtkmodules.vtkCommonCore import vtkLogger

    v, f = np.asarray(vertices, dtype=np.float64) * region_map.mm_per_unit, np.asarray(faces, dtype=np.int64)
    region_map.check_mesh(len(v), f, "the mesh to show")
    skin = f[faces_within(f, region_map.mask_of("surface", "socket"))]
    vtkLogger.SetStderrVerbosity(
        vtkLogger.VERBOSITY_OFF
    )  # VTK warns of every missing display and continues without it
    points = v[region_map.landmarks68]
    face, ears = points[17:].mean(axis=0), points[[0, 16]].mean(axis=0)
    white = pv.themes.DocumentTheme()  # our own theme: no global state is changed
    plotter = pv.Plotter(
        theme=white,
        off_screen=True,
        shape=(len(region_map.regions), len(VIEWS)),
        window_size=[size * len(VIEWS), size * len(region_map.regions)],
    )
    for row, (set_name, regions) in enumerate(region_map.regions.items()):
        colour = np.tile(np.array(pv.Color(CLAY).int_rgb, dtype=np.uint8), (len(skin), 1))
        colours = part_colours(regions.parts)
        for name, disk in regions.disks.items():
            member = np.zeros(len(v), dtype=bool)
            member[disk.loop] = member[disk.interior] = True
            inside = np.zeros(len(v), dtype=bool)
            inside[disk.interior] = True
            chosen = faces_within(skin, member) & inside[skin].any(axis=1)
            colour[chosen] = pv.Color(colours[regions.part_of[name]]).int_rgb
        mesh = pv.PolyData(v, np.column_stack([np.full(len(skin), 3), skin]))
        mesh.cell_data["colour"] = colour
        loops = [disk.loop for disk in regions.disks.values()]
        if region_map.neck_crop_loop is not None:
            loops.append(region_map.neck_crop_loop)
        for column, (view, angle) in enumerate(VIEWS.items()):
            plotter.subplot(row, column)
            plotter.add_mesh(
                mesh,
                scalars="colour",
                rgb=True,
                smooth_shading=False,
                show_edges=True,
                edge_opacity=0.12,
                ambient=0.25,
                specular=0.0,
            )
            for loop in loops:
                plotter.add_mesh(_tube_line(v, loop), color="black", line_width=3)
            plotter.add_mesh(pv.PolyData(points), color="red", point_size=5, render_points_as_spheres=True)
            plotter.add_text(f"{region_map.name}: {set_name}, {view}", font_size=8, color="black")
            turn = np.radians(angle)
            centre = face if angle < 90.0 else 0.3 * face + 0.7 * ears
            direction = np.array([np.sin(turn), 0.0, np.cos(turn)])
            plotter.camera_position = [tuple(centre + 700.0 * direction), tuple(centre), (0.0, 1.0, 0.0)]
            plotter.camera.view_angle = 17.0
    path = Path(png_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plotter.screenshot(str(path))
    plotter.close()
    return path


def _tube_line(vertices: NDArray[np.float64], loop: NDArray[np.int64]) -> object:
    """The closed polyline of a loop."""
    import pyvista as pv

    closed = np.append(loop, loop[0])
    return pv.lines_from_points(vertices[closed])
