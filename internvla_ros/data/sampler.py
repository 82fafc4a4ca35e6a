"""Which data set and which item of it comes next: weighted, repeatable, resumable.

sampler = MixtureSampler([Part("bridge", 60_000, 1.0), Part("fractal", 90_000, 0.5)], seed=0)
sets, items = sampler.take(256)
state = sampler.state_dict()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096
"""Draws that share a stream of random numbers."""
_CHOICE, _ORDER = 0, 1


class SamplerError(ValueError):
    """A mixture that cannot be drawn from, or a state of another one."""


@dataclass(frozen=True)
class Part:
    """One data set of a mixture: its name, how many items it has, and its share of the draws."""

    name: str
    size: int
    weight: float = 1.0


class MixtureSampler:
    """Draws items of several data sets in proportion to their weights.

    Which set a draw is of depends on the seed and the draw's number alone. Within a set, items come
    in a random order that holds each of them once an epoch, and in another order the next epoch.

    Args:
        parts: the data sets; at least one, with distinct names and positive sizes and weights.
        seed: of everything.
    """

    def __init__(self, parts: Sequence[Part], seed: int = 0) -> None:
        self.parts = tuple(parts)
        self.seed = int(seed)
        self._check()
        weights = np.array([part.weight for part in self.parts], np.float64)
        self._bounds = np.cumsum(weights / weights.sum())
        self._position = 0
        self._drawn = np.zeros(len(self.parts), np.int64)
        self._block: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    @property
    def position(self) -> int:
        """How many items were drawn."""
        return self._position

    @property
    def epochs(self) -> dict[str, float]:
        """How often each data set was gone through."""
        return {
            part.name: float(count / part.size)
            for part, count in zip(self.parts, self._drawn, strict=True)
        }

    @property
    def epoch(self) -> int:
        """How often every data set was gone through as a whole."""
        return int(min(self.epochs.values()))

    @property
    def epoch_length(self) -> int:
        """After how many draws every item of every data set is to be expected once."""
        shares = np.diff(self._bounds, prepend=0.0)
        sizes = [part.size for part in self.parts]
        return int(np.ceil(np.max(np.array(sizes) / shares)))

    def take(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The next `count` draws: the numbers of the parts, and of the items in them."""
        sets = self._choices(self._position, count)
        items = np.empty(count, np.int64)
        for number in np.unique(sets):
            places = np.flatnonzero(sets == number)
            items[places] = self._items(int(number), int(self._drawn[number]), len(places))
            self._drawn[number] += len(places)
        self._position += count
        return sets, items

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on from here; plain values."""
        return {
            "seed": self.seed,
            "parts": [asdict(part) for part in self.parts],
            "position": self._position,
            "drawn": self._drawn.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was called.

        Raises:
            SamplerError: it is the state of another mixture; says in what they differ.
        """
        own = self.state_dict()
        for name in ("seed", "parts"):
            if state.get(name) != own[name]:
                raise SamplerError(
                    f"this state is of another mixture: its {name} was {state.get(name)}, "
                    f"now it is {own[name]}"
                )
        drawn = np.array(state["drawn"], np.int64)
        if drawn.shape != self._drawn.shape or drawn.sum() != state["position"]:
            raise SamplerError(f"a damaged state: {state['position']} draws, of which {drawn}")
        self._position, self._drawn = int(state["position"]), drawn

    def _check(self) -> None:
        if not self.parts:
            raise SamplerError("a mixture needs at least one data set")
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise SamplerError(f"two data sets of a mixture have one name: {', '.join(names)}")
        for part in self.parts:
            if part.size < 1:
                raise SamplerError(f"{part.name} has nothing to draw")
            if not (np.isfinite(part.weight) and part.weight > 0):
                raise SamplerError(f"{part.name} has the weight {part.weight}: leave it out")

    def _choices(self, first: int, count: int) -> NDArray[np.int64]:
        """The parts of draws first, first + 1, ..."""
        blocks = range(first // _BLOCK, (first + max(count, 1) - 1) // _BLOCK + 1)
        drawn = np.concatenate([self._choice_block(block) for block in blocks])
        start = first - blocks[0] * _BLOCK
        return drawn[start : start + count]

    def _choice_block(self, block: int) -> NDArray[np.int64]:
        if self._block[0] != block:
            values = np.random.default_rng([self.seed, _CHOICE, block]).random(_BLOCK)
            places = np.searchsorted(self._bounds, values, side="right")
            self._block = block, np.minimum(places, len(self.parts) - 1)
        return self._block[1]

    def _items(self, number: int, first: int, count: int) -> NDArray[np.int64]:
        """Items first, first + 1, ... of a part, counted over its epochs."""
        size = self.parts[number].size
        pieces = []
        while count > 0:
            epoch, start = divmod(first, size)
            piece = self._order(number, epoch)[start : start + count]
            pieces.append(piece)
            first, count = first + len(piece), count - len(piece)
        return np.concatenate(pieces)

    def _order(self, number: int, epoch: int) -> NDArray[np.int64]:
        """The order in which a part's items come in one of its epochs."""
        if self._orders.get(number, (-1,))[0] != epoch:
            rng = np.random.default_rng([self.seed, _ORDER, number, epoch])
            self._orders[number] = epoch, rng.permutation(self.parts[number].size)
        return self._orders[number][1]
