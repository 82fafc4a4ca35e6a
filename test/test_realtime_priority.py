"""A process that goes first, where it may."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASK = """
import gc, os, threading
from internvla_ros.nodes.realtime import go_first
stay = threading.Event()
thread = threading.Thread(target=stay.wait)
thread.start()
said = go_first({priority})
kinds = {{os.sched_getscheduler(int(name)) for name in os.listdir("/proc/self/task")}}
stay.set()
print(said, kinds == {{os.SCHED_FIFO}}, kinds == {{os.SCHED_OTHER}}, gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize("priority", [0, 1])
def test_all_threads_go_first_or_a_line_says_why_not(priority: int) -> None:
    asked = ASK.format(priority=priority)
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    line = said.stdout.strip()
    if priority == 0:
        assert line == "no real-time priority asked for False True True"
    elif "not permitted" in line:
        assert "rtprio 1" in line and line.endswith("False True True")
    else:
        assert line == "real-time priority 1 True False True"


def test_a_priority_that_there_is_not_is_told() -> None:
    asked = "from internvla_ros.nodes.realtime import go_first; print(go_first(1000))"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("no real-time priority: ")
