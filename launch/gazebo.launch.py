"""Gazebo with worlds/tabletop.sdf and one robot in it: controllers, cameras and clock in ROS.

ros2 launch internvla_ros gazebo.launch.py robot:=franka_fr3 window:=true
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from internvla_ros.bringup import Options, gazebo_graph
from internvla_ros.nodes.launching import describe

if TYPE_CHECKING:
    from launch import LaunchDescription

ARGUMENTS = ("robot", "namespace", "window")


def generate_launch_description() -> LaunchDescription:
    """No node of this package is started."""
    return describe(gazebo_graph, ARGUMENTS, Options(sim="gazebo"), policy=False)
