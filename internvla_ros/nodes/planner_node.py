"""System 2: turns the newest views and the instruction into a plan and into where to act."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import String

from internvla_ros.msg import CameraViews, Plan, SpatialPrediction
from internvla_ros.nodes.converters import (
    ConversionError,
    answer_to_prediction,
    array_to_tensor,
    image_to_rgb,
)
from internvla_ros.nodes.diagnostics import OK, WARN, Health
from internvla_ros.nodes.instruction import InstructionError, check_instruction
from internvla_ros.nodes.managed import Managed, ManagedNode, Tell
from internvla_ros.nodes.pacing import RateLimit, RateMeter
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.policy import LOCAL, load_planner, release, views_for
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.stamps import seconds
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.serving.errors import PolicyClientError
from internvla_ros.serving.local import PlannerPart
from internvla_ros.spatial.prompts import point_prompt, refer_prompt, trace_prompt
from internvla_ros.spatial.types import SpatialAnswer
from internvla_ros.srv import Ground


@dataclass(frozen=True)
class PlannerConfig(Managed):
    """Parameters of planner_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")
    policy: str = setting(LOCAL, "local, or the policy server to ask: ws://host:port")
    checkpoint: str = setting("", "folder of the local policy's checkpoint")
    device: str = setting("cpu", "where the local network runs: cpu or cuda")
    rate: float = setting(6.0, "Hz, plans at most so often", minimum=0.1, maximum=100.0)
    trace_every: int = setting(
        20, "every so many plans the trace is decoded too; 0: never", minimum=0, maximum=10000
    )


