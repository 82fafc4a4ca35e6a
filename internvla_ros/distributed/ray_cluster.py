"""Workers on a Ray cluster; the only module that knows of Ray."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import internvla_ros
from internvla_ros.distributed.crew import Job, WorkerDiedError, WorkersError, hand_out

KNOCK_SECONDS = 5.0
_LOCAL = re.compile(r"local:([1-9][0-9]*)")


class RayWorkers:
    """Actors on a cluster; see `open_workers` for the arguments.

    Raises:
        WorkersError: there is no such cluster, it is too small, or Ray is not installed.
    """

    def __init__(self, address: str, count: int | None = None, gpus: float = 0.0) -> None:
        self._ray = _import_ray()
        if self._ray.is_initialized():
            raise WorkersError("this process already uses a Ray cluster")
        self._gpus = gpus
        self._folder: Path | None = None
        try:
            self._connect(address)
            self.count = self._fitting(address, count)
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        found = _LOCAL.fullmatch(address)
        if found is not None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            # Ray's own folder outlives it, and its sockets' paths must be short.
            self._folder = Path(tempfile.mkdtemp(prefix=f"ray_{os.getpid()}_", dir="/tmp"))
            options |= {"num_cpus": int(found[1]), "include_dashboard": False}
            path = os.pathsep.join(sys.path)  # workers find what this process finds
            options |= {"_temp_dir": str(self._folder)}
            variables = {"PYTHONPATH": path, "TMPDIR": str(self._folder)}
            options |= {"runtime_env": {"env_vars": variables}}
        elif address.startswith("local"):
            raise WorkersError(f"{address!r} should be local:N, with N workers on this machine")
        else:
            _knock(address)
        try:
            self._ray.init(address="local" if found else address, **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise WorkersError(f"no Ray cluster at {address!r}: {_reason(error)}") from error

    def _fitting(self, address: str, count: int | None) -> int:
        have = self._ray.cluster_resources()
        most = int(have.get("CPU", 0))
        if self._gpus:
            most = min(most, int(have.get("GPU", 0) / self._gpus + 1e-9))
        if most < (count or 1):
            raise WorkersError(
                f"the Ray cluster {address!r} has {have.get('CPU', 0):g} processors and "
                f"{have.get('GPU', 0):g} GPUs: too few for {count or 1} workers"
            )
        return count or most

    def map(
        self,
        function: Callable[[Any], Any],
        tasks: Iterable[Any],
        prepare: Callable[..., None],
        arguments: tuple[Any, ...] = (),
        *,
        ordered: bool = True,
    ) -> Generator[Any, None, None]:
        """See `Workers.map`."""
        crew = _Actors(self._ray, Job(function, prepare, arguments), self.count, self._gpus)
        yield from hand_out(crew, tasks, ordered)

    def close(self) -> None:
        """Leave the cluster; one that was made for the purpose ends."""
        self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class _Actors:
    """One actor a worker, replaced when it dies."""

    def __init__(self, ray: Any, job: Job, count: int, gpus: float) -> None:
        self.count = count
        self._ray, self._job = ray, job
        self._make = ray.remote(num_cpus=1, num_gpus=gpus)(Worker)
        self._actors = [self._new() for _ in range(count)]
        self._at: dict[Any, Any] = {}
        """The actor that a task was given to."""

    def _new(self) -> Any:
        return self._make.remote(self._job, internvla_ros.__version__)

    def submit(self, task: Any) -> Any:
        busy = list(self._at.values())
        actor = min(self._actors, key=lambda actor: sum(other is actor for other in busy))
        handle = actor.work.remote(task)
        self._at[handle] = actor
        return handle

    def wait(self, handles: Sequence[Any]) -> Sequence[Any]:
        done, _ = self._ray.wait(list(handles), num_returns=1)
        return list(done)

    def result(self, handle: Any) -> Any:
        actor, errors = self._at.pop(handle), self._ray.exceptions
        try:
            return self._ray.get(handle)
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            if getattr(error, "actor_init_failed", False):
                raise WorkersError(f"a Ray worker cannot start: {_last_line(error)}") from error
            # The other tasks that it had will be told so too, one after the other.
            self._actors = [self._new() if own is actor else own for own in self._actors]
            raise WorkerDiedError(_first_line(error)) from error

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)


class Worker:
    """Does one job's tasks, in a process of the cluster."""

    def __init__(self, job: Job, version: str) -> None:
        if version != internvla_ros.__version__:
            raise WorkersError(
                f"internvla_ros is {version} where the command runs and "
                f"{internvla_ros.__version__} on the cluster"
            )
        self._job, self._prepared = job, False

    def work(self, task: Any) -> Any:
        """A task's result."""
        if not self._prepared:
            self._job.prepare(*self._job.arguments)
            self._prepared = True
        return self._job.function(task)


def _knock(address: str) -> None:
    """Raise WorkersError where nobody listens, which Ray finds out after minutes of trying."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # "auto", or a name of Ray's own
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise WorkersError(f"no Ray cluster at {address!r}: {error}") from error


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise WorkersError(
            "Ray is not installed: install internvla_ros with the extra 'scale', or 'ray[client]'"
        ) from error
    return ray


def _reason(error: BaseException) -> str:
    """Why there is no connection; that a token is asked for stands deep in what Ray says."""
    told: BaseException | None = error
    while told is not None:
        if "AuthToken" in str(told):
            return "it asks for a token (RAY_AUTH_MODE=token with RAY_AUTH_TOKEN_PATH or ..._TOKEN)"
        told = told.__cause__
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
