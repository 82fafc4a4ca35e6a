"""Closed-loop success on the simulated table top, in bulk and without ROS."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from internvla_ros.evaluate.policies import Policy
from internvla_ros.evaluate.report import Proportion, Report
from internvla_ros.evaluate.run import Delivery, SceneRun
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.scene import Scene, sample_scene
from internvla_ros.sim.world import World

_SEED_STREAM = 3  # apart from the streams that data sets are drawn from


@dataclass(frozen=True)
class TableTop:
    """What is measured.

    Args:
        scenes: number of scenes.
        seed: of the scenes; equal seeds give equal scenes whatever else is set.
        batch: scenes worked on at the same time, in lock-step.
        max_seconds: simulated time after which a scene is given up.
        delivery: how chunks reach the arm.
        video: folder for a video of every scene, None for none.

    Raises:
        ValueError: a number that makes no sense.
    """

    scenes: int
    seed: int = 0
    batch: int = 1
    max_seconds: float = 25.0
    delivery: Delivery = field(default_factory=Delivery)
    video: Path | None = None

    def __post_init__(self) -> None:
        if self.scenes < 1 or self.batch < 1 or self.seed < 0:
            raise ValueError("tabletop: scenes and batch must be at least 1, the seed at least 0")
        if not self.max_seconds > 0.0 or not self.delivery.delay >= 0.0:
            raise ValueError("tabletop: max_seconds must be above 0, the delay at least 0")


def held_out_scene(seed: int, index: int, embodiment: Embodiment) -> Scene:
    """Scene number `index` of a seed; no data set is ever drawn from the same stream."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, _SEED_STREAM, index)))
    return sample_scene(rng, embodiment)


def run_tabletop(
    embodiment: Embodiment,
    policy: Policy,
    plan: TableTop,
    labels: Mapping[str, Any],
    on_trial: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Report:
    """Work through all scenes; Ctrl-C ends it early with a report of the scenes so far.

    Args:
        embodiment: the robot.
        policy: decides for a batch of scenes.
        plan: what is measured.
        labels: what the report says of the policy, by name.
        on_trial: is told of every scene that is finished, by its row of the report.
    """
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    complete = False
    try:
        for run in _finished(embodiment, policy, plan):
            rows.append(_row(run))
            on_trial(rows[-1])
        complete = True
    except KeyboardInterrupt:
        pass
    rows.sort(key=lambda row: int(row["scene"]))
    settings = {"robot": embodiment.name, **labels, **_settings(plan)}
    return Report("tabletop", settings, _results(rows), rows, time.monotonic() - started, complete)


def _finished(embodiment: Embodiment, policy: Policy, plan: TableTop) -> Iterator[SceneRun]:
    """The runs in the order in which they end; one that has been taken is used again."""
    waiting = iter(range(plan.scenes))
    idle = [SceneRun(World(embodiment), plan.delivery) for _ in range(min(plan.batch, plan.scenes))]
    active: list[SceneRun] = []
    films = {run: _Film(plan.video) for run in idle}
    while True:
        for run, index in zip(idle, itertools.islice(waiting, len(idle)), strict=False):
            run.start(index, held_out_scene(plan.seed, index, embodiment))
            active.append(run)
        if not active:
            return
        decisions = policy.decide(active)
        for run, decision in zip(active, decisions, strict=True):
            films[run].shoot(run, decision.answer)
            run.advance(decision, policy.dt, 1.0 / embodiment.policy_rate)
        idle = [
            run for run in active if run.outcome.success or run.outcome.seconds >= plan.max_seconds
        ]
        active = [run for run in active if run not in idle]
        for run in idle:
            films[run].finish(run)
            yield run


class _Film:
    """The front view of one scene with what the policy said, frame by frame."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._frames: list[Any] = []

    def shoot(self, run: SceneRun, answer: Any) -> None:
        if self._folder is None:
            return
        from internvla_ros.spatial.draw import annotate

        picture = run.picture(run.embodiment.cameras[0].name)
        status = f"{run.world.time:.1f} s"
        self._frames.append(annotate(picture, answer, caption=run.instruction, status=status))

    def finish(self, run: SceneRun) -> None:
        if self._folder is None:
            return
        from internvla_ros.data.lerobot.video import encode

        word = "success" if run.outcome.success else "failure"
        path = self._folder / f"scene_{run.index:04d}_{word}.mp4"
        encode(path, np.stack(self._frames), run.embodiment.policy_rate)
        self._frames = []


def _row(run: SceneRun) -> dict[str, Any]:
    outcome, task = run.outcome, run.scene.task
    errors = outcome.point_errors
    pick, place = np.median(errors, axis=0).tolist() if errors else (None, None)
    return {
        "scene": run.index,
        "instruction": task.instruction,
        "pick": task.pick,
        "place": task.place,
        "success": outcome.success,
        "how": _how(run),
        "seconds": round(outcome.seconds, 2),
        "held": list(outcome.held),
        "refused_chunks": outcome.refused,
        "limited_share": round(outcome.limited, 4),
        "pick_error_px": pick,
        "place_error_px": place,
    }


def _how(run: SceneRun) -> str:
    """How far it came, in a few words."""
    if run.outcome.success:
        return "done"
    if run.scene.task.pick in run.outcome.held:
        return "grasped, not placed"
    return "grasped another object" if run.outcome.held else "grasped nothing"


def _settings(plan: TableTop) -> dict[str, Any]:
    return {
        "scenes": plan.scenes,
        "seed": plan.seed,
        "batch": plan.batch,
        "max_seconds": plan.max_seconds,
        **asdict(plan.delivery),
    }


def _results(rows: list[dict[str, Any]]) -> dict[str, Proportion | float | int | str]:
    done = [row for row in rows if row["success"]]
    results: dict[str, Proportion | float | int | str] = {
        "success": Proportion(len(done), len(rows)),
        "right object grasped": Proportion(
            sum(row["pick"] in row["held"] for row in rows), len(rows)
        ),
        "median time to success, s": _median([row["seconds"] for row in done]),
        "median pick point error, px": _median([row["pick_error_px"] for row in rows]),
        "median place point error, px": _median([row["place_error_px"] for row in rows]),
    }
    for how, count in sorted(Counter(row["how"] for row in rows).items()):
        results[f"scenes: {how}"] = count
    return results


def _median(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else float("nan")
