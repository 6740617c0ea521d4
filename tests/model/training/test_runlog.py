"""The run log: nothing repeated, nothing torn, nothing printed where it does not belong."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from facegraft_model.training.progress import ProgressLine
from facegraft_model.training.runlog import LogError, RunLog, read_metrics, truncate_metrics
from hypothesis import given, settings
from hypothesis import strategies as st


def quiet(run: Path, **options: object) -> RunLog:
    return RunLog(run, **{"total_steps": 100, "tensorboard": False, "progress": False, **options})  # type: ignore[arg-type]


def write_steps(run: Path, first: int, last: int, resume_step: int = 0) -> None:
    with quiet(run, resume_step=resume_step) as log:
        for step in range(first, last):
            log.log(step, {"loss": 1 / step})
            if step % 5 == 0:
                log.log(step, {"split": "validation", "loss": 2 / step})


def curve(run: Path) -> list[tuple[int, str]]:
    return [(record["step"], record.get("split", "train")) for record in read_metrics(run)]


def test_records_come_back(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    with quiet(run) as log:
        log.log(
            1, {"loss": 0.1 + 0.2, "points_per_s": 12, "lr": np.float32(0.5), "grad": torch.tensor([2.0]), "ok": True}
        )
        assert read_metrics(run)[0] == {
            "step": 1,
            "loss": 0.1 + 0.2,
            "points_per_s": 12,
            "lr": 0.5,
            "grad": 2.0,
            "ok": True,
        }
        log.log(2, {"loss": float("nan"), "sdf": float("inf"), "split": "validation", "step": 7})
        log.log(3, {})
    assert read_metrics(run)[1:] == [{"step": 2, "loss": None, "sdf": None, "split": "validation"}, {"step": 3}]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    assert read_metrics(tmp_path) == []


@pytest.mark.parametrize("value", [[1.0], torch.zeros(2), np.zeros(3), {}])
def test_a_value_that_is_no_number_is_refused(tmp_path: Path, value: object) -> None:
    with quiet(tmp_path) as log, pytest.raises(LogError, match="under 'loss'; log one number"):
        log.log(1, {"loss": value})
    assert read_metrics(tmp_path) == []


def test_the_curve_goes_on_without_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_steps(tmp_path / "straight", 1, 31)
    write_steps(tmp_path / "resumed", 1, 24)
    write_steps(tmp_path / "resumed", 21, 31, resume_step=20)
    assert read_metrics(tmp_path / "resumed") == read_metrics(tmp_path / "straight")
    assert (20, "validation") in curve(tmp_path / "resumed")
    assert capsys.readouterr().err == ""
    RunLog(tmp_path / "resumed", total_steps=40, resume_step=28, tensorboard=False).close()
    assert "metrics.jsonl: dropped 3 lines after step 28" in capsys.readouterr().err


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.integers(0, 12))
def test_a_log_cut_anywhere_goes_on(tmp_path_factory: pytest.TempPathFactory, where: float, step: int) -> None:
    run = tmp_path_factory.mktemp("run")
    write_steps(run, 1, 12)
    file = run / "metrics.jsonl"
    whole = read_metrics(run)
    data = file.read_bytes()[: round(where * file.stat().st_size)]
    file.write_bytes(data)
    complete = data.count(b"\n")
    assert read_metrics(run) == whole[:complete]
    expected = [record for record in whole[:complete] if record["step"] <= step]
    torn = not data.endswith(b"\n") and data != b""
    assert truncate_metrics(run, step) == complete - len(expected) + torn
    assert read_metrics(run) == expected
    assert file.read_bytes().count(b"\n") == len(expected)
    assert truncate_metrics(run, step) == 0
    with quiet(run, resume_step=step) as log:
        log.log(step + 1, {"loss": 0.0})
    assert read_metrics(run) == [*expected, {"step": step + 1, "loss": 0.0}]


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1}', '{"step": "1"}', "\0\0"])
def test_damage_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    write_steps(tmp_path, 1, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(f'{line}\n{{"step": 4}}\n')
    for use in (read_metrics, lambda run: quiet(run, resume_step=9)):
        with pytest.raises(LogError, match=r"metrics\.jsonl: line 3 is not .*remove that line"):
            use(tmp_path)


def test_killed_while_logging(tmp_path: Path) -> None:
    """SIGKILL in the middle of a busy loop: what is there are the first records, each whole."""
    code = (
        "import sys\nfrom facegraft_model.training.runlog import RunLog\n"
        "log = RunLog(sys.argv[1], total_steps=0, tensorboard=False, progress=False)\nstep = 0\n"
        "while True:\n    step += 1\n    log.log(step, {'loss': 1 / step})\n    step == 200 and print('busy', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGKILL)
    records = read_metrics(tmp_path)
    assert len(records) >= 200 and records == [{"step": step, "loss": 1 / step} for step in range(1, len(records) + 1)]


def test_other_ranks_leave_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path / "run", total_steps=3, rank=1) as log:
        log.log(1, {"loss": 1.0})
        log.progress(1, 2.0, 3.0)
        log.note("hello")
        log.sync()
    assert not (tmp_path / "run").exists() and capsys.readouterr() == ("", "")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError, match=r"cannot (read|write) .*metrics\.jsonl"):
        quiet(tmp_path / "file")
    with quiet(tmp_path) as log:
        os.close(log._descriptor)  # type: ignore[arg-type]
        log._descriptor = os.open("/dev/full", os.O_WRONLY)
        with pytest.raises(LogError, match="No space left on device; mend that and resume"):
            log.log(1, {"loss": 1.0})
        os.close(log._descriptor)
        log._descriptor = None


# -- TensorBoard ------------------------------------------------------------------------------------------------------


def test_without_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with RunLog(tmp_path, total_steps=1) as log:
        log.log(1, {"loss": 1.0})
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "tensorboard is not installed" in error
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"] and len(read_metrics(tmp_path)) == 1


@pytest.mark.slow
def test_tensorboard_curves_have_no_repeats(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for resume_step, last in ((0, 6), (4, 9)):
        with RunLog(tmp_path, total_steps=8, resume_step=resume_step, progress=False) as log:
            for step in range(resume_step + 1, last):
                log.log(step, {"loss": step + resume_step / 10, "points_per_s": 5, "sdf": None})
                log.log(step, {"loss": 0.5, "split": "validation"})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["train/loss", "train/points_per_s", "validation/loss"]
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(step, pytest.approx(step + (0.4 if step > 4 else 0))) for step in range(1, 9)]


# -- progress ---------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_now_and_then_when_nobody_watches() -> None:
    stream, clock = io.StringIO(), Clock()
    line = ProgressLine(1000, stream, clock)
    for step in range(1, 1001):
        line.update(step, 24.0, 1 / step, 3.93e5)
        clock.seconds += 0.125  # exact in binary
    line.close()
    lines = stream.getvalue().splitlines()
    assert lines == [
        "step 1/1000, loss 1, 24.0 items/s, 393 k points/s, -:--:-- left",
        "step 241/1000, loss 0.004149, 24.0 items/s, 393 k points/s, 0:01:35 left",
        "step 481/1000, loss 0.002079, 24.0 items/s, 393 k points/s, 0:01:05 left",
        "step 721/1000, loss 0.001387, 24.0 items/s, 393 k points/s, 0:00:35 left",
        "step 961/1000, loss 0.001041, 24.0 items/s, 393 k points/s, 0:00:05 left",
        "step 1000/1000, loss 0.001, 24.0 items/s, 393 k points/s, 0:00:00 left",
    ]


def test_time_left_is_of_the_wall_clock_since_the_first_step() -> None:
    stream, clock = io.StringIO(), Clock()
    line = ProgressLine(10_003, stream, clock)
    line.update(3, 1.0, 1.0)
    clock.seconds += 36
    line.update(13, 999.0, 1.0)
    assert stream.getvalue().splitlines()[1].endswith("9:59:24 left")  # 9,990 steps of 3.6 s


def test_a_bar_that_redraws_itself_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream, clock = Terminal(), Clock()
    line = ProgressLine(4, stream, clock)
    line.update(1, 2.0, 0.5)
    clock.seconds += 0.01
    line.update(2, 2.0, 0.5)  # too soon to be seen
    line.note("saved")
    clock.seconds += 1
    line.update(4, 2.0, 0.25)
    line.close()
    bar, note, last = stream.getvalue().split("\r\x1b[K")[1:]
    assert bar.startswith(f"[{'=' * 6}{' ' * 18}] step 1/4, loss 0.5, 2.0 items/s") and note == "saved\n"
    assert last.startswith(f"[{'=' * 24}] step 4/4, loss 0.25") and last.endswith("\n")
    assert all(len(part.rstrip("\n")) <= 59 for part in (bar, last))


def test_progress_goes_to_stderr_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, total_steps=2, tensorboard=False) as log:
        log.progress(1, 3.0, 0.5, points_per_s=1e6)
    out, error = capsys.readouterr()
    assert out == "" and error == "step 1/2, loss 0.5, 3.0 items/s, 1 M points/s, -:--:-- left\n"
    assert json.dumps(read_metrics(tmp_path)) == "[]"
