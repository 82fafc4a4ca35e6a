"""LeRobot v2.1 and v3.0: there and back with nothing lost, and what is wrong said by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_lerobot import make_episode

from internvla_ros import cli
from internvla_ros.data.lerobot import DatasetError, EpisodeWriter, LeRobotDataset
from internvla_ros.data.lerobot import video as video_files
from internvla_ros.data.lerobot.chunked import aggregated
from internvla_ros.data.lerobot.convert import convert
from internvla_ros.data.lerobot.places import VideoPlace
from internvla_ros.data.lerobot.remux import VideoJoiner, count_frames, cut
from internvla_ros.data.lerobot.validate import problems

LENGTHS = (10, 7, 12)
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
SAMPLE = Path(__file__).resolve().parents[2] / "shared/data/interndata_m1_sample"


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of two tasks in version 2.1, with snapshots beside them."""
    root = tmp_path_factory.mktemp("v21") / "set"
    with EpisodeWriter(root, fps=5) as writer:
        for seed, frames in enumerate(LENGTHS):
            episode = make_episode(seed, frames)
            words = "put it in the bowl" if seed == 1 else episode.instruction
            writer.write(replace(episode, instruction=words))
    (root / "snapshots").mkdir()
    (root / "snapshots/note.txt").write_text("beside the layout")
    return root


@pytest.fixture(scope="module")
def chunked(episodes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in version 3.0."""
    target = tmp_path_factory.mktemp("v30") / "set"
    convert(episodes, target, "v3.0", progress=False)
    return target


@pytest.fixture
def copy(chunked: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    return Path(shutil.copytree(chunked, tmp_path / "set"))


def same_datasets(one: LeRobotDataset, other: LeRobotDataset) -> None:
    """Metadata, numbers to the bit, and pictures are the same."""
    assert one.episodes == other.episodes and one.tasks == other.tasks
    assert one.places.statistics() == other.places.statistics()
    for index in range(len(one)):
        mine, yours = one.episode(index), other.episode(index)
        assert mine.instruction == yours.instruction and set(mine.columns) == set(yours.columns)
        for name, values in mine.columns.items():
            assert values.dtype == yours.columns[name].dtype
            np.testing.assert_array_equal(values, yours.columns[name], err_msg=name)
        for camera in one.cameras:
            np.testing.assert_array_equal(one.frames(index, camera), other.frames(index, camera))


def test_version_3_holds_the_same(episodes: Path, chunked: Path) -> None:
    dataset = LeRobotDataset(chunked)
    assert (dataset.version, len(dataset), dataset.fps) == ("v3.0", 3, 5)
    same_datasets(LeRobotDataset(episodes), dataset)
    assert dataset.load(1).pick == "red cube"
    assert (chunked / "snapshots/note.txt").read_text() == "beside the layout"
    assert problems(chunked, decode=True, progress=False) == []


def test_round_trip_loses_nothing(episodes: Path, chunked: Path, tmp_path: Path) -> None:
    done = convert(chunked, tmp_path / "back", "v2.1", progress=False)
    assert (done.episodes, done.frames, done.videos, done.encoded) == (3, sum(LENGTHS), 6, 0)
    back = LeRobotDataset(tmp_path / "back")
    assert back.info == LeRobotDataset(episodes).info
    same_datasets(LeRobotDataset(episodes), back)
    assert problems(tmp_path / "back", progress=False) == []


def test_files_follow_version_3(chunked: Path) -> None:
    info = json.loads((chunked / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 5
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    assert (info["data_files_size_in_mb"], info["video_files_size_in_mb"]) == (100, 200)
    assert "total_chunks" not in info and info["features"]["action"]["fps"] == 5
    rows = pq.read_table(chunked / EPISODES).to_pylist()
    assert [row["dataset_from_index"] for row in rows] == [0, 10, 17]
    assert [row["dataset_to_index"] for row in rows] == [10, 17, 29]
    key = "videos/observation.images.front"
    assert [row[f"{key}/from_timestamp"] for row in rows] == [0.0, 2.0, 3.4]
    assert [row[f"{key}/to_timestamp"] for row in rows] == [2.0, 3.4, 5.8]
    assert rows[1]["tasks"] == ["put it in the bowl"] and rows[2]["stats/action/count"] == [12]
    assert pq.ParquetFile(chunked / DATA).num_row_groups == 3
    tasks = pq.read_table(chunked / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]
    assert count_frames(chunked / "videos/observation.images.wrist/chunk-000/file-000.mp4") == 29


@pytest.mark.parametrize("told", [True, False])
def test_rows_of_many_episodes_in_one_group_are_told_apart(
    episodes: Path, copy: Path, told: bool
) -> None:
    """As LeRobot's own writer leaves them, with or without statistics of each group."""
    pq.write_table(pq.read_table(copy / DATA), copy / DATA, write_statistics=told)
    same_datasets(LeRobotDataset(episodes), LeRobotDataset(copy))


def test_statistics_over_episodes_are_those_of_all_frames(episodes: Path, chunked: Path) -> None:
    stats = json.loads((chunked / "meta/stats.json").read_text())
    dataset = LeRobotDataset(episodes)
    actions = np.concatenate([dataset.episode(index).action for index in range(3)]).astype(float)
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(stats["action"]["std"], actions.std(axis=0), rtol=1e-9)
    np.testing.assert_allclose(stats["action"]["max"], actions.max(axis=0))
    assert stats["action"]["count"] == [29]
    assert np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1)


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6), min_size=1, max_size=5))
def test_aggregated_statistics_agree_with_the_whole(parts: list[list[float]]) -> None:
    stats = [
        {
            "x": {
                "min": [min(part)],
                "max": [max(part)],
                "mean": [float(np.mean(part))],
                "std": [float(np.std(part))],
                "count": [len(part)],
            }
        }
        for part in parts
    ]
    whole = np.concatenate([np.array(part) for part in parts])
    total = aggregated(stats)["x"]
    np.testing.assert_allclose(total["mean"], whole.mean(), atol=1e-9)
    np.testing.assert_allclose(total["std"], whole.std(), atol=1e-6)
    assert (total["min"], total["max"]) == ([whole.min()], [whole.max()])


