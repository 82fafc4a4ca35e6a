"""A SimplerEnv evaluation: one trial after the other, kept as they end, and reported."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from internvla_ros.control.ensemble import Prediction, blend
from internvla_ros.evaluate.journal import Journal
from internvla_ros.evaluate.libero.trial import Attempt
from internvla_ros.evaluate.markdown import write_markdown
from internvla_ros.evaluate.policies import PolicyError
from internvla_ros.evaluate.report import Proportion, Report
from internvla_ros.evaluate.simpler.conventions import (
    ROBOTS,
    environment_action,
    gripper_of,
    resized,
)
from internvla_ros.evaluate.simpler.tasks import SUITES, Setting
from internvla_ros.evaluate.simpler.world import World

Array = NDArray[np.float64]
Image = NDArray[np.uint8]


class AttemptPolicy(Protocol):
    """What may be evaluated."""

    def decide(self, trials: Sequence[Attempt]) -> list[Array]:
        """A chunk [T, 7] in SI units for each attempt, from its present observation."""
        ...


@dataclass(frozen=True)
class SimplerPlan:
    """What is measured, and where it is kept.

    Args:
        suite: a key of `tasks.SUITES`.
        out: folder for the journal and the reports.
        trials: layouts of each environment, from the first on; None for all.
        seed: of what environments draw; that of a trial is this plus the trial's number.
        resume: go on with what `out` holds.
    """

    suite: str
    out: Path
    trials: int | None = None
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise ValueError(f"no suite {self.suite!r}; there are {', '.join(SUITES)}")
        if self.trials is not None and self.trials < 1:
            raise ValueError(f"trials must be at least 1, not {self.trials}")

    def settings(self) -> list[Setting]:
        """The environments."""
        return SUITES[self.suite]()

    def jobs(self) -> list[tuple[int, int]]:
        """(number of the environment, trial) of all there is to do."""
        return [
            (number, trial)
            for number, setting in enumerate(self.settings())
            for trial in range(len(setting.layouts[: self.trials]))
        ]


class SimplerAttempt:
    """A trial as the policy sees it, and the blending of its chunks."""

    def __init__(self, world: World, robot: str) -> None:
        self._world, self._gripper = world, gripper_of(robot)
        self._predictions: deque[Prediction] = deque(maxlen=ROBOTS[robot].horizon)
        self.steps = 0

    @property
    def instruction(self) -> str:
        """The task in words."""
        return self._world.instruction()

    def pictures(self) -> list[Image]:
        """The one camera's picture at the policy's size."""
        return [resized(self._world.picture())]

    def proprioception(self) -> Array:
        """SimplerEnv's policies are given none."""
        raise PolicyError("SimplerEnv tells no proprioception, which this policy needs")

    def step(self, chunk: Array) -> tuple[bool, bool]:
        """Execute one step of a new chunk [T, 7], blended with the older ones."""
        start = float(self.steps)
        self._predictions.append(Prediction(start, 1.0, chunk))
        known = [*list(self._predictions)[:-1], Prediction(start, 1.0, chunk[:1])]
        action = blend(known, "adaptive", "rpy")[0]
        self.steps += 1
        return self._world.step(environment_action(action, self._gripper))


class Evaluation:
    """Works through a plan; `report` tells of what was done so far at any time.

    Args:
        plan: what is measured.
        policy: decides.
        labels: what identifies the policy.
        make: an environment for a setting.

    Raises:
        JournalError: `plan.out` holds another run, or one that is not to be resumed.
    """

    def __init__(
        self,
        plan: SimplerPlan,
        policy: AttemptPolicy,
        labels: Mapping[str, Any],
        make: Callable[[Setting], World],
    ) -> None:
        self.plan = plan
        self._policy, self._labels, self._make = policy, dict(labels), make
        self._settings = plan.settings()
        self._began = time.monotonic()
        decisive = {"suite": plan.suite, "seed": plan.seed, **self._labels}
        self._journal = Journal(plan.out / "trials.jsonl", decisive, plan.resume)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The finished trials of this plan."""
        wanted = set(self.plan.jobs())
        found = [row for row in self._journal.rows if (row["task"], row["trial"]) in wanted]
        return sorted(found, key=lambda row: (row["task"], row["trial"]))

    def waiting(self) -> list[tuple[int, int]]:
        """Trials that are not finished."""
        done = {(row["task"], row["trial"]) for row in self._journal.rows}
        return [job for job in self.plan.jobs() if job not in done]

    def run(self, on_trial: Callable[[dict[str, Any]], None] = lambda row: None) -> None:
        """Do the trials that are not finished yet; what is finished is kept whatever happens."""
        try:
            for row in self._trials():
                self._journal.append(row)
                on_trial(row)
        finally:
            self._journal.close()

    def _trials(self) -> Iterator[dict[str, Any]]:
        world: World | None = None
        made = -1
        try:
            for number, trial in self.waiting():
                if number != made:
                    if world is not None:
                        world.close()
                    world, made = self._make(self._settings[number]), number
                assert world is not None
                yield self._trial(world, number, trial)
        finally:
            if world is not None:
                world.close()

    def _trial(self, world: World, number: int, trial: int) -> dict[str, Any]:
        """One trial; it counts as it stands when time is up, as in the public evaluation."""
        setting = self._settings[number]
        world.reset(self.plan.seed + trial, setting.layouts[trial])
        attempt = SimplerAttempt(world, setting.robot)
        began = time.monotonic()
        instruction, achieved, ever, over = attempt.instruction, False, False, False
        while not over:
            (chunk,) = self._policy.decide([attempt])
            achieved, over = attempt.step(chunk)
            ever = ever or achieved
        return {
            "task": number,
            "trial": trial,
            "group": setting.task,
            "instruction": f"{setting.environment}: {instruction}",
            "success": achieved,
            "success_at_any_time": ever,
            "steps": attempt.steps,
            "seconds": round(time.monotonic() - began, 2),
        }

    def report(self) -> Report:
        """What was found so far; tasks are weighed equally in their mean, as in the tables."""
        rows = self.rows
        groups = {str(row["group"]): [] for row in rows}  # type: dict[str, list[bool]]
        for row in rows:
            groups[str(row["group"])].append(bool(row["success"]))
        found = {name: Proportion(sum(group), len(group)) for name, group in groups.items()}
        rates = [proportion.rate for proportion in found.values()]
        results: dict[str, Any] = {
            "mean of the tasks' rates": float(np.mean(rates)) if rates else float("nan"),
            **found,
        }
        settings = {**self._labels, "suite": self.plan.suite, "seed": self.plan.seed}
        seconds = time.monotonic() - self._began
        return Report("SimplerEnv", settings, results, rows, seconds, not self.waiting())

    def write(self) -> Report:
        """Write report.json and report.md; return the report."""
        report = self.report()
        report.write(self.plan.out / "report.json")
        write_markdown(self.plan.out / "report.md", report, report.rows)
        return report
