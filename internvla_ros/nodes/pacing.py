"""Small things about time that nodes share: rates seen, and rates kept."""

from __future__ import annotations

from collections import deque


class RateMeter:
    """Events a second over a sliding window."""

    def __init__(self, window: float = 1.0) -> None:
        """`window`: s, > 0, how far back to look."""
        self._window = window
        self._times: deque[float] = deque()

    def tick(self, now: float) -> None:
        """Note an event at `now` (s)."""
        self._times.append(now)
        self._forget(now)

    def rate(self, now: float) -> float:
        """Events a second in the window before `now` (s); 0 with fewer than two events."""
        self._forget(now)
        if len(self._times) < 2:
            return 0.0
        span = max(self._times[-1] - self._times[0], 1e-9)
        return (len(self._times) - 1) / span

    def _forget(self, now: float) -> None:
        while self._times and now - self._times[0] > self._window:
            self._times.popleft()


class RateLimit:
    """Lets events through at most so often, without beating against a slightly faster source."""

    def __init__(self, rate: float) -> None:
        """`rate`: Hz, > 0."""
        self._period = 1.0 / rate
        self._next = float("-inf")

    def ready(self, now: float) -> bool:
        """Whether an event at `now` (s) may pass; a clock that jumped back starts anew."""
        if now < self._next - 2.0 * self._period:
            self._next = float("-inf")
        if now < self._next - 0.1 * self._period:
            return False
        late = now - self._next > self._period
        self._next = (now if late else self._next) + self._period
        return True
