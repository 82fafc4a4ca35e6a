"""What we write is what LeRobot's own readers read (scripts/setup_lerobot.sh)."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_lerobot import make_episode

from internvla_ros.data.lerobot import EpisodeWriter, LeRobotDataset
from internvla_ros.data.lerobot.convert import convert

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent.parent / "build" / "lerobot"
LENGTHS = (8, 6, 9)
PATIENCE = 300.0  # s

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not (FOLDER / ".built").is_file(), reason="scripts/setup_lerobot.sh sets LeRobot up"
    ),
]


Read = dict[str, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data set in every way that we write it, v3.0 in one file and in several."""
    folder = tmp_path_factory.mktemp("lerobot")
    with EpisodeWriter(folder / "written", fps=5) as writer:
        for seed, frames in enumerate(LENGTHS):
            episode = make_episode(seed, frames)
            words = "stack it" if seed == 1 else episode.instruction
            writer.write(replace(episode, instruction=words))
    convert(folder / "written", folder / "joined", "v3.0", progress=False)
    convert(folder / "written", folder / "apart", "v3.0", data_mb=0, video_mb=0, progress=False)
    convert(folder / "joined", folder / "back", "v2.1", progress=False)
    return folder


@pytest.fixture(scope="module")
def by_lerobot(folder: Path) -> Read:
    """What LeRobot's readers, one process a version, find in each."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LD_LIBRARY_PATH", "PYTHONPATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    } | {"HF_HOME": str(folder / "cache")}
    read: Read = {}
    for version, names in (("v2.1", ("written", "back")), ("v3.0", ("joined", "apart"))):
        roots = [folder / name for name in names]
        done = subprocess.run(
            [FOLDER / "bin/python", HERE / "lerobot_reader.py", version, folder, *roots],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        for name in names:
            with np.load(folder / f"{name}.npz") as content:
                read[name] = dict(content)
    return read


@pytest.mark.parametrize("name", ["written", "back", "joined", "apart"])
def test_lerobot_reads_what_we_wrote(folder: Path, by_lerobot: Read, name: str) -> None:
    theirs = by_lerobot[name]
    ours = LeRobotDataset(folder / name)
    recorded = [ours.episode(index) for index in range(len(ours))]
    assert theirs["episodes"] == len(LENGTHS) and len(theirs["index"]) == sum(LENGTHS)
    for column in recorded[0].columns:
        values = np.concatenate([episode.columns[column] for episode in recorded])
        read = theirs[column][:, 0] if column == "action" else theirs[column]
        np.testing.assert_array_equal(read, values, err_msg=column)
    for camera in ours.cameras:
        images = np.concatenate([ours.frames(index, camera) for index in range(len(ours))])
        read = np.rint(theirs[f"observation.images.{camera}"] * 255).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(read, images)
    words = [episode.instruction for episode in recorded for _ in range(len(episode))]
    assert theirs["task"].tolist() == words
    held = theirs["action_is_pad"]
    last = np.cumsum(LENGTHS) - 1
    assert held[last].tolist() == [[False, True, True]] * 3
    actions = np.concatenate([episode.action for episode in recorded]).astype(float)
    np.testing.assert_allclose(theirs["stats/action/mean"], actions.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(theirs["stats/action/std"], actions.std(axis=0), rtol=1e-5)
