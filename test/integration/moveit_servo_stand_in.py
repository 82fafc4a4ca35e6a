"""A node that keeps MoveIt Servo's written contract (ROS 2 Jazzy), for where MoveIt is not at hand.

It has no type of command until one is chosen, obeys none while paused, halts on commands older than
0.1 s, tells its status at its own rate unless it is paused, and publishes no motion after INVALID
or a halt. Its arm is a point that goes straight to the pose wanted, at 0.4 m/s, inside a ball of
0.8 m (outside: INVALID) and above the floor (below: HALT_FOR_COLLISION; up to 5 cm above it:
DECELERATE_FOR_COLLISION). The motion goes out on ~/tip.
"""

from __future__ import annotations

import contextlib

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from moveit_msgs.msg import ServoStatus
from moveit_msgs.srv import ServoCommandType
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.time import Time
from std_srvs.srv import SetBool

PERIOD = 0.02  # s
TIMEOUT = 0.1  # s
SPEED = 0.4  # m/s


class ServoStandIn(Node):
    def __init__(self) -> None:
        super().__init__("servo_node")
        self.type: int | None = None
        self.paused = False
        self.command: PoseStamped | None = None
        self.tip = np.array([0.3, 0.0, 0.2])
        self.code = ServoStatus.NO_WARNING
        self.status = self.create_publisher(ServoStatus, "~/status", 10)
        self.out = self.create_publisher(PoseStamped, "~/tip", 10)
        self.create_subscription(PoseStamped, "~/pose_target_cmds", self.on_pose, 10)
        self.create_service(ServoCommandType, "~/switch_command_type", self.on_switch)
        self.create_service(SetBool, "~/pause_servo", self.on_pause)
        self.create_timer(PERIOD, self.loop)

    def on_pose(self, message: PoseStamped) -> None:
        if self.type == ServoCommandType.Request.POSE:
            self.command = message

    def on_switch(
        self, request: ServoCommandType.Request, response: ServoCommandType.Response
    ) -> ServoCommandType.Response:
        known = (request.JOINT_JOG, request.TWIST, request.POSE)
        response.success = request.command_type in known
        if response.success:
            self.type = request.command_type
        return response

    def on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.paused, self.command = request.data, None
        response.success = True
        return response

    def loop(self) -> None:
        if self.paused:
            return
        command, self.code = self.command, ServoStatus.NO_WARNING
        if command is not None:
            self.move(command)
        self.status.publish(ServoStatus(code=self.code, message=f"status {self.code}"))

    def move(self, command: PoseStamped) -> None:
        age = (self.get_clock().now() - Time.from_msg(command.header.stamp)).nanoseconds * 1e-9
        if age > TIMEOUT:
            self.command = None
            return
        at = command.pose.position
        wanted = np.array([at.x, at.y, at.z])
        if command.header.frame_id != "base_link" or np.linalg.norm(wanted) > 0.8:
            self.code = ServoStatus.INVALID
            return
        if wanted[2] < 0.0:
            self.code = ServoStatus.HALT_FOR_COLLISION
            return
        if wanted[2] < 0.05:
            self.code = ServoStatus.DECELERATE_FOR_COLLISION
        way = wanted - self.tip
        self.tip = self.tip + way * min(1.0, SPEED * PERIOD / max(float(np.linalg.norm(way)), 1e-9))
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
