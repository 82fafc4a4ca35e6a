"""What it costs to look: CPU time of the nodes that show things, and the arm's pace beside them.

    python bench/visualization.py [--seconds S] [--rounds N] [--json FILE]

A stand-in for a robot publishes two 640x480 views at 10 Hz, predictions and chunks at 6 Hz, arm
states at 12.5 Hz and joint states at 50 Hz. The share of one core that a node takes is measured
alone, then with somebody looking at all that it shows. Then arm_node follows chunks at 50 Hz, in
turns with and without the onlookers, and the spread of its setpoints' stamps is compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import rclpy
from internvla_ros.msg import ActionChunk, CameraViews, ExecutionState, SpatialPrediction
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Header, String
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import MarkerArray

from internvla_ros.bringup import NodeSpec, environment
from internvla_ros.control.chunk import Chunk
from internvla_ros.nodes.converters import (
    answer_to_prediction,
    camera_info,
    chunk_to_message,
    rgb_to_image,
)
from internvla_ros.nodes.processes import cpu_seconds
from internvla_ros.nodes.qos import EVENTS, LATCHED, NEWEST, SENSOR_IN, SENSOR_OUT
from internvla_ros.nodes.stamps import seconds
from internvla_ros.nodes.supervisor import Supervisor, processes
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.scene import sample_scene
from internvla_ros.sim.world import World
from internvla_ros.spatial.types import Box, Point, SpatialAnswer, Trace

ROBOT = load_embodiment("widowx_250s")
COMMON: dict[str, Any] = {"robot": ROBOT.name, "use_sim_time": False}
ARM = NodeSpec("arm", "arm_node", COMMON)
# The nodes that show things; a row each, where the node is there.
ONLOOKERS = {
    "marker_node": NodeSpec("markers", "marker_node", COMMON, niceness=5),
    "dashboard_node": NodeSpec("dashboard", "dashboard_node", COMMON, niceness=5),
}
# Who looks at what marker_node shows; a column each.
LOOKS: dict[str, tuple[type, ...]] = {
    "nobody": (),
    "JPEG": (CompressedImage, MarkerArray),
    "raw": (Image, MarkerArray),
    "both": (CompressedImage, Image, MarkerArray),
}
VIEWS_RATE, ANSWER_RATE, STATE_RATE, JOINTS_RATE = 10.0, 6.0, 12.5, 50.0


class StandIn(Node):
    """Publishes what a robot with planner and actor would, and looks at what is shown of it."""

    def __init__(self) -> None:
        super().__init__("stand_in")
        self._pictures, self._answers, self._task = _scene()
        self._positions = [*ROBOT.ready.tolist(), 0.03, 0.03]
        self._count = 0
        self.setpoints: list[float] = []
        """Stamps (s) of the arm's setpoints since it was emptied last."""
        make = self.create_publisher
        self._views_out = make(CameraViews, "camera_views", NEWEST)
        self._image_out = {
            c.name: make(Image, f"{c.name}/image_raw", SENSOR_OUT) for c in ROBOT.cameras
        }
        self._info_out = {
            c.name: make(CameraInfo, f"{c.name}/camera_info", SENSOR_OUT) for c in ROBOT.cameras
        }
        self._prediction_out = make(SpatialPrediction, "spatial_prediction", EVENTS)
        self._chunk_out = make(ActionChunk, "action_chunk", NEWEST)
        self._state_out = make(ExecutionState, "execution_state", EVENTS)
        self._joints_out = make(JointState, "joint_states", SENSOR_OUT)
        make(String, "instruction", LATCHED).publish(String(data=self._task))
        self.create_subscription(
            JointTrajectory, "arm_controller/joint_trajectory", self._on_setpoint, NEWEST
        )
        self.create_timer(1.0 / VIEWS_RATE, self._publish_views)
        self.create_timer(1.0 / ANSWER_RATE, self._publish_answers)
        self.create_timer(1.0 / JOINTS_RATE, self._publish_joints)
        self._state_timer: Any = None
        self._looks: list[Any] = []

    def pretend_arm(self, wanted: bool) -> None:
        """Publish execution states, where arm_node does not."""
        if self._state_timer is not None:
            self.destroy_timer(self._state_timer)
            self._state_timer = None
        if wanted:
            self._state_timer = self.create_timer(1.0 / STATE_RATE, self._publish_state)

    def look(self, *kinds: type) -> None:
        """Look at everything of these kinds that marker_node shows, and at nothing else."""
        for each in self._looks:
            self.destroy_subscription(each)
        topics: list[tuple[type, str, Any]] = [(MarkerArray, "markers", NEWEST)]
        for camera in ROBOT.cameras:
            topics.append((Image, f"{camera.name}/annotated", SENSOR_IN))
            topics.append((CompressedImage, f"{camera.name}/annotated/compressed", SENSOR_IN))
        self._looks = [
            self.create_subscription(kind, topic, _nothing, qos, raw=True)
            for kind, topic, qos in topics
            if kind in kinds
        ]

    def _stamp(self) -> Any:
        return self.get_clock().now().to_msg()

    def _publish_views(self) -> None:
        stamp = self._stamp()
        views = CameraViews(names=[camera.name for camera in ROBOT.cameras])
        views.header.stamp = stamp
        for camera in ROBOT.cameras:
            header = Header(stamp=stamp, frame_id=camera.optical_frame)
            views.images.append(rgb_to_image(self._pictures[camera.name], header))
            views.infos.append(
                camera_info(camera.intrinsics(), camera.width, camera.height, header)
            )
            self._image_out[camera.name].publish(views.images[-1])
            self._info_out[camera.name].publish(views.infos[-1])
        self._views_out.publish(views)

    def _publish_answers(self) -> None:
        """A prediction that moves a little each time, and every 20th time a trace with it."""
        self._count += 1
        answer = self._answers[self._count % len(self._answers)]
        if self._count % 20 != 1:
            answer = SpatialAnswer(answer.boxes, answer.points)
        message = answer_to_prediction(answer)
        first = ROBOT.cameras[0]
        message.header = Header(stamp=self._stamp(), frame_id=first.optical_frame)
        message.camera, message.width, message.height = first.name, first.width, first.height
        message.instruction = self._task
        self._prediction_out.publish(message)
        way = 0.002 if self._count % 12 < 6 else -0.002
        actions = np.tile([way, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], (ROBOT.chunk_size, 1))
        chunk = Chunk(seconds(self._stamp()), 0.2, actions, self._count)
        sent = chunk_to_message(
            chunk, frame=ROBOT.base_frame, delta_frame="base", rotation=ROBOT.action.rotation
        )
        sent.instruction = self._task
        self._chunk_out.publish(sent)

    def _publish_state(self) -> None:
        state = ExecutionState(state=ExecutionState.RUNNING, chunk_sequence=self._count)
        state.header.stamp = self._stamp()
        state.commanded.header.frame_id = ROBOT.base_frame
        state.commanded.pose.position.x, state.commanded.pose.position.z = 0.26, 0.18
        state.commanded.pose.orientation.w = 1.0
        self._state_out.publish(state)

    def _publish_joints(self) -> None:
        self._joints_out.publish(
            JointState(
                header=Header(stamp=self._stamp()),
                name=[*ROBOT.joints, *ROBOT.gripper.joints],
                position=self._positions,
            )
        )

    def _on_setpoint(self, message: JointTrajectory) -> None:
        self.setpoints.append(seconds(message.header.stamp))
        self._positions[: len(ROBOT.joints)] = list(message.points[0].positions)


