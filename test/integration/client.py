"""A node of the tests' own that watches a running graph and asks things of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import rclpy
from internvla_ros.action import ExecuteInstruction
from internvla_ros.msg import ActionChunk, ExecutionState, Plan, SpatialPrediction
from internvla_ros.srv import Ground, ResetScene
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.task import Future
from sensor_msgs.msg import JointState

from internvla_ros.nodes.qos import EVENTS, NEWEST, SENSOR_IN
from internvla_ros.nodes.stamps import seconds


class Client:
    """Spins only while it waits; remembers the newest message of each kind."""

    def __init__(self, poll: Callable[[], None]) -> None:
        """`poll`: called again and again while waiting; raises when waiting is in vain."""
        self._poll = poll
        self.node = rclpy.create_node("test_client")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self.joints: NDArray[np.float64] | None = None
        self.time = 0.0
        self.state: ExecutionState | None = None
        self.plan: Plan | None = None
        self.chunk: ActionChunk | None = None
        self.prediction: SpatialPrediction | None = None
        subscribe = self.node.create_subscription
        subscribe(JointState, "joint_states", self._on_joints, SENSOR_IN)
        subscribe(ExecutionState, "execution_state", lambda m: setattr(self, "state", m), EVENTS)
        subscribe(Plan, "plan", lambda m: setattr(self, "plan", m), NEWEST)
        subscribe(ActionChunk, "action_chunk", lambda m: setattr(self, "chunk", m), NEWEST)
        seen = SpatialPrediction, "spatial_prediction", lambda m: setattr(self, "prediction", m)
        subscribe(*seen, EVENTS)
        self.goals = ActionClient(self.node, ExecuteInstruction, "execute_instruction")
        self.reset = self.node.create_client(ResetScene, "sim/reset")
        self.ground = self.node.create_client(Ground, "ground")

    def close(self) -> None:
        self._executor.shutdown()
        self.goals.destroy()
        self.node.destroy_node()

    def _on_joints(self, message: JointState) -> None:
        self.joints = np.array(message.position[:6])
        self.time = seconds(message.header.stamp)

    def wait(
        self,
        condition: Callable[[], bool],
        patience: float,
        what: str,
        found: Callable[[], object] = str,
    ) -> None:
        """Work until a condition holds; what was `found` instead is said when it does not."""
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {patience} s for {what} in vain {found()}")
            self.turn()

    def turn(self) -> None:
        """Work for a moment."""
        self._poll()
        self._executor.spin_once(timeout_sec=0.05)

    def wait_until_ready(self) -> None:
        """Until every node of the graph is there and the arm knows its joints."""
        topics = ("plan", "action_chunk", "camera_views")
        self.wait(
            lambda: (
                all(self.node.count_publishers(topic) for topic in topics)
                and self.goals.server_is_ready()
                and self.reset.service_is_ready()
                and self.state is not None
                and not self.state.reason
            ),
            120.0,
            "the graph",
        )

    def let_pass(self, duration: float) -> None:
        """Wait until the robot's clock has gone on by some seconds."""
        later = self.time + duration
        self.wait(lambda: self.time > later, 20.0 + 10.0 * duration, "time to pass")

    def answer(self, future: Future, patience: float = 30.0) -> Future:
        """The future, done."""
        self.wait(future.done, patience, "an answer")
        return future

    def send(self, instruction: str, timeout: float = 60.0) -> ClientGoalHandle:
        """Send a goal and wait for its handle."""
        goal = ExecuteInstruction.Goal(instruction=instruction, timeout=timeout)
        handle: ClientGoalHandle = self.answer(self.goals.send_goal_async(goal)).result()
        return handle

    def result(self, handle: ClientGoalHandle) -> ExecuteInstruction.Result:
        """Wait for the end of a goal."""
        done: ExecuteInstruction.Result = self.answer(handle.get_result_async()).result().result
        return done

    def stop(self, handle: ClientGoalHandle) -> ExecuteInstruction.Result:
        """Cancel a goal and wait for its end, and for the arm to be still."""
        self.answer(handle.cancel_goal_async())
        result = self.result(handle)
        self.wait_for_state(ExecutionState.STOPPED)
        return result

    def wait_for_state(self, state: int) -> None:
        """Wait until the arm says that it does this."""
        self.wait(
            lambda: self.state is not None and self.state.state == state, 60.0, f"arm state {state}"
        )
