"""The arm's controller against an ideal arm: it moves only when it should, and always stops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from internvla_ros.control.chunk import Chunk
from internvla_ros.control.safety import SafetyConfig
from internvla_ros.nodes.arm import ArmController, ArmState, Report
from internvla_ros.nodes.joints import JointReading
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.scene import arm_kinematics

PERIOD = 0.02
ROBOT = load_embodiment("widowx_250s")
TASK = "put the red cube on the blue plate"


class Bench:
    """A controller and an arm that is always where it was told to be."""

    def __init__(self) -> None:
        self.arm = ArmController(
            ROBOT, arm_kinematics(ROBOT), chunk_timeout=1.0, safety=SafetyConfig()
        )
        self.now = 10.0
        self.q: NDArray[np.float64] = ROBOT.ready.copy()
        self.joints_alive = True
        self.sent: list[NDArray[np.float64]] = []
        self.sequence = 0

    def run(self, seconds: float) -> Report:
        """Some control cycles; the last one's report."""
        report = Report(ArmState.IDLE)
        for _ in range(max(1, round(seconds / PERIOD))):
            self.now += PERIOD
            if self.joints_alive:
                self.arm.joints(JointReading(self.now, self.q.copy(), 1.0), self.now)
            report = self.arm.cycle(self.now)
            if report.command is not None:
                self.q = report.command.positions.copy()
                self.sent.append(self.q)
        return report

    def send(self, instruction: str = TASK, step: float = 0.01, gripper: float = 1.0) -> str:
        """A chunk from what was seen 60 ms ago: 16 steps along y."""
        self.sequence += 1
        actions = np.zeros((16, 7))
        actions[:, 1], actions[:, 6] = step, gripper
        chunk = Chunk(self.now - 0.06, 0.2, actions, self.sequence)
        return self.arm.add(chunk, instruction, self.now)


def moving() -> Bench:
    """A bench whose arm follows chunks."""
    bench = Bench()
    bench.run(0.5)
    bench.arm.instruct(TASK, bench.now)
    for _ in range(5):
        assert bench.send() == ""
        bench.run(0.2)
    return bench


def test_refuses_everything_before_it_knows_where_the_joints_are() -> None:
    bench = Bench()
    bench.joints_alive = False
    bench.arm.instruct(TASK, bench.now)
    assert "no joint states" in bench.send()
    report = bench.run(1.0)
    assert (report.state, report.command) == (ArmState.IDLE, None)
    assert "no joint states" in report.reason


def test_does_nothing_without_an_instruction() -> None:
    bench = Bench()
    bench.run(0.5)
    assert "not for the present instruction" in bench.send()
    bench.run(0.5)
    assert bench.sent == []
    assert bench.arm.refused == 1


def test_an_instruction_becomes_motion_at_the_speed_of_the_chunks() -> None:
    bench = moving()
    report = bench.run(0.02)
    assert report.state is ArmState.RUNNING
    assert report.measured is not None
    start = arm_kinematics(ROBOT).forward(ROBOT.ready).position
    moved = report.measured.position - start
    assert moved[1] == pytest.approx(0.05, abs=0.015)
    assert np.abs(moved[[0, 2]]).max() < 0.002
    assert report.chunk_sequence == 5
    assert report.tracking_error < 0.01


def test_reports_the_delay_of_each_chunk_once() -> None:
    bench = Bench()
    bench.run(0.5)
    bench.arm.instruct(TASK, bench.now)
    bench.send()
    assert bench.run(PERIOD).first_of_chunk == pytest.approx(0.08)
    assert bench.run(PERIOD).first_of_chunk is None


def test_holds_when_chunks_stop_and_goes_on_when_they_come_back() -> None:
    bench = moving()
    report = bench.run(1.6)
    assert report.state is ArmState.HOLDING
    assert report.command is not None
    assert np.abs(report.command.velocities).max() < 1e-3
    where = bench.q.copy()
    bench.run(1.0)
    assert bench.q == pytest.approx(where, abs=1e-6)
    assert bench.send() == ""
    assert bench.run(0.3).state is ArmState.RUNNING


