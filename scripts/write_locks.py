#!/usr/bin/env python3
"""Write requirements.lock and requirements-ros.lock from what this environment has installed.

Run it with the Python of an environment that passes the tests (`make lock`). The ROS 2 wheels have
a file of their own, since a sourced ROS 2 installation stands in for them.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Written by scripts/write_locks.py ('make lock'). Installed with --no-deps.\n"
# pip belongs to the virtual environment; internvla_ros is what all this is for.
OWN = {"pip", "internvla-ros"}


def pins() -> dict[str, str]:
    """Name and version of every wheel installed, without the label of a local build.

    The ROS 2 wheels leave .egg-info folders under other names than their own: not distributions
    of an index, hence not pins.
    """
    found = {}
    for distribution in metadata.distributions(path=[sysconfig.get_path("purelib")]):
        name = re.sub(r"[-_.]+", "-", distribution.name).lower()
        installed_by_pip = distribution.read_text("WHEEL") is not None
        if installed_by_pip and name not in OWN:
            found[name] = distribution.version.partition("+")[0]
    return found


def write(path: Path, chosen: dict[str, str]) -> None:
    path.write_text(HEADER + "".join(f"{name}=={chosen[name]}\n" for name in sorted(chosen)))
    print(f"{path.name}: {len(chosen)} pins")


def main() -> int:
    if sys.prefix == sys.base_prefix:
        print("write_locks.py: run it with a virtual environment's Python", file=sys.stderr)
        return 2
    found = pins()
    ros = {name: version for name, version in found.items() if name.startswith("ros-")}
    if ros:  # none where a ROS 2 installation stands in for the wheels
        write(ROOT / "requirements-ros.lock", ros)
    write(ROOT / "requirements.lock", {name: found[name] for name in found.keys() - ros.keys()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
