"""Bags: what is written is read back by two independent readers, whatever ends the writing."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.exceptions import EndOfFile
from mcap.reader import NonSeekingReader, make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader

from internvla_ros.motion.se3 import Pose
from internvla_ros.recording.bag import Bag, BagError
from internvla_ros.recording.definitions import DefinitionError, definition, encode, stamp
from internvla_ros.recording.episode import EpisodeRecorder, Moment
from internvla_ros.recording.recording import Limits, Recording
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace

ROOT = Path(__file__).resolve().parent.parent
OWN = sorted(f"internvla_ros/msg/{path.stem}" for path in (ROOT / "msg").glob("*.msg"))
STANDARD = [
    "diagnostic_msgs/msg/DiagnosticArray",
    "rosgraph_msgs/msg/Clock",
    "sensor_msgs/msg/CameraInfo",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/JointState",
    "std_msgs/msg/Bool",
    "std_msgs/msg/String",
    "trajectory_msgs/msg/JointTrajectory",
    "visualization_msgs/msg/MarkerArray",
]
ROBOT = load_embodiment("widowx_250s")


def by_mcap(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Topic, type and message of all that is in a bag, by mcap-ros2-support."""
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        for schema, channel, _, message in reader.iter_decoded_messages():
            assert schema is not None
            yield channel.topic, schema.name, message


def by_rosbags(path: Path) -> Iterator[tuple[str, str, Any]]:
    """The same, by rosbags; it reads the definitions in the file, not its own."""
    with AnyReader([path]) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            yield connection.topic, connection.msgtype, message


