"""Where launch, launch_ros and launch_testing are found: a full ROS 2, or INTERNVLA_LAUNCH_PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def launch_environment(**more: str) -> dict[str, str]:
    """For a process that imports them."""
    path = [os.environ.get("INTERNVLA_LAUNCH_PATH", ""), os.environ.get("PYTHONPATH", "")]
    joined = os.pathsep.join(filter(None, [*path, str(ROOT)]))
    return {**os.environ, "PYTHONPATH": joined, **more}


@cache
def lack_of_launch(*modules: str) -> str:
    """Why these modules cannot be imported; empty when they can."""
    words = [sys.executable, "-c", f"import {', '.join(modules)}"]
    done = subprocess.run(words, env=launch_environment(), capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"{reason}: a full ROS 2 has it, or the folder INTERNVLA_LAUNCH_PATH"
