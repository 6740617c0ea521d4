"""Fixtures shared by all tests: where the optional real heads are, and small meshes."""

from __future__ import annotations

import gzip
import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest


def find_data() -> Path | None:
    """The folder of real heads: $FACEGRAFT_DATA, or `shared/data` beside the checkout."""
    named = os.environ.get("FACEGRAFT_DATA")
    candidates = [Path(named)] if named else [Path(__file__).resolve().parents[2] / "shared" / "data"]
    return next((path for path in candidates if (path / "ict").is_dir()), None)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real heads, or a skip that says why."""
    path = find_data()
    if path is None:
        pytest.skip("no real heads: set FACEGRAFT_DATA to the folder that holds ict/, facescape/ and flame/")
    return path


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module toy_head.py in heads/."""
    spec = importlib.util.spec_from_file_location("facegraft_toy_head", Path(__file__).parent / "heads" / "toy_head.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def facescape_folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FaceScape folder with the one real mesh as 1/1_neutral.obj."""
    root = tmp_path_factory.mktemp("facescape")
    (root / "1").mkdir()
    (root / "1" / "1_neutral.obj").write_bytes(
        gzip.decompress((data_dir / "facescape" / "facescape_v16_sample.obj.gz").read_bytes())
    )
    return root
