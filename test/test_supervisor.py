"""Processes are started, listened to and restarted, and none outlives the one who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from internvla_ros.nodes.supervisor import Ended, ProcessSpec, Supervisor, SupervisorError

PYTHON = sys.executable
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
print('child', child.pid, flush=True)
child.wait()
"""


def python(name: str, code: str, respawn: bool = False) -> ProcessSpec:
    return ProcessSpec(name, (PYTHON, "-S", "-c", code), respawn)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], supervisor: Supervisor | None = None) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        if supervisor is None:
            time.sleep(0.02)
        else:
            supervisor.poll(0.05)


class Heard(list[tuple[str, str]]):
    """Lines that were passed on."""

    def __call__(self, name: str, line: str) -> None:
        self.append((name, line))


def test_what_is_not_vital_may_end() -> None:
    heard = Heard()
    onlooker = ProcessSpec("b", (PYTHON, "-S", "-c", "raise SystemExit(4)"), vital=False)
    with Supervisor([onlooker, python("a", SLEEPER)], heard) as supervisor:
        supervisor.start()
        words = ("b", "b ended with status 4; the others go on without it")
        wait_for(lambda: words in heard, supervisor)
        assert not supervisor.ended
        assert list(supervisor.pids()) == ["a"]


@pytest.mark.parametrize("status", [0, 4])
def test_what_has_one_thing_to_do_may_end_but_not_fail(status: int) -> None:
    code = f"raise SystemExit({status})"
    once = ProcessSpec("b", (PYTHON, "-S", "-c", code), once=True)
    with Supervisor([once, python("a", SLEEPER)], Heard()) as supervisor:
        supervisor.start()
        wait_for(lambda: list(supervisor.pids()) == ["a"], supervisor)
        assert supervisor.ended == ([Ended("b", 4)] if status else [])


def test_passes_on_lines_and_notes_who_ended() -> None:
    heard = Heard()
    code = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    with Supervisor([python("a", code)], heard) as supervisor:
        supervisor.start()
        wait_for(lambda: bool(supervisor.ended), supervisor)
    assert sorted(heard) == [("a", "one"), ("a", "two")]
    assert supervisor.ended == [Ended("a", 3)]
    assert str(supervisor.ended[0]) == "a ended with status 3"
    assert str(Ended("b", -9)) == "b was killed by SIGKILL"


def test_stops_everything_even_what_ignores_signals_and_what_has_children() -> None:
    heard = Heard()
    specs = [python("s", SLEEPER), python("t", STUBBORN), python("p", PARENT)]
    with Supervisor(specs, heard) as supervisor:
        supervisor.start()
        wait_for(lambda: len(heard) == 3, supervisor)
        pids = list(supervisor.pids().values())
        pids.append(next(int(line.split()[1]) for name, line in heard if name == "p"))
        assert all(map(alive, pids))
    wait_for(lambda: not any(map(alive, pids)))
    assert supervisor.pids() == {}


def test_restarts_what_should_be_after_a_while_and_gives_up_in_the_end() -> None:
    heard = Heard()
    specs = [python("a", "raise SystemExit(1)", respawn=True)]
    waits = (0.0, 0.25, 0.5)
    began = time.monotonic()
    with Supervisor(specs, heard, waits=waits) as supervisor:
        supervisor.start()
        wait_for(lambda: bool(supervisor.ended), supervisor)
    assert time.monotonic() - began > sum(waits)
    words = "a ended with status 1; starting it again"
    assert [line for _, line in heard] == [words, f"{words} in 0.25 s", f"{words} in 0.5 s"]


def test_what_waits_to_be_started_again_is_not_when_all_are_stopped() -> None:
    heard = Heard()
    specs = [python("a", "raise SystemExit(1)", respawn=True), python("b", SLEEPER)]
    with Supervisor(specs, heard, waits=(600.0,)) as supervisor:
        supervisor.start()
        wait_for(lambda: "a" not in supervisor.pids(), supervisor)
        assert not supervisor.ended
        supervisor.stop()
        supervisor.poll(0.0)
        assert supervisor.pids() == {}


def test_what_cannot_start_at_all_is_not_tried_again() -> None:
    heard = Heard()
    with Supervisor([python("a", "raise SystemExit(2)", respawn=True)], heard) as supervisor:
        supervisor.start()
        wait_for(lambda: bool(supervisor.ended), supervisor)
    assert supervisor.ended == [Ended("a", 2)]
    assert heard == []


def test_a_command_that_does_not_exist() -> None:
    specs = [python("a", SLEEPER), ProcessSpec("b", ("/nowhere/at/all",))]
    with (
        Supervisor(specs, Heard()) as supervisor,
        pytest.raises(SupervisorError, match="cannot start b"),
    ):
        supervisor.start()
    assert supervisor.pids() == {}


def test_no_orphan_survives_the_death_of_the_parent(tmp_path: Path) -> None:
    code = f"""
from internvla_ros.nodes.supervisor import ProcessSpec, Supervisor
import sys
supervisor = Supervisor([ProcessSpec("a", (sys.executable, "-S", "-c", {STUBBORN!r}))],
                        lambda name, line: print(supervisor.pid(name), flush=True))
supervisor.start()
while True:
    supervisor.poll(0.1)
"""
    parent = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not alive(child))
