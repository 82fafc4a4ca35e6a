"""Embodiments: what is read from config/robots, and how mistakes there are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.resources import ResourceError, resource
from internvla_ros.robots.embodiment import (
    CameraSpec,
    EmbodimentError,
    Gripper,
    known_embodiments,
    load_embodiment,
)

WIDOWX = resource("config/robots/widowx_250s.yaml")


@pytest.mark.parametrize("name", known_embodiments())
def test_every_robot_that_ships_loads(name: str) -> None:
    robot = load_embodiment(name)
    assert robot.name == name
    n = len(robot.joints)
    for limits in (robot.velocity, robot.acceleration, robot.jerk, robot.ready):
        assert limits.shape == (n,)
    assert (robot.position_lower < robot.position_upper).all()
    assert (robot.workspace[0] < robot.workspace[1]).all()


def test_widowx_has_what_the_policy_needs() -> None:
    robot = load_embodiment("widowx_250s")
    assert [camera.name for camera in robot.cameras] == ["front", "wrist"]
    assert (robot.control_rate, robot.policy_rate, robot.chunk_size) == (50.0, 5.0, 16)
    assert robot.action.rotation == "rpy" and robot.action.anchor == "target"
    assert not robot.ready.flags.writeable


def test_unknown_robot_names_the_known_ones() -> None:
    with pytest.raises(EmbodimentError, match=r"unknown robot 'r2d2'.*widowx_250s"):
        load_embodiment("r2d2")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(EmbodimentError, match="cannot read"):
        load_embodiment(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("fovy: 35.0", "fovy: wide", "fovy: expected a number, found 'wide'"),
        ("fovy: 35.0", "fovy: 190", "below 180"),
        ("rotation: rpy ", "rotation: euler ", "expected one of rpy, rotvec"),
        ("name: widowx_250s", "nom: widowx_250s", "name: is missing"),
        ("lower: [0.10,", "lower: [0.90,", "must be above lower"),
        ("closed: 0.015", "closed: 0.5", "must be above closed"),
        ("chunk_size: 16", "chunk_size: 1.5", "whole number"),
        ("chunk_size: 16", "chunk_size: -1", "positive"),
        ("chunk_size: 16", "chunk_size: [16", "expected"),
        ("look_at: [0.275, 0.0, 0.045]", "look_at: [0.74, 0.0, 0.0]", "straight"),
        ("look_at: [0.275, 0.0, 0.045]", "look_at: [0.275, .nan, 0]", "finite"),
        ("ready: [0.0,", "ready: [9.0,", "outside the position limits"),
    ],
)
def test_mistakes_are_told_with_file_and_line(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    text = WIDOWX.read_text()
    assert before in text
    path = tmp_path / "robot.yaml"
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(EmbodimentError, match=message) as told:
        load_embodiment(path)
    assert str(told.value).startswith(f"{path}:")
    assert int(str(told.value).removeprefix(f"{path}:").split(":")[0]) >= 1


def test_the_line_is_the_right_one(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(WIDOWX.read_text().replace("fovy: 35.0", "fovy: wide"))
    line = 1 + path.read_text().splitlines().index("    fovy: wide")
    with pytest.raises(EmbodimentError, match=f":{line}: fovy"):
        load_embodiment(path)


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "robot", "joints: 3\n"])
def test_files_that_are_no_robots(tmp_path: Path, text: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(EmbodimentError, match="mapping"):
        load_embodiment(path)


@given(st.floats(0, 1))
def test_gripper_opening_and_position_agree(opening: float) -> None:
    gripper = Gripper(("left",), closed=0.015, open=0.037, velocity=0.1)
    assert gripper.opening(gripper.position(opening)) == pytest.approx(opening)


@given(st.floats(-10, 10))
def test_gripper_stays_in_its_range(value: float) -> None:
    gripper = Gripper(("left",), closed=0.015, open=0.037, velocity=0.1)
    assert 0.0 <= gripper.opening(value) <= 1.0
    assert 0.015 <= gripper.position(value) <= 0.037


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=3),
    st.lists(st.floats(-1, 1), min_size=2, max_size=2),
)
def test_optical_frame_is_right_handed_and_looks_at_its_target(
    position: list[float], away: list[float]
) -> None:
    if np.hypot(*away) < 0.05:
        return
    start = np.array(position)
    target = start + np.array([*away, -0.5])
    camera = CameraSpec("c", "base_link", 640, 480, 40.0, start, target)
    rotation = camera.optical_rotation()
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    local = rotation.T @ (target - start)
    np.testing.assert_allclose(local[:2], 0.0, atol=1e-12)
    assert local[2] > 0
    assert rotation[2, 1] < 0  # the picture's v axis points down


def test_intrinsics_scale_with_the_picture() -> None:
    camera = load_embodiment("widowx_250s").camera("front")
    full, half = camera.intrinsics(), camera.intrinsics(320, 240)
    np.testing.assert_allclose(half[:2], full[:2] / 2)
    assert full[0, 2] == 320 and full[1, 2] == 240


def test_unknown_camera() -> None:
    with pytest.raises(EmbodimentError, match=r"no camera 'rear'; it has front, wrist"):
        load_embodiment("widowx_250s").camera("rear")


def test_resources_say_where_they_searched() -> None:
    with pytest.raises(ResourceError, match=r"cannot find config/robots/none.yaml.*searched"):
        resource("config/robots/none.yaml")


def test_installed_share_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = tmp_path / "share" / "internvla_ros"
    share.mkdir(parents=True)
    (share / "only_installed.txt").write_text("here")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert resource("only_installed.txt") == share / "only_installed.txt"
