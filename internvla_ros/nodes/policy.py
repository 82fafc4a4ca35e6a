"""What planner and actor share: loading the policy and picking its views."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from internvla_ros.model.policy import InternVLAM1
from internvla_ros.msg import CameraViews
from internvla_ros.nodes.converters import ConversionError, image_to_rgb


class PolicyError(RuntimeError):
    """There is no policy to run."""


def load_policy(checkpoint: str, device: str) -> InternVLAM1:
    """The policy of a checkpoint folder, on a device.

    Raises:
        PolicyError: no checkpoint is named.
        CheckpointError: it cannot be loaded.
    """
    if not checkpoint:
        raise PolicyError("parameter 'checkpoint' is empty; give the folder of a policy")
    return InternVLAM1.from_pretrained(checkpoint, device)


def views_for(policy: InternVLAM1, views: CameraViews) -> list[NDArray[np.uint8]]:
    """The pictures, uint8 [h, w, 3] RGB, of the policy's cameras in its order.

    Raises:
        ConversionError: a camera is missing, or an image cannot be read.
    """
    names = list(views.names)
    missing = [name for name in policy.config.cameras if name not in names]
    if missing:
        raise ConversionError(
            f"camera_views lacks {', '.join(missing)}, which the policy needs; "
            f"it has {', '.join(names) or 'no cameras'}"
        )
    return [image_to_rgb(views.images[names.index(name)]) for name in policy.config.cameras]
