"""`internvla ground`: ask a policy where something is in a picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from internvla_ros.resources import DEFAULT_CHECKPOINT, resource
from internvla_ros.spatial.draw import annotate
from internvla_ros.spatial.prompts import Kind, clean_instruction
from internvla_ros.spatial.types import SpatialAnswer


class PictureError(ValueError):
    """A picture that cannot be read or written."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla ground`."""
    parser.add_argument("picture", type=Path, help="a PNG or JPEG file")
    parser.add_argument("query", help="the name of a thing, or an instruction")
    parser.add_argument(
        "--kind",
        choices=get_args(Kind),
        default="box",
        help="box of the thing named (default); or point or trace, for an instruction: where to "
        "grasp and put, or the gripper's path",
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="default: the one that ships")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.png",
        help="write the picture annotated, and the answer as FILE.json beside it",
    )
    parser.add_argument("--device", default="cpu", help="where the network runs: cpu or cuda")


def run(args: argparse.Namespace) -> int:
    """Print the answer as JSON, in pixels of the picture; 1 when the answer is empty."""
    query = clean_instruction(args.query)
    if not query:
        raise ValueError("the query is empty: name a thing or say an instruction")
    image = read_picture(args.picture)

    from internvla_ros.model.planner import Planner

    planner = Planner.from_pretrained(args.checkpoint or resource(DEFAULT_CHECKPOINT), args.device)
    answer = planner.ground(image, query, args.kind)
    text = json.dumps(as_json(answer), indent=2)
    print(text)
    if args.out is not None:
        write_picture(args.out, annotate(image, answer, caption=query))
        args.out.with_suffix(".json").write_text(text + "\n")
    return 0 if answer.boxes or answer.points or answer.traces else 1


def as_json(answer: SpatialAnswer) -> dict[str, Any]:
    """An answer as plain values, rounded to a tenth of a pixel."""
    return {
        "boxes": [
            {"label": b.label, "box": [round(v, 1) for v in (b.x1, b.y1, b.x2, b.y2)]}
            for b in answer.boxes
        ],
        "points": [
            {"label": p.label, "point": [round(p.x, 1), round(p.y, 1)]} for p in answer.points
        ],
        "traces": [np.round(trace.points, 1).tolist() for trace in answer.traces],
        "text": answer.text,
        "problems": list(answer.problems),
    }


def read_picture(path: Path) -> NDArray[np.uint8]:
    """uint8[h, w, 3] RGB; raises `PictureError`."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise PictureError(f"there is no picture {path}") from error
    except (UnidentifiedImageError, OSError) as error:
        raise PictureError(f"{path} is no picture that can be read: {error}") from error


def write_picture(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a picture in the format that the file's name says; raises `PictureError`."""
    try:
        Image.fromarray(image).save(path)
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot write {path}: {error}") from error
