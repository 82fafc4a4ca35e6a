"""Setpoints at 100 Hz while the policy thinks on the same cores: rate, jitter, tracking.

    python bench/jitter.py [--rate 100] [--seconds 20] [--cores 0,1] [--priority 20] [--seed 11]

The whole graph runs with the simulator, pinned to the given cores, and is sent instructions one
after the other. Setpoints are timed where they arrive, in a process of their own, so that what is
shown holds the transport too. The robot is the WidowX with another control rate.

With a priority, arm_node has it, and so have the simulator's physics and this watch, which stand
for a robot: a real one keeps its own time and is not held up by our processes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import rclpy
import yaml
from internvla_ros.msg import ActionChunk, ExecutionState
from internvla_ros.srv import ResetScene
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from internvla_ros.bringup import Options, environment, graph
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.node_spec import NodeSpec
from internvla_ros.nodes.qos import CLOCK, EVENTS, LATCHED, NEWEST, SENSOR_IN
from internvla_ros.nodes.realtime import go_first
from internvla_ros.nodes.stamps import seconds
from internvla_ros.nodes.supervisor import Supervisor, processes
from internvla_ros.resources import DEFAULT_CHECKPOINT, resource
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import load_embodiment

NODES = ("planner", "actor", "arm", "camera", "sim")
TICK = 0.01  # s between two ticks of the simulator's clock, which the arm keeps to
PATIENCE = 120.0  # s for the graph to come up


class Watch:
    """Notes when setpoints arrive, where they lead, and where the tip is."""

    def __init__(self) -> None:
        self.robot = load_embodiment("widowx_250s")
        self._kinematics = Kinematics(
            urdf(self.robot.name), self.robot.joints, self.robot.tip_frame
        )
        self.node = rclpy.create_node("jitter")
        self.arrivals: list[float] = []
        self.stamps: list[float] = []
        self.ticks: list[float] = []
        self.errors: list[float] = []
        self.chunks = 0
        self.state: ExecutionState | None = None
        self._due: deque[tuple[float, np.ndarray]] = deque(maxlen=256)
        self.instruct = self.node.create_publisher(String, "instruction", LATCHED)
        self.reset = self.node.create_client(ResetScene, "sim/reset")
        subscribe = self.node.create_subscription
        subscribe(JointTrajectory, "arm_controller/joint_trajectory", self._on_setpoint, EVENTS)
        subscribe(JointState, "joint_states", self._on_joints, SENSOR_IN)
        subscribe(Clock, "/clock", self._on_clock, CLOCK)
        subscribe(ActionChunk, "action_chunk", self._on_chunk, NEWEST)
        subscribe(ExecutionState, "execution_state", self._on_state, EVENTS)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def spin(self) -> None:
        """Take in what comes."""
        self._executor.spin_once(timeout_sec=0.02)

    def _on_chunk(self, message: ActionChunk) -> None:
        self.chunks += 1

    def stopped(self) -> bool:
        """Whether the arm has come to a stop."""
        return self.state is not None and self.state.state == ExecutionState.STOPPED

    def _on_clock(self, message: Clock) -> None:
        self.ticks.append(time.monotonic())

    def _on_state(self, message: ExecutionState) -> None:
        self.state = message

    def _on_setpoint(self, message: JointTrajectory) -> None:
        self.arrivals.append(time.monotonic())
        stamp = seconds(message.header.stamp)
        self.stamps.append(stamp)
        point = message.points[0]
        at = stamp + seconds(point.time_from_start)
        self._due.append((at, self._kinematics.forward(point.positions).position))

    def _on_joints(self, message: JointState) -> None:
        """The tip against the setpoints' path at the time of the joint state."""
        stamp = seconds(message.header.stamp)
        times = [t for t, _ in self._due]
        if len(times) < 2 or not times[0] <= stamp <= times[-1]:
            return
        places = np.array([place for _, place in self._due])
        due = np.array([np.interp(stamp, times, places[:, axis]) for axis in range(3)])
        tip = self._kinematics.forward(message.position[: len(self.robot.joints)]).position
        self.errors.append(float(np.linalg.norm(tip - due)))


def robot_at(rate: float, folder: Path) -> str:
    """The WidowX's description with another control rate, as a file."""
    content = yaml.safe_load(resource("config/robots/widowx_250s.yaml").read_text())
    content["control_rate"] = rate
    path = folder / "widowx_250s.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def prioritised(node: NodeSpec, priority: int) -> NodeSpec:
    """The node with a real-time priority, if it is the arm or the robot."""
    if node.name not in ("arm", "sim"):
        return node
    return replace(node, parameters={**node.parameters, "realtime_priority": priority})


