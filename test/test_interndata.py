"""InternData-M1: what its annotations mean, what is missing said, and no pickle believed."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from internvla_ros.data.grounding import conversation
from internvla_ros.data.interndata import InternDataset
from internvla_ros.data.lerobot import DatasetError, video
from internvla_ros.data.pickles import PickleError
from internvla_ros.spatial.text import parse

SAMPLE = Path(__file__).resolve().parents[2] / "shared/data/interndata_m1_sample"
FRAMES = 6
CAMERAS = ("base_view", "ego_view")
PARQUET = "data/chunk-000/episode_000000.parquet"
BOX = [("semanticId", "<u4"), *((f"{a}_{b}", "<i4") for b in ("min", "max") for a in "xy")]
NUMBERS = {
    "state.eef_position": 3,
    "state.eef_quaternion": 4,
    "state.gripper_width": 6,
    "action.eef_position": 3,
    "action.eef_quaternion": 4,
    "action.gripper_close": 1,
}
TASK = {"frame_status": {"0/pre_grasp": 0, "0/grasp": 2, "1/place": 4}}


def boxes_at(row: int) -> np.ndarray:
    """The ground, the pick object (not seen in the last frame) and the place object."""
    rows = [(0, 0, 0, 63, 47), (4, 10 + row, 12, 19 + row, 21), (5, 30, 20, 63, 40)]
    return np.array(rows if row < FRAMES - 1 else [rows[0], rows[2]], BOX)


def keypoints_at(row: int) -> np.ndarray:
    """Eleven points of which 1 and 6 have (10 + 2 row, 5) between them."""
    points = np.full((11, 2), -99.0)
    points[[1, 6]] = [[8 + 2 * row, 4], [12 + 2 * row, 6]]
    return points


def annotations(row: int) -> dict[str, Any]:
    labels = {"0": "defaultgroundplane", "4": "uid-cup", "5": "uid-box"}
    told: dict[str, Any] = {
        "pick_obj_uid": "uid-cup",
        "place_obj_uid": "uid-box",
        "tcp_3d_trace": np.zeros((11, 3)),
        "rewrite_instructions": {"rewrite_instructions": {"attr": ["Stack the red cup"]}},
    }
    for camera in CAMERAS:
        told[f"{camera}.tcp_2d_trace"] = keypoints_at(row)
        told[f"{camera}.bbox2d_tight"] = boxes_at(row)
        told[f"{camera}.bbox2d_tight_id2labels"] = {k: {"class": v} for k, v in labels.items()}
    return told


def numbers_at(row: int) -> dict[str, list[float]]:
    """A hand that turns by 0.1 rad a frame about z, each command one frame ahead."""
    angles = {"state": 0.05 * row, "action": 0.05 * (row + 1)}
    values: dict[str, list[float]] = {}
    for owner, half in angles.items():
        values[f"{owner}.eef_quaternion"] = [np.cos(half), 0, 0, np.sin(half)]
        values[f"{owner}.eef_position"] = [0.2 * half, 0.0, 0.3]
    values["state.gripper_width"] = [0.7853 if row > 2 else 0.0] + [0.0] * 5
    values["action.gripper_close"] = [1.0 if row > 2 else -1.0]
    return values


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One episode, with the video of base_view alone."""
    folder = tmp_path / "intern"
    rows = [
        numbers_at(row)
        | {f"annotation.{name}": pickle.dumps(value) for name, value in annotations(row).items()}
        | {"timestamp": row / 5, "frame_index": row}
        for row in range(FRAMES)
    ]
    features: dict[str, Any] = {
        name: {"dtype": "binary" if "annotation" in name else "float64", "shape": [1]}
        for name in rows[0]
    }
    features |= {f"video.{c}": {"dtype": "video", "shape": [48, 64, 3]} for c in CAMERAS}
    info = {
        "codebase_version": "v2.1",
        "total_episodes": 1,
        "chunks_size": 1000,
        "fps": 5,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "features": features,
    }
    task = "Move the cup to the top of the box."
    episode = {"episode_index": 0, "tasks": [task], "length": FRAMES, "task_data": TASK}
    for name in ("meta", "data/chunk-000"):
        (folder / name).mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    (folder / "meta/episodes.jsonl").write_text(json.dumps(episode) + "\n")
    (folder / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": task}) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), folder / PARQUET)
    pictures = np.arange(FRAMES, dtype=np.uint8)[:, None, None, None] * 30
    pictures = np.broadcast_to(pictures, (FRAMES, 48, 64, 3))
    video.encode(folder / "videos/chunk-000/video.base_view/episode_000000.mp4", pictures, 5)
    return folder


def replant(root: Path, column: str, row: int, value: bytes) -> None:
    """Put other bytes in one cell of the episode."""
    table = pq.read_table(root / PARQUET).to_pylist()
    table[row][column] = value
    pq.write_table(pa.Table.from_pylist(table), root / PARQUET)


def test_frames_hold_pictures_where_there_are_any(root: Path) -> None:
    dataset = InternDataset(root)
    assert len(dataset) == 1 and dataset.cameras == CAMERAS
    frames = list(dataset.episode(0).frames())
    assert [frame.index for frame in frames] == list(range(FRAMES))
    for row, frame in enumerate(frames):
        picture = frame.images["base_view"]
        assert picture is not None and picture.shape == (48, 64, 3)
        assert abs(int(picture[5, 5, 0]) - 30 * row) < 6
        assert frame.images["ego_view"] is None
        assert set(frame.missing) == {"ego_view"}
        assert "video.ego_view/episode_000000.mp4 does not exist" in frame.missing["ego_view"]
        np.testing.assert_allclose(frame.time, row / 5, atol=1e-6)
    assert [frame.index for frame in dataset.episode(0).frames(stride=4)] == [0, 4]


def test_boxes_include_their_last_pixel_and_not_the_ground(root: Path) -> None:
    episode = InternDataset(root).episode(0)
    boxes = episode.boxes("ego_view", 1)
    assert set(boxes) == {"uid-cup", "uid-box"}
    np.testing.assert_array_equal(boxes[episode.pick_uid], [11, 12, 21, 22])
    np.testing.assert_array_equal(boxes[episode.place_uid], [30, 20, 64, 41])
    last = list(episode.frames())[-1]
    assert np.isnan(last.box("base_view", episode.pick_uid)).all()
    with pytest.raises(ValueError, match="tight or loose, not 'wide'"):
        episode.boxes("ego_view", 0, "wide")
    with pytest.raises(DatasetError, match=r"no column 'annotation.ego_view.bbox2d_loose'"):
        episode.boxes("ego_view", 0, "loose")


def test_words_steps_and_trace(root: Path) -> None:
    episode = InternDataset(root).episode(0)
    assert episode.instructions == ("Move the cup to the top of the box.", "Stack the red cup")
    assert episode.names == ("cup", "box")
    steps = [(step.name, step.order, step.start, step.stop) for step in episode.subtasks]
    assert steps == [("pre_grasp", 0, 0, 2), ("grasp", 0, 2, 4), ("place", 1, 4, FRAMES)]
    assert episode.subtask(3) == episode.subtasks[1]
    np.testing.assert_array_equal(episode.tip("base_view")[2], [14, 5])
    trace = episode.trace("base_view", 4)
    assert trace.shape == (FRAMES, 4, 2)
    np.testing.assert_allclose(trace[2], [[14, 5], [16, 5], [18, 5], [20, 5]])


def test_numbers_follow_the_projects_conventions(root: Path) -> None:
    episode = InternDataset(root).episode(0)
    turn = [np.cos(0.4), np.sin(0.4), 0, -np.sin(0.4), np.cos(0.4), 0]
    np.testing.assert_allclose(episode.state[4], [0.04, 0, 0.3, *turn, 0], atol=1e-12)
    assert episode.state[2, 9] == 1
    np.testing.assert_allclose(episode.action[:, 5], 0.1)
    np.testing.assert_allclose(episode.action[:, 0], 0.01)
    np.testing.assert_array_equal(episode.action[:, 6], [1, 1, 1, 0, 0, 0])
    frame = next(episode.frames())
    assert set(frame.numbers) == set(NUMBERS)


def test_pictures_can_be_asked_about(root: Path) -> None:
    episode = InternDataset(root).episode(0)
    turns = conversation(episode.ground(1, "base_view"), np.random.default_rng(0), 64, 48)
    boxes = next(turn for turn in turns if "Locate their bounding boxes" in turn.question)
    assert "Your task is move the cup to the top of the box. " in boxes.question
    labels = [(box.label, box.x1) for box in parse(boxes.answer, 64, 48).boxes]
    assert labels == [("cup", 11), ("box", 30)]


def test_an_unknown_wording_is_named(root: Path) -> None:
    path = root / "meta/episodes.jsonl"
    path.write_text(path.read_text().replace("Move the cup to", "Let the cup stand at"))
    episode = InternDataset(root).episode(0)
    assert episode.names is None
    with pytest.raises(DatasetError, match=r"'Let the cup stand at .* does not say what is moved"):
        episode.ground(0, "base_view")


class Planted:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize(
    "name", ["ego_view.bbox2d_tight", "pick_obj_uid", "base_view.tcp_2d_trace"]
)
def test_a_planted_pickle_is_refused_by_name(root: Path, tmp_path: Path, name: str) -> None:
    witness = tmp_path / "executed"
    replant(root, f"annotation.{name}", 0, pickle.dumps([1, Planted(witness)]))
    episode = InternDataset(root).episode(0)
    with pytest.raises(
        PickleError, match=rf"episode_000000.parquet, annotation.{name}, row 0: .*os"
    ):
        for _ in episode.frames():
            episode.boxes("ego_view", 0)
            assert episode.pick_uid
    assert not witness.exists()


def test_what_is_no_interndata_is_refused(root: Path) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    del info["features"]["annotation.pick_obj_uid"]
    path.write_text(json.dumps(info))
    with pytest.raises(DatasetError, match="has no InternData annotations"):
        InternDataset(root)


def test_a_long_video_is_named(root: Path) -> None:
    path = root / "videos/chunk-000/video.base_view/episode_000000.mp4"
    video.encode(path, np.zeros((FRAMES + 1, 48, 64, 3), np.uint8), 5)
    with pytest.raises(
        DatasetError, match=r"episode_000000.mp4 has 7 frames where its episode has 6"
    ):
        list(InternDataset(root).episode(0).frames())


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"the sample of InternData-M1 is not at {SAMPLE}")
def test_the_published_sample() -> None:
    dataset = InternDataset(SAMPLE)
    assert [len(episode) for episode in dataset] == [412, 411, 398, 446]
    episode = dataset.episode(2)
    assert episode.names == ("potato", "cooking utensils") and not episode.missing()
    assert set(dataset.episode(0).missing()) == {"base_view", "base_view_2"}
    assert [step.name for step in episode.subtasks][:3] == ["pre_grasp", "grasp", "post_grasp"]
    closing = int(np.flatnonzero(np.diff(episode.action[:, 6]))[0]) + 1
    assert episode.subtask(closing) == episode.subtasks[1]
    turned = episode.recorded.column("action.delta_eef_rotation")
    np.testing.assert_allclose(episode.action[1:, 3:6], turned[1:], atol=1e-9)
    # While it carries the potato, the fingers are at its box in the third-person view.
    carried = 200
    box = episode.boxes("base_view", carried)[episode.pick_uid]
    tip = episode.tip("base_view")[carried]
    assert box[0] - 10 < tip[0] < box[2] + 10 and 0 < (box[1] + box[3]) / 2 - tip[1] < 40
    assert len(episode.annotation("bbox3d", 0)) > 5
