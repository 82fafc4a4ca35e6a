"""The questions that the model is asked and trained on; instructions are lower-cased in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from internvla_ros.spatial.text import format_box
from internvla_ros.spatial.types import Box

SPATIAL_PROMPT = (
    "Your task is {instruction}. To identify the key objects for your task. "
    "Locate their bounding boxes in [x1,y1,x2,y2] format."
)
"""The template of the released checkpoints, word for word."""

POINT_PROMPT = (
    "Your task is {instruction}. Point to the object to grasp and to the place to put it."
)
TRACE_PROMPT = "Your task is {instruction}. Predict the future trajectory of the gripper."
REFER_PROMPT = "Locate the {name}. Output its bounding box in [x1,y1,x2,y2] format."
REGION_PROMPT = "Name the object in the region {box}."

Kind = Literal["box", "point", "trace"]
"""In what form the planner is asked to say where something is."""


def clean_instruction(text: str) -> str:
    """An instruction as a person typed it, on one line and without its full stop."""
    return " ".join(text.split()).rstrip(" .")


def spatial_prompt(instruction: str) -> str:
    """Ask for the boxes of the object to move and of its receptacle."""
    return SPATIAL_PROMPT.replace("{instruction}", instruction.lower())


def point_prompt(instruction: str) -> str:
    """Ask for two points: where to grasp, where to put."""
    return POINT_PROMPT.replace("{instruction}", instruction.lower())


def trace_prompt(instruction: str) -> str:
    """Ask for the path of the gripper from now to the end of the task."""
    return TRACE_PROMPT.replace("{instruction}", instruction.lower())


def refer_prompt(name: str) -> str:
    """Ask for the box of one named object."""
    return REFER_PROMPT.replace("{name}", name.lower())


def region_prompt(box: Box) -> str:
    """Ask for the name of the object in a box."""
    return REGION_PROMPT.replace("{box}", format_box(box))


_QUESTIONS: dict[str, Callable[[str], str]] = {
    "box": refer_prompt,
    "point": point_prompt,
    "trace": trace_prompt,
}


def question(query: str, kind: Kind) -> str:
    """Ask for the box of what `query` names, or for the points or the trace of an instruction."""
    if kind not in _QUESTIONS:
        raise ValueError(f"kind '{kind}' is unknown; use one of {', '.join(_QUESTIONS)}")
    return _QUESTIONS[kind](query)