def wait(watch: Watch, supervisor: Supervisor, done: object, patience: float) -> None:
    """Spin until `done()` is true; SystemExit when a process dies or it takes too long."""
    deadline = time.monotonic() + patience
    while not done():  # type: ignore[operator]
        supervisor.poll(0.0)
        if supervisor.ended:
            raise SystemExit(str(supervisor.ended[0]))
        if time.monotonic() > deadline:
            raise SystemExit(f"the graph did not get going in {patience:.0f} s")
        watch.spin()


def measure(watch: Watch, supervisor: Supervisor, args: argparse.Namespace) -> None:
    """Send an instruction every ten seconds and watch."""
    wait(
        watch,
        supervisor,
        lambda: watch.state is not None and watch.reset.service_is_ready(),
        PATIENCE,
    )
    measured, scene = 0.0, 0
    while measured < args.seconds:
        request = ResetScene.Request(seed=args.seed + scene)
        future = watch.reset.call_async(request)
        wait(watch, supervisor, future.done, 20.0)
        scene, before = scene + 1, watch.chunks
        watch.instruct.publish(String(data=future.result().instruction))
        wait(watch, supervisor, lambda: watch.chunks > before + 2, PATIENCE)  # noqa: B023
        watch.arrivals.append(np.nan)  # a gap that counts for nothing
        watch.stamps.append(np.nan)
        span = min(10.0, args.seconds - measured)
        deadline = time.monotonic() + span
        wait(watch, supervisor, lambda: time.monotonic() > deadline, span + 60.0)  # noqa: B023
        measured += span
        watch.instruct.publish(String(data=""))
        wait(watch, supervisor, watch.stopped, 20.0)
        watch.arrivals.append(np.nan)
        watch.stamps.append(np.nan)


def report(watch: Watch, args: argparse.Namespace) -> None:
    """Print what was measured."""
    gaps = np.diff(watch.arrivals)
    gaps = gaps[np.isfinite(gaps)]
    stamped = np.diff(watch.stamps)
    stamped = stamped[np.isfinite(stamped) & (stamped > 0)]
    jitter = 1e3 * np.abs(gaps - 1.0 / args.rate)
    ticks = 1e3 * np.abs(np.diff(watch.ticks) - TICK)
    errors = 1e3 * np.array(watch.errors)
    rate, robot_rate = len(gaps) / gaps.sum(), len(stamped) / stamped.sum()
    load = os.getloadavg()[0]
    print(
        f"{args.rate:.0f} Hz asked for, {len(gaps)} setpoints, cores {args.cores}, load {load:.1f}"
    )
    print(f"  setpoints a second, wall / robot's time  {rate:.1f} / {robot_rate:.1f}")
    print(f"  jitter p50 / p99 / most, ms              {_three(jitter)}")
    print(f"  the simulator's clock, the same          {_three(ticks)}")
    print(f"  tip against its setpoints, mm            {_three(errors)}")
    print(f"  chunks from the policy                   {watch.chunks}")


def _three(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} / {np.percentile(values, 99):.2f} / {values.max():.2f}"


def main() -> None:
    """Bring the graph up, watch, report."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rate", type=float, default=100.0, help="Hz, control rate")
    parser.add_argument("--seconds", type=float, default=20.0, help="to measure")
    parser.add_argument("--cores", default="0,1", help="that everything shares")
    parser.add_argument("--priority", type=int, default=20, help="real-time; 0: none")
    parser.add_argument("--checkpoint", default=str(resource(DEFAULT_CHECKPOINT)))
    parser.add_argument("--seed", type=int, default=11, help="of the first scene")
    args = parser.parse_args()
    os.sched_setaffinity(0, {int(core) for core in args.cores.split(",")})
    os.environ.update(environment())
    with tempfile.TemporaryDirectory() as folder:
        robot = robot_at(args.rate, Path(folder))
        nodes = graph(Options(robot=robot, checkpoint=args.checkpoint, seed=args.seed))
        chosen = [prioritised(node, args.priority) for node in nodes if node.name in NODES]
        specs = processes(chosen, "")
        with Supervisor(specs, lambda name, line: None) as supervisor:
            supervisor.start()
            rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
            watch = Watch()
            print(f"this watch: {go_first(args.priority)}")
            measure(watch, supervisor, args)
            report(watch, args)
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
