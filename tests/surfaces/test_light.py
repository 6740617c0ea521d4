"""Surfaces and mesh files can be imported where only the four packages of training are installed."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys

class OnlyTheFour:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"scipy", "igl", "numba", "trimesh", "yaml", "click", "pydantic", "rich", "dask", "matplotlib", "pyvista"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, OnlyTheFour())
for package in ("facegraft.meshfiles", "facegraft.surfaces"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if module.name.startswith("facegraft.surfaces.compiled."):
            continue  # machine code, imported where it is used
        importlib.import_module(module.name)
        print(module.name)
assert not {name.partition(".")[0] for name in sys.modules} & {"scipy", "igl", "numba", "trimesh"}
from facegraft.lazily import MissingPackageError
from facegraft.surfaces.nearest import nearest_on_surface
try:
    nearest_on_surface(None, None, None)
except MissingPackageError as error:
    print(error)
"""


def test_four_packages_are_enough_to_import_them() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "facegraft.surfaces.backends.winding" in lines and "facegraft.meshfiles.write" in lines
    assert lines[-1].startswith("this needs numba, which is not installed") and "pip install facegraft" in lines[-1]
