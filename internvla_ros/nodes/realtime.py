"""Letting the process that moves the arm go before the others on the same processors."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path

_SWITCH = 5e-4  # s for which a thread may keep the interpreter while others wait
_THREADS = Path("/proc/self/task")


def go_first(priority: int) -> str:
    """Give every thread of this process the real-time priority SCHED_FIFO `priority`; 0: none.

    Threads that they start later have it too. They hand the interpreter over more often, and what
    is in memory now is not looked through again by the collector of garbage, whose longest turns
    would else come in the middle of a motion.

    Returns:
        What came of it, as a line to log.
    """
    sys.setswitchinterval(_SWITCH)
    gc.collect()
    gc.freeze()
    if priority == 0:
        return "no real-time priority asked for"
    try:
        for thread in _THREADS.iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(priority))
    except PermissionError:
        return (
            f"no real-time priority: not permitted. Setpoints may come late on a busy machine; "
            f"allow it with 'rtprio {priority}' in /etc/security/limits.conf, or a container's "
            "ulimit rtprio and capability SYS_NICE"
        )
    except OSError as error:
        return f"no real-time priority: {error}"
    return f"real-time priority {priority}"
