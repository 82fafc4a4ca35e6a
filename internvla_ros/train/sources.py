"""Where stage 1's conversations come from: episodes, snapshots and LLaVA-style files."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from internvla_ros.data.grounding import Centres, GroundingFrame, conversation, read_llava
from internvla_ros.data.images import read_image
from internvla_ros.data.snapshots import read_snapshots, snapshot_count
from internvla_ros.model.images import resize
from internvla_ros.sim.kinds import MOVABLES
from internvla_ros.sim.scene import RECEPTACLES, TEMPLATES
from internvla_ros.spatial import prompts
from internvla_ros.spatial.types import Turn
from internvla_ros.train.conversations import Conversation
from internvla_ros.train.dense import Labelled
from internvla_ros.train.errors import StoppedError
from internvla_ros.train.frames import EpisodeFrames

TASK_FIRST = 0.7
"""Share of the conversations that open as the planner's tick does: boxes, then points."""
TRACE_SHARE = 0.2
"""Share of the conversations that ask for the trace, and then not for objects by name: a trace is
as long as three boxes, and sequences of one length waste no padding."""

REFERRED = 3
"""Objects asked for by name in each conversation."""


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
        index = int(self.frames.begins[rng.integers(len(self.frames.begins))])
        record = self.frames.records[self.frames.record_of[index]]
        known = GroundingFrame.from_episode(
            record, int(self.frames.row_of[index]), self.frames.stored_size
        )
        image = self.frames.views[self.camera][np.array([index])][0]
        return _talk(image, known, rng, self.size)


class SnapshotSource:
    """Snapshots, each time under another task that the scene allows.

    Their pictures are decoded once, into a file uint8[N, h, w, 3] in the folder `store`.
    """

    def __init__(
        self, snapshots: Path, size: tuple[int, int], store: Path, deadline: float = math.inf
    ) -> None:
        self.size = size
        self.images, self.known = _stored_snapshots(snapshots, size, store, deadline)
        self.centres = Centres.fit(self.known)

    def __len__(self) -> int:
        return len(self.known)

    def __call__(self, rng: np.random.Generator) -> Conversation:
        """One snapshot and a conversation about it."""
        index = int(rng.integers(len(self.known)))
        known = retasked(self.known[index], self.centres, rng)
        return _talk(self.images[index], known, rng, self.size)


def _stored_snapshots(
    folder: Path, size: tuple[int, int], store: Path, deadline: float
) -> tuple[NDArray[np.uint8], list[GroundingFrame]]:
    """The pictures at this size, mapped into memory, and what is known about each.

    Raises StoppedError when `time.monotonic()` passes the deadline before they are complete.
    """
    path = store / f"snapshots_{size[0]}x{size[1]}.npy"
    notes = path.with_suffix(".jsonl")
    count = snapshot_count(folder)
    if not notes.is_file() or sum(1 for _ in notes.open()) != count:
        store.mkdir(parents=True, exist_ok=True)
        shape = (count, size[1], size[0], 3)
        target = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        lines = []
        bar = tqdm(read_snapshots(folder), total=count, desc="reading snapshots", leave=False)
        for index, frame in enumerate(bar):
            target[index] = resize(frame.front, size)
            lines.append(_note(GroundingFrame.from_frame(frame)))
            if time.monotonic() >= deadline:
                raise StoppedError
        target.flush()
        temporary = notes.with_name(notes.name + ".writing")
        temporary.write_text("".join(lines))
        temporary.replace(notes)
    known = [_known(json.loads(line)) for line in notes.open()]
    return np.lib.format.open_memmap(path, mode="r"), known


_ARRAYS = ("boxes", "pick_point", "place_point")


def _note(frame: GroundingFrame) -> str:
    values = {f.name: getattr(frame, f.name) for f in dataclasses.fields(frame)}
    plain = {k: np.asarray(v).tolist() if k in _ARRAYS else v for k, v in values.items()}
    return json.dumps(plain) + "\n"


def _known(values: dict[str, Any]) -> GroundingFrame:
    arrays = {k: np.array(values[k], np.float32) for k in _ARRAYS}
    arrays["boxes"] = arrays["boxes"].reshape(-1, 4)
    return GroundingFrame(**{**values, **arrays, "objects": tuple(values["objects"])})


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
    movables = [name for name in names if name.split()[-1] in MOVABLES]
    if not receptacles or not movables:
        return frame
    pick, place = str(rng.choice(movables)), str(rng.choice(receptacles))
    relation = RECEPTACLES[place.split()[-1]].relation
    templates = TEMPLATES[relation]
    instruction = templates[rng.integers(len(templates))].format(pick=pick, place=place)
    return centres.with_task(frame, instruction, pick, place, relation)