def test_files_end_at_their_limit(episodes: Path, tmp_path: Path) -> None:
    convert(episodes, tmp_path / "small", "v3.0", data_mb=0, video_mb=0, progress=False)
    assert len(list((tmp_path / "small/data").rglob("*.parquet"))) == 3
    assert len(list((tmp_path / "small/videos").rglob("*.mp4"))) == 6
    same_datasets(LeRobotDataset(episodes), LeRobotDataset(tmp_path / "small"))
    assert problems(tmp_path / "small", progress=False) == []


def test_fields_of_mixed_kinds_come_back(episodes: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(episodes, tmp_path / "odd"))
    lines = [json.loads(line) for line in (source / "meta/episodes.jsonl").read_text().splitlines()]
    lines[0] |= {"task_data": {"cameras": {"a": [1, 2.5]}}, "note": 3, "count": 2**70}
    lines[1] |= {"note": "three", "empty": [], "operator": "Ada"}
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (source / "meta/episodes.jsonl").write_text(text)
    convert(source, tmp_path / "v30", "v3.0", progress=False)
    assert LeRobotDataset(tmp_path / "v30").episodes == lines
    names = pq.read_schema(tmp_path / "v30" / EPISODES).names
    assert "json/task_data" in names and "operator" in names and "json/note" in names


