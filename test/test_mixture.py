"""Mixtures of data sets: statistics in one pass and kept, pauses, corrupt shards, resuming."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_lerobot import make_episode

from internvla_ros import cli
from internvla_ros.data.chunks import PauseFilter
from internvla_ros.data.lerobot import DatasetError, EpisodeWriter, LeRobotDataset
from internvla_ros.data.lerobot.convert import convert
from internvla_ros.data.lerobot.layout import STATISTICS_CACHE
from internvla_ros.data.mixture import MixtureEntry, load_mixture
from internvla_ros.data.normalisation import StatisticsError, compute
from internvla_ros.data.sampler import SamplerError
from internvla_ros.data.statistics import Accumulator, cached_statistics, dataset_statistics

ROWS = ("mean", "std", "min", "max", "q01", "q99")


def write(root: Path, robot: str, lengths: tuple[int, ...], scale: float = 1.0) -> Path:
    """A data set whose episodes stand still in their last two frames."""
    with EpisodeWriter(root, fps=5, robot_type=robot, cameras=("front",)) as writer:
        for seed, frames in enumerate(lengths):
            episode = make_episode(seed, frames)
            action = episode.action * scale
            action[:, 6] = np.arange(frames) > 3
            action[-2:, :6] = 0
            writer.write(replace(episode, action=action))
    return root


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    write(root / "widow", "widowx_250s", (8, 9, 10))
    write(root / "panda", "franka_panda", (12,), 0.1)
    return root


@pytest.fixture
def sets(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "sets"))


@given(
    hnp.arrays(float, st.tuples(st.integers(1, 40), st.just(3)), elements=st.floats(-1e3, 1e3)),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_one_pass_gives_what_all_rows_at_once_do(rows: np.ndarray, cuts: list[int]) -> None:
    accumulator = Accumulator(3)
    for piece in np.split(rows, sorted(min(cut, len(rows)) for cut in cuts)):
        accumulator.add(piece)
    got, wanted = accumulator.statistics(), compute(rows)
    for name in ROWS:
        scale = np.abs(rows).max() + 1
        np.testing.assert_allclose(
            getattr(got, name) / scale, getattr(wanted, name) / scale, atol=1e-7, err_msg=name
        )


def test_quantiles_of_more_rows_than_are_kept() -> None:
    rows = np.random.default_rng(1).normal(size=(60_000, 2))
    accumulator = Accumulator(2, keep=5_000)
    for piece in np.split(rows, 40):
        accumulator.add(piece)
    got, wanted = accumulator.statistics(), compute(rows)
    np.testing.assert_allclose(got.mean, wanted.mean, atol=1e-12)
    np.testing.assert_array_equal(got.max, wanted.max)
    np.testing.assert_allclose(got.q99, wanted.q99, atol=0.15)
    np.testing.assert_allclose(got.q01, wanted.q01, atol=0.15)


def test_unusable_rows_are_named(sets: Path) -> None:
    with pytest.raises(StatisticsError, match="row 1 is not finite in component 0"):
        Accumulator(2).add([[0, 0], [np.nan, 0]])
    with pytest.raises(StatisticsError, match=r"rows \[N, 2\] are needed, not \[3\]"):
        Accumulator(2).add([0, 0, 0])
    with pytest.raises(StatisticsError, match="no episodes"):
        dataset_statistics(LeRobotDataset(sets / "widow"), [])


def test_statistics_of_a_data_set(sets: Path) -> None:
    dataset = LeRobotDataset(sets / "widow")
    got = dataset_statistics(dataset)
    actions = np.concatenate([dataset.episode(index).action for index in range(3)])
    np.testing.assert_allclose(got.action.q99, np.quantile(actions, 0.99, axis=0))
    assert got.action.mask.tolist() == [True] * 6 + [False] and got.action.binary == (6,)
    assert (got.num_transitions, got.num_trajectories) == (27, 3)
    assert got.state is not None and got.state.size == 10


def test_statistics_are_kept_as_long_as_the_data_are_the_same(
    sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = LeRobotDataset(sets / "widow")
    first = cached_statistics(dataset)
    assert (sets / "widow" / STATISTICS_CACHE).is_file()
    monkeypatch.setattr("internvla_ros.data.statistics.dataset_statistics", None)
    again = cached_statistics(dataset)
    np.testing.assert_array_equal(again.action.q01, first.action.q01)
    assert again.action.binary == (6,) and again.num_trajectories == 3
    monkeypatch.undo()
    assert cached_statistics(dataset, [0]).num_transitions == 8
    other = LeRobotDataset(write(sets / "other", "widowx_250s", (9,), 3.0))
    shutil.copy(dataset.places.data_path(1), other.places.data_path(0))
    shutil.copy(sets / "widow" / STATISTICS_CACHE, sets / "other" / STATISTICS_CACHE)
    changed = cached_statistics(other)
    assert changed.num_transitions == 9
    (sets / "other" / STATISTICS_CACHE).write_text("{")
    assert cached_statistics(other).num_transitions == 9
    convert(sets / "widow", sets / "v30", "v3.0", progress=False)
    assert not (sets / "v30" / STATISTICS_CACHE).exists()


def test_a_folder_that_cannot_be_written_to_is_no_hindrance(
    sets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("internvla_ros.data.statistics.write_json", refused)
    with caplog.at_level(logging.WARNING):
        assert cached_statistics(LeRobotDataset(sets / "widow")).num_trajectories == 3
    assert "statistics are not kept: read-only" in caplog.text


def test_robots_keep_their_own_statistics_and_conventions(sets: Path) -> None:
    entries = [MixtureEntry(sets / "widow", 3.0), MixtureEntry(sets / "panda", 1.0)]
    mixture = load_mixture(entries, seed=1, progress=False)
    widow, panda = mixture.parts
    assert widow.name == "widowx_250s_tabletop" and set(mixture.statistics) == {
        widow.name,
        panda.name,
    }
    assert widow.convention is not None and panda.convention is not None
    assert str(widow.counts) == "3 episodes, 27 frames, 6 pauses left out"
    seen = {widow.name: 0, panda.name: 0}
    for sample in mixture.draw(400, length=6):
        seen[sample.name] += 1
        part = widow if sample.name == widow.name else panda
        back = part.statistics.action.unnormalise(sample.normalised)
        inside = np.abs(sample.normalised[:, :6]).max(axis=1) < 1
        np.testing.assert_allclose(back[inside], sample.actions[inside], atol=1e-5)
        held = sample.actions[~sample.recorded]
        assert (held[:, :6] == 0).all() and (held[:, 6] == 1).all()
        assert sample.state is not None and sample.instruction
    assert 0.65 < seen[widow.name] / 400 < 0.85
    assert {tuple(start) for start in panda.starts.tolist()} == {(0, row) for row in range(10)}


def test_a_mixture_goes_on_from_its_state(sets: Path) -> None:
    entries = [MixtureEntry(sets / "widow"), MixtureEntry(sets / "panda", pauses=None)]
    mixture = load_mixture(entries, seed=5, progress=False)
    list(mixture.draw(37, 4))
    state = json.loads(json.dumps(mixture.sampler.state_dict()))
    wanted = [(s.name, s.episode, s.row) for s in mixture.draw(50, 4)]
    again = load_mixture(entries, seed=5, progress=False)
    again.sampler.load_state_dict(state)
    assert [(s.name, s.episode, s.row) for s in again.draw(50, 4)] == wanted
    changed = [entries[0], replace(entries[1], pauses=PauseFilter())]
    with pytest.raises(SamplerError, match="another mixture"):
        load_mixture(changed, seed=5, progress=False).sampler.load_state_dict(state)


def test_corrupt_shards_are_named_and_skipped_only_on_request(sets: Path) -> None:
    path = LeRobotDataset(sets / "widow").places.data_path(1)
    path.write_bytes(path.read_bytes()[:-50])
    entry = MixtureEntry(sets / "widow")
    with pytest.raises(DatasetError, match=r"episode_000001\.parquet cannot be read"):
        load_mixture([entry], progress=False)
    mixture = load_mixture([entry], skip=True, progress=False)
    counts = mixture.parts[0].counts
    assert counts.episodes == 2 and len(counts.skipped) == 1
    assert "episode 1: " in counts.skipped[0] and "1 damaged episodes skipped" in str(counts)
    assert {sample.episode for sample in mixture.draw(100, 2)} == {0, 2}


def test_version_3_and_names_of_ones_own(sets: Path) -> None:
    convert(sets / "widow", sets / "v30", "v3.0", progress=False)
    twice = [MixtureEntry(sets / "widow"), MixtureEntry(sets / "v30")]
    with pytest.raises(SamplerError, match="have one name"):
        load_mixture(twice, progress=False)
    mixture = load_mixture([twice[0], replace(twice[1], name="again")], progress=False)
    one, two = mixture.parts
    np.testing.assert_array_equal(one.starts, two.starts)
    np.testing.assert_array_equal(one.statistics.action.q99, two.statistics.action.q99)
    np.testing.assert_array_equal(one.sample(3, 5).actions, two.sample(3, 5).actions)


def test_the_command_counts(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dataset", "statistics", str(sets / "widow")]) == 0
    told = capsys.readouterr().out
    assert "statistics widowx_250s_tabletop: 3 episodes, 27 frames, 6 pauses left out" in told
    lines = {line.split()[0]: line for line in told.splitlines()}
    low = dataset_statistics(LeRobotDataset(sets / "widow")).action.q01[0]
    assert f"{low:.5f}" in lines["dx"] and lines["gripper"].endswith("not scaled")
    LeRobotDataset(sets / "widow").places.data_path(0).unlink()
    assert cli.main(["dataset", "statistics", str(sets / "widow")]) == 2
    assert "episode_000000.parquet does not exist" in capsys.readouterr().err
    assert cli.main(["dataset", "statistics", str(sets / "widow"), "--skip-damaged"]) == 0
    assert "1 damaged episodes skipped" in capsys.readouterr().out
