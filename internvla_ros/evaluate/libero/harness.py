"""A LIBERO evaluation: trials spread over processes, kept as they end, and reported."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.evaluate.journal import Journal
from internvla_ros.evaluate.libero.conventions import (
    CAMERAS,
    CONTROL_RATE,
    ENSEMBLE_HORIZON,
    IMAGE_SIZE,
    SEED,
    SUITES,
    turned,
)
from internvla_ros.evaluate.libero.process import WorkerProcess
from internvla_ros.evaluate.libero.trial import Trial, TrialPolicy
from internvla_ros.evaluate.markdown import write_markdown
from internvla_ros.evaluate.report import Proportion, Report

Array = NDArray[np.float64]
Job = tuple[int, int]

FILM_EVERY = 2
"""Steps a picture of a failure's video."""


class PlanError(ValueError):
    """An evaluation that cannot be made as it was asked for."""


@dataclass(frozen=True)
class LiberoPlan:
    """What is measured, and where it is kept.

    Args:
        suite: a key of `conventions.SUITES`.
        out: folder for the journal, the reports, logs and videos.
        trials: initial states of each task, from number `first` on.
        tasks: numbers of tasks; empty for all.
        seed: of what LIBERO draws apart from the initial states.
        execute: steps of a chunk that are executed before the next one is asked for.
        blend, horizon: how overlapping chunks become one, and of how many.
        workers: LIBERO processes.
        batch: most trials that the policy decides about at once.
        resume: go on with what `out` holds.
        film: make a video of every failure.
        demonstrations: LeRobot data set that successes are added to, or None.
        first: number of the first initial state; evaluations begin at 0, so that demonstrations
            from later ones leave it unseen.

    Raises:
        PlanError: a number that makes no sense, or an unknown suite or task.
    """

    suite: str
    out: Path
    trials: int = 10
    tasks: tuple[int, ...] = ()
    seed: int = SEED
    execute: int = 1
    blend: str = "adaptive"
    horizon: int = ENSEMBLE_HORIZON
    workers: int = 1
    batch: int = 1
    resume: bool = False
    film: bool = True
    demonstrations: Path | None = None
    first: int = 0

    def __post_init__(self) -> None:
        if self.suite not in SUITES:
            raise PlanError(f"no suite {self.suite!r}; there are {', '.join(SUITES)}")
        for name in ("trials", "execute", "horizon", "workers", "batch"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.first < 0:
            raise PlanError(f"the first initial state has number 0, so that {self.first} is none")
        count = SUITES[self.suite].tasks
        wrong = [task for task in self.tasks if not 0 <= task < count]
        if wrong:
            raise PlanError(f"suite {self.suite} has the tasks 0 to {count - 1}, no {wrong[0]}")

    def jobs(self) -> list[Job]:
        """(task, trial) of all there is to do."""
        tasks = self.tasks or range(SUITES[self.suite].tasks)
        trials = range(self.first, self.first + self.trials)
        return [(task, trial) for task in sorted(set(tasks)) for trial in trials]

    def settings(self) -> dict[str, Any]:
        """What decides the outcome of a trial."""
        names = ("suite", "seed", "execute", "blend", "horizon")
        return {name: getattr(self, name) for name in names}


def next_job(waiting: Sequence[Job], loaded: int | None) -> Job:
    """Which trial a process does next: one of the task it has loaded, else of the longest queue.

    Loading a task takes seconds.
    """
    own = [job for job in waiting if job[0] == loaded]
    if own:
        return own[0]
    tasks = [task for task, _ in waiting]
    longest = max(tasks, key=tasks.count)
    return next(job for job in waiting if job[0] == longest)


@dataclass
class Seat:
    """A process and the trial that it is at."""

    worker: WorkerProcess
    loaded: int | None = None
    trial: Trial | None = None
    sent: Array = field(default_factory=lambda: np.empty((0, 7)))
    finish: Callable[[dict[str, Any]], None] | None = None
    """Takes in a replay, after which the trial is over."""
    started: float = 0.0


class Evaluation:
    """Works through a plan; `report` tells of what was done so far at any time.

    Args:
        plan: what is measured.
        policy: decides; None where workers load their own (`libero.scale`).
        labels: what identifies the policy, in the report and against a wrong --resume.
        spawn: starts a LIBERO process that logs to a file.

    Attributes:
        versions: of the packages that trials depend on, once they are known.

    Raises:
        JournalError: `plan.out` holds another run, or one that is not to be resumed.
    """

    def __init__(
        self,
        plan: LiberoPlan,
        policy: TrialPolicy | None,
        labels: Mapping[str, Any],
        spawn: Callable[[Path], WorkerProcess],
    ) -> None:
        self.plan = plan
        self._own_policy, self._labels, self._spawn = policy, dict(labels), spawn
        self._suite = SUITES[plan.suite]
        self.versions: dict[str, Any] = {}
        self._began = time.monotonic()
        settings = {**plan.settings(), **self._labels}
        self._journal = Journal(plan.out / "trials.jsonl", settings, plan.resume)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The finished trials of this plan."""
        wanted = set(self.plan.jobs())
        found = [row for row in self._journal.rows if (row["task"], row["trial"]) in wanted]
        return sorted(found, key=lambda row: (row["task"], row["trial"]))

    def waiting(self) -> list[Job]:
        """Trials that are not finished."""
        done = {(row["task"], row["trial"]) for row in self._journal.rows}
        return [job for job in self.plan.jobs() if job not in done]

    def run(self, on_trial: Callable[[dict[str, Any]], None] = lambda row: None) -> None:
        """Do the trials that are not finished yet.

        Raises:
            LiberoError: LIBERO cannot go on; what is finished is kept, as after any other error.
        """
        waiting = self.waiting()
        with ExitStack() as stack:
            stack.callback(self._journal.close)
            seats = self.seats(stack, min(self.plan.workers, len(waiting)))
            self.work(seats, waiting, on_trial)

    def seats(self, stack: ExitStack, count: int) -> list[Seat]:
        """LIBERO processes with the suite open, which end with the stack."""
        seats = []
        for number in range(count):
            log = self.plan.out / "logs" / f"libero_{number}.log"
            seats.append(Seat(stack.enter_context(self._spawn(log))))
        for seat in seats:
            seat.worker.send("open", suite=self._suite.name, size=IMAGE_SIZE)
        for seat in seats:
            self._check(seat.worker.receive())
        return seats

    def take(
        self,
        row: dict[str, Any],
        versions: Mapping[str, Any],
        film: bytes | None,
        on_trial: Callable[[dict[str, Any]], None],
    ) -> None:
        """Keep a trial that was done elsewhere, its film too."""
        self.versions = dict(versions)
        self._journal.append(row)
        on_trial(row)
        if film is not None:
            target = self.film(row)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(film)

    def film(self, row: Mapping[str, Any]) -> Path:
        """Where the video of a failure is."""
        name = f"task_{row['task']:02d}_trial_{row['trial']:02d}.mp4"
        return self.plan.out / "videos" / name

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    @property
    def _policy(self) -> TrialPolicy:
        assert self._own_policy is not None
        return self._own_policy

    def report(self) -> Report:
        """What was found so far."""
        rows = self.rows
        done = [row for row in rows if row["success"]]
        results: dict[str, Any] = {
            "success": Proportion(len(done), len(rows)),
            "median steps to success": float(np.median([row["steps"] for row in done]))
            if done
            else float("nan"),
        }
        settings = {
            **self._labels,
            **self.plan.settings(),
            "trials a task": self.plan.trials,
            "first initial state": self.plan.first,
            "most steps": self._suite.max_steps,
            **self.versions,
        }
        complete = not self.waiting()
        seconds = time.monotonic() - self._began
        return Report("LIBERO", settings, results, rows, seconds, complete)

    def write(self) -> Report:
        """Write report.json and report.md; return the report."""
        report = self.report()
        report.write(self.plan.out / "report.json")
        write_markdown(self.plan.out / "report.md", report, report.rows)
        return report

    def _check(self, opened: dict[str, Any]) -> None:
        """Whether there are as many initial states as trials are wanted."""
        self.versions = dict(opened["versions"])
        for task in sorted({task for task, _ in self.plan.jobs()}):
            have = int(opened["tasks"][task]["trials"])
            if self.plan.first + self.plan.trials > have:
                raise PlanError(
                    f"task {task} has {have} initial states, not {self.plan.trials} from number "
                    f"{self.plan.first} on"
                )

    def work(
        self, seats: list[Seat], waiting: list[Job], on_trial: Callable[[dict[str, Any]], None]
    ) -> None:
        """Do these trials, which are taken out of `waiting`."""
        with selectors.DefaultSelector() as selector:
            for seat in seats:
                selector.register(seat.worker, selectors.EVENT_READ, seat)
                self._begin(seat, waiting)
            while any(seat.trial for seat in seats):
                asking = []
                for key, _ in selector.select():
                    seat = key.data
                    if self._heard(seat, on_trial):
                        asking.append(seat)
                    elif seat.trial is None and waiting:
                        self._begin(seat, waiting)
                for first in range(0, len(asking), self.plan.batch):
                    self._decide(asking[first : first + self.plan.batch])

    def _begin(self, seat: Seat, waiting: list[Job]) -> None:
        job = next_job(waiting, seat.loaded)
        waiting.remove(job)
        seat.loaded = job[0]
        seat.trial = Trial(*job, self.plan.blend, self.plan.horizon)
        seat.started, seat.finish = time.monotonic(), None
        seat.worker.send("start", **self._start(seat.trial), views=self._policy.views)

    def _start(self, trial: Trial) -> dict[str, int]:
        return {"task": trial.task, "trial": trial.number, "seed": self.plan.seed}

    def _heard(self, seat: Seat, on_trial: Callable[[dict[str, Any]], None]) -> bool:
        """Take in an answer; whether the trial goes on and needs a decision."""
        trial, answer = seat.trial, seat.worker.receive()
        assert trial is not None
        if seat.finish is not None:
            seat.finish(answer)
            seat.trial = None
            return False
        if not trial.facts:
            trial.observe(answer)
        else:
            trial.advanced(seat.sent, answer)
        if not trial.success and trial.steps < self._suite.max_steps:
            return True
        self._ended(seat, trial, on_trial)
        return False

    def _decide(self, seats: list[Seat]) -> None:
        trials = [seat.trial for seat in seats if seat.trial is not None]
        chunks = self._policy.decide(trials)
        for seat, trial, chunk in zip(seats, trials, chunks, strict=True):
            left = self._suite.max_steps - trial.steps
            seat.sent = trial.execute(chunk, min(self.plan.execute, left))
            seat.worker.send("step", actions=seat.sent, views=self._policy.views)

    def _ended(self, seat: Seat, trial: Trial, on_trial: Callable[[dict[str, Any]], None]) -> None:
        """Keep the outcome; a demonstration or a video needs a replay first."""
        row = {
            "task": trial.task,
            "trial": trial.number,
            "instruction": trial.instruction,
            "success": trial.success,
            "steps": trial.steps,
            "seconds": round(time.monotonic() - seat.started, 2),
        }

        def keep() -> None:
            self._journal.append(row)
            on_trial(row)

        if trial.success and self.plan.demonstrations is not None:
            self._demonstrate(seat, trial, keep)
            return
        keep()
        if not trial.success and self.plan.film:
            self._film(seat, trial)
            return
        seat.trial = None

    def _film(self, seat: Seat, trial: Trial) -> None:
        target = self.film({"task": trial.task, "trial": trial.number})

        def finish(answer: dict[str, Any]) -> None:
            from internvla_ros.data.lerobot.video import encode

            views = [turned(frame["images"][CAMERAS[0]]) for frame in answer["frames"]]
            encode(target, np.stack(views), CONTROL_RATE / FILM_EVERY)

        self._replay(seat, trial, CAMERAS[:1], FILM_EVERY, (), finish)

    def _demonstrate(self, seat: Seat, trial: Trial, keep: Callable[[], None]) -> None:
        from internvla_ros.evaluate.libero import demonstrations

        assert self.plan.demonstrations is not None
        root = self.plan.demonstrations

        def finish(answer: dict[str, Any]) -> None:
            if answer["success"]:
                demonstrations.add(
                    root, demonstrations.from_replay(self._suite.name, trial, answer["frames"])
                )
            keep()

        objects = tuple(trial.facts["extents"])
        self._replay(seat, trial, CAMERAS, 1, objects, finish)

    def _replay(
        self,
        seat: Seat,
        trial: Trial,
        cameras: Iterable[str],
        every: int,
        objects: Iterable[str],
        finish: Callable[[dict[str, Any]], None],
    ) -> None:
        seat.finish = finish
        seat.worker.send(
            "replay",
            **self._start(trial),
            actions=np.array(trial.executed),
            cameras=list(cameras),
            every=every,
            objects=list(objects),
        )
