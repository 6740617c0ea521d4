"""Rows whose faults are tested next to their subject: these tests are run here as they stand there, and have to pass, not only to be skipped."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import fault_rows as rows
import pytest

TESTS = Path(__file__).parent.parent
LOCAL = "engine/test_local_cluster.py"
TRAIN = "model/training/test_train.py"
HANGS_S = 1500.0

WHERE = {
    rows.NO_CLUSTER: [
        (LOCAL, "test_too_few_files"),
        (LOCAL, "test_a_broken_configuration_of_dask"),
        (LOCAL, "test_a_script_without_a_main_guard"),
        (LOCAL, "test_a_script_from_standard_input"),
        (LOCAL, "test_a_working_folder_that_is_gone"),
        (LOCAL, "test_a_shared_memory_that_cannot_be_written"),
        (LOCAL, "test_no_loopback_interface"),
        (LOCAL, "test_workers_that_do_not_start_in_time"),
    ],
    rows.TRAINING_SIGNAL: [
        (TRAIN, "test_a_signal_saves_and_stops"),
        (TRAIN, "test_only_a_second_ctrl_c_of_the_user_ends_at_once"),
        (TRAIN, "test_a_signal_to_one_process_stops_all"),
        (TRAIN, "test_the_end_tells_the_steps"),
    ],
    rows.TRAINING_STEP: [
        (TRAIN, "test_a_bad_step_is_skipped_and_counted"),
        (TRAIN, "test_skipped_steps_are_told"),
        (TRAIN, "test_many_bad_steps_in_a_row_end_the_run"),
    ],
    rows.TRAINING_RESUME: [
        (TRAIN, "test_the_parts_of_a_batch_may_change_on_resuming"),
        (TRAIN, "test_too_little_memory_says_which_setting_helps"),
        (TRAIN, "test_a_process_without_a_gpu_of_its_own_is_refused_in_words"),
    ],
}


def listed() -> list[Any]:
    return [
        pytest.param(file, name, id=name.removeprefix("test_"), marks=[pytest.mark.row(row), pytest.mark.faults])
        for row, tests in WHERE.items()
        for file, name in tests
    ]


@pytest.mark.parametrize(("file", "name"), listed())
def test_it(file: str, name: str) -> None:
    outcome = run(TESTS / file, name)
    if reason := re.search(r"^SKIPPED .*?: (.*)$", outcome.stdout, re.MULTILINE):
        pytest.skip(reason[1])
    assert outcome.returncode == 0 and " passed" in outcome.stdout, outcome.stdout


def run(file: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Each case of the test of that name; pytest fails where there is none."""
    line = [sys.executable, "-m", "pytest", "-q", "-rs", "-n", "0", f"{file}::{name}"]
    return subprocess.run(line, cwd=TESTS.parent, capture_output=True, text=True, timeout=HANGS_S)


@pytest.mark.row(rows.KIT)
def test_a_test_that_fails_or_is_not_there_is_no_pass(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("def test_bad():\n    assert False\n")
    for name in ("test_bad", "test_missing"):
        assert run(tmp_path / "test_x.py", name).returncode != 0
