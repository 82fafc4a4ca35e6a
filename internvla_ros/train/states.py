"""The states from which a run can go on: written whole, checked before use, the newest ones kept.

    <stage>/states/step_00000500/manifest.json     every file's size and CRC-32, written last

A state appears under its name when all of it is on the disk. One that is found damaged is told,
named `.damaged`, and the one before it is used: the steps between are trained again, and come out
the same.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

from internvla_ros.train.errors import TrainingError

FOLDER = "states"
MANIFEST = "manifest.json"
_BLOCK = 1 << 22


class States:
    """The saved states of one stage's folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder / FOLDER
        self.keep = keep

    def steps(self) -> list[int]:
        """The steps of which there is a state, ascending."""
        return sorted(
            int(path.name.removeprefix("step_"))
            for path in self.folder.glob("step_*")
            if path.name.removeprefix("step_").isdecimal()
        )

    def path(self, step: int) -> Path:
        """Where the state of a step is."""
        return self.folder / f"step_{step:08d}"

    def scratch(self, step: int) -> Path:
        """Where it is written, until `finish`."""
        return self.folder / f".writing_{step:08d}"

    def begin(self, step: int) -> Path:
        """An empty folder for a state's files; leftovers of killed runs go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".writing_*"):
            shutil.rmtree(left)
        self.scratch(step).mkdir()
        return self.scratch(step)

    def finish(self, step: int) -> None:
        """All files are written: put the state under its name, drop the oldest."""
        scratch, path = self.scratch(step), self.path(step)
        files = {str(p.relative_to(scratch)): _summary(p) for p in _files(scratch)}
        (scratch / MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1))
        for file in _files(scratch):
            _flush(file)
        if path.exists():
            shutil.rmtree(path)
        os.replace(scratch, path)
        _flush(self.folder)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.path(old))

    def newest(self, warn: Callable[[str], None]) -> int | None:
        """The newest step whose state is whole; None where there never was one.

        Damaged ones are told through `warn`. TrainingError: all of them are damaged.
        """
        found = self.steps()
        for step in reversed(found):
            problem = self.problem(step)
            if problem is None:
                return step
            damaged = self.path(step).with_suffix(".damaged")
            shutil.rmtree(damaged, ignore_errors=True)
            os.replace(self.path(step), damaged)
            warn(f"the state of step {step} is damaged ({problem}); it is now {damaged}")
        if found:
            raise TrainingError(
                f"no state in {self.folder} is whole any more; start again with another --out"
            )
        return None

    def problem(self, step: int) -> str | None:
        """What is wrong with a state, naming the file; None: nothing."""
        path = self.path(step)
        try:
            files = json.loads((path / MANIFEST).read_text())["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{path / MANIFEST} cannot be read: {error}"
        for name, (size, checksum) in files.items():
            file = path / name
            if not file.is_file():
                return f"{file} is missing"
            if file.stat().st_size != size:
                return f"{file} has {file.stat().st_size} bytes instead of {size}"
            if _summary(file)[1] != checksum:
                return f"{file} has another content than was written"
        return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _summary(path: Path) -> tuple[int, int]:
    """Size and CRC-32."""
    size, checksum = 0, 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return size, checksum


def _flush(path: Path) -> None:
    """Have the kernel put a file or a folder's entries on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
