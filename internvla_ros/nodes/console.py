"""What the processes of a graph print, on one terminal."""

from __future__ import annotations

import os
import re
from typing import TextIO

_COLOURS = (36, 33, 32, 35, 34, 31)
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Console:
    """Writes lines with the name of who wrote them in front, in a colour of its own."""

    def __init__(self, stream: TextIO, names: list[str]) -> None:
        """`names`: all writers, in the order of their colours."""
        self._stream = stream
        self._width = max((len(name) for name in names), default=0)
        self._colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
        self._coloured = stream.isatty() and "NO_COLOR" not in os.environ

    def line(self, name: str, text: str) -> None:
        """One line that `name` wrote."""
        label = f"{name:>{self._width}} |"
        if self._coloured:
            label = f"\x1b[{self._colour.get(name, 37)}m{label}\x1b[0m"
        self._stream.write(f"{label} {_ESCAPES.sub('', text)}\n")
        self._stream.flush()
