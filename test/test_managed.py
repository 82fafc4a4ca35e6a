"""Managed nodes in this process: their transitions, what they hold and what they give back."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from integration.random_policy import save_random_policy
from internvla_ros.msg import ActionChunk, CameraViews, ExecutionState, Plan
from internvla_ros.srv import Ground
from lifecycle_msgs.msg import Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool

from internvla_ros.nodes import actor_node, planner_node
from internvla_ros.nodes.actor_node import ActorNode
from internvla_ros.nodes.arm_node import ArmNode
from internvla_ros.nodes.converters import rgb_to_image
from internvla_ros.nodes.diagnostics import Health
from internvla_ros.nodes.managed import ManagedNode, Tell
from internvla_ros.nodes.planner_node import PlannerNode
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST
from internvla_ros.nodes.runner import EventsExecutor

TASK = "put the red cube on the blue plate"
EVERY_NODE = (PlannerNode, ActorNode, ArmNode)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_policy(tmp_path_factory.mktemp("policy"))


class Bench:
    """A managed node under its executor, and a client of it under another."""

    def __init__(self, make: Callable[[], ManagedNode], executor: Executor) -> None:
        self.node = make()
        self.executor = executor
        self.executor.add_node(self.node)
        self.client = rclpy.create_node("client")
        self.turns = SingleThreadedExecutor()
        self.turns.add_node(self.client)
        name = self.node.get_name()
        self._change = self.client.create_client(ChangeState, f"{name}/change_state")
        self._get = self.client.create_client(GetState, f"{name}/get_state")
        self.events: list[str] = []
        self.health: list[str] = []
        self.client.create_subscription(
            TransitionEvent, f"{name}/transition_event", self._on_event, EVENTS
        )
        self.client.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, EVENTS
        )
        self.wait(self._change.service_is_ready)
        self.wait(self._get.service_is_ready)

    def _on_event(self, message: TransitionEvent) -> None:
        self.events.append(message.goal_state.label)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.health += [status.message for status in message.status]

    def wait(self, condition: Callable[[], Any], patience: float = 60.0) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, (
                f"waited in vain; the node is {self.node.state}, its transitions {self.events}"
            )
            self.executor.spin_once(timeout_sec=0.01)
            self.turns.spin_once(timeout_sec=0.0)

    def let_pass(self, turns: int = 20) -> None:
        for _ in range(turns):
            self.executor.spin_once(timeout_sec=0.01)
            self.turns.spin_once(timeout_sec=0.0)

    def ask(self, client: Any, request: Any) -> Any:
        future = client.call_async(request)
        self.wait(future.done)
        return future.result()

    def begin(self, label: str) -> Any:
        """Ask for a transition; the future of its answer."""
        return self._change.call_async(ChangeState.Request(transition=Transition(label=label)))

    def change(self, label: str) -> bool:
        future = self.begin(label)
        self.wait(future.done)
        return bool(future.result().success)

    def state(self) -> str:
        """By the service."""
        return str(self.ask(self._get, GetState.Request()).current_state.label)

    def set(self, **values: Any) -> list[Any]:
        return self.node.set_parameters([Parameter(k, value=v) for k, v in values.items()])

    def close(self) -> None:
        self.executor.remove_node(self.node)
        self.turns.shutdown()
        self.node.destroy_node()
        self.client.destroy_node()


@pytest.fixture
def bench(request: pytest.FixtureRequest, policy: Path) -> Iterator[Callable[..., Bench]]:
    """Makes a bench of a node that waits to be asked."""
    made: list[Bench] = []
    arguments = ["--ros-args", "-p", "autostart:=false", "-p", f"checkpoint:={policy}"]
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)

    def make(node: Callable[[], ManagedNode], executor: Executor | None = None) -> Bench:
        made.append(Bench(node, executor or EventsExecutor()))
        return made[-1]

    yield make
    for each in made:
        each.close()
    rclpy.try_shutdown()


class Slow(ManagedNode):
    """Loads until it is allowed to end, and rests when it is told to."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.may_end = threading.Event()
        # Of its own: what the node of the test before it published may seem to be there still.
        self.topic = f"said_{time.monotonic_ns()}"
        self.resting = False
        self.refuses = ""
        self.threads: list[int] = []
        self.ticks = 0

    def load(self, tell: Tell) -> object:
        self.threads.append(threading.get_ident())
        tell("loading weights 42 %")
        assert self.may_end.wait(30.0)
        if self.refuses:
            raise ValueError(self.refuses)
        return object()

    def configure(self, loaded: object) -> None:
        self.loaded = loaded
        self.create_publisher(String, self.topic, EVENTS)
        self.create_timer(0.01, self._tick)

    def _tick(self) -> None:
        self.ticks += 1

    def at_rest(self) -> bool:
        return self.resting

    def cleanup(self) -> None:
        del self.loaded

    def health(self) -> Health:
        return Health(b"\0", "at work")


