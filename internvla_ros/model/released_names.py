"""What the released checkpoints call their entries, and what this package calls them.

One table, read in both directions. A released name is turned into one of ours or, where the release
fuses several layers into one (DINOv2's attention and SwiGLU), into several, whose rows lie one
after the other. The table is in the release's stored order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

Family = Literal["new", "old"]
"""How the language model's entries are called: by transformers since 4.52, or before."""

WRAPPER = "module."
"""In front of all names where a data-parallel wrapper was saved with its network."""


@dataclass(frozen=True)
class Rule:
    """A beginning (or, without a final dot, a whole name) and ours; `#` stands for a number."""

    released: str
    ours: tuple[str, ...]


_QWEN = "qwen_vl_interface.model."
_VLM = "planner.vlm."
_DIT = "action_model.net."
_DINO = "dino_encoder.body."
_BLOCK = f"{_DINO}blocks.#."
_LAYER = "actor.vision_expert.body.encoder.layer.#."

LANGUAGE_MODEL: Mapping[Family, tuple[Rule, ...]] = {
    "new": (
        Rule(f"{_QWEN}model.visual.", (f"{_VLM}model.visual.",)),
        Rule(f"{_QWEN}model.language_model.", (f"{_VLM}model.language_model.",)),
    ),
    "old": (
        Rule(f"{_QWEN}visual.", (f"{_VLM}model.visual.",)),
        Rule(f"{_QWEN}model.", (f"{_VLM}model.language_model.",)),
    ),
}

REST = (
    Rule(f"{_QWEN}lm_head.", (f"{_VLM}lm_head.",)),
    Rule("layer_qformer.", ("actor.qformer.",)),
    Rule(f"{_DIT}positional_embedding", ("actor.dit.positional_embedding",)),
    Rule(f"{_DIT}history_embedder.linear.", ("actor.dit.history_embedder.",)),
    Rule(f"{_DIT}x_embedder.linear.", ("actor.dit.x_embedder.",)),
    Rule(f"{_DIT}t_embedder.mlp.", ("actor.dit.t_embedder.",)),
    Rule(f"{_DIT}z_embedder.uncondition", ("actor.dit.uncondition",)),
    Rule(f"{_DIT}z_embedder.linear.", ("actor.dit.plan_embedder.",)),
    Rule(f"{_DIT}blocks.", ("actor.dit.blocks.",)),
    Rule(f"{_DIT}final_layer.linear.", ("actor.dit.final.",)),
    Rule(f"{_DINO}cls_token", ("actor.vision_expert.body.embeddings.cls_token",)),
    Rule(f"{_DINO}pos_embed", ("actor.vision_expert.body.embeddings.position_embeddings",)),
    Rule(f"{_DINO}mask_token", ("actor.vision_expert.body.embeddings.mask_token",)),
    Rule(
        f"{_DINO}patch_embed.proj.",
        ("actor.vision_expert.body.embeddings.patch_embeddings.projection.",),
    ),
    Rule(f"{_BLOCK}norm1.", (f"{_LAYER}norm1.",)),
    Rule(f"{_BLOCK}attn.qkv.", tuple(f"{_LAYER}attention.{x}_proj." for x in "qkv")),
    Rule(f"{_BLOCK}attn.proj.", (f"{_LAYER}attention.o_proj.",)),
    Rule(f"{_BLOCK}ls1.gamma", (f"{_LAYER}layer_scale1.lambda1",)),
    Rule(f"{_BLOCK}norm2.", (f"{_LAYER}norm2.",)),
    Rule(f"{_BLOCK}mlp.fc1.", (f"{_LAYER}mlp.fc1.",)),
    Rule(f"{_BLOCK}mlp.fc2.", (f"{_LAYER}mlp.fc2.",)),
    Rule(f"{_BLOCK}mlp.w12.", (f"{_LAYER}mlp.gate_proj.", f"{_LAYER}mlp.up_proj.")),
    Rule(f"{_BLOCK}mlp.w3.", (f"{_LAYER}mlp.down_proj.",)),
    Rule(f"{_BLOCK}ls2.gamma", (f"{_LAYER}layer_scale2.lambda1",)),
    Rule(f"{_DINO}norm.", ("actor.vision_expert.body.layernorm.",)),
    Rule("dino_pro.", ("actor.vision_expert.projector.",)),
)


def family_of(names: Iterable[str]) -> Family:
    """The family that a file's names belong to."""
    marks = tuple(rule.released for rule in LANGUAGE_MODEL["new"])
    return "new" if any(name.removeprefix(WRAPPER).startswith(marks) for name in names) else "old"


def to_ours(name: str, family: Family) -> tuple[str, ...]:
    """Our names for a released one, without wrapper; empty where it is none of the release's."""
    for rule in _rules(family):
        match = _pattern(rule.released).fullmatch(name)
        if match:
            return tuple(_fill(ours, match) for ours in rule.ours)
    return ()


def to_released(name: str, family: Family = "new") -> str | None:
    """The released name of (the tensor that holds) our entry; None where the release has none."""
    for rule in _rules(family):
        for ours in rule.ours:
            match = _pattern(ours).fullmatch(name)
            if match:
                return _fill(rule.released, match)
    return None


def in_stored_order(names: Iterable[str], family: Family) -> list[str]:
    """Released names, without doubles, in the order in which the release stores them.

    Within one module, names keep the order that they come in.
    """
    return sorted(dict.fromkeys(names), key=lambda name: _place(name, family))


def _place(name: str, family: Family) -> tuple[int, int]:
    """Which row of the table, numbered rows together, and which number."""
    rules = _rules(family)
    starts = [rule.released.split("#")[0] for rule in rules]
    for index, rule in enumerate(rules):
        match = _pattern(rule.released).fullmatch(name)
        if match:
            return starts.index(starts[index]), int(match["number"]) if "#" in rule.released else 0
    return len(rules), 0


def _rules(family: Family) -> tuple[Rule, ...]:
    return (*LANGUAGE_MODEL[family], *REST)


@cache
def _pattern(beginning: str) -> re.Pattern[str]:
    number = re.escape(beginning).replace(re.escape("#"), r"(?P<number>\d+)")
    return re.compile(number + ("(?P<rest>.+)" if beginning.endswith(".") else "(?P<rest>)"))


def _fill(beginning: str, match: re.Match[str]) -> str:
    filled = beginning.replace("#", match["number"]) if "#" in beginning else beginning
    return filled + match["rest"]
