"""`internvla checkpoint`: what a checkpoint holds, and whether it loads."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvla_ros.resources import DEFAULT_CHECKPOINT, resource

if TYPE_CHECKING:
    from internvla_ros.model.policy import Policy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla checkpoint`."""
    parser.add_argument("checkpoint", nargs="?", help="its folder; default: the one that ships")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Load the checkpoint strictly and print what it is."""
    from internvla_ros.model.checkpoint import find_checkpoint
    from internvla_ros.model.policy import Policy

    folder = find_checkpoint(args.checkpoint or resource(DEFAULT_CHECKPOINT))
    facts = describe(Policy.from_pretrained(folder), folder)
    print(json.dumps(facts, indent=2) if args.json else table(facts))
    return 0


def describe(policy: Policy, folder: Path) -> dict[str, Any]:
    """Facts about a loaded policy, ready for JSON."""
    config = policy.config
    parts = {name: _parameters(part) for name, part in policy.named_children()}
    return {
        "folder": str(folder),
        "megabytes": round(sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) / 1e6, 1),
        "parameters": {**parts, "all": _parameters(policy)},
        "cameras": list(config.cameras),
        "planner image": list(config.planner.image_size),
        "actor image": [config.vision.image_size] * 2,
        "chunk": [config.actor.chunk_size, config.actor.action_dim],
        "DDIM steps": config.num_ddim_steps,
        "guidance": config.guidance,
        "statistics": sorted(policy.statistics),
    }


def table(facts: dict[str, Any]) -> str:
    """The facts as aligned lines."""
    rows = {k: v for k, v in facts.items() if k != "parameters"}
    rows |= {f"parameters, {k}": f"{v:,}" for k, v in facts["parameters"].items()}
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:{width}}  {_words(value)}" for name, value in rows.items())


def _words(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    between = " x " if all(isinstance(item, int) for item in value) else ", "
    return between.join(map(str, value))


def _parameters(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
