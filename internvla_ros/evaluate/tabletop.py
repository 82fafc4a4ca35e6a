"""Closed-loop success on the simulated table top, in bulk and without ROS."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from internvla_ros.evaluate.policies import Policy
from internvla_ros.evaluate.report import Proportion, Report
from internvla_ros.evaluate.run import Decision, Delivery, SceneRun
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.sampling import Sampler
from internvla_ros.sim.scene import Scene, sample_scene
from internvla_ros.sim.splits import load_split
from internvla_ros.sim.task_scene import TaskScene
from internvla_ros.sim.task_world import TaskWorld
from internvla_ros.sim.world import World

if TYPE_CHECKING:
    from internvla_ros.recording.episode import EpisodeRecorder, Moment

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
        record: folder for a film and a bag of every scene, None for none.
        suite: the split that scenes are drawn from, see `sim.splits`; None: "put the A on/in the
            B" alone. `max_seconds` is then for each step of a task.

    Raises:
        ValueError: a number that makes no sense.
    """

    scenes: int
    seed: int = 0
    batch: int = 1
    max_seconds: float = 25.0
    delivery: Delivery = field(default_factory=Delivery)
    record: Path | None = None
    suite: str | None = None

    def __post_init__(self) -> None:
        if self.suite is not None:
            load_split(self.suite)
        if self.scenes < 1 or self.batch < 1 or self.seed < 0:
            raise ValueError("tabletop: scenes and batch must be at least 1, the seed at least 0")
        if not self.max_seconds > 0.0 or not self.delivery.delay >= 0.0:
            raise ValueError("tabletop: max_seconds must be above 0, the delay at least 0")


