"""What this machine has, and what to do about what it lacks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

NEEDED = (
    "numpy",
    "scipy",
    "libigl",
    "manifold3d",
    "embreex",
    "trimesh",
    "pyvista",
    "dask",
    "distributed",
    "safetensors",
    "pyarrow",
)
OPTIONAL = {"torch": "model", "mesh-to-sdf": "paper"}

RENDER = "import pyvista; p = pyvista.Plotter(off_screen=True, window_size=(64, 64)); p.add_mesh(pyvista.Sphere()); print(p.screenshot().std() > 1)"


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    what: str
    found: str
    good: bool = True
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at Python, packages, cores, memory, disk and off-screen rendering."""
    findings = [
        Finding("Python", sys.version.split()[0], sys.version_info >= (3, 11), "facegraft needs Python 3.11 or newer")
    ]
    for name in NEEDED:
        version = _version(name)
        findings.append(Finding(name, version or "missing", version is not None, "pip install facegraft"))
    for name, extra in OPTIONAL.items():
        findings.append(Finding(name, _version(name) or f"not installed (optional: pip install facegraft[{extra}])"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = os.cpu_count() or 1
    findings.append(Finding("cores", str(cores)))
    findings.append(
        Finding("memory", f"{memory:.0f} GB", memory >= 2 * cores, "use fewer --workers: each takes up to 2 GB")
    )
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free / 1e9
        findings.append(
            Finding("free disk", f"{free:.0f} GB in {folder}", free >= 5, "free some space, or write elsewhere with -o")
        )
    findings.append(_rendering())
    findings.append(_cuda())
    return findings


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _rendering() -> Finding:
    """Draw a sphere off-screen, in a process of its own: a broken OpenGL driver takes its process down."""
    remedy = (
        "pictures need OpenGL or OSMesa: install Mesa (Debian: libgl1 libegl1), everything but `report` works without"
    )
    try:
        done = subprocess.run([sys.executable, "-c", RENDER], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return Finding("off-screen rendering", "no picture after 120 s", False, remedy)
    good = done.returncode == 0 and "True" in done.stdout
    return Finding("off-screen rendering", "works" if good else f"failed (exit {done.returncode})", good, remedy)


def _cuda() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("CUDA", "unknown (torch is not installed; only the model uses it)")
    import torch

    return Finding(
        "CUDA", torch.cuda.get_device_name() if torch.cuda.is_available() else "none (only the model would use it)"
    )
