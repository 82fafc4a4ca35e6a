"""Workers on this machine: this process, or fresh ones that end when it does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from types import FrameType
from typing import Any

from internvla_ros.distributed.crew import Job, WorkerDiedError, hand_out


class LocalWorkers:
    """`count` processes, for one this process; see `Workers`."""

    def __init__(self, count: int) -> None:
        self.count = count

    def map(
        self,
        function: Callable[[Any], Any],
        tasks: Iterable[Any],
        prepare: Callable[..., None],
        arguments: tuple[Any, ...] = (),
        *,
        ordered: bool = True,
    ) -> Generator[Any, None, None]:
        """See `Workers.map`; in processes, all that passes between is pickled."""
        if self.count == 1:
            prepare(*arguments)
            yield from map(function, tasks)
            return
        crew = _Processes(Job(function, prepare, arguments), self.count)
        yield from hand_out(crew, tasks, ordered)

    def close(self) -> None:
        """Nothing is left between two calls of `map`."""


class _Processes:
    """A pool of fresh processes, made anew when one of them dies."""

    def __init__(self, job: Job, count: int) -> None:
        self.count = count
        self._job = job
        self._ended, self._end = multiprocessing.Pipe(duplex=False)
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self._job, self._ended),
        )

    def submit(self, task: Any) -> Future[Any]:
        with _interrupts_held_back():  # workers inherit this, until they see to it
            try:
                return self._pool.submit(_work, task)
            except BrokenProcessPool:
                self._pool.shutdown(wait=True)
                self._pool = self._new_pool()
                return self._pool.submit(_work, task)

    def wait(self, handles: Sequence[Future[Any]]) -> Sequence[Future[Any]]:
        return list(wait(handles, return_when=FIRST_COMPLETED).done)

    def result(self, handle: Future[Any]) -> Any:
        try:
            return handle.result()
        except BrokenProcessPool as error:
            raise WorkerDiedError("a worker process ended; was memory short?") from error

    def close(self) -> None:
        self._end.close()  # which every worker notices at once
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ended.close()


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set instead of interrupting; a second one interrupts."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    """What this process, being a worker, is there for.

    `between` is held but while a task is worked on: whoever has it knows that no result is on its
    way to the parent.
    """

    job: Job | None = None
    prepared = False
    between = threading.Lock()


def _start_worker(job: Job, ended: connection.Connection) -> None:
    """A worker leaves Ctrl-C to its parent, and goes when told to or when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel, ended])
        # A parent that has got half of a result waits for the rest of it for ever.
        while not _Process.between.acquire(timeout=0.1) and parent.is_alive():
            pass
        os._exit(1)

    _Process.between.acquire()
    threading.Thread(target=follow, daemon=True).start()
    _Process.job = job


def _work(task: Any) -> Any:
    """A task's result; what `prepare` raises is told like what the function raises."""
    job = _Process.job
    assert job is not None
    _Process.between.release()
    try:
        if not _Process.prepared:
            job.prepare(*job.arguments)
            _Process.prepared = True
        return job.function(task)
    finally:
        _Process.between.acquire()
