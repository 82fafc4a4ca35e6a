"""Ways of executing chunks against delays: success, smoothness and time on the simulator.

    python bench/chunking.py [--policy expert|DIR] [--ensemble ...] [--delay ...] [--scenes N]

Every cell works through the same scenes. The expert sees the simulator's true state and foresees
what its chunk will bring about; it cannot take a commitment, so real-time chunking is for
checkpoints alone. A checkpoint given the simulator's points and no latent plan looks at no
picture: that shows what execution makes of it, quickly. Open loop executes each chunk to its end
before it looks at another.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from tqdm import tqdm

from internvla_ros.control.ensemble import METHODS
from internvla_ros.evaluate.policies import POINTS, Policy, load_policy
from internvla_ros.evaluate.report import Proportion
from internvla_ros.evaluate.run import Delivery
from internvla_ros.evaluate.tabletop import TableTop, run_tabletop
from internvla_ros.robots.embodiment import Embodiment, load_embodiment

HEADER = (
    f"{'ensemble':10} {'delay s':>7}  {'success (95 % Wilson)':28} "
    f"{'jerk m/s^3':>10} {'path mm':>8} {'time s':>7} {'refused':>8}"
)


def cell(
    robot: Embodiment, policy: Policy, blend: str, delay: float, args: argparse.Namespace
) -> str:
    """One row of the table: all scenes with one way of executing and one delay."""
    # Open loop a chunk has its time, and half as much again for an arm that cannot keep up.
    timeout = 1.0 if blend != "open-loop" else delay + 1.5 * policy.dt * robot.chunk_size
    plan = TableTop(
        scenes=args.scenes,
        seed=args.seed,
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
    parser.add_argument("--max-seconds", type=float, default=25.0, help="simulated, a scene")
    parser.add_argument("--points", choices=POINTS, default="predicted", help="given to the actor")
    parser.add_argument(
        "--latent-plan", choices=("given", "withheld"), default="given", help="to the actor"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    robot = load_embodiment(args.robot)
    latent = args.latent_plan == "given"
    policy = load_policy(args.policy, robot, points=args.points, latent=latent, device="cpu")
    print(f"{args.policy}, {args.scenes} scenes a cell, seed {args.seed}\n{HEADER}", flush=True)
    for blend in args.ensemble.split(","):
        if blend == "rtc" and args.policy == "expert":
            continue
        for delay in map(float, args.delay.split(",")):
            print(cell(robot, policy, blend, delay, args), flush=True)


if __name__ == "__main__":
    main()
