"""What makes a roll-out no example to learn from, and why."""

from __future__ import annotations

import numpy as np

from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.engine import RolloutError
from internvla_ros.sim.rollouts import Rollout
from internvla_ros.sim.state import State
from internvla_ros.sim.task_world import TaskWorld

_STIRRED = 0.020  # m that a thing without a part in the task may be moved
_FALLEN = 0.02  # m below the table
_TIMID = 0.003  # m a frame: slower than this everywhere, nothing happens
_PAUSE = 12  # frames in a row without motion, hand and arm
_BEYOND = 1.3  # of what the expert may command in a frame


def validate(world: TaskWorld, rollout: Rollout) -> None:
    """Raises RolloutError, which says why, for a roll-out that no policy should learn.

    Args:
        world: in which it just ended.
        rollout: what happened.
    """
    family = rollout.scene.family
    state = world.state()
    first = rollout.scene.first_state(world.embodiment, world.right())
    for reason in (
        _moved_others(rollout, first, state),
        _fell(state),
        _jumped(rollout, world.embodiment),
        _paused(rollout),
    ):
        if reason:
            raise RolloutError(f"{family}: {reason}")


def _moved_others(rollout: Rollout, first: State, last: State) -> str:
    steps = rollout.scene.steps
    involved = {step.pick for step in steps}
    for name, body in last.bodies.items():
        if name in involved or body.name.endswith(" handle"):
            continue
        if np.linalg.norm((body.position - first[name].position)[:2]) > _STIRRED:
            return "moved something that was to stay where it was"
    return ""


def _fell(state: State) -> str:
    low = state.table - _FALLEN
    return "something fell off the table" if any(b.top < low for b in state.bodies.values()) else ""


def _jumped(rollout: Rollout, embodiment: Embodiment) -> str:
    """The commanded tip went farther in a frame than it may."""
    most = _BEYOND * embodiment.tip_limits.speed / embodiment.policy_rate
    shift = np.linalg.norm(rollout.actions[:, :3], axis=1)
    return "the commanded motion jumps" if bool((shift > most).any()) else ""


def _paused(rollout: Rollout) -> str:
    still = np.linalg.norm(rollout.actions[:, :3], axis=1) < _TIMID
    still &= np.linalg.norm(rollout.actions[:, 3:6], axis=1) < 0.01
    still &= np.append(np.abs(np.diff(rollout.actions[:, 6])) < 1e-6, True)
    longest = run = 0
    for moment in still:
        run = run + 1 if moment else 0
        longest = max(longest, run)
    return "the arm stood still for too long" if longest > _PAUSE else ""
