"""The finished trials of a long benchmark, kept so that not even a kill loses one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class JournalError(ValueError):
    """A journal that is in the way, of another run, or damaged."""


class Journal:
    """One JSON line a finished trial, on the disk when `append` returns; the first one, settings.

    Args:
        path: the file; its folder is made.
        settings: what decides the outcome of the trials; JSON values.
        resume: go on with a journal that is there.

    Attributes:
        rows: the finished trials.

    Raises:
        JournalError: there is a journal and it is not to be resumed, or it has other settings, or
            something else stands in the file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], resume: bool) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = _complete_lines(path) if path.exists() else []
        if kept:
            self._take_up(kept, json.loads(json.dumps(settings)), resume)
        # What a kill cut off is no line and must not become the start of the next one.
        self._file = path.open("r+b" if path.exists() else "wb", buffering=0)
        self._file.truncate(sum(len(line) + 1 for line in kept))
        self._file.seek(0, os.SEEK_END)
        if not kept:
            self._write({"settings": settings})

    def append(self, row: Mapping[str, Any]) -> None:
        """Keep a finished trial."""
        self._write(row)
        self.rows.append(dict(row))

    def close(self) -> None:
        """Close the file; nothing is waiting to be written."""
        self._file.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        os.fsync(self._file.fileno())

    def _take_up(self, lines: list[bytes], settings: Mapping[str, Any], resume: bool) -> None:
        if not resume:
            raise JournalError(
                f"{self.path} holds {len(lines) - 1} finished trials: add --resume to go on with "
                "them, or choose another --out"
            )
        parsed = [_parse(self.path, number, line) for number, line in enumerate(lines, start=1)]
        stored = parsed[0].get("settings")
        if stored != settings:
            raise JournalError(f"{self.path} is of another run: {_difference(stored, settings)}")
        self.rows = parsed[1:]


def _complete_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise JournalError(f"{path}:{number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise JournalError(f"{path}:{number} must be a JSON object")
    return row


def _difference(stored: Any, given: Mapping[str, Any]) -> str:
    """The first setting that differs, in words."""
    if not isinstance(stored, dict):
        return "it does not begin with its settings"
    name = next(n for n in [*stored, *given] if stored.get(n) != given.get(n))
    return f"its {name} is {stored.get(name)!r}, not {given.get(name)!r}"
