"""Qwen2.5-VL's chat format as token ids: prompts, follow-ups and training sequences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from internvla_ros.spatial.types import Turn

IGNORED = -100
"""Label of tokens that carry no loss (transformers' convention)."""


class ChatFormat:
    """Encodes conversations about `image_tokens` (one count per view) image tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system_prompt: str | None) -> None:
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        self.image_token = self._special("<|image_pad|>")
        self.end = self._special("<|im_end|>")
        self.pad = self._special("<|endoftext|>")
        self.ends = (self.end, self.pad)
        """Tokens after which there is no more of an answer."""
        self._user = self._encode("<|im_start|>user\n")
        self._assistant = self._encode("<|im_end|>\n<|im_start|>assistant\n")
        self._next = self._encode("\n<|im_start|>user\n")
        self._system = (
            []
            if system_prompt is None
            else self._encode(f"<|im_start|>system\n{system_prompt}<|im_end|>\n")
        )
        self._vision = (self._special("<|vision_start|>"), self._special("<|vision_end|>"))

    def prompt(self, question: str, image_tokens: Sequence[int]) -> list[int]:
        """Ids of a conversation opened for the assistant's first answer."""
        return [*self._opening(image_tokens), *self._encode(question), *self._assistant]

    def follow_up(self, question: str) -> list[int]:
        """Ids that ask a further question after an answer ended with `<|im_end|>`."""
        return [*self._next, *self._encode(question), *self._assistant]

    def conversation(self, turns: Sequence[Turn], image_tokens: Sequence[int]) -> list[int]:
        """Ids of earlier turns and of the last one's question, opened for its answer."""
        ids = self.prompt(turns[0].question, image_tokens)
        for before, turn in pairwise(turns):
            ids += [*self._encode(before.answer), self.end, *self.follow_up(turn.question)]
        return ids

    def training_sequence(
        self, turns: Sequence[Turn], image_tokens: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Ids and labels; only the assistant's tokens and their end carry loss."""
        ids: list[int] = []
        labels: list[int] = []
        for number, turn in enumerate(turns):
            asked = (
                self.follow_up(turn.question)
                if number
                else self.prompt(turn.question, image_tokens)
            )
            answered = [*self._encode(turn.answer), self.end]
            ids += asked + answered
            labels += [IGNORED] * len(asked) + answered
        return ids, labels

    def decode(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """Text of an answer's ids, without special tokens, up to the first of the `stop` strings.

        Qwen2.5-VL's grounding markers, such as <|box_start|>, count as special too.
        """
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        text = text if isinstance(text, str) else "".join(text)
        ends = [text.index(s) for s in stop if s in text]
        return text[: min(ends)] if ends else text

    def _opening(self, image_tokens: Sequence[int]) -> list[int]:
        ids = [*self._system, *self._user]
        for count in image_tokens:
            ids += [self._vision[0], *([self.image_token] * count), self._vision[1]]
        return ids

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _special(self, token: str) -> int:
        index = self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(index, int) or self.tokenizer.convert_ids_to_tokens(index) != token:
            raise ValueError(f"the tokenizer lacks the special token {token}: is it Qwen2.5-VL's?")
        return index
