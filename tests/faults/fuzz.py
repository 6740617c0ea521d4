"""Long fuzzing of one reader.

    python tests/faults/fuzz.py obj|ply|scan.obj|scan.ply|scan.xyz|scan.npy|regions|recipe|manifest [--minutes 10] [--findings DIR]

Guided by coverage when atheris is installed (pip install atheris), else by hypothesis. Every input runs under an alarm and an
address-space limit. Exit 1 with the first finding, whose input is kept in DIR.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = ("obj", "ply", "scan.obj", "scan.ply", "scan.xyz", "scan.npy", "regions", "recipe", "manifest")
INSTRUMENTED = [
    *(
        f"facegraft.{name}"
        for name in (
            "meshfiles",
            "regions.regionmap",
            "recipe",
            "stages.parameters",
            "store",
        )
    ),
    *(f"facegraft.engine.{name}" for name in ("plan", "fingerprint", "status")),
]
IN_MEMORY = Path("/dev/shm")
START_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--findings",
        type=Path,
        default=Path(tempfile.gettempdir()) / "facegraft-fuzz",
        help="folder for inputs that were findings",
    )
    parser.add_argument(
        "--engine", choices=("atheris", "hypothesis"), default=None, help="default: atheris where it is installed"
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    engine = options.engine or ("atheris" if importlib.util.find_spec("atheris") else "hypothesis")
    options.findings.mkdir(parents=True, exist_ok=True)
    seconds = options.minutes * 60
    if options.inside is not None:
        sys.path[:0] = [str(HERE), str(HERE.parents[1])]
        (with_atheris if engine == "atheris" else with_hypothesis)(
            options.target, seconds, options.findings, options.inside
        )
        return
    # In a process of its own: libFuzzer leaves without cleaning up, and a crash or hang of native code is a finding like any other.
    with tempfile.TemporaryDirectory(prefix="facegraft-fuzz-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        arguments = [
            options.target,
            "--minutes",
            str(options.minutes),
            "--findings",
            str(options.findings),
            "--engine",
            engine,
        ]
        try:
            code = subprocess.run(
                [sys.executable, __file__, *arguments, "--inside", folder], timeout=2 * seconds + START_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            sys.exit(f"{options.target}: FINDING: native code hangs")
    if code:
        sys.exit(f"{options.target}: FINDING (exit status {code}); inputs are kept in {options.findings}")
    print(f"{options.target}: no finding in {options.minutes:g} minutes ({engine})")


def with_hypothesis(name: str, seconds: float, findings: Path, folder: Path) -> None:
    """Rounds of new random examples until the time is over; what fails is made small before it is told."""
    import hypothesis

    fuzzing: Any = importlib.import_module("fuzzing")
    target, inputs = fuzzing.TARGETS[name], 0
    start = time.monotonic()
    last = b""

    while time.monotonic() - start < seconds:

        @hypothesis.settings(
            max_examples=500, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.seed(time.time_ns())
        @hypothesis.given(fuzzing.mutated(target.seeds(folder), target.tokens))
        def one_round(data: bytes) -> None:
            nonlocal inputs, last
            if time.monotonic() - start > seconds:
                return
            inputs, last = inputs + 1, data
            fuzzing.check(target, data, folder)

        try:
            one_round()
        except BaseException:
            tell(name, last, findings)
            raise
    print(f"{name}: {inputs} inputs in {time.monotonic() - start:.0f} s (hypothesis)")


def with_atheris(name: str, seconds: float, findings: Path, folder: Path) -> None:
    """libFuzzer on instrumented readers; it leaves the process itself, with status 0 where nothing was found."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        fuzzing: Any = importlib.import_module("fuzzing")
    target = fuzzing.TARGETS[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds(folder)):
        (corpus / f"seed{number}").write_bytes(seed)
    words = folder / "words.dict"
    known = [word for word in (*target.tokens, *fuzzing.NUMBERS) if 0 < len(word) < 64]
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in known))
    work = folder / "work"
    work.mkdir()

    def one(data: bytes) -> None:
        try:
            fuzzing.check(target, data, work)
        except BaseException:
            tell(name, data, findings)
            raise

    longest = 2 * max(len(seed) for seed in target.seeds(folder)) + 4096
    # The alarm and the memory limit are ours (they are told as findings of Python); libFuzzer's own would clash with them.
    # Whole files are kept to mutate from, although shorter inputs may reach as much of the code.
    limits = [
        "-timeout=0",
        "-rss_limit_mb=0",
        "-keep_seed=1",
        "-reduce_inputs=0",
        "-len_control=0",
        f"-max_total_time={int(seconds)}",
        f"-max_len={longest}",
    ]
    atheris.Setup(
        [
            sys.argv[0],
            *limits,
            f"-dict={words}",
            f"-artifact_prefix={findings}/{name}-",
            "-print_final_stats=1",
            "-verbosity=1",
            str(corpus),
        ],
        one,
    )
    atheris.Fuzz()


def tell(name: str, data: bytes, findings: Path) -> None:
    """Keep the input, and print why it is a finding."""
    path = findings / f"{name}-{time.time_ns()}"
    path.write_bytes(data)
    print(f"{name}: FINDING, input kept as {path}\n{traceback.format_exc()}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
