"""A small byte-level BPE tokenizer for models that this repository trains from scratch.

Integers up to the image size and the recurring pieces of answers and prompts are single tokens, so
that a coordinate is one classification and a box costs nine decoding steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
ANSWER_PIECES = (
    '[{"bbox_2d": [',
    '], "label": "',
    '"}, {"bbox_2d": [',
    '"}]',
    "[(",
    "), (",
    ")]",
    '{"future_traj": [[',
    "], [",
    "]]}",
    ", ",
)


def train_tokenizer(
    corpus: Iterable[str], largest_integer: int, phrases: Sequence[str] = (), vocab_size: int = 1024
) -> PreTrainedTokenizerFast:
    """Train on `corpus`; `phrases` (fixed parts of prompts) become one token each."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    words = Regex(r"\d+| ?[A-Za-z]+|\s+|[^\sA-Za-z\d]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    integers = [str(n) for n in range(largest_integer + 1)]
    # Repeated, so that every integer is merged into one token whatever the corpus holds.
    tokenizer.train_from_iterator([*corpus, *(integers * 50)], trainer)
    pieces = [AddedToken(p, normalized=False, special=False) for p in (*ANSWER_PIECES, *phrases)]
    tokenizer.add_tokens(pieces)
    fast = _fast(tokenizer)
    split = [n for n in integers if len(fast.encode(n, add_special_tokens=False)) != 1]
    if split:
        raise ValueError(
            f"vocab_size={vocab_size} leaves {len(split)} integers (such as {split[0]}) without "
            "a token of their own; make it larger"
        )
    return fast


def taught(tokenizer: PreTrainedTokenizerFast, words: Iterable[str]) -> PreTrainedTokenizerFast:
    """The same tokenizer with a token for each of these words, alone and after a space.

    Merges are added after all others, so that every word that has a token keeps it. Numbers of
    phrases grow by as many as there are new tokens.

    Raises:
        ValueError: a "word" holds other characters than letters.
    """
    for word in words:
        if not (word.isascii() and word.isalpha()):
            raise ValueError(f"{word!r} is no word of letters that could get a token of its own")
        for spelling in (word, f" {word}"):
            # Each merge changes what is left to be merged: "aaaa" becomes "aa", "aa" at once.
            while len(pieces := tokenizer.tokenize(spelling)) > 1:
                tokenizer = _merged(tokenizer, *pieces[:2])
    return tokenizer


def _merged(tokenizer: PreTrainedTokenizerFast, left: str, right: str) -> PreTrainedTokenizerFast:
    """The same tokenizer with one more merge, after all others."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary, merges = description["model"]["vocab"], description["model"]["merges"]
    before = len(vocabulary)
    vocabulary.setdefault(left + right, before)
    merges.append([left, right])
    for piece in description["added_tokens"]:
        if piece["id"] >= before:
            piece["id"] += len(vocabulary) - before
    return _fast(Tokenizer.from_str(json.dumps(description)))


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into `folder`."""
    tokenizer.save_pretrained(str(folder))
