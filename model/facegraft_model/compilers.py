"""What torch.compile needs of a machine besides its packages: a compiler, and Python's headers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path


def missing_compiler(device_type: str) -> str | None:
    """What is missing here to compile steps for a device of this type (cuda, cpu), and what to do; None where nothing is.

    For CUDA, Triton builds the launcher of each kernel with a C compiler: that of CC, else gcc or clang. For a CPU, Inductor builds the
    kernels themselves with a C++ compiler: that of CXX, else g++ (clang++ on a Mac).
    """
    cuda = device_type == "cuda"
    variable, language = ("CC", "C") if cuda else ("CXX", "C++")
    names = ["gcc", "clang"] if cuda else ["clang++" if sys.platform == "darwin" else "g++"]
    if cuda and importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (pip install triton)"
    named = os.environ.get(variable)
    if named and shutil.which(named) is None:
        return f"{variable} names the {language} compiler {named!r}, which is not there; unset it, or name one that is"
    if not named and not any(shutil.which(name) for name in names):
        return f"no {language} compiler is there; install {' or '.join(names)}, or name one by {variable}"
    headers = {Path(found) / "Python.h" for kind in ("include", "platinclude") if (found := sysconfig.get_path(kind))}
    if not any(header.is_file() for header in headers):
        return "Python's headers are not installed (Debian: python3-dev)"
    return None
