"""What all tests share: a quiet, private environment, and the quick tests first."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

# Before anything imports rclpy, numpy's BLAS or torch; children inherit it. The domain is this
# run's own, among those whose ports lie below the ephemeral ones.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
# Participants that come and go by the hundred in one process meet dead ones' shared memory, and may
# then never hear of each other. A graph's processes have their own profile, with shared memory.
os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "osmesa")  # read when a test imports MuJoCo first
os.environ.setdefault("LP_NUM_THREADS", "1")

# How long one example takes says nothing on a busy machine.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

# A background job of a script starts with Ctrl-C ignored, and its children inherit that; a handler
# of our own they do not.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("integration") is not None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests have measured: what they gave to `record_property`."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"measured: {name}: {value}")
