"""The same launch test in Gazebo and in MuJoCo; skipped where launch_testing or Gazebo is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("internvla_ros.msg")

from launch_path import lack_of_launch, launch_environment
from random_policy import save_random_policy

from internvla_ros.bringup import BringupError, Options, gazebo_graph, require_programs

pytestmark = pytest.mark.integration

LAUNCH_TEST = Path(__file__).with_name("tabletop_launch.py")


def lack(sim: str) -> str:
    """What is missing for the test in a simulator; empty when nothing is."""
    missing = lack_of_launch("launch.actions", "launch_ros.actions", "launch_testing")
    if missing or sim != "gazebo":
        return missing
    try:
        require_programs(gazebo_graph(Options(sim="gazebo")))
    except BringupError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("sim", ["mujoco", "gazebo"])
def test_a_robot_on_a_table_does_as_it_is_told(sim: str, tmp_path: Path) -> None:
    if missing := lack(sim):
        pytest.skip(missing)
    policy = save_random_policy(tmp_path)
    words = [sys.executable, "-m", "launch_testing.launch_test", str(LAUNCH_TEST)]
    done = subprocess.run(
        [*words, f"sim:={sim}", f"model:={policy}"],
        env=launch_environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
