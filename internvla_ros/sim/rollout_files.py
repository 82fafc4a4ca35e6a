"""Roll-outs on disk: states and scene of an episode, from which it can be drawn again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from internvla_ros.data.lerobot.layout import TEMPORARY_SUFFIX, DatasetError
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.looks import sample_look
from internvla_ros.sim.relations import Relation
from internvla_ros.sim.rollouts import Rollout
from internvla_ros.sim.task_scene import Step, TaskScene, Thing

_ARRAYS = ("positions", "states", "actions", "points", "steps")


def save_rollout(path: Path, rollout: Rollout) -> None:
    """Writes a roll-out whole or not at all; its look is left out."""
    scene = rollout.scene
    said = {
        "family": scene.family,
        "things": [asdict(thing) for thing in scene.things],
        "steps": [asdict(step) for step in scene.steps],
        "goals": [asdict(goal) for goal in scene.goals],
        "instruction": scene.instruction,
        "phases": rollout.phases,
        "mishaps": rollout.mishaps,
    }
    arrays = {name: getattr(rollout, name) for name in _ARRAYS}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    with temporary.open("wb") as file:
        np.savez_compressed(file, scene=json.dumps(said), start=scene.start, **arrays)
    os.replace(temporary, path)


def load_rollout(path: Path, embodiment: Embodiment) -> Rollout:
    """Reads a roll-out of this robot, under the plainest of looks.

    Raises:
        DatasetError: the file is missing, damaged, or of another robot.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            said = json.loads(str(stored["scene"]))
            arrays: dict[str, Any] = {name: stored[name] for name in _ARRAYS}
            start = stored["start"]
        if start.shape != (len(embodiment.joints),):
            raise DatasetError(f"{path} is of an arm with {len(start)} joints")
        scene = _scene(said, start, embodiment)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} cannot be read as a roll-out: {error}") from error
    return Rollout(scene, **arrays, phases=tuple(said["phases"]), mishaps=int(said["mishaps"]))


def _scene(said: dict[str, Any], start: Any, embodiment: Embodiment) -> TaskScene:
    things = tuple(Thing(**{**row, "size": tuple(row["size"])}) for row in said["things"])
    steps = tuple(Step(**{**row, "place": tuple(row["place"])}) for row in said["steps"])
    goals = tuple(Relation(row["name"], tuple(row["objects"])) for row in said["goals"])
    objects = [(thing.name, thing.colour) for thing in things]
    look = sample_look(np.random.default_rng(0), embodiment, objects, "off")
    return TaskScene(said["family"], things, steps, goals, said["instruction"], start, look)
