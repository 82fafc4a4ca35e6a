"""What may sit in the policy's place: the simulator's expert, or a trained checkpoint."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from internvla_ros.evaluate.foresight import Foreseen
from internvla_ros.evaluate.run import Decision, SceneRun
from internvla_ros.motion.se3 import Pose
from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.serving.protocol import is_remote
from internvla_ros.sim.engine import action_between
from internvla_ros.sim.expert import Expert
from internvla_ros.sim.task_expert import TaskExpert
from internvla_ros.sim.task_world import TaskWorld
from internvla_ros.sim.world import World
from internvla_ros.spatial.types import SpatialAnswer

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

POINTS = ("predicted", "oracle", "withheld")
_SERVER_PATIENCE = 60.0  # s for a policy server to come back; a measurement can wait


class PolicyError(ValueError):
    """A policy was asked for in a way that cannot be met."""


class Policy(Protocol):
    """Decides for a batch of scenes at once."""

    dt: float
    """Seconds a step of its actions."""

    def decide(self, runs: Sequence[SceneRun]) -> list[Decision]:
        """One decision a scene, from what there is to observe now."""
        ...


class PlannerActor(Protocol):
    """What is used of `internvla_ros.model.policy.Policy`."""

    @property
    def config(self) -> Any:
        """The policy's configuration."""
        ...

    def look(
        self,
        images: Sequence[Sequence[Image]],
        instructions: Sequence[str],
        *,
        drafts: dict[str, list[int]] | None = None,
    ) -> tuple[Any, list[SpatialAnswer]]:
        """The latent plan and the answers in pixels of each sample's first view."""
        ...

    def plan(self, images: Sequence[Sequence[Image]], instructions: Sequence[str]) -> Any:
        """The latent plan alone."""
        ...

    def act(
        self,
        images: Sequence[Sequence[Image]],
        plan: Any,
        states: Array | None = None,
        points: Array | None = None,
        *,
        seed: int = 0,
        unnorm_key: str | None = None,
        previous: Array | None = None,
        frozen: int = 0,
    ) -> Array:
        """Chunks [B, T, 7] in SI units."""
        ...


class ExpertPolicy:
    """The simulator's scripted expert, thinking ahead as far as a chunk reaches."""

    def __init__(self, embodiment: Embodiment) -> None:
        self._embodiment = embodiment
        self.dt = 1.0 / embodiment.policy_rate

    def decide(self, runs: Sequence[SceneRun]) -> list[Decision]:
        """A chunk for each scene: its first step from the true state, the rest foreseen."""
        return [Decision(self._chunk(run)) for run in runs]

    def _chunk(self, run: SceneRun) -> Array:
        """Actions [T, 7] in the robot's own convention: in SI units, 1 for an open gripper."""
        measured = self._embodiment.action.anchor == "measured"
        pose = run.world.tip_pose() if measured else run.commanded
        if isinstance(run.world, TaskWorld):
            return self._task_chunk(run, run.world, pose)
        assert isinstance(run.world, World)
        if "expert" not in run.memory:
            run.memory["expert"] = Expert(self._embodiment)
            run.memory["expert"].reset(run.world)
        expert: Expert = run.memory["expert"]
        world, foreseen, actions = run.world, Foreseen(run.world), []
        for _ in range(self._embodiment.chunk_size):
            wanted, gripper, _, _ = expert.act(world, pose)
            actions.append(action_between(pose, wanted, gripper))
            foreseen.go_on(wanted, gripper)
            pose, expert, world = wanted, copy.copy(expert), cast(World, foreseen)
        return np.array(actions)

    def _task_chunk(self, run: SceneRun, world: TaskWorld, pose: Pose) -> Array:
        """As `_chunk`, as if the world stood still meanwhile."""
        if "expert" not in run.memory:
            run.memory["expert"] = TaskExpert(self._embodiment)
            run.memory["expert"].reset(world)
        expert: TaskExpert = run.memory["expert"]
        actions = []
        for _ in range(self._embodiment.chunk_size):
            wanted, gripper, _, _ = expert.act(world, pose)
            actions.append(action_between(pose, wanted, float(gripper > 0.0)))
            pose, expert = wanted, copy.copy(expert)
        return np.array(actions)


