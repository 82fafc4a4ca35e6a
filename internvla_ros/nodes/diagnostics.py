"""Reporting a node's health on /diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from internvla_ros.nodes.qos import EVENTS

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Health:
    """How a node is: a level, one line, and numbers by name."""

    level: bytes
    message: str
    values: Mapping[str, str] = field(default_factory=dict)


class Diagnostics:
    """Publishes what `check` says once a period (s), also while a simulated clock stands still."""

    def __init__(self, node: Node, check: Callable[[], Health], period: float = 1.0) -> None:
        self._node = node
        self._check = check
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", EVENTS)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(period, self.publish, clock=steady)

    def publish(self) -> None:
        """Say it now, between the times when it is said anyway."""
        health = self._check()
        status = DiagnosticStatus(
            level=health.level,
            name=self._node.get_fully_qualified_name().lstrip("/"),
            message=health.message,
            values=[KeyValue(key=k, value=v) for k, v in health.values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
