"""Masks of vertices from the files in which people have them: index lists, FLAME's pickle, coloured meshes, images in texture space.

A mask is vertex indices [n] or one boolean per vertex [V]. Those of colours are called `#rrggbb`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facegraft.errors import printable
from facegraft.meshfiles.errors import MeshError
from facegraft.meshfiles.pickles import plain_array, read_pickle
from facegraft.regions.regionmap import each_once

Masks = dict[str, NDArray[Any]]

MASK_FILES = (".json", ".npz")
"""Suffixes of files that are masks and nothing else."""
IMAGES = (".png", ".bmp", ".tif", ".tiff")
MOST_COLOURS = 64
"""An image or a mesh with more colours is a texture, not a mask."""


def read_masks(path: Path, mesh: Path | None = None) -> Masks:
    """The masks of a file by name. mesh: an OBJ file with texture coordinates, for an image. Raises ValueError."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _from_json(path)
    if suffix == ".npz":
        return _from_npz(path)
    try:
        if suffix == ".pkl":
            return _from_pickle(path)
        if suffix == ".ply":
            return _from_colours(path)
        if suffix in IMAGES:
            return _from_image(path, mesh)
    except MeshError as error:
        raise ValueError(str(error)) from error
    raise ValueError(f"masks are read from {', '.join((*MASK_FILES, '.pkl', '.ply', *IMAGES))}, not from {path.name}")


def chosen(masks: Mapping[str, NDArray[Any]], names: list[str]) -> NDArray[Any]:
    """The union of some masks, all of indices or all of booleans. Raises ValueError for a name that there is not."""
    names = [name.lower() if name.startswith("#") else name for name in names]
    for name in names:
        if name not in masks:
            raise ValueError(f"there is no mask {printable(name)!r}; there are {', '.join(map(printable, masks))}")
    arrays = [np.asarray(masks[name]) for name in names]
    if all(array.dtype.kind == "b" for array in arrays):
        result: NDArray[Any] = np.logical_or.reduce(arrays)
        return result
    return np.unique(np.concatenate([np.flatnonzero(a) if a.dtype.kind == "b" else a for a in arrays]))


def _from_json(path: Path) -> Masks:
    try:
        document = json.loads(path.read_bytes(), object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON file ({str(error)[:200]})") from error
    if not isinstance(document, dict) or not all(isinstance(values, list) for values in document.values()):
        raise ValueError("masks are a JSON object: part name → list of vertex indices")
    return {name: np.asarray(values) for name, values in document.items()}


def _from_npz(path: Path) -> Masks:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:  # a lone array has no files
        raise ValueError("not an npz file of arrays of numbers, or damaged") from error


def _from_pickle(path: Path) -> Masks:
    data = read_pickle(path)
    masks = {} if not isinstance(data, Mapping) else {str(name): plain_array(values) for name, values in data.items()}
    found = {name: array for name, array in masks.items() if array is not None and array.ndim == 1 and array.dtype.kind in "biu"}
    if not found:
        raise ValueError(f"{path.name} holds no masks, which are lists of vertex indices by name")
    return found


def _from_colours(path: Path) -> Masks:
    import trimesh

    try:
        mesh = trimesh.load(path, process=False, maintain_order=True)
    except Exception as error:  # trimesh raises whatever its readers meet
        raise ValueError(f"{path.name} cannot be read ({type(error).__name__}: {str(error)[:120]})") from error
    visual = getattr(mesh, "visual", None)
    if visual is None or visual.kind != "vertex":
        raise ValueError(f"{path.name} has no colours of vertices; export the template as PLY with them")
    return _by_colour(np.asarray(visual.vertex_colors)[:, :3], path)


def _from_image(path: Path, mesh: Path | None) -> Masks:
    """Each vertex has the colour of the pixel at its texture coordinates; v runs up, as in OBJ files."""
    from PIL import Image, UnidentifiedImageError

    if mesh is None:
        raise ValueError(f"{path.name} is an image: name a mesh with texture coordinates too, as `mesh: head.obj`")
    coordinates = texture_coordinates(mesh)
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path.name} cannot be read as an image ({type(error).__name__})") from error
    height, width = pixels.shape[:2]
    known = np.isfinite(coordinates[:, 0])
    outside = known & ((coordinates < 0) | (coordinates > 1)).any(axis=1)
    if outside.any():
        raise ValueError(
            f"{mesh and mesh.name}: {int(outside.sum())} vertices have texture coordinates outside 0 to 1, in other tiles; a mask is one image"
        )
    place = np.where(known[:, None], coordinates, 0.0)
    column = np.clip((place[:, 0] * width).astype(int), 0, width - 1)
    row = np.clip(((1.0 - place[:, 1]) * height).astype(int), 0, height - 1)
    return {name: np.logical_and(mask, known) for name, mask in _by_colour(pixels[row, column], path).items()}


def _by_colour(colours: NDArray[np.uint8], path: Path) -> Masks:
    found, which = np.unique(colours, axis=0, return_inverse=True)
    if len(found) > MOST_COLOURS:
        raise ValueError(f"{path.name} has {len(found)} colours, so it is a texture; a mask has one colour for each part")
    return {f"#{r:02x}{g:02x}{b:02x}": which.ravel() == i for i, (r, g, b) in enumerate(found)}


def texture_coordinates(path: Path) -> NDArray[np.float64]:
    """Texture coordinates [V, 2] of an OBJ file's vertices; at a seam those of the vertex's first corner, NaN where it has none.

    Raises ValueError for a file without them.
    """
    vertices, places, pairs = 0, list[tuple[float, float]](), list[tuple[int, int]]()
    with path.open(encoding="latin1") as file:
        for line in file:
            kind, *words = line.split() or [""]
            if kind == "v":
                vertices += 1
            elif kind == "vt":
                places.append((float(words[0]), float(words[1]) if len(words) > 1 else 0.0))
            elif kind == "f":
                for corner in words:
                    point, *texture = corner.split("/")
                    if texture and texture[0]:
                        # Negative numbers count back from the statement's own place in the file.
                        own = (int(point), int(texture[0]))
                        pairs.append((own[0] + vertices if own[0] < 0 else own[0] - 1, own[1] + len(places) if own[1] < 0 else own[1] - 1))
    if not pairs:
        raise ValueError(f"{path.name} has no texture coordinates")
    corners = np.array(pairs)
    if corners.min() < 0 or corners[:, 0].max() >= vertices or corners[:, 1].max() >= len(places):
        raise ValueError(f"{path.name} names texture coordinates that it does not have")
    result = np.full((vertices, 2), np.nan)
    result[corners[::-1, 0]] = np.array(places)[corners[::-1, 1]]
    return result
