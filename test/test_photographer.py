"""Pictures taken while the world goes on."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from internvla_ros.evaluate.tabletop import held_out_scene
from internvla_ros.robots.embodiment import CameraSpec, load_embodiment
from internvla_ros.sim.photographer import Photographer
from internvla_ros.sim.world import World

ROBOT = load_embodiment("widowx_250s")
Picture = NDArray[np.uint8]


def test_a_picture_shows_the_moment_it_was_asked_for() -> None:
    world = World(ROBOT)
    world.reset(held_out_scene(1, 0, ROBOT))
    front = ROBOT.camera("front")
    before = world.render("front", front.width, front.height)
    gate, taken = threading.Event(), []

    def deliver(camera: CameraSpec, picture: Picture, t: float) -> None:
        taken.append((camera.name, picture.copy(), t))
        gate.wait(10.0)

    photographer = Photographer(world, deliver)
    try:
        assert photographer.take((front,), 1.5)
        world.command(ROBOT.ready, 0.0)
        world.step(0.5)
        assert not photographer.take((front,), 2.0)  # the first one is still being delivered
        gate.set()
        photographer.rest()
        assert photographer.take(ROBOT.cameras, 2.5)
        photographer.rest()
    finally:
        photographer.close()
    assert [(name, t) for name, _, t in taken] == [("front", 1.5), ("front", 2.5), ("wrist", 2.5)]
    np.testing.assert_array_equal(taken[0][1], before)
    np.testing.assert_array_equal(taken[1][1], world.render("front", front.width, front.height))
    assert (taken[1][1] != before).any()


def test_a_scene_may_change_between_pictures() -> None:
    world, taken = World(ROBOT), []
    photographer = Photographer(world, lambda camera, picture, t: taken.append(picture.copy()))
    front = ROBOT.camera("front")
    try:
        for index in range(2):
            photographer.rest()
            world.reset(held_out_scene(1, index, ROBOT))
            assert photographer.take((front,), float(index))
        photographer.rest()
    finally:
        photographer.close()
    assert not photographer.take((front,), 3.0)
    np.testing.assert_array_equal(taken[1], world.render("front", front.width, front.height))


def test_what_went_wrong_is_told_at_the_next_picture() -> None:
    def refuse(camera: CameraSpec, picture: Picture, t: float) -> None:
        raise OSError("nobody wants it")

    photographer = Photographer(World(ROBOT), refuse)
    assert photographer.take((ROBOT.camera("front"),), 0.0)
    photographer.rest()
    with pytest.raises(RuntimeError, match="cannot be rendered: nobody wants it"):
        photographer.take((ROBOT.camera("front"),), 0.1)
    photographer.close()
