"""Toy and real heads for the tests of sources."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module toy_head.py beside this file."""
    spec = importlib.util.spec_from_file_location("facegraft_toy_head", Path(__file__).with_name("toy_head.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy_map(toy: ModuleType, tmp_path: Path) -> str:
    """Path of the toy's region map (mm)."""
    path = tmp_path / "maps" / "toy.json"
    path.parent.mkdir()
    toy.region_map().save(path)
    return str(path)


@pytest.fixture(scope="session")
def facescape_folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FaceScape folder with the one real mesh as 1/1_neutral.obj."""
    root = tmp_path_factory.mktemp("facescape")
    (root / "1").mkdir()
    (root / "1" / "1_neutral.obj").write_bytes(
        gzip.decompress((data_dir / "facescape" / "facescape_v16_sample.obj.gz").read_bytes())
    )
    return root
