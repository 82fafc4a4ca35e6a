"""The kinds of objects: what they are made of fits what they say of themselves."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from internvla_ros.robots.embodiment import known_embodiments, load_embodiment
from internvla_ros.sim.draft import Draft
from internvla_ros.sim.kinds import CONTAINERS, MOVABLES, Container, Kind, kind_of
from internvla_ros.sim.scene import COLOURS
from internvla_ros.sim.splits import (
    SPLITS,
    UNSEEN_CONTAINERS,
    UNSEEN_KINDS,
    UNSEEN_PAIRS,
    load_split,
)

KINDS = [*MOVABLES.values(), *CONTAINERS.values()]
SLACK = 0.0035  # m that rims, handles and wheels may stand out


def corners(kind: Kind | Container, size: tuple[float, float, float]) -> np.ndarray:
    """[2, 3] the lowest and highest coordinates of all parts, compiled."""
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body()
    for number, part in enumerate(kind.parts(size)):
        part.add_to(spec, body, str(number))
    body.explicitinertial, body.mass, body.inertia = True, 1.0, (1.0, 1.0, 1.0)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for geom in range(model.ngeom):
        points = outline(model, geom) @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
        low, high = np.minimum(low, points.min(axis=0)), np.maximum(high, points.max(axis=0))
    return np.stack([low, high])


def outline(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """[n, 3] points of a geom in its own frame: of a mesh its own, else its box's corners."""
    mesh = int(model.geom_dataid[geom])
    if mesh >= 0:
        first = model.mesh_vertadr[mesh]
        return model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
    signs = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, -1).T
    return model.geom_aabb[geom, :3] + signs * model.geom_aabb[geom, 3:]


def test_there_are_many_kinds_with_names_of_one_word() -> None:
    assert len(MOVABLES) >= 40 and len(CONTAINERS) >= 5
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)
    assert all(name.isalpha() and name.islower() for name in names)
    assert not set(names) & set(COLOURS)
    assert all(set(kind.colours) <= set(COLOURS) for kind in KINDS)
    with pytest.raises(KeyError):
        kind_of("unicorn")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_parts_fill_the_extents(kind: Kind | Container) -> None:
    size = kind.sample(np.random.default_rng(0))
    low, high = corners(kind, size)
    half = np.array(size) / 2
    assert (low > -half - SLACK - 0.1 * half).all() and (high < half + SLACK + 0.1 * half).all()
    assert ((high - low) > 0.8 * np.array(size)).all()
    assert low[2] > -half[2] - 0.0015  # nothing is below what it stands on


@pytest.mark.parametrize("robot", known_embodiments())
def test_every_robot_can_grasp_at_least_forty_kinds(robot: str) -> None:
    draft = Draft(np.random.default_rng(0), load_embodiment(robot), load_split("seen"))
    assert sum(draft.can_grasp(kind) for kind in MOVABLES.values()) >= 40


def test_what_is_held_out_exists_and_leaves_enough() -> None:
    assert set(MOVABLES) > UNSEEN_KINDS and set(CONTAINERS) > UNSEEN_CONTAINERS
    assert len(UNSEEN_KINDS) >= 8 and len(set(MOVABLES) - UNSEEN_KINDS) >= 40
    for colour, kind in UNSEEN_PAIRS:
        assert colour in kind_of(kind).colours and kind not in UNSEEN_KINDS | UNSEEN_CONTAINERS
    assert set(SPLITS) == {"seen", "unseen_objects", "unseen_pairs", "clutter", "long_horizon"}
    assert SPLITS["clutter"].distractors[0] >= 6 and SPLITS["long_horizon"].steps == (3, 5)
