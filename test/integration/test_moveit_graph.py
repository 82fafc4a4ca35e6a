"""arm_node with MoveIt, from end to end: chunks and goals in, the robot moves.

All nodes run as the graph of bringup.py starts them, with its command lines and parameter files.
Where MoveIt is not installed, a stand-in takes the place of each of its two programs:
moveit_servo_stand_in.py and move_group_stand_in.py, which keep the written contracts of MoveIt
Servo and move_group (ROS 2 Jazzy) and move the simulator's joints; their messages come from
scripts/build_test_interfaces.sh. Where MoveIt and ros2_control are installed, the same tests start
them instead, before mock hardware; only what a stand-in alone can be told, to refuse and to report
a status, is then left out. The tests themselves take the place of planner and actor.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("moveit_msgs.action", reason="scripts/build_test_interfaces.sh builds it")

import rclpy
from client import Client
from geometry_msgs.msg import PoseStamped
from internvla_ros.action import MoveTo
from internvla_ros.msg import ActionChunk, ExecutionState
from moveit_msgs.msg import ServoStatus
from rclpy.action import ActionClient
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Int8, String

from internvla_ros.bringup import Options, environment, graph
from internvla_ros.control.chunk import Chunk
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.node_spec import NodeSpec, command, program
from internvla_ros.nodes.converters import chunk_to_message, pose_message
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST
from internvla_ros.nodes.stamps import seconds
from internvla_ros.nodes.supervisor import ProcessSpec, Supervisor, processes
from internvla_ros.resources import PACKAGE
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import load_embodiment

pytestmark = pytest.mark.integration

ROBOT = load_embodiment("widowx_250s")
HERE = Path(__file__).parent
STAND_INS = {"servo_node": "moveit_servo_stand_in.py", "move_group": "move_group_stand_in.py"}
INSTRUCTION = "go along"
EVERY, STEP, STEPS = 0.2, 0.1, 12  # s between chunks, s a step, steps a chunk
SPEED = 0.04  # m/s along y


def is_installed(node: NodeSpec) -> bool:
    return program(node.package, node.executable) is not None


IS_REAL = program("moveit_ros_move_group", "move_group") is not None


def robot_and_moveit(motion: str) -> Iterator[NodeSpec]:
    """arm_node, what it moves, and MoveIt as far as it is installed or has a stand-in."""
    options = Options(motion=motion, sim="none", markers=False)
    if IS_REAL:
        nodes = graph(replace(options, hardware="mock"))
    else:
        simulated = graph(Options(markers=False))
        nodes = graph(replace(options, use_sim_time="true"))
        yield next(node for node in simulated if node.name == "sim")
    wanted = "servo_node" if motion == "moveit_servo" else "move_group"
    for node in nodes:
        if node.name in ("arm", wanted) or (node.package != PACKAGE and is_installed(node)):
            yield node


def processes_of(node: NodeSpec, *words: str) -> list[ProcessSpec]:
    """A node, or what takes its place, with the same arguments and more `words`."""
    if node.name not in STAND_INS or is_installed(node):
        return processes([node], "")
    script = str(HERE / STAND_INS[node.name])
    words = ("-p", f"robot:={ROBOT.name}", *words)
    return [ProcessSpec(node.name, (sys.executable, script, *command(node)[1:], *words))]


class Rig:
    """The robot with its arm_node, and who sends it about."""

    def __init__(self, client: Client, supervisor: Supervisor) -> None:
        self.client, self.supervisor = client, supervisor
        self.kinematics = Kinematics(urdf(ROBOT.name), ROBOT.joints, ROBOT.tip_frame)
        node = client.node
        self._chunks = node.create_publisher(ActionChunk, "action_chunk", NEWEST)
        self._instructions = node.create_publisher(String, "instruction", LATCHED)
        self._sequence, self._last = 0, -1.0
        self.reasons: set[str] = set()
        node.create_subscription(ExecutionState, "execution_state", self._on_state, EVENTS)

    def _on_state(self, message: ExecutionState) -> None:
        self.reasons.add(message.reason)

    @property
    def tip(self) -> np.ndarray:
        assert self.client.joints is not None
        return self.kinematics.forward(self.client.joints).position

    @property
    def state(self) -> int:
        assert self.client.state is not None
        return self.client.state.state

    @property
    def reason(self) -> str:
        assert self.client.state is not None
        return str(self.client.state.reason)

    def ready(self) -> None:
        client = self.client
        client.wait(
            lambda: client.joints is not None and client.state is not None and not self.reason,
            60.0,
            "the arm to be ready",
            lambda: client.state,
        )

    def instruct(self, instruction: str) -> None:
        self._instructions.publish(String(data=instruction))

    def send(self, way: float) -> None:
        """A chunk along y in this direction (1, -1), if it is time for one."""
        if self.client.time - self._last < EVERY:
            return
        self._last, self._sequence = self.client.time, self._sequence + 1
        actions = np.zeros((STEPS, 7))
        actions[:, 1], actions[:, 6] = way * SPEED * STEP, 1.0
        convention = ROBOT.action
        message = chunk_to_message(
            Chunk(self._last, STEP, actions, self._sequence),
            frame=ROBOT.base_frame,
            delta_frame=convention.delta_frame,
            rotation=convention.rotation,
        )
        message.instruction = INSTRUCTION
        self._chunks.publish(message)

    def drive(self, condition: Any, what: str, way: float = 1.0) -> None:
        """Send chunks until a condition holds."""

        def sent() -> bool:
            self.send(way)
            return bool(condition())

        self.client.wait(sent, 30.0, what, lambda: (self.client.state, self.tip))

    def wait_for(self, state: int, reason: str = "") -> None:
        self.client.wait(
            lambda: self.state == state and reason in self.reason,
            30.0,
            f"state {state} {reason}",
            lambda: self.client.state,
        )


@contextmanager
def rig(motion: str, *words: str) -> Iterator[Rig]:
    """The nodes that move the robot; `words` go to a stand-in."""
    os.environ.update(environment())
    specs = [spec for node in robot_and_moveit(motion) for spec in processes_of(node, *words)]
    with Supervisor(specs, lambda name, line: print(f"{name}: {line}")) as supervisor:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        client = Client(lambda: supervisor.poll(0.0))
        try:
            made = Rig(client, supervisor)
            supervisor.start()
            made.ready()
            made.instruct(INSTRUCTION)
            yield made
        finally:
            client.close()
            rclpy.try_shutdown()


@pytest.fixture
def servo() -> Iterator[tuple[Rig, list[float], list[str]]]:
    """The rig with MoveIt Servo, the stamps of the poses that are sent, and what Servo does."""
    with rig("moveit_servo", "-p", "refusals:=5") as made:
        stamps: list[float] = []
        doings: list[str] = []
        subscribe = made.client.node.create_subscription
        subscribe(
            PoseStamped,
            "servo_node/pose_target_cmds",
            lambda m: stamps.append(seconds(m.header.stamp)),
            EVENTS,
        )
        subscribe(String, "servo_node/doing", lambda m: doings.append(m.data), LATCHED)
        yield made, stamps, doings


def test_chunks_move_the_robot_through_servo_which_is_switched_paused_and_watched(
    servo: tuple[Rig, list[float], list[str]],
) -> None:
    made, stamps, doings = servo
    start = made.tip
    made.drive(lambda: made.tip[1] > start[1] + 0.03, "the robot to move")
    assert made.state == ExecutionState.RUNNING
    assert float(np.median(np.diff(stamps))) <= 0.02 + 1e-6, "poses come at 50 Hz or more"
    made.wait_for(ExecutionState.HOLDING)
    if not IS_REAL:
        assert any("refused switch_command_type" in reason for reason in made.reasons)
        made.client.wait(lambda: doings[-1:] == ["type 2, paused"], 30.0, "the pause of a hold")
        sent = len(stamps)
        made.client.let_pass(0.3)
        assert len(stamps) == sent, "nothing is sent to a Servo that is paused"
    there = made.tip
    made.drive(lambda: made.tip[1] < there[1] - 0.02, "the robot to move after the pause", -1.0)
    made.instruct("")
    made.wait_for(ExecutionState.STOPPED)
    made.client.let_pass(0.3)
    sent = len(stamps)
    made.client.let_pass(0.3)
    assert len(stamps) == sent, "nothing is sent after a stop"
    if not IS_REAL:
        assert doings[-1] == "type 2, paused"
        halts_and_silence_are_faults(made)


def halts_and_silence_are_faults(made: Rig) -> None:
    """Every status that means no motion is a fault with its reason, and passes with it."""
    pretend = made.client.node.create_publisher(Int8, "servo_node/pretend", LATCHED)
    made.instruct(INSTRUCTION)
    for code, reason in (
        (ServoStatus.INVALID, "takes the command for invalid"),
        (ServoStatus.HALT_FOR_COLLISION, "halted before a collision"),
    ):
        made.drive(lambda: made.state == ExecutionState.RUNNING, "the arm to run again", -1.0)
        pretend.publish(Int8(data=code))
        made.drive(lambda r=reason: r in made.reason, reason, -1.0)
        assert made.state == ExecutionState.FAULT
        pretend.publish(Int8(data=ServoStatus.NO_WARNING))
        made.client.wait(lambda: not made.reason, 30.0, "the fault to pass")
    there = made.tip
    made.drive(lambda: made.tip[1] > there[1] + 0.01, "the robot to move after the faults")
    os.kill(made.supervisor.pid("servo_node"), signal.SIGKILL)
    made.drive(lambda: "has told no status" in made.reason, "a dead Servo to be missed")
    assert made.state == ExecutionState.FAULT


class Goals:
    """The action move_to."""

    def __init__(self, made: Rig) -> None:
        self._client = made.client
        self._action = ActionClient(made.client.node, MoveTo, "move_to")
        made.client.wait(self._action.server_is_ready, 30.0, "move_to")

    def send(self, goal: MoveTo.Goal) -> Any:
        return self._client.answer(self._action.send_goal_async(goal)).result()

    def result(self, handle: Any) -> MoveTo.Result:
        return self._client.answer(handle.get_result_async()).result().result

    def move(self, goal: MoveTo.Goal) -> MoveTo.Result:
        return self.result(self.send(goal))

    def first_move(self, goal: MoveTo.Goal) -> MoveTo.Result:
        """As `move`, once move_group is there."""
        done = self.move(goal)
        while done.error_code == MoveTo.Result.NO_PLANNER:
            self._client.let_pass(0.2)
            done = self.move(goal)
        return done


def test_the_robot_goes_to_ready_by_move_group_and_then_follows_chunks() -> None:
    with rig("moveit") as made:
        goals = Goals(made)
        made.client.wait(lambda: made.client.joints is not None, 30.0, "joints")
        ready, up = ROBOT.ready, made.kinematics.forward(ROBOT.ready)
        goal = MoveTo.Goal(target=MoveTo.Goal.POSE, speed=0.5)
        goal.pose = pose_message(up, PoseStamped().header)
        goal.pose.pose.position.z += 0.04
        done = goals.first_move(goal)
        assert done.error_code == MoveTo.Result.NONE, done.message
        assert made.tip[2] == pytest.approx(goal.pose.pose.position.z, abs=0.01)
        to_ready = MoveTo.Goal(target=MoveTo.Goal.READY, speed=0.5)
        done = goals.move(to_ready)
        assert done.error_code == MoveTo.Result.NONE, done.message
        assert made.client.joints is not None
        assert np.abs(made.client.joints - ready).max() < 0.03
        start = made.tip
        made.drive(lambda: made.tip[1] > start[1] + 0.02, "the robot to follow chunks")
        assert goals.move(to_ready).error_code == MoveTo.Result.BUSY
        made.instruct("")
        made.wait_for(ExecutionState.STOPPED)
        made.client.let_pass(1.0)  # it has come to rest by then
        handle = goals.send(to_ready)
        os.kill(made.supervisor.pid("move_group"), signal.SIGINT)
        assert goals.result(handle).error_code in (
            MoveTo.Result.EXECUTION_FAILED,
            MoveTo.Result.NO_PLANNER,
        )
        assert goals.move(to_ready).error_code == MoveTo.Result.NO_PLANNER
