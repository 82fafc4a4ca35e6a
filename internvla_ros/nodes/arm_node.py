"""The only node that moves anything: follows action chunks at the robot's control rate."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import partial

from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float32, Header, String
from std_srvs.srv import SetBool

from internvla_ros.control.safety import Event, SafetyConfig
from internvla_ros.motion.backend import BackendError, MotionBackend
from internvla_ros.motion.clearance import Clearance
from internvla_ros.motion.collision import CollisionModel
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.msg import ActionChunk, ExecutionState
from internvla_ros.nodes.arm import ArmController, ArmState, Report
from internvla_ros.nodes.backends import MOTIONS, make_backend
from internvla_ros.nodes.converters import ConversionError, message_to_chunk, pose_message
from internvla_ros.nodes.diagnostics import ERROR, OK, WARN, Health
from internvla_ros.nodes.joints import JointReader, JointStateError
from internvla_ros.nodes.managed import Managed, ManagedNode, Tell
from internvla_ros.nodes.pacing import RateMeter
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST, SENSOR_IN
from internvla_ros.nodes.realtime import go_first
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.stamps import seconds, time_message
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, load_embodiment

_STATE_EVERY = 0.08  # s between two execution states


@dataclass(frozen=True)
class ArmConfig(Managed):
    """Parameters of arm_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")
    motion: str = setting("embedded", "how setpoints reach the robot", choices=MOTIONS)
    chunk_timeout: float = setting(
        1.0, "s after an observation for which its chunk is followed", minimum=0.1, maximum=10.0
    )
    plan_timeout: float = setting(
        3.0, "s after a plan's views for which its chunks are taken", minimum=0.1, maximum=60.0
    )
    joint_timeout: float = setting(
        0.5, "s without joint states after which the arm stops", minimum=0.05, maximum=10.0
    )
    tracking_tolerance: float = setting(
        0.5, "rad that a joint may be away from where it was sent", minimum=0.01, maximum=3.0
    )
    speed: float = setting(1.0, "share of full speed to begin with", minimum=0.0, maximum=1.0)
    dry_run: bool = setting(False, "compute everything, send nothing to the robot")
    realtime_priority: int = setting(
        20,
        "SCHED_FIFO priority of this process where that is permitted; 0: none",
        minimum=0,
        maximum=90,
    )


@dataclass(frozen=True)
class Loaded:
    """What an arm is moved with."""

    config: ArmConfig
    robot: Embodiment
    arm: ArmController


