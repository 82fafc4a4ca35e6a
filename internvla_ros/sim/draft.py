"""A scene in the making: things are chosen and put where there is room for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from internvla_ros.robots.embodiment import Embodiment
from internvla_ros.sim.kinds import CONTAINERS, DRAWER, MOVABLES, Container, Kind, kind_of
from internvla_ros.sim.parts import Triple
from internvla_ros.sim.scene import COLOURS, SceneError
from internvla_ros.sim.splits import UNSEEN_CONTAINERS, UNSEEN_KINDS, UNSEEN_PAIRS, Split
from internvla_ros.sim.state import Body, disc_gap, standing
from internvla_ros.sim.task_scene import Thing, handle_body

Pair = tuple[str, str]

COMPACT = 0.057  # m: things no longer than this are compact
_INSET = 0.030  # m from the edge of where things lie to the middle of a container
_LEAST = 0.012  # m between two things
_TRIES = 60  # of places for one thing
_NARROWEST, _WIDEST = 0.003, 0.011  # m that a thing is wider, narrower than the gripper


class NoRoomError(SceneError):
    """The table is full; another draft may do."""


class Draft:
    """Chooses things and places for one scene.

    Args:
        rng: the only source of chance.
        embodiment: whose table it is.
        split: what may be chosen.
    """

    def __init__(self, rng: np.random.Generator, embodiment: Embodiment, split: Split) -> None:
        self.rng = rng
        self.embodiment = embodiment
        self.table = embodiment.tabletop
        self.split = split
        self.things: list[Thing] = []
        self._bodies: list[Body] = []
        self._kept: list[np.typing.NDArray[np.float64]] = []
        self._pairs: set[Pair] = set()

    def choose(
        self,
        fits: Callable[[Kind], bool] = lambda kind: True,
        picked: bool = True,
        colour: str | None = None,
    ) -> Pair:
        """A colour and kind of thing that the scene has none of yet.

        Args:
            fits: what it must be like.
            picked: it is to be taken, for which the split may ask for something special.
            colour: that it must have; None for any.

        Raises:
            NoRoomError: there is none.
        """
        what = self.split.picked if picked else "seen"
        pairs = [
            (shade, kind.name)
            for kind in MOVABLES.values()
            if fits(kind) and self.can_grasp(kind)
            for shade in kind.colours
            if colour in (None, shade) and self._allowed(shade, kind.name, what)
        ]
        return self._draw(pairs)

    def choose_container(
        self, fits: Callable[[Container], bool] = lambda kind: True, colour: str | None = None
    ) -> Pair:
        """As `choose`, a container."""
        pairs = [
            (shade, kind.name)
            for kind in CONTAINERS.values()
            if fits(kind) and kind.name not in UNSEEN_CONTAINERS
            for shade in kind.colours
            if colour in (None, shade) and (shade, kind.name) not in UNSEEN_PAIRS
        ]
        if self.split.picked == "unseen" and self.rng.random() < 0.3:
            pairs = [
                (c, k) for k in sorted(UNSEEN_CONTAINERS) for c in COLOURS if colour in (None, c)
            ]
        return self._draw(pairs)

    def _draw(self, pairs: list[Pair]) -> Pair:
        """Kinds are equally likely, whatever colours they come in."""
        pairs = [pair for pair in pairs if pair not in self._pairs]
        if not pairs:
            raise NoRoomError("the split has no such thing left")
        kinds = sorted({kind for _, kind in pairs})
        kind = kinds[int(self.rng.integers(len(kinds)))]
        colours = [colour for colour, other in pairs if other == kind]
        pair = (colours[int(self.rng.integers(len(colours)))], kind)
        self._pairs.add(pair)
        return pair

    def _allowed(self, colour: str, kind: str, what: str) -> bool:
        if what == "unseen":
            return kind in UNSEEN_KINDS
        pair_is_held = (colour, kind) in UNSEEN_PAIRS
        return kind not in UNSEEN_KINDS and pair_is_held == (what == "pairs")

    def can_grasp(self, kind: Kind) -> bool:
        """Whether this robot's gripper closes on it and opens about it at all its sizes."""
        closed, opened = self.embodiment.gripper.width
        widest = closed + self.table.opening * (opened - closed) - _WIDEST
        across = kind.y if kind.y is not None and "x" not in kind.grips else kind.x
        low, high = (kind.share * side for side in across)
        return closed + _NARROWEST < low and high < widest

    def add(
        self,
        pair: Pair,
        apart: float = _LEAST,
        away: tuple[Thing, float] | None = None,
        turn: float = np.pi,
    ) -> Thing:
        """Puts a thing somewhere.

        Args:
            pair: its colour and kind.
            apart: metres of room about it.
            away: another thing and metres that it must be from it.
            turn: most that it is turned by, rad.

        Raises:
            NoRoomError: there is no such place.
        """
        kind = kind_of(pair[1])
        size = kind.sample(self.rng)
        inset = _INSET if isinstance(kind, Container) else 0.0
        turn = 0.25 if isinstance(kind, Container) else turn
        for _ in range(_TRIES):
            x = float(self.rng.uniform(self.table.x[0] + inset, self.table.x[1] - inset))
            y = float(self.rng.uniform(self.table.y[0] + inset, self.table.y[1] - inset))
            yaw = float(self.rng.uniform(-turn, turn))
            body = self._body(pair, size, x, y, yaw)
            far = away is None or disc_gap(body.discs, self.body(away[0]).discs) > away[1]
            if far and self.is_free(body, apart):
                return self._keep(pair, size, x, y, yaw)
        raise NoRoomError(f"found no room on the table for the {' '.join(pair)}")

    def put(
        self, pair: Pair, size: Triple, x: float, y: float, yaw: float = 0.0, out: float = 0.0
    ) -> Thing:
        """Puts a thing to a place; NoRoomError where something is in the way."""
        if not self.is_free(self._body(pair, size, x, y, yaw), _LEAST):
            raise NoRoomError(f"no room at the place of the {' '.join(pair)}")
        self._pairs.add(pair)
        return self._keep(pair, size, x, y, yaw, out)

    def keep_free(self, x: float, y: float, radius: float) -> None:
        """Nothing will be put within `radius` m of a place."""
        self._kept.append(np.array([[x, y, radius]]))

    def is_free(self, body: Body, apart: float) -> bool:
        """Whether a body would have `apart` m of room, outside all places kept free."""
        clear = all(disc_gap(body.discs, other.discs) >= apart for other in self._bodies)
        return clear and all(disc_gap(body.discs, place) >= 0.0 for place in self._kept)

    def body(self, thing: Thing) -> Body:
        """The body of a thing."""
        return thing.body(self.table.height)

    def distract(self, kinds: Callable[[Kind], bool] = lambda kind: True) -> None:
        """Adds as many things without a part in the task as the split says."""
        low, high = self.split.distractors
        for _ in range(int(self.rng.integers(low, high + 1))):
            self.add(self.choose(kinds, picked=False))

    def _body(self, pair: Pair, size: Triple, x: float, y: float, yaw: float) -> Body:
        return standing(" ".join(pair), pair[1], size, x, y, yaw, self.table.height)

    def _keep(
        self, pair: Pair, size: Triple, x: float, y: float, yaw: float, out: float = 0.0
    ) -> Thing:
        thing = Thing(" ".join(pair), *pair, size, x, y, yaw, out)
        self.things.append(thing)
        self._bodies.append(self.body(thing))
        if thing.kind == DRAWER.name:
            self._bodies.append(handle_body(self._bodies[-1], out))
        return thing


def compact(kind: Kind) -> bool:
    """Whether a kind is short enough to stand among others."""
    return max(kind.x[1], (kind.y or kind.x)[1]) <= COMPACT


def stackable(kind: Kind) -> bool:
    """Whether a kind can stand on another one, and another one on it."""
    return kind.flat and compact(kind) and (kind.z or kind.x)[1] < 0.047
