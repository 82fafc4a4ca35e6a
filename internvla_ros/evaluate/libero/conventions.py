"""What the released LIBERO client does with pictures and actions, each in a function of its own.

A policy that was trained on LIBERO's demonstrations reaches its published numbers only when it is
run as these were recorded and evaluated. Nothing here needs LIBERO.

An action of a policy has 7 components: six inputs of LIBERO's pose controller in -1..1, of which 1
stands for 0.05 m or 0.5 rad in one step of 1/20 s, and the gripper, 0 closed or 1 open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

CAMERAS = ("agentview", "robot0_eye_in_hand")
"""LIBERO's cameras in the order in which a policy is shown them."""
IMAGE_SIZE = 256
"""Width and height that pictures are rendered at, px."""
CONTROL_RATE = 20.0
"""Steps a simulated second, Hz."""
SETTLE_STEPS = 10
"""Steps without motion at the start, in which objects that were put down come to rest."""
SEED = 7
"""Of the released evaluation."""
TRIALS = 50
"""A task, in the released evaluation: all of its official initial states."""
ENSEMBLE_HORIZON = 3
"""Chunks that are blended."""
POSITION_UNIT = 0.05
ROTATION_UNIT = 0.5
"""m and rad that a controller's input of 1 stands for."""
GRIPPER = 6
GRIPPER_THRESHOLD = 0.5
OPEN = -1.0
CLOSE = 1.0


@dataclass(frozen=True)
class Suite:
    """A group of tasks.

    Attributes:
        name: LIBERO's own name of it.
        tasks: how many there are.
        max_steps: steps after which a trial has failed, those of settling not counted.
    """

    name: str
    tasks: int
    max_steps: int


SUITES = {
    "spatial": Suite("libero_spatial", 10, 220),
    "object": Suite("libero_object", 10, 280),
    "goal": Suite("libero_goal", 10, 300),
    "10": Suite("libero_10", 10, 520),
    "90": Suite("libero_90", 90, 400),
}


def settle_action() -> Array:
    """What is commanded while objects come to rest: no motion, gripper open."""
    return np.array([0.0] * GRIPPER + [OPEN])


def turned(image: Image) -> Image:
    """A rendered picture [h, w, 3], which is upside down, as policies are trained on it.

    It is turned by 180 degrees, not flipped: left and right are exchanged with respect to what a
    camera on the spot would see.
    """
    return np.ascontiguousarray(image[::-1, ::-1])


def turned_pixels(pixels: ArrayLike, size: int = IMAGE_SIZE) -> Array:
    """Pixels [..., 2] (u right, v down, of the upright scene) in the picture that `turned` gives.

    The upright scene is the rendered picture with its rows in reverse, so that only u changes.
    """
    result = np.array(pixels, np.float64)
    result[..., 0] = size - result[..., 0]
    return result


def gripper_command(opening: ArrayLike) -> Array:
    """LIBERO's gripper input, -1 open and +1 close, from a policy's 0 closed .. 1 open."""
    return np.where(np.asarray(opening) > GRIPPER_THRESHOLD, OPEN, CLOSE)


def gripper_opening(command: ArrayLike) -> Array:
    """A policy's gripper, 0 closed and 1 open, from LIBERO's input; undoes `gripper_command`."""
    return (np.asarray(command, np.float64) <= 0.0).astype(np.float64)


def controller_input(actions: ArrayLike) -> Array:
    """What LIBERO's `step` is given [..., 7] for a policy's actions [..., 7].

    The six motions are passed on as they are; the controller itself clips them to -1..1.
    """
    result = np.array(actions, np.float64)
    result[..., GRIPPER] = gripper_command(result[..., GRIPPER])
    return result
