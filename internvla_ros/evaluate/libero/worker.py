"""A process that holds one LIBERO environment and does what it is told over a pipe.

Messages come in on standard input and answers go out on what was standard output; what LIBERO
prints goes to standard error. Every message has an "op", the name of a method of `Desk`.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.evaluate.libero.conventions import CAMERAS, controller_input
from internvla_ros.evaluate.libero.framing import read_frame, write_frame
from internvla_ros.evaluate.libero.world import World, WorldError, versions


class Desk:
    """Carries out the messages of one evaluation."""

    def __init__(self) -> None:
        self._world: World | None = None

    @property
    def world(self) -> World:
        """The suite that was opened."""
        if self._world is None:
            raise WorldError("no suite was opened")
        return self._world

    def open(self, suite: str, size: int) -> dict[str, Any]:
        """Get a suite ready; answers its tasks."""
        self._world = World(suite, size)
        return {"tasks": self._world.tasks(), "versions": versions()}

    def start(
        self, task: int, trial: int, seed: int, views: int, render: bool = False
    ) -> dict[str, Any]:
        """Begin a trial; answers the facts and the first observation."""
        self.world.start(task, trial, seed, render or views > 0)
        return {**self.world.facts(), **self._observation(False, views)}

    def step(self, actions: NDArray[np.float64], views: int) -> dict[str, Any]:
        """Execute a policy's actions [n, 7] until the task is achieved; answers what is seen."""
        return self._observation(self.world.step(controller_input(actions)), views)

    def replay(
        self,
        task: int,
        trial: int,
        seed: int,
        actions: NDArray[np.float64],
        cameras: list[str],
        every: int,
        objects: list[str],
    ) -> dict[str, Any]:
        """Repeat a trial with the actions that were executed; answers what was to be seen.

        Frame i shows the moment before action i * every. `objects` are located in the first
        camera's picture.
        """
        self.world.start(task, trial, seed, True)
        achieved, frames = False, []
        for index, action in enumerate(actions):
            if index % every == 0:
                frames.append(self._frame(cameras, objects))
            achieved = self.world.step(controller_input(action[None]))
        return {"success": achieved, "frames": frames}

    def _frame(self, cameras: list[str], objects: list[str]) -> dict[str, Any]:
        frame = {"images": {camera: self.world.picture(camera) for camera in cameras}}
        if objects:
            frame |= {"state": self.world.state()}
            frame |= {"annotation": self.world.annotation(cameras[0], objects)}
        return frame

    def _observation(self, success: bool, views: int) -> dict[str, Any]:
        pictures = [] if success else [self.world.picture(name) for name in CAMERAS[:views]]
        return {"success": success, "images": pictures, **self.world.state()}


def main() -> None:
    """Answer messages until the other side closes the pipe."""
    incoming = os.fdopen(os.dup(0), "rb")
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get between the answers
    desk = Desk()
    while (message := read_frame(incoming)) is not None:
        try:
            answer = getattr(desk, message.pop("op"))(**message)
        except Exception as error:  # reported to the other side, which decides
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        write_frame(outgoing, answer)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
