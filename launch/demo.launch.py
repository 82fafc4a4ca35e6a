"""A simulated robot with the shipped policy and its web page, ready to be told what to do.

ros2 launch internvla_ros demo.launch.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from internvla_ros.bringup import Options, graph, has_dashboard
from internvla_ros.nodes.launching import describe

if TYPE_CHECKING:
    from launch import LaunchDescription

ARGUMENTS = (
    "robot",
    "sim",
    "checkpoint",
    "policy",
    "seed",
    "rviz",
    "window",
    "record",
    "dashboard",
    "dashboard_port",
)


def generate_launch_description() -> LaunchDescription:
    """The web page is offered wherever what it needs is installed."""
    return describe(graph, ARGUMENTS, Options(dashboard=has_dashboard()))
