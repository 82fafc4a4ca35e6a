"""A simulated robot that speaks as a real one does."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock as RclpyClock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Header
from trajectory_msgs.msg import JointTrajectory

from internvla_ros.motion.trajectory import TrajectoryError
from internvla_ros.nodes.converters import camera_info, rgb_to_image
from internvla_ros.nodes.diagnostics import OK, WARN, Diagnostics, Health
from internvla_ros.nodes.instruction import MAX_LENGTH
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.qos import CLOCK, EVENTS, LATCHED, SENSOR_OUT
from internvla_ros.nodes.realtime import go_first
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.sim_robot import Points, SimRobot
from internvla_ros.nodes.stamps import seconds, time_message
from internvla_ros.robots.embodiment import CameraSpec, load_embodiment
from internvla_ros.sim.photographer import Photographer
from internvla_ros.srv import ResetScene

_STEP = 0.01  # s of simulated time between two clock messages
_CATCH_UP = 2.0  # how much faster than asked for the simulation runs after a delay
_SLIP = 0.2  # s of lag after which the simulation gives up catching up with real time


@dataclass(frozen=True)
class SimConfig:
    """Parameters of sim_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")
    seed: int = setting(0, "the first scene is drawn from it", minimum=0, maximum=2**62)
    real_time_factor: float = setting(
        1.0, "simulated seconds a second", minimum=0.01, maximum=100.0
    )
    joint_state_rate: float = setting(50.0, "Hz, joint states", minimum=1.0, maximum=100.0)
    camera_rate: float = setting(10.0, "Hz, images of each camera", minimum=0.1, maximum=100.0)
    realtime_priority: int = setting(
        0,
        "SCHED_FIFO priority of the physics, as a robot keeps its own time; 0: none",
        minimum=0,
        maximum=90,
    )


