"""A stand-in for LIBERO's process that speaks its messages, for tests of the evaluation.

    python libero_toy.py [--slow] [--dies-at TASK] [--no-suite]

A trial is achieved when x has been moved by 0.1 (1 + trial), and never in task 9.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import numpy as np

from internvla_ros.evaluate.libero.framing import read_frame, write_frame


class Toy:
    """What `worker.Desk` is to LIBERO."""

    def __init__(self, slow: bool, dies_at: int | None, no_suite: bool) -> None:
        self.slow, self.dies_at, self.no_suite = slow, dies_at, no_suite

    def open(self, suite: str, size: int) -> dict[str, Any]:
        if self.no_suite:
            raise FileNotFoundError("assets/scenes/floor.xml")
        assert size == 256
        task = {"name": suite, "instruction": f"{suite}", "trials": 50}
        return {"tasks": [task] * 10, "versions": {"toy": "1"}}

    def start(self, task: int, trial: int, seed: int, views: int) -> dict[str, Any]:
        if task == self.dies_at:
            print("out of memory", file=sys.stderr, flush=True)
            os._exit(3)
        self.task, self.trial, self.seed, self.x, self.steps = task, trial, seed, 0.0, 0
        facts = {"instruction": f"do task {task}", "goal": [["on", "cube_1", "plate_1"]]}
        extents = {name: np.array([[-0.02] * 3, [0.02] * 3]) for name in ("cube_1", "plate_1")}
        return {**facts, "base": np.zeros(3), "extents": extents, **self.seen(views)}

    def step(self, actions: np.ndarray, views: int) -> dict[str, Any]:
        if self.slow:
            time.sleep(0.02)
        for action in actions:
            self.x, self.steps = self.x + 0.01 * float(action[0]), self.steps + 1
            if self.done():
                break
        return self.seen(views)

    def replay(self, task: int, trial: int, seed: int, actions: np.ndarray, cameras: list[str],
               every: int, objects: list[str]) -> dict[str, Any]:  # fmt: skip
        self.start(task, trial, seed, 0)
        frames = []
        for action in actions[::every]:
            images = {camera: self.picture() for camera in cameras}
            annotation = {
                "boxes": np.array([[10.0, 20.0, 30.0, 40.0]] * len(objects)),
                "centres": np.array([[20.0, 30.0]] * len(objects)),
                "tip": np.array([50.0, 60.0]),
            }
            frames.append({"images": images, "state": self.state(), "annotation": annotation})
            self.x += 0.01 * every * float(action[0])
        return {"success": self.done(), "frames": frames}

    def done(self) -> bool:
        return self.task != 9 and self.x >= 0.1 * (1 + self.trial) - 1e-9

    def seen(self, views: int) -> dict[str, Any]:
        return {"success": self.done(), "images": [self.picture()] * views, **self.state()}

    def state(self) -> dict[str, Any]:
        tip = np.array([self.x, 0.0, 0.0])
        return {"steps": self.steps, "tip": tip, "rotation": np.eye(3), "opening": 1.0}

    @staticmethod
    def picture() -> np.ndarray:
        picture = np.zeros((256, 256, 3), np.uint8)
        picture[0, 0] = 255
        return picture


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--dies-at", type=int)
    parser.add_argument("--no-suite", action="store_true")
    args = parser.parse_args()
    toy = Toy(args.slow, args.dies_at, args.no_suite)
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    while (message := read_frame(incoming)) is not None:
        try:
            answer = getattr(toy, message.pop("op"))(**message)
        except OSError as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        write_frame(outgoing, answer)


if __name__ == "__main__":
    main()
