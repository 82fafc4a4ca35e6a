"""Work for the tests of workers, which import it by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_folder = Path()


def prepare(folder: str) -> None:
    """Remember where to leave traces, and leave one of this worker."""
    global _folder
    _folder = Path(folder)
    with (_folder / "prepared").open("a") as file:
        file.write(f"{os.getpid()}\n")


def fail_to_prepare() -> None:
    raise ValueError("nothing to work with")


def square(number: int) -> int:
    return number * number


def large(number: int) -> bytes:
    """More than goes through a pipe at once."""
    return bytes(30_000_000)


def late_square(number: int) -> int:
    """Even numbers take longer, so that results end in another order than the tasks'."""
    if number % 2 == 0:
        wait_for(_folder / f"{number + 1}.done")
    (_folder / f"{number}.done").touch()
    return number * number


def die_once(number: int) -> int:
    """The worker of the number 3 is killed the first time."""
    killed = _folder / "killed"
    if number == 3 and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise ValueError(f"{number} is no good")


def stay(number: int) -> int:
    """Never ends by itself."""
    (_folder / f"{os.getpid()}.busy").touch()
    time.sleep(3600.0)
    return number


def wait_for(path: Path, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path} did not come")
        time.sleep(0.01)