class PlannerNode(ManagedNode):
    """CameraViews and instruction in; Plan and SpatialPrediction out; service `ground`."""

    _config: PlannerConfig
    _planner: PlannerPart

    def __init__(self) -> None:
        super().__init__("planner")
        if declare(self, PlannerConfig).autostart:
            self.start()

    def load(self, tell: Tell) -> tuple[PlannerConfig, PlannerPart]:
        """The weights, warmed up."""
        config = declare(self, PlannerConfig)
        load_embodiment(config.robot)
        planner = load_planner(config.policy, config.checkpoint, config.device, tell)
        tell("warming up")
        _warm_up(planner)
        return config, planner

    def configure(self, loaded: tuple[PlannerConfig, PlannerPart]) -> None:
        """Listen, and say what is known."""
        self._config, self._planner = loaded
        self._instruction = ""
        self._instructions = 0
        self._plans = 0
        self._answered = 0  # plans for the present instruction; the first comes without a trace
        self._drafts: dict[str, list[int]] = {}
        self._limit = RateLimit(self._config.rate)
        self._meter = RateMeter(window=5.0)
        self._plan_out = self.create_publisher(Plan, "plan", NEWEST)
        self._prediction_out = self.create_publisher(
            SpatialPrediction, "spatial_prediction", EVENTS
        )
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)
        self.create_subscription(CameraViews, "camera_views", self._on_views, NEWEST)
        self.create_service(Ground, "ground", self._on_ground)
        self.get_logger().info(f"ready with {self._planner.config.name}")

    def cleanup(self) -> None:
        """Forget the weights."""
        release(self._planner)
        del self._planner

    def _on_instruction(self, message: String) -> None:
        if message.data == "":
            self._instruction = ""
            return
        try:
            self._instruction = check_instruction(message.data)
        except InstructionError as error:
            self._instruction = ""
            self.get_logger().error(f"not planning: {error}")
            return
        self._instructions += 1
        self._drafts = {}
        self._answered = 0
        self._limit = RateLimit(self._config.rate)

    def _on_views(self, views: CameraViews) -> None:
        if not self.active or not self._instruction or not self._limit.ready(self._now()):
            return
        started = time.perf_counter()
        try:
            images = views_for(self._planner.config, views)
            every = self._config.trace_every
            plan, answers = self._planner.look(
                [images],
                [self._instruction],
                trace=every > 0 and self._answered % every == 1 % every,
                drafts=self._drafts,
            )
        except (ConversionError, PolicyClientError) as error:
            self.get_logger().error(f"not planning: {error}", throttle_duration_sec=5.0)
            return
        self._plans += 1
        self._answered += 1
        self._meter.tick(self._now())
        hidden, mask = plan.hidden_states[:, 0], plan.attention_mask[0]
        latency = time.perf_counter() - started
        prediction = self._prediction(views, images[0], answers[0], latency)
        self._plan_out.publish(self._plan_message(views, prediction, hidden, mask))
        self._prediction_out.publish(prediction)

    def _plan_message(
        self,
        views: CameraViews,
        prediction: SpatialPrediction,
        hidden: NDArray[np.float32],
        mask: NDArray[np.bool_],
    ) -> Plan:
        message = Plan(
            sequence=self._plans,
            views_sequence=views.sequence,
            instruction=self._instruction,
            hidden_states=array_to_tensor(hidden),
            attention_mask=array_to_tensor(mask),
            points=prediction.points,
            points_camera=prediction.camera if prediction.points else "",
            points_width=prediction.width,
            points_height=prediction.height,
            points_stamp=prediction.header.stamp,
            latency=prediction.latency,
        )
        message.header.stamp = views.header.stamp
        return message

    def _prediction(
        self,
        views: CameraViews,
        image: NDArray[np.uint8],
        answer: SpatialAnswer,
        latency: float,
    ) -> SpatialPrediction:
        camera = self._planner.config.cameras[0]
        message = answer_to_prediction(answer)
        message.header = views.images[list(views.names).index(camera)].header
        message.camera = camera
        message.height, message.width = image.shape[:2]
        message.instruction = self._instruction
        message.instruction_sequence = self._instructions
        message.views_sequence = views.sequence
        message.plan_sequence = self._plans
        message.latency = latency
        return message

    def _on_ground(self, request: Ground.Request, response: Ground.Response) -> Ground.Response:
        started = time.perf_counter()
        if not self.active:
            response.message = f"the planner is {self.state}: activate it"
            return response
        try:
            query = check_instruction(request.query)
            image = image_to_rgb(request.image)
            question = _QUESTIONS[request.kind](query)
        except KeyError:
            response.message = f"kind {request.kind} is unknown; use BOX, POINT or TRACE"
            return response
        except ValueError as error:
            response.message = str(error)
            return response
        try:
            answer = self._planner.answer([image], [question])[0]
        except PolicyClientError as error:
            response.message = str(error)
            return response
        prediction = answer_to_prediction(answer)
        prediction.header = request.image.header
        prediction.height, prediction.width = image.shape[:2]
        prediction.instruction = query
        prediction.latency = time.perf_counter() - started
        response.prediction = prediction
        response.success = bool(answer.boxes or answer.points or answer.traces)
        response.message = "" if response.success else f"the planner found no '{query}'"
        return response

    def health(self) -> Health:
        """Whether there is anything to plan, and anything to see."""
        rate = self._meter.rate(self._now())
        values = {"rate": f"{rate:.1f}", "plans": str(self._plans)}
        if not self._instruction:
            return Health(OK, "no instruction", values)
        return Health(OK, "planning", values) if rate else Health(WARN, "no views", values)

    def _now(self) -> float:
        return seconds(self.get_clock().now().to_msg())


_QUESTIONS = {
    Ground.Request.BOX: refer_prompt,
    Ground.Request.POINT: point_prompt,
    Ground.Request.TRACE: trace_prompt,
}


def _warm_up(planner: PlannerPart) -> None:
    """Make the first plan as fast as the next ones."""
    blank = np.zeros((64, 64, 3), dtype=np.uint8)
    planner.look([[blank] * len(planner.config.cameras)], ["warm up"])


def main() -> int:
    """Run planner_node."""
    return run(PlannerNode)


if __name__ == "__main__":
    sys.exit(main())
