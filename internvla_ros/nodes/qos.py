"""Quality of service, one profile a kind of topic."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(
    depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy
) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability
    )


SENSOR_OUT = _profile(5, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""What sensors are published with: reliable, so that every kind of subscriber matches."""

SENSOR_IN = _profile(5, ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
"""What sensors are subscribed with: best effort, so that every driver matches."""

NEWEST = _profile(1, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""Between our own nodes where only the newest counts: views, plans, chunks, setpoints."""

EVENTS = _profile(10, ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE)
"""Where each message counts: predictions, states, diagnostics."""

LATCHED = _profile(1, ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
"""Where a late subscriber gets the last value: the instruction, the task's success."""

CLOCK = _profile(1, ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE)
"""/clock, as rclcpp publishes and subscribes it."""