def _nothing(message: Any) -> None:
    """What is done with messages that are only to be taken in."""


def _scene() -> tuple[dict[str, Any], list[SpatialAnswer], str]:
    """Pictures of a simulated scene by camera, answers about the first one, and the task."""
    world = World(ROBOT)
    world.reset(sample_scene(np.random.default_rng(11), ROBOT))
    pictures = {c.name: world.render(c.name, c.width, c.height).copy() for c in ROBOT.cameras}
    first, task = ROBOT.cameras[0], world.scene.task
    boxes = world.boxes(first.name, first.width, first.height)
    tip = world.project(world.tip_pose().position[None], first.name, first.width, first.height)[0]
    world.close()
    names = (task.pick, task.place)
    centres = [np.array([boxes[n][:2], boxes[n][2:]]).mean(axis=0) for n in names]
    above = centres[0] + [0.0, -90.0]
    answers = []
    for shift in range(4):
        way = np.array([tip, (tip + above) / 2, centres[0], above, centres[1]]) + 0.5 * shift
        answers.append(
            SpatialAnswer(
                tuple(Box(*(boxes[n] + 0.5 * shift), n, 0.93 - 0.02 * shift) for n in names),
                tuple(Point(*centre, n) for centre, n in zip(centres, names, strict=True)),
                (Trace(way),),
            )
        )
    return pictures, answers, task.instruction


