"""LIBERO's trials spread over a Ray cluster.

Every worker has a LIBERO process and a policy of its own, for one trial at a time; what it finds,
with the film of a failure, goes to the command, which keeps it as it keeps its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvla_ros.distributed import Workers
from internvla_ros.evaluate.libero import environment
from internvla_ros.evaluate.libero.harness import Evaluation, Job, LiberoPlan, PlanError, Seat
from internvla_ros.evaluate.libero.process import LiberoError, WorkerProcess
from internvla_ros.evaluate.libero.trial import TrialPolicy

Spawn = Callable[[Path], WorkerProcess]
Found = tuple[dict[str, Any], dict[str, Any], bytes | None]
"""A trial's row, the versions it depends on, and the film of a failure."""


def run_spread(
    evaluation: Evaluation,
    workers: Workers,
    load: Callable[[], TrialPolicy],
    spawn: Spawn,
    on_trial: Callable[[dict[str, Any]], None] = lambda row: None,
) -> None:
    """Do the trials that are not finished yet; what is finished is kept, whatever happens.

    Args:
        evaluation: is told of them; needs no policy.
        workers: do them.
        load: called in every worker, makes its policy; can be pickled, as can `spawn`.
        spawn: called in every worker with a log's path, starts its LIBERO process.

    Raises:
        PlanError: what workers do not do is asked for.
        LiberoError: LIBERO cannot go on in a worker, not even with a new process.
        WorkersError: see `Workers.map`.
    """
    plan = evaluation.plan
    if plan.batch > 1:
        raise PlanError("a worker of a cluster works on one trial at a time: use --batch 1")
    if plan.demonstrations is not None:
        raise PlanError("demonstrations are recorded on one machine: use --workers, not --ray")
    arguments = (replace(plan, workers=1, resume=False), load, spawn)
    jobs = evaluation.waiting()
    with ExitStack() as stack:
        stack.callback(evaluation.close)
        results = workers.map(_work_on_trial, jobs, _start_worker, arguments, ordered=False)
        stack.callback(results.close)
        for found in results:
            evaluation.take(*found, on_trial)


def spawn_here(folder: Path, log: Path) -> WorkerProcess:
    """A LIBERO process on this machine, its environment made first where it is missing."""
    environment.ensure(folder, print)
    return WorkerProcess(folder, log)


@dataclass
class _Worker:
    """A policy and a LIBERO process that stand ready."""

    evaluation: Evaluation
    stack: ExitStack
    seats: list[Seat]


_worker: _Worker | None = None


def _start_worker(plan: LiberoPlan, load: Callable[[], TrialPolicy], spawn: Spawn) -> None:
    global _worker
    scratch = Path(tempfile.mkdtemp(prefix="internvla_libero_"))
    evaluation = Evaluation(replace(plan, out=scratch), load(), {}, spawn)
    stack = ExitStack()
    _worker = _Worker(evaluation, stack, evaluation.seats(stack, 1))


def _work_on_trial(job: Job) -> Found:
    """A process that fails is replaced once: it may have been short of memory."""
    assert _worker is not None
    try:
        return _found(_worker, job)
    except LiberoError:
        _worker.stack.close()
        _worker.seats = _worker.evaluation.seats(_worker.stack, 1)
        return _found(_worker, job)


def _found(worker: _Worker, job: Job) -> Found:
    rows: list[dict[str, Any]] = []
    worker.evaluation.work(worker.seats, [job], rows.append)
    (row,) = rows
    path, film = worker.evaluation.film(row), None
    if path.exists():
        film = path.read_bytes()
        path.unlink()
    return row, worker.evaluation.versions, film
