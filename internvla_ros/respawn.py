"""When a process that died is started again, and when it is dead for good."""

from __future__ import annotations

from collections.abc import Sequence

WAITS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""s before each start again of a row of deaths without a good run between."""
GOOD_RUN = 60.0
"""s after which a process is taken to have run well, so that its next death is the first again."""
START_FAILED = 2
"""Exit status of a node that cannot be made of what it was given."""


class Respawn:
    """The deaths of one process that may be started again.

    The first death, and the first after a good run, is followed by a start at once; those after it
    by starts after 1, 2, 4, ... up to 30 s. It is dead for good when it dies once more than there
    are WAITS without a good run, and when its very first start fails with START_FAILED: what it was
    given is then wrong, and would be so again.
    """

    def __init__(self, waits: Sequence[float] = WAITS) -> None:
        self._waits = waits
        self._ever = 0
        self._row = 0

    def died(self, status: int, ran: float) -> float | None:
        """s to wait before it is started again; None: it is dead for good.

        Args:
            status: with which it ended, negative for a signal.
            ran: s for which it ran.
        """
        if self._ever == 0 and status == START_FAILED:
            return None
        self._row = 0 if ran >= GOOD_RUN else self._row
        wait = self._waits[self._row] if self._row < len(self._waits) else None
        self._row += 1
        self._ever += 1
        return wait
