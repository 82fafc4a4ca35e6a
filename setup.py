"""Installs the ROS-free parts with pip; what is not Python goes to share/internvla_ros."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
SHARED = ("config", "urdf", "worlds", "checkpoints", "msg")


def shared_files() -> list[tuple[str, list[str]]]:
    """Folder under the prefix and files for it, as setuptools' data_files wants them."""
    files: dict[str, list[str]] = {}
    for name in SHARED:
        for path in sorted((ROOT / name).rglob("*")):
            if path.is_file():
                relative = path.relative_to(ROOT)
                files.setdefault(f"share/internvla_ros/{relative.parent}", []).append(str(relative))
    return list(files.items())


setup(data_files=shared_files())
