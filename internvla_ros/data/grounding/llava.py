"""LLaVA-style conversation files: a JSON list beside a folder of pictures.

    [{"id": "000000", "image": "images/000000.jpg", "width": 320, "height": 240,
      "conversations": [{"from": "human", "value": "<image>\\nLocate the red cube. ..."},
                        {"from": "gpt", "value": "[{\\"bbox_2d\\": ...}]"}, ...]}, ...]

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
from numpy.typing import NDArray

from internvla_ros.data.grounding.frames import GroundingFrame, conversation
from internvla_ros.data.images import encode_jpeg
from internvla_ros.data.lerobot.layout import TEMPORARY_SUFFIX, DatasetError
from internvla_ros.spatial.text import rescale
from internvla_ros.spatial.types import Turn

FILE = "grounding.json"
IMAGE_TOKEN = "<image>"


@dataclass(frozen=True)
class LlavaItem:
    """One conversation.

    Attributes:
        id: as in the file.
        image: the picture's path; None for a conversation without one.
        width, height: of the picture, where the file says them.
        turns: questions without the image token, and answers.
    """

    id: str
    image: Path | None
    width: int | None
    height: int | None
    turns: tuple[Turn, ...]

    def resized(self, width: float, height: float) -> tuple[Turn, ...]:
        """The turns with every coordinate in pixels of a width x height picture.

        Raises:
            DatasetError: the file does not say how large the picture is.
        """
        if self.width is None or self.height is None:
            raise DatasetError(f"item {self.id} states no width and height to rescale from")
        sx, sy = width / self.width, height / self.height
        return tuple(
            Turn(rescale(turn.question, sx, sy), rescale(turn.answer, sx, sy))
            for turn in self.turns
        )


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


def read_llava(path: str | Path, images: str | Path | None = None) -> list[LlavaItem]:
    """Read a conversation file (or the folder that `write_llava` made).

    Args:
        path: the JSON file or the folder with grounding.json.
        images: the folder that picture names are relative to; the file's own if None.

    Raises:
        DatasetError: the file is missing or damaged; names the item.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, list):
        raise DatasetError(f"{path} must hold a list of conversations")
    folder = path.parent if images is None else Path(images)
    return [_read_item(row, folder, f"{path}, item {n}") for n, row in enumerate(content)]


def _read_item(row: Any, folder: Path, where: str) -> LlavaItem:
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
        raise DatasetError(f"{where} has no list of conversations")
    messages = row["conversations"]
    speakers = [message.get("from") if isinstance(message, dict) else None for message in messages]
    if not messages or speakers != ["human", "gpt"] * (len(messages) // 2):
        raise DatasetError(f"{where} does not alternate between human and gpt: {speakers}")
    values = [message.get("value") for message in messages]
    if not all(isinstance(value, str) for value in values):
        raise DatasetError(f"{where} has a message without text")
    turns = tuple(
        Turn(question.replace(IMAGE_TOKEN, "").strip(), answer.strip())
        for question, answer in zip(values[::2], values[1::2], strict=True)
    )
    image = row.get("image")
    return LlavaItem(
        id=str(row.get("id", "")),
        image=None if image is None else folder / str(image),
        width=row.get("width"),
        height=row.get("height"),
        turns=turns,
    )
