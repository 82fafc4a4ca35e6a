"""`internvla up`: bring the graph up, one process a node, and keep it up."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace

from internvla_ros.bringup import Options, check_choices, environment, graph, require_programs
from internvla_ros.nodes.console import Console
from internvla_ros.nodes.preflight import check_policy
from internvla_ros.nodes.shared_memory import clear_shared_memory
from internvla_ros.nodes.signals import interruptible, patient
from internvla_ros.nodes.supervisor import Supervisor, processes

_DIED = 1
_POLL = 0.2  # s


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One argument for each field of Options; `--no-NAME` where the default is yes."""
    for each in fields(Options):
        flag, description = each.name.replace("_", "-"), each.metadata["description"]
        if each.default is True:
            parser.add_argument(
                f"--no-{flag}", dest=each.name, action="store_false", help=f"do not {description}"
            )
        elif each.default is False:
            parser.add_argument(f"--{flag}", action="store_true", help=description)
        else:
            parser.add_argument(
                f"--{flag}",
                type=type(each.default),
                default=each.default,
                choices=each.metadata["choices"] or None,
                metavar=each.metadata["metavar"] or None,
                help=description,
            )


def run(args: argparse.Namespace) -> int:
    """Run the graph until Ctrl-C (status 0) or until a node dies for good (status 1)."""
    options = Options(**{each.name: getattr(args, each.name) for each in fields(Options)})
    check_choices(options)
    checkpoint = check_policy(options.robot, options.policy, options.checkpoint)
    options = replace(options, checkpoint=checkpoint)
    nodes = graph(options)
    require_programs(nodes)
    specs = processes(nodes, options.namespace)
    console = Console(sys.stdout, [node.name for node in nodes])
    supervisor = Supervisor(specs, console.line, environment())
    cleared = clear_shared_memory()
    if cleared.segments:
        print(f"internvla up: {cleared}", file=sys.stderr)
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