@pytest.mark.parametrize("executor", [EventsExecutor, SingleThreadedExecutor])
def test_a_node_answers_while_it_loads(
    bench: Callable[..., Bench], executor: Callable[[], Executor]
) -> None:
    slow = bench(Slow, executor())
    assert slow.state() == "unconfigured"
    answer = slow.begin("configure")
    slow.wait(lambda: slow.node.threads)
    assert slow.node.threads != [threading.get_ident()]
    assert slow.state() == "configuring"
    assert not slow.change("activate")  # one at a time
    slow.wait(lambda: "loading weights 42 %" in slow.health)
    assert not answer.done()
    slow.node.may_end.set()
    slow.wait(answer.done)
    assert answer.result().success
    assert slow.state() == "inactive"
    assert slow.change("activate")
    slow.wait(lambda: "at work" in slow.health and "active" in slow.events)
    assert slow.events == ["configuring", "inactive", "activating", "active"]


def test_a_node_that_comes_to_rest_goes_on_working_until_it_has(
    bench: Callable[..., Bench],
) -> None:
    slow = bench(Slow)
    slow.node.may_end.set()
    assert slow.change("configure") and slow.change("activate")
    answer = slow.begin("deactivate")
    slow.wait(lambda: slow.node.state == "deactivating")
    assert not slow.node.active
    before = slow.node.ticks
    slow.wait(lambda: slow.node.ticks > before + 5)
    assert slow.state() == "deactivating" and not answer.done()
    slow.node.resting = True
    slow.wait(answer.done)
    assert answer.result().success and slow.state() == "inactive"


def test_what_a_node_has_made_goes_with_cleanup(bench: Callable[..., Bench]) -> None:
    slow = bench(Slow)
    slow.node.may_end.set()
    for _ in range(3):
        assert slow.change("configure")
        slow.wait(lambda: slow.node.count_publishers(slow.node.topic) == 1)
        slow.wait(lambda: slow.node.ticks > 3)
        assert slow.change("cleanup")
        slow.wait(lambda: slow.node.count_publishers(slow.node.topic) == 0)
        assert not hasattr(slow.node, "loaded")
        slow.let_pass()
        slow.node.ticks = 0
        slow.let_pass()
        assert slow.node.ticks == 0
    assert slow.change("shutdown")
    assert slow.state() == "finalized"
    assert not slow.change("configure")


def test_why_a_node_cannot_be_configured_is_told_and_it_may_be_tried_again(
    bench: Callable[..., Bench],
) -> None:
    slow = bench(Slow)
    slow.node.may_end.set()
    slow.node.refuses = "no such\nthing"
    assert not slow.change("configure")
    assert slow.state() == "unconfigured"
    slow.wait(lambda: "no such thing" in slow.health)
    slow.node.refuses = ""
    assert slow.change("configure")
    slow.health.clear()
    slow.wait(lambda: "inactive" in slow.health)


@pytest.mark.parametrize("make", EVERY_NODE)
def test_parameters_may_be_changed_while_unconfigured(
    bench: Callable[..., Bench], make: Callable[[], ManagedNode]
) -> None:
    node = bench(make)
    (result,) = node.set(robot="r2d2")
    assert result.successful
    assert not node.change("configure")
    node.wait(lambda: any("unknown robot 'r2d2'" in text for text in node.health))
    assert node.set(robot="widowx_250s")[0].successful
    assert node.change("configure")
    (result,) = node.set(robot="franka_fr3")
    assert not result.successful
    assert "inactive: clean it up before robot is set" in result.reason
    assert node.change("cleanup")
    assert node.set(robot="franka_fr3")[0].successful


@pytest.mark.parametrize("make", EVERY_NODE)
def test_transitions_at_once(bench: Callable[..., Bench], make: Callable[[], ManagedNode]) -> None:
    """rclpy's own way, in the process of the node."""
    node = bench(make).node
    for trigger in ("configure", "activate", "deactivate", "cleanup", "configure", "shutdown"):
        result = getattr(node, f"trigger_{trigger}")()
        assert result == type(result).SUCCESS
    assert node.state == "finalized"


