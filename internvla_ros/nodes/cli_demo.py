"""`internvla demo`: a simulated arm carries out instructions, through the real graph."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from internvla_ros.bringup import Options, environment, graph, has_dashboard
from internvla_ros.nodes.console import Console
from internvla_ros.nodes.demo_node import DemoNode
from internvla_ros.nodes.demo_report import DemoReport, SceneReport
from internvla_ros.nodes.instruction import check_instruction
from internvla_ros.nodes.preflight import check, find_checkpoint
from internvla_ros.nodes.processes import age, cpu_seconds
from internvla_ros.nodes.screen import Screen, window_problem
from internvla_ros.nodes.shared_memory import clear_shared_memory
from internvla_ros.nodes.signals import interruptible, patient
from internvla_ros.nodes.supervisor import Supervisor, processes
from internvla_ros.robots.embodiment import robot_choices
from internvla_ros.srv import ResetScene

_DIED = 1
_INTERRUPTED = 130
_READY_PATIENCE = 180.0  # s for all nodes to come up, on a slow machine
_ANSWER_PATIENCE = 20.0  # s for a service or an action to answer
_VIDEO_SIZE = (480, 360)
_VIDEO_RATE = 10
_NICENESS = 6
_DOMAINS = 100  # ROS domain ids 1..100 are free of other uses of their ports


class DemoError(RuntimeError):
    """The demo cannot go on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--scenes", type=int, default=5, help="how many, each a fresh one")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene; then one more")
    parser.add_argument("--instruction", default="", help="for every scene; default: the scene's")
    parser.add_argument("--timeout", type=float, default=30.0, help="s for one instruction")
    parser.add_argument("--headless", action="store_true", help="open no window")
    parser.add_argument("--checkpoint", default="", metavar="DIR", help="default: the one shipped")
    parser.add_argument("--robot", default="widowx_250s", help=robot_choices())
    parser.add_argument(
        "--video", type=Path, default=Path("demo_output/demo.mp4"), help="the film of it all"
    )
    parser.add_argument(
        "--record", default="", metavar="DIR", help="keep a bag and a film of every scene there"
    )
    parser.add_argument(
        "--dashboard",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="offer a web page of it all (default: unless --headless)",
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="measurements")
    parser.add_argument(
        "--domain-id", type=int, default=None, help="ROS domain; default: one of its own"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; 0 when it came to its end, whether or not the instructions were achieved."""
    _check_arguments(args)
    checkpoint = find_checkpoint(args.checkpoint)
    check(args.robot, checkpoint)
    window = False
    if not args.headless:
        problem = window_problem()
        window = not problem
        if problem:
            print(f"no window: {problem}; the video {args.video} is the view")
    _own_domain(args.domain_id)
    options = Options(
        robot=args.robot,
        checkpoint=str(checkpoint),
        seed=args.seed,
        respawn=False,
        markers=bool(args.record),
        record=args.record,
        dashboard=_wants_dashboard(args),
    )
    with interruptible(), ExitStack() as stack:
        try:
            return _Demo(args, options, window, stack).play()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return _INTERRUPTED
        finally:
            with patient():
                stack.close()


def _check_arguments(args: argparse.Namespace) -> None:
    if args.scenes < 1:
        raise DemoError(f"--scenes is {args.scenes}; it must be at least 1")
    if args.seed < 0:
        raise DemoError(f"--seed is {args.seed}; it must not be negative")
    if not 1.0 <= args.timeout <= 3600.0:
        raise DemoError(f"--timeout is {args.timeout}; it must be between 1 and 3600 s")
    if args.instruction:
        args.instruction = check_instruction(args.instruction)


def _wants_dashboard(args: argparse.Namespace) -> bool:
    """Whether to offer the page: as asked for, else where somebody may look and it can be done."""
    if args.dashboard is not None:
        return bool(args.dashboard)
    if args.headless:
        return False
    if not has_dashboard():
        print("no web page: viser is not installed (pip install 'internvla_ros[dashboard]')")
    return has_dashboard()


def _own_domain(domain: int | None) -> None:
    """Keep the demo's graph apart from every other one on the network."""
    chosen = domain if domain is not None else 1 + os.getpid() % _DOMAINS
    os.environ["ROS_DOMAIN_ID"] = str(chosen)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


class _Demo:
    """One run of the demo; what it holds is on `stack`, to be let go of in reverse order."""

    def __init__(
        self, args: argparse.Namespace, options: Options, window: bool, stack: ExitStack
    ) -> None:
        self._args = args
        self._first_motion: float | None = None
        self._ready: float | None = None
        self._scenes: list[SceneReport] = []
        self._screen = Screen(args.video, _VIDEO_SIZE, _VIDEO_RATE, window)
        stack.callback(self._screen.close)
        nodes = graph(options)
        self._console = Console(sys.stderr, [node.name for node in nodes])
        specs = processes(nodes, options.namespace)
        os.environ.update(environment())
        clear_shared_memory()
        self._supervisor = Supervisor(specs, self._log)
        stack.callback(self._supervisor.stop)
        self._supervisor.start()
        os.nice(_NICENESS)  # drawing gives way to the graph
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.try_shutdown)
        self._node = DemoNode(self._screen)
        stack.callback(self._node.destroy_node)
        self._node.on_motion = self._note_motion
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        stack.callback(self._executor.shutdown)

    def play(self) -> int:
        """All scenes, then the summary."""
        print(f"starting {len(self._supervisor.pids())} processes")
        self._until(lambda: not self._node.missing(), _READY_PATIENCE, self._waiting_for)
        self._ready = age(os.getpid())
        print(f"ready after {self._ready:.1f} s")
        before, began = self._cpu(), time.monotonic()
        for number in range(1, self._args.scenes + 1):
            self._play_scene(number)
        wall = time.monotonic() - began
        shares = {name: (used - before[name]) / wall for name, used in self._cpu().items()}
        report = DemoReport(
            self._scenes,
            self._ready,
            self._first_motion,
            {name: round(share, 3) for name, share in shares.items()},
            str(self._args.video),
        )
        if self._args.json is not None:
            report.write_json(self._args.json)
        print(report.summary())
        return 0

    def _play_scene(self, number: int) -> None:
        """Lay a scene, have its instruction carried out, and print what happened."""
        seed = self._args.seed + number - 1
        scene = SceneReport(number, seed, self._reset(seed))
        print(f'scene {number}/{self._args.scenes} (seed {seed}): "{scene.instruction}"')
        self._node.watch(scene)
        handle = self._node.accepted(
            self._answer(self._node.send(scene.instruction, self._args.timeout), "the task node")
        )
        outcome = handle.get_result_async()
        patience = 10.0 * self._args.timeout + _READY_PATIENCE  # simulated time may run slowly
        self._until(outcome.done, patience, lambda: "the end of the instruction")
        self._node.conclude(outcome.result().result)
        self._scenes.append(scene)
        print("\n".join(scene.lines()))

    def _reset(self, seed: int) -> str:
        """Lay the scene of a seed; its instruction."""
        request = ResetScene.Request(seed=seed, instruction=self._args.instruction)
        answer = self._answer(self._node.reset_client.call_async(request), "the simulator").result()
        if not answer.success:
            raise DemoError(answer.message)
        seen = self._node.images + 2
        self._until(lambda: self._node.images >= seen, _ANSWER_PATIENCE, lambda: "images")
        return str(answer.instruction)

    def _answer(self, future: Future, whose: str) -> Future:
        self._until(future.done, _ANSWER_PATIENCE, lambda: f"an answer of {whose}")
        return future

    def _until(
        self, condition: Callable[[], bool], patience: float, awaited: Callable[[], str]
    ) -> None:
        """Work until a condition holds."""
        deadline = time.monotonic() + patience
        while not condition():
            self._supervisor.poll(0.0)
            if self._supervisor.ended:
                raise DemoError(str(self._supervisor.ended[0]))
            if time.monotonic() > deadline:
                raise DemoError(f"waited {patience:.0f} s for {awaited()} in vain")
            self._executor.spin_once(timeout_sec=0.05)

    def _waiting_for(self) -> str:
        return ", ".join(self._node.missing())

    def _note_motion(self) -> None:
        self._first_motion = age(os.getpid())
        print(f"   first arm motion {self._first_motion:.1f} s after the start")

    def _cpu(self) -> dict[str, float]:
        """CPU seconds so far of every process, the demo's own among them."""
        pids = {**self._supervisor.pids(), "demo": os.getpid()}
        return {name: cpu_seconds(pid) for name, pid in pids.items()}

    def _log(self, name: str, line: str) -> None:
        """Show where the page is, and of what else nodes print only what tells of trouble."""
        if name == "dashboard" and line.startswith("page: "):
            print(line)
        elif line.startswith(("WARN", "ERROR", "FATAL", "error", "Traceback", " ")):
            self._console.line(name, line)
