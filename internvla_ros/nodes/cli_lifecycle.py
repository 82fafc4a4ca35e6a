"""`internvla lifecycle`: look at, and change, the state of a managed node."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from internvla_ros.nodes.diagnostics import ERROR
from internvla_ros.nodes.qos import EVENTS

_TURN = 0.05  # s
_ANSWER = 10.0  # s for a node to say its state
_REASON = 2.0  # s for it to say why something failed
_FAILED = 1
_LASTING = ("unconfigured", "inactive", "active", "finalized")
TRANSITIONS = ("configure", "activate", "deactivate", "cleanup", "shutdown")


class LifecycleError(RuntimeError):
    """There is no such node, or it does not answer."""


class TransitionError(RuntimeError):
    """A node does not do what it was asked for; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The node, and what it is to do."""
    parser.description = (
        "Look at, or change, the state of a managed node: planner, actor and arm, or one of others."
    )
    parser.add_argument("node", metavar="NODE", help="its name, as planner or /left/planner")
    parser.add_argument(
        "action",
        choices=(*TRANSITIONS, "state"),
        help="configure loads, activate starts, deactivate holds, cleanup frees, shutdown is the "
        "end; state only asks",
    )
    parser.add_argument(
        "--patience", type=float, default=10.0, help="s to look for the node", metavar="S"
    )
    parser.add_argument(
        "--timeout", type=float, default=600.0, help="s for the transition", metavar="S"
    )


def run(args: argparse.Namespace) -> int:
    """Print the node's state in the end; status 1 when the transition failed, which is told."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    remote = Remote("/" + args.node.strip("/"))
    try:
        remote.find(args.patience)
        if args.action != "state":
            remote.change(args.action, args.timeout)
        print(remote.state())
        return 0
    except TransitionError as error:
        print(f"internvla lifecycle: {args.node} did not {args.action}: {error}", file=sys.stderr)
        return _FAILED
    finally:
        remote.close()
        rclpy.try_shutdown()


class Remote:
    """A managed node of another process."""

    def __init__(self, name: str) -> None:
        """`name` with its namespace, from the root."""
        self._name = name
        self._node: Node = rclpy.create_node("lifecycle_client")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._change = self._node.create_client(ChangeState, f"{name}/change_state")
        self._get = self._node.create_client(GetState, f"{name}/get_state")
        self._possible = self._node.create_client(
            GetAvailableTransitions, f"{name}/get_available_transitions"
        )
        self._node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, EVENTS
        )
        self._telling = False  # how far it is gets printed
        self._said = ""
        self._reason = ""  # why its last transition failed

    def close(self) -> None:
        """Let go of it."""
        self._executor.shutdown()
        self._node.destroy_node()

    def find(self, patience: float) -> None:
        """
        Raises:
            LifecycleError: it is not there within `patience` s.
        """
        if not self._wait(self._there, patience):
            known = ", ".join(self.others()) or "none"
            raise LifecycleError(
                f"no managed node {self._name} is seen; managed nodes that are: {known}"
            )

    def others(self) -> list[str]:
        """All managed nodes that are seen."""
        found = []
        for name, namespace in self._node.get_node_names_and_namespaces():
            with contextlib.suppress(NodeNameNonExistentError):  # it has just gone
                services = self._node.get_service_names_and_types_by_node(name, namespace)
                kind = "lifecycle_msgs/srv/ChangeState"
                found += [service for service, kinds in services if kind in kinds]
        return sorted(service.removesuffix("/change_state") for service in found)

    def state(self) -> str:
        """The label of its state."""
        response = self._answer(self._get.call_async(GetState.Request()), _ANSWER)
        return str(response.current_state.label)

    def change(self, label: str, timeout: float) -> None:
        """Have a transition done within `timeout` s; what the node says meanwhile is printed.

        Raises:
            TransitionError: it is not possible, or fails.
        """
        before = self.state()
        asked = self._possible.call_async(GetAvailableTransitions.Request())
        possible = self._answer(asked, _ANSWER)
        if label not in [each.transition.label for each in possible.available_transitions]:
            raise TransitionError(f"not possible while {before}")
        request = ChangeState.Request()
        request.transition.label = label
        self._telling, self._reason = True, ""
        succeeded = self._answer(self._change.call_async(request), timeout).success
        self._telling = False
        if not succeeded:
            self._wait(lambda: bool(self._reason), _REASON)
            raise TransitionError(self._reason or "it did not say why")

    def _there(self) -> bool:
        asked = (self._change, self._get, self._possible)
        return all(client.service_is_ready() for client in asked)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if f"/{status.name}" != self._name:
                continue
            new, self._said = status.message != self._said, status.message
            state = {value.key: value.value for value in status.values}.get("state", "")
            if status.level == ERROR:
                self._reason = status.message
            elif new and self._telling and state not in _LASTING:
                print(status.message, flush=True)

    def _answer(self, future: Future, timeout: float) -> Any:
        if not self._wait(future.done, timeout):
            raise LifecycleError(f"{self._name} did not answer within {timeout:g} s")
        return future.result()

    def _wait(self, condition: Callable[[], bool], patience: float) -> bool:
        """Whether a condition holds within `patience` s."""
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=_TURN)
        return True