def test_stops_when_the_instruction_is_taken_back_and_then_falls_silent() -> None:
    bench = moving()
    bench.arm.instruct("", bench.now)
    assert "not for the present instruction" in bench.send()
    assert bench.run(0.5).state is ArmState.STOPPED
    sent = len(bench.sent)
    bench.run(0.5)
    assert len(bench.sent) == sent


def test_every_setpoint_is_within_the_limits_however_it_ends() -> None:
    bench = moving()
    bench.arm.instruct("", bench.now)
    bench.run(0.5)
    speed = np.diff(bench.sent, axis=0) / PERIOD
    assert (np.abs(speed) <= ROBOT.velocity).all()
    assert (np.abs(np.diff(speed, axis=0)) / PERIOD <= 1.05 * ROBOT.acceleration).all()


def test_a_chunk_for_another_instruction_is_refused() -> None:
    bench = moving()
    assert "not for the present instruction" in bench.send("put the ball in the bin")
    bench.arm.instruct("put the ball in the bin", bench.now)
    bench.run(0.5)
    assert bench.send("put the ball in the bin") == ""


def test_starts_from_where_others_have_put_the_arm() -> None:
    bench = moving()
    bench.arm.instruct("", bench.now)
    bench.run(0.5)
    bench.q = ROBOT.ready + 0.2
    bench.run(0.1)
    bench.arm.instruct(TASK, bench.now)
    before = bench.q.copy()
    bench.send()
    bench.run(PERIOD)
    assert np.abs(bench.q - before).max() < 0.01


def test_joint_states_that_stop_are_a_fault_until_they_come_back() -> None:
    bench = moving()
    bench.joints_alive = False
    report = bench.run(1.5)
    assert report.state is ArmState.FAULT
    assert "joint states" in report.reason
    assert "at fault" in bench.send()
    bench.joints_alive = True
    bench.run(0.5)
    assert bench.send() == ""


def test_an_arm_that_does_not_follow_is_stopped() -> None:
    bench = moving()
    bench.send()
    bench.q = bench.q + 0.8
    report = bench.arm.cycle(bench.now + PERIOD)
    bench.arm.joints(JointReading(bench.now, bench.q, 1.0), bench.now)
    report = bench.arm.cycle(bench.now + 2 * PERIOD)
    assert report.state is ArmState.FAULT
    assert "away from where it was sent" in report.reason
    assert bench.run(1.0).state is ArmState.FAULT
    bench.arm.instruct("", bench.now)
    bench.arm.instruct(TASK, bench.now)
    bench.run(0.2)
    assert bench.send() == ""
    assert bench.run(0.1).state is ArmState.RUNNING


def test_the_gripper_is_sent_once_a_change() -> None:
    bench = Bench()
    bench.run(0.5)
    bench.arm.instruct(TASK, bench.now)
    changes: list[float] = []
    for gripper in (1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0):
        for _ in range(3):
            bench.send(gripper=gripper, step=0.0)
            for _ in range(10):
                report = bench.run(PERIOD)
                if not changes or report.gripper != changes[-1]:
                    changes.append(report.gripper)
    assert changes == [1.0, 0.0, 1.0]


def test_what_was_told_before_the_stop_is_not_where_the_arm_starts_from() -> None:
    bench = moving()
    for _ in range(3):
        assert bench.send(step=0.03) == ""
        bench.run(0.2)
    told = bench.q
    bench.joints_alive = False
    bench.run(0.15)
    bench.arm.instruct("", bench.now)
    bench.run(0.25)
    assert np.abs(bench.q - told).max() > 0.05, "the arm has gone on since"
    rest, count = bench.q, len(bench.sent)
    bench.arm.instruct(TASK, bench.now)
    assert bench.send() == ""
    bench.run(PERIOD)
    assert len(bench.sent) == count + 1
    np.testing.assert_allclose(bench.q, rest, atol=5e-3)
