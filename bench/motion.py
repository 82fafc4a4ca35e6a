"""Chunks of every kind, sane and insane, through control and safety: does any limit break?

    python bench/motion.py [--robot all] [--chunks 1000000] [--seed 0] [--json FILE]

Everything between an action chunk and a robot is run, cycle by cycle, with an arm that goes where
it is told: executor, servo, guard, watchdogs, emergency stops, changes of speed. What comes out is
checked by `motion_checks`, which knows nothing of how it was made. Times are the thread's own, so
that other processes count only as far as they share its core.

A long run is cut into parts, each with its own seed. With --json what each has come to is kept, and
the same command goes on after the last part that was done.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from motion_checks import Checker
from motion_chunks import Source
from motion_tally import Record, Tally
from tqdm import tqdm

from internvla_ros.control.safety import SafetyConfig
from internvla_ros.motion.clearance import Clearance
from internvla_ros.motion.collision import CollisionModel
from internvla_ros.motion.kinematics import Kinematics
from internvla_ros.nodes.arm import ArmController
from internvla_ros.nodes.joints import JointReading
from internvla_ros.robots.description import urdf
from internvla_ros.robots.embodiment import Embodiment, known_embodiments, load_embodiment

TASK = "move"
PART = 5_000  # chunks
ENCODERS = 1e-4  # rad, noise of the joints told


class Trial:
    """One robot under fire."""

    def __init__(self, robot: Embodiment, seed: tuple[int, int]) -> None:
        self.robot = robot
        self.rng = np.random.default_rng(seed)
        self.source = Source(robot, self.rng)
        kinematics, seen = (
            Kinematics(urdf(robot.name), robot.joints, robot.tip_frame) for _ in range(2)
        )
        self.arm = ArmController(
            robot,
            kinematics,
            chunk_timeout=1.0,
            safety=SafetyConfig(),
            room=Clearance(CollisionModel(robot)),
        )
        self.period = 1.0 / robot.control_rate
        self.now = 100.0
        self.q = robot.ready.copy()
        self.checker = Checker(robot, seen, CollisionModel(robot).room, self.q)
        self.nanoseconds: list[int] = []
        self.sent: Counter[str] = Counter()
        self.followed = 0
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
            noise = self._noise * self.rng.standard_normal(len(self.q))
            self.arm.joints(JointReading(self.now, self.q + noise, 1.0), self.now)
        began = time.thread_time_ns()
        report = self.arm.cycle(self.now)
        took = time.thread_time_ns() - began
        if report.command is None:
            self.checker.rest(self.now + self.period, self.q)
            return
        self._noise = ENCODERS
        self.nanoseconds.append(took)
        self.q = report.command.positions
        self.checker.see(self.now + self.period, self.q)

    def chunk(self) -> None:
        """One chunk arrives, and a few cycles pass, or something worse."""
        self.source.now = self.now
        kind, chunk = self.source.draw()
        self.sent[kind] += 1
        with np.errstate(all="ignore"):
            self.followed += not self.arm.add(chunk, TASK, self.now)
        self.disturb()
        self.cycles(int(self.rng.integers(1, 8)))
        self.checker.check()

    def disturb(self) -> None:
        """Now and then something else happens."""
        chance = self.rng.random()
        if chance > 0.065:
            return
        if chance < 0.01:  # the node was held up
            self.now += float(self.rng.exponential(0.1))
            self.cycle()
        elif chance < 0.02:  # the policy has gone
            self.cycles(int(self.rng.integers(1, round(2.0 / self.period))))
        elif chance < 0.022:  # the robot is silent
            self.cycles(round(0.7 / self.period), joints=False)
        elif chance < 0.03:
            self.arm.safety.slow(self.source.one_of([0.0, 0.1, 0.5, 1.0, math.nan]))
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
        else:  # a clock that is set back
            self.now -= self.period * self.source.one_of([0.5, 1.0])
            self.arm.cycle(self.now)
            self.now += self.period

    def tally(self) -> Tally:
        """What has come of it."""
        return Tally(
            sent=self.sent,
            followed=self.followed,
            setpoints=self.checker.setpoints,
            violations=self.checker.violations,
            worst=self.checker.worst,
            prevented=Counter(self.arm.safety.counts),
            microseconds=Counter(took // 1000 for took in self.nanoseconds),
        )


def trials(robot: Embodiment, chunks: int, deadline: float, seed: int, record: Record) -> Tally:
    """A robot under fire for a number of chunks or, if that comes sooner, until a time.

    Parts that `record` holds are not done again; a part that is cut short is not kept.
    """
    part, tally = record.done(robot.name)
    sizes = [min(PART, chunks - first) for first in range(0, chunks, PART)]
    with tqdm(total=chunks, initial=tally.sent.total(), desc=robot.name, mininterval=1.0) as bar:
        for size in sizes[part:]:
            made = Trial(robot, (seed, part))
            gc.collect()
            gc.freeze()  # as nodes do when they are made: what stays need not be looked at again
            for _ in range(size):
                made.chunk()
                bar.update()
                if time.monotonic() > deadline:
                    tally.add(made.tally())
                    return tally
            gc.unfreeze()
            tally.add(made.tally())
            part += 1
            record.keep(robot.name, part, tally)
    return tally


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
    parser.add_argument("--json", type=Path, help="to keep the results in, and to go on from")
    args = parser.parse_args()
    names = known_embodiments() if args.robot == "all" else [args.robot]
    try:
        record = Record(args.json, {"seed": args.seed, "chunks": args.chunks})
    except ValueError as error:
        sys.exit(f"bench/motion.py: {error}")
    broken = 0
    for name in names:
        robot, deadline = load_embodiment(name), time.monotonic() + args.seconds
        tally = trials(robot, args.chunks, deadline, args.seed, record)
        print(f"\n{name}, seed {args.seed}, {robot.control_rate:.0f} Hz")
        for label, value in tally.rows():
            print(f"  {label:40} {value}")
        broken += tally.violations.total()
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
