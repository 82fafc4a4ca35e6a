"""What was asked for and what became of it: the page's memory, without the page."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_REMEMBERED = 12  # instructions
_KEPT = 50  # outcomes


@dataclass(frozen=True)
class Outcome:
    """How an instruction ended.

    Attributes:
        clock: time of day, as shown.
        success: it was carried out.
        stopped: somebody ended it: neither a success nor a failure.
        message: one line.
        elapsed: s.
    """

    clock: str
    instruction: str
    success: bool
    stopped: bool
    message: str
    elapsed: float


@dataclass
class Journal:
    """Instructions given, the one in progress with its parts, and how earlier ones ended.

    Attributes:
        instruction: in progress; "" when nothing is.
        elapsed: s since it began.
        subtasks: its parts so far, the present one last.
        paused: was interrupted and waits to be taken up again; "" when nothing does.
        history: what was asked for, the newest first, each once.
        outcomes: the newest first.
        done, failed: how often, since the page began.
    """

    instruction: str = ""
    elapsed: float = 0.0
    subtasks: list[str] = field(default_factory=list)
    paused: str = ""
    history: list[str] = field(default_factory=list)
    outcomes: deque[Outcome] = field(default_factory=lambda: deque(maxlen=_KEPT))
    done: int = 0
    failed: int = 0

    def begin(self, instruction: str) -> None:
        """An instruction is being carried out."""
        if instruction == self.instruction:
            return
        self.instruction, self.elapsed, self.subtasks, self.paused = instruction, 0.0, [], ""
        self.remember(instruction)

    def remember(self, instruction: str) -> None:
        """Keep an instruction for later, in front of the others."""
        others = [each for each in self.history if each != instruction]
        self.history = [instruction, *others][:_REMEMBERED]

    def progress(self, subtask: str, elapsed: float) -> None:
        """What is being done now, and s since the instruction began."""
        self.elapsed = elapsed
        if subtask and (not self.subtasks or self.subtasks[-1] != subtask):
            self.subtasks.append(subtask)

    def pause(self) -> None:
        """What is in progress will be interrupted and waits."""
        self.paused = self.instruction

    def idle(self) -> None:
        """Nothing is being done any more."""
        self.instruction = ""

    def end(self, outcome: Outcome) -> None:
        """An instruction has ended."""
        self.outcomes.appendleft(outcome)
        self.done += outcome.success
        self.failed += not outcome.success and not outcome.stopped
