"""A robot's URDF, made from its xacro file."""

from __future__ import annotations

from functools import lru_cache

import xacro

from internvla_ros.resources import ResourceError, resource


class DescriptionError(ValueError):
    """A robot description does not exist or cannot be expanded."""


@lru_cache(maxsize=8)
def urdf(name: str, **arguments: str) -> str:
    """The URDF (XML text) of the robot `name`, from `urdf/NAME.urdf.xacro`.

    Args:
        name: of a robot.
        arguments: of the xacro file, such as `hardware` (see `urdf/control.xacro`).
    """
    try:
        path = resource(f"urdf/{name}.urdf.xacro")
    except ResourceError as error:
        raise DescriptionError(f"no description of robot {name!r}: {error}") from error
    try:
        document = xacro.process_file(str(path), mappings=arguments)
    except (xacro.XacroException, OSError) as error:
        raise DescriptionError(f"{path}: xacro cannot expand it: {error}") from error
    return str(document.toprettyxml(indent="  "))
