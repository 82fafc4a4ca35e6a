"""The world of task scenes, its expert, and roll-outs drawn again under other looks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.sim.engine import PUSHES, QUIET, RolloutError, recorded_size
from internvla_ros.sim.grasps import GraspPlanner
from internvla_ros.sim.kinds import TRAVEL
from internvla_ros.sim.looks import sample_look
from internvla_ros.sim.rollouts import Mishaps, Performer, Rollout
from internvla_ros.sim.sampling import Sampler
from internvla_ros.sim.splits import load_split
from internvla_ros.sim.task_frames import Photographer, draw
from internvla_ros.sim.task_scene import TaskScene
from internvla_ros.sim.task_world import TaskWorld
from internvla_ros.sim.validate import validate
from internvla_ros.sim.world import WorldError

ROBOT = load_embodiment("widowx_250s")


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler(ROBOT)


@pytest.fixture(scope="module")
def performer() -> Performer:
    return Performer(TaskWorld(ROBOT))


def scene(sampler: Sampler, family: str, seed: int, level: str = "off") -> TaskScene:
    split = "long_horizon" if family == "sequence" else "seen"
    return sampler.sample(np.random.default_rng(seed), load_split(split), [family], level)


@pytest.fixture(scope="module")
def put(sampler: Sampler, performer: Performer) -> Rollout:
    return performer.perform(scene(sampler, "put", 0), np.random.default_rng(0), QUIET)


def test_an_empty_world_has_no_scene() -> None:
    with pytest.raises(WorldError, match="call reset"):
        _ = TaskWorld(ROBOT).scene


def test_things_stay_where_they_are_put(sampler: Sampler, performer: Performer) -> None:
    world = performer.world
    for seed, family in enumerate(("put", "stack", "clear")):
        laid = scene(sampler, family, seed)
        world.reset(laid)
        world.step(0.3)
        state = world.state()
        for thing in laid.things:
            body = state[thing.name]
            assert np.hypot(*(body.position[:2] - (thing.x, thing.y))) < 0.012, thing.name
            assert abs(body.bottom) < 0.006, thing.name
        assert not world.success() and world.holding() is None and world.current == 0
        with pytest.raises(WorldError, match="has no 'x'"):
            world.object_position("x")


@pytest.mark.parametrize("family", ["stack", "line_up", "between", "drawer"])
def test_the_expert_does_it(sampler: Sampler, performer: Performer, family: str) -> None:
    done = performer.perform(scene(sampler, family, 1), np.random.default_rng(0), QUIET)
    validate(performer.world, done)
    state = performer.world.state()
    assert all(goal.holds(state) for goal in done.scene.goals)
    assert performer.world.progress()["steps_done"] == len(done.scene.steps)
    assert list(dict.fromkeys(done.steps)) == list(range(len(done.scene.steps)))
    assert np.abs(done.actions[:, :3]).max() < 0.07


@pytest.mark.parametrize("kind", ["drop", "nudge", "miss"])
def test_it_finds_the_way_back(sampler: Sampler, performer: Performer, kind: str) -> None:
    for seed in (0, 3):
        laid = scene(sampler, "put", seed)
        quiet = performer.perform(laid, np.random.default_rng(0), QUIET)
        troubled = performer.perform(laid, np.random.default_rng(0), QUIET, Mishaps(1.0, (kind,)))
        if troubled.mishaps:
            assert len(troubled) >= len(quiet)
            assert set(troubled.phases) == set(quiet.phases)
            return
    pytest.fail(f"no {kind} happened")


def test_one_seed_gives_one_rollout(sampler: Sampler, performer: Performer, put: Rollout) -> None:
    performer.perform(scene(sampler, "drawer", 0), np.random.default_rng(5), PUSHES)
    again = performer.perform(scene(sampler, "put", 0), np.random.default_rng(0), QUIET)
    assert again.positions.tobytes() == put.positions.tobytes()
    assert again.actions.tobytes() == put.actions.tobytes()


def test_boxes_are_those_of_what_is_seen(performer: Performer, put: Rollout) -> None:
    world = performer.world
    world.dress(put.scene)
    world.place(put.positions[0])
    size = recorded_size(ROBOT, "front")
    mask = world.segment("front", *size)
    boxes = world.seen_boxes("front", *size)
    for index, name in enumerate(world.names):
        x1, y1, x2, y2 = boxes[name].astype(int)
        inside = mask[y1:y2, x1:x2] == index
        assert inside.any(axis=0).all() or inside.any(axis=1).all()
        assert inside.sum() == (mask == index).sum()
        (middle,) = world.project([world.state()[name].position], "front", *size)
        assert x1 - 3 < middle[0] < x2 + 3 and y1 - 3 < middle[1] < y2 + 3


def test_a_rollout_is_drawn_again_under_another_look(performer: Performer, put: Rollout) -> None:
    world = performer.world
    objects = [(thing.name, thing.colour) for thing in put.scene.things]
    wild = sample_look(np.random.default_rng(3), ROBOT, objects, "full")
    repainted = replace(wild, cameras=put.scene.look.cameras)
    (plain,), (painted,), (shaken,) = (
        draw(world, put, look, [seed])
        for seed, look in enumerate((put.scene.look, repainted, wild))
    )
    assert plain.action.tobytes() == painted.action.tobytes() == shaken.action.tobytes()
    np.testing.assert_allclose(plain.boxes, painted.boxes, atol=1.0)
    np.testing.assert_array_equal(plain.tip_pixel, painted.tip_pixel)
    assert np.abs(plain.images["front"].astype(int) - painted.images["front"]).mean() > 5
    assert np.abs(plain.tip_pixel - shaken.tip_pixel).max() > 1
    assert len(plain) == len(put) and plain.pick == put.scene.steps[0].pick
    grasped = plain.boxes[0, plain.objects.index(plain.pick)]
    assert (plain.pick_point[0] > grasped[:2] - 3).all()
    assert (plain.pick_point[0] < grasped[2:] + 3).all()


def test_what_is_hidden_is_no_example(performer: Performer, put: Rollout) -> None:
    front = put.scene.look.cameras[0]
    away = replace(front, look_at=front.position + np.array([1.0, 0.0, 0.0]))
    look = replace(put.scene.look, cameras=(away, *put.scene.look.cameras[1:]))
    with pytest.raises(RolloutError, match="hidden when the step begins"):
        draw(performer.world, put, look, [0])


def test_what_no_policy_should_learn_is_told(performer: Performer, put: Rollout) -> None:
    world = performer.world
    world.dress(put.scene)
    world.place(put.positions[-1])
    validate(world, put)
    jumping = replace(put, actions=put.actions * 5.0)
    with pytest.raises(RolloutError, match="put: the commanded motion jumps"):
        validate(world, jumping)
    still = replace(put, actions=np.repeat(put.actions[:1] * 0.0, 20, axis=0))
    with pytest.raises(RolloutError, match="stood still"):
        validate(world, still)
    address = world.model.jnt_qposadr[world.model.body(put.scene.steps[0].pick).jntadr[0]]
    positions = put.positions[-1].copy()
    positions[address + 2] = -0.5
    world.place(positions)
    with pytest.raises(RolloutError, match="fell off the table"):
        validate(world, put)


def test_snapshots_hold_things_now_and_then(sampler: Sampler, performer: Performer) -> None:
    photographer = Photographer(performer.world)
    shots = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        laid = sampler.sample(rng, load_split("seen"), ["put"], "low", checked=False)
        try:
            shots.append(photographer.shoot(laid, rng))
        except RolloutError as error:
            assert "hidden" in str(error)
    held = [shot for shot in shots if shot.holding]
    assert len(shots) >= 8 and held
    for shot in held:
        assert np.linalg.norm(shot.pick_point - shot.tip_pixel) < 3


@pytest.mark.parametrize("robot", ["franka_fr3", "google_robot"])
def test_other_robots_find_grasps(robot: str) -> None:
    embodiment = load_embodiment(robot)
    laid = Sampler(embodiment).sample(np.random.default_rng(2), load_split("seen"), ["put"])
    world = TaskWorld(embodiment)
    world.reset(laid)
    grasp = GraspPlanner(embodiment).choose(laid.steps[0], world.state())
    assert grasp is not None and grasp.clear and abs(grasp.yaw) <= np.pi


def test_a_drawer_moves_along_its_way_only(sampler: Sampler, performer: Performer) -> None:
    laid = next(s for s in (scene(sampler, "drawer", n) for n in range(9)) if s.things)
    world = performer.world
    world.reset(laid)
    (name,) = (thing.name for thing in laid.things if thing.kind == "drawer")
    out = world.state().drawers[name]
    assert -0.001 <= out <= TRAVEL + 0.001
    handle = world.state()[f"{name} handle"].position
    drawer = world.state()[name]
    away = drawer.own(handle)
    assert away[0] == pytest.approx(drawer.size[0] / 2 + 0.017 + out, abs=2e-3)
    assert np.abs(away[1:]).max() < 2e-3
