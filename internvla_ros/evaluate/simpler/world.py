"""SimplerEnv's environments, where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from internvla_ros.evaluate.simpler.tasks import Setting

Image = NDArray[np.uint8]

# How the public evaluation drives the Google robot in environments that are not ready-made.
_GOOGLE = {
    "obs_mode": "rgbd",
    "robot": "google_robot_static",
    "sim_freq": 513,
    "control_freq": 3,
    "control_mode": (
        "arm_pd_ee_delta_pose_align_interpolate_by_planner_"
        "gripper_pd_joint_target_delta_pos_interpolate_by_planner"
    ),
    "camera_cfgs": {"add_segmentation": True},
}


class SimplerMissingError(RuntimeError):
    """SimplerEnv is not installed, or its assets are not."""


class World(Protocol):
    """An environment, as the evaluation needs it."""

    def reset(self, seed: int, layout: Mapping[str, Any]) -> None:
        """Lay out a trial."""
        ...

    def instruction(self) -> str:
        """What is to be done now; it may change in tasks of several parts."""
        ...

    def picture(self) -> Image:
        """What the policy's camera sees, uint8 [h, w, 3]."""
        ...

    def step(self, action: NDArray[np.float64]) -> tuple[bool, bool]:
        """Execute one action [7]; whether the task is achieved at present, and time is up."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class SimplerWorld:
    """One of SimplerEnv's environments.

    Raises:
        SimplerMissingError: it cannot be made here.
    """

    def __init__(self, setting: Setting) -> None:
        try:
            make, self._view = _simpler_env()
            self._env = make(setting)
        except ImportError as error:
            raise SimplerMissingError(
                f"SimplerEnv is not installed in this Python ({error}): install SimplerEnv and its "
                "ManiSkill2_real2sim from their repositories, which needs a GPU with Vulkan; the "
                "policy may stay in an environment of its own, behind 'internvla serve'"
            ) from error
        except (OSError, KeyError) as error:
            raise SimplerMissingError(f"SimplerEnv lacks {setting.environment}: {error}") from error
        self._seen: Any = None

    def reset(self, seed: int, layout: Mapping[str, Any]) -> None:
        """See `World.reset`."""
        self._seen, _ = self._env.reset(seed=seed, options=dict(layout))

    def instruction(self) -> str:
        """See `World.instruction`."""
        return str(self._env.unwrapped.get_language_instruction())

    def picture(self) -> Image:
        """See `World.picture`."""
        return np.asarray(self._view(self._env.unwrapped, self._seen), np.uint8)

    def step(self, action: NDArray[np.float64]) -> tuple[bool, bool]:
        """See `World.step`."""
        self._seen, _, done, truncated, _ = self._env.step(action)
        return bool(done), bool(truncated)

    def close(self) -> None:
        """See `World.close`."""
        self._env.close()


def _simpler_env() -> tuple[Callable[[Setting], Any], Callable[[Any, Any], Any]]:
    """How to make an environment, and how to get a picture from what it observes."""
    import simpler_env
    from simpler_env.utils.env.env_builder import build_maniskill2_env
    from simpler_env.utils.env.observation_utils import get_image_from_maniskill2_obs_dict

    def make(setting: Setting) -> Any:
        if not setting.build:
            return simpler_env.make(setting.environment)
        return build_maniskill2_env(setting.environment, **_GOOGLE, **setting.build)

    return make, get_image_from_maniskill2_obs_dict
