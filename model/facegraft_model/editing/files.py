"""An edit on disk: a mesh of each head, and its numbers."""

from __future__ import annotations

from pathlib import Path

from facegraft.meshfiles.write import write_mesh
from facegraft.store import write_json_atomic
from facegraft_model.editing.edit import Edit, EditedHead

NUMBERS_FILE = "numbers.json"


def write_edit(output: Path, edit: Edit, suffix: str = "ply") -> list[Path]:
    """Write OUT/head_00.SUFFIX, … in the order of the edit's sheet, and OUT/numbers.json. Returns the meshes."""
    output.mkdir(parents=True, exist_ok=True)
    files = [output / f"head_{number:02d}.{suffix}" for number in range(len(edit.heads))]
    for path, head in zip(files, edit.heads, strict=True):
        write_head(path, edit, head)
    write_json_atomic(output / NUMBERS_FILE, {**edit.numbers, "files": [path.name for path in files]})
    return files


def write_head(path: Path, edit: Edit, head: EditedHead) -> None:
    """Write one head of an edit in mm, with part labels and template coordinates if the format supports them."""
    template = None if path.suffix == ".obj" else head.template_coords
    write_mesh(
        path,
        head.vertices_mm,
        head.faces,
        parts=head.parts,
        part_names=edit.parts.labelled,
        template_coords=template,
    )
