"""A local cluster that cannot start: one line with the cause and the way out, and no process left. Limits are set in the command's shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from facegraft.engine import EngineError, EngineOptions, start_client
from facegraft.engine.cluster import local

INGEST = ["ingest", "--kind", "synthetic", "--subjects", "4", "--expressions", "1", "--workers", "1"]
RUN = """
from pathlib import Path
from facegraft import pipeline
from facegraft.engine import EngineOptions
options = EngineOptions(workers=1, progress=False)
print("imported", __name__, flush=True)
pipeline.ingest(None, Path("heads"), {"kind": "synthetic", "subjects": 4, "expressions": 1}, 0, options)
"""
HANGS_S = 500.0


def ended(
    line: list[str], folder: Path, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command, ended; standard error is only complete when no process has it any more, so none is left behind."""
    here = {**os.environ, **(env or {})}
    return subprocess.run(line, cwd=folder, env=here, input=stdin, capture_output=True, text=True, timeout=HANGS_S)


def facegraft(limit: str = "true") -> list[str]:
    """The command line of a run with a local cluster, below a limit of the shell."""
    return ["bash", "-c", f'{limit} && exec "$@"', "_", sys.executable, "-m", "facegraft", *INGEST, "-o", "heads"]


def check_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in ("facegraft: error:", "--scheduler sync", *words):
        assert word in lines[0]


def test_too_few_files(tmp_path: Path) -> None:
    check_one_line(ended(facegraft("ulimit -n 24"), tmp_path), "files can be opened", "ulimit -n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("distributed: [1", "malformed"),
        ("- 1\n", "must have a dict"),
        ("distributed: {worker: {multiprocessing-method: nix}}", "'nix'"),
    ],
)
def test_a_broken_configuration_of_dask(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "dask.yaml").write_text(text)
    done = ended(facegraft(), tmp_path, {"DASK_CONFIG": str(tmp_path)})
    check_one_line(done, words, "configuration")


def test_a_broken_configuration_does_not_matter_without_workers(tmp_path: Path) -> None:
    (tmp_path / "dask.yaml").write_text("distributed: [1")
    done = ended([*facegraft(), "--scheduler", "sync"], tmp_path, {"DASK_CONFIG": str(tmp_path)})
    assert done.returncode == 0, done.stderr


def check_last_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Python ends a script with the error's traceback; there is one, and nothing of workers or of Dask."""
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1, done.stderr
    assert "distributed" not in done.stderr and "spawn" not in done.stderr
    for word in ('EngineOptions(scheduler="sync")', *words):
        assert word in done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_script_without_a_main_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(RUN)
    done = ended([sys.executable, "script.py"], tmp_path)
    check_last_line(done, "if __name__ == '__main__':")
    assert "imported __mp_main__" in done.stdout, "the worker has not imported the script"


def test_a_script_from_standard_input(tmp_path: Path) -> None:
    check_last_line(ended([sys.executable, "-"], tmp_path, stdin=RUN), "<stdin> is no file; save the script in a file")


def test_a_script_on_the_command_line_needs_no_guard(tmp_path: Path) -> None:
    done = ended([sys.executable, "-c", RUN], tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    gone = "import os\nos.rmdir(os.getcwd())\n" + RUN.replace('Path("heads")', f"Path({str(tmp_path / 'heads')!r})")
    check_last_line(ended([sys.executable, "-c", gone], tmp_path / "gone"), "the working folder no longer exists")


def unshared(*options: str) -> list[str]:
    """The start of a command in namespaces of its own; skips where the machine does not allow it."""
    line = ["unshare", *options]
    try:
        allowed = subprocess.run([*line, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip(f"{' '.join(line)} is not allowed here (it needs root)")
    return line


def test_a_shared_memory_that_cannot_be_written(tmp_path: Path) -> None:
    mount = "mount --make-rprivate / && mount -t tmpfs -o ro none /dev/shm"
    check_one_line(ended([*unshared("-m"), *facegraft(mount)], tmp_path), "/dev/shm", "Read-only")


def test_no_loopback_interface(tmp_path: Path) -> None:
    check_one_line(ended([*unshared("-n"), *facegraft()], tmp_path), "127.0.0.1", "loopback")


def test_no_thread_for_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refused)
    with (
        pytest.raises(EngineError, match=r"workers cannot start: no further thread .* \(ulimit -u, .*--scheduler sync"),
        start_client(EngineOptions(workers=1)),
    ):
        pass


def test_workers_that_do_not_start_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing tells why: the bound ends it."""
    monkeypatch.setattr(local, "START_S", 1e-3)
    with (
        pytest.raises(EngineError, match=r"the local workers cannot start: .*, or run without workers: --scheduler sync"),
        start_client(EngineOptions(workers=1)),
    ):
        pass


LISTENS = """
import os, sys
from facegraft.engine.cluster.overheard import MARK, Overheard
overheard = Overheard()
overheard.pass_on(True)
text = (
    "a warning\\nTraceback (most recent call last):\\n  File x\\nValueError: bad\\n\\nDuring handling of the above exception, x\\n\\n"
    f"Traceback (most recent call last):\\n  File y\\nRuntimeError: can't start new thread\\n{MARK}the cause\\nlast\\n"
)
with overheard.listening():
    os.write(2, text.encode())
overheard.close()
overheard.reader.join()
os.write(2, b"mine\\n")
print(overheard.marks, overheard.shortage)
"""


def test_what_workers_print_is_cut_to_what_it_says(tmp_path: Path) -> None:
    """In a process of its own: here workers of other tests may just be starting, and standard error with them."""
    done = ended([sys.executable, "-c", LISTENS], tmp_path)
    assert done.stderr == "a warning\nValueError: bad\nlast\nmine\n"
    assert done.stdout == "['the cause'] RuntimeError: can't start new thread\n"
