"""How tasks are said: many wordings of each, and many ways to mean one object.

Wordings have gaps: {pick} and {place} (and {other}) are filled with phrases that mean one object of
the scene and no other.
"""

from __future__ import annotations

import re

import numpy as np

from internvla_ros.sim.kinds import CONTAINERS, MOVABLES
from internvla_ros.sim.parts import Triple
from internvla_ros.sim.scene import COLOURS
from internvla_ros.sim.state import State
from internvla_ros.sim.task_scene import Thing

PLAIN_SHARE = 0.55
"""Share of the phrases that are just colour and kind."""

WORDINGS: dict[str, tuple[str, ...]] = {
    "on": (
        "put the {pick} on the {place}",
        "place the {pick} on the {place}",
        "move the {pick} onto the {place}",
        "set the {pick} on the {place}",
        "set the {pick} down on the {place}",
        "lay the {pick} on the {place}",
        "pick up the {pick} and put it on the {place}",
        "take the {pick} and place it on the {place}",
        "grab the {pick} and set it on the {place}",
        "the {pick} goes on the {place}",
        "bring the {pick} to the {place}",
        "I want the {pick} on the {place}",
    ),
    "in": (
        "put the {pick} in the {place}",
        "place the {pick} in the {place}",
        "move the {pick} into the {place}",
        "drop the {pick} into the {place}",
        "put the {pick} inside the {place}",
        "pick up the {pick} and put it in the {place}",
        "take the {pick} and place it in the {place}",
        "grab the {pick} and drop it into the {place}",
        "the {pick} goes in the {place}",
        "the {pick} belongs in the {place}",
        "I want the {pick} in the {place}",
        "store the {pick} in the {place}",
    ),
    "stacked": (
        "stack the {pick} on the {place}",
        "put the {pick} on top of the {place}",
        "place the {pick} on top of the {place}",
        "stack the {pick} on top of the {place}",
        "set the {pick} atop the {place}",
        "balance the {pick} on the {place}",
        "pick up the {pick} and stack it on the {place}",
    ),
    "next_to": (
        "move the {pick} next to the {place}",
        "put the {pick} beside the {place}",
        "place the {pick} next to the {place}",
        "set the {pick} beside the {place}",
        "put the {pick} close to the {place}",
        "bring the {pick} over to the {place}",
        "place the {pick} near the {place}",
    ),
    "left_of": (
        "move the {pick} to the left of the {place}",
        "put the {pick} left of the {place}",
        "place the {pick} on the left side of the {place}",
        "set the {pick} to the left of the {place}",
    ),
    "right_of": (
        "move the {pick} to the right of the {place}",
        "put the {pick} right of the {place}",
        "place the {pick} on the right side of the {place}",
        "set the {pick} to the right of the {place}",
    ),
    "between": (
        "move the {pick} between the {place} and the {other}",
        "put the {pick} between the {place} and the {other}",
        "place the {pick} in between the {place} and the {other}",
        "set the {pick} in the middle between the {place} and the {other}",
        "put the {pick} in the gap between the {place} and the {other}",
    ),
    "aligned": (
        "put the {pick} in line with the {place}",
        "line the {pick} up with the {place}",
        "place the {pick} in a row with the {place}",
    ),
    "open": (
        "open the {place}",
        "pull the {place} open",
        "slide the {place} out",
        "open up the {place}",
        "pull out the {place}",
    ),
    "closed": (
        "close the {place}",
        "push the {place} shut",
        "shut the {place}",
        "slide the {place} back in",
        "push the {place} closed",
    ),
    "line_up": (
        "line up the {things}",
        "put the {things} in a row",
        "arrange the {things} in a line",
        "make a row of the {things}",
        "align the {things}",
    ),
    "tower": (
        "build a tower of the {things}, from the bottom up",
        "stack the {things}, in this order from below",
        "make a stack: the {things}, the first at the bottom",
        "pile up the {things}, starting at the bottom",
    ),
    "sort": (
        "sort the things by colour into the {places}",
        "put each thing {relation} the {kind} of its own colour",
        "sort everything by colour",
        "match the things with the {kind}s of the same colour",
        "every thing goes {relation} the {kind} that has its colour",
    ),
    "clear": (
        "clear the table {into} the {place}",
        "put everything {relation} the {place}",
        "tidy up: all things go {relation} the {place}",
        "clean up the table, the {place} is for everything",
        "put all the things {relation} the {place}",
        "collect everything {relation} the {place}",
    ),
}