def plain(value: Any) -> Any:
    """A message of any library as plain values."""
    if isinstance(value, bytes | bytearray | memoryview):  # one alone: rclpy's form of `byte`
        return value[0] if len(value) == 1 else list(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str | int | float):
        return value
    if hasattr(value, "get_fields_and_field_types"):  # rclpy
        return {name: plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    if hasattr(value, "__iter__"):
        return [plain(each) for each in value]
    names = getattr(value, "__dataclass_fields__", None) or value.__slots__
    return {
        name: plain(getattr(value, name))
        for name in names
        if not name.startswith("_") and name != "__msgtype__" and not name.isupper()
    }


def random_message(cls: type, rng: np.random.Generator) -> Any:
    """A ROS message with something in every field."""
    message = cls()
    for name, kind in cls.get_fields_and_field_types().items():  # type: ignore[attr-defined]
        setattr(message, name, _random_value(kind, getattr(message, name), rng))
    return message


def _random_value(kind: str, zero: Any, rng: np.random.Generator) -> Any:
    if kind.startswith("sequence<"):
        inner = kind[len("sequence<") : -1].partition(",")[0]
        if inner == "octet":
            return [bytes([7])]
        return [_random_value(inner, _zero(inner), rng) for _ in range(3)]
    if kind.endswith("]"):
        inner = kind.partition("[")[0]
        return [_random_value(inner, _zero(inner), rng) for _ in range(len(zero))]
    if "/" in kind:
        return random_message(type(zero), rng)
    if kind == "octet":
        return b"\x02"
    if kind in ("string", "wstring"):
        return "".join(rng.choice(list("abc äß字"), 5))
    if kind == "boolean":
        return bool(rng.integers(2))
    if kind in ("float", "double"):
        return float(np.float32(rng.normal()))
    return int(rng.integers(0, 100))


def _zero(kind: str) -> Any:
    if "/" not in kind:
        return None
    package, name = kind.split("/")
    return ros_class(f"{package}/msg/{name}")()


def ros_class(typename: str) -> Any:
    """The class that ROS generated for a message type."""
    package, _, name = typename.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


@pytest.mark.parametrize("typename", [*OWN, *STANDARD])
def test_every_message_is_read_back_as_it_was_published(typename: str, tmp_path: Path) -> None:
    """Written as it comes from the wire; read with the definitions in the file alone."""
    pytest.importorskip("rclpy")
    from rclpy.serialization import serialize_message

    rng = np.random.default_rng(len(typename))
    sent = [random_message(ros_class(typename), rng) for _ in range(3)]
    bag = Bag(tmp_path / "one.mcap")
    for index, message in enumerate(sent):
        bag.write("/topic", typename, serialize_message(message), 10.0 + index)
    bag.close()
    for read in (by_mcap, by_rosbags):
        found = list(read(bag.path))
        assert [(topic, kind) for topic, kind, _ in found] == [("/topic", typename)] * 3
        assert [plain(message) for _, _, message in found] == [plain(message) for message in sent]


def test_what_is_encoded_without_ros_is_what_ros_reads() -> None:
    pytest.importorskip("rclpy")
    from internvla_ros.msg import SpatialPrediction
    from rclpy.serialization import deserialize_message

    data = encode(
        "internvla_ros/msg/SpatialPrediction",
        {
            "header": {"stamp": stamp(12.25), "frame_id": "front_optical_frame"},
            "camera": "front",
            "width": 640,
            "boxes": [{"label": "red cube", "x_max": 12.5, "score": 0.5}],
            "traces": [{"x": [1.0, 2.0], "y": [3.0, 4.0]}],
            "views_sequence": 2**40,
        },
    )
    message = deserialize_message(data, SpatialPrediction)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (12, 250_000_000)
    assert (message.camera, message.width, message.height) == ("front", 640, 0)
    assert (message.boxes[0].label, message.boxes[0].x_max, message.points) == (
        "red cube",
        12.5,
        [],
    )
    assert list(message.traces[0].y) == [3.0, 4.0]
    assert message.views_sequence == 2**40


def test_definitions_hold_all_that_a_type_is_made_of() -> None:
    text = definition("internvla_ros/msg/SpatialPrediction")
    parts = [line for line in text.splitlines() if line.startswith("MSG: ")]
    assert sorted(parts) == [
        "MSG: builtin_interfaces/Time",
        "MSG: internvla_ros/Box",
        "MSG: internvla_ros/ImagePoint",
        "MSG: internvla_ros/Trace",
        "MSG: std_msgs/Header",
    ]


def test_definitions_need_no_ros_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    from internvla_ros.recording import definitions

    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    for cached in (definitions.definition, definitions._text):
        cached.cache_clear()
    assert "MSG: geometry_msgs/Transform\n" in definition("tf2_msgs/msg/TFMessage")
    assert "float64[] velocity" in definition("sensor_msgs/msg/JointState")
    assert "MSG: geometry_msgs/PoseStamped" in definition("internvla_ros/msg/ExecutionState")
    for cached in (definitions.definition, definitions._text):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("typename", "values", "words"),
    [
        ("std_msgs/msg/Nothing", {}, "no definition of std_msgs/msg/Nothing"),
        ("std_msgs/String", {}, "write PACKAGE/msg/NAME"),
        ("std_msgs/msg/../../x", {}, "no message type"),
        ("std_msgs/msg/String", {"text": "x"}, "has no field text"),
    ],
)
def test_what_is_no_message_is_refused(typename: str, values: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        encode(typename, values)


WRITER = """
import sys, time
from pathlib import Path
from internvla_ros.recording.bag import Bag
from internvla_ros.recording.definitions import encode
bag = Bag(Path(sys.argv[1]))
for number in range(1000):
    data = encode("std_msgs/msg/String", {"data": str(number).ljust(2000)})
    bag.write("/count", "std_msgs/msg/String", data, float(number))
print("written", flush=True)
time.sleep(600)
"""


def test_a_killed_recorder_leaves_all_but_its_last_chunk(tmp_path: Path) -> None:
    path = tmp_path / "cut.mcap"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    numbers = []
    with path.open("rb") as file:
        try:
            for _, _, _, message in NonSeekingReader(
                file, decoder_factories=[DecoderFactory()]
            ).iter_decoded_messages(log_time_order=False):
                numbers.append(int(message.data))
        except EndOfFile:
            pass
    assert numbers == list(range(len(numbers)))
    assert 1000 - len(numbers) <= 256 * 1024 / 2000 + 1


def test_a_full_disk_is_one_clear_error() -> None:
    bag = Bag(Path("/dev/full"))
    with pytest.raises(BagError, match="/dev/full: the disk is full"):
        for number in range(1000):
            data = np.random.default_rng(number).bytes(4000)
            bag.write("/a", "std_msgs/msg/String", data, 0.0)


def test_a_bag_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BagError, match="cannot write the bag"):
        Bag(tmp_path / "file" / "x.mcap")


def write_pictures(recording: Recording, numbers: range) -> None:
    for number in numbers:
        data = np.random.default_rng(number).bytes(20_000)
        values = {"format": str(number), "data": data}
        message = encode("sensor_msgs/msg/CompressedImage", values)
        recording.write("/image", "sensor_msgs/msg/CompressedImage", message, float(number))


def pictures_in(path: Path) -> list[int]:
    return [int(message.format) for topic, _, message in by_mcap(path) if topic == "/image"]


def latch(recording: Recording, text: str) -> None:
    task = encode("std_msgs/msg/String", {"data": text})
    recording.write("/instruction", "std_msgs/msg/String", task, 0.0, latched=True)


