"""The `embedded` backend: setpoints as JointTrajectory to any joint_trajectory_controller."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.node import Node
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from internvla_ros.motion.backend import JointCommand
from internvla_ros.motion.backends.trajectory import Point, setpoint_trajectory
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.gripper_output import GripperOutput
from internvla_ros.nodes.qos import LATCHED, NEWEST
from internvla_ros.nodes.stamps import duration_message, time_message
from internvla_ros.robots.embodiment import Embodiment


class TrajectoryBackend:
    """Each setpoint replaces the controller's trajectory; a stop follows it in case none comes.

    Publishes `arm_controller/joint_trajectory`; the gripper's way is `gripper`'s. Drivers may say
    on `robot_fault` why the robot does not obey, as `driver_node` does. A controller that streams
    well has `interpolate_from_desired_state: true` and `allow_nonzero_velocity_at_trajectory_end:
    true`.
    """

    def __init__(self, node: Node, robot: Embodiment, gripper: GripperOutput) -> None:
        self._joints = robot.joints
        self._gripper = gripper
        self._period = 1.0 / robot.control_rate
        self._out = node.create_publisher(
            JointTrajectory, "arm_controller/joint_trajectory", NEWEST
        )
        self._fault = ""
        node.create_subscription(String, "robot_fault", self._on_fault, LATCHED)

    def start(self, joints: JointCommand, t: float) -> None:
        """A controller needs no preparation."""
        self._gripper.forget()

    def setpoint(self, pose: Pose, joints: JointCommand, gripper: float, t: float) -> None:
        """Send the joints; a trajectory starts one control period before its setpoint is due."""
        began = t - self._period
        points = setpoint_trajectory(joints, self._period)
        self._out.publish(trajectory_message(self._joints, began, points))
        self._gripper.send(gripper, began)

    def stop(self, t: float) -> None:
        """The last trajectory ends in a stop of its own."""

    @property
    def fault(self) -> str:
        """What the robot's driver or the gripper complains of."""
        return self._fault or self._gripper.fault

    @property
    def notice(self) -> str:
        """A topic tells nothing."""
        return ""

    def _on_fault(self, message: String) -> None:
        self._fault = message.data


def trajectory_message(
    joints: Sequence[str], began: float, points: Sequence[Point]
) -> JointTrajectory:
    """A trajectory that starts at `began` (s)."""
    message = JointTrajectory(joint_names=list(joints))
    message.header.stamp = time_message(began)
    message.points = [
        JointTrajectoryPoint(
            positions=point.positions.tolist(),
            velocities=point.velocities.tolist(),
            accelerations=point.accelerations.tolist(),
            time_from_start=duration_message(point.time),
        )
        for point in points
    ]
    return message
