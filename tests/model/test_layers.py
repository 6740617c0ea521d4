"""The packages of facegraft_model lie in layers: an import points down, so that nothing goes round in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import facegraft_model

LAYERS = (
    ("errors", "arrays", "seeds"),
    ("bounds", "typed", "devices", "outofmemory", "methods"),
    ("config",),
    ("nets", "data"),
    ("method",),
    ("checkpoints", "decoding", "cascade"),
    ("losses",),
    ("field", "baselines"),
    ("models", "presets", "reference"),
    ("fitting", "testing"),
    ("training", "editing"),
    ("evaluation",),
)
"""From the bottom up; what lies in one layer does not know of each other. `methods` loads a field by its name, when it is asked for."""

ROOT = Path(facegraft_model.__file__).parent


def imports() -> Iterator[tuple[str, str, Path]]:
    """Every import of one of our packages or top modules in another: importer, imported, and the file."""
    for file in sorted(ROOT.rglob("*.py")):
        own = file.relative_to(ROOT).with_suffix("").parts[0]
        tree = ast.parse(file.read_text())
        for block in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
            if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING":
                block.body = []  # what only names types is not imported
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            first, *rest = node.module.split(".")
            if first == "facegraft_model" and own != "__init__":
                for name in rest[:1] or [alias.name for alias in node.names]:
                    if name != own:
                        yield own, name, file


def test_imports_point_down() -> None:
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    upward = [
        f"{file.relative_to(ROOT)} imports {imported}"
        for importer, imported, file in imports()
        if layer[imported] >= layer[importer]
    ]
    assert upward == []


def test_every_package_has_its_layer() -> None:
    found = {entry.stem for entry in ROOT.iterdir() if entry.suffix == ".py" or (entry / "__init__.py").exists()}
    assert found - {"__init__"} == {name for names in LAYERS for name in names}


def test_the_imports_are_found() -> None:
    """A reader of imports that finds none would let everything pass."""
    edges = {(importer, imported) for importer, imported, _ in imports()}
    assert {("evaluation", "editing"), ("editing", "decoding"), ("fitting", "decoding"), ("training", "checkpoints")} <= edges
