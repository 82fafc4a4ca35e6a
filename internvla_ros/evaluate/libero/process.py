"""A LIBERO process as the evaluation sees it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import internvla_ros
from internvla_ros.evaluate.libero.environment import child_environment
from internvla_ros.evaluate.libero.framing import FrameError, read_frame, write_frame

STOP_SECONDS = 5.0

# The other Python is shown this package alone, not the folder it lies in, where packages of
# another Python may lie as well.
_START = """
import runpy, sys, types
package = types.ModuleType("internvla_ros")
package.__path__ = [{path!r}]
sys.modules["internvla_ros"] = package
runpy.run_module("internvla_ros.evaluate.libero.worker", run_name="__main__")
"""


class LiberoError(RuntimeError):
    """LIBERO could not do what it was told, or its process has ended."""


class WorkerProcess:
    """Starts a worker; messages are answered one at a time.

    Args:
        folder: LIBERO's environment.
        log: file for what the process prints.
        command: what to start instead, for tests.
    """

    def __init__(self, folder: Path, log: Path, command: list[str] | None = None) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command or worker_command(folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=child_environment(folder),
            )

    def fileno(self) -> int:
        """Readable when an answer has come, for `select`."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, op: str, **arguments: Any) -> None:
        """Tell it to do something; raises LiberoError when it has ended."""
        assert self._process.stdin is not None
        try:
            write_frame(self._process.stdin, {"op": op, **arguments})
        except OSError:
            raise self._ended() from None

    def receive(self) -> dict[str, Any]:
        """Wait for the answer; raises LiberoError when it could not be done."""
        assert self._process.stdout is not None
        try:
            answer = read_frame(self._process.stdout)
        except FrameError as error:
            raise LiberoError(f"LIBERO's process sent {error} (its log: {self.log})") from error
        if answer is None:
            raise self._ended()
        if "error" in answer:
            raise LiberoError(f"LIBERO: {answer['error']} (log: {self.log})")
        return answer

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Tell it to do something and wait for the answer."""
        self.send(op, **arguments)
        return self.receive()

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # what was not sent has nobody to go to
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ended(self) -> LiberoError:
        try:
            status: object = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            status = "an unknown status"
        return LiberoError(f"LIBERO's process ended with {status}: {self._last_words()}")

    def _last_words(self) -> str:
        """The end of its log, where the reason stands."""
        lines = self.log.read_text(errors="replace").splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (log: {self.log})"


def worker_command(folder: Path) -> list[str]:
    """The command line of a worker in LIBERO's environment."""
    path = str(Path(internvla_ros.__file__).parent)
    return [str(folder / "bin" / "python"), "-c", _START.format(path=path)]
