"""A robot without a ROS driver of its own, behind a joint_trajectory_controller's topics."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from internvla_ros.drivers import franka, widowx_ai
from internvla_ros.drivers.process import DriverError, DriverProcess
from internvla_ros.drivers.tracking import Limits
from internvla_ros.nodes.diagnostics import ERROR, OK, Diagnostics, Health
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST, SENSOR_OUT
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.stamps import seconds
from internvla_ros.robots.embodiment import Embodiment, load_embodiment

DRIVERS = ("franka", "widowx_ai")
END_EFFECTORS = ("wxai_v0_follower", "wxai_v0_leader", "wxai_v0_base", "no_gripper")
"""Those of trossen_arm's StandardEndEffector that fit a WidowX AI."""


@dataclass(frozen=True)
class DriverConfig:
    """Parameters of driver_node."""

    robot: str = setting("franka_fr3", "the robot's name, or the path of its YAML file")
    driver: str = setting("franka", "the library that drives it", choices=DRIVERS)
    address: str = setting("", "of the robot's control unit: host name or IP address")
    state_rate: float = setting(
        100.0, "Hz at which joint states are published", minimum=1.0, maximum=1000.0
    )
    realtime: bool = setting(False, "Franka: insist on a real-time kernel")
    contact_torque: float = setting(
        25.0, "Franka: Nm at a joint beyond which contact stops the arm", minimum=1.0, maximum=87.0
    )
    contact_force: float = setting(
        30.0,
        "Franka: N (and Nm) at the tip beyond which contact stops it",
        minimum=1.0,
        maximum=99.0,
    )
    grip_force: float = setting(30.0, "Franka: N to grasp with", minimum=1.0, maximum=70.0)
    grip_speed: float = setting(0.1, "Franka: m/s of the fingers", minimum=0.01, maximum=0.2)
    end_effector: str = setting(
        "wxai_v0_follower", "WidowX AI: what is mounted", choices=END_EFFECTORS
    )


@dataclass(frozen=True)
class Processes:
    """A robot's drivers: the arm's, and the hand's where that is another."""

    arm: DriverProcess
    hand: DriverProcess

    def each(self) -> Sequence[DriverProcess]:
        """Both, or the one that is both."""
        return [self.arm] if self.hand is self.arm else [self.arm, self.hand]


class DriverNode(Node):
    """Trajectories of arm and gripper in, joint_states and robot_fault out; `~/stop`, `~/recover`.

    After `~/stop` the arm follows nothing until `~/recover`, which takes back a reflex as well.
    """

    def __init__(self) -> None:
        super().__init__("driver")
        config = declare(self, DriverConfig)
        self._robot = load_embodiment(config.robot)
        self._stopped = False
        self._processes = start_driver(self._robot, config)
        self._out = self.create_publisher(JointState, "joint_states", SENSOR_OUT)
        self._fault_out = self.create_publisher(String, "robot_fault", LATCHED)
        self._told: str | None = None
        subscribe = self.create_subscription
        subscribe(JointTrajectory, "arm_controller/joint_trajectory", self._on_arm, NEWEST)
        subscribe(JointTrajectory, "gripper_controller/joint_trajectory", self._on_gripper, EVENTS)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/recover", self._on_recover)
        self.create_timer(1.0 / config.state_rate, self._publish)
        self._diagnostics = Diagnostics(self, self._health)

    def close(self) -> None:
        """Bring the robot to rest."""
        for process in self._processes.each():
            process.close()

    def _on_arm(self, message: JointTrajectory) -> None:
        if self._stopped:
            return
        points = [
            (seconds(point.time_from_start), point.positions, point.velocities)
            for point in message.points
        ]
        self._processes.arm.follow(self._monotonic(message), message.joint_names, points)

    def _on_gripper(self, message: JointTrajectory) -> None:
        finger = self._robot.gripper.joints[0]
        if message.points and finger in message.joint_names and not self._stopped:
            index = message.joint_names.index(finger)
            self._processes.hand.grip(float(message.points[-1].positions[index]))

    def _monotonic(self, message: JointTrajectory) -> float:
        """A trajectory's start on the clock that the driver's process shares."""
        stamp = seconds(message.header.stamp)
        now = seconds(self.get_clock().now().to_msg())
        return time.monotonic() + (stamp - now if stamp else 0.0)

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stopped = True
        self._processes.arm.stop()
        response.success, response.message = True, "stopping; ask to recover to go on"
        return response

    def _on_recover(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._stopped = False
        self._processes.arm.recover()
        response.success, response.message = True, "recovery asked for; /diagnostics tells"
        return response

    def _fault(self) -> str:
        """Why the robot does not obey; empty when it does."""
        faults = [process.fault for process in self._processes.each()]
        stopped = "the driver was stopped: ask it to recover" if self._stopped else ""
        return "; ".join(fault for fault in (*faults, stopped) if fault)

    def _publish(self) -> None:
        fault = self._fault()
        if fault != self._told:
            self._told = fault
            self._fault_out.publish(String(data=fault))
        reading, hand = self._processes.arm.reading(), self._processes.hand.reading()
        if reading is None or hand is None or math.isnan(hand.gripper):
            return
        age = time.monotonic() - min(reading.time, hand.time)
        robot, gripper = self._robot, self._robot.gripper
        fingers = [hand.gripper * mirror for mirror in gripper.mirror]
        message = JointState(name=[*robot.joints, *gripper.joints])
        message.position = [*reading.positions.tolist(), *fingers]
        message.velocity = [*reading.velocities.tolist(), *([0.0] * len(fingers))]
        if age < 1.0:  # a driver that is silent must be noticed
            message.header.stamp = self.get_clock().now().to_msg()
            self._out.publish(message)

    def _health(self) -> Health:
        fault = self._fault()
        return Health(ERROR, fault) if fault else Health(OK, "following")


def start_driver(robot: Embodiment, config: DriverConfig) -> Processes:
    """Start the processes of a robot's driver.

    Raises:
        DriverError: its library is not installed, it drives arms of another kind, or nobody has
            said where the robot is.
    """
    limits, n = Limits.of(robot), len(robot.joints)
    expected = {"franka": 7, "widowx_ai": 6}[config.driver]
    if n != expected:
        raise DriverError(
            f"driver {config.driver} drives {expected} joints, robot {robot.name} has {n}"
        )
    if not config.address:
        raise DriverError(
            f"driver {config.driver} needs the parameter address, of the robot's control unit: "
            "host name or IP address"
        )
    if config.driver == "widowx_ai":
        widowx_ai.trossen_arm()
        settings = widowx_ai.WidowXAiSettings(
            config.address, robot.joints, limits, config.end_effector
        )
        process = DriverProcess(widowx_ai.drive_arm, settings, n)
        return Processes(process, process)
    franka.pylibfranka()
    arm = franka.FrankaSettings(
        config.address,
        robot.joints,
        limits,
        config.realtime,
        torque=(config.contact_torque,) * n,
        force=(config.contact_force,) * 6,
    )
    hand = franka.HandSettings(config.address, config.grip_speed, config.grip_force)
    return Processes(
        DriverProcess(franka.drive_arm, arm, n), DriverProcess(franka.drive_hand, hand, 0)
    )


def main() -> int:
    """Run driver_node."""
    return run(DriverNode)


if __name__ == "__main__":
    sys.exit(main())