class SimNode(Node):
    """Trajectories in; /clock, joint_states, images and task_success out; service sim/reset."""

    def __init__(self) -> None:
        super().__init__("sim")
        self._config = declare(self, SimConfig)
        self._embodiment = load_embodiment(self._config.robot)
        self._robot = SimRobot(self._embodiment, self._config.seed)
        self._joint_names = [*self._embodiment.joints, *self._embodiment.gripper.joints]
        self._joints_every = max(1, round(1.0 / (_STEP * self._config.joint_state_rate)))
        self._images_every = max(1, round(1.0 / (_STEP * self._config.camera_rate)))
        self._steps = 0
        self._lag = 0.0
        self._success = False
        self._make_interfaces()
        if self._config.realtime_priority:
            self.get_logger().info(go_first(self._config.realtime_priority))
        self._photographer = Photographer(self._robot.world, self._publish_image)
        self._publish_success(False)
        self._began = time.monotonic()
        self._done = 0
        period = _STEP / self._config.real_time_factor / _CATCH_UP
        steady = RclpyClock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(period, self._tick, clock=steady)
        self._diagnostics = Diagnostics(self, self._health)

    def close(self) -> None:
        """End the pictures, and free what the world holds."""
        self._photographer.close()
        self._robot.world.close()

    def _make_interfaces(self) -> None:
        self._clock_out = self.create_publisher(Clock, "/clock", CLOCK)
        self._joints_out = self.create_publisher(JointState, "joint_states", SENSOR_OUT)
        self._success_out = self.create_publisher(Bool, "task_success", LATCHED)
        self._image_out = {
            camera.name: self.create_publisher(Image, f"{camera.name}/image_raw", SENSOR_OUT)
            for camera in self._embodiment.cameras
        }
        self._info_out = {
            camera.name: self.create_publisher(CameraInfo, f"{camera.name}/camera_info", SENSOR_OUT)
            for camera in self._embodiment.cameras
        }
        self.create_subscription(
            JointTrajectory, "arm_controller/joint_trajectory", self._on_arm, EVENTS
        )
        self.create_subscription(
            JointTrajectory, "gripper_controller/joint_trajectory", self._on_gripper, EVENTS
        )
        self.create_service(ResetScene, "sim/reset", self._on_reset)

    def _on_arm(self, message: JointTrajectory) -> None:
        try:
            self._robot.follow_arm(*_trajectory(message))
        except TrajectoryError as error:
            self.get_logger().error(f"arm_controller: {error}", throttle_duration_sec=5.0)

    def _on_gripper(self, message: JointTrajectory) -> None:
        try:
            self._robot.follow_gripper(*_trajectory(message))
        except TrajectoryError as error:
            self.get_logger().error(f"gripper_controller: {error}", throttle_duration_sec=5.0)

    def _on_reset(
        self, request: ResetScene.Request, response: ResetScene.Response
    ) -> ResetScene.Response:
        try:
            if request.seed < 0:
                raise ValueError(f"seed {request.seed} is negative; give one >= 0")
            if len(request.instruction) > MAX_LENGTH:
                raise ValueError(f"the instruction is longer than {MAX_LENGTH} characters")
            self._photographer.rest()
            scene = self._robot.reset(request.seed, request.instruction)
        except ValueError as error:
            response.message = str(error)
            return response
        self._publish_success(False)
        response.success = True
        response.instruction = scene.task.instruction
        return response

    def _tick(self) -> None:
        """Advance by one step if one is due, so that what comes in is looked at between steps.

        When too many are due they are dropped: simulated time then falls behind real time.
        """
        wanted = (time.monotonic() - self._began) * self._config.real_time_factor / _STEP
        due = math.floor(wanted) - self._done
        if due * _STEP > _SLIP * self._config.real_time_factor:
            self._lag += due * _STEP
            self._done += due - 1
        if due > 0:
            self._advance()
            self._done += 1

    def _advance(self) -> None:
        self._robot.advance(_STEP)
        self._steps += 1
        stamp = time_message(self._robot.time)
        self._clock_out.publish(Clock(clock=stamp))
        if self._steps % self._joints_every == 0:
            self._publish_joints(Header(stamp=stamp))
        if self._steps % self._images_every == 0:
            self._photographer.take(self._embodiment.cameras, self._robot.time)
            if self._robot.world.success() != self._success:
                self._publish_success(not self._success)

    def _publish_joints(self, header: Header) -> None:
        world = self._robot.world
        message = JointState(header=header, name=self._joint_names)
        message.position = [*world.joint_positions, *world.finger_positions]
        message.velocity = [*world.joint_velocities, *[0.0] * len(world.finger_positions)]
        self._joints_out.publish(message)

    def _publish_image(self, camera: CameraSpec, picture: NDArray[np.uint8], t: float) -> None:
        """Publish a picture of time t (s); called in the photographer's thread."""
        header = Header(stamp=time_message(t), frame_id=camera.optical_frame)
        size = (camera.width, camera.height)
        intrinsics = self._robot.world.intrinsics(camera.name, *size)
        self._info_out[camera.name].publish(camera_info(intrinsics, *size, header))
        self._image_out[camera.name].publish(rgb_to_image(picture, header))

    def _publish_success(self, success: bool) -> None:
        self._success = success
        self._success_out.publish(Bool(data=success))

    def _health(self) -> Health:
        values = {"time": f"{self._robot.time:.1f}", "slipped": f"{self._lag:.1f}"}
        level, self._lag = (WARN if self._lag else OK), 0.0
        return Health(level, "slower than real time" if level == WARN else "simulating", values)


def _trajectory(message: JointTrajectory) -> tuple[float, list[str], Points]:
    """Stamp (s), joint names and points of a trajectory."""
    points = [
        (seconds(p.time_from_start), p.positions, p.velocities, p.accelerations)
        for p in message.points
    ]
    return seconds(message.header.stamp), list(message.joint_names), points


def main() -> int:
    """Run sim_node."""
    return run(SimNode)


if __name__ == "__main__":
    sys.exit(main())
