"""What scenes are made of: what training sees, and what it is kept from.

`seen` is for training and its tests. The others hold something out: kinds of objects, pairs of
colour and kind, tables full of things, tasks of many steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from internvla_ros.sim.kinds import CONTAINERS, MOVABLES, Container, Kind
from internvla_ros.sim.scene import SceneError

UNSEEN_KINDS = frozenset(
    ("pear", "duck", "spool", "loaf", "bell", "cross", "barrel", "domino", "tower", "candle")
)
UNSEEN_CONTAINERS = frozenset(("basket",))


def _unseen_pairs() -> frozenset[tuple[str, str]]:
    """One colour of every kind that comes in at least three."""
    pairs = []
    kinds: tuple[Kind | Container, ...] = (*MOVABLES.values(), *CONTAINERS.values())
    for number, kind in enumerate(kinds):
        if len(kind.colours) > 2 and kind.name not in UNSEEN_KINDS | UNSEEN_CONTAINERS:
            pairs.append((kind.colours[number % len(kind.colours)], kind.name))
    return frozenset(pairs)


UNSEEN_PAIRS = _unseen_pairs()

SHORT = ("put", "stack", "sort", "line_up", "next_to", "between", "clear", "drawer")
LONG = ("sequence", "sort", "clear")


@dataclass(frozen=True)
class Split:
    """What scenes may hold.

    Attributes:
        name: of the split.
        picked: what is to be taken: of "seen" or "unseen" kinds, or of unseen "pairs".
        distractors: the least and the most things that have no part in the task.
        families: of tasks that it is made of unless others are asked for.
        steps: the least and the most steps of a task that can have several.
    """

    name: str
    picked: str = "seen"
    distractors: tuple[int, int] = (0, 2)
    families: tuple[str, ...] = SHORT
    steps: tuple[int, int] = (2, 3)


SPLITS = {
    split.name: split
    for split in (
        Split("seen"),
        Split("unseen_objects", picked="unseen", families=("put", "next_to", "between")),
        Split("unseen_pairs", picked="pairs", families=("put", "next_to", "between")),
        Split("clutter", distractors=(6, 8), families=("put", "next_to")),
        Split("long_horizon", distractors=(0, 1), families=LONG, steps=(3, 5)),
    )
}


def load_split(name: str) -> Split:
    """The split of this name; SceneError, which names all, where there is none."""
    if name not in SPLITS:
        raise SceneError(f"unknown split {name!r}; there are {', '.join(SPLITS)}")
    return SPLITS[name]
