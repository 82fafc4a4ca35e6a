"""Where stage 1's conversations come from: episodes, snapshots and LLaVA-style files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from internvla_ros.data.episode import Frame
from internvla_ros.data.grounding import Centres, GroundingFrame, conversation, read_llava
from internvla_ros.data.images import read_image
from internvla_ros.model.images import resize
from internvla_ros.sim.scene import COLOURS, MOVABLES, RECEPTACLES, TEMPLATES
from internvla_ros.spatial import prompts
from internvla_ros.spatial.types import Turn
from internvla_ros.train.conversations import Conversation
from internvla_ros.train.dense import Labelled
from internvla_ros.train.frames import EpisodeFrames

TASK_FIRST = 0.7
"""Share of the conversations that open as the planner's tick does: boxes, then points."""
TRACE_SHARE = 0.2
"""Share of the conversations that ask for the trace, and then not for objects by name: a trace is
as long as three boxes, and sequences of one length waste no padding."""

REFERRED = 3
"""Objects asked for by name in each conversation."""


def object_names() -> list[str]:
    """Every name that the simulator gives to objects."""
    return [f"{colour} {kind}" for colour in COLOURS for kind in (*MOVABLES, *RECEPTACLES)]


def template_phrases() -> list[str]:
    """The fixed parts of the questions, each of which is one token of the nano tokenizer."""
    templates = (
        prompts.SPATIAL_PROMPT,
        prompts.POINT_PROMPT,
        prompts.TRACE_PROMPT,
        prompts.REFER_PROMPT,
        prompts.REGION_PROMPT,
    )
    pieces: list[str] = []
    for template in templates:
        for gap in ("{instruction}", "{name}", "{box}"):
            template = template.replace(gap, "\0")
        pieces += [piece for piece in template.split("\0") if len(piece) > 2]
    return list(dict.fromkeys(pieces))


def arranged(turns: Sequence[Turn], rng: np.random.Generator) -> list[Turn]:
    """A trace or objects by name, not both; usually the task's boxes and then its points first."""
    boxes, points, trace, name = (
        re.compile(".*".join(map(re.escape, re.split(r"{\w+}", template))))
        for template in (
            prompts.SPATIAL_PROMPT,
            prompts.POINT_PROMPT,
            prompts.TRACE_PROMPT,
            prompts.REFER_PROMPT,
        )
    )
    unwanted = name if rng.random() < TRACE_SHARE else trace
    kept = [turn for turn in turns if not unwanted.fullmatch(turn.question)] or list(turns)
    if rng.random() >= TASK_FIRST:
        return kept
    first = [turn for kind in (boxes, points) for turn in kept if kind.fullmatch(turn.question)]
    return first + [turn for turn in kept if turn not in first]


@dataclass(frozen=True)
class EpisodeSource:
    """Frames from inside episodes, uniformly."""

    frames: EpisodeFrames
    camera: str
    size: tuple[int, int]

    def __call__(self, rng: np.random.Generator) -> Conversation:
        """One frame and a conversation about it."""
        index = int(rng.integers(len(self.frames)))
        record = self.frames.records[self.frames.record_of[index]]
        known = GroundingFrame.from_episode(
            record, int(self.frames.row_of[index]), self.frames.stored_size
        )
        return _talk(self.frames.views[self.camera][index], known, rng, self.size)


class SnapshotSource:
    """Snapshots, each time under another task that the scene allows."""

    def __init__(self, frames: Iterable[Frame], size: tuple[int, int]) -> None:
        self.size = size
        self.images: list[NDArray[np.uint8]] = []
        self.known: list[GroundingFrame] = []
        for frame in frames:
            self.images.append(resize(frame.front, size))
            self.known.append(GroundingFrame.from_frame(frame))
        self.centres = Centres.fit(self.known)

    def __call__(self, rng: np.random.Generator) -> Conversation:
        """One snapshot and a conversation about it."""
        index = int(rng.integers(len(self.images)))
        known = retasked(self.known[index], self.centres, rng)
        return _talk(self.images[index], known, rng, self.size)


class LlavaSource:
    """Conversations as they stand in a LLaVA-style file; pictures are read when drawn."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.size = size
        self.items = [item for item in read_llava(path) if item.image is not None]
        if not self.items:
            raise ValueError(f"{path} holds no conversation about a picture")

    def __call__(self, rng: np.random.Generator) -> Conversation:
        """One item, its pixels mapped to the planner's size."""
        item = self.items[int(rng.integers(len(self.items)))]
        assert item.image is not None
        return Conversation(resize(read_image(item.image), self.size), item.resized(*self.size))


def _talk(
    image: NDArray[np.uint8],
    known: GroundingFrame,
    rng: np.random.Generator,
    size: tuple[int, int],
) -> Conversation:
    turns = conversation(known, rng, *size, refer=REFERRED, region=0)
    labelled = Labelled(known.objects, known.resized(*size).boxes)
    return Conversation(image, arranged(turns, rng), labelled)


def retasked(frame: GroundingFrame, centres: Centres, rng: np.random.Generator) -> GroundingFrame:
    """The same scene under a random task: any visible movable, any visible receptacle."""
    names = [box.label for box in frame.visible()]
    receptacles = [name for name in names if name.split()[-1] in RECEPTACLES]
    movables = [name for name in names if name not in receptacles]
    if not receptacles or not movables:
        return frame
    pick, place = str(rng.choice(movables)), str(rng.choice(receptacles))
    relation = RECEPTACLES[place.split()[-1]].relation
    templates = TEMPLATES[relation]
    instruction = templates[rng.integers(len(templates))].format(pick=pick, place=place)
    return centres.with_task(frame, instruction, pick, place, relation)
