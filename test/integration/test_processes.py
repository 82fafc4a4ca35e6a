"""`internvla up` and single nodes as processes: they say what is wrong, and they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

import av
import rclpy
from random_policy import save_random_policy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from internvla_ros.nodes.qos import SENSOR_OUT

pytestmark = pytest.mark.integration

NODES = ["actor", "arm", "camera", "planner", "sim", "task"]
UP = [*NODES, "markers"]


def internvla(*arguments: str, **options: object) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "internvla_ros.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], patience: float, what: str) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience} s for {what} in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_policy(tmp_path_factory.mktemp("policy"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_leaves_no_orphan_however_it_ends(checkpoint: Path, number: signal.Signals) -> None:
    up = internvla("up", "--checkpoint", str(checkpoint))
    assert up.stdout is not None
    wait_for(lambda: len(children(up.pid)) == len(UP), 60.0, "the processes")
    started = children(up.pid)
    if number is signal.SIGTERM:  # when one of them is well under way
        for line in up.stdout:
            if "ready with" in line:
                break
    os.kill(up.pid, number)
    status = up.wait(timeout=20.0)
    assert status == (0 if number is not signal.SIGKILL else -signal.SIGKILL)
    wait_for(lambda: not any(map(alive, started)), 10.0, "the nodes to end")
    assert "Traceback" not in up.stdout.read()
    up.stdout.close()


def test_up_ends_when_a_node_dies_for_good(checkpoint: Path) -> None:
    up = internvla("up", "--no-respawn", "--checkpoint", str(checkpoint))
    wait_for(lambda: len(children(up.pid)) == len(UP), 60.0, "the processes")
    started = children(up.pid)
    os.kill(started[2], signal.SIGKILL)
    output, _ = up.communicate(timeout=30.0)
    assert up.returncode == 1
    assert "arm was killed by SIGKILL" in output
    wait_for(lambda: not any(map(alive, started)), 10.0, "the nodes to end")


def test_the_demo_can_be_interrupted_and_its_video_played(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--headless", "--scenes", "1", "--checkpoint", str(checkpoint)]
    demo = internvla("demo", *arguments, cwd=tmp_path, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert demo.stdout is not None
    for line in demo.stdout:
        if "first arm motion" in line:
            break
    started = children(demo.pid)
    assert len(started) == len(NODES)
    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=20.0)
    assert demo.returncode == 130
    assert rest.splitlines()[-1] == "interrupted"
    wait_for(lambda: not any(map(alive, started)), 10.0, "the nodes to end")
    with av.open(str(tmp_path / "demo_output" / "demo.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) > 0


@pytest.mark.parametrize("command", ["up", "demo"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--robot", "r2d2"], "unknown robot 'r2d2'"),
        (["--checkpoint", "/nowhere"], "no checkpoint folder at /nowhere"),
    ],
)
def test_one_clear_line_before_anything_starts(
    checkpoint: Path, command: str, arguments: list[str], words: str, tmp_path: Path
) -> None:
    process = internvla(command, "--checkpoint", str(checkpoint), *arguments, cwd=tmp_path)
    output, _ = process.communicate(timeout=60.0)
    assert process.returncode == 2
    lines = [line for line in output.splitlines() if not line.startswith("no window")]
    assert len(lines) == 1
    assert words in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_camera_of_the_wrong_size_is_one_line_now_and_then() -> None:
    node = subprocess.Popen(
        [sys.executable, "-m", "internvla_ros.nodes.camera_node", "--ros-args", "-r", "__ns:=/odd"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    source = rclpy.create_node("odd_camera")
    publisher = source.create_publisher(Image, "/odd/front/image_raw", SENSOR_OUT)
    try:
        wait_for(lambda: publisher.get_subscription_count() == 1, 60.0, "camera_node")
        message = Image(height=240, width=320, step=960, encoding="rgb8", data=bytes(230400))
        for _ in range(30):
            publisher.publish(message)
            time.sleep(0.02)
        assert node.stdout is not None
        line = node.stdout.readline()
        assert "the image is 320x240, the robot's description says 640x480" in line
    finally:
        node.send_signal(signal.SIGINT)
        rest, _ = node.communicate(timeout=20.0)
        source.destroy_node()
        rclpy.try_shutdown()
    assert node.returncode == 0
    assert rest == ""
