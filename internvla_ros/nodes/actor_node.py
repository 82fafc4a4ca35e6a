"""System 1: turns the newest views and the newest plan into a chunk of motion."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from internvla_ros.control.chunk import Chunk
from internvla_ros.control.realtime import Commitments
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.motion.se3 import rot6d
from internvla_ros.msg import ActionChunk, CameraViews, ExecutionState, Plan
from internvla_ros.nodes.converters import (
    ConversionError,
    chunk_to_message,
    tensor_to_array,
)
from internvla_ros.nodes.diagnostics import OK, WARN, Health
from internvla_ros.nodes.joints import JointHistory, JointReader, JointReading, JointStateError
from internvla_ros.nodes.managed import Managed, ManagedNode, Tell
from internvla_ros.nodes.pacing import RateLimit, RateMeter
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.policy import LOCAL, load_actor, release, statistics_for, views_for
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST, SENSOR_IN
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.stamps import seconds
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, load_embodiment
from internvla_ros.serving.errors import PolicyClientError
from internvla_ros.serving.local import ActorPart
from internvla_ros.serving.plan import PlanArrays

_STATE_TOLERANCE = 0.15  # s between the views and the joint state that goes with them


@dataclass(frozen=True)
class ActorConfig(Managed):
    """Parameters of actor_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")
    policy: str = setting(LOCAL, "local, or the policy server to ask: ws://host:port")
    checkpoint: str = setting("", "folder of the local policy's checkpoint")
    device: str = setting("cpu", "where the local network runs: cpu or cuda")
    rate: float = setting(6.0, "Hz, chunks at most so often", minimum=0.1, maximum=100.0)
    max_plan_age: float = setting(
        1.0, "s, no chunk is made from an older plan", minimum=0.05, maximum=60.0
    )
    num_ddim_steps: int = setting(
        0, "denoising steps; 0: as the checkpoint says", minimum=0, maximum=100
    )
    unnorm_key: str = setting(
        "", "the statistics that un-normalise actions; empty: the robot's, or the only ones"
    )
    seed: int = setting(0, "of the noise that a chunk is made from", minimum=0, maximum=2**31 - 1)


@dataclass(frozen=True)
class Loaded:
    """What an actor acts with: its parameters, its robot, its part of the policy, and which of the
    policy's statistics un-normalise its actions (None: the only ones)."""

    config: ActorConfig
    robot: Embodiment
    kinematics: Kinematics
    actor: ActorPart
    unnorm_key: str | None


