"""Demonstrations on LIBERO as LeRobot data sets: replayed trials, and LIBERO's own HDF5 files.

Actions are as LIBERO's own: six inputs of its pose controller (1 stands for 0.05 m or 0.5 rad a
step) and the gripper, here 0 closed and 1 open, so that a policy trained on them is evaluated like
the released ones. Pictures are turned by 180 degrees.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.episode import Episode
from internvla_ros.data.lerobot.layout import DatasetError
from internvla_ros.data.lerobot.writer import EpisodeWriter
from internvla_ros.evaluate.libero.conventions import (
    CAMERAS,
    CONTROL_RATE,
    GRIPPER,
    gripper_opening,
    turned,
    turned_pixels,
)
from internvla_ros.evaluate.libero.expert import goal_of
from internvla_ros.evaluate.libero.trial import Trial, proprioception
from internvla_ros.motion.se3 import rot6d, rotvec_to_matrix

Array = NDArray[np.float64]

VIEWS = dict(zip(("front", "wrist"), CAMERAS, strict=True))
"""Our names of LIBERO's cameras."""
MAX_OBJECTS = 12
ROBOT_TYPE = "libero_panda"
FINGER_TRAVEL = 0.04  # m
UNKNOWN = "unknown"
"""Object of tasks whose files do not say what is where."""
_NUMBER = re.compile(r"_\d+$")


def open_writer(root: Path) -> EpisodeWriter:
    """A data set for such demonstrations, new or to be continued; raises DatasetError."""
    return EpisodeWriter(root, CONTROL_RATE, tuple(VIEWS), ROBOT_TYPE, MAX_OBJECTS)


def add(root: Path, episode: Episode) -> bool:
    """Add an episode to a data set unless it is in there; whether it was added."""
    with open_writer(root) as writer:
        if episode.seed in writer.seeds:
            return False
        writer.write(episode)
    return True


def from_replay(suite: str, trial: Trial, frames: Sequence[dict[str, Any]]) -> Episode:
    """The episode of a trial that was replayed with all of its objects located.

    Args:
        suite: LIBERO's name of it, of which the episode's seed is made, with task and trial.
        trial: an achieved one.
        frames: one before each action.
    """
    names = list(trial.facts["extents"])
    goal = goal_of(trial.facts["goal"], names)
    called = in_words(names)
    boxes = np.array([frame["annotation"]["boxes"] for frame in frames])
    corners = turned_pixels(boxes.reshape(*boxes.shape[:2], 2, 2))
    centres = turned_pixels([frame["annotation"]["centres"] for frame in frames])
    base = trial.facts["base"]
    return Episode(
        images={
            name: np.stack([turned(frame["images"][camera]) for frame in frames])
            for name, camera in VIEWS.items()
        },
        state=np.array([proprioception(base, frame["state"]) for frame in frames]),
        action=np.array((trial.wanted or trial.executed)[: len(frames)]),
        # Turning exchanges left and right, of a box too.
        boxes=np.concatenate(
            [
                corners[..., 1, :1],
                corners[..., 0, 1:],
                corners[..., 0, :1],
                corners[..., 1, 1:],
            ],
            axis=-1,
        ),
        pick_point=centres[:, names.index(goal.pick)],
        place_point=centres[:, names.index(goal.place)],
        tip_pixel=turned_pixels([frame["annotation"]["tip"] for frame in frames]),
        timestamps=np.arange(len(frames)) / CONTROL_RATE,
        instruction=trial.instruction,
        pick=called[goal.pick],
        place=called[goal.place],
        relation=goal.relation,
        objects=tuple(called[name] for name in names),
        seed=_identity(f"{suite}/{trial.task}/{trial.number}"),
        success=True,
    )


def in_words(names: Sequence[str]) -> dict[str, str]:
    """LIBERO's names of a scene's objects as words: "alphabet_soup_1" is "alphabet soup".

    The number stays where it tells two things apart: "akita black bowl 1" and "akita black bowl 2".
    """
    kinds = {name: _NUMBER.sub("", name) for name in names}
    several = {kind for kind, count in Counter(kinds.values()).items() if count > 1}
    return {
        name: (name if kind in several else kind).replace("_", " ") for name, kind in kinds.items()
    }


def read_hdf5(path: Path) -> Iterator[Episode]:
    """The demonstrations in one of LIBERO's own files.

    The files do not say where objects are (boxes and points are NaN) nor where the robot's base
    is: positions of the tip stay in LIBERO's world frame.

    Raises:
        DatasetError: the file is missing, damaged or of another kind.
        ImportError: h5py is not installed.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = file["data"]
            info = json.loads(data.attrs["problem_info"])
            instruction = "".join(info["language_instruction"]).strip().strip('"')
            for name in sorted(data, key=lambda name: int(name.removeprefix("demo_"))):
                yield _recorded(data[name], instruction, f"{Path(path).stem}/{name}")
    except (OSError, KeyError, ValueError) as error:
        raise DatasetError(f"{path} is no demonstration file of LIBERO: {error}") from error


def _recorded(demo: Any, instruction: str, identity: str) -> Episode:
    """One recorded demonstration."""
    seen = demo["obs"]
    actions = np.array(demo["actions"], np.float64)
    count = len(actions)
    actions[:, GRIPPER] = gripper_opening(actions[:, GRIPPER])
    rotations = np.array([rot6d(rotvec_to_matrix(r)) for r in np.asarray(seen["ee_ori"])])
    opening = np.abs(np.asarray(seen["gripper_states"])).mean(axis=1) / FINGER_TRAVEL
    state = [np.asarray(seen["ee_pos"]), rotations, np.clip(opening, 0.0, 1.0)[:, None]]
    nowhere = np.full((count, 2), np.nan)
    return Episode(
        images={
            "front": np.stack([turned(image) for image in np.asarray(seen["agentview_rgb"])]),
            "wrist": np.stack([turned(image) for image in np.asarray(seen["eye_in_hand_rgb"])]),
        },
        state=np.concatenate(state, axis=1),
        action=actions,
        boxes=np.full((count, 1, 4), np.nan),
        pick_point=nowhere,
        place_point=nowhere,
        tip_pixel=nowhere,
        timestamps=np.arange(count) / CONTROL_RATE,
        instruction=instruction,
        pick=UNKNOWN,
        place=UNKNOWN,
        relation="on",
        objects=(UNKNOWN,),
        seed=_identity(identity),
        success=True,
    )


def _identity(text: str) -> int:
    """A number that tells apart what a data set's episodes were made from."""
    return zlib.crc32(text.encode())