class LearnedPolicy:
    """A checkpoint: looks, plans and acts as planner_node and actor_node do.

    Args:
        model: planner and actor.
        points: where the points given to the actor come from, "predicted" by the planner,
            "withheld" (from a policy that was trained without any: nothing is decoded) or
            "oracle", the simulator's truth.
        latent: whether the actor is given the latent plan; without it and with the oracle's
            points no picture is looked at.
        seed: of the noise that chunks are made from.
        unnorm_key: name of the statistics to un-normalise with; None: the model's only ones.
        dt: seconds a step of its actions; None: as the model's configuration says.

    Raises:
        PolicyError: an unknown source of points.
    """

    def __init__(
        self,
        model: PlannerActor,
        points: str = "predicted",
        latent: bool = True,
        seed: int = 0,
        unnorm_key: str | None = None,
        dt: float | None = None,
    ) -> None:
        if points not in POINTS:
            raise PolicyError(f"points come from one of {', '.join(POINTS)}, not {points!r}")
        self._model = model
        self._oracle = points == "oracle"
        self._withheld = points == "withheld"
        self._latent = latent
        self._seed = seed
        self._key: dict[str, Any] = {} if unnorm_key is None else {"unnorm_key": unnorm_key}
        self._cameras = tuple(model.config.cameras)
        self.dt = float(model.config.dt) if dt is None else dt

    def decide(self, runs: Sequence[SceneRun]) -> list[Decision]:
        """Look at every scene and act on what was seen."""
        images: list[list[Image]] = [[] for _ in runs]
        plan, answers = None, [SpatialAnswer() for _ in runs]
        if self._latent or not self._oracle:
            images = [[run.picture(camera) for camera in self._cameras] for run in runs]
            drafts = runs[0].memory.setdefault("drafts", {}) if len(runs) == 1 else None
            instructions = [run.instruction for run in runs]
            if self._withheld:
                plan = self._model.plan(images, instructions)
            else:
                plan, answers = self._model.look(images, instructions, drafts=drafts)
        points = [self._points(run, answer) for run, answer in zip(runs, answers, strict=True)]
        chunks = self._model.act(
            images,
            plan if self._latent else None,
            np.stack([run.state() for run in runs]),
            np.stack(points) if self._model.config.actor.num_points else None,
            seed=self._seed,
            **self._key,
            **_commitment(runs),
        )
        return [Decision(c, a) for c, a in zip(chunks, answers, strict=True)]

    def _points(self, run: SceneRun, answer: SpatialAnswer) -> Array:
        """[count, 2] in 0..1 of the first view; NaN unless all points are there."""
        count = self._model.config.actor.num_points
        spec = run.embodiment.camera(self._cameras[0])
        truth = run.true_points(self._cameras[0])
        predicted = np.array([[p.x, p.y] for p in answer.points]).reshape(-1, 2)
        if len(predicted) >= 2:
            pick, place = np.linalg.norm(predicted[:2] - truth, axis=1)
            run.outcome.point_errors.append((float(pick), float(place)))
        pixels = truth if self._oracle else predicted
        if count == 0 or len(pixels) != count:
            return np.full((count, 2), math.nan)
        return pixels / [spec.width, spec.height]


def _commitment(runs: Sequence[SceneRun]) -> dict[str, Any]:
    """What a chunk has to go on from, as the actor takes it; nothing without real-time chunking."""
    found = [run.commitment() for run in runs]
    if not any(found):
        return {}
    if len(runs) > 1:
        raise PolicyError("real-time chunking works on one scene at a time: use a batch of 1")
    assert found[0] is not None
    previous, frozen = found[0]
    return {"previous": previous[None], "frozen": frozen}


def fingerprint(folder: str | Path) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a checkpoint's weights; "" without any."""
    digest, found = hashlib.sha256(), sorted(Path(folder).glob("*.safetensors"))
    for path in found:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16] if found else ""


def load_model(path: str | Path, device: str) -> PlannerActor:
    """Planner and actor of a checkpoint, or of a policy server (ws://host:port).

    Raises what `Policy.from_pretrained` and `PolicyClient` raise.
    """
    if is_remote(str(path)):
        from internvla_ros.serving.client import PolicyClient

        return PolicyClient(str(path), patience=_SERVER_PATIENCE)
    from internvla_ros.model.policy import Policy as InternVLAM1

    return InternVLAM1.from_pretrained(path, device)


def load_policy(
    name: str,
    embodiment: Embodiment,
    *,
    points: str = "predicted",
    latent: bool = True,
    seed: int = 0,
    device: str,
) -> Policy:
    """The expert for the name "expert", else the checkpoint or server of that name."""
    if name == "expert":
        return ExpertPolicy(embodiment)
    model: Any = load_model(name, device)
    known = model.datasets if is_remote(name) else model.statistics
    if embodiment.unnorm_key not in known:
        return LearnedPolicy(model, points, latent, seed)
    # It was trained on this robot's own chunks, whatever rate those of others have.
    dt = 1.0 / embodiment.policy_rate
    return LearnedPolicy(model, points, latent, seed, embodiment.unnorm_key, dt)