class ActorNode(ManagedNode):
    """CameraViews, Plan and joint_states in; ActionChunk out. Never waits for the planner."""

    _config: ActorConfig
    _robot: Embodiment
    _kinematics: Kinematics
    _actor: ActorPart
    _unnorm_key: str | None

    def __init__(self) -> None:
        super().__init__("actor")
        if declare(self, ActorConfig).autostart:
            self.start()

    def load(self, tell: Tell) -> Loaded:
        """The weights, and the robot that they are to move."""
        config = declare(self, ActorConfig)
        robot = load_embodiment(config.robot)
        kinematics = Kinematics(urdf(robot.name), robot.joints, robot.tip_frame)
        actor = load_actor(config.policy, config.checkpoint, config.device, tell)
        key = statistics_for(actor.datasets, config.unnorm_key, robot.unnorm_key)
        return Loaded(config, robot, kinematics, actor, key)

    def configure(self, loaded: Loaded) -> None:
        """Listen, and know nothing yet."""
        self._config, self._robot, self._kinematics = loaded.config, loaded.robot, loaded.kinematics
        self._actor, self._unnorm_key = loaded.actor, loaded.unnorm_key
        # A policy of several robots has chunks of each robot's own rate.
        own = self._unnorm_key == self._robot.unnorm_key
        self._dt = 1.0 / self._robot.policy_rate if own else self._actor.config.dt
        self._reader = JointReader(self._robot)
        self._history = JointHistory()
        self._commitments = Commitments()
        self._plan: Plan | None = None
        self._instruction = ""
        self._chunks = 0
        self._silent_because = "no views"
        self._limit = RateLimit(self._config.rate)
        self._meter = RateMeter(window=5.0)
        self._chunk_out = self.create_publisher(ActionChunk, "action_chunk", NEWEST)
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)
        self.create_subscription(Plan, "plan", self._on_plan, NEWEST)
        self.create_subscription(JointState, "joint_states", self._on_joints, SENSOR_IN)
        self.create_subscription(ExecutionState, "execution_state", self._on_execution, EVENTS)
        self.create_subscription(CameraViews, "camera_views", self._on_views, NEWEST)
        self.get_logger().info(f"ready with {self._actor.config.name}")

    def activate(self) -> None:
        """What was sent before is executed by now."""
        self._commitments.forget()

    def cleanup(self) -> None:
        """Forget the weights."""
        release(self._actor)
        del self._actor

    def _on_instruction(self, message: String) -> None:
        self._instruction = message.data.strip()
        self._plan = None
        self._commitments.forget()

    def _on_plan(self, message: Plan) -> None:
        self._plan = message

    def _on_execution(self, message: ExecutionState) -> None:
        running = message.state == ExecutionState.RUNNING
        self._commitments.executed(
            message.chunk_sequence,
            message.chunk_progress,
            seconds(message.header.stamp),
            message.speed if running else 0.0,
            message.stamp_to_setpoint,
        )

    def _on_joints(self, message: JointState) -> None:
        try:
            reading = self._reader.read(
                seconds(message.header.stamp), message.name, message.position
            )
        except JointStateError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        if reading is not None:
            self._history.add(reading)

    def _on_views(self, views: CameraViews) -> None:
        if not self.active:
            return
        now = seconds(self.get_clock().now().to_msg())
        stamp = seconds(views.header.stamp)
        reading = self._history.at(stamp, _STATE_TOLERANCE)
        self._silent_because = self._obstacle(now, reading)
        if self._silent_because or not self._limit.ready(now):
            return
        assert self._plan is not None and reading is not None
        try:
            message = self._act(views, self._plan, reading)
        except (ConversionError, PolicyClientError) as error:
            self._silent_because = str(error)
            self.get_logger().error(f"not acting: {error}", throttle_duration_sec=5.0)
            return
        self._meter.tick(now)
        self._chunk_out.publish(message)

    def _obstacle(self, now: float, reading: JointReading | None) -> str:
        """Why no chunk can be made now; empty when one can."""
        if not self._instruction:
            return "no instruction"
        if self._plan is None or self._plan.instruction != self._instruction:
            return "no plan for the instruction"
        age = now - seconds(self._plan.header.stamp)
        if age > self._config.max_plan_age:
            return f"the newest plan is {age:.1f} s old"
        return "" if reading is not None else "no joint states from the time of the views"

    def _act(self, views: CameraViews, plan: Plan, reading: JointReading) -> ActionChunk:
        started = time.perf_counter()
        images = views_for(self._actor.config, views)
        latent = PlanArrays.of_one(
            tensor_to_array(plan.hidden_states).astype(np.float32),
            tensor_to_array(plan.attention_mask).astype(np.bool_),
            plan.instruction,
        )
        stamp = seconds(views.header.stamp)
        actions = self._actor.act(
            [images],
            latent,
            self._state(reading)[None],
            _points(plan, self._actor.config.actor.num_points),
            seed=self._config.seed,
            num_ddim_steps=self._config.num_ddim_steps or None,
            unnorm_key=self._unnorm_key,
            **self._commitment(stamp),
        )[0]
        self._chunks += 1
        chunk = Chunk(
            stamp=stamp,
            dt=self._dt,
            actions=actions,
            sequence=self._chunks,
        )
        self._commitments.sent(chunk)
        message = chunk_to_message(
            chunk,
            frame=self._robot.base_frame,
            delta_frame=self._robot.action.delta_frame,
            rotation=self._robot.action.rotation,
        )
        message.views_sequence = views.sequence
        message.plan_sequence = plan.sequence
        message.plan_stamp = plan.header.stamp
        message.instruction = plan.instruction
        message.latency = time.perf_counter() - started
        return message

    def _commitment(self, stamp: float) -> dict[str, Any]:
        """What the chunk has to go on from where the arm takes chunks in real time."""
        found = self._commitments.at(stamp) if self._robot.ensemble.name == "rtc" else None
        return {} if found is None else {"previous": found[0][None], "frozen": found[1]}

    def _state(self, reading: JointReading) -> NDArray[np.float64]:
        """Tip position, first two columns of its rotation, gripper opening: [10]."""
        tip = self._kinematics.forward(reading.positions)
        return np.concatenate([tip.position, rot6d(tip.rotation), [reading.gripper]])

    def health(self) -> Health:
        """Why it is silent, or that it acts."""
        now = seconds(self.get_clock().now().to_msg())
        rate = self._meter.rate(now)
        values = {"rate": f"{rate:.1f}", "chunks": str(self._chunks)}
        quiet = not self._instruction
        level = OK if quiet or not self._silent_because else WARN
        return Health(level, self._silent_because or "acting", values)


def _points(plan: Plan, count: int) -> NDArray[np.float64] | None:
    """The plan's points [1, count, 2] in 0..1 of their image; None unless all are there."""
    if count == 0 or len(plan.points) != count or not plan.points_width or not plan.points_height:
        return None
    size = (float(plan.points_width), float(plan.points_height))
    return np.array([[[p.x / size[0], p.y / size[1]] for p in plan.points]])


def main() -> int:
    """Run actor_node."""
    return run(ActorNode)


if __name__ == "__main__":
    sys.exit(main())
