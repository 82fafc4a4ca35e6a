"""Episodes of a benchmark spread over workers, here or on a Ray cluster.

A worker is told what the policy is called and loads it itself: no weights travel. Every episode is
decided by its own number and the seed, so that it does not matter who runs it; a network's last
bits may depend on the processor and on the number of threads it runs with.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvla_ros.distributed import Workers
from internvla_ros.evaluate.policies import Policy, PolicyError, load_policy
from internvla_ros.evaluate.run import SceneRun
from internvla_ros.evaluate.tabletop import TableTop, scene_rows, scene_runs
from internvla_ros.robots.embodiment import Embodiment, load_embodiment

Row = dict[str, Any]


@dataclass(frozen=True)
class PolicySource:
    """What a worker loads a policy from.

    Args:
        name: "expert", a checkpoint's folder, which every machine must have under this path, or
            the ws:// address of a server.
        points, latent: as of `LearnedPolicy`.
        device: where the network runs.
    """

    name: str
    points: str = "predicted"
    latent: bool = True
    device: str = "cpu"

    def load(self, embodiment: Embodiment) -> Policy:
        """Raises what `load_policy` raises."""
        return load_policy(
            self.name, embodiment, points=self.points, latent=self.latent, device=self.device
        )


def spread_scenes(
    workers: Workers, robot: str, source: PolicySource, plan: TableTop, scenes: Iterable[int]
) -> Generator[Row, None, None]:
    """The rows of table-top scenes, given by their numbers, in the order in which they end.

    Films and bags are written by the workers: `plan.record` must be a folder that they share.

    Raises:
        PolicyError: scenes are to be worked on in batches, which no worker does.
        WorkersError: see `Workers.map`.
    """
    if plan.batch > 1:
        raise PolicyError("a worker works on one scene at a time: use --batch 1 with workers")
    record = None if plan.record is None else Path(plan.record).absolute()
    arguments = (robot, source, replace(plan, record=record))
    yield from workers.map(_work_on_scene, scenes, _start_worker, arguments, ordered=False)


@dataclass
class _Worker:
    """What a process needs for scenes; made once."""

    policy: Policy
    plan: TableTop
    runs: list[SceneRun]


_worker: _Worker | None = None


def _start_worker(robot: str, source: PolicySource, plan: TableTop) -> None:
    global _worker
    embodiment = load_embodiment(robot)
    _worker = _Worker(source.load(embodiment), plan, scene_runs(embodiment, plan))


def _work_on_scene(index: int) -> Row:
    assert _worker is not None
    (row,) = scene_rows(_worker.runs, _worker.policy, _worker.plan, [index])
    return row
