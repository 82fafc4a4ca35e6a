"""Chunks of every kind, sane and insane, through control and safety: does any limit break?

    python bench/motion.py [--robot all] [--chunks 1000000] [--seconds S] [--seed 0]

Everything between an action chunk and a robot is run, cycle by cycle, with an arm that goes where
it is told: executor, servo, guard, watchdogs, emergency stops, changes of speed. What comes out is
checked by a checker of its own that knows nothing of how it was made: joint positions against
their range, divided differences of the positions over the true times against the limits of
velocity, acceleration and jerk, the tip against its workspace by forward kinematics, and the
distances between the arm's solids, and to the table, against the least allowed.

The tolerances: 1e-9 of a joint's range for positions; 1e-6 of each limit, and what float64 leaves
of a difference, for velocity, acceleration and jerk; a millimetre more than the edge (4 mm) of the
workspace, and a millimetre of clearance.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from internvla_ros.control.chunk import Chunk
from internvla_ros.control.safety import SafetyConfig
from internvla_ros.motion.clearance import Clearance
from internvla_ros.motion.collision import CollisionModel
from internvla_ros.motion.guard import EDGE
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.nodes.arm import ArmController
from internvla_ros.nodes.joints import JointReading
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

Array = NDArray[np.float64]

TASK = "move"
ROUNDING = 1e-6  # share of a velocity, acceleration or jerk limit
MILLIMETRE = 1e-3
RECORDED_SPEED = 0.15  # m/s of the recorded chunks' fastest axis


@dataclass
class Checker:
    """Looks at one setpoint after the other and counts every limit that one breaks.

    `limits`: [3, n] velocity, acceleration and jerk.
    """

    robot: Embodiment
    kinematics: Kinematics
    room: Callable[[Array], float]
    violations: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    setpoints: int = 0

    def __post_init__(self) -> None:
        self._limits = np.array([self.robot.velocity, self.robot.acceleration, self.robot.jerk])
        self._range = self.robot.position_upper - self.robot.position_lower
        self._times: list[float] = []
        self._rows: list[Array] = []

    def rest(self, t: float, q: Array) -> None:
        """At time t (s) the arm rests at joints [n], and has done so for long."""
        period = 1.0 / self.robot.control_rate
        self._times = [t - (2 - i) * period for i in range(3)]
        self._rows = [q] * 3

    def see(self, t: float, q: Array) -> None:
        """A setpoint for time t (s), joints [n]."""
        self.setpoints += 1
        if not np.isfinite(q).all():
            self.violations["finite"] += 1
            return
        self._times, self._rows = [*self._times, t][-4:], [*self._rows, q][-4:]
        beyond = np.maximum(self.robot.position_lower - q, q - self.robot.position_upper)
        self._note("position", float((beyond / self._range).max()), 1e-9)
        self._differences()
        lower, upper = self.robot.workspace
        tip = self.kinematics.forward(q).position
        outside = float(np.maximum(lower - tip, tip - upper).max())
        self._note("workspace", outside, max(EDGE + MILLIMETRE, self._start_outside))
        self._note("clearance", -self.room(q), max(MILLIMETRE, self._start_intrusion))

    def start(self, q: Array) -> None:
        """Where the arm begins may be no good place: it must not become worse from there."""
        lower, upper = self.robot.workspace
        tip = self.kinematics.forward(q).position
        self._start_outside = float(np.maximum(lower - tip, tip - upper).max()) + MILLIMETRE
        self._start_intrusion = MILLIMETRE - self.room(q)

    def _differences(self) -> None:
        """Divided differences: means of the derivatives over the time that they span."""
        t, rows = self._times, list(self._rows)
        for order, name in enumerate(("velocity", "acceleration", "jerk"), start=1):
            rows = [
                order * (b - a) / (t[i + order] - t[i])
                for i, (a, b) in enumerate(itertools.pairwise(rows))
            ]
            shortest = min(b - a for a, b in itertools.pairwise(t))
            rounding = 2.0**order * 4e-16 * math.pi / shortest**order
            # Times are seconds since an epoch; what they are rounded by moves the differences too.
            rounding += ROUNDING * self._limits[order - 1]
            excess = np.abs(rows[-1]) - self._limits[order - 1] - rounding
            self._note(name, float((excess / self._limits[order - 1]).max()), 0.0)

    def _note(self, name: str, excess: float, tolerance: float) -> None:
        self.worst[name] = max(self.worst.get(name, -math.inf), excess)
        if excess > tolerance:
            self.violations[name] += 1


Maker = Callable[["Source"], Chunk]


class Source:
    """Draws chunks of all kinds, as from a policy that may be good, bad or broken."""

    def __init__(self, robot: Embodiment, rng: np.random.Generator) -> None:
        self.robot, self.rng = robot, rng
        self.now, self.sequence = 0.0, 0
        self._reach: Array = np.zeros(3)
        self.kinds: dict[str, Maker] = {
            "recorded": Source.recorded,
            "random": Source.random,
            "step": Source.step,
            "spike": Source.spike,
            "zigzag": Source.zigzag,
            "not finite": Source.not_finite,
            "wrong shape": Source.wrong_shape,
            "wrong time": Source.wrong_time,
        }

    def draw(self) -> tuple[str, Chunk]:
        """A chunk of any kind, and which."""
        kind = str(self.rng.choice(list(self.kinds)))
        self.sequence += 1
        return kind, self.kinds[kind](self)

    def recorded(self) -> Chunk:
        """As from a demonstration: a straight reach, its speed bell-shaped, then a grasp."""
        if self.rng.random() < 0.1:
            self._reach = self.rng.normal(0.0, 1.0, 3)
            self._reach *= RECORDED_SPEED / np.abs(self._reach).max()
        steps = self.robot.chunk_size
        bell = np.sin(np.linspace(0.1, np.pi, steps))
        actions = np.zeros((steps, 7))
        actions[:, :3] = bell[:, None] * self._reach * self._dt
        actions[:, 5] = 0.1 * bell * self._reach[0]
        actions[:, 6] = np.arange(steps) < steps // 2
        return self._chunk(actions)

    def random(self) -> Chunk:
        """Deltas of any size."""
        scale = self.rng.choice([0.003, 0.01, 0.03, 0.1])
        return self._chunk(np.column_stack([self.rng.normal(0, scale, (8, 6)), self._grips(8)]))

    def step(self) -> Chunk:
        """As far as it goes into one direction, along the axes or across."""
        direction = self.rng.choice([-1.0, 0.0, 1.0], 6) * [0.08, 0.08, 0.08, 0.5, 0.5, 0.5]
        return self._chunk(np.column_stack([np.tile(direction, (8, 1)), self._grips(8)]))

    def spike(self) -> Chunk:
        """Nothing but one great leap."""
        actions = np.zeros((8, 7))
        actions[self.rng.integers(8), :6] = self.rng.normal(0, 0.2, 6)
        return self._chunk(actions)

    def zigzag(self) -> Chunk:
        """To and fro, as fast as steps go."""
        actions = np.column_stack([np.tile(self.rng.normal(0, 0.06, 6), (8, 1)), self._grips(8)])
        actions[1::2, :6] *= -1.0
        return self._chunk(actions)

    def not_finite(self) -> Chunk:
        """With numbers that are none."""
        chunk = self.random()
        place = self.rng.integers(8), self.rng.integers(7)
        chunk.actions[place] = self.rng.choice([math.nan, math.inf, -math.inf, 1e300])
        return chunk

    def wrong_shape(self) -> Chunk:
        """Too few numbers, none at all, or in the wrong order."""
        shape = [(0, 7), (8, 6), (8, 8), (7,), (2, 8, 7)][self.rng.integers(5)]
        return self._chunk(self.rng.normal(0, 0.03, shape))

    def wrong_time(self) -> Chunk:
        """From the past or the future, of steps that last no time, again or out of order."""
        chunk = self.random()
        stamp = self.now + self.rng.choice([-10.0, -0.9, 0.09, 0.2, 1e6, math.nan, -math.inf])
        dt = self.rng.choice([0.2, 0.0, -1.0, 1e-6, 1e3, math.nan])
        sequence = self.sequence - int(self.rng.integers(0, 3))
        return Chunk(float(stamp), float(dt), chunk.actions, sequence)

    @property
    def _dt(self) -> float:
        return 1.0 / self.robot.policy_rate

    def _grips(self, steps: int) -> Array:
        return self.rng.choice([0.0, 1.0, 0.5, 0.45, -3.0], steps)

    def _chunk(self, actions: Array) -> Chunk:
        delay = float(self.rng.choice([0.0, 0.02, 0.1, 0.3]))
        return Chunk(self.now - delay, self._dt, actions, self.sequence)


class Trial:
    """One robot under fire."""

    def __init__(self, robot: Embodiment, seed: int) -> None:
        self.robot = robot
        self.rng = np.random.default_rng(seed)
        self.source = Source(robot, self.rng)
        self.kinematics = Kinematics(urdf(robot.name), robot.joints, robot.tip_frame)
        self.arm = ArmController(
            robot,
            Kinematics(urdf(robot.name), robot.joints, robot.tip_frame),
            chunk_timeout=1.0,
            safety=SafetyConfig(),
            room=Clearance(CollisionModel(robot)),
        )
        self.checker = Checker(robot, self.kinematics, CollisionModel(robot).room)
        self.period = 1.0 / robot.control_rate
        self.now = 100.0
        self.q = robot.ready.copy()
        self.checker.start(self.q)
        self.microseconds: list[float] = []
        self.sent: Counter[str] = Counter()
        self.accepted = 0
        self._noise = 0.0  # before the first setpoint the arm starts from where it is measured
        self.arm.instruct(TASK, self.now)
        self.cycles(2)

    def cycles(self, count: int, joints: bool = True) -> None:
        """Control cycles, each a period later; without `joints` the robot tells nothing."""
        for _ in range(count):
            self.now += self.period
            self.cycle(joints)

    def cycle(self, joints: bool = True) -> None:
        """One control cycle now."""
        if joints:
            noise = self._noise * self.rng.normal(0.0, 1e-4, len(self.q))
            self.arm.joints(JointReading(self.now, self.q + noise, 1.0), self.now)
        began = time.thread_time_ns()
        report = self.arm.cycle(self.now)
        took = 1e-3 * (time.thread_time_ns() - began)
        if report.command is None:
            self.checker.rest(self.now + self.period, self.q)
            return
        self._noise = 1.0
        self.microseconds.append(took)
        self.q = report.command.positions
        self.checker.see(self.now + self.period, self.q)

    def chunk(self) -> None:
        """One chunk arrives, and a few cycles pass, or something worse."""
        self.source.now = self.now
        kind, chunk = self.source.draw()
        self.sent[kind] += 1
        with np.errstate(all="ignore"):
            self.accepted += not self.arm.add(chunk, TASK, self.now)
        self.disturb()
        self.cycles(int(self.rng.integers(1, 8)))

    def disturb(self) -> None:
        """Now and then something else happens."""
        chance = self.rng.random()
        if chance < 0.01:  # the node was held up
            self.now += float(self.rng.exponential(0.1))
            self.cycle()
        elif chance < 0.02:  # the policy has gone
            self.cycles(int(self.rng.integers(1, round(2.0 / self.period))))
        elif chance < 0.022:  # the robot is silent
            self.cycles(round(0.7 / self.period), joints=False)
        elif chance < 0.03:
            self.arm.safety.slow(float(self.rng.choice([0.0, 0.1, 0.5, 1.0, math.nan])))
        elif chance < 0.05:
            self.arm.safety.slow(1.0)
        elif chance < 0.055:
            self.arm.safety.stop("bench")
            self.cycles(int(self.rng.integers(1, round(0.6 / self.period))))
            self.arm.safety.release()
        elif chance < 0.06:
            self.arm.instruct("", self.now)
            self.cycles(int(self.rng.integers(1, round(0.6 / self.period))))
            self.arm.instruct(TASK, self.now)
        elif chance < 0.065:  # a clock that is set back
            self.now -= self.period * float(self.rng.choice([0.5, 1.0]))
            self.arm.cycle(self.now)
            self.now += self.period

    def rows(self) -> Iterator[tuple[str, str]]:
        """What is printed, label and value."""
        times = np.array(self.microseconds)
        accepted = f"{self.accepted} followed"
        yield "chunks", f"{sum(self.sent.values())} ({accepted})"
        yield "setpoints checked", f"{self.checker.setpoints}"
        for name in self.checker.worst:
            yield f"violations: {name}", self._violations(name)
        yield "violations: not finite", str(self.checker.violations["finite"])
        p50, p99 = np.percentile(times, [50, 99])
        yield "us a setpoint, p50 / p99 / most", f"{p50:.0f} / {p99:.0f} / {times.max():.0f}"
        for name, count in sorted(self.arm.safety.counts.items()):
            yield f"prevented: {name}", str(count)

    def _violations(self, name: str) -> str:
        worst, count = self.checker.worst[name], self.checker.violations[name]
        if name in ("workspace", "clearance"):
            return f"{count} (worst {1e3 * worst:+.2f} mm)"
        return f"{count} (nearest {100.0 * (1.0 + worst):.3f} % of the limit)"


def trial(robot: Embodiment, chunks: int, seconds: float, seed: int) -> Trial:
    """A robot under fire for a number of chunks or, if that ends sooner, seconds."""
    made = Trial(robot, seed)
    deadline = time.monotonic() + seconds
    for _ in tqdm(range(chunks), desc=robot.name, mininterval=1.0):
        made.chunk()
        if time.monotonic() > deadline:
            break
    return made


def main() -> int:
    """Print a table a robot; 1 when any limit was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--robot", default="all", help="a robot's name, or 'all'")
    parser.add_argument("--chunks", type=int, default=1_000_000, help="a robot")
    parser.add_argument("--seconds", type=float, default=math.inf, help="a robot, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names = known_embodiments() if args.robot == "all" else [args.robot]
    broken = 0
    for name in names:
        made = trial(load_embodiment(name), args.chunks, args.seconds, args.seed)
        print(f"\n{name}, seed {args.seed}, {made.robot.control_rate:.0f} Hz")
        for label, value in made.rows():
            print(f"  {label:32} {value}")
        broken += sum(made.checker.violations.values())
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
