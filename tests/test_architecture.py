"""The drawing of the house in docs/architecture.md: every package stands in it, and every import points down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import facegraft_model
import pytest

import facegraft

ROOTS = {package.__name__: Path(package.__file__).parent for package in (facegraft, facegraft_model)}
DOC = Path(__file__).parents[1] / "docs" / "architecture.md"


class Import(NamedTuple):
    """One import of ours: the importing and the imported module, dotted."""

    importer: str
    imported: str


def modules() -> dict[str, Path]:
    """Every module of both packages by its dotted name."""
    found = {}
    for root in ROOTS.values():
        for path in root.rglob("*.py"):
            dotted = ".".join(path.relative_to(root.parent).with_suffix("").parts)
            found[dotted.removesuffix(".__init__")] = path
    return found


def imports_in(source: str, importer: str, known: frozenset[str]) -> Iterator[Import]:
    """Imports of known modules in a source, those inside of functions too; what only names types (TYPE_CHECKING) is left out."""
    tree = ast.parse(source)
    for block in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if "TYPE_CHECKING" in ast.unparse(block.test):
            block.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{importer}: a relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            names = [name if name in known else module for name in names]
        else:
            continue
        yield from (Import(importer, name) for name in names if name in known)


@cache
def all_imports() -> tuple[Import, ...]:
    files = modules()
    known = frozenset(files)
    return tuple(found for name, path in sorted(files.items()) for found in imports_in(path.read_text(), name, known))


@cache
def layers() -> dict[str, int]:
    """Package or top module → its layer, counted from the top, as the drawings of the document have them."""
    text = DOC.read_text()
    found: dict[str, int] = {}
    for root in ROOTS:
        drawing = re.search(rf"<!-- layers of {root} -->\n+```\n(.*?)```", text, flags=re.DOTALL)
        assert drawing, f"docs/architecture.md has no layers of {root}"
        for number, line in enumerate(drawing[1].splitlines()):
            for name in re.split(r" {3,}", line)[0].split():
                assert f"{root}.{name}" not in found, f"{name} is drawn twice"
                found[f"{root}.{name}"] = number
    return found


def room(module: str) -> str:
    """`facegraft.store.schema` → `facegraft.store`."""
    return ".".join(module.split(".")[:2])


def below_the_model() -> set[str]:
    """What facegraft_model may use of facegraft, from the document's own line."""
    line = re.search(r"`facegraft_model` uses of facegraft only (.*?)\.\n", DOC.read_text(), flags=re.DOTALL)
    assert line
    return {f"facegraft.{name}" for name in re.findall(r"`(\w+)`", line[1])}


def above_the_model() -> set[str]:
    line = re.search(r"Only (.*?) use `facegraft_model`", DOC.read_text(), flags=re.DOTALL)
    assert line
    return {f"facegraft.{name}" for name in re.findall(r"`(\w+)`", line[1])}


def test_every_package_is_drawn() -> None:
    assert {room(module) for module in modules() if module not in ROOTS} == set(layers())


@pytest.mark.parametrize("root", ROOTS)
def test_imports_point_down(root: str) -> None:
    drawn = layers()
    upward = [
        f"{importer} imports {imported}"
        for importer, imported in all_imports()
        if importer.startswith(f"{root}.")
        and imported.startswith(f"{root}.")
        and room(importer) != room(imported)
        and drawn[room(imported)] <= drawn[room(importer)]
    ]
    assert upward == []


def test_the_model_stands_between() -> None:
    """It uses the lower half of facegraft, and only the commands use it."""
    down = {room(i.imported) for i in all_imports() if i.importer.startswith("facegraft_model") and i.imported.startswith("facegraft.")}
    up = {room(i.importer) for i in all_imports() if i.importer.startswith("facegraft.") and i.imported.startswith("facegraft_model")}
    assert down == below_the_model()
    assert up == above_the_model()


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph: dict[str, set[str]] = {}
    for importer, imported in all_imports():
        if importer != imported and not importer.startswith(f"{imported}."):  # its own package's front page
            graph.setdefault(importer, set()).add(imported)
    list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


def test_the_reader_of_imports_finds_them() -> None:
    source = """
from typing import TYPE_CHECKING
import facegraft.errors
from facegraft import parts
if TYPE_CHECKING:
    from facegraft.stages import STAGES
def later():
    from facegraft.store.schema import DatasetSchema
"""
    known = frozenset(modules())
    assert {i.imported for i in imports_in(source, "facegraft.x", known)} == {
        "facegraft.errors", "facegraft.parts", "facegraft.store.schema",
    }  # fmt: skip
    assert Import("facegraft.cli", "facegraft.stages") in {Import(room(a), room(b)) for a, b in all_imports()}