def test_a_long_recording_keeps_the_newest_within_its_bounds(tmp_path: Path) -> None:
    other = tmp_path / "live_part99.mcap"
    other.write_text("another's")
    recording = Recording(tmp_path, Limits(split_mb=1.0, max_mb=3.0, reserve_mb=0.0))
    latch(recording, "the task")
    recording.begin("live", 0.0)
    largest = 0
    for number in range(400):
        write_pictures(recording, range(number, number + 1))
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.iterdir()))
    files = recording.end()
    assert set(files) == set(tmp_path.iterdir()) - {other}
    assert recording.dropped > 0
    assert largest <= 3.1e6
    for path in files:
        assert sum(topic == "/instruction" for topic, _, _ in by_mcap(path)) == 1
    numbers = [number for path in files for number in pictures_in(path)]
    assert len(numbers) >= 60
    assert numbers == list(range(400 - len(numbers), 400))
    assert other.read_text() == "another's"


def test_stretches_are_kept_apart_and_the_oldest_go_first(tmp_path: Path) -> None:
    recording = Recording(tmp_path, Limits(split_mb=1.0, max_mb=2.0, reserve_mb=0.0))
    for stretch in range(5):
        latch(recording, f"task {stretch}")
        write_pictures(recording, range(1000, 1010))  # between stretches: not kept
        recording.begin(f"{stretch}: put it/there!", 0.0)
        recording.show(np.full((48, 64, 3), 20 * stretch, np.uint8), 10)
        write_pictures(recording, range(20 * stretch, 20 * stretch + 20))
        bag, film = recording.end("success")
        assert (bag.name, film.suffix) == (f"{stretch}_put_it_there_success.mcap", ".mp4")
    bags = sorted(tmp_path.glob("*.mcap"))
    assert [path.name[0] for path in bags] == ["2", "3", "4"]
    assert pictures_in(bags[-1]) == list(range(80, 100))
    (task,) = [message.data for topic, _, message in by_mcap(bags[-1]) if topic == "/instruction"]
    assert task == "task 4"


def test_limits_that_leave_no_room_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="at least twice"):
        Limits(split_mb=2.0, max_mb=3.0)
    with pytest.raises(BagError, match="MB are free"):
        Recording(tmp_path, Limits(split_mb=1.0, max_mb=3.0, reserve_mb=1e9))
    (tmp_path / "file").write_text("")
    with pytest.raises(BagError, match="cannot record into"):
        Recording(tmp_path / "file" / "folder")


def moment(time: float) -> Moment:
    return Moment(
        time=time,
        pictures={
            camera.name: np.full((camera.height, camera.width, 3), 90, np.uint8)
            for camera in ROBOT.cameras
        },
        answer=SpatialAnswer(
            (Box(100, 120, 160, 180, "red cube", 0.75),),
            (Point(130, 150), Point(400, 300)),
            (Trace(np.array([[130.0, 150.0], [250.0, 90.5], [400.0, 300.0]])),),
        ),
        actions=np.full((4, 7), 0.25),
        joints={name: 0.5 for name in (*ROBOT.joints, *ROBOT.gripper.joints)},
        commanded=Pose(np.array([0.25, 0.0, 0.125]), np.eye(3)),
        measured=Pose(np.array([0.25, 0.0, 0.25]), np.eye(3)),
        gripper=1.0,
    )


def test_an_episode_is_a_film_and_a_bag(tmp_path: Path) -> None:
    import av

    recorder = EpisodeRecorder(tmp_path, "scene_0003", ROBOT, "put the cube away", 0.2)
    for step in range(5):
        recorder.add(moment(0.2 * step))
    film, bag = recorder.close("success")
    assert {path.name for path in tmp_path.iterdir()} == {
        "scene_0003_success.mp4",
        "scene_0003_success.mcap",
    }
    with av.open(str(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 5
    assert np.abs(frames[0][120:180, 100].astype(int) - (255, 179, 0)).mean() < 60  # the box
    for read in (by_mcap, by_rosbags):
        messages: dict[str, list[Any]] = {}
        for topic, _, message in read(bag):
            messages.setdefault(topic, []).append(message)
        assert {topic: len(found) for topic, found in messages.items()} == {
            "/instruction": 1,
            "/front/image_raw/compressed": 5,
            "/front/camera_info": 5,
            "/wrist/image_raw/compressed": 5,
            "/wrist/camera_info": 5,
            "/joint_states": 5,
            "/spatial_prediction": 5,
            "/action_chunk": 5,
            "/execution_state": 5,
        }
        prediction = messages["/spatial_prediction"][-1]
        assert prediction.header.stamp.nanosec == 800_000_000
        assert prediction.boxes[0].label == "red cube" and prediction.boxes[0].score == 0.75
        assert list(prediction.traces[0].y) == [150.0, 90.5, 300.0]
        chunk = messages["/action_chunk"][0]
        assert (chunk.horizon, chunk.action_dim, len(chunk.actions)) == (4, 7, 28)
        assert messages["/execution_state"][0].tracking_error == 0.125
        assert list(messages["/joint_states"][0].name)[:2] == list(ROBOT.joints)[:2]
