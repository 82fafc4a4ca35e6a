"""A node that keeps MoveIt Servo's written contract (ROS 2 Jazzy), for where MoveIt is not at hand.

It has no type of command until one is chosen, obeys none while paused, halts on commands older than
`incoming_command_timeout`, tells its status at its own rate unless it is paused, and publishes no
motion after INVALID or a halt. Its tip goes straight to the pose wanted at `scale.linear`, inside a
ball of 0.8 m (outside: INVALID) and above the floor (below: HALT_FOR_COLLISION; up to 5 cm above
it: DECELERATE_FOR_COLLISION). The motion goes out on ~/tip.

With the parameter `robot_description`, as a graph starts Servo, the tip is an arm's: its joints go
out as JointTrajectory on `command_out_topic`, from where the joint states say they are. Parameters
are those of config/moveit, in `moveit_servo`, and `robot`, its name. For tests: ~/pretend makes it
report a status and act on it (NO_WARNING: no more), ~/doing says what it does, `refusals` how often
it refuses a type.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from moveit_msgs.msg import ServoStatus
from moveit_msgs.srv import ServoCommandType
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.time import Time
from std_msgs.msg import Int8, String
from std_srvs.srv import SetBool

from internvla_ros.motion.se3 import Pose
from internvla_ros.nodes.planning_messages import pose_of
from internvla_ros.nodes.qos import LATCHED

PERIOD = 0.02  # s
TIMEOUT = 0.1  # s
SPEED = 0.4  # m/s
SILENT = (ServoStatus.INVALID, ServoStatus.HALT_FOR_SINGULARITY, ServoStatus.HALT_FOR_COLLISION)


class ServoStandIn(Node):
    def __init__(self) -> None:
        super().__init__("servo_node", automatically_declare_parameters_from_overrides=True)
        self.type: int | None = None
        self.paused = False
        self.command: PoseStamped | None = None
        self.tip = np.array([0.3, 0.0, 0.2])
        self.code = self.pretended = ServoStatus.NO_WARNING
        self.refusals = self.setting("refusals", 0)
        self.period = self.setting("moveit_servo.publish_period", PERIOD)
        self.timeout = self.setting("moveit_servo.incoming_command_timeout", TIMEOUT)
        self.speed = self.setting("moveit_servo.scale.linear", SPEED)
        self.frame = self.setting("base_frame", "base_link")
        self.arm: Any = None
        if self.has_parameter("robot_description"):
            from arm_stand_in import ArmStandIn  # takes its time to import

            names = [f"moveit_servo.{name}" for name in ("joint_topic", "command_out_topic")]
            self.arm = ArmStandIn(self, *(self.get_parameter(name).value for name in names))
        self.status = self.create_publisher(ServoStatus, "~/status", 10)
        self.out = self.create_publisher(PoseStamped, "~/tip", 10)
        self.doing = self.create_publisher(String, "~/doing", LATCHED)
        self.create_subscription(PoseStamped, "~/pose_target_cmds", self.on_pose, 10)
        self.create_subscription(Int8, "~/pretend", self.on_pretend, LATCHED)
        self.create_service(ServoCommandType, "~/switch_command_type", self.on_switch)
        self.create_service(SetBool, "~/pause_servo", self.on_pause)
        self.create_timer(self.period, self.loop)
        self.tell()

    def setting(self, name: str, default: Any) -> Any:
        return self.get_parameter(name).value if self.has_parameter(name) else default

    def tell(self) -> None:
        kind = "no type" if self.type is None else f"type {self.type}"
        self.doing.publish(String(data=f"{kind}, {'paused' if self.paused else 'on'}"))

    def on_pose(self, message: PoseStamped) -> None:
        if self.type == ServoCommandType.Request.POSE:
            self.command = message

    def on_pretend(self, message: Int8) -> None:
        self.pretended = message.data

    def on_switch(
        self, request: ServoCommandType.Request, response: ServoCommandType.Response
    ) -> ServoCommandType.Response:
        known = (request.JOINT_JOG, request.TWIST, request.POSE)
        response.success = request.command_type in known and self.refusals == 0
        if response.success:
            self.type = request.command_type
        elif self.arm is None or self.arm.measured is not None:
            # Refusals count from when the robot is there: who watches it can see them.
            self.refusals = max(0, self.refusals - 1)
        self.tell()
        return response

    def on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.paused, self.command = request.data, None
        if self.arm is not None:
            self.arm.forget()
        response.success = True
        self.tell()
        return response

    def loop(self) -> None:
        if self.paused:
            return
        command, self.code = self.command, self.pretended
        if command is not None:
            self.move(command)
        self.status.publish(ServoStatus(code=self.code, message=f"status {self.code}"))

    def move(self, command: PoseStamped) -> None:
        age = (self.get_clock().now() - Time.from_msg(command.header.stamp)).nanoseconds * 1e-9
        if age > self.timeout:
            self.command = None
            return
        wanted = pose_of(command.pose)
        within = wanted is not None and float(np.linalg.norm(wanted.position)) <= 0.8
        if wanted is None or not within or command.header.frame_id != self.frame:
            self.code = ServoStatus.INVALID
        elif wanted.position[2] < 0.0:
            self.code = ServoStatus.HALT_FOR_COLLISION
        elif wanted.position[2] < 0.05:
            self.code = ServoStatus.DECELERATE_FOR_COLLISION
        if wanted is not None and self.code not in SILENT:
            self.follow(wanted, command)

    def follow(self, wanted: Pose, command: PoseStamped) -> None:
        """Straight towards the pose, with no profile."""
        if self.arm is not None:
            here = self.arm.tip
            if here is None:
                return
            self.tip = here.position
        way = wanted.position - self.tip
        length = max(float(np.linalg.norm(way)), 1e-9)
        self.tip = self.tip + way * min(1.0, self.speed * self.period / length)
        if self.arm is not None:
            self.arm.go(Pose(self.tip, wanted.rotation), self.period)
        message = PoseStamped(header=command.header, pose=command.pose)
        moved = message.pose.position
        moved.x, moved.y, moved.z = (float(v) for v in self.tip)
        self.out.publish(message)


def main() -> None:
    rclpy.init()
    node = ServoStandIn()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    node.destroy_node()


if __name__ == "__main__":
    main()