class Bench:
    """The stand-in with its executor, and processes beside it."""

    def __init__(self) -> None:
        rclpy.init()
        self.robot = StandIn()
        self._executor = EventsExecutor()
        self._executor.add_node(self.robot)

    def pass_time(self, wanted: float, supervisor: Supervisor | None = None) -> None:
        """Go on for so many s."""
        end = time.monotonic() + wanted
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)
            if supervisor is not None:
                supervisor.poll(0.0)
                if supervisor.ended:
                    raise SystemExit(f"error: {supervisor.ended[0]}")

    @contextmanager
    def running(self, *nodes: NodeSpec) -> Iterator[Supervisor]:
        specs = processes(nodes, "")
        with Supervisor(specs, lambda name, line: print(f"{name}: {line}"), environment()) as made:
            made.start()
            self.pass_time(4.0, made)  # to start, and to find each other
            yield made

    def share(self, supervisor: Supervisor, name: str, wanted: float) -> float:
        """The share of one core that a process takes over so many s."""
        pid, began = supervisor.pid(name), time.monotonic()
        before = cpu_seconds(pid)
        self.pass_time(wanted, supervisor)
        return (cpu_seconds(pid) - before) / (time.monotonic() - began)

    def jitter(self, supervisor: Supervisor, wanted: float) -> tuple[float, float]:
        """Standard deviation and 99th percentile of the error (ms) of the setpoints' distances."""
        self.robot.setpoints.clear()
        self.pass_time(wanted, supervisor)
        steps = np.diff(self.robot.setpoints)
        if len(steps) < 0.5 * wanted * ROBOT.control_rate:
            raise SystemExit(f"error: only {len(steps)} setpoints came in {wanted:.0f} s")
        error = 1e3 * (steps - 1.0 / ROBOT.control_rate)
        return float(error.std()), float(np.percentile(np.abs(error), 99))


def available() -> dict[str, NodeSpec]:
    """The onlookers that this package has."""
    known = importlib.util.find_spec
    return {
        name: spec
        for name, spec in ONLOOKERS.items()
        if known(f"internvla_ros.nodes.{spec.executable}") is not None
    }


def costs(bench: Bench, wanted: float) -> dict[str, dict[str, float]]:
    """The share of a core that each onlooker takes, by who looks at it."""
    bench.robot.pretend_arm(True)
    rows: dict[str, dict[str, float]] = {}
    for name, spec in available().items():
        rows[name] = {}
        with bench.running(spec) as supervisor:
            for who, kinds in LOOKS.items():
                if spec.executable != "marker_node" and kinds:
                    continue
                bench.robot.look(*kinds)
                bench.pass_time(2.0, supervisor)
                rows[name][who] = bench.share(supervisor, spec.name, wanted)
            bench.robot.look()
    bench.robot.pretend_arm(False)
    return rows


def jitters(bench: Bench, wanted: float, rounds: int) -> dict[str, dict[str, float]]:
    """The arm's pace alone and with all onlookers, in turns: the medians of the rounds."""
    found: dict[str, list[tuple[float, float]]] = {"alone": [], "with onlookers": []}
    for _ in range(rounds):
        for name, nodes in (("alone", ()), ("with onlookers", tuple(available().values()))):
            with bench.running(ARM, *nodes) as supervisor:
                bench.robot.look(*(LOOKS["JPEG"] if nodes else ()))
                bench.pass_time(1.0, supervisor)
                found[name].append(bench.jitter(supervisor, wanted))
                bench.robot.look()
    medians = {name: np.median(values, axis=0) for name, values in found.items()}
    return {
        name: {"std_ms": float(std), "p99_ms": float(p99)} for name, (std, p99) in medians.items()
    }


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of the jitter's turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    args = parser.parse_args()
    os.environ.update(environment())
    cv2.setNumThreads(1)
    bench = Bench()
    shares = costs(bench, args.seconds)
    print("share of one core, two 640x480 views at 10 Hz, by who looks at the pictures")
    print(" " * 16 + "".join(f"{who:>9}" for who in LOOKS))
    for name, row in shares.items():
        print(f"{name:16}" + "".join(f"{share:9.1%}" for share in row.values()))
    pace = jitters(bench, args.seconds, args.rounds)
    print(f"\n{'setpoints, ms':16} {'std':>7} {'p99':>7}")
    for name, row in pace.items():
        print(f"{name:16} {row['std_ms']:7.2f} {row['p99_ms']:7.2f}")
    ratio = pace["with onlookers"]["std_ms"] / pace["alone"]["std_ms"]
    print(f"jitter with onlookers is {ratio:.2f} times that without")
    if args.json is not None:
        args.json.write_text(json.dumps({"cpu": shares, "pace": pace, "ratio": ratio}, indent=2))


if __name__ == "__main__":
    main()
