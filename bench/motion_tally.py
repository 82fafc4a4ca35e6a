"""What came out of some chunks: counts that add up over a long run's parts, and a file of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Tally:
    """Counts of one robot.

    Attributes:
        sent: chunks by kind.
        followed: chunks that were accepted.
        setpoints: that were checked.
        violations: setpoints that broke a limit, by its name.
        worst: how far the worst setpoint was beyond each limit; negative: within it.
        prevented: interventions by name.
        microseconds: how many setpoints took that many whole us.
    """

    sent: Counter[str] = field(default_factory=Counter)
    followed: int = 0
    setpoints: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    prevented: Counter[str] = field(default_factory=Counter)
    microseconds: Counter[int] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Count those of another part, too."""
        self.sent += other.sent
        self.followed += other.followed
        self.setpoints += other.setpoints
        self.violations += other.violations
        self.prevented += other.prevented
        self.microseconds += other.microseconds
        for name, worst in other.worst.items():
            self.worst[name] = max(worst, self.worst.get(name, worst))

    def percentiles(self, *shares: float) -> list[int]:
        """us that so many percent of the setpoints took at most."""
        times = sorted(self.microseconds)
        passed = np.cumsum([self.microseconds[t] for t in times])
        return [times[int(np.searchsorted(passed, 0.01 * s * passed[-1]))] for s in shares]

    def rows(self) -> Iterator[tuple[str, str]]:
        """What is printed, label and value."""
        yield "chunks", f"{self.sent.total()} ({self.followed} followed)"
        yield "setpoints checked", str(self.setpoints)
        for name in self.worst:
            yield f"violations: {name}", self._violations(name)
        yield "violations: not finite", str(self.violations["finite"])
        times = self.percentiles(50, 99, 99.9, 100)
        yield "us a setpoint, p50 / p99 / p99.9 / most", " / ".join(map(str, times))
        for name, count in sorted(self.prevented.items()):
            yield f"prevented: {name}", str(count)

    def _violations(self, name: str) -> str:
        worst, count = self.worst[name], self.violations[name]
        if name in ("workspace", "clearance"):
            return f"{count} (worst {1e3 * worst:+.2f} mm)"
        return f"{count} (nearest {100.0 * (1.0 + worst):.3f} % of the limit)"

    def document(self) -> dict[str, Any]:
        """As JSON has it, with what is wanted of it most."""
        p50, p99, p999, most = self.percentiles(50, 99, 99.9, 100)
        return {
            "chunks": self.sent.total(),
            "violated": self.violations.total(),
            "us": {"p50": p50, "p99": p99, "p99.9": p999, "most": most},
            **vars(self),
        }

    @staticmethod
    def of(document: dict[str, Any]) -> Tally:
        """What `document` made."""
        times = {int(us): count for us, count in document["microseconds"].items()}
        return Tally(
            sent=Counter(document["sent"]),
            followed=document["followed"],
            setpoints=document["setpoints"],
            violations=Counter(document["violations"]),
            worst=document["worst"],
            prevented=Counter(document["prevented"]),
            microseconds=Counter(times),
        )


class Record:
    """The parts of a long run that are done, in a file if there is one.

    Args:
        path: of the file; what it holds is gone on with. None: nothing is kept.
        about: what decides the chunks: a file of something else is not added to.

    Raises:
        ValueError: the file is of another run.
    """

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self._path, self._about = path, about
        self._robots: dict[str, Any] = {}
        if path is None or not path.exists():
            return
        held = json.loads(path.read_text())
        if held["about"] != about:
            raise ValueError(f"{path} is of {held['about']}, not of {about}: name another file")
        self._robots = held["robots"]

    def done(self, robot: str) -> tuple[int, Tally]:
        """How many parts are done, and what came out of them."""
        held = self._robots.get(robot)
        return (0, Tally()) if held is None else (held["parts"], Tally.of(held))

    def keep(self, robot: str, parts: int, tally: Tally) -> None:
        """So many parts are done."""
        self._robots[robot] = {"parts": parts, **tally.document()}
        if self._path is not None:
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps({"about": self._about, "robots": self._robots}, indent=1))
            os.replace(new, self._path)
