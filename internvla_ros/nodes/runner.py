"""Running one node in one process, with a clean end on SIGINT and SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import rclpy
from rclpy.action import ActionClient, ActionServer
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from internvla_ros.nodes.shared_memory import clear_shared_memory
from internvla_ros.respawn import START_FAILED

try:
    from rclpy.experimental import EventsExecutor
except ImportError:  # rclpy before 7.1.4
    EventsExecutor = SingleThreadedExecutor

_WAKE = 0.2  # s; how long a wait may last before the signals are looked at


class _Signals:
    """SIGINT and SIGTERM: abandon the start at once, but let a callback come to its end."""

    def __init__(self) -> None:
        self.stop = False
        self.spinning = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop = True
        if not self.spinning:
            raise KeyboardInterrupt


def run(
    make: Callable[[], Node], args: list[str] | None = None, *, coroutines: bool = False
) -> NoReturn:
    """Run a node as `serve` does and end the process with its status, at once.

    Python takes seconds to undo torch's modules on a busy machine, and a signal in that time kills
    it; nothing is left to do there.
    """
    status = serve(make, args, coroutines=coroutines)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve(
    make: Callable[[], Node], args: list[str] | None = None, *, coroutines: bool = False
) -> int:
    """Initialise ROS, make the node, spin it until a signal comes, and clean up.

    A node that holds something may have a method `close`, called before it is destroyed. One that
    starts after it was made (see `managed`) says in `failure` why it could not.

    Args:
        make: makes the node; raises ValueError, RuntimeError or OSError with one clear line when
            it cannot be made.
        args: command line with ROS arguments; None: the process's own.
        coroutines: the node's callbacks await futures. The events executor, which needs half the
            CPU time, turns without rest while one does, so that the other executor is used then.
    Returns:
        The exit status: 0 after a signal, 2 when the node could not be made or started.
    """
    signals = _Signals()
    node: Node | None = None
    try:
        clear_shared_memory()
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make()
        signals.spinning = True
        _spin(node, SingleThreadedExecutor() if coroutines else EventsExecutor(), signals)
    except KeyboardInterrupt:
        return 0
    except (ValueError, RuntimeError, OSError) as error:
        if node is not None:
            raise
        return _failed(str(error))
    finally:
        signals.spinning = True
        _shut_down(node)
    failure = _failure(node)
    return _failed(failure) if failure else 0


def _failed(reason: str) -> int:
    """Say why there is no node; the exit status."""
    print(f"error: {' '.join(reason.split())}", file=sys.stderr, flush=True)
    return START_FAILED


def _failure(node: Node) -> str:
    """Why a node that was made could not start."""
    return str(getattr(node, "failure", ""))


def _spin(node: Node, executor: Executor, signals: _Signals) -> None:
    executor.add_node(node)
    try:
        while rclpy.ok() and not signals.stop and not _failure(node):
            executor.spin_once(timeout_sec=_WAKE)
    finally:
        executor.remove_node(node)


def _shut_down(node: Node | None) -> None:
    if node is not None:
        close = getattr(node, "close", None)
        if callable(close):
            close()
        # rclpy leaves actions to the garbage collector, but the process ends before that: they
        # would keep the node in use, and its shared memory where it is.
        for waitable in list(node.waitables):
            if isinstance(waitable, ActionServer | ActionClient):
                waitable.destroy()
        node.destroy_node()
    rclpy.try_shutdown()
