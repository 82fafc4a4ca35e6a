"""The parts that nodes are made of, without ROS: pairing, pacing, joints, instructions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.motion.trajectory import TrajectoryError, TrajectoryFollower
from internvla_ros.nodes.instruction import InstructionError, check_instruction
from internvla_ros.nodes.joints import JointHistory, JointReader, JointReading, JointStateError
from internvla_ros.nodes.pacing import RateLimit, RateMeter
from internvla_ros.nodes.pairing import StampPairer
from internvla_ros.robots.embodiment import load_embodiment


def test_pairs_what_belongs_together_in_any_order() -> None:
    pairer: StampPairer[str] = StampPairer(["a", "b", "c"], tolerance=0.02)
    assert pairer.add("b", 1.00, "b1") is None
    assert pairer.add("c", 1.01, "c1") is None
    assert pairer.add("b", 1.10, "b2") is None
    assert pairer.missing(1.0) == ["a"]
    assert pairer.add("a", 1.00, "a1") == ["a1", "b1", "c1"]
    assert pairer.add("c", 1.10, "c2") is None
    assert pairer.add("a", 1.10, "a2") == ["a2", "b2", "c2"]


def test_never_gives_an_item_twice_nor_an_older_one_later() -> None:
    pairer: StampPairer[int] = StampPairer(["a", "b"], tolerance=0.05)
    pairer.add("a", 1.0, 1)
    assert pairer.add("b", 1.01, 2) == [1, 2]
    assert pairer.add("b", 1.02, 3) is None


def test_a_clock_that_is_set_back_starts_anew() -> None:
    pairer: StampPairer[int] = StampPairer(["a", "b"], tolerance=0.01)
    pairer.add("a", 100.0, 1)
    assert pairer.add("a", 2.0, 2) is None
    assert pairer.add("b", 2.0, 3) == [2, 3]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 2)), max_size=60))
def test_pairs_are_within_the_tolerance(events: list[tuple[str, float]]) -> None:
    pairer: StampPairer[float] = StampPairer(["a", "b"], tolerance=0.1)
    for stream, stamp in events:
        pair = pairer.add(stream, stamp, stamp)
        assert pair is None or abs(pair[0] - pair[1]) <= 0.1 + 1e-6


def test_a_rate_limit_keeps_its_mean_rate() -> None:
    limit = RateLimit(6.0)
    passed = sum(limit.ready(i / 10.0) for i in range(1000))
    assert passed == pytest.approx(600, abs=2)


def test_a_rate_limit_lets_a_source_of_its_own_rate_through() -> None:
    limit = RateLimit(10.0)
    jitter = np.random.default_rng(0).uniform(-0.004, 0.004, 200)
    assert sum(limit.ready(i / 10.0 + jitter[i]) for i in range(200)) >= 198


def test_a_rate_limit_does_not_catch_up_after_a_pause() -> None:
    limit = RateLimit(1.0)
    assert limit.ready(0.0)
    assert limit.ready(10.0)
    assert not limit.ready(10.2)
    assert limit.ready(0.0)  # the clock was set back


def test_a_rate_meter() -> None:
    meter = RateMeter(window=1.0)
    assert meter.rate(0.0) == 0.0
    for i in range(100):
        meter.tick(i * 0.02)
    assert meter.rate(1.98) == pytest.approx(50.0)
    assert meter.rate(5.0) == 0.0


def test_joints_are_found_by_name() -> None:
    robot = load_embodiment("widowx_250s")
    names = [*reversed(robot.joints), "other", *robot.gripper.joints]
    positions = [*reversed(range(6)), 9.0, robot.gripper.open, -1.0]
    reading = JointReader(robot).read(1.0, names, positions)
    assert reading is not None
    assert reading.positions.tolist() == [0, 1, 2, 3, 4, 5]
    assert reading.gripper == 1.0


def test_a_joint_state_that_lacks_something() -> None:
    robot = load_embodiment("widowx_250s")
    reader = JointReader(robot)
    names = [*robot.joints, *robot.gripper.joints]
    with pytest.raises(JointStateError, match="lacks waist"):
        reader.read(1.0, names[1:], [0.0] * 7)
    with pytest.raises(JointStateError, match="8 names and 3 positions"):
        reader.read(1.0, names, [0.0] * 3)
    with pytest.raises(JointStateError, match="not finite"):
        reader.read(1.0, names, [float("nan")] * 8)


def test_a_gripper_may_tell_of_its_finger_by_itself() -> None:
    robot = load_embodiment("franka_fr3")
    reader, arm, finger = JointReader(robot), robot.ready.tolist(), robot.gripper.joints[0]
    with pytest.raises(JointStateError, match=f"lacks {finger}; it has fr3_joint1"):
        reader.read(1.0, robot.joints, arm)
    assert reader.read(1.1, [finger], [robot.gripper.open]) is None
    reading = reader.read(1.2, robot.joints, arm)
    assert reading is not None
    assert (reading.stamp, reading.gripper) == (1.2, 1.0)
    with pytest.raises(JointStateError, match="lacks fr3_joint7"):
        reader.read(1.3, robot.joints[:-1], arm[:-1])


def test_a_joint_history_finds_the_nearest() -> None:
    history = JointHistory(depth=3)
    assert history.newest is None
    assert history.at(1.0, 9.0) is None
    for stamp in (1.0, 1.1, 1.2, 1.3):
        history.add(JointReading(stamp, np.zeros(6), 1.0))
    found = history.at(1.22, 0.05)
    assert found is not None
    assert found.stamp == 1.2
    assert history.at(1.0, 0.05) is None
    history.add(JointReading(0.5, np.zeros(6), 1.0))
    assert history.at(1.2, 0.1) is None


def test_an_instruction_is_text_on_one_line() -> None:
    assert check_instruction("  put the cube in the bowl ") == "put the cube in the bowl"
    assert check_instruction("把红色方块放进碗里") == "把红色方块放进碗里"
    for text, words in (
        ("", "is empty"),
        ("  ", "is empty"),
        ("x" * 10_000, "10000 characters"),
        ("put\nit", r"U\+000A"),
        ("put \x1b[31mit", r"U\+001B"),
    ):
        with pytest.raises(InstructionError, match=words):
            check_instruction(text)


NAMES = ["a", "b"]
Points = list[tuple[float, list[float], list[float]]]


def follower() -> TrajectoryFollower:
    return TrajectoryFollower(NAMES, np.zeros(2))


def test_holds_where_it_starts() -> None:
    positions, velocities = follower().sample(123.0)
    assert positions.tolist() == velocities.tolist() == [0.0, 0.0]


def test_follows_with_velocities_and_holds_the_end() -> None:
    arm = follower()
    arm.follow(1.0, 1.0, ["b", "a"], [(1.0, [2.0, 1.0], [0, 0]), (2.0, [2.0, 3.0], [0, 0])])
    assert arm.sample(1.5)[0] == pytest.approx([0.5, 1.0])
    assert arm.sample(2.0)[0] == pytest.approx([1.0, 2.0])
    assert arm.sample(2.5)[0] == pytest.approx([2.0, 2.0])
    positions, velocities = arm.sample(9.0)
    assert positions == pytest.approx([3.0, 2.0])
    assert velocities == pytest.approx([0.0, 0.0])


def test_goes_straight_without_velocities() -> None:
    arm = follower()
    arm.follow(0.0, 0.0, NAMES, [(1.0, [1, 1], []), (2.0, [3, 1], [])])
    assert arm.sample(0.25)[0] == pytest.approx([0.25, 0.25])
    assert arm.sample(1.5)[0] == pytest.approx([2.0, 1.0])
    assert arm.sample(1.5)[1] == pytest.approx([2.0, 0.0])


def test_a_stream_of_short_trajectories_is_smooth() -> None:
    """What arm_node sends: the next setpoint and a stop after it, every 20 ms."""
    arm, samples = follower(), []
    for k in range(100):
        now = 0.02 * k
        x, v = np.sin(now + 0.02), np.cos(now + 0.02)
        points: Points = [(0.02, [x, 0], [v, 0]), (0.12, [x + 0.05 * v, 0], [0, 0])]
        arm.follow(now, now, NAMES, points)
        samples += [arm.sample(now + 0.005 * i)[0][0] for i in range(4)]
    track = np.array(samples[4:])
    assert track == pytest.approx(np.sin(0.005 * np.arange(4, 400)), abs=1e-3)


def test_what_is_past_when_it_arrives_is_skipped() -> None:
    arm = follower()
    arm.follow(5.0, 1.0, NAMES, [(1.0, [1, 1], []), (2.0, [2, 2], [])])
    assert arm.sample(5.0)[0] == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize(
    ("names", "points", "words"),
    [
        (["a"], [(1.0, [0.0], [])], "lacks joints b"),
        (NAMES, [], "no points"),
        (NAMES, [(1.0, [0.0], [])], "1 positions"),
        (NAMES, [(1.0, [0.0, 0.0], [1.0])], "1 velocities"),
        (NAMES, [(1.0, [0.0, float("inf")], [])], "not finite"),
        (NAMES, [(1.0, [0.0, 0.0], []), (1.0, [1.0, 0.0], [])], "must increase"),
    ],
)
def test_a_trajectory_that_cannot_be_followed(names: list[str], points: Points, words: str) -> None:
    arm = follower()
    with pytest.raises(TrajectoryError, match=words):
        arm.follow(0.0, 0.0, names, points)
    assert arm.sample(1.0)[0].tolist() == [0.0, 0.0]
