"""What planner_node and actor_node share: loading their part of a policy and picking its views."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from internvla_ros.model.actor import Actor
from internvla_ros.model.config import PolicyConfig
from internvla_ros.model.planner import Planner
from internvla_ros.msg import CameraViews
from internvla_ros.nodes.converters import ConversionError, image_to_rgb

Part = TypeVar("Part", Planner, Actor)


class PolicyError(RuntimeError):
    """There is no policy to run."""


def load(part: type[Part], checkpoint: str, device: str) -> Part:
    """One part of the policy in a checkpoint folder, and no weight of the other, on a device.

    Raises:
        PolicyError: no checkpoint is named.
        CheckpointError: it cannot be loaded.
    """
    if not checkpoint:
        raise PolicyError("parameter 'checkpoint' is empty; give the folder of a policy")
    return part.from_pretrained(checkpoint, device)


def views_for(config: PolicyConfig, views: CameraViews) -> list[NDArray[np.uint8]]:
    """The pictures, uint8 [h, w, 3] RGB, of the policy's cameras in its order.

    Raises:
        ConversionError: a camera is missing, or an image cannot be read.
    """
    names = list(views.names)
    missing = [name for name in config.cameras if name not in names]
    if missing:
        raise ConversionError(
            f"camera_views lacks {', '.join(missing)}, which the policy needs; "
            f"it has {', '.join(names) or 'no cameras'}"
        )
    return [image_to_rgb(views.images[names.index(name)]) for name in config.cameras]
