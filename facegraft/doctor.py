"""Checks of this machine, with a remedy for each problem."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import facegraft
from facegraft.engine.errors import EngineError

if TYPE_CHECKING:
    from facegraft.engine import Tls
    from facegraft.engine.cluster.workers import WorkerFacts

NEEDED = (
    "numpy",
    "scipy",
    "libigl",
    "numba",
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

OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
DRIVER = Path("/proc/driver/nvidia/version")
RENDER = "import pyvista; p = pyvista.Plotter(off_screen=True, window_size=(64, 64)); p.add_mesh(pyvista.Sphere()); print(p.screenshot().std() > 1)"


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    found: str
    good: bool = True
    remedy: str = ""


def examine() -> list[Finding]:
    """Check Python, packages, cores, memory, disk, off-screen rendering and CUDA."""
    findings = [
        Finding("Python", sys.version.split()[0], sys.version_info >= (3, 11), "facegraft needs Python 3.11 or newer")
    ]
    for name in NEEDED:
        version = _version(name)
        findings.append(Finding(name, version or "missing", version is not None, "pip install facegraft"))
    for name, extra in OPTIONAL.items():
        findings.append(Finding(name, _version(name) or f"not installed (optional: pip install facegraft[{extra}])"))
    findings.append(_dask())
    cores, memory = usable_cores(), usable_memory() / 1e9
    installed, fitted = os.cpu_count() or 1, physical_memory() / 1e9
    limited = f" of {installed}: a limit of the container or the batch system" if cores < installed else ""
    findings.append(Finding("cores", f"{cores}{limited}"))
    limited = f" of {fitted:.0f} GB: a limit of the container or the batch system" if memory < 0.95 * fitted else ""
    findings.append(
        Finding(
            "memory", f"{memory:.0f} GB{limited}", memory >= 2 * cores, "use fewer --workers: each takes up to 2 GB"
        )
    )
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free / 1e9
        findings.append(
            Finding("free disk", f"{free:.0f} GB in {folder}", free >= 5, "free some space, or write elsewhere with -o")
        )
    findings.append(_rendering())
    findings.append(_cuda())
    return findings


def examine_cluster(scheduler: str, tls: Tls | None) -> list[Finding]:
    """Check a Dask cluster: whether it can be reached, and whether every worker has the required versions and memory."""
    from facegraft.engine.cluster.connect import connect
    from facegraft.engine.cluster.workers import describe_workers, scheduler_version

    try:
        client = connect(scheduler, tls)
    except EngineError as error:
        return [Finding("Dask scheduler", "not reached", False, str(error))]
    with client:
        found, why = scheduler_version(client)
        findings = [_member("Dask scheduler", client.scheduler.address, found, why)]
        workers = describe_workers(client)
        findings += [
            _member(f"worker {worker.name}", _worker_told(worker), worker.version, worker.why) for worker in workers
        ]
    if not workers:
        findings.append(Finding("Dask workers", "none", False, f"start some: dask worker {scheduler}"))
    return findings


def usable_cores() -> int:
    """Cores that this process may use, by its affinity and the control group's quota; the default workers of a local cluster."""
    if importlib.util.find_spec("dask") is None:
        return os.cpu_count() or 1
    from dask.system import cpu_count

    return int(cpu_count())


def physical_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_memory() -> int:
    """Bytes of memory that this process may use: the machine's memory, or the control group's limit if that is smaller."""
    if importlib.util.find_spec("distributed") is None:
        return physical_memory()
    from distributed.system import memory_limit

    return min(int(memory_limit()), *_group_limits())


def _group_limits() -> list[int]:
    """Limits of this process's control group (version 2) and of its ancestors, as set by a batch system; the root comes last."""
    own = _read(OWN_GROUP).rpartition("0::")[2].splitlines()
    group = GROUPS / (own[0].lstrip("/") if own else "")
    texts = [
        _read(folder / "memory.max").strip() for folder in (group, *group.parents) if folder.is_relative_to(GROUPS)
    ]
    return [*(int(text) for text in texts if text.isdigit()), physical_memory()]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _dask() -> Finding:
    dask, distributed = _version("dask"), _version("distributed")
    return Finding(
        "dask = distributed",
        "same version" if dask == distributed else f"dask {dask}, distributed {distributed}",
        dask == distributed,
        f"pip install dask=={distributed} distributed=={distributed}: they are released together and must have the same version",
    )


def _member(what: str, told: str, version: str | None, why: str) -> Finding:
    same = version == facegraft.__version__
    found = f"facegraft {version}" if version is not None else why
    return Finding(
        what, f"{told}: {found}", same, f"install facegraft {facegraft.__version__} there, as here, and start it again"
    )


def _worker_told(worker: WorkerFacts) -> str:
    memory = f"{worker.memory / 1e9:.0f} GB" if worker.memory else "memory without a limit"
    return f"{worker.address}, {worker.threads} threads, {memory}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _rendering() -> Finding:
    """Draw a sphere off-screen in a separate process, because a broken OpenGL driver may crash its process."""
    remedy = (
        "pictures need OpenGL or OSMesa: install Mesa (Debian: libgl1 libegl1); everything but `report` works without it"
    )
    try:
        done = subprocess.run([sys.executable, "-c", RENDER], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return Finding("off-screen rendering", "no picture after 120 s", False, remedy)
    good = done.returncode == 0 and "True" in done.stdout
    return Finding("off-screen rendering", "works" if good else f"failed (exit {done.returncode})", good, remedy)


def _cuda() -> Finding:
    """Check that torch can use the GPU. A machine without a GPU passes; a GPU that torch cannot use is a failure."""
    if importlib.util.find_spec("torch") is None:
        return Finding("CUDA", "unknown (torch is not installed; only the model uses it)")
    import torch

    build = (
        f"torch {torch.__version__}, built for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'the CPU only'}"
    )
    if torch.cuda.is_available():
        names = Counter(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        devices = ", ".join(f"{count} × {name}" for name, count in names.items())
        return Finding("CUDA", f"{devices}; driver {_driver() or 'unknown'}; {build}")
    driver = _driver()
    if driver is None:
        return Finding("CUDA", f"no NVIDIA driver (only the model would use one); {build}")
    if torch.version.cuda is None:
        remedy = "install the torch build for your CUDA: https://pytorch.org/get-started"
    else:
        remedy = "update the driver, or install a torch built for an older CUDA: https://pytorch.org/get-started"
    return Finding("CUDA", f"driver {driver} is installed, but torch finds no GPU; {build}", False, remedy)


def _driver() -> str | None:
    """Version of the NVIDIA driver, None where there is none."""
    words = _read(DRIVER).partition("Kernel Module")[2].split()
    return next((word for word in words if word[0].isdigit()), None)