_REFERRING = (
    "thing left leftmost right rightmost larger largest smaller smallest to the of handle drawer "
    "first then and finally on onto in into"
)


def lexicon() -> list[str]:
    """Every word that instructions and names of objects may hold, in order, for tokenizers."""
    kinds = (*MOVABLES, *CONTAINERS)
    texts = [re.sub(r"{\w+}s?", " ", text) for texts in WORDINGS.values() for text in texts]
    plurals = [f"{name}s" for name in CONTAINERS]  # of "{kind}s"
    words = " ".join([*texts, _REFERRING, *COLOURS, *kinds, *plurals])
    return sorted(set(re.findall(r"[A-Za-z]+", words)))


def wording(rng: np.random.Generator, name: str, **gaps: str) -> str:
    """One of the wordings of this name with its gaps filled."""
    choices = WORDINGS[name]
    return choices[int(rng.integers(len(choices)))].format(**gaps)


def listed(names: list[str]) -> str:
    """Phrases as a list in words: "red cube, the blue can and the green ball"."""
    if len(names) == 1:
        return names[0]
    return f"{', the '.join(names[:-1])} and the {names[-1]}"


def in_a_row(sentences: list[str]) -> str:
    """Several instructions as one that says their order."""
    between = ["then " + text for text in sentences[1:-1]]
    return ", ".join(["first " + sentences[0], *between, "and finally " + sentences[-1]])


def phrase(
    rng: np.random.Generator,
    name: str,
    things: list[Thing],
    state: State,
    plain: float = PLAIN_SHARE,
) -> str:
    """Words that mean this thing and no other of the scene, without "the".

    Colour and kind, the kind or the colour alone where that is enough, where it is ("leftmost
    ball", "can beside the blue bowl"), or its size among its like.
    """
    if rng.random() < plain:
        return name
    forms = referring_forms(name, things, state)
    return forms[int(rng.integers(len(forms)))]


def referring_forms(name: str, things: list[Thing], state: State) -> list[str]:
    """All phrases that mean this thing and no other."""
    (thing,) = [thing for thing in things if thing.name == name]
    same_kind = [other for other in things if other.kind == thing.kind]
    same_role = [o for o in things if state[o.name].is_container == state[name].is_container]
    forms = [name]
    if len(same_kind) == 1:
        forms.append(thing.kind)
        forms += _beside(thing, things, state)
    elif len(same_kind) > 1:
        forms += [f"{word} {thing.kind}" for word in _extremes(thing, same_kind, state)]
    if not state[name].is_container:
        if len([other for other in same_role if other.colour == thing.colour]) == 1:
            forms.append(f"{thing.colour} thing")
        if len(same_role) > 1:
            forms += [f"{word} thing" for word in _extremes(thing, same_role, state)[:1]]
    return forms


def _extremes(thing: Thing, among: list[Thing], state: State) -> list[str]:
    """What a thing is the most of among others: leftmost, rightmost, larger, smaller."""
    along = {o.name: float(state[o.name].position[:2] @ state.right) for o in among}
    words = []
    own = along.pop(thing.name)
    if own < min(along.values()) - 0.02:
        words.append("leftmost" if len(among) > 2 else "left")
    if own > max(along.values()) + 0.02:
        words.append("rightmost" if len(among) > 2 else "right")
    sizes = {o.name: _volume(o.size) for o in among}
    volume = sizes.pop(thing.name)
    if volume > 1.3 * max(sizes.values()):
        words.append("largest" if len(among) > 2 else "larger")
    if volume < min(sizes.values()) / 1.3:
        words.append("smallest" if len(among) > 2 else "smaller")
    return words


def _beside(thing: Thing, things: list[Thing], state: State) -> list[str]:
    """Where a thing is to the containers that stand near it."""
    forms = []
    for other in things:
        if other is thing or not state[other.name].is_container:
            continue
        shift = (state[thing.name].position - state[other.name].position)[:2]
        along = float(shift @ state.right)
        if np.linalg.norm(shift) < 0.16 and abs(along) > 0.04:
            side = "right" if along > 0 else "left"
            forms.append(f"{thing.kind} to the {side} of the {other.name}")
    return forms


def _volume(size: Triple) -> float:
    return float(np.prod(size))
