"""`internvla up`: bring the graph up, one process a node, and keep it up."""

from __future__ import annotations

import argparse
import sys

from internvla_ros.bringup import SIMULATORS, Options, environment, graph
from internvla_ros.nodes.console import Console
from internvla_ros.nodes.preflight import check_policy
from internvla_ros.nodes.signals import interruptible, patient
from internvla_ros.nodes.supervisor import Supervisor, processes
from internvla_ros.robots.embodiment import robot_choices

_DIED = 1
_POLL = 0.2  # s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("--robot", default="widowx_250s", help=robot_choices())
    parser.add_argument(
        "--sim", default="mujoco", choices=SIMULATORS, help="none: drivers run elsewhere"
    )
    parser.add_argument("--checkpoint", default="", metavar="DIR", help="default: the one shipped")
    parser.add_argument(
        "--policy",
        default="local",
        metavar="URL",
        help="ws://host:port of 'internvla serve', rather than the checkpoint in this machine",
    )
    parser.add_argument("--namespace", default="", help="of all nodes, e.g. /left")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene and of the policy")
    parser.add_argument("--real-time-factor", type=float, default=1.0, help="of the simulator")
    parser.add_argument(
        "--no-respawn", action="store_true", help="end when a node dies, rather than restart it"
    )
    parser.add_argument(
        "--no-markers", action="store_true", help="no annotated pictures, markers and frames"
    )
    parser.add_argument("--rviz", action="store_true", help="start RViz with the robot's layout")
    parser.add_argument(
        "--record", default="", metavar="DIR", help="keep a bag and a film of every task there"
    )
    parser.add_argument("--dashboard", action="store_true", help="offer a web page of it all")
    parser.add_argument(
        "--dashboard-host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="that the page listens on; others than this machine's own ask for a token",
    )
    parser.add_argument(
        "--dashboard-port", type=int, default=8080, help="of the page, or the next free one"
    )


def run(args: argparse.Namespace) -> int:
    """Run the graph until Ctrl-C (status 0) or until a node dies for good (status 1)."""
    checkpoint = check_policy(args.robot, args.policy, args.checkpoint)
    options = Options(
        robot=args.robot,
        sim=args.sim,
        policy=args.policy,
        checkpoint=checkpoint,
        namespace=args.namespace,
        seed=args.seed,
        real_time_factor=args.real_time_factor,
        respawn=not args.no_respawn,
        markers=not args.no_markers,
        rviz=args.rviz,
        record=args.record,
        dashboard=args.dashboard,
        dashboard_host=args.dashboard_host,
        dashboard_port=args.dashboard_port,
    )
    nodes = graph(options)
    specs = processes(nodes, options.namespace)
    console = Console(sys.stdout, [node.name for node in nodes])
    supervisor = Supervisor(specs, console.line, environment())
    with interruptible():
        try:
            supervisor.start()
            while not supervisor.ended:
                supervisor.poll(_POLL)
        except KeyboardInterrupt:
            return 0
        finally:
            with patient():
                supervisor.stop()
    print(f"internvla up: {supervisor.ended[0]}", file=sys.stderr)
    return _DIED
