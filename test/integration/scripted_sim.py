"""A stand-in for planner and actor: the simulator with its scripted expert in one process.

The expert sees the simulator's true state, so that nothing of the model is tried here; what it
sends takes the same way to the arm as an actor's chunks.
"""

from __future__ import annotations

import sys
from collections import deque
from types import SimpleNamespace
from typing import Any

from internvla_ros.msg import ActionChunk, Plan
from std_msgs.msg import String

from internvla_ros.control.chunk import Chunk
from internvla_ros.evaluate.policies import ExpertPolicy
from internvla_ros.nodes.converters import chunk_to_message
from internvla_ros.nodes.qos import LATCHED, NEWEST
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.sim_node import SimNode
from internvla_ros.sim.scene import Scene, arm_kinematics

EVERY = 0.2  # s between two chunks
DELAY = 0.1  # s that the stand-in pretends to think


class ScriptedSimNode(SimNode):
    """sim_node that also publishes plan and action_chunk."""

    def __init__(self) -> None:
        super().__init__()
        self._expert = ExpertPolicy(self._embodiment)
        self._kinematics = arm_kinematics(self._embodiment)
        self._memory: dict[str, Any] = {}
        self._told: Scene | None = None
        self._instruction = ""
        self._sequence = 0
        self._thinking: deque[tuple[float, ActionChunk]] = deque()
        self._plan_out = self.create_publisher(Plan, "plan", NEWEST)
        self._chunk_out = self.create_publisher(ActionChunk, "action_chunk", NEWEST)
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)

    def _on_instruction(self, message: String) -> None:
        self._instruction = message.data
        self._memory = {}
        self._thinking.clear()

    def _advance(self) -> None:
        super()._advance()
        now = self._robot.time
        if self._instruction and self._steps % round(EVERY / 0.01) == 0:
            self._thinking.append((now + DELAY, self._think(now)))
        while self._thinking and self._thinking[0][0] <= now:
            message = self._thinking.popleft()[1]
            self._plan_out.publish(Plan(header=message.header, instruction=message.instruction))
            self._chunk_out.publish(message)

    def _think(self, now: float) -> ActionChunk:
        sent, _ = self._robot._arm.sample(now)
        scene = SimpleNamespace(
            world=self._robot.world,
            commanded=self._kinematics.forward(sent),
            memory=self._memory,
        )
        (decision,) = self._expert.decide([scene])  # type: ignore[list-item]
        self._sequence += 1
        chunk = Chunk(now, self._expert.dt, decision.actions, self._sequence)
        message = chunk_to_message(chunk, frame="base_link", delta_frame="base", rotation="rpy")
        message.instruction = self._instruction
        return message


if __name__ == "__main__":
    sys.exit(run(ScriptedSimNode))
