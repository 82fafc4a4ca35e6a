"""When an instruction in progress has ended, and how."""

from __future__ import annotations

import numpy as np
import pytest

from internvla_ros.nodes.task_run import ArmReport, Outcome, Phase, Source, TaskRun

SOURCES = (
    Source("front", 2.0, Outcome.CAMERA_LOST),
    Source("plan", 2.0, Outcome.PLANNER_LOST),
    Source("chunk", 2.0, Outcome.ACTOR_LOST),
    Source("arm", 1.0, Outcome.ARM_LOST),
)
NAMES = [source.name for source in SOURCES]


def start(timeout: float = 60.0, stall: float = 0.0) -> TaskRun:
    return TaskRun(100.0, timeout, SOURCES, start_patience=10.0, stall_patience=stall)


def report(x: float = 0.0, *, running: bool = True, fault: str = "") -> ArmReport:
    return ArmReport(running, fault, np.array([x, 0.0, 0.0]), 1.0)


def see_all(run: TaskRun, now: float) -> None:
    for name in NAMES:
        run.seen(name, now)


def outcome(run: TaskRun, now: float) -> Outcome | None:
    return run.outcome(now, now - 100.0)


def test_waits_then_moves_then_holds() -> None:
    run = start()
    assert run.phase() is Phase.WAITING
    see_all(run, 101.0)
    run.arm(report(), 101.0)
    assert run.phase() is Phase.MOVING
    run.arm(report(running=False), 101.1)
    assert run.phase() is Phase.HOLDING
    assert outcome(run, 101.2) is None


def test_ends_on_success_whatever_else_is_wrong() -> None:
    run = start()
    run.succeed()
    assert outcome(run, 1000.0) is Outcome.NONE


def test_the_timeout_is_of_the_robots_clock() -> None:
    run = start(timeout=5.0)
    see_all(run, 109.0)
    assert run.outcome(109.5, 4.0) is None
    assert run.outcome(109.5, 5.1) is Outcome.TIMEOUT


@pytest.mark.parametrize("lost", SOURCES)
def test_blames_what_never_came(lost: Source) -> None:
    run = start()
    for now in np.arange(100.0, 111.0, 0.5):
        for name in NAMES:
            if name != lost.name:
                run.seen(name, float(now))
    assert outcome(run, 109.9) is None
    assert outcome(run, 110.6) is lost.lost


@pytest.mark.parametrize("lost", SOURCES)
def test_blames_what_fell_silent(lost: Source) -> None:
    run = start()
    see_all(run, 101.0)
    for name in NAMES:
        if name != lost.name:
            run.seen(name, 101.0 + lost.silence)
    assert outcome(run, 101.0 + lost.silence - 0.01) is None
    assert outcome(run, 101.0 + lost.silence + 0.01) is lost.lost


def test_blames_the_cause_and_not_its_effect() -> None:
    run = start()
    see_all(run, 101.0)
    run.seen("plan", 101.8)
    for name in ("front", "arm"):
        run.seen(name, 103.0)
    assert outcome(run, 103.1) is Outcome.PLANNER_LOST


def test_a_fault_ends_it() -> None:
    run = start()
    see_all(run, 101.0)
    run.arm(report(fault="joint states stopped coming"), 101.0)
    assert outcome(run, 101.0) is Outcome.ROBOT_FAULT
    assert run.fault() == "joint states stopped coming"


def test_an_arm_that_runs_but_stays_has_stalled() -> None:
    run = start(stall=3.0)
    for now in np.arange(101.0, 103.0, 0.1):
        run.arm(report(x=0.01 * (now - 101.0)), float(now))
    for now in np.arange(103.0, 106.0, 0.1):
        see_all(run, float(now))
        run.arm(report(x=0.02), float(now))
    assert outcome(run, 105.0) is None
    assert outcome(run, 106.5) is Outcome.STALLED


def test_every_outcome_is_a_code_of_the_action() -> None:
    action = pytest.importorskip("internvla_ros.action")
    for each in Outcome:
        assert isinstance(getattr(action.ExecuteInstruction.Result, each.name), int)
    for phase in Phase:
        assert getattr(action.ExecuteInstruction.Feedback, phase.name) == phase.value
