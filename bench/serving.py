"""What the wire costs: the same looks and chunks from a policy here and from a server beside it.

    python bench/serving.py [--checkpoint DIR] [--repeats N] [--width W --height H]

The server is `internvla serve` in a process of its own on this machine, so that the difference is
what encoding, the loopback and decoding cost; a network adds its own. Both take turns. The last
line is a request with the views and the plan that the server reads and has nothing to do for.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from internvla_ros.model.policy import Policy
from internvla_ros.resources import DEFAULT_CHECKPOINT, resource
from internvla_ros.serving.client import PolicyClient
from internvla_ros.serving.local import LocalActor, LocalPlanner

TASK = "put the red cube on the blue plate"


def timed(action: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    started = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - started)


@contextmanager
def server(checkpoint: str) -> Iterator[str]:
    """The address of a server of the checkpoint, as long as it is needed."""
    command = ["-m", "internvla_ros.cli", "serve", "--port", "0", "--checkpoint", checkpoint]
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "ready on" in line:
                yield line.split()[-1]
                return
        raise RuntimeError("the server did not start")
    finally:
        process.terminate()
        process.communicate()


def row(name: str, here: Callable[[], object], there: Callable[[], object], repeats: int) -> str:
    """Medians of a call here and there, in turns, after two of each to warm up."""
    times = [(timed(here), timed(there)) for _ in range(repeats + 2)][2:]
    local, remote = (statistics.median(column) for column in zip(*times, strict=True))
    extra = statistics.median(b - a for a, b in times)
    return f"{name:6} {local:9.2f} {remote:10.2f} {extra:9.2f} {remote / local:7.2f}"


def main() -> None:
    """Print a row for each kind of request."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", default=str(resource(DEFAULT_CHECKPOINT)))
    parser.add_argument("--repeats", type=int, default=40, help="calls of each kind")
    parser.add_argument("--width", type=int, default=320, help="of each view, pixels")
    parser.add_argument("--height", type=int, default=240, help="of each view, pixels")
    args = parser.parse_args()
    policy = Policy.from_pretrained(args.checkpoint)
    rng = np.random.default_rng(0)
    shape = (args.height, args.width, 3)
    images = [[rng.integers(0, 256, shape, dtype=np.uint8) for _ in policy.config.cameras]]
    state = np.zeros((1, policy.config.actor.state_dim))
    key = next(iter(policy.statistics))
    planner, actor = LocalPlanner(policy.planner), LocalActor(policy.actor)
    with server(args.checkpoint) as url, PolicyClient(url) as client:
        plan, _ = planner.look(images, [TASK])
        print(f"{'':6} {'local ms':>9} {'remote ms':>10} {'extra ms':>9} {'ratio':>7}")
        for name, here, there in (
            (
                "look",
                lambda: planner.look(images, [TASK]),
                lambda: client.look(images, [TASK]),
            ),
            (
                "act",
                lambda: actor.act(images, plan, state, unnorm_key=key),
                lambda: client.act(images, plan, state, unnorm_key=key),
            ),
        ):
            print(row(name, here, there, args.repeats), flush=True)
        load = {"views": images[0], "plan": plan.hidden_states}
        waits = [timed(lambda: client.request("reset", load)) for _ in range(args.repeats)]
        size = sum(array.nbytes for array in (*images[0], plan.hidden_states))
        print(f"wire   {statistics.median(waits):20.2f} for {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
