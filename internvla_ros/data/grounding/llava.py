r"""LLaVA-style conversation files: a JSON list beside a folder of pictures.

    [{"id": "000000", "image": "images/000000.jpg", "width": 320, "height": 240,
      "conversations": [{"from": "human", "value": "<image>\nLocate the red cube. ..."},
                        {"from": "gpt", "value": "[{\"bbox_2d\": ...}]"}, ...]}, ...]

Coordinates are pixels of the picture as stored.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from internvla_ros.data.grounding.frames import GroundingFrame, conversation
from internvla_ros.data.images import encode_jpeg
from internvla_ros.data.lerobot.layout import TEMPORARY_SUFFIX, DatasetError
from internvla_ros.spatial.text import parse, rescale
from internvla_ros.spatial.types import SpatialAnswer, Turn

FILE = "grounding.json"
IMAGE_TOKEN = "<image>"
ASKING = frozenset({"human", "user"})
ANSWERING = frozenset({"gpt", "assistant"})


@dataclass(frozen=True)
class LlavaItem:
    """One conversation.

    Attributes:
        id: as in the file.
        images: the pictures' paths; empty for a conversation without any.
        width, height: of the (first) picture, where the file says them.
        turns: questions without the image token, and answers.
        where: the file and the item's number in it, for messages.
    """

    id: str
    images: tuple[Path, ...]
    width: int | None
    height: int | None
    turns: tuple[Turn, ...]
    where: str = ""

    @property
    def image(self) -> Path | None:
        """The first picture."""
        return self.images[0] if self.images else None

    def size(self) -> tuple[int, int]:
        """(width, height) of the first picture, from its file where the item does not say it.

        Raises:
            DatasetError: it is not said, and there is no picture to be measured.
        """
        if self.width is not None and self.height is not None:
            return self.width, self.height
        if self.image is None:
            raise DatasetError(f"item {self.id} states no width and height to rescale from")
        try:
            with PIL.Image.open(self.image) as picture:
                return picture.size
        except (OSError, SyntaxError) as error:
            raise DatasetError(f"{self.where}: {self.image} is no readable picture") from error

    def resized(self, width: float, height: float) -> tuple[Turn, ...]:
        """The turns with every coordinate in pixels of a width x height picture.

        Raises:
            DatasetError: it is not known how large the picture is.
        """
        stored_width, stored_height = self.size()
        sx, sy = width / stored_width, height / stored_height
        return tuple(
            Turn(rescale(turn.question, sx, sy), rescale(turn.answer, sx, sy))
            for turn in self.turns
        )

    def answers(self) -> tuple[SpatialAnswer, ...]:
        """The boxes, points and traces of each answer, in pixels of the picture as stored."""
        width, height = self.size()
        return tuple(parse(turn.answer, width, height) for turn in self.turns)

    def problems(self) -> list[str]:
        """What no training should see: coordinates outside the picture, cut-off lists.

        Coordinates of a picture of another size are what this finds first: labels that were not
        scaled along with their pictures.
        """
        if self.image is None:
            return []
        found = enumerate(self.answers())
        return [f"{self.where}, answer {n}: {p}" for n, answer in found for p in answer.problems]


def write_llava(
    root: str | Path,
    frames: Iterable[tuple[NDArray[np.uint8], GroundingFrame]],
    rng: np.random.Generator,
    refer: int = 2,
    region: int = 1,
) -> int:
    """Write a conversation about each frame, with its picture; returns how many.

    The folder appears when it is complete; an interrupted run leaves none.

    Args:
        root: the folder to create: grounding.json and images/.
        frames: uint8[h, w, 3] RGB pictures and what is known about them.
        rng: draws what is asked.
        refer, region: as in `conversation`.

    Raises:
        DatasetError: the folder exists and is not empty.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DatasetError(f"{root} exists already: choose a new folder or remove it")
    temporary = root.with_name(root.name + TEMPORARY_SUFFIX)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / "images").mkdir(parents=True)
        items: list[dict[str, Any]] = []
        for image, frame in frames:
            height, width = image.shape[:2]
            turns = conversation(frame, rng, width, height, refer, region)
            if not turns:
                continue
            name = f"{len(items):06d}"
            (temporary / "images" / f"{name}.jpg").write_bytes(encode_jpeg(image))
            items.append(_item(name, width, height, turns))
        (temporary / FILE).write_text(json.dumps(items, indent=1, ensure_ascii=False) + "\n")
        if root.exists():
            root.rmdir()
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(items)


