"""What counts as an instruction."""

from __future__ import annotations

import unicodedata

MAX_LENGTH = 500


class InstructionError(ValueError):
    """A text that is not an instruction."""


def check_instruction(text: str) -> str:
    """The instruction without the space around it.

    Raises:
        InstructionError: it is empty, longer than 500 characters, or has control characters.
    """
    stripped = text.strip()
    if not stripped:
        raise InstructionError(
            "the instruction is empty; say what to do: 'put the red cube on the blue plate'"
        )
    if len(stripped) > MAX_LENGTH:
        raise InstructionError(
            f"the instruction has {len(stripped)} characters; at most {MAX_LENGTH} are allowed"
        )
    for position, character in enumerate(stripped):
        if unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn"):
            raise InstructionError(
                f"the instruction has a control character (U+{ord(character):04X}) at "
                f"position {position}; send plain text on one line"
            )
    return stripped
