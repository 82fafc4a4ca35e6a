"""Where tasks are worked on, chosen by an address: this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from internvla_ros.distributed.crew import WorkersError
from internvla_ros.distributed.local import LocalWorkers

Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers(Protocol):
    """Processes that work on tasks.

    Attributes:
        count: how many tasks are worked on at the same time.
    """

    count: int

    def map(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        prepare: Callable[..., None],
        arguments: tuple[Any, ...] = (),
        *,
        ordered: bool = True,
    ) -> Generator[Result, None, None]:
        """The results of tasks, which may be without end.

        Results come in the order of the tasks, or as they end. A task whose worker died is done
        again by another. Closing the generator ends the workers, whatever they are at.

        Args:
            function: importable by name, like `prepare`; what it raises is raised here.
            tasks, arguments: small: they travel, as results do.
            prepare: called with `arguments` once in every worker, before its first task.
            ordered: in the order of the tasks.

        Raises:
            WorkersError: workers cannot be had, or die at a task again and again.
        """
        ...

    def close(self) -> None:
        """Let go of what the workers stand on."""
        ...


@contextmanager
def open_workers(
    count: int | None = None, ray: str | None = None, gpus: float = 0.0
) -> Iterator[Workers]:
    """Workers that are gone when the block ends, also by Ctrl-C.

    Args:
        count: how many; None for one, or on a cluster for as many as it has processors (GPUs,
            where a worker takes some).
        ray: None for this machine alone; else "local:N" for a Ray cluster of N workers on this
            machine, made for the purpose, or a running cluster: "auto", "HOST:PORT" or
            "ray://HOST:PORT". Its machines must have this package in the same version.
        gpus: that a worker takes on a cluster, parts of one too.

    Raises:
        WorkersError: there is no such cluster, or Ray is not installed.
    """
    if count is not None and count < 1:
        raise WorkersError(f"there must be at least 1 worker, not {count}")
    workers: Workers
    if ray is None:
        workers = LocalWorkers(count or 1)
    else:
        from internvla_ros.distributed.ray_cluster import RayWorkers

        workers = RayWorkers(ray, count, gpus)
    try:
        yield workers
    finally:
        workers.close()
