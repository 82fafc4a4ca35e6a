"""The LeRobot v2.1 writer and reader: fidelity, resuming, and errors that name their cause."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from internvla_ros.data.episode import Episode, EpisodeError
from internvla_ros.data.lerobot import DatasetError, EpisodeWriter, LeRobotDataset
from internvla_ros.data.trace import future_waypoints

FRAMES = 12
OBJECTS = ("red cube", "blue bowl", "green ball")


def make_episode(seed: int = 0, frames: int = FRAMES, size: tuple[int, int] = (64, 48)) -> Episode:
    rng = np.random.default_rng(seed)
    width, height = size
    ramp = np.linspace(0, 200, width, dtype=np.uint8)
    front = np.zeros((frames, height, width, 3), np.uint8)
    front[..., 0] = ramp
    front[..., 1] = (10 * np.arange(frames, dtype=np.uint8))[:, None, None]
    boxes = np.sort(rng.uniform(0, 40, (frames, len(OBJECTS), 2, 2)), axis=2).reshape(frames, -1, 4)
    boxes[0, 2] = np.nan
    return Episode(
        images={"front": front, "wrist": front[:, :, ::-1]},
        state=rng.normal(size=(frames, 10)),
        action=rng.normal(size=(frames, 7)),
        boxes=boxes,
        pick_point=rng.uniform(0, 40, (frames, 2)),
        place_point=rng.uniform(0, 40, (frames, 2)),
        tip_pixel=np.cumsum(rng.uniform(0, 3, (frames, 2)), axis=0),
        timestamps=np.arange(frames) * 0.2,
        instruction="put the red cube in the blue bowl",
        pick="red cube",
        place="blue bowl",
        relation="in",
        objects=OBJECTS,
        seed=seed,
        success=True,
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with EpisodeWriter(tmp_path / "set", fps=5) as writer:
        for seed in (7, 8):
            writer.write(make_episode(seed))
    return tmp_path / "set"


def test_reader_returns_what_was_written(root: Path) -> None:
    dataset = LeRobotDataset(root)
    assert len(dataset) == 2
    written, read = make_episode(8), dataset.load(1)
    for name in ("state", "action", "boxes", "pick_point", "place_point", "tip_pixel"):
        np.testing.assert_allclose(
            getattr(read, name), getattr(written, name), rtol=1e-5, err_msg=name
        )
    for name in ("instruction", "pick", "place", "relation", "objects", "seed", "success"):
        assert getattr(read, name) == getattr(written, name), name
    for camera in ("front", "wrist"):
        error = np.abs(read.images[camera].astype(int) - written.images[camera])
        assert error.mean() < 3, camera


def test_layout_follows_version_2_1(root: Path) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v2.1"
    assert info["splits"] == {"train": "0:2"}
    totals = {name: info[f"total_{name}"] for name in ("episodes", "frames", "tasks", "videos")}
    assert totals == {"episodes": 2, "frames": 2 * FRAMES, "tasks": 1, "videos": 4}
    assert (info["total_chunks"], info["chunks_size"], info["fps"]) == (1, 1000, 5)
    table = pq.read_table(root / "data/chunk-000/episode_000001.parquet")
    declared = {name for name, feature in info["features"].items() if feature["dtype"] != "video"}
    assert set(table.column_names) == declared
    assert table["index"].to_pylist() == list(range(FRAMES, 2 * FRAMES))
    np.testing.assert_allclose(table["timestamp"].to_numpy(), np.arange(FRAMES) / 5, atol=1e-6)
    for name in declared:
        first = table[name][0].as_py()
        width = len(first) if isinstance(first, list) else 1
        assert [width] == info["features"][name]["shape"], name
    assert info["features"]["observation.images.front"]["shape"] == [48, 64, 3]


def test_statistics_of_every_feature(root: Path) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    lines = (root / "meta/episodes_stats.jsonl").read_text().splitlines()
    stats = json.loads(lines[0])["stats"]
    assert set(stats) == set(info["features"])
    action = make_episode(7).action
    np.testing.assert_allclose(stats["action"]["mean"], action.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats["action"]["std"], action.std(axis=0), rtol=1e-5)
    assert stats["action"]["count"] == [FRAMES]
    image = stats["observation.images.front"]
    assert np.shape(image["mean"]) == (3, 1, 1)
    assert 0 <= np.min(image["min"]) <= np.max(image["max"]) <= 1


def test_modality_names_every_camera_and_slices(root: Path) -> None:
    modality = json.loads((root / "meta/modality.json").read_text())
    assert set(modality) == {"state", "action", "video", "annotation"}
    assert modality["video"]["wrist"] == {"original_key": "observation.images.wrist"}
    assert modality["state"]["gripper"] == {
        "start": 9,
        "end": 10,
        "original_key": "observation.state",
    }


def test_frames_are_resized_on_request(root: Path) -> None:
    frames = LeRobotDataset(root).frames(0, "front", size=(16, 20))
    assert frames.shape == (FRAMES, 20, 16, 3)
    np.testing.assert_allclose(frames[3, 10, :, 0], np.linspace(6, 194, 16), atol=8)


def test_writer_resumes_and_removes_what_was_interrupted(root: Path) -> None:
    orphan = root / "data/chunk-000/episode_000002.parquet"
    shutil.copy(root / "data/chunk-000/episode_000001.parquet", orphan)
    torn = root / "videos/chunk-000/observation.images.front/episode_000002.mp4.tmp"
    torn.write_bytes(b"half")
    with (root / "meta/episodes_stats.jsonl").open("a") as file:
        file.write('{"episode_index": 2, "stats": {}}\n')
    with (root / "meta/episodes.jsonl").open("a") as file:
        file.write('{"episode_index": 2, "ta')
    with EpisodeWriter(root, fps=5) as writer:
        assert len(writer) == 2
        assert writer.seeds == {7, 8}
        assert not orphan.exists() and not torn.exists()
        assert writer.write(make_episode(9)) == 2
    dataset = LeRobotDataset(root)
    assert len(dataset) == 3
    assert dataset.episode(2).column("index")[0] == 2 * FRAMES
    assert len((root / "meta/episodes_stats.jsonl").read_text().splitlines()) == 3
    assert not list(root.rglob("*.tmp"))


def test_failed_write_leaves_the_dataset_readable(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with EpisodeWriter(root, fps=5) as writer:
        monkeypatch.setattr("internvla_ros.data.lerobot.writer._write_parquet", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.write(make_episode(9))
    monkeypatch.undo()
    assert len(LeRobotDataset(root)) == 2
    EpisodeWriter(root, fps=5).close()
    assert len(list(root.rglob("episode_*"))) == 6


def test_second_writer_is_refused_while_one_is_open(root: Path) -> None:
    with (
        EpisodeWriter(root, fps=5),
        pytest.raises(DatasetError, match="being written by another"),
    ):
        EpisodeWriter(root, fps=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fps": 10}, "fps is 5, not 10"),
        ({"fps": 5, "cameras": ("front",)}, "cameras is"),
        ({"fps": 5, "robot_type": "panda"}, "robot_type is wx250s, not panda"),
        ({"fps": 5, "max_objects": 3}, "width of annotation.boxes"),
    ],
)
def test_resuming_another_kind_of_dataset_is_refused(
    root: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        EpisodeWriter(root, **arguments)  # type: ignore[arg-type]


def test_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"not empty \(photo.png\)"):
        EpisodeWriter(tmp_path, fps=5)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_folder_with_snapshots_alone_is_taken(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    EpisodeWriter(tmp_path, fps=5).close()
    with EpisodeWriter(tmp_path, fps=5) as writer:
        writer.write(make_episode())
    assert len(LeRobotDataset(tmp_path)) == 1


def test_episode_that_does_not_fit_is_refused_without_a_trace(root: Path) -> None:
    base = make_episode(9)
    other_size = make_episode(9, size=(32, 32))
    slow = replace(base, timestamps=np.arange(FRAMES) * 0.5)
    with EpisodeWriter(root, fps=5) as writer:
        with pytest.raises(DatasetError, match=r"camera front is 32x32 .* but 64x48"):
            writer.write(other_size)
        with pytest.raises(DatasetError, match="half a frame off 5 frames"):
            writer.write(slow)
        with pytest.raises(DatasetError, match="has no camera wrist"):
            writer.write(replace(base, images={"front": base.images["front"]}))
    assert len(list(root.rglob("episode_*"))) == 6


def test_truncated_video_names_the_file(root: Path) -> None:
    dataset = LeRobotDataset(root)
    path = dataset.video_path(1, "front")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DatasetError, match=r"observation.images.front/episode_000001.mp4"):
        dataset.frames(1, "front")
    assert dataset.episode(1).state.shape == (FRAMES, 10)


def test_shorter_video_names_both_lengths(root: Path) -> None:
    dataset = LeRobotDataset(root)
    with EpisodeWriter(root.parent / "short", fps=5) as writer:
        writer.write(make_episode(1, frames=5))
    shutil.copy(
        LeRobotDataset(root.parent / "short").video_path(0, "front"),
        dataset.video_path(0, "front"),
    )
    with pytest.raises(DatasetError, match="has 5 frames where its episode has 12"):
        dataset.frames(0, "front")


def test_columns_are_read_without_videos(root: Path) -> None:
    shutil.rmtree(root / "videos")
    dataset = LeRobotDataset(root)
    assert dataset.episode(0).trace.shape == (FRAMES, 10, 2)
    assert not dataset.has_video(0, "front")
    with pytest.raises(DatasetError, match="does not exist"):
        dataset.frames(0, "front")


def test_missing_column_names_file_and_column(root: Path) -> None:
    path = root / "data/chunk-000/episode_000000.parquet"
    pq.write_table(pq.read_table(path).drop(["action"]), path)
    with pytest.raises(DatasetError, match=r"episode_000000.parquet lacks the column action"):
        LeRobotDataset(root).episode(0)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("data/chunk-000/episode_000000.parquet", "PAR1", "cannot be read as parquet"),
        ("meta/info.json", '{"codebase_version": "v2.0"}', "codebase_version is 'v2.0'"),
        ("meta/info.json", '{"codebase_version": "v2.1"}', "lacks total_episodes"),
        ("meta/info.json", "{", "cannot be read as JSON"),
        ("meta/episodes.jsonl", "", "lists 0 episodes where meta/info.json counts 2"),
        ("meta/episodes.jsonl", "[\n", "episodes.jsonl:1 is not JSON"),
        ("meta/tasks.jsonl", '{"task": "x"}\n', "without 'task_index'"),
    ],
)
def test_damaged_files_are_named(root: Path, file: str, content: str, message: str) -> None:
    (root / file).write_text(content)
    with pytest.raises(DatasetError, match=message):
        LeRobotDataset(root).episode(0)


def test_unknown_episode_and_camera(root: Path) -> None:
    dataset = LeRobotDataset(root)
    with pytest.raises(DatasetError, match="episodes 0 to 1, not 2"):
        dataset.episode(2)
    with pytest.raises(DatasetError, match="no camera 'side', only front, wrist"):
        dataset.frames(0, "side")
    with pytest.raises(DatasetError, match="is not a folder"):
        LeRobotDataset(root / "nowhere")


def test_future_waypoints_are_evenly_spaced() -> None:
    path = np.array([[0.0, 0.0], [0.0, 0.0], [30.0, 0.0], [30.0, 60.0]])
    traces = future_waypoints(path, 10)
    assert traces.shape == (4, 10, 2)
    np.testing.assert_allclose(traces[:, 0], path)
    np.testing.assert_allclose(traces[:, -1], path[-1:].repeat(4, axis=0))
    np.testing.assert_allclose(np.linalg.norm(np.diff(traces[0], axis=0), axis=1), 10.0)
    np.testing.assert_allclose(traces[3], path[-1:].repeat(10, axis=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pick": "pink cube"}, "pick is 'pink cube'.*red cube"),
        ({"relation": "under"}, "relation must be one of on, in"),
        ({"instruction": " "}, "instruction is empty"),
        ({"action": np.zeros((FRAMES, 6))}, r"action must have shape \[12, 7\], not \[12, 6\]"),
        ({"state": np.full((FRAMES, 10), np.inf)}, "state is not finite at frame 0"),
        ({"timestamps": np.zeros(FRAMES)}, "increase strictly"),
        ({"images": {}}, "no camera 'front'"),
        ({"objects": ("red cube", "blue bowl", "red cube")}, "a name twice"),
    ],
)
def test_inconsistent_episodes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(EpisodeError, match=message):
        replace(make_episode(), **change)  # type: ignore[arg-type]
