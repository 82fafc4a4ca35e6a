"""Ways of executing chunks against delays: success, smoothness and time on the simulator.

    python bench/chunking.py [--policy expert|DIR] [--ensemble ...] [--delay ...] [--scenes N]

Every cell works through the same scenes. The expert sees the simulator's true state and foresees
what its chunk will bring about; it cannot take a commitment, so real-time chunking is for
checkpoints alone. A checkpoint given the simulator's points and no latent plan looks at no
picture: that shows what execution makes of it, quickly. Open loop executes each chunk to its end
before it looks at another. With --push the object to grasp is moved by some metres half a second
after the start, which shows what executing old chunks costs.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from internvla_ros.control.ensemble import METHODS
from internvla_ros.evaluate.policies import POINTS, Policy, load_policy
from internvla_ros.evaluate.report import Proportion
from internvla_ros.evaluate.run import Decision, Delivery, SceneRun
from internvla_ros.evaluate.tabletop import TableTop, run_tabletop
from internvla_ros.robots.embodiment import Embodiment, load_embodiment
from internvla_ros.sim.mjcf import movable_body
from internvla_ros.sim.world import World

PUSH_AT = 0.5  # s after the start
HEADER = (
    f"{'ensemble':10} {'delay s':>7}  {'success (95 % Wilson)':28} "
    f"{'jerk m/s^3':>10} {'path mm':>8} {'time s':>7} {'refused':>8}"
)


class Pushed:
    """A policy in whose scenes the object to grasp is moved, once, when it has been seen."""

    def __init__(self, policy: Policy, metres: float) -> None:
        self._policy, self._metres, self.dt = policy, metres, policy.dt

    def decide(self, runs: Sequence[SceneRun]) -> list[Decision]:
        for run in runs:
            if run.world.time >= PUSH_AT and "pushed" not in run.memory:
                run.memory["pushed"] = True
                push(run, self._metres)
        return self._policy.decide(runs)


def push(run: SceneRun, metres: float) -> None:
    """Move the object to grasp to where there is most room around it."""
    world = run.world
    assert isinstance(world, World)
    task, objects, table = world.scene.task, world.scene.objects, run.embodiment.tabletop
    here = world.object_position(task.pick)[:2]
    others = np.array([world.object_position(o.name)[:2] for o in objects if o.name != task.pick])
    low, high = np.transpose([table.x, table.y])
    angles = np.arange(8) * np.pi / 4
    places = [here + metres * np.array([np.cos(a), np.sin(a)]) for a in angles]
    inside = [place for place in places if ((place >= low) & (place <= high)).all()]
    best = max(inside, key=lambda place: np.linalg.norm(others - place, axis=1).min())
    movables = [o.name for o in objects if o.role == "movable"]
    joint = world.model.body(movable_body(movables.index(task.pick))).jntadr[0]
    address = world.model.jnt_qposadr[joint]
    world.data.qpos[address : address + 2] = best


def cell(
    robot: Embodiment, policy: Policy, blend: str, delay: float, args: argparse.Namespace
) -> str:
    """One row of the table: all scenes with one way of executing and one delay."""
    # Open loop a chunk has its time, and half as much again for an arm that cannot keep up.
    timeout = 1.0 if blend != "open-loop" else delay + 1.5 * policy.dt * robot.chunk_size
    plan = TableTop(
        scenes=args.scenes,
        seed=args.seed,
        batch=1 if blend == "rtc" else args.batch,
        max_seconds=args.max_seconds,
        delivery=Delivery(delay, blend, robot.ensemble.horizon, max(timeout, delay + 0.6)),
    )
    with tqdm(total=args.scenes, desc=f"{blend}, {delay} s", leave=False) as bar:
        rows = run_tabletop(robot, policy, plan, {}, lambda row: bar.update() and None).rows
    done = [row["seconds"] for row in rows if row["success"]]
    success = str(Proportion(len(done), len(rows)))
    jerk, path = (
        statistics.median(row[key] for row in rows) for key in ("tip_jerk", "path_error_mm")
    )
    refused = statistics.mean(row["refused_chunks"] for row in rows)
    time = f"{statistics.median(done):7.1f}" if done else "      -"
    return f"{blend:10} {delay:7.1f}  {success:28} {jerk:10.1f} {path:8.1f} {time} {refused:8.1f}"


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--policy", default="expert", help="'expert' or a checkpoint folder")
    parser.add_argument("--robot", default="widowx_250s")
    parser.add_argument("--ensemble", default=",".join(METHODS), help="ways, separated by commas")
    parser.add_argument("--delay", default="0,0.1,0.2,0.4", help="seconds, separated by commas")
    parser.add_argument("--scenes", type=int, default=20, help="a cell")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--batch", type=int, default=1, help="scenes at a time, but for rtc")
    parser.add_argument("--max-seconds", type=float, default=25.0, help="simulated, a scene")
    parser.add_argument("--push", type=float, default=0.0, help="m, of the object to grasp")
    parser.add_argument("--points", choices=POINTS, default="predicted", help="given to the actor")
    parser.add_argument(
        "--latent-plan", choices=("given", "withheld"), default="given", help="to the actor"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    robot = load_embodiment(args.robot)
    latent = args.latent_plan == "given"
    policy = load_policy(args.policy, robot, points=args.points, latent=latent, device="cpu")
    if args.push:
        policy = Pushed(policy, args.push)
    print(
        f"{args.policy}, {args.scenes} scenes a cell, seed {args.seed}, pushed by {args.push} m\n"
        f"{HEADER}",
        flush=True,
    )
    for blend in args.ensemble.split(","):
        if blend == "rtc" and args.policy == "expert":
            continue
        for delay in map(float, args.delay.split(",")):
            print(cell(robot, policy, blend, delay, args), flush=True)


if __name__ == "__main__":
    main()