def test_a_camera_without_all_its_videos_is_kept_only_on_request(
    episodes: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(episodes, tmp_path / "blind"))
    LeRobotDataset(source).video_path(1, "wrist").unlink()
    with pytest.raises(DatasetError, match=r"no video of wrist for episode 1; .* are: front"):
        convert(source, tmp_path / "v30", "v3.0", progress=False)
    assert not list(tmp_path.glob("v30*"))
    convert(source, tmp_path / "v30", "v3.0", cameras=["front"], progress=False)
    dataset = LeRobotDataset(tmp_path / "v30")
    assert list(dataset.cameras) == ["front"]
    modality = json.loads((tmp_path / "v30/meta/modality.json").read_text())
    assert list(modality["video"]) == ["front"]
    assert (
        "stats/observation.images.wrist/mean"
        not in pq.read_schema(tmp_path / "v30" / EPISODES).names
    )


def test_nothing_is_overwritten(episodes: Path, chunked: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/photo.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="exists already"):
        convert(episodes, tmp_path / "full", "v3.0", progress=False)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["photo.png"]
    with pytest.raises(DatasetError, match=r"is v3\.0 already"):
        convert(chunked, tmp_path / "new", "v3.0", progress=False)
    with pytest.raises(DatasetError, match="is none of"):
        convert(chunked, tmp_path / "new", "v1", progress=False)


def test_an_interrupted_conversion_leaves_nothing(
    episodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("internvla_ros.data.lerobot.chunked._write_tasks_table", stopped)
    with pytest.raises(KeyboardInterrupt):
        convert(episodes, tmp_path / "new", "v3.0", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_begins_amid_a_group_is_encoded_anew(tmp_path: Path) -> None:
    images = np.zeros((20, 64, 64, 3), np.uint8) + np.arange(0, 256, 4, dtype=np.uint8)[:, None]
    images[:, :16, :16] = 10 * np.arange(20, dtype=np.uint8)[:, None, None, None]
    video_files.encode(tmp_path / "long.mp4", images, 5)
    assert not cut(VideoPlace(tmp_path / "long.mp4", 0.6), 10, 5, tmp_path / "part.mp4")
    part = video_files.decode(tmp_path / "part.mp4", 10)
    assert np.abs(part[:, 5, 5, 0].astype(int) - np.arange(30, 130, 10)).max() < 8
    assert cut(VideoPlace(tmp_path / "long.mp4", 1.6), 4, 5, tmp_path / "clean.mp4")
    whole = video_files.decode(tmp_path / "long.mp4", 20)
    np.testing.assert_array_equal(video_files.decode(tmp_path / "clean.mp4", 4), whole[8:12])


def test_videos_of_other_sizes_go_into_other_files(tmp_path: Path) -> None:
    for name, size in (("a", 32), ("b", 48), ("c", 48)):
        video_files.encode(tmp_path / f"{name}.mp4", np.zeros((4, size, size, 3), np.uint8), 5)
    joiner = VideoJoiner(lambda number: tmp_path / f"joined{number}.mp4", 5, 1 << 20)
    places = [joiner.add(tmp_path / f"{name}.mp4", 4) for name in "abc"]
    with pytest.raises(DatasetError, match=r"a\.mp4 has 4 frames where its episode has 5"):
        joiner.add(tmp_path / "a.mp4", 5)
    joiner.close()
    assert [(place.file, place.start) for place in places] == [(0, 0.0), (1, 0.0), (1, 0.8)]
    assert video_files.decode(tmp_path / "joined1.mp4", 4, start=0.8).shape == (4, 48, 48, 3)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (DATA, b"PAR1", r"file-000\.parquet cannot be read as parquet"),
        (EPISODES, b"PAR1", r"meta/episodes/chunk-000/file-000\.parquet cannot be read"),
        ("meta/tasks.parquet", None, r"tasks\.parquet does not exist"),
        ("meta/info.json", b'{"codebase_version": "v2.0"}', "reads v2.1 and v3.0"),
        (
            "videos/observation.images.front/chunk-000/file-000.mp4",
            b"no video",
            r"observation\.images\.front/chunk-000/file-000\.mp4 is damaged",
        ),
    ],
)
def test_damaged_files_are_named(
    copy: Path, file: str, content: bytes | None, message: str
) -> None:
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        LeRobotDataset(copy).load(1)


