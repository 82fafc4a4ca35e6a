"""The data engine: episodes and snapshots that are true, repeatable and resumable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from internvla_ros.data.episode import Episode
from internvla_ros.data.grounding import read_llava
from internvla_ros.data.lerobot import LeRobotDataset
from internvla_ros.data.snapshots import read_snapshots
from internvla_ros.motion.se3 import Pose, rot6d_to_matrix, rpy_to_matrix
from internvla_ros.robots.embodiment import EmbodimentError, load_embodiment
from internvla_ros.sim import generate as generating
from internvla_ros.sim.engine import (
    PUSHES,
    QUIET,
    Noise,
    RolloutError,
    action_between,
    observe,
    recorded_size,
    rollout,
)
from internvla_ros.sim.expert import SHARE, SPEED
from internvla_ros.sim.generate import (
    episode_seed,
    generate,
    make_episode,
    make_snapshot,
    snapshot_seed,
)
from internvla_ros.sim.scene import arm_kinematics, sample_scene
from internvla_ros.sim.world import World

ROBOT = load_embodiment("widowx_250s")


@pytest.fixture(scope="module")
def world() -> World:
    return World(ROBOT)


def assert_same(one: Episode, other: Episode) -> None:
    """Bit for bit."""
    for name in ("state", "action", "boxes", "pick_point", "place_point", "tip_pixel"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    for camera in one.images:
        assert one.images[camera].tobytes() == other.images[camera].tobytes(), camera
    assert (one.instruction, one.objects) == (other.instruction, other.objects)


def test_one_seed_gives_one_episode_bit_for_bit(world: World) -> None:
    noise = Noise(chance=0.3)
    first = make_episode(world, 4, noise)
    make_episode(world, 5, noise)  # the world keeps nothing of what was in between
    assert_same(first, make_episode(world, 4, noise))
    assert_same(first, make_episode(World(ROBOT), 4, noise))


def test_an_episode_is_what_it_says(world: World) -> None:
    episode = make_episode(world, 1, PUSHES)
    width, height = recorded_size(ROBOT, "front")
    assert episode.success and episode.seed == 1
    assert set(episode.images) == {"front", "wrist"}
    assert episode.images["front"].shape == (len(episode), height, width, 3)
    np.testing.assert_allclose(np.diff(episode.timestamps), 1 / ROBOT.policy_rate)
    assert np.isin(episode.action[:, 6], (0.0, 1.0)).all()
    assert np.abs(episode.action[:, :3]).max() < 0.06
    assert {0.0, 1.0} <= set(episode.action[:, 6])
    rotations = [rot6d_to_matrix(row[3:9]) for row in episode.state]
    np.testing.assert_allclose([r[2, 0] for r in rotations], -1, atol=0.02)
    assert ((episode.state[:, 9] >= 0) & (episode.state[:, 9] <= 1)).all()
    pick = episode.boxes[:, episode.objects.index(episode.pick)]
    assert (episode.pick_point > pick[:, :2]).all() and (episode.pick_point < pick[:, 2:]).all()


def test_without_pushes_the_actions_add_up_to_the_way_of_the_tip(world: World) -> None:
    rng = np.random.default_rng(2)
    scene = sample_scene(rng, ROBOT)
    episode = rollout(world, scene, rng, QUIET)
    pose = arm_kinematics(ROBOT).forward(scene.start)
    for row in episode.action:
        turned = rpy_to_matrix(row[3:6]) @ pose.rotation
        pose = Pose(pose.position + row[:3], turned)
    np.testing.assert_allclose(pose.position, episode.state[-1, :3], atol=0.01)
    np.testing.assert_allclose(pose.rotation, rot6d_to_matrix(episode.state[-1, 3:9]), atol=0.02)


def test_pictures_are_recorded_as_the_camera_sees() -> None:
    assert recorded_size(ROBOT, "front") == (320, 240)
    google = load_embodiment("google_robot")
    assert recorded_size(google, "front") == (320, 256)
    assert recorded_size(google, "wrist") == (320, 240)


def test_actions_that_add_to_the_measured_pose_lead_on_from_where_the_arm_is() -> None:
    google = load_embodiment("google_robot")
    assert google.action.anchor == "measured"
    scene = sample_scene(np.random.default_rng(3), google)
    episode = rollout(World(google), scene, np.random.default_rng(3), QUIET)
    wanted = episode.state[:, :3] + episode.action[:, :3]
    farthest = SHARE * google.tip_limits.speed / google.policy_rate
    farthest = min(SPEED / google.policy_rate, farthest)
    steps = np.linalg.norm(np.diff(wanted, axis=0), axis=1)
    assert steps.max() < farthest + 1e-9
    trailed = np.linalg.norm(episode.state[1:, :3] - wanted[:-1], axis=1)
    assert trailed.max() > 0.01  # or it would not matter from where actions lead on


def test_pushes_are_felt_but_not_recorded(world: World) -> None:
    rng = np.random.default_rng(0)
    pushes = [Noise(chance=1.0).push(rng, "carry") for _ in range(50)]
    lengths = np.linalg.norm(pushes, axis=1)
    assert (lengths > 0.0099).all() and (lengths < 0.0301).all()
    assert not Noise(chance=1.0).push(rng, "close").any()
    pushed, quiet = make_episode(world, 9, Noise(chance=0.5)), make_episode(world, 9, QUIET)
    assert np.abs(pushed.action[:, :3]).sum() > np.abs(quiet.action[:, :3]).sum()
    np.testing.assert_array_equal(pushed.action[0], quiet.action[0])


def test_an_action_between_poses() -> None:
    start = Pose.from_rpy([0.3, 0.0, 0.1], [0.1, 1.4, -0.2])
    end = Pose(
        start.position + np.array([0.01, -0.02, 0.03]), rpy_to_matrix([0, 0, 0.2]) @ start.rotation
    )
    action = action_between(start, end, 1.0)
    np.testing.assert_allclose(action, (0.01, -0.02, 0.03, 0, 0, 0.2, 1), atol=1e-12)


def test_a_task_that_cannot_be_done_is_discarded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("internvla_ros.sim.engine.MAX_STEPS", 5)
    with pytest.raises(RolloutError, match="not done after 5 steps"):
        make_episode(world, 1, PUSHES)


def test_snapshots_are_varied_and_true(world: World) -> None:
    shots = [make_snapshot(world, snapshot_seed(0, index)) for index in range(24)]
    held = [shot for shot in shots if shot.holding]
    assert 2 <= len(held) <= 16
    for shot in held:  # the object is at the tip
        assert np.linalg.norm(shot.pick_point - shot.tip_pixel) < 2
        assert shot.state[9] < 0.75
    tips = np.array([shot.state[:3] for shot in shots])
    assert (np.ptp(tips, axis=0) > (0.1, 0.2, 0.08)).all()
    again = make_snapshot(world, snapshot_seed(0, 3))
    np.testing.assert_array_equal(again.front, shots[3].front)
    np.testing.assert_array_equal(again.boxes, shots[3].boxes)


def test_observation_tells_what_is_held(world: World) -> None:
    world.reset(sample_scene(np.random.default_rng(0), ROBOT))
    frame = observe(world)
    assert not frame.holding and frame.objects == tuple(o.name for o in world.scene.objects)


def test_seeds_do_not_collide() -> None:
    seeds = {episode_seed(s, i) for s in range(20) for i in range(50)}
    seeds |= {snapshot_seed(s, i) for s in range(20) for i in range(50)}
    assert len(seeds) == 2000 and max(seeds) < 2**53


def test_generate_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate(tmp_path / "whole", 3, 4, seed=5, progress=False)
    assert (whole.episodes, whole.snapshots, whole.stopped) == (3, 4, False)
    generate(tmp_path / "parts", 1, 0, seed=5, progress=False)
    generate(tmp_path / "parts", 3, 3, seed=5, progress=False)
    generate(tmp_path / "parts", 3, 4, seed=5, progress=False)
    one, other = LeRobotDataset(tmp_path / "whole"), LeRobotDataset(tmp_path / "parts")
    assert len(one) == len(other) == 3
    for index in range(3):
        for name in ("state", "action", "boxes", "trace"):
            first, second = (getattr(d.episode(index), name) for d in (one, other))
            np.testing.assert_array_equal(first, second)
    shots = [list(read_snapshots(tmp_path / name / "snapshots")) for name in ("whole", "parts")]
    assert len(shots[0]) == 4
    for one_shot, other_shot in zip(*shots, strict=True):
        np.testing.assert_array_equal(one_shot.front, other_shot.front)
    frames = sum(-(-len(one.episode(index)) // 2) for index in range(3))
    assert len(read_llava(tmp_path / "whole" / "grounding")) <= frames + 4


def test_more_workers_make_the_same(tmp_path: Path, world: World) -> None:
    generate(tmp_path / "data", 2, 0, seed=8, workers=2, progress=False)
    dataset = LeRobotDataset(tmp_path / "data")
    for index in range(2):
        expected = make_episode(world, episode_seed(8, index), PUSHES)
        stored = dataset.episode(index)
        np.testing.assert_array_equal(stored.action, expected.action.astype(np.float32))
        np.testing.assert_array_equal(stored.state, expected.state.astype(np.float32))


def test_discarded_episodes_are_counted_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky = episode_seed(3, 0)

    def sometimes(world: World, seed: int, noise: Noise) -> Episode:
        if seed == unlucky:
            raise RolloutError("bad luck")
        return make_episode(world, seed, noise)

    monkeypatch.setattr(generating, "make_episode", sometimes)
    report = generate(tmp_path / "data", 1, seed=3, progress=False)
    assert report.episodes == 1 and report.discarded == {"bad luck": 1}


def test_an_expert_that_always_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(world: World, seed: int, noise: Noise) -> Episode:
        raise RolloutError("no luck")

    monkeypatch.setattr(generating, "make_episode", never)
    with pytest.raises(RolloutError, match="in a row failed; the last one: no luck"):
        generate(tmp_path / "data", 1, seed=3, progress=False)


def test_numbers_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers"):
        generate(tmp_path, 1, workers=0)
    with pytest.raises(ValueError, match="episodes"):
        generate(tmp_path, -1)
    with pytest.raises(EmbodimentError, match="unknown robot"):
        generate(tmp_path, 1, robot="r2d2")
