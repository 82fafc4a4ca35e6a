"""What may sit in the policy's place: the scripted expert, a checkpoint, a policy server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.normalisation import DatasetStatistics, read_statistics
from internvla_ros.evaluate.libero.conventions import CAMERAS
from internvla_ros.evaluate.libero.expert import Expert
from internvla_ros.evaluate.libero.pushes import Pusher, Pushes
from internvla_ros.evaluate.libero.trial import Attempt, Trial
from internvla_ros.evaluate.policies import PolicyError, load_model

Array = NDArray[np.float64]

CONNECT_PATIENCE = 5.0
"""s to go on trying to connect to a policy server."""


class ExpertPolicy:
    """The scripted expert; looks at nothing and decides anew at every step.

    Args:
        pushes: that come between it and the robot.
    """

    views = 0

    def __init__(self, pushes: Pushes | None = None) -> None:
        self._pushes = pushes

    def decide(self, trials: Sequence[Trial]) -> list[Array]:
        """One step for each trial."""
        return [self._step(trial)[None] for trial in trials]

    def _step(self, trial: Trial) -> Array:
        if "expert" not in trial.memory:
            trial.memory["expert"] = Expert(trial.facts)
            if self._pushes is not None:
                trial.memory["pusher"] = self._pushes.for_trial(trial.task, trial.number)
        expert: Expert = trial.memory["expert"]
        pusher: Pusher | None = trial.memory.get("pusher")
        phase = expert.phase
        action = expert.act(trial.state)
        trial.wanted.append(action)
        return action if pusher is None else pusher.disturbed(action, phase)


class CheckpointPolicy:
    """A checkpoint, in this process or behind `internvla serve`.

    Args:
        model: an `internvla_ros.model.policy.Policy`, or the client of one that is served.
        unnorm_key: names the statistics that actions are scaled by; None where there is one set.
    """

    def __init__(self, model: Any, unnorm_key: str | None) -> None:
        self._model, self._key = model, unnorm_key
        self._points = int(model.config.actor.num_points)
        # Two-view checkpoints must be shown two views: 0 stands for all there are.
        wanted = (model.config.planner.views, model.config.vision.views)
        self.views = len(CAMERAS) if 0 in wanted else min(len(CAMERAS), max(wanted))

    def decide(self, trials: Sequence[Attempt]) -> list[Array]:
        """Look, plan and act at once for all trials."""
        images = [trial.pictures() for trial in trials]
        instructions = [trial.instruction for trial in trials]
        states = None
        if self._model.config.actor.state_dim:
            states = np.stack([trial.proprioception() for trial in trials])
        points = None
        if self._points:
            plan, answers = self._model.look(images, instructions)
            points = np.stack([self._located(*pair) for pair in zip(answers, images, strict=True)])
        else:
            plan = self._model.plan(images, instructions)
        chunks = self._model.act(images, plan, states, points, unnorm_key=self._key)
        return [np.asarray(chunk, np.float64) for chunk in chunks]

    def _located(self, answer: Any, views: Sequence[NDArray[np.uint8]]) -> Array:
        """[count, 2] in 0..1 of the first view; NaN unless all points are there."""
        height, width = views[0].shape[:2]
        found = np.array([[p.x, p.y] for p in answer.points]).reshape(-1, 2)
        if len(found) != self._points:
            return np.full((self._points, 2), np.nan)
        return found / [width, height]


class ServedPolicy:
    """A policy behind the released wire protocol, which answers with normalised chunks.

    Args:
        client: an `internvla_ros.serving.client.PolicyClient`.
        statistics: of the data set that the policy was trained on.
        unnorm_key: their name, which the server is told as well.
        views: how many of the cameras the policy looks at.
    """

    def __init__(
        self, client: Any, statistics: DatasetStatistics, unnorm_key: str, views: int
    ) -> None:
        self._client, self._statistics, self._key = client, statistics, unnorm_key
        self.views = views

    def decide(self, trials: Sequence[Attempt]) -> list[Array]:
        """Ask the server once for all trials, and un-normalise."""
        images = [trial.pictures() for trial in trials]
        instructions = [trial.instruction for trial in trials]
        chunks = self._client.infer(images, instructions, unnorm_key=self._key)
        return [self._statistics.action.unnormalise(chunk) for chunk in chunks]


def load_policy(
    name: str,
    *,
    device: str = "cpu",
    unnorm_key: str | None = None,
    statistics: str | Path | None = None,
    views: int = len(CAMERAS),
) -> CheckpointPolicy | ServedPolicy:
    """A server for ws://..., else a checkpoint.

    Args:
        name: see above.
        device: of a checkpoint's network.
        unnorm_key: names the statistics; None where there is one set.
        statistics: a dataset_statistics.json, needed for servers of the released code alone.
        views: that such servers are shown.

    Raises:
        PolicyError: a server of the released code without statistics.
        RuntimeError, ValueError, OSError: what loading a checkpoint or connecting raises.
    """
    if not name.startswith(("ws://", "wss://")):
        return CheckpointPolicy(load_model(name, device), unnorm_key)
    from internvla_ros.serving.client import PolicyClient

    client = PolicyClient(name, patience=CONNECT_PATIENCE)
    client.ping()
    if client.metadata.get("server") == "internvla_ros":
        return CheckpointPolicy(client, unnorm_key)
    if statistics is None:
        raise PolicyError(
            f"{name} is a server of the released code, which leaves un-normalising to its clients: "
            "give the checkpoint's dataset_statistics.json with --statistics"
        )
    return ServedPolicy(client, *chosen_statistics(statistics, unnorm_key), views)


def chosen_statistics(path: str | Path, unnorm_key: str | None) -> tuple[DatasetStatistics, str]:
    """The named statistics of a file, or its only ones, and their name; raises PolicyError."""
    known = read_statistics(path)
    key = unnorm_key or (next(iter(known)) if len(known) == 1 else "")
    if key not in known:
        raise PolicyError(f"{path} has statistics of {', '.join(known)}: choose with --unnorm-key")
    return known[key], key