def _item(name: str, width: int, height: int, turns: list[Turn]) -> dict[str, Any]:
    messages = []
    for number, turn in enumerate(turns):
        token = f"{IMAGE_TOKEN}\n" if number == 0 else ""
        messages.append({"from": "human", "value": token + turn.question})
        messages.append({"from": "gpt", "value": turn.answer})
    return {
        "id": name,
        "image": f"images/{name}.jpg",
        "width": width,
        "height": height,
        "conversations": messages,
    }


def read_llava(
    path: str | Path, images: str | Path | None = None, skipped: list[str] | None = None
) -> list[LlavaItem]:
    """Read a conversation file (or the folder that `write_llava` made).

    Taken are a JSON list or a line of JSON an item; `conversations` of `from` (human or user, gpt
    or assistant) and `value`, or `messages` of `role` and `content`; one `image` or a list.

    Args:
        path: the JSON or JSON-lines file or the folder with grounding.json.
        images: the folder that picture names are relative to; the file's own if None.
        skipped: where given, items that are damaged or whose pictures are missing are left out,
            and why is appended to it; else the first of them ends the reading.

    Raises:
        DatasetError: the file is missing or damaged; names the item.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    rows = _rows(path)
    folder = path.parent if images is None else Path(images)
    items = []
    for number, row in enumerate(rows):
        try:
            items.append(_read_item(row, folder, f"{path}, item {number}"))
        except DatasetError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
    return items


def _rows(path: Path) -> list[Any]:
    """The items of a file, as JSON says them."""
    try:
        text = path.read_text()
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        content = json.loads(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, list):
        raise DatasetError(f"{path} must hold a list of conversations")
    return content


def _read_item(row: Any, folder: Path, where: str) -> LlavaItem:
    if not isinstance(row, dict):
        raise DatasetError(f"{where} is a {type(row).__name__}, not a conversation")
    pictures = _pictures(row, folder, where)
    width, height = (_length(row.get(name), f"{where}, {name}") for name in ("width", "height"))
    return LlavaItem(
        id=str(row.get("id", "")),
        images=pictures,
        width=width,
        height=height,
        turns=_turns(row, where),
        where=where,
    )


def _turns(row: dict[str, Any], where: str) -> tuple[Turn, ...]:
    """Questions and answers by turns; what the system is told is left out."""
    messages, who, what = row.get("conversations"), "from", "value"
    if messages is None:
        messages, who, what = row.get("messages"), "role", "content"
    if not isinstance(messages, list):
        raise DatasetError(f"{where} has no list of conversations")
    spoken = [m for m in messages if not (isinstance(m, dict) and m.get(who) == "system")]
    speakers = [m.get(who) if isinstance(m, dict) else None for m in spoken]
    asked, answered = speakers[::2], speakers[1::2]
    alternate = set(asked) <= ASKING and set(answered) <= ANSWERING
    if not spoken or len(asked) != len(answered) or not alternate:
        raise DatasetError(f"{where} does not alternate between human and gpt: {speakers}")
    values = [message.get(what) for message in spoken]
    if not all(isinstance(value, str) for value in values):
        raise DatasetError(f"{where} has a message without text")
    return tuple(
        Turn(question.replace(IMAGE_TOKEN, "").strip(), answer.strip())
        for question, answer in zip(values[::2], values[1::2], strict=True)
    )


def _pictures(row: dict[str, Any], folder: Path, where: str) -> tuple[Path, ...]:
    """The pictures, which must be there."""
    named = row.get("image", row.get("images"))
    names = [] if named is None else named if isinstance(named, list) else [named]
    if not all(isinstance(name, str) and name for name in names):
        raise DatasetError(f"{where} names its picture as {named!r}")
    paths = tuple(folder / name for name in names)
    for path in paths:
        if not path.is_file():
            raise DatasetError(f"{where}: its picture {path} does not exist")
    return paths


def _length(value: Any, where: str) -> int | None:
    """A width or height; lists have one a picture, of which the first counts."""
    value = value[0] if isinstance(value, list) and value else value
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DatasetError(f"{where} must be a number of pixels, not {value!r}")
    return value
