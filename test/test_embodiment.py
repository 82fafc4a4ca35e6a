"""Embodiments: what is read from config/robots, and how mistakes there are told."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.resources import ResourceError, resource
from internvla_ros.robots.embodiment import (
    CameraSpec,
    EmbodimentError,
    known_embodiments,
    load_embodiment,
)

ROBOT = load_embodiment("widowx_250s")
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


@pytest.mark.parametrize("name", known_embodiments())
def test_velocity_limits_close_in_towards_the_ends(name: str) -> None:
    robot = load_embodiment(name)
    rng = np.random.default_rng(0)
    for q in rng.uniform(robot.position_lower, robot.position_upper, (200, len(robot.joints))):
        slowest, fastest = robot.velocity_limits(q)
        assert (-robot.velocity <= slowest).all() and (slowest <= 0).all()
        assert (fastest <= robot.velocity).all() and (fastest >= 0).all()


def test_fr3_velocity_limits_are_the_published_ones() -> None:
    robot = load_embodiment("franka_fr3")
    q = np.array([2.70, -1.70, 0.0, -0.20, 0.0, 0.60, 3.0])
    slowest, fastest = robot.velocity_limits(q)
    assert fastest[0] == pytest.approx(np.sqrt(12.0 * (2.7501 - 2.70)) - 0.30)
    assert fastest[3] == pytest.approx(np.sqrt(8.0 * (-0.1458 + 0.20)) - 0.30)
    assert slowest[1] == pytest.approx(0.20 - np.sqrt(5.17 * (1.7918 - 1.70)))
    assert slowest[5] == pytest.approx(0.35 - np.sqrt(11.0 * (0.60 - 0.54092)))
    assert fastest[2] == 2.62 and slowest[0] == -2.62
    at_the_end, _ = robot.velocity_limits(robot.position_lower)
    np.testing.assert_allclose(at_the_end, 0.0, atol=0.005)


@pytest.mark.parametrize("name", known_embodiments())
def test_down_is_a_rotation_whose_tip_axis_points_down(name: str) -> None:
    robot = load_embodiment(name)
    np.testing.assert_allclose(robot.down.T @ robot.down, np.eye(3), atol=1e-12)
    assert np.linalg.det(robot.down) == pytest.approx(1.0)
    out = robot.down[:, "xyz".index(robot.tip_axis)]
    assert out[1] == 0.0 and out[2] < -0.85
    assert np.arctan2(-out[0], -out[2]) == pytest.approx(robot.tabletop.tilt)
    assert abs(robot.down[1, 1]) == 1.0


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
        ("fovy: 35.0", "fovy: 35.0\n    fov: 35.0", "fov: is not known here; known are fovy"),
        ("fovy: 35.0", "fovy: 35.0\n    fovy: 35.0", "stands here twice"),
        ("unnorm_key:", "norm_key: a\nunnorm_key:", "norm_key: is not known"),
        ("gripper_sign: 1 ", "gripper_sign: 2 ", "expected 1 or -1"),
        ("gripper_sign: 1 ", "gripper_sign: 0 ", "expected 1 or -1"),
        ("gripper_latch: 0", "gripper_latch: -1", "at least 0"),
        ("gripper_mode: absolute", "gripper_mode: same", "expected one of absolute, relative"),
        ("delta_frame: base", "delta_frame: world", "expected one of base, tip"),
        ("mirror: [1.0,", "mirror: [2.0,", "must begin with 1"),
        ("mirror: [1.0, -1.0]", "mirror: [1.0]", "expected 2 finite numbers"),
        ("joints: [left_finger, right_finger]", "joints: [a, a]", "different names"),
        ("torque: [4.1,", "torque: [-4.1,", "positive"),
        ("jerk: [800.0,", "jerk: [true,", "expected 6 finite numbers"),
        ("stiffness: [2500.0,", "stiffness: ['2500.0',", "expected 6 finite numbers"),
        ("turn_acceleration: 15.0", "turn_acceleration: .inf", "positive"),
        ("  ignored:", "  ignored: none\n  not_read:", "a list of pairs"),
        ("    - [gripper_bar_link, lower_forearm_link]", "    - [a, b]\n    - [c]", "a pair of"),
        ("table_ignored: [base_link,", "table_ignored: [3,", "a list of names"),
        ("floor: -0.6", "floor: 0.5", "below the height"),
        ("x: [0.20, 0.40]", "x: [0.40, 0.20]", "rising"),
        ("x: [0.20, 0.40]", "x: [0.20, 0.60]", "table's edge"),
        ("opening: 1.0 ", "opening: 1.5 ", "at most 1"),
        ("tip_axis: x", "tip_axis: y", "expected one of x, z"),
        ("    frame: base_link\n", "", "frame: is missing"),
        ("upper: [0.48, 0.32, 0.40]", "upper: !!python/object [1]", "cannot be read"),
        ("upper: [0.48,", "upper: [0.05,", "must be above lower"),
        ("open: 0.037", "open: 0.015", "must differ from closed"),
        ("chunk_size: 16", "chunk_size: 1.5", "whole number"),
        ("chunk_size: 16", "chunk_size: -1", "at least 1"),
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
    line = int(str(told.value).removeprefix(f"{path}:").split(":")[0])
    changed = path.read_text().splitlines()
    first = next(i for i, now in enumerate(changed) if now != text.splitlines()[i])
    added = after.count("\n")
    assert "is missing" in message or first + 1 <= line <= first + 1 + added


def test_the_line_is_the_right_one(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(WIDOWX.read_text().replace("fovy: 35.0", "fovy: wide"))
    line = 1 + path.read_text().splitlines().index("    fovy: wide")
    with pytest.raises(EmbodimentError, match=f":{line}: fovy"):
        load_embodiment(path)


def test_text_that_is_no_yaml_is_told_with_a_line(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text("name: a\njoints: [1\nb: 2\n")
    with pytest.raises(EmbodimentError, match=r"robot.yaml:3: expected"):
        load_embodiment(path)
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(EmbodimentError, match="is not UTF-8 text"):
        load_embodiment(path)


@given(st.data())
def test_no_damage_to_a_file_is_told_as_anything_else(data: st.DataObject) -> None:
    """One line cut, doubled or spoilt: the file loads, or the error names the file and a line."""
    lines = WIDOWX.read_text().splitlines()
    i = data.draw(st.integers(0, len(lines) - 1))
    spoilt = data.draw(st.sampled_from(["", lines[i] * 2, lines[i] + " x", lines[i][:-3], "  - :"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "robot.yaml"
        path.write_text("\n".join([*lines[:i], spoilt, *lines[i + 1 :]]))
        try:
            robot = load_embodiment(path)
        except EmbodimentError as error:
            assert re.match(rf"{re.escape(str(path))}:\d+: ", str(error))
        else:
            assert np.isfinite(robot.ready).all()


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "robot", "joints: 3\n"])
def test_files_that_are_no_robots(tmp_path: Path, text: str) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(EmbodimentError, match="mapping"):
        load_embodiment(path)


@given(st.floats(0, 1))
def test_gripper_opening_and_position_agree(opening: float) -> None:
    gripper = ROBOT.gripper
    assert gripper.opening(gripper.position(opening)) == pytest.approx(opening)


@given(st.floats(-10, 10))
def test_gripper_stays_in_its_range(value: float) -> None:
    gripper = ROBOT.gripper
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
