"""InternVLA-M1 for ROS 2.

The path is extended so that a source tree in front of an installed package shares its name with
the generated messages (``internvla_ros.msg``) behind it. Every reader of a message runs this file:
keep it light.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
