"""SimplerEnv's tasks as they are counted in the public tables; written down, not imported.

Visual matching (VM) uses SimplerEnv's ready-made environments. Variant aggregation (VA) builds the
same tasks in other rooms, light, tables and from other cameras, and averages over all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One environment and the layouts that are tried in it.

    Attributes:
        task: what it counts for in the report.
        robot: a key of `conventions.ROBOTS`.
        environment: SimplerEnv's ready-made name, or that of a ManiSkill environment if `build`.
        build: arguments of a ManiSkill environment; empty for a ready-made one.
        layouts: options of `reset`, one for each trial.
    """

    task: str
    robot: str
    environment: str
    build: Mapping[str, Any] = field(default_factory=dict)
    layouts: tuple[Mapping[str, Any], ...] = ()


_BASE_SCENE = "google_pick_coke_can_1_v4"
_SCENES = (
    f"{_BASE_SCENE}_alt_background",
    f"{_BASE_SCENE}_alt_background_2",
    "Baked_sc1_staging_objaverse_cabinet1_h870",
    "Baked_sc1_staging_objaverse_cabinet2_h870",
)
_LIGHTS = ("slightly_darker_lighting", "slightly_brighter_lighting")
_CAMERAS = ("AltGoogleCamera", "AltGoogleCamera2")
_CAN_POSES = ("lr_switch", "laid_vertically", "upright")
_DRAWERS = tuple(f"{verb}{place}Drawer" for verb in ("Open", "Close")
                 for place in ("Top", "Middle", "Bottom"))  # fmt: skip
_ROOM = "frl_apartment_stage_simple"
_ROOMS = (_ROOM, "modern_bedroom_no_roof", "modern_office_no_roof")


def _episodes(count: int) -> tuple[Mapping[str, Any], ...]:
    return tuple({"obj_init_options": {"episode_id": index}} for index in range(count))


def _drawn(count: int) -> tuple[Mapping[str, Any], ...]:
    """Layouts that the environment draws from its seed."""
    return tuple({} for _ in range(count))


def _spread(low: float, high: float, count: int) -> list[float]:
    return [low + (high - low) * index / (count - 1) for index in range(count)]


def widowx() -> list[Setting]:
    """The four WidowX tasks, 24 layouts each."""
    names = ("spoon_on_towel", "carrot_on_plate", "stack_cube", "put_eggplant_in_basket")
    return [Setting(n, "widowx", f"widowx_{n}", layouts=_episodes(24)) for n in names]


def google_vm() -> list[Setting]:
    """The Google robot in rooms that match the real ones."""
    settings = [
        Setting("pick_coke_can", "google_robot", f"google_robot_pick_{pose}_coke_can",
                layouts=_drawn(100))
        for pose in ("horizontal", "vertical", "standing")
    ]  # fmt: skip
    settings.append(
        Setting("move_near", "google_robot", "google_robot_move_near", layouts=_episodes(60))
    )
    for verb, place in product(("open", "close"), ("top", "middle", "bottom")):
        name = f"google_robot_{verb}_{place}_drawer"
        settings.append(Setting("drawer", "google_robot", name, layouts=_drawn(36)))
    place_apple = "google_robot_place_apple_in_closed_top_drawer"
    settings.append(Setting("apple_in_drawer", "google_robot", place_apple, layouts=_drawn(108)))
    return settings


def google_va() -> list[Setting]:
    """The Google robot in varied rooms."""
    return [*_can_variants(), *_near_variants(), *_drawer_variants()]


def _can_variants() -> list[Setting]:
    """33 environments of 25 layouts: 3 poses of the can, 11 variants."""
    positions = product(_spread(-0.35, -0.12, 5), _spread(-0.02, 0.42, 5))
    robot = {"init_xy": [0.35, 0.20], "init_rot_quat": [0.0, 0.0, 0.0, 1.0]}
    layouts = tuple(
        {"robot_init_options": robot, "obj_init_options": {"init_xy": list(xy)}} for xy in positions
    )
    variants: list[tuple[str, dict[str, Any]]] = [("", {})]
    variants += [("", {"scene_name": scene}) for scene in _SCENES]
    variants += [("", {light: True}) for light in _LIGHTS]
    variants += [("Distractor", {}), ("Distractor", {"distractor_config": "more"})]
    variants += [(camera, {}) for camera in _CAMERAS]
    return [
        Setting(
            "pick_coke_can",
            "google_robot",
            f"GraspSingleOpenedCokeCan{kind}InScene-v0",
            {"scene_name": _BASE_SCENE, "max_episode_steps": 80, pose: True, **options},
            layouts,
        )
        for pose, (kind, options) in product(_CAN_POSES, variants)
    ]


def _near_variants() -> list[Setting]:
    """10 environments of 60 layouts."""
    variants: list[tuple[str, dict[str, Any]]] = [
        ("Google", {}),
        ("Google", {"no_distractor": True}),
    ]
    variants += [("Google", {"scene_name": scene}) for scene in _SCENES]
    variants += [("Google", {light: True}) for light in _LIGHTS]
    variants += [(camera, {}) for camera in _CAMERAS]
    robot = {"init_xy": [0.35, 0.21], "init_rot_quat": _yaw(-0.09)}
    layouts = tuple({"robot_init_options": robot, **layout} for layout in _episodes(60))
    return [
        Setting(
            "move_near",
            "google_robot",
            f"MoveNear{kind}InScene-v0",
            {"scene_name": _BASE_SCENE, "max_episode_steps": 80, **options},
            layouts,
        )
        for kind, options in variants
    ]


def _drawer_variants() -> list[Setting]:
    """42 environments of 9 places of the robot: 6 drawers' tasks, 7 variants; ray-traced."""
    places = product(_spread(0.65, 0.85, 3), _spread(-0.2, 0.2, 3))
    layouts = tuple(
        {"robot_init_options": {"init_xy": list(xy), "init_rot_quat": [0.0, 0.0, 0.0, 1.0]}}
        for xy in places
    )
    variants: list[dict[str, Any]] = [{"scene_name": scene} for scene in _ROOMS]
    variants += [{"light_mode": mode} for mode in ("brighter", "darker")]
    variants += [{"station_name": name} for name in ("mk_station2", "mk_station3")]
    return [
        Setting(
            "drawer",
            "google_robot",
            f"{drawer}CustomInScene-v0",
            {"scene_name": _ROOM, "max_episode_steps": 113, "shader_dir": "rt", **options},
            layouts,
        )
        for drawer, options in product(_DRAWERS, variants)
    ]


def _yaw(angle: float) -> list[float]:
    """The quaternion x y z w of a turn about z."""
    from math import cos, sin

    return [0.0, 0.0, sin(angle / 2.0), cos(angle / 2.0)]


SUITES = {"widowx": widowx, "google-vm": google_vm, "google-va": google_va}