def change_rows(path: Path, row: int, **values: object) -> None:
    rows = pq.read_table(path)
    changed = rows.to_pylist()
    changed[row] |= values
    pq.write_table(pa.Table.from_pylist(changed, rows.schema), path)


def test_validation_names_what_is_wrong(copy: Path) -> None:
    change_rows(copy / DATA, 12, frame_index=5, timestamp=9.0, task_index=7)
    change_rows(copy / EPISODES, 2, length=14)
    (copy / "meta/left.tmp").write_text("")
    found = "\n".join(problems(copy, progress=False))
    for words in (
        "total_frames is 29, but there are 31",
        r"left.tmp was left by an interrupted writer",
        "episode 1: frame_index does not run from 0 to 6",
        "episode 1: timestamps are up to 8.6000 s off",
        "episode 1: task_index 7 is no known task",
        "rows of episode 2 where meta/episodes says 14",
        "has 29 frames where frames 17 to 31 are asked",
    ):
        assert words in found, found


def test_validation_of_episodes_in_files_of_their_own(episodes: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(episodes, tmp_path / "set"))
    LeRobotDataset(source).video_path(0, "front").unlink()
    path = source / "data/chunk-000/episode_000002.parquet"
    table = pq.read_table(path)
    short = pa.array([row[:6] for row in table["action"].to_pylist()], pa.list_(pa.float32()))
    pq.write_table(table.set_column(table.column_names.index("action"), "action", short), path)
    found = problems(source, progress=False)
    assert len(found) == 2 and "episode 0: no video of front" in found[0]
    assert "episode 2: action has 6 numbers a row where its shape is [7]" in found[1]


def test_the_command(episodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["dataset", "convert", str(episodes), str(tmp_path / "new"), "--to", "v3.0"]
    assert cli.main(command) == 0
    assert "3 episodes, 29 frames, 6 videos" in capsys.readouterr().out
    assert cli.main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["dataset", "info", str(tmp_path / "new")]) == 0
    told = capsys.readouterr().out
    assert "LeRobot v3.0, wx250s, 5 Hz" in told and "camera front: 64x48" in told
    assert cli.main(["dataset", "info", "--json", str(episodes)]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 29
    assert cli.main(["dataset", "validate", str(tmp_path / "new"), "--decode"]) == 0
    LeRobotDataset(tmp_path / "new").video_path(0, "front").unlink()
    assert cli.main(["dataset", "validate", str(tmp_path / "new")]) == 1
    assert "3 problems" in capsys.readouterr().out


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"the sample of InternData-M1 is not at {SAMPLE}")
def test_the_published_sample_there_and_back(tmp_path: Path) -> None:
    """AV1 videos, pickles in columns, dictionaries of their own in each episode's metadata."""
    kept = ["ego_view"]
    convert(SAMPLE, tmp_path / "v30", "v3.0", cameras=kept, progress=False)
    done = convert(tmp_path / "v30", tmp_path / "v21", "v2.1", cameras=kept, progress=False)
    assert (done.frames, done.encoded) == (1667, 0)
    datasets = [LeRobotDataset(path) for path in (SAMPLE, tmp_path / "v30", tmp_path / "v21")]
    assert problems(tmp_path / "v30", progress=False) == []
    assert "lists of one number" in problems(SAMPLE, progress=False)[0]
    assert datasets[0].episodes == datasets[1].episodes == datasets[2].episodes
    for other in datasets[1:]:
        one, two = datasets[0].episode(2), other.episode(2)
        for name, values in one.columns.items():
            # Lists of one number have become numbers, as LeRobot's own reader wants them.
            np.testing.assert_array_equal(values.squeeze(), two.columns[name], err_msg=name)
        first = [next(dataset.stream(3, "ego_view")) for dataset in (datasets[0], other)]
        np.testing.assert_array_equal(*first)
