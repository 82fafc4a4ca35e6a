"""Running a handful of processes together, and leaving none behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from internvla_ros.node_spec import NodeSpec, command
from internvla_ros.respawn import WAITS, Respawn

_PR_SET_PDEATHSIG = 1
_STAGES = ((signal.SIGINT, 1.5), (signal.SIGTERM, 0.7), (signal.SIGKILL, 0.5))


class SupervisorError(RuntimeError):
    """A process could not be started."""


@dataclass(frozen=True)
class ProcessSpec:
    """What to run: a short name, the command line, whether to start it again when it dies, how
    much it gives way to the others (niceness, added to this process's own), whether the others are
    of no use without it, and whether it may end with status 0, its work done."""

    name: str
    command: tuple[str, ...]
    respawn: bool = False
    niceness: int = 0
    vital: bool = True
    once: bool = False


def processes(nodes: Sequence[NodeSpec], namespace: str) -> list[ProcessSpec]:
    """What to run for a graph in a namespace: one process a node."""
    return [
        ProcessSpec(
            node.name,
            command(node, namespace),
            node.respawn,
            node.niceness,
            node.vital,
            node.once,
        )
        for node in nodes
    ]


@dataclass(frozen=True)
class Ended:
    """A process that is gone for good: its exit status, negative for a signal."""

    name: str
    status: int

    def __str__(self) -> str:
        if self.status < 0:
            return f"{self.name} was killed by {signal.Signals(-self.status).name}"
        return f"{self.name} ended with status {self.status}"


@dataclass
class _Running:
    spec: ProcessSpec
    process: subprocess.Popen[bytes]
    since: float
    pending: bytes = b""


class Supervisor:
    """Starts processes, passes on what they print, and stops them all within three seconds.

    Those that may be started again are so when `respawn.Respawn` says; who is dead for good, and
    vital, is kept in `ended`.

    Every process leads a group of its own, and the kernel kills it when the thread that started
    it dies, however that comes about: call every method from one thread, best the main one.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        output: Callable[[str, str], None],
        environment: Mapping[str, str] | None = None,
        waits: Sequence[float] = WAITS,
    ) -> None:
        """
        Args:
            specs: what to run, started in this order.
            output: called with the name of a process and one line of its output.
            environment: variables set for all of them, on top of this process's own.
            waits: s before one that died is started again, the first, the second, ... time.
        """
        self._specs = list(specs)
        self._output = output
        self._environment = {**os.environ, **(environment or {})}
        self._running: dict[str, _Running] = {}
        self._respawns = {spec.name: Respawn(waits) for spec in specs if spec.respawn}
        self._due: dict[str, tuple[float, ProcessSpec]] = {}  # when to start which again
        self._selector = selectors.DefaultSelector()
        self.ended: list[Ended] = []
        """Vital processes that died for good, in the order of their death."""

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all.

        Raises:
            SupervisorError: a command cannot be run; those already started are stopped.
        """
        try:
            for spec in self._specs:
                self._start(spec)
        except OSError as error:
            self.stop()
            raise SupervisorError(f"cannot start {spec.name}: {error}") from error

    def pid(self, name: str) -> int:
        """The process id of a running process; KeyError when it does not run."""
        return self._running[name].process.pid

    def pids(self) -> dict[str, int]:
        """The process ids of all that run, by name."""
        return {name: running.process.pid for name, running in self._running.items()}

    def poll(self, timeout: float) -> None:
        """Pass on output for up to `timeout` s (at least what is there), reap, start again."""
        next_start = min((at for at, _ in self._due.values()), default=float("inf"))
        patience = max(0.0, min(timeout, next_start - time.monotonic()))
        for key, _ in self._selector.select(patience):
            self._read(key.data)
        self._start_due()
        for running in list(self._running.values()):
            if running.process.poll() is not None:
                self._reap(running)

    def stop(self) -> None:
        """End all: SIGINT, then SIGTERM, then SIGKILL; what they still print is dropped."""
        self._output = _drop
        self._due.clear()
        try:
            for number, patience in _STAGES:
                for running in self._running.values():
                    _signal_group(running.process.pid, number)
                if self._wait(patience):
                    break
        except KeyboardInterrupt:  # asked twice: no more patience
            for running in self._running.values():
                _signal_group(running.process.pid, signal.SIGKILL)
            self._wait(_STAGES[-1][1])

    def _wait(self, patience: float) -> bool:
        """Whether all are gone within `patience` s."""
        deadline = time.monotonic() + patience
        while self._running:
            for key, _ in self._selector.select(0.02):
                self._read(key.data)
            for running in list(self._running.values()):
                if running.process.poll() is not None:
                    self._forget(running)
            if time.monotonic() > deadline:
                return not self._running
        return True

    def _start(self, spec: ProcessSpec) -> None:
        process = subprocess.Popen(
            spec.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
            preexec_fn=_before(os.getpid(), spec.niceness),
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        running = _Running(spec, process, since=time.monotonic())
        self._running[spec.name] = running
        self._selector.register(process.stdout, selectors.EVENT_READ, running)

    def _read(self, running: _Running) -> None:
        stream = running.process.stdout
        assert stream is not None
        data = stream.read(65536)
        if data == b"":  # the process closed it; None: nothing there after all
            with contextlib.suppress(KeyError):
                self._selector.unregister(stream)
        *lines, running.pending = (running.pending + (data or b"")).split(b"\n")
        for line in lines:
            self._output(running.spec.name, line.decode(errors="replace").rstrip())

    def _reap(self, running: _Running) -> None:
        """A process died by itself: start it again, or note that it is gone for good."""
        self._read(running)
        self._forget(running)
        spec = running.spec
        ended = Ended(spec.name, running.process.returncode)
        if spec.once and ended.status == 0:
            return
        now, respawn = time.monotonic(), self._respawns.get(spec.name)
        wait = respawn.died(ended.status, now - running.since) if respawn is not None else None
        if wait is not None:
            when = f" in {wait:g} s" if wait else ""
            self._output(spec.name, f"{ended}; starting it again{when}")
            self._due[spec.name] = (now + wait, spec)
            self._start_due()
        elif spec.vital:
            self.ended.append(ended)
        else:
            self._output(spec.name, f"{ended}; the others go on without it")

    def _start_due(self) -> None:
        """Start again what has waited long enough."""
        now = time.monotonic()
        for name, (at, spec) in list(self._due.items()):
            if at <= now:
                del self._due[name]
                self._start(spec)

    def _forget(self, running: _Running) -> None:
        """Drop a dead process, and kill what it may have started."""
        _signal_group(running.process.pid, signal.SIGKILL)
        stream = running.process.stdout
        assert stream is not None
        if running.pending:
            self._output(running.spec.name, running.pending.decode(errors="replace").rstrip())
        with contextlib.suppress(KeyError):
            self._selector.unregister(stream)
        stream.close()
        del self._running[running.spec.name]


def _before(parent: int, niceness: int) -> Callable[[], None]:
    """What a new process does first: ask the kernel to kill it when its parent dies."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.nice(niceness)
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)

    return ask


def _signal_group(leader: int, number: int) -> None:
    """Signal a process group, if there still is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _drop(name: str, line: str) -> None:
    """Output that nobody wants any more."""
