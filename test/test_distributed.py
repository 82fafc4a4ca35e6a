"""Tasks on workers: in order, again where one died, and nothing left behind."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import count, islice
from pathlib import Path

import distributed_work as work
import pytest

from internvla_ros.distributed import Workers, WorkersError, open_workers

HAVE_RAY = importlib.util.find_spec("ray") is not None
NEEDS_RAY = pytest.mark.skipif(not HAVE_RAY, reason="Ray is not installed (extra 'scale')")
KINDS = [
    pytest.param(None, id="processes"),
    pytest.param("local:2", id="ray", marks=[NEEDS_RAY, pytest.mark.integration]),
]


@pytest.fixture
def workers() -> Iterator[Workers]:
    with open_workers(2) as found:
        yield found


def prepared(folder: Path) -> list[str]:
    return (folder / "prepared").read_text().split()


def test_results_come_in_the_order_of_the_tasks(workers: Workers, tmp_path: Path) -> None:
    found = workers.map(work.late_square, range(8), work.prepare, (str(tmp_path),))
    assert list(found) == [number**2 for number in range(8)]
    assert 1 <= len(prepared(tmp_path)) <= 2


def test_results_come_as_they_end_where_wanted(workers: Workers, tmp_path: Path) -> None:
    arguments = (str(tmp_path),)
    found = list(workers.map(work.late_square, range(4), work.prepare, arguments, ordered=False))
    assert sorted(found) == [0, 1, 4, 9] and found.index(1) < found.index(0)


def test_tasks_without_end_are_begun_a_few_ahead(workers: Workers, tmp_path: Path) -> None:
    drawn = []

    def tasks() -> Iterator[int]:
        for number in count():
            drawn.append(number)
            yield number

    with closing(workers.map(work.square, tasks(), work.prepare, (str(tmp_path),))) as found:
        assert list(islice(found, 5)) == [0, 1, 4, 9, 16]
    assert len(drawn) <= 5 + 2 * workers.count


def test_work_can_be_given_up_while_results_are_on_their_way(tmp_path: Path) -> None:
    def give_up() -> None:
        for _ in range(6):
            with open_workers(2) as workers:
                found = workers.map(work.large, count(), work.prepare, arguments)
                next(found)
                found.close()

    arguments = (str(tmp_path),)
    trial = threading.Thread(target=give_up, daemon=True)
    trial.start()
    trial.join(60.0)
    assert not trial.is_alive()


def test_the_task_of_a_dead_worker_is_done_again(workers: Workers, tmp_path: Path) -> None:
    found = workers.map(work.die_once, range(6), work.prepare, (str(tmp_path),))
    assert list(found) == [0, 1, 4, 9, 16, 25]
    assert (tmp_path / "killed").exists()


def test_a_task_that_kills_every_worker_is_given_up(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(WorkersError, match="3 workers died one after the other at task number 0"):
        list(workers.map(work.die, [7], work.prepare, (str(tmp_path),)))


def test_what_a_task_raises_is_raised(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^4 is no good$"):
        list(workers.map(work.refuse, [4], work.prepare, (str(tmp_path),)))


def test_what_preparing_raises_is_raised(workers: Workers) -> None:
    with pytest.raises(ValueError, match=r"^nothing to work with$"):
        list(workers.map(work.square, [4], work.fail_to_prepare))


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    with open_workers() as found:
        assert found.count == 1
        results = found.map(work.square, count(), work.prepare, (str(tmp_path),))
        assert list(islice(results, 3)) == [0, 1, 4]
    assert prepared(tmp_path) == [str(os.getpid())]


PROGRAM = """
import sys, distributed_work as work
from internvla_ros.distributed import open_workers

def results(function, count):
    return list(workers.map(function, range(count), work.prepare, (sys.argv[2],)))

try:
    with open_workers(2, sys.argv[1] or None) as workers:
        assert results(work.late_square, 6) == results(work.die_once, 6) == [0, 1, 4, 9, 16, 25]
        try:
            results(work.refuse, 1)
        except ValueError as error:
            assert str(error) == "0 is no good"
        results(work.stay, 9)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(params=KINDS)
def busy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program whose two workers did tasks in order, one of them again, and now do not end."""
    command = [sys.executable, "-c", PROGRAM, request.param or "", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, start_new_session=True, env=environment)
    wait_until(lambda: len(list(tmp_path.glob("*.busy"))) == 2 or process.poll() is not None)
    assert process.poll() is None and (tmp_path / "killed").exists()
    yield process
    for rest in {process.pid, *processes_of(process.pid)}:
        with suppress(ProcessLookupError):
            os.kill(rest, signal.SIGKILL)
    process.wait(60)
    for folder in ray_folders(process.pid):
        shutil.rmtree(folder)


@pytest.mark.integration
def test_an_interruption_leaves_nothing_behind(busy: subprocess.Popen[bytes]) -> None:
    os.killpg(busy.pid, signal.SIGINT)  # as a terminal does
    assert busy.wait(60) == 130
    wait_until(lambda: not processes_of(busy.pid))
    assert not ray_folders(busy.pid)


@pytest.mark.integration
@pytest.mark.parametrize("busy", KINDS[:1], indirect=True)
def test_workers_end_with_a_killed_program(busy: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = {int(path.stem) for path in tmp_path.glob("*.busy")}
    busy.kill()
    busy.wait(60)
    wait_until(lambda: not own & set(processes_of(busy.pid)))


def processes_of(session: int) -> list[int]:
    found = subprocess.run(["ps", "-s", str(session), "-o", "pid="], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def ray_folders(pid: int) -> list[Path]:
    return list(Path("/tmp").glob(f"ray_{pid}_*"))


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


@NEEDS_RAY
@pytest.mark.parametrize(
    ("address", "message"),
    [("local", "'local' should be local:N"), ("local:0", "'local:0' should be local:N")],
)
def test_addresses_that_are_none_are_refused(address: str, message: str) -> None:
    with pytest.raises(WorkersError, match=message), open_workers(ray=address):
        raise AssertionError("it was accepted")


@NEEDS_RAY
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:no", "auto"])
def test_a_cluster_that_is_not_there_is_named(address: str) -> None:
    with (
        pytest.raises(WorkersError, match=f"no Ray cluster at '{address}': "),
        open_workers(ray=address),
    ):
        raise AssertionError("it was found")


def test_no_worker_is_none() -> None:
    with pytest.raises(WorkersError, match="at least 1 worker, not 0"), open_workers(0):
        raise AssertionError("it was accepted")
