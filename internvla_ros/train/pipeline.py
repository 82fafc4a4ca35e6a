"""A whole recipe as one command that can be cut into short runs: data, stages, evaluation, export.

    RUN/data/<set>, RUN/held_out/<set>      by the data engine
    RUN/stage1, RUN/actor, RUN/stage2       by the trainer
    RUN/evaluation/                         reports
    RUN/policy                              the finished checkpoint with its model card
    RUN/progress.json                       what is done, and how long it took

Each step is skipped once it is done, and goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType

import torch

from internvla_ros.evaluate import cli as evaluate_cli
from internvla_ros.sim import cli as generate_cli
from internvla_ros.sim.splits import SPLITS
from internvla_ros.train.card import Evidence, model_card
from internvla_ros.train.errors import TrainingError
from internvla_ros.train.job import Job, Options
from internvla_ros.train.loop import LATEST
from internvla_ros.train.settings import SIMPLE, DataSet, Recipe, Stage

INTERRUPTED = 130
PROGRESS, POLICY, EVALUATION = "progress.json", "policy", "evaluation"
DATA, HELD_OUT = "data ", "held out "
"""What the names of steps that make data begin with."""


@dataclass(frozen=True)
class Machine:
    """What a run may use, none of which changes what comes out.

    Attributes:
        minutes: after which a call stops what it is doing.
        workers: processes that generate, evaluate and prepare batches.
        device: "auto" or "cpu".
        threads: CPU threads of the training step; 0: torch's choice.
        tensorboard: whether TensorBoard files are written.
    """

    minutes: float = math.inf
    workers: int = 1
    device: str = "auto"
    threads: int = 0
    tensorboard: bool = False


class Pipeline:
    """The steps of one recipe in one folder."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        machine: Machine,
        *,
        data: Path | None = None,
        stage1: Path | None = None,
        points: str = "predicted",
    ) -> None:
        """`data`: where generated sets go, if not into `out`; `stage1`: another run's checkpoint,
        which takes the place of stage 1; `points`: what the actor is given in the evaluation."""
        self.recipe, self.out, self.machine = recipe, out, machine
        self.root = data or out
        self.stage1, self.points = stage1, points
        self.deadline = time.monotonic() + 60 * machine.minutes
        unknown = set(recipe.evaluation.suites) - {SIMPLE, *SPLITS}
        if unknown:  # not after hours of training
            raise TrainingError(
                f"evaluation.suites: there is no {', '.join(sorted(unknown))}; "
                f"there are {', '.join((SIMPLE, *SPLITS))}"
            )

    def run(self) -> bool:
        """Do what is left; False where the time was over before all was done."""
        for name, step in self.steps():
            if self._progress().get(name, {}).get("done"):
                continue
            if time.monotonic() >= self.deadline:
                print(f"next: {name}")
                return False
            print(f"== {name}", flush=True)
            start = time.monotonic()
            done = False
            try:
                done = step()
            finally:
                self._note(name, done, time.monotonic() - start)
            if not done:
                print(f"stopped in: {name}; the same command goes on")
                return False
        return True

    def steps(self) -> list[tuple[str, Callable[[], bool]]]:
        """All steps by name, in order."""
        made = [entry for entry in self.recipe.data.sets if not entry.path]
        steps: list[tuple[str, Callable[[], bool]]] = []
        for entry in made:
            steps.append((f"{DATA}{entry.name}", partial(self._generate, entry)))
        for entry in made if self.recipe.data.held_out_episodes else ():
            steps.append((f"{HELD_OUT}{entry.name}", partial(self._generate_held_out, entry)))
        for stage in self.stages:
            steps.append((stage, partial(self._train, stage)))
        for entry in made if self.recipe.evaluation.frames else ():
            steps.append((f"grounding {entry.name}", partial(self._grounding, entry)))
        robots: dict[str, DataSet] = {}
        for entry in made:
            robots.setdefault(entry.robot, entry)
        for entry in robots.values() if self.recipe.evaluation.scenes else ():
            for suite in self.recipe.evaluation.suites or (SIMPLE,):
                name = f"tabletop {entry.name} {suite}"
                steps.append((name, partial(self._tabletop, entry, suite)))
        steps.append(("export", self._export))
        return steps

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those that are trained here."""
        stages = self.recipe.stages
        return tuple(s for s in stages if s != "stage1") if self.stage1 is not None else stages

    @property
    def checkpoint(self) -> Path:
        """The last stage's result."""
        return self.out / self.stages[-1] / LATEST

    def data_folder(self, entry: DataSet) -> Path:
        """Where a set is."""
        return Path(entry.path) if entry.path else self.root / "data" / entry.name

    def held_out_folder(self, entry: DataSet) -> Path:
        """Where a set's held-out episodes are."""
        return self.root / "held_out" / entry.name

    def report(self, kind: str, entry: DataSet, suite: str = "") -> Path:
        """The report of "grounding" or "tabletop" on a set's robot."""
        folder = self.out / EVALUATION / "_".join(filter(None, (kind, entry.name, suite)))
        return folder / "report.json"

    def _generate(self, entry: DataSet) -> bool:
        return self._engine(self.data_folder(entry), entry)

    def _generate_held_out(self, entry: DataSet) -> bool:
        data = self.recipe.data
        held_out = replace(
            entry,
            episodes=data.held_out_episodes,
            snapshots=0,
            seed=data.held_out_seed,
            engine=data.held_out_engine or entry.engine,
        )
        return self._engine(self.held_out_folder(entry), held_out)

    def _engine(self, folder: Path, entry: DataSet) -> bool:
        options = {
            "--out": folder,
            "--episodes": entry.episodes,
            "--snapshots": entry.snapshots,
            "--seed": entry.seed,
            "--workers": self.machine.workers,
            "--robot": entry.robot,
        }
        return self._timed(generate_cli, [*_flat(options), *entry.engine])

    def _train(self, stage: Stage) -> bool:
        made = [s for s in self.recipe.data.sets if not s.path]
        held_out = made if self.recipe.data.held_out_episodes else []
        options = Options(
            out=self.out,
            data=tuple(self.data_folder(entry) for entry in self.recipe.data.sets),
            held_out=tuple(self.held_out_folder(entry) for entry in held_out),
            views=self.root / "views",
            resume=True,
            stop_after=max(0.0, self.deadline - time.monotonic()) / 60,
            device=self.machine.device,
            threads=self.machine.threads,
            workers=max(0, self.machine.workers - 1),
            tensorboard=self.machine.tensorboard,
            stage1=self.stage1,
        )
        return Job(self.recipe, options, (stage,)).run()

    def _grounding(self, entry: DataSet) -> bool:
        report = self.report("grounding", entry)
        options = {
            "--policy": self.checkpoint,
            "--data": self.held_out_folder(entry),
            "--frames": self.recipe.evaluation.frames,
            "--seed": self.recipe.evaluation.seed,
            "--device": self._device(),
            "--json": report,
        }
        report.parent.mkdir(parents=True, exist_ok=True)
        return self._timed(evaluate_cli, ["grounding", *_flat(options)])

    def _tabletop(self, entry: DataSet, suite: str) -> bool:
        config = self.recipe.evaluation
        options = {
            "--policy": self.checkpoint,
            "--scenes": config.scenes,
            "--seed": config.seed,
            "--robot": entry.robot,
            "--max-seconds": config.max_seconds,
            "--points": self.points,
            "--device": self._device(),
            "--workers": self.machine.workers,
            "--out": self.report("tabletop", entry, suite).parent,
        }
        more = [] if suite == SIMPLE else ["--suite", suite]
        return self._timed(evaluate_cli, ["tabletop", *_flat(options), "--resume", *more])

    def _export(self) -> bool:
        target = self.out / POLICY
        writing = target.with_name(POLICY + ".writing")
        shutil.rmtree(writing, ignore_errors=True)
        shutil.copytree(self.checkpoint, writing)
        seconds = {name: step["seconds"] for name, step in self._progress().items()}
        reports = sorted((self.out / EVALUATION).glob("*/report.json"))
        evidence = Evidence(self.recipe, self.root, seconds, tuple(reports))
        (writing / "README.md").write_text(model_card(evidence))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(writing, target)
        print(f"the policy: {target}")
        return True

    def _device(self) -> str:
        return "cuda" if self.machine.device != "cpu" and torch.cuda.is_available() else "cpu"

    def _timed(self, command: ModuleType, arguments: Sequence[str]) -> bool:
        """Run a command, which Ctrl-C ends in good order, until the time is over."""
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        parsed = parser.parse_args(list(arguments))
        over = threading.Event()

        def interrupt() -> None:
            over.set()
            os.kill(os.getpid(), signal.SIGINT)

        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what ends in &
            signal.signal(signal.SIGINT, signal.default_int_handler)
        left = self.deadline - time.monotonic()
        timer = threading.Timer(left, interrupt) if math.isfinite(left) else None
        try:
            if timer is not None:
                timer.daemon = True
                timer.start()
            try:
                code = int(command.run(parsed) or 0)
            finally:
                if timer is not None:
                    timer.cancel()
                    timer.join()
        except KeyboardInterrupt:
            if not over.is_set():
                raise
            return False
        if code == INTERRUPTED:
            if not over.is_set():
                raise KeyboardInterrupt
            return False
        if code:
            raise TrainingError(f"it ended with exit status {code}")
        return True

    def _progress(self) -> dict[str, dict[str, float]]:
        """Of all steps, those of data that runs share too."""
        return _noted(self.root) | _noted(self.out)

    def _note(self, name: str, done: bool, seconds: float) -> None:
        folder = self.root if name.startswith((DATA, HELD_OUT)) else self.out
        steps = _noted(folder)
        before = steps.get(name, {}).get("seconds", 0.0)
        steps[name] = {"done": done, "seconds": round(before + seconds, 1)}
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / (PROGRESS + ".writing")
        temporary.write_text(json.dumps({"steps": steps}, indent=1) + "\n")
        os.replace(temporary, folder / PROGRESS)


def _noted(folder: Path) -> dict[str, dict[str, float]]:
    try:
        return dict(json.loads((folder / PROGRESS).read_text())["steps"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder / PROGRESS} cannot be read: {error}") from error


def _flat(options: dict[str, object]) -> list[str]:
    return [str(word) for pair in options.items() for word in pair]
