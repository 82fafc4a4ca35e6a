#!/usr/bin/env python3
"""Make a virtual environment that holds the ROS 2 Jazzy wheels behave as /opt/ros/jazzy does.

The wheels carry the files of a ROS 2 installation but for two things, which this script mends:

- their CMake files name paths of the machine that built them: replaced by those of this one;
- they have no setup files: written here, so that colcon finds and chains to the prefix.

Run it with the environment's own Python, after every installation of wheels. It may run again.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

SETUP_SH = """\
# Sets the ROS 2 environment of this prefix; written by scripts/mend_ros_wheels.py.
_internvla_prefix='{prefix}'
_internvla_prepend() {{
  eval "_internvla_value=\\"\\${{$1:-}}\\""
  case ":$_internvla_value:" in
    *":$2:"*) ;;
    *) export "$1=$2${{_internvla_value:+:$_internvla_value}}" ;;
  esac
}}
export ROS_VERSION=2 ROS_PYTHON_VERSION=3 ROS_DISTRO=jazzy
# Without it every Python of this prefix would start itself again to set LD_LIBRARY_PATH.
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
{libraries}
_internvla_prepend LD_LIBRARY_PATH "$_internvla_prefix/lib"
_internvla_prepend CMAKE_PREFIX_PATH "$_internvla_prefix"
_internvla_prepend AMENT_PREFIX_PATH "$_internvla_prefix"
_internvla_prepend PATH "$_internvla_prefix/bin"
unset _internvla_prefix _internvla_value
unset -f _internvla_prepend
"""


def replacements(prefix: Path, site_packages: Path) -> list[tuple[re.Pattern[str], str]]:
    """What to replace by what in the CMake files; RuntimeError if a part of `prefix` is missing."""
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        raise RuntimeError(
            f"no Python.h in {include}: install this Python's headers "
            f"(Debian and Ubuntu: python{sys.version_info[0]}.{sys.version_info[1]}-dev)"
        )
    tinyxml = sorted(site_packages.glob("ros_fastrtps.libs/libtinyxml2-*.so*"))
    if not tinyxml:
        raise RuntimeError(f"the ROS 2 wheels are not installed in {prefix}: no libtinyxml2 there")
    numpy = next(site_packages.glob("numpy/_core/include"), None)
    if numpy is None:
        raise RuntimeError(f"numpy is not installed in {site_packages}")
    python = r"/opt/python/cp3\d+-cp3\d+"
    return [
        (re.compile(python + r"/lib/python3\.\d+/site-packages/numpy/_core/include"), str(numpy)),
        (re.compile(python + r"/include/python3\.\d+"), str(include)),
        (re.compile(r"/usr/lib64/libtinyxml2\.so"), str(tinyxml[0])),
    ]


def mend_cmake_files(prefix: Path, site_packages: Path) -> int:
    """Replace the build machine's paths under `prefix`/share; return how many files changed."""
    rules = replacements(prefix, site_packages)
    changed = 0
    for path in sorted((prefix / "share").rglob("*.cmake")):
        old = path.read_text(encoding="utf-8", errors="surrogateescape")
        new = old
        for pattern, text in rules:
            new = pattern.sub(lambda _, text=text: text, new)  # type: ignore[misc]
        if new != old:
            path.write_text(new, encoding="utf-8", errors="surrogateescape")
            changed += 1
    return changed


def write_setup_files(prefix: Path, site_packages: Path) -> None:
    """Write setup.* and local_setup.* into `prefix`."""
    libraries = "\n".join(
        f'_internvla_prepend LD_LIBRARY_PATH "{directory}"'
        for directory in sorted(site_packages.glob("ros_*.libs"))
    )
    (prefix / "local_setup.sh").write_text(SETUP_SH.format(prefix=prefix, libraries=libraries))
    for name in ("setup.sh", "setup.bash", "setup.zsh", "local_setup.bash", "local_setup.zsh"):
        (prefix / name).write_text(f". '{prefix}/local_setup.sh'\n")


def main() -> int:
    prefix = Path(sys.prefix)
    site_packages = Path(sysconfig.get_path("purelib"))
    if sys.prefix == sys.base_prefix:
        print("mend_ros_wheels.py: run it with a virtual environment's Python", file=sys.stderr)
        return 2
    try:
        changed = mend_cmake_files(prefix, site_packages)
    except RuntimeError as error:
        print(f"mend_ros_wheels.py: {error}", file=sys.stderr)
        return 2
    write_setup_files(prefix, site_packages)
    print(f"ROS 2 prefix {prefix}: {changed} CMake files mended, setup.bash written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
