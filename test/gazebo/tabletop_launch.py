"""bringup.launch.py and a robot that does as it is told: for launch_testing.

    launch_test test/gazebo/tabletop_launch.py [sim:=gazebo] [robot:=...] [model:=DIR]

Nothing here is of one simulator; with sim:=mujoco it tries the launch file and itself.
"""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable
from typing import Any

import launch_testing.actions
import numpy as np
import rclpy
from internvla_ros.action import ExecuteInstruction
from internvla_ros.msg import CameraViews, ExecutionState
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from rclpy.action import ActionClient
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import SetBool

from internvla_ros.nodes.qos import EVENTS, NEWEST, SENSOR_IN
from internvla_ros.resources import resource
from internvla_ros.robots.embodiment import load_embodiment
from launch import LaunchDescription

TASK = "put the red cube on the blue plate"
PATIENCE = 180.0  # s; a simulator may have to compile its shaders
READY = 0.05  # rad from the ready pose
AT_REST = 0.01  # rad within half a second


def generate_test_description() -> LaunchDescription:
    names = {"robot": "widowx_250s", "sim": "gazebo", "model": ""}
    file = str(resource("launch/bringup.launch.py"))
    given = [(name, LaunchConfiguration(name)) for name in names]
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value) for name, value in names.items()),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(file), launch_arguments=given),
            launch_testing.actions.ReadyToTest(),
        ]
    )


class TabletopTest(unittest.TestCase):
    """In the order of their names; each leaves the robot at rest."""

    @classmethod
    def setUpClass(cls) -> None:
        rclpy.init()
        cls.node = rclpy.create_node("tabletop_test")
        cls.joints: dict[str, float] = {}
        cls.state: ExecutionState | None = None
        cls.views: CameraViews | None = None
        cls.images = 0
        subscribe = cls.node.create_subscription
        subscribe(JointState, "joint_states", cls._on_joints, SENSOR_IN)
        subscribe(Image, "front/image_raw", cls._on_image, SENSOR_IN)
        subscribe(CameraViews, "camera_views", lambda m: setattr(cls, "views", m), NEWEST)
        subscribe(ExecutionState, "execution_state", lambda m: setattr(cls, "state", m), EVENTS)
        cls.goals = ActionClient(cls.node, ExecuteInstruction, "execute_instruction")
        cls.stop = cls.node.create_client(SetBool, "emergency_stop")

    @classmethod
    def tearDownClass(cls) -> None:
        cls.goals.destroy()
        cls.node.destroy_node()
        rclpy.shutdown()

    @classmethod
    def _on_joints(cls, message: JointState) -> None:
        cls.joints = dict(zip(message.name, message.position, strict=True))

    @classmethod
    def _on_image(cls, message: Image) -> None:
        cls.images += 1

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"waited in vain for {what}")
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def answer(self, future: Any) -> Any:
        self.wait(future.done, "an answer")
        return future.result()

    def positions(self, robot: Any) -> Any:
        return np.array([self.joints.get(name, np.nan) for name in robot.joints])

    def still(self, robot: Any) -> bool:
        """Whether no joint moves within half a second."""
        before, until = self.positions(robot), time.monotonic() + 0.5
        while time.monotonic() < until:
            rclpy.spin_once(self.node, timeout_sec=0.05)
        return bool(np.abs(self.positions(robot) - before).max() < AT_REST)

    def test_1_the_arm_comes_to_its_ready_pose(self, test_args: dict[str, str]) -> None:
        robot = load_embodiment(test_args.get("robot", "widowx_250s"))

        def ready() -> bool:
            away = np.abs(self.positions(robot) - robot.ready)
            return bool((away < READY).all())

        if test_args.get("sim", "gazebo") == "gazebo":  # MuJoCo's tasks begin anywhere
            self.wait(ready, "the arm's ready pose")
        self.wait(lambda: self.state is not None and not self.state.reason, "an arm without faults")

    def test_2_images_flow(self, test_args: dict[str, str]) -> None:
        robot = load_embodiment(test_args.get("robot", "widowx_250s"))
        self.wait(lambda: self.images >= 10, "ten images")
        self.wait(lambda: self.views is not None, "paired views")
        self.assertEqual(list(self.views.names), [camera.name for camera in robot.cameras])
        for image, camera in zip(self.views.images, robot.cameras, strict=True):
            self.assertEqual((image.width, image.height), (camera.width, camera.height))
            self.assertEqual(image.header.frame_id, camera.optical_frame)
            self.assertGreater(np.frombuffer(image.data, np.uint8).std(), 5.0, "a blank picture")

    def test_3_an_instruction_runs_and_a_stop_holds(self, test_args: dict[str, str]) -> None:
        robot = load_embodiment(test_args.get("robot", "widowx_250s"))
        self.wait(self.goals.server_is_ready, "execute_instruction")
        self.wait(self.stop.service_is_ready, "emergency_stop")
        goal = ExecuteInstruction.Goal(instruction=TASK, timeout=120.0)
        handle = self.answer(self.goals.send_goal_async(goal))
        self.assertTrue(handle.accepted)
        start = self.positions(robot)
        self.wait(
            lambda: bool(np.abs(self.positions(robot) - start).max() > 0.05), "the arm to move"
        )
        self.answer(self.stop.call_async(SetBool.Request(data=True)))
        self.wait(
            lambda: self.state is not None and self.state.state == ExecutionState.FAULT,
            "the emergency stop",
        )
        self.wait(lambda: self.still(robot), "the arm to rest")
        held = self.positions(robot)
        self.assertTrue(self.still(robot))
        self.assertLess(np.abs(self.positions(robot) - held).max(), AT_REST)
        self.answer(handle.cancel_goal_async())
