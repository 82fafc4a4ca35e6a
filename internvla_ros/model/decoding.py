"""Greedy decoding from a prefix, with the previous answer as a free draft.

A planner that watches a scene answers nearly the same thing at every tick: the words stand and a
few coordinates move by a pixel. Speculative decoding (Leviathan et al. 2023) with the last answer
as draft verifies the unchanged run in one forward pass; the result is exactly the greedy one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from internvla_ros.model.reader import Prefix, Reader


@dataclass(frozen=True)
class Decoding:
    """When to stop, and what to avoid.

    `repetition_penalty` above 1 makes tokens less likely that the prompt or the answer already
    holds (Keskar et al. 2019); Qwen2.5-VL publishes 1.05. The released code decodes with it.
    """

    max_tokens: int
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.repetition_penalty <= 0:
            raise ValueError(
                "decoding needs at least one token and a positive repetition penalty, got "
                f"max_tokens={self.max_tokens}, repetition_penalty={self.repetition_penalty}"
            )


def greedy(reader: Reader, prefix: Prefix, decoding: Decoding) -> list[list[int]]:
    """Answers of a batch, each without its end token."""
    token = _best(reader, prefix, decoding)
    finished = _ends(reader, token)
    columns = [token]
    while len(columns) < decoding.max_tokens and not bool(finished.all()):
        reader.extend(prefix, token[:, None])
        token = _best(reader, prefix, decoding)
        columns.append(token)
        finished |= _ends(reader, token)
        if decoding.stop:
            finished |= _stopped(reader, torch.stack(columns, dim=1), decoding.stop)
    rows: list[list[int]] = torch.stack(columns, dim=1).tolist()
    return [_until_end(row, reader.chat_format.ends) for row in rows]


def greedy_with_draft(
    reader: Reader, prefix: Prefix, max_tokens: int, draft: Sequence[int]
) -> list[int]:
    """The greedy answer of a batch of one, without its end token.

    `draft` is a guess of it. On return the prefix has read the answer and an end token (also where
    `max_tokens` cut it short), so that a follow-up question can be appended.
    """
    end, ends = reader.chat_format.end, reader.chat_format.ends
    answer = [int(reader.logits(prefix.last_hidden)[0].argmax())]
    while answer[-1] not in ends and len(answer) < max_tokens:
        guess = [*draft, end][len(answer) : max_tokens - 1]
        _accept(reader, prefix, answer, guess)
    unread = [end] if answer[-1] in ends else [answer[-1], end]
    reader.extend(prefix, prefix.ids.new_tensor([unread]))
    return _until_end(answer, ends)


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits [B, V] with those of the tokens `seen` [B, S] made less likely."""
    if penalty == 1.0:
        return logits
    scores = logits.gather(1, seen)
    scores = torch.where(scores > 0, scores / penalty, scores * penalty)
    return logits.scatter(1, seen, scores)


def _best(reader: Reader, prefix: Prefix, decoding: Decoding) -> Tensor:
    logits = reader.logits(prefix.last_hidden).float()
    return penalised(logits, prefix.ids, decoding.repetition_penalty).argmax(dim=-1)


def _ends(reader: Reader, token: Tensor) -> Tensor:
    return torch.isin(token, token.new_tensor(reader.chat_format.ends))


def _stopped(reader: Reader, answers: Tensor, stop: tuple[str, ...]) -> Tensor:
    texts = [reader.chat_format.decode(row) for row in answers.tolist()]
    return answers.new_tensor([any(s in text for s in stop) for text in texts], dtype=torch.bool)


def _accept(reader: Reader, prefix: Prefix, answer: list[int], guess: list[int]) -> None:
    """Read the newest token and `guess`; append what of it is right and one token more."""
    read = [answer[-1], *guess]
    hidden = reader.extend(prefix, prefix.ids.new_tensor([read]))
    best: list[int] = reader.logits(hidden[0]).argmax(dim=-1).tolist()
    right, ends = 0, reader.chat_format.ends
    while right < len(guess) and guess[right] == best[right] and guess[right] not in ends:
        right += 1
    answer += best[: right + 1]
    _forget(prefix, len(guess) - right, hidden[:, right])


def _forget(prefix: Prefix, count: int, last_hidden: Tensor) -> None:
    if count:
        prefix.cache.forget(count)
        prefix.ids = prefix.ids[:, :-count]
        prefix.mask = None if prefix.mask is None else prefix.mask[:, :-count]
        prefix.next_position = prefix.next_position - count
    prefix.last_hidden = last_hidden


def _until_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    for index, token in enumerate(tokens):
        if token in ends:
            return tokens[:index]
    return tokens