class ArmNode(ManagedNode):
    """ActionChunk, instruction and joint_states in; JointTrajectory and ExecutionState out.

    An emergency stop is taken in every state, and holds from one to the next.
    """

    _robot: Embodiment
    _arm: ArmController
    _backend: MotionBackend

    def __init__(self, alone: bool = False) -> None:
        """`alone`: nothing else lives in this process, so that it may be given a priority."""
        super().__init__("arm")
        self._alone = alone
        self._stopped = ""  # how the emergency stop came, empty when there is none
        self.create_subscription(Bool, "emergency_stop", self._on_stop, EVENTS)
        self.create_service(SetBool, "emergency_stop", self._on_stop_service)
        if declare(self, ArmConfig).autostart:
            self.start()

    def load(self, tell: Tell) -> Loaded:
        """The robot, what surrounds it, and what moves it."""
        config = declare(self, ArmConfig)
        tell("loading the robot")
        robot = load_embodiment(config.robot)
        kinematics = Kinematics(urdf(robot.name), robot.joints, robot.tip_frame)
        arm = ArmController(
            robot,
            kinematics,
            chunk_timeout=config.chunk_timeout,
            safety=SafetyConfig(
                config.joint_timeout,
                config.plan_timeout,
                config.tracking_tolerance,
                config.speed,
                config.dry_run,
            ),
            room=Clearance(CollisionModel(robot)),
        )
        return Loaded(config, robot, arm)

    def configure(self, loaded: Loaded) -> None:
        """Say how the arm is, and send nothing yet."""
        self._robot, self._arm = loaded.robot, loaded.arm
        if self._stopped:
            self._arm.safety.stop(self._stopped)
        self._dry_run = loaded.config.dry_run
        self._reader = JointReader(self._robot)
        self._meter = RateMeter()
        self._instruction = ""
        self._cycles = 0
        self._last_cycle: float | None = None
        self._delay = -1.0
        self._report = Report(ArmState.IDLE)
        self._gripper_measured = 0.0
        self._period = 1.0 / self._robot.control_rate
        self._state_every = max(1, round(_STATE_EVERY / self._period))
        self._backend = make_backend(loaded.config.motion, self, self._robot, self._hindrance)
        self._engaged = False
        self._make_interfaces()
        if self._alone:
            self.get_logger().info(go_first(loaded.config.realtime_priority))

    def _make_interfaces(self) -> None:
        self._state_out = self.create_publisher(ExecutionState, "execution_state", EVENTS)
        self.create_subscription(JointState, "joint_states", self._on_joints, SENSOR_IN)
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)
        self.create_subscription(ActionChunk, "action_chunk", self._on_chunk, NEWEST)
        self.create_subscription(Float32, "speed", self._on_speed, EVENTS)
        self.create_timer(self._period, self._cycle)

    def activate(self) -> None:
        """Follow chunks for the instruction there is."""
        self._arm.instruct(self._instruction, self._now())

    def deactivate(self) -> None:
        """Brake, whoever moves the arm; send nothing after that."""
        self._arm.instruct("", self._now())
        self._stop_planned_motion()

    def at_rest(self) -> bool:
        """Whether nothing has to be sent any more."""
        return self._report.command is None

    def cleanup(self) -> None:
        """Forget the robot; an emergency stop is not forgotten."""
        del self._arm, self._backend

    def _on_speed(self, message: Float32) -> None:
        self._arm.safety.slow(message.data)

    def _on_stop(self, message: Bool) -> None:
        """A stop; false says nothing, as only the service releases."""
        if message.data:
            self._stop("by topic")

    def _on_stop_service(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        if request.data:
            self._stop("by service")
        else:
            self._stopped = ""
            if self.configured:
                self._arm.safety.release()
            self.get_logger().warning("the emergency stop is released")
        response.success = True
        return response

    def _stop(self, how: str) -> None:
        """Latch the emergency stop; the arm brakes from the next cycle on."""
        if not self._stopped:
            self.get_logger().error(f"emergency stop {how}")
        self._stopped = how
        if self.configured:
            self._arm.safety.stop(how)
            self._stop_planned_motion()

    def _stop_planned_motion(self) -> None:
        """Have the backend stop what it does by itself: the control cycle brakes setpoints."""
        if not self._engaged and not self._dry_run:
            self._backend.stop(self._now())

    def _hindrance(self) -> str:
        """Why nobody may move the arm; empty when it may be moved."""
        if self._stopped:
            return f"emergency stop {self._stopped}"
        if self._dry_run:
            return "dry run: nothing is sent to the robot"
        return "" if self.active else f"{self.get_name()} is {self.state}"

    def _on_joints(self, message: JointState) -> None:
        try:
            stamp = seconds(message.header.stamp)
            reading = self._reader.read(stamp, message.name, message.position)
        except JointStateError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        if reading is not None:
            self._gripper_measured = reading.gripper
            self._arm.joints(reading, self._now())

    def _on_instruction(self, message: String) -> None:
        self._instruction = message.data.strip()
        if self.active:
            self._arm.instruct(self._instruction, self._now())

    def _on_chunk(self, message: ActionChunk) -> None:
        if not self.active or not self._arm.expects(message.instruction.strip()):
            return  # on its way while the instruction changed, or the state
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
        plan_stamp = seconds(message.plan_stamp) or None
        instruction = message.instruction.strip()
        reason = self._arm.add(chunk, instruction, self._now(), plan_stamp)
        if reason:
            self.get_logger().warning(f"refused: {reason}", throttle_duration_sec=2.0)

    def _cycle(self) -> None:
        """One control cycle."""
        now = self._now()
        last, self._last_cycle = self._last_cycle, now
        if last is not None and now - last > 2.0 * self._period + 1e-6:
            self._arm.safety.counts[Event.LATE_CYCLE.value] += 1
        self._meter.tick(time.monotonic())
        self._arm.robot_fault = "" if self._dry_run else self._backend.fault
        report = self._arm.cycle(now)
        if report.state is not self._report.state and report.reason:
            self.get_logger().warning(f"{report.state.name.lower()}: {report.reason}")
        self._report = report
        if not self._dry_run:
            self._send(report, now + self._period)
        if report.first_of_chunk is not None:
            self._delay = report.first_of_chunk
        self._cycles += 1
        if self._cycles % self._state_every == 0:
            self._state_out.publish(self._state_message(report, now))

    def _send(self, report: Report, t: float) -> None:
        """Hand the setpoint for time t (s) to the robot; let go of it when there is none."""
        command, engaged = report.command, self._engaged
        self._engaged = command is not None
        try:
            if command is None:
                if engaged:
                    self._backend.stop(t)
                return
            if not engaged:
                self._backend.start(command, t)
            self._backend.setpoint(command.tip, command, report.gripper, t)
        except BackendError as error:
            self._engaged = False
            self.get_logger().error(str(error), throttle_duration_sec=2.0)

    def _state_message(self, report: Report, now: float) -> ExecutionState:
        header = Header(stamp=time_message(now), frame_id=self._robot.base_frame)
        counts = self._arm.safety.counts
        message = ExecutionState(
            header=header,
            state=report.state.value,
            reason=report.reason or ("" if self.active else self.state),
            chunk_sequence=report.chunk_sequence,
            chunk_age=report.chunk_age,
            gripper=report.gripper,
            gripper_measured=self._gripper_measured,
            chunk_progress=report.chunk_progress,
            tracking_error=report.tracking_error,
            speed=report.speed,
            emergency_stop=self._arm.safety.emergency,
            dry_run=self._dry_run,
            interventions=list(counts),
            intervention_counts=list(counts.values()),
            limited_count=self._arm.limited,
            refused_count=self._arm.refused,
            late_count=counts[Event.LATE_CYCLE.value],
            control_rate=self._meter.rate(time.monotonic()),
            stamp_to_setpoint=self._delay,
        )
        if report.commanded is not None:
            message.commanded = pose_message(report.commanded, header)
        if report.measured is not None:
            message.measured = pose_message(report.measured, header)
        return message

    def health(self) -> Health:
        """What the arm does, and what was prevented."""
        report = self._report
        values = {
            "control_rate": f"{self._meter.rate(time.monotonic()):.1f}",
            "tracking_error": f"{report.tracking_error:.4f}",
            "speed": f"{report.speed:.2f}",
            "limited": str(self._arm.limited),
            "refused": str(self._arm.refused),
            "backend": self._backend.notice,
            **{name: str(count) for name, count in sorted(self._arm.safety.counts.items())},
        }
        level = {ArmState.FAULT: ERROR, ArmState.HOLDING: WARN}.get(report.state, OK)
        return Health(level, report.reason or report.state.name.lower(), values)

    def _now(self) -> float:
        return seconds(self.get_clock().now().to_msg())


def main() -> int:
    """Run arm_node."""
    return run(partial(ArmNode, alone=True))


if __name__ == "__main__":
    sys.exit(main())
