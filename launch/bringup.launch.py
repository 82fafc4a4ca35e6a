"""The graph of one robot; what is in it is said in internvla_ros/bringup.py.

ros2 launch internvla_ros bringup.launch.py robot:=widowx_250s sim:=mujoco
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from internvla_ros.bringup import graph
from internvla_ros.nodes.launching import describe

if TYPE_CHECKING:
    from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Every option is a launch argument."""
    return describe(graph)
