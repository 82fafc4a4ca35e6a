"""`ros2 launch` of one file with the packages launch and launch_ros alone: FILE [NAME:=VALUE ...].

With --show it only prints the file's arguments as JSON: name -> [default, description, choices].
"""

from __future__ import annotations

import json
import sys

from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.utilities import perform_substitutions

from launch import LaunchContext, LaunchDescription, LaunchService


def main() -> int:
    """The launch's status."""
    path, *words = sys.argv[1:]
    source = PythonLaunchDescriptionSource(path)
    if words == ["--show"]:
        context = LaunchContext()
        declared = source.get_launch_description(context).get_launch_arguments()
        print(json.dumps({each.name: describe(context, each) for each in declared}))
        return 0
    arguments = [tuple(word.split(":=", 1)) for word in words]
    service = LaunchService()
    include = IncludeLaunchDescription(source, launch_arguments=arguments)
    service.include_launch_description(LaunchDescription([include]))
    return int(service.run())


def describe(context: LaunchContext, argument: object) -> list[object]:
    default = perform_substitutions(context, argument.default_value)
    return [default, argument.description, argument.choices]


if __name__ == "__main__":
    sys.exit(main())
