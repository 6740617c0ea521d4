"""The watch over submitted shards, with answers that a test writes: what never happens to a healthy run ends it, and a slow run goes on."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from facegraft.engine.cluster.watch import ASK_EVERY_S, IDLE_S, MARGIN_S, SILENT_S, Watch, WorkerSigns
from facegraft.engine.errors import EngineError
from facegraft.engine.signs import Signs

LIMIT_S = 300.0


class Workers:
    """Two workers that answer with `signs`, at once; or not at all, where that is None."""

    def __init__(self, signs: WorkerSigns | None) -> None:
        self.signs = signs
        self.now = 0.0
        self.watch = Watch(self._ask)

    def _ask(self, workers: list[str]) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        if self.signs is not None:
            future.set_result({"a": self.signs, "b": WorkerSigns({}, False)})
        return future

    def pass_time(self, seconds: float, waiting: bool = True, step_s: float = ASK_EVERY_S) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += step_s
            self.watch.check(self.now, ["a", "b"], waiting)


def at(number: int) -> WorkerSigns:
    return WorkerSigns({1: (7, number, LIMIT_S)}, False)


def test_an_item_may_take_as_long_as_its_limit_and_no_longer() -> None:
    workers = Workers(at(0))
    for number in range(5):
        workers.signs = at(number)
        workers.pass_time(LIMIT_S)
    with pytest.raises(
        EngineError, match=r"shard 7 has not moved for \d+ s at a, where 300 s is the limit of that step"
    ):
        workers.pass_time(2 * LIMIT_S)
    assert workers.now <= 5 * LIMIT_S + LIMIT_S + MARGIN_S + 3 * ASK_EVERY_S


def test_shards_that_nobody_is_at_end_the_run() -> None:
    workers = Workers(WorkerSigns({}, False))
    with pytest.raises(EngineError, match="2 workers are there, but have not begun the waiting shards for 1"):
        workers.pass_time(2 * IDLE_S)
    assert workers.now <= IDLE_S + 3 * ASK_EVERY_S


def test_workers_without_work_of_ours_are_waited_for() -> None:
    engaged = Workers(WorkerSigns({}, True))
    engaged.pass_time(20 * IDLE_S)
    nothing_to_do = Workers(WorkerSigns({}, False))
    nothing_to_do.pass_time(20 * IDLE_S, waiting=False)
    coming_back = Workers(WorkerSigns({}, False))
    for _ in range(20):
        coming_back.pass_time(IDLE_S - 2 * ASK_EVERY_S)
        coming_back.watch.moved()


def test_workers_that_do_not_answer() -> None:
    workers = Workers(None)
    with pytest.raises(EngineError, match="none of the 2 workers has answered for 6"):
        workers.pass_time(2 * SILENT_S)
    assert workers.now > SILENT_S


def test_a_pause_of_this_process_does_not_count() -> None:
    workers = Workers(at(0))
    workers.pass_time(4 * 3600, step_s=3600)
    Workers(None).pass_time(5 * 3600, step_s=3600)


def test_a_failed_question_is_asked_again() -> None:
    answers = [RuntimeError("lost"), {"a": RuntimeError("no facegraft there")}, {"a": at(0)}]

    def ask(workers: list[str]) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future

    watch = Watch(ask)
    for look in range(12):
        watch.check(look * ASK_EVERY_S, ["a"], True)
    assert len(answers) == 1


def test_signs_are_of_the_thread_that_makes_a_shard() -> None:
    signs = Signs()
    signs.give(1.0)
    assert signs.all() == {}
    with signs.of_shard(3):
        signs.give(5.0)
        signs.give(6.0)
        assert list(signs.all().values()) == [(3, 2, 6.0)]
    assert signs.all() == {}