def views(sequence: int, stamp: Any, seed: int = 0) -> CameraViews:
    """Pictures of noise."""
    rng = np.random.default_rng(seed)
    header = Header(stamp=stamp)
    pictures = [rng.integers(0, 255, (480, 640, 3), dtype=np.uint8) for _ in range(2)]
    images = [rgb_to_image(picture, header) for picture in pictures]
    return CameraViews(header=header, sequence=sequence, names=["front", "wrist"], images=images)


def test_a_planner_is_silent_while_inactive_and_says_the_same_after_all(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []
    real = planner_node.load_planner

    def load(*arguments: Any) -> Any:
        found = real(*arguments)
        loaded.append(weakref.ref(found._planner))
        return found

    monkeypatch.setattr(planner_node, "load_planner", load)
    planner = bench(PlannerNode)
    plans: list[Plan] = []
    planner.client.create_subscription(Plan, "plan", plans.append, NEWEST)
    instruction = planner.client.create_publisher(String, "instruction", LATCHED)
    seen = planner.client.create_publisher(CameraViews, "camera_views", NEWEST)
    ground = planner.client.create_client(Ground, "ground")
    instruction.publish(String(data=TASK))
    said: list[bytes] = []
    for round_ in range(2):
        assert planner.change("configure")
        planner.wait(lambda: seen.get_subscription_count() == 1)
        planner.wait(lambda: planner.node._instruction == TASK)
        seen.publish(views(1, planner.client.get_clock().now().to_msg()))
        planner.let_pass()
        assert plans == []
        planner.wait(ground.service_is_ready)
        answer = planner.ask(ground, Ground.Request(query="cube"))
        assert "inactive: activate it" in answer.message
        assert planner.change("activate")
        planner.wait(lambda: planner.node.count_subscribers("plan") == 1)

        def look() -> bool:
            seen.publish(views(2, planner.client.get_clock().now().to_msg()))
            planner.let_pass()
            return bool(plans)

        planner.wait(look)
        said.append(bytes(plans[0].hidden_states.data))
        assert planner.change("deactivate")
        planner.let_pass()
        plans.clear()
        seen.publish(views(3, planner.client.get_clock().now().to_msg()))
        planner.let_pass()
        assert plans == []
        assert planner.change("cleanup")
        gc.collect()
        assert loaded[round_]() is None, "the weights are still there"
    assert said[0] == said[1]


def test_an_actor_gives_its_weights_back_and_acts_the_same_after_all(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[Any]] = []
    real = actor_node.load_actor

    def load(*arguments: Any) -> Any:
        found = real(*arguments)
        loaded.append(weakref.ref(found._actor))
        return found

    monkeypatch.setattr(actor_node, "load_actor", load)
    actor = bench(ActorNode)
    chunks: list[ActionChunk] = []
    actor.client.create_subscription(ActionChunk, "action_chunk", chunks.append, NEWEST)
    pictures = np.random.default_rng(0).integers(0, 255, (2, 480, 640, 3), dtype=np.uint8)
    acted = []
    for round_ in range(2):
        assert actor.change("configure") and actor.change("activate")
        acted.append(actor.node._actor.act([list(pictures)], None, np.zeros((1, 10))))
        assert actor.change("deactivate") and actor.change("cleanup")
        assert loaded[round_]() is None, "the weights are still there"
    assert np.array_equal(acted[0], acted[1])
    assert chunks == []


def test_an_emergency_stop_is_taken_in_every_state_and_kept(bench: Callable[..., Bench]) -> None:
    arm = bench(ArmNode)
    service = arm.client.create_client(SetBool, "emergency_stop")
    states: list[ExecutionState] = []
    arm.client.create_subscription(ExecutionState, "execution_state", states.append, EVENTS)
    arm.wait(service.service_is_ready)
    assert arm.ask(service, SetBool.Request(data=True)).success  # unconfigured
    for transition in ("configure", "activate", "deactivate", "cleanup", "configure"):
        assert arm.change(transition)
        states.clear()
        if transition != "cleanup":
            arm.wait(lambda: states)
            assert states[-1].emergency_stop
    assert arm.ask(service, SetBool.Request(data=False)).success  # inactive
    states.clear()
    arm.wait(lambda: states and not states[-1].emergency_stop)
    assert states[-1].reason in ("inactive", "no joint states yet")
