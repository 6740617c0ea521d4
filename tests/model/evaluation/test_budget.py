"""The number of steps that a budget of seconds pays for."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from facegraft_model.config import Config
from facegraft_model.errors import ModelError
from facegraft_model.evaluation import budget
from facegraft_model.evaluation.budget import Pace, measured_pace, pace_of, total_steps


def test_work_before_the_first_step_is_paid_from_the_budget(tiny: Config) -> None:
    pace = Pace(seconds_per_step=0.5, seconds_before=4.0, steps_per_epoch=2.5)
    assert pace.steps_in(10.0) == 12 and pace.steps_in(4.5) == 1
    assert pace.seconds_at(12) == 10.0
    with pytest.raises(
        ModelError, match=r"4\.4 seconds do not pay for one step: 4\.0 s before the first and 0\.50 s for each"
    ):
        pace.steps_in(4.4)
    assert total_steps(tiny, pace) == tiny.train.steps
    assert total_steps(replace(tiny, train=replace(tiny.train, steps=None, epochs=3.0)), pace) == 8


def test_a_pace_is_measured_once_for_a_configuration(
    tmp_path: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Config] = []

    def measure(samples: Path, config: Config, **_: object) -> Pace:
        measured.append(config)
        return Pace(float(len(measured)), 0.0, 1.0)

    monkeypatch.setattr(budget, "measured_pace", measure)
    first = pace_of(tmp_path, "s", tiny, "cpu", 0)
    longer = replace(tiny, train=replace(tiny.train, steps=999), fit=replace(tiny.fit, steps=7))
    assert pace_of(tmp_path, "s", longer, "cpu", 1) == first and len(measured) == 1
    wider = replace(tiny, model=replace(tiny.model, width=48))
    assert pace_of(tmp_path, "s", wider, "cpu", 0) != first and len(measured) == 2
    (tmp_path / "budget.json").write_text("{}")
    with pytest.raises(ModelError, match=r"budget\.json is damaged"):
        pace_of(tmp_path, "s", tiny, "cpu", 0)


def test_steps_and_the_work_before_them_are_timed(spheres: Path, tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test: each step takes what its parts take."""
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "process_time", lambda: float(next(clock)))
    taken = []
    monkeypatch.setattr(budget, "begin", lambda field, source, seed: taken.append(source.batch(0)))
    pace = measured_pace(spheres, tiny, device="cpu")
    assert len(taken) == 1 and pace.seconds_before == 1.0
    # The clock ticks once a step; the fewest steps already last the time wanted.
    assert pace.seconds_per_step == 1.0 and pace.steps_per_epoch > 0
