"""A robot's joints, as the stand-ins for MoveIt's nodes move them through its controller."""

from __future__ import annotations

from typing import Any

import numpy as np
from geometry_msgs.msg import Pose as PoseMessage
from rclpy.node import Node
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.planning_messages import pose_of
from internvla_ros.nodes.stamps import duration_message
from internvla_ros.robots.embodiment import load_embodiment


class ArmStandIn:
    """Joint states in, trajectories out. The parameters `robot` and `robot_description` of the node
    say which arm it is."""

    def __init__(self, node: Node, joints: str, out: str) -> None:
        """`joints`, `out`: the topics."""
        self.robot = load_embodiment(node.get_parameter("robot").value)
        description = node.get_parameter("robot_description").value
        self.kinematics = Kinematics(description, self.robot.joints, self.robot.tip_frame)
        self.measured: np.ndarray | None = None
        self.q: np.ndarray | None = None
        self.out = node.create_publisher(JointTrajectory, out, 10)
        node.create_subscription(JointState, joints, self.on_joints, 10)

    def on_joints(self, message: JointState) -> None:
        found = dict(zip(message.name, message.position, strict=True))
        self.measured = np.array([found[name] for name in self.robot.joints])

    def forget(self) -> None:
        """Go on from where the joint states say the arm is."""
        self.q = None

    @property
    def tip(self) -> Pose | None:
        """Where it was sent; None before the first joint state."""
        if self.q is None:
            self.q = self.measured
        return None if self.q is None else self.kinematics.forward(self.q)

    def go(self, tip: Pose, period: float) -> None:
        """To the joint positions that follow the tip's, in a period (s)."""
        before = self.q
        self.q = self.kinematics.inverse(tip, before, max_iterations=20).q
        self.send([(period, self.q, (self.q - before) / period)])

    def reach(self, place: Any, turn: Any) -> np.ndarray:
        """Joint positions for a tip's place and direction, as constraints have them."""
        goal = pose_of(PoseMessage(position=place.position, orientation=turn))
        return self.kinematics.inverse(goal, self.measured, restarts=5).q

    def send(self, points: list[tuple[float, np.ndarray, np.ndarray]]) -> None:
        """A trajectory: s after now, positions, velocities."""
        message = JointTrajectory(joint_names=list(self.robot.joints))
        message.points = [
            JointTrajectoryPoint(
                positions=q.tolist(), velocities=v.tolist(), time_from_start=duration_message(t)
            )
            for t, q, v in points
        ]
        self.out.publish(message)
