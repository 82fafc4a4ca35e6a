"""Greedy decoding from a prefix, with the previous answer as a free draft.

A planner that watches a scene answers nearly the same thing at every tick: the words stand and a
few coordinates move by a pixel. Speculative decoding (Leviathan et al. 2023) with the last answer
as draft verifies the unchanged run in one forward pass; the result is exactly the greedy one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from internvla_ros.model.planner import Planner, Prefix


def greedy(planner: Planner, prefix: Prefix, max_tokens: int) -> list[list[int]]:
    """Answers of a batch, each without its end token; at most `max_tokens` long."""
    token = planner.logits(prefix.last_hidden).argmax(dim=-1)
    finished = token == planner.chat.end
    columns = [token]
    while len(columns) < max_tokens and not bool(finished.all()):
        hidden = planner.extend(prefix, token[:, None])
        token = planner.logits(hidden[:, -1]).argmax(dim=-1)
        finished |= token == planner.chat.end
        columns.append(token)
    return [_until_end(row, planner.chat.end) for row in torch.stack(columns, dim=1).tolist()]


def greedy_with_draft(
    planner: Planner, prefix: Prefix, max_tokens: int, draft: Sequence[int]
) -> list[int]:
    """The greedy answer of a batch of one, without its end token.

    `draft` is a guess of it. On return the prefix has read the answer and an end token (also where
    `max_tokens` cut it short), so that a follow-up question can be appended.
    """
    end = planner.chat.end
    answer = [int(planner.logits(prefix.last_hidden)[0].argmax())]
    while answer[-1] != end and len(answer) < max_tokens:
        guess = [*draft, end][len(answer) : max_tokens - 1]
        _accept(planner, prefix, answer, guess)
    unread = [end] if answer[-1] == end else [answer[-1], end]
    planner.extend(prefix, prefix.attention_mask.new_tensor([unread]))
    return _until_end(answer, end)


def _accept(planner: Planner, prefix: Prefix, answer: list[int], guess: list[int]) -> None:
    """Read the newest token and `guess`; append what of it is right and one token more."""
    read = [answer[-1], *guess]
    hidden = planner.extend(prefix, prefix.attention_mask.new_tensor([read]))
    best: list[int] = planner.logits(hidden[0]).argmax(dim=-1).tolist()
    right = 0
    while right < len(guess) and guess[right] == best[right] and guess[right] != planner.chat.end:
        right += 1
    answer += best[: right + 1]
    _forget(prefix, len(guess) - right, hidden[:, right])


def _forget(prefix: Prefix, count: int, last_hidden: Tensor) -> None:
    if count:
        kept = prefix.attention_mask.shape[1] - count
        prefix.cache.crop(-count)
        prefix.attention_mask = prefix.attention_mask[:, :kept]
        prefix.next_position = prefix.next_position - count
    prefix.last_hidden = last_hidden


def _until_end(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