def held_out_scene(seed: int, index: int, embodiment: Embodiment) -> Scene:
    """Scene number `index` of a seed; no data set is ever drawn from the same stream."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, _SEED_STREAM, index)))
    return sample_scene(rng, embodiment)


def scene_source(embodiment: Embodiment, plan: TableTop) -> Callable[[int], Scene | TaskScene]:
    """The scenes of a plan by their numbers; no data set is ever drawn from the same stream."""
    if plan.suite is None:
        return lambda index: held_out_scene(plan.seed, index, embodiment)
    sampler, split = Sampler(embodiment), load_split(plan.suite)

    def scene(index: int) -> TaskScene:
        path = (plan.seed, _SEED_STREAM, index, *plan.suite.encode())  # type: ignore[union-attr]
        return sampler.sample(np.random.default_rng(np.random.SeedSequence(path)), split)

    return scene


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
        for row in scene_rows(scene_runs(embodiment, plan), policy, plan, range(plan.scenes)):
            rows.append(row)
            on_trial(row)
        complete = True
    except KeyboardInterrupt:
        pass
    return tabletop_report(embodiment, plan, labels, rows, time.monotonic() - started, complete)


def tabletop_report(
    embodiment: Embodiment,
    plan: TableTop,
    labels: Mapping[str, Any],
    rows: Iterable[Mapping[str, Any]],
    seconds: float,
    complete: bool,
) -> Report:
    """What the finished scenes, given by their rows in any order, come to."""
    ordered = sorted((dict(row) for row in rows), key=lambda row: int(row["scene"]))
    settings = {"robot": embodiment.name, **labels, **_settings(plan)}
    return Report("tabletop", settings, _results(ordered), ordered, seconds, complete)


def tabletop_settings(embodiment: Embodiment, plan: TableTop) -> dict[str, Any]:
    """What decides the outcome of a scene, apart from the policy."""
    settings = {"robot": embodiment.name, **_settings(plan)}
    return {name: settings[name] for name in settings if name not in ("scenes", "batch")}


def scene_runs(embodiment: Embodiment, plan: TableTop) -> list[SceneRun]:
    """As many worlds as scenes are worked on at the same time; they can be used again."""
    kind = World if plan.suite is None else TaskWorld
    return [SceneRun(kind(embodiment), plan.delivery) for _ in range(min(plan.batch, plan.scenes))]


def scene_rows(
    runs: Sequence[SceneRun], policy: Policy, plan: TableTop, scenes: Iterable[int]
) -> Iterator[dict[str, Any]]:
    """The rows of scenes, given by their numbers, in the order in which they end."""
    waiting = iter(scenes)
    scene = scene_source(runs[0].embodiment, plan)
    idle = list(runs)
    active: list[SceneRun] = []
    kept = {run: _Record(plan.record, policy.dt) for run in idle}
    try:
        while True:
            for run, index in zip(idle, itertools.islice(waiting, len(idle)), strict=False):
                run.start(index, scene(index))
                active.append(run)
            if not active:
                return
            decisions = policy.decide(active)
            for run, decision in zip(active, decisions, strict=True):
                kept[run].add(run, decision)
                run.advance(decision, policy.dt, 1.0 / run.embodiment.policy_rate)
            idle = [
                run
                for run in active
                if run.outcome.success or run.outcome.seconds >= plan.max_seconds * run.world.steps
            ]
            active = [run for run in active if run not in idle]
            for run in idle:
                kept[run].finish(run)
                yield _row(run)
    finally:
        for record in kept.values():
            record.abandon()


class _Record:
    """The film and the bag of the scene that a run works on, where they are wanted."""

    def __init__(self, folder: Path | None, dt: float) -> None:
        self._folder, self._dt = folder, dt
        self._recorder: EpisodeRecorder | None = None

    def add(self, run: SceneRun, decision: Decision) -> None:
        if self._folder is None:
            return
        from internvla_ros.recording.episode import EpisodeRecorder

        if self._recorder is None:
            name = f"scene_{run.index:04d}"
            self._recorder = EpisodeRecorder(
                self._folder, name, run.embodiment, run.instruction, self._dt
            )
        self._recorder.add(_moment(run, decision))

    def finish(self, run: SceneRun) -> None:
        if self._recorder is not None:
            self._recorder.close("success" if run.outcome.success else "failure")
            self._recorder = None

    def abandon(self) -> None:
        """Close what an interruption left half done."""
        if self._recorder is not None:
            self._recorder.abandon()


def _moment(run: SceneRun, decision: Decision) -> Moment:
    from internvla_ros.recording.episode import Moment

    robot, world = run.embodiment, run.world
    names = (*robot.joints, *robot.gripper.joints)
    positions = (*world.joint_positions, *world.finger_positions)
    return Moment(
        time=world.time,
        pictures={camera.name: run.picture(camera.name) for camera in robot.cameras},
        answer=decision.answer,
        actions=decision.actions,
        joints=dict(zip(names, map(float, positions), strict=True)),
        commanded=run.commanded,
        measured=world.tip_pose(),
        gripper=float(world.gripper_opening),
    )


def _row(run: SceneRun) -> dict[str, Any]:
    outcome, task = run.outcome, run.scene.task
    errors = outcome.point_errors
    pick, place = np.median(errors, axis=0).tolist() if errors else (None, None)
    return {
        "scene": run.index,
        "instruction": task.instruction,
        **run.world.progress(),
        "pick": task.pick,
        "place": task.place,
        "success": outcome.success,
        "how": _how(run),
        "seconds": round(outcome.seconds, 2),
        "held": list(outcome.held),
        "refused_chunks": outcome.refused,
        "limited_share": round(outcome.limited, 4),
        "tip_jerk": round(outcome.jerk, 3),
        "path_error_mm": round(1e3 * outcome.path_error, 3),
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
        **({} if plan.suite is None else {"suite": plan.suite}),
    }


def _results(rows: list[dict[str, Any]]) -> dict[str, Proportion | float | int | str]:
    done = [row for row in rows if row["success"]]
    results: dict[str, Proportion | float | int | str] = {
        "success": Proportion(len(done), len(rows)),
        "right object grasped": Proportion(
            sum(row["pick"] in row["held"] for row in rows), len(rows)
        ),
        "median time to success, s": _median([row["seconds"] for row in done]),
        "tip jerk, RMS, m/s^3": _median([row["tip_jerk"] for row in rows]),
        "error to the chunks' path, RMS, mm": _median([row["path_error_mm"] for row in rows]),
        "median pick point error, px": _median([row["pick_error_px"] for row in rows]),
        "median place point error, px": _median([row["place_error_px"] for row in rows]),
    }
    for family in sorted({row["family"] for row in rows if "family" in row}):
        of = [row["success"] for row in rows if row["family"] == family]
        results[f"success: {family}"] = Proportion(sum(of), len(of))
    if rows and "steps" in rows[0]:
        steps = sum(row["steps"] for row in rows)
        results["steps done"] = Proportion(sum(row["steps_done"] for row in rows), steps)
    for how, count in sorted(Counter(row["how"] for row in rows).items()):
        results[f"scenes: {how}"] = count
    return results


def _median(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else float("nan")
