"""The only node that moves anything: follows action chunks at the robot's control rate."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from internvla_ros.motion.backend import JointCommand
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.msg import ActionChunk, ExecutionState
from internvla_ros.nodes.arm import ArmController, ArmState, Report
from internvla_ros.nodes.converters import ConversionError, message_to_chunk, pose_message
from internvla_ros.nodes.diagnostics import ERROR, OK, WARN, Diagnostics, Health
from internvla_ros.nodes.joints import JointReader, JointStateError
from internvla_ros.nodes.pacing import RateMeter
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST, SENSOR_IN
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.stamps import duration_message, seconds, time_message
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, load_embodiment

_STATE_EVERY = 4  # control cycles
_STOP_TIME = 0.1  # s in which an arm that gets no further setpoint comes to rest


@dataclass(frozen=True)
class ArmConfig:
    """Parameters of arm_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")
    chunk_timeout: float = setting(
        1.0, "s after an observation for which its chunk is followed", minimum=0.1, maximum=10.0
    )
    joint_timeout: float = setting(
        0.5, "s without joint states after which the arm stops", minimum=0.05, maximum=10.0
    )


class ArmNode(Node):
    """ActionChunk, instruction and joint_states in; JointTrajectory and ExecutionState out."""

    def __init__(self) -> None:
        super().__init__("arm")
        config = declare(self, ArmConfig)
        self._robot = load_embodiment(config.robot)
        kinematics = Kinematics(urdf(self._robot.name), self._robot.joints, self._robot.tip_frame)
        self._arm = ArmController(
            self._robot,
            kinematics,
            chunk_timeout=config.chunk_timeout,
            joint_timeout=config.joint_timeout,
        )
        self._reader = JointReader(self._robot)
        self._meter = RateMeter()
        self._cycles = 0
        self._late = 0
        self._limited = 0
        self._last_cycle: float | None = None
        self._delay = -1.0
        self._report = Report(ArmState.IDLE)
        self._gripper_measured = 0.0
        self._period = 1.0 / self._robot.control_rate
        self._make_interfaces()
        self._timer = self.create_timer(self._period, self._cycle)
        self._diagnostics = Diagnostics(self, self._health)

    def _make_interfaces(self) -> None:
        self._arm_out = self.create_publisher(
            JointTrajectory, "arm_controller/joint_trajectory", NEWEST
        )
        self._gripper_out = self.create_publisher(
            JointTrajectory, "gripper_controller/joint_trajectory", EVENTS
        )
        self._state_out = self.create_publisher(ExecutionState, "execution_state", EVENTS)
        self.create_subscription(JointState, "joint_states", self._on_joints, SENSOR_IN)
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)
        self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, NEWEST)

    def _on_joints(self, message: JointState) -> None:
        try:
            stamp = seconds(message.header.stamp)
            reading = self._reader.read(stamp, message.name, message.position)
        except JointStateError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        self._gripper_measured = reading.gripper
        self._arm.joints(reading, self._now())

    def _on_instruction(self, message: String) -> None:
        self._arm.instruct(message.data.strip(), self._now())

    def _on_chunk(self, message: ActionChunk) -> None:
        if not self._arm.expects(message.instruction.strip()):
            return  # on its way while the instruction changed
        convention = self._robot.action
        try:
            if (message.delta_frame, message.rotation) != (
                convention.delta_frame,
                convention.rotation,
            ):
                raise ConversionError(
                    f"action chunk {message.sequence} has {message.rotation} deltas in frame "
                    f"'{message.delta_frame}'; robot {self._robot.name} takes "
                    f"{convention.rotation} in '{convention.delta_frame}'"
                )
            chunk = message_to_chunk(message)
        except ConversionError as error:
            self._arm.refused += 1
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        reason = self._arm.add(chunk, message.instruction.strip(), self._now())
        if reason:
            self.get_logger().warning(f"refused: {reason}", throttle_duration_sec=2.0)

    def _cycle(self) -> None:
        """One control cycle."""
        now = self._now()
        last, self._last_cycle = self._last_cycle, now
        if last is not None and now - last > 2.0 * self._period + 1e-6:
            self._late += 1
        self._meter.tick(time.monotonic())
        report = self._arm.cycle(now)
        if report.state is not self._report.state and report.reason:
            self.get_logger().warning(f"{report.state.name.lower()}: {report.reason}")
        self._report = report
        if report.command is not None:
            self._limited += report.command.limited
            self._arm_out.publish(self._trajectory(report.command, now))
        if report.gripper_changed:
            self._gripper_out.publish(self._gripper_trajectory(report.gripper, now))
        if report.first_of_chunk is not None:
            self._delay = report.first_of_chunk
        self._cycles += 1
        if self._cycles % _STATE_EVERY == 0:
            self._state_out.publish(self._state_message(report, now))

    def _trajectory(self, command: JointCommand, now: float) -> JointTrajectory:
        """The setpoint, and a stop after it for the case that no other one follows."""
        ends, stop_time = _stop_after(command, self._robot)
        message = JointTrajectory(joint_names=list(self._robot.joints))
        message.header.stamp = time_message(now)
        message.points = [
            _point(command.positions, command.velocities, self._period),
            _point(ends, np.zeros_like(ends), self._period + stop_time),
        ]
        return message

    def _gripper_trajectory(self, opening: float, now: float) -> JointTrajectory:
        """From where the fingers are to the opening wanted, at the gripper's own speed."""
        gripper = self._robot.gripper
        here, there = gripper.position(self._gripper_measured), gripper.position(opening)
        way = max(abs(there - here) / gripper.velocity, self._period)
        message = JointTrajectory(joint_names=[gripper.joints[0]])
        message.header.stamp = time_message(now)
        still = np.zeros(1)
        message.points = [
            _point(np.array([here]), still, self._period),
            _point(np.array([there]), still, self._period + way),
        ]
        return message

    def _state_message(self, report: Report, now: float) -> ExecutionState:
        header = Header(stamp=time_message(now), frame_id=self._robot.base_frame)
        message = ExecutionState(
            header=header,
            state=report.state.value,
            reason=report.reason,
            chunk_sequence=report.chunk_sequence,
            chunk_age=report.chunk_age,
            gripper=report.gripper,
            gripper_measured=self._gripper_measured,
            tracking_error=report.tracking_error,
            limited_count=self._limited,
            refused_count=self._arm.refused,
            late_count=self._late,
            control_rate=self._meter.rate(time.monotonic()),
            stamp_to_setpoint=self._delay,
        )
        if report.commanded is not None:
            message.commanded = pose_message(report.commanded, header)
        if report.measured is not None:
            message.measured = pose_message(report.measured, header)
        return message

    def _health(self) -> Health:
        report = self._report
        values = {
            "control_rate": f"{self._meter.rate(time.monotonic()):.1f}",
            "tracking_error": f"{report.tracking_error:.4f}",
            "limited": str(self._limited),
            "refused": str(self._arm.refused),
            "late": str(self._late),
        }
        level = {ArmState.FAULT: ERROR, ArmState.HOLDING: WARN}.get(report.state, OK)
        return Health(level, report.reason or report.state.name.lower(), values)

    def _now(self) -> float:
        return seconds(self.get_clock().now().to_msg())


def _stop_after(
    command: JointCommand, robot: Embodiment
) -> tuple[NDArray[np.float64], float]:
    """Where evenly braking from a setpoint ends [n], within the limits, and s until then."""
    speed = np.abs(command.velocities)
    stop_time = max(_STOP_TIME, float((speed / robot.acceleration).max()))
    ends = command.positions + 0.5 * stop_time * command.velocities
    return np.clip(ends, robot.position_lower, robot.position_upper), stop_time


def _point(
    positions: NDArray[np.float64], velocities: NDArray[np.float64], at: float
) -> JointTrajectoryPoint:
    """A point of a trajectory, `at` s after its start."""
    return JointTrajectoryPoint(
        positions=positions.tolist(),
        velocities=velocities.tolist(),
        time_from_start=duration_message(at),
    )


def main() -> int:
    """Run arm_node."""
    return run(ArmNode)


if __name__ == "__main__":
    sys.exit(main())
