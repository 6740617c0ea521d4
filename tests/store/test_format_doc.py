"""docs/format.md is the specification: what it says must be what the code does."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facegraft.regions.regionmap import load_region_map
from facegraft.store import fields_of, open_dataset
from facegraft.store.schema import FORMAT_NAME, FORMAT_VERSION, MAX_KEY_LENGTH, OWN_COLUMNS
from facegraft.vocabulary import DEFAULT_REGION_SET, KINDS, REM

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
PARTS = load_region_map("synthetic").region_set(DEFAULT_REGION_SET).parts
"""The document shows the fields of the default region set."""


def section(title: str) -> str:
    """The text from a heading to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/format.md has no section {title!r}"
    return found[1]


def table(title: str) -> list[list[str]]:
    """Cells of the first table of a section, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cells: list[str]) -> set[str]:
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_field_tables_are_those_of_the_schema(kind: str) -> None:
    written = [
        [f"`{name}`", field.dtype, f"[{', '.join(map(str, field.shape))}]", field.unit, field.frame, field.meaning]
        for name, field in fields_of(kind, PARTS).items()
    ]
    assert table(kind) == written


def test_constants() -> None:
    assert f"# The dataset format, version {FORMAT_VERSION}" in TEXT
    rows = {row[0].strip("`"): row[1] for row in table("dataset.json")}
    assert rows["format"] == f'`"{FORMAT_NAME}"`'
    assert rows["version"].startswith(f'`"{FORMAT_VERSION}"`')
    assert re.findall(r'`"(\w+)"`', rows["kind"]) == list(KINDS)
    assert f"1 to {MAX_KEY_LENGTH} characters" in section("Names")
    assert PARTS.describe_labels() in section("Parts") and f"`{REM}`" in section("Parts")
    assert ", ".join(f"`{stage}`" for stage in PARTS.stages) in section("Parts")
    assert names([row[0] for row in table("index.parquet")[:4]]) == set(OWN_COLUMNS)


def test_the_documents_have_the_parts_that_are_listed(toy) -> None:
    document = json.loads((toy.folder / "dataset.json").read_text())
    assert names([row[0] for row in table("dataset.json")]) == set(document)
    record = json.loads((toy.folder / "shards" / "00000-of-00002.json").read_text())
    assert names([row[0] for row in table("Commit records")]) == set(record)
    listed = set(re.findall(r"^(\S+) ", re.search(r"```\n(.*?)```", TEXT, re.DOTALL)[1], re.MULTILINE))
    assert {re.sub(r"\d{5}-of-\d{5}", "00012-of-00400", name) for name in toy.files()} <= listed


def test_the_checksum_can_be_computed_as_the_document_says(toy) -> None:
    text = (toy.folder / "dataset.json").read_text()
    document = json.loads(text)
    stated = document.pop("document_sha256")
    expression = re.search(r"`(json\.dumps\(document.*?)`", TEXT)[1]
    spelled = eval(expression, {"json": json, "document": document})  # the document's own words
    assert hashlib.sha256(spelled.encode()).hexdigest() == stated
    document["document_sha256"] = stated
    assert eval(expression, {"json": json, "document": document}) == text


def test_the_python_blocks_run(write_samples: Callable[..., Path]) -> None:
    folder = write_samples()
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    scope: dict[str, object] = {"folder": folder}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(block, scope)
    assert printed.getvalue() == "samples 1 100.0\n00000-of-00001.safetensors (40, 3)\n"
    np.testing.assert_array_equal(scope["points"], open_dataset(folder)["ball"]["surface_points"])
