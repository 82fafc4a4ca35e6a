"""How tasks are handed out: some ahead, again where a worker died, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

LIVES = 3
"""Workers that may die at a task before it is given up."""


class WorkersError(RuntimeError):
    """Workers that cannot be had, or that die again and again."""


class WorkerDiedError(Exception):
    """The worker died with the task; another one may do it."""


@dataclass(frozen=True)
class Job:
    """What workers do.

    Args:
        function: of a task, gives its result.
        prepare: is called once in every worker, before its first task.
        arguments: of `prepare`.
    """

    function: Callable[[Any], Any]
    prepare: Callable[..., None]
    arguments: tuple[Any, ...] = ()


class Crew(Protocol):
    """Workers that stand ready for one job."""

    count: int

    def submit(self, task: Any) -> Any:
        """Give a task to a worker; returns what stands for its result."""
        ...

    def wait(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Those, at least one, of which the result is there."""
        ...

    def result(self, handle: Any) -> Any:
        """The result; raises what the function raised, or WorkerDiedError."""
        ...

    def close(self) -> None:
        """End the workers, whatever they are at."""
        ...


@dataclass
class _Task:
    number: int
    task: Any
    lives: int = LIVES


def hand_out(crew: Crew, tasks: Iterable[Any], ordered: bool) -> Generator[Any, None, None]:
    """The results of tasks, which may be without end; ends the workers when it is closed.

    No more than two tasks a worker are begun ahead of the results that were taken.

    Raises:
        WorkersError: workers die at a task again and again.
    """
    coming = (_Task(number, task) for number, task in enumerate(tasks))
    again: deque[_Task] = deque()
    under_way: dict[Any, _Task] = {}
    ended: dict[int, Any] = {}
    due = 0
    try:
        while True:
            while len(under_way) + len(ended) < 2 * crew.count:
                following = again.popleft() if again else next(coming, None)
                if following is None:
                    break
                under_way[crew.submit(following.task)] = following
            if not under_way:
                return
            for handle in crew.wait(list(under_way)):
                done = under_way.pop(handle)
                try:
                    ended[done.number] = crew.result(handle)
                except WorkerDiedError as error:
                    again.append(_once_more(done, error))
            for number in sorted(ended):
                if not ordered or number == due:
                    due = number + 1
                    yield ended.pop(number)
    finally:
        crew.close()


def _once_more(done: _Task, error: WorkerDiedError) -> _Task:
    done.lives -= 1
    if done.lives == 0:
        raise WorkersError(
            f"{LIVES} workers died one after the other at task number {done.number} "
            f"({done.task!r:.60}): {error}"
        ) from error
    return done
