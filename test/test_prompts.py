"""Prompts: the released template to the letter, the others in their fixed forms."""

from __future__ import annotations

import pytest

from internvla_ros.spatial import prompts
from internvla_ros.spatial.types import Box


def test_spatial_prompt_is_the_released_template() -> None:
    assert prompts.spatial_prompt("Put the Red cube in the bowl") == (
        "Your task is put the red cube in the bowl. To identify the key objects for your task. "
        "Locate their bounding boxes in [x1,y1,x2,y2] format."
    )


def test_other_prompts_have_fixed_forms() -> None:
    task = "stack the cups"
    assert prompts.point_prompt(task) == (
        "Your task is stack the cups. Point to the object to grasp and to the place to put it."
    )
    assert prompts.trace_prompt(task) == (
        "Your task is stack the cups. Predict the future trajectory of the gripper."
    )
    assert prompts.refer_prompt("red cube") == (
        "Locate the red cube. Output its bounding box in [x1,y1,x2,y2] format."
    )
    assert prompts.region_prompt(Box(1, 2, 3.6, 4)) == "Name the object in the region [1, 2, 4, 4]."


@pytest.mark.parametrize("text", ["put {instruction} {name} {0}", "100 % {", "a \\1 b"])
def test_braces_in_an_instruction_are_taken_literally(text: str) -> None:
    assert prompts.spatial_prompt(text).startswith(f"Your task is {text}. To")


def test_instructions_are_cleaned_to_one_line() -> None:
    assert prompts.clean_instruction("  Put it\n down . ") == "Put it down"
