"""Shared memory that killed processes have left is cleared away; that of living ones stays."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from internvla_ros.nodes.shared_memory import FOLDER, Cleared, clear_shared_memory

NAME = "fastrtps_0123456789abcdef"
NODE = """
import rclpy, time
rclpy.init()
node = rclpy.create_node("left")
print("up", flush=True)
time.sleep(60)
"""
PATIENCE = 30.0  # s


def leave_segment(folder: Path, name: str = NAME) -> Path:
    (folder / name).write_bytes(bytes(1000))
    lock = folder / f"{name}_el"
    lock.touch()
    return lock


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_only_what_nobody_holds_and_is_not_new_is_removed(tmp_path: Path) -> None:
    lock = leave_segment(tmp_path)
    for other in ("fastrtps_port7412", "fastrtps_port7412_el", "sem.x", "fastrtps_z_el"):
        (tmp_path / other).touch()
    before = names(tmp_path)
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert clear_shared_memory(tmp_path, 0.0) == Cleared(0, 0)
    assert clear_shared_memory(tmp_path) == Cleared(0, 0), "it might be about to be locked"
    assert names(tmp_path) == before
    cleared = clear_shared_memory(tmp_path, 0.0)
    assert cleared == Cleared(1, 1000)
    assert "1 shared memory segments" in str(cleared)
    assert names(tmp_path) == before - {NAME, f"{NAME}_el"}


def test_a_lock_without_a_segment_goes_as_well(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}_el").touch()
    assert clear_shared_memory(tmp_path, 0.0) == Cleared(1, 0)
    assert not names(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert clear_shared_memory(tmp_path / "none") == Cleared(0, 0)


@pytest.mark.integration
@pytest.mark.skipif(not FOLDER.is_dir(), reason="no shared memory here")
def test_fast_dds_holds_its_lock_as_long_as_its_process_lives() -> None:
    """With the real Fast DDS, whose files these are."""
    before = names(FOLDER)
    process = subprocess.Popen([sys.executable, "-c", NODE], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        lock = own_lock(process.pid)
        if lock is None:
            pytest.skip("this middleware keeps no segments")
        assert lock.name not in before
        clear_shared_memory(FOLDER)
        assert lock.exists()
        with lock.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        process.kill()
        process.wait()
    segment = lock.with_name(lock.name.removesuffix("_el"))
    assert segment.exists(), "killed, it leaves its segment"
    deadline = time.monotonic() + PATIENCE
    while segment.exists():
        clear_shared_memory(FOLDER, 0.5)
        assert time.monotonic() < deadline
    assert not lock.exists()


def own_lock(pid: int) -> Path | None:
    """The lock file that a process has open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = link.readlink()
        if target.parent == FOLDER and target.name.endswith("_el") and "port" not in target.name:
            return target
    return None
