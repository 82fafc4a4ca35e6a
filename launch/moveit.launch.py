"""MoveIt for one robot: move_group and Servo; with hardware:=mock its controllers too.

ros2 launch internvla_ros moveit.launch.py robot:=franka_fr3 hardware:=mock
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from internvla_ros.bringup import Options, moveit_graph
from internvla_ros.nodes.launching import describe

if TYPE_CHECKING:
    from launch import LaunchDescription

ARGUMENTS = ("robot", "hardware", "robot_ip", "namespace", "use_sim_time")


def generate_launch_description() -> LaunchDescription:
    """The files are those of config/moveit."""
    return describe(moveit_graph, ARGUMENTS, Options(sim="none"), policy=False)
