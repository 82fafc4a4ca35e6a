"""Two arms in two namespaces on one machine do not hear each other."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
from client import Client
from internvla_ros.msg import ExecutionState
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from internvla_ros.bringup import Options, environment, graph
from internvla_ros.nodes.qos import EVENTS, SENSOR_IN
from internvla_ros.nodes.stamps import duration_message
from internvla_ros.nodes.supervisor import ProcessSpec, Supervisor, processes
from internvla_ros.robots.embodiment import load_embodiment

pytestmark = pytest.mark.integration

NODES = ("arm", "camera", "task", "markers", "sim")
SIDES = ("left", "right")
ROBOT = load_embodiment("widowx_250s")
SHARED = {"/diagnostics", "/rosout", "/parameter_events"}
"""Topics that are one for all on purpose; what is there says in a field whom it is about."""


def side_of_graph(side: str, seed: int) -> list[ProcessSpec]:
    """Nodes of one arm, and the names of their processes told apart."""
    options = Options(namespace=f"/{side}", seed=seed)
    nodes = [node for node in graph(options) if node.name in NODES]
    return [
        ProcessSpec(f"{side}/{spec.name}", spec.command)
        for spec in processes(nodes, options.namespace)
    ]


class Watch:
    """What both arms do."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.joints: dict[str, np.ndarray] = {}
        self.states: dict[str, ExecutionState] = {}
        for side in SIDES:
            self._listen(side)

    def _listen(self, side: str) -> None:
        def on_joints(message: JointState) -> None:
            self.joints[side] = np.array(message.position[: len(ROBOT.joints)])

        subscribe = self.client.node.create_subscription
        subscribe(JointState, f"/{side}/joint_states", on_joints, SENSOR_IN)
        on_state = lambda message: self.states.__setitem__(side, message)  # noqa: E731
        subscribe(ExecutionState, f"/{side}/execution_state", on_state, EVENTS)

    def ready(self) -> bool:
        """Both arms know their joints."""
        return (
            self.joints.keys() == self.states.keys() == set(SIDES)
            and not any(state.reason for state in self.states.values())
            and self.nodes() >= {(node, f"/{side}") for node in NODES for side in SIDES}
        )

    def nodes(self) -> set[tuple[str, str]]:
        """Names and namespaces of the nodes that are seen."""
        return set(self.client.node.get_node_names_and_namespaces())

    def found(self) -> dict[str, object]:
        """What has been heard so far."""
        reasons = {side: state.reason for side, state in self.states.items()}
        return {"joints": list(self.joints), "arms": reasons, "nodes": sorted(self.nodes())}


@pytest.fixture(scope="module")
def arms() -> Iterator[Watch]:
    os.environ.update(environment())
    specs = [spec for seed, side in enumerate(SIDES) for spec in side_of_graph(side, seed)]
    with Supervisor(specs, lambda name, line: print(f"{name}: {line}")) as supervisor:
        supervisor.start()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)

        def poll() -> None:
            supervisor.poll(0.0)
            assert not supervisor.ended, str(supervisor.ended[0])

        client = Client(poll)
        try:
            watch = Watch(client)
            client.wait(watch.ready, 120.0, "both arms", watch.found)
            yield watch
        finally:
            client.close()
            rclpy.try_shutdown()


def test_no_topic_service_or_action_is_theirs_in_common(arms: Watch) -> None:
    node = arms.client.node
    asked = (
        node.get_publisher_names_and_types_by_node,
        node.get_subscriber_names_and_types_by_node,
        node.get_service_names_and_types_by_node,
        node.get_client_names_and_types_by_node,
    )
    for name, namespace in node.get_node_names_and_namespaces():
        if namespace.strip("/") not in SIDES:
            continue
        names = {topic for ask in asked for topic, _ in ask(name, namespace)} - SHARED
        assert names
        assert not [each for each in names if not each.startswith(f"{namespace}/")]


def test_a_trajectory_moves_one_arm(arms: Watch) -> None:
    node = arms.client.node
    out = node.create_publisher(JointTrajectory, "/left/arm_controller/joint_trajectory", EVENTS)
    arms.client.wait(lambda: out.get_subscription_count() == 1, 20.0, "the left arm")
    before = {side: arms.joints[side].copy() for side in SIDES}
    goal = before["left"].copy()
    goal[0] += 0.3
    point = JointTrajectoryPoint(positions=goal.tolist(), velocities=[0.0] * len(goal))
    point.time_from_start = duration_message(0.5)
    out.publish(JointTrajectory(joint_names=list(ROBOT.joints), points=[point]))
    arms.client.wait(
        lambda: abs(arms.joints["left"][0] - goal[0]) < 0.05, 30.0, "the left arm to move"
    )
    assert np.abs(arms.joints["right"] - before["right"]).max() < 0.01


def test_an_emergency_stop_stops_one_arm(arms: Watch) -> None:
    service = arms.client.node.create_client(SetBool, "/right/emergency_stop")
    arms.client.wait(service.service_is_ready, 20.0, "the service")
    arms.client.answer(service.call_async(SetBool.Request(data=True)))
    arms.client.wait(
        lambda: arms.states["right"].state == ExecutionState.FAULT, 20.0, "the right arm's stop"
    )
    del arms.states["left"]
    arms.client.wait(lambda: "left" in arms.states, 20.0, "a state of the left arm")
    assert arms.states["left"].state != ExecutionState.FAULT
    assert not arms.states["left"].emergency_stop
