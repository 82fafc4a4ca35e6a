"""record_node: what a graph publishes ends in bags and films, and Ctrl-C loses nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import rclpy
from internvla_ros.msg import ExecutionState
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool, Header, String

from internvla_ros.nodes.converters import rgb_to_image
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST, SENSOR_OUT
from internvla_ros.nodes.record_node import RecordNode

ROOT = Path(__file__).resolve().parent.parent
TASK = "put the red cube on the blue plate"


def read(path: Path) -> list[tuple[str, Any]]:
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return [
            (channel.topic, message) for _, channel, _, message in reader.iter_decoded_messages()
        ]


class Publishers:
    """What a graph would publish."""

    def __init__(self) -> None:
        self.node = rclpy.create_node("publishers")
        make = self.node.create_publisher
        self.instruction = make(String, "instruction", LATCHED)
        self.success = make(Bool, "task_success", LATCHED)
        self.state = make(ExecutionState, "execution_state", EVENTS)
        self.image = make(Image, "front/image_raw", SENSOR_OUT)
        self.drawn = make(Image, "front/annotated", SENSOR_OUT)
        self.film = make(CompressedImage, "front/annotated/compressed", SENSOR_OUT)
        self.plan = make(String, "plan", NEWEST)
        self.all = (
            self.instruction, self.success, self.state, self.image, self.film
        )  # fmt: skip

    def picture(self, shade: int) -> None:
        picture = np.full((48, 64, 3), shade, np.uint8)
        self.image.publish(rgb_to_image(picture, Header()))
        message = CompressedImage(format="jpeg")
        message.data.frombytes(cv2.imencode(".jpg", picture)[1].tobytes())
        self.film.publish(message)


@pytest.fixture
def publishers() -> Iterator[Publishers]:
    rclpy.init()
    made = Publishers()
    yield made
    made.node.destroy_node()
    rclpy.try_shutdown()


class Recorded:
    """record_node in this process."""

    def __init__(self, folder: Path, publishers: Publishers, mode: str) -> None:
        settings = {"folder": str(folder), "mode": mode, "reserve_mb": 0.0, "split_mb": 5.0}
        overrides = [Parameter(name, value=value) for name, value in settings.items()]
        with pytest.MonkeyPatch.context() as patch:
            original = rclpy.node.Node.__init__
            patch.setattr(
                rclpy.node.Node,
                "__init__",
                lambda node, name: original(node, name, parameter_overrides=overrides),
            )
            self.node = RecordNode()
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._executor.add_node(publishers.node)
        self._publishers = publishers
        self.until(lambda: all(each.get_subscription_count() for each in publishers.all))

    def until(self, done: Callable[[], bool]) -> None:
        clock = self.node.get_clock()
        deadline = clock.now().nanoseconds + 20_000_000_000
        while not done():
            assert clock.now().nanoseconds < deadline, "waited in vain"
            self._executor.spin_once(timeout_sec=0.02)

    def settle(self) -> None:
        """Until all that was sent has been taken in."""
        for publisher in self._publishers.all:
            publisher.wait_for_all_acked()
        for _ in range(60):
            self._executor.spin_once(timeout_sec=0.0)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.close()
        self.node.destroy_node()


def test_each_task_is_a_bag_and_a_film(tmp_path: Path, publishers: Publishers) -> None:
    recorded = Recorded(tmp_path, publishers, "tasks")
    publishers.success.publish(Bool(data=False))
    publishers.state.publish(ExecutionState(reason="before"))
    recorded.settle()
    for number, success in enumerate((True, False)):
        publishers.instruction.publish(String(data=TASK))
        recorded.settle()
        for step in range(5):
            publishers.state.publish(ExecutionState(chunk_sequence=step, reason=f"{number}"))
            publishers.picture(50 * number + 40)
        recorded.settle()
        publishers.success.publish(Bool(data=success))
        recorded.settle()
        publishers.instruction.publish(String(data=""))
        recorded.settle()
    recorded.close()
    bags, films = (sorted(tmp_path.glob(f"*.{kind}")) for kind in ("mcap", "mp4"))
    names = [path.stem.split("_", 3)[2:] for path in bags]
    task = TASK.replace(" ", "_")
    assert names == [["0001", f"{task}_success"], ["0002", f"{task}_failure"]]
    assert [path.stem for path in films] == [path.stem for path in bags]
    for number, path in enumerate(bags):
        messages = read(path)
        counts = Counter(topic for topic, _ in messages)
        assert counts["/execution_state"] == 5
        assert counts["/front/image_raw/compressed"] == 5
        assert [m.data for topic, m in messages if topic == "/instruction"] == [TASK, ""]
        assert not counts["/front/annotated"] and not counts["/plan"]
        states = [message for topic, message in messages if topic == "/execution_state"]
        assert [(s.chunk_sequence, s.reason) for s in states] == [
            (step, f"{number}") for step in range(5)
        ]
    with av.open(str(films[1])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 5 and abs(float(frames[2].mean()) - 90) < 4


def test_what_waits_at_the_end_is_written(tmp_path: Path, publishers: Publishers) -> None:
    recorded = Recorded(tmp_path, publishers, "always")
    for step in range(10):  # published, but never taken in by the executor
        publishers.state.publish(ExecutionState(chunk_sequence=step))
    publishers.state.wait_for_all_acked()
    recorded.close()
    (bag,) = tmp_path.glob("*.mcap")
    states = [message for topic, message in read(bag) if topic == "/execution_state"]
    assert [state.chunk_sequence for state in states] == list(range(10))


def test_ctrl_c_finishes_the_files(tmp_path: Path, publishers: Publishers) -> None:
    command = [sys.executable, "-m", "internvla_ros.nodes.record_node", "--ros-args"]
    for name, value in {"folder": tmp_path, "mode": "always", "reserve_mb": 0.0}.items():
        command += ["-p", f"{name}:={value}"]
    process = subprocess.Popen(command, cwd=ROOT)
    clock = publishers.node.get_clock()
    deadline = clock.now().nanoseconds + 30_000_000_000
    while not publishers.state.get_subscription_count():
        assert process.poll() is None and clock.now().nanoseconds < deadline
        rclpy.spin_once(publishers.node, timeout_sec=0.05)
    for step in range(20):
        publishers.state.publish(ExecutionState(chunk_sequence=step))
    publishers.state.wait_for_all_acked()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    (bag,) = tmp_path.glob("*.mcap")
    states = [message for topic, message in read(bag) if topic == "/execution_state"]
    assert [state.chunk_sequence for state in states] == list(range(20))


def test_what_cannot_be_recorded_into_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "internvla_ros.nodes.record_node", "--ros-args"]
    command += ["-p", f"folder:={tmp_path / 'file' / 'x'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: cannot record into")
