"""Where to act: boxes, points and traces, as values, as text and as pictures."""

from internvla_ros.spatial.forms import format as format
from internvla_ros.spatial.text import parse as parse
