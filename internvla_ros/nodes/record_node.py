"""Records a running graph: MCAP bags and films with overlays, one a task or one row for all."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from std_msgs.msg import Bool, String

from internvla_ros.nodes.converters import ConversionError
from internvla_ros.nodes.diagnostics import ERROR, OK, Diagnostics, Health
from internvla_ros.nodes.parameters import declare, setting
from internvla_ros.nodes.recorder import GraphRecorder, picture_of
from internvla_ros.nodes.runner import run
from internvla_ros.nodes.stamps import seconds
from internvla_ros.recording.bag import BagError
from internvla_ros.recording.recording import Limits, Recording
from internvla_ros.recording.video import VideoError
from internvla_ros.robots.embodiment import load_embodiment

_LOOK = 0.5  # s between two looks at what is published
EXCLUDE = r"/parameter_events|.*/_.*|.*/camera_views|.*/plan|.*/annotated"
"""Left out unless told otherwise: what repeats pictures, and the planner's hidden states."""


@dataclass(frozen=True)
class RecordConfig:
    """Parameters of record_node."""

    robot: str = setting("widowx_250s", "the robot's name, or the path of its YAML file")
    folder: str = setting("recordings", "where the files go")
    mode: str = setting(
        "tasks",
        "tasks: a bag and a film from each instruction to its end; always: all that is published",
        choices=("tasks", "always"),
    )
    exclude: str = setting(EXCLUDE, "regular expression of topics that are not recorded")
    film: bool = setting(True, "film the first camera's annotated pictures too")
    film_rate: int = setting(10, "pictures a second of the film", minimum=1, maximum=60)
    jpeg_quality: int = setting(90, "of recorded pictures", minimum=1, maximum=100)
    split_mb: float = setting(500.0, "MB of one bag", minimum=1.0, maximum=1e6)
    max_mb: float = setting(
        5000.0, "MB of all files; the oldest of this run are deleted", minimum=2.0, maximum=1e7
    )
    reserve_mb: float = setting(1000.0, "MB of the disk that stay free", minimum=0.0, maximum=1e7)


class RecordNode(Node):
    """Listens only. Ctrl-C finishes the files; after worse they are whole up to the last chunk."""

    def __init__(self) -> None:
        super().__init__("record")
        self._config = config = declare(self, RecordConfig)
        camera = load_embodiment(config.robot).cameras[0].name
        limits = Limits(config.split_mb, config.max_mb, config.reserve_mb)
        self._recording = Recording(Path(config.folder), limits)
        self._recorder = GraphRecorder(self, self._write, config.exclude, config.jpeg_quality)
        self._recorder.on_message = self._on_message
        self._instruction_topic = self.resolve_topic_name("instruction")
        self._success_topic = self.resolve_topic_name("task_success")
        self._film_topic = self.resolve_topic_name(f"{camera}/annotated/compressed")
        self._instruction, self._tasks = "", 0
        self._success = self._success_known = False
        self._messages = 0
        self._problem = ""
        if config.mode == "always":
            self._recording.begin(time.strftime("%Y%m%d_%H%M%S"), self._now())
        self.create_timer(_LOOK, self._recorder.look)
        self._diagnostics = Diagnostics(self, self._health)
        self.get_logger().info(f"recording into {Path(config.folder).absolute()}")

    def close(self) -> None:
        """Write what is still waiting, and finish the files."""
        self._recorder.drain()
        try:
            self._recording.end(self._outcome())
        except (BagError, VideoError) as error:
            self._fail(str(error))

    def _write(self, topic: str, typename: str, data: bytes, latched: bool) -> None:
        if self._problem:
            return
        try:
            self._recording.write(topic, typename, data, self._now(), latched=latched)
        except BagError as error:
            self._fail(str(error))
        self._messages += 1
        if topic == self._instruction_topic:
            self._turn(data)

    def _turn(self, data: bytes) -> None:
        """Another instruction: in mode "tasks" one stretch ends and, unless empty, one begins."""
        instruction = " ".join(deserialize_message(data, String).data.split())
        if self._config.mode != "tasks" or instruction == self._instruction:
            return
        self._instruction = instruction
        try:
            for path in self._recording.end(self._outcome()):
                self.get_logger().info(f"kept {path}")
            self._success = False
            if instruction:
                self._tasks += 1
                when = time.strftime("%Y%m%d_%H%M%S")
                name = f"{when}_{self._tasks:04d}_{instruction}"
                self._recording.begin(name, self._now())
        except (BagError, VideoError) as error:
            self._fail(str(error))

    def _on_message(self, topic: str, data: bytes) -> None:
        if topic == self._success_topic:
            self._success_known = True
            self._success |= deserialize_message(data, Bool).data
        elif topic == self._film_topic and self._config.film and not self._problem:
            try:
                self._recording.show(picture_of(data), self._config.film_rate)
            except (VideoError, ConversionError, OSError) as error:
                self._fail(str(error))

    def _outcome(self) -> str:
        """What a task's files are called after: nothing where nobody judges it."""
        if self._config.mode != "tasks" or not self._success_known:
            return ""
        return "success" if self._success else "failure"

    def _fail(self, words: str) -> None:
        """The robot goes on without its recorder; somebody must be told."""
        self._problem = words
        self.get_logger().error(f"not recording any more: {words}")

    def _health(self) -> Health:
        values = {"messages": str(self._messages), "bytes": str(self._recording.size)}
        if self._problem:
            return Health(ERROR, self._problem, values)
        return Health(OK, "recording" if self._recording.active else "waiting for a task", values)

    def _now(self) -> float:
        return seconds(self.get_clock().now().to_msg())


def main() -> int:
    """Run record_node."""
    return run(RecordNode)


if __name__ == "__main__":
    sys.exit(main())
