"""Episodes of robosuite's PickPlaceCan with a scripted arm; told what they cost, as JSON.

Runs in an environment that has robosuite; `bench/data_engine.py` starts it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

os.environ.setdefault("MUJOCO_GL", "osmesa")

import numpy as np
import robosuite
from robosuite.controllers import load_controller_config

CAMERAS = ("agentview", "robot0_eye_in_hand")
STEP = 0.05  # m that an action of 1 moves the hand
LONGEST = 60  # steps of an episode


def make(width: int, height: int, rate: float) -> Any:
    """The environment: two cameras at every step of a policy of `rate` Hz."""
    return robosuite.make(
        "PickPlaceCan",
        robots="Panda",
        controller_configs=load_controller_config(default_controller="OSC_POSE"),
        has_renderer=False,
        has_offscreen_renderer=True,
        use_camera_obs=True,
        camera_names=list(CAMERAS),
        camera_widths=width,
        camera_heights=height,
        control_freq=rate,
        horizon=LONGEST,
        ignore_done=True,
    )


def episode(env: Any) -> tuple[int, bool]:
    """Frames of one episode, and whether the can is where it belongs."""
    seen = env.reset()
    goal = np.array(env.target_bin_placements[env.object_to_id["can"]])
    stages = ("above", "down", "close", "up", "over", "open")
    stage, waited = 0, 0
    for step in range(LONGEST):
        hand, can = seen["robot0_eef_pos"], seen["Can_pos"]
        name = stages[stage]
        target = {
            "above": can + np.array([0.0, 0.0, 0.10]),
            "down": can,
            "close": hand,
            "up": np.array([hand[0], hand[1], goal[2] + 0.28]),
            "over": goal + np.array([0.0, 0.0, 0.25]),
            "open": hand,
        }[name]
        shift = target - hand
        action = np.zeros(7)
        action[:3] = np.clip(shift / STEP, -1, 1)
        action[6] = 1.0 if name in ("close", "up", "over") else -1.0
        seen, _, _, _ = env.step(action)
        waited += 1
        still = name in ("close", "open") and waited >= 3
        near = float(np.linalg.norm(shift)) < (0.03 if name in ("over", "up") else 0.012)
        if still or (name not in ("close", "open") and near):
            stage, waited = stage + 1, 0
        if stage == len(stages):
            return step + 1, bool(env._check_success())
    return LONGEST, bool(env._check_success())


def main() -> None:
    """Run the episodes and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--rate", type=float, default=5.0)
    args = parser.parse_args()
    env = make(args.width, args.height, args.rate)
    episode(env)  # what is made once is not counted
    frames = done = 0
    cpu, wall = time.process_time(), time.monotonic()
    for _ in range(args.episodes):
        steps, success = episode(env)
        frames += steps * len(CAMERAS)
        done += success
    result = {
        "cpu": time.process_time() - cpu,
        "wall": time.monotonic() - wall,
        "frames": frames,
        "episodes": args.episodes,
        "done": done,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
