"""Packages that not every ROS installation has, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from internvla_ros.motion.backend import BackendError


def optional_module(name: str, purpose: str, package: str) -> ModuleType:
    """Import a module of another ROS package.

    Args:
        name: the module, e.g. "moveit_msgs.msg".
        purpose: what it is needed for.
        package: the Debian package, without "ros-DISTRO-".
    Raises:
        BackendError: it is not installed, or does not fit this Python.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendError(
            f"{purpose} needs {name}, which cannot be imported ({error}); install it: "
            f"sudo apt install ros-jazzy-{package}, or build it in this workspace, and source it"
        ) from error
