"""`internvla checkpoint inspect | convert`: what a checkpoint holds; one layout from the other."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvla_ros.resources import DEFAULT_CHECKPOINT, resource

if TYPE_CHECKING:
    from internvla_ros.model.checkpoint import Checkpoint

DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla checkpoint`."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION")
    inspect = commands.add_parser(
        "inspect",
        help="say what a checkpoint is, and whether it fits its configuration",
        description="Say what a checkpoint of either layout is, after checking the names and "
        "shapes of its weights against its configuration. They are not loaded.",
    )
    _add_source(inspect, nargs="?", note="; default: the one that ships")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    convert = commands.add_parser(
        "convert",
        help="write a checkpoint in the other layout",
        description="Write a checkpoint in this package's layout (safetensors) or the released "
        "one (a training run's folder). There and back gives the same tensors, bit for bit.",
    )
    _add_source(convert)
    convert.add_argument("target", metavar="TARGET", help="a new folder")
    convert.add_argument(
        "--to", choices=("internvla", "released"), required=True, help="the layout to write"
    )
    convert.add_argument(
        "--names",
        choices=("new", "old"),
        help="released names as by transformers since 4.52 or before; default: as they were",
    )
    convert.add_argument("--dtype", choices=DTYPES, help="of the weights; default: as they are")
    parser.set_defaults(action="inspect", source=None, json=False)


def _add_source(parser: argparse.ArgumentParser, nargs: str | None = None, note: str = "") -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs=nargs,
        help=f"a checkpoint's folder, a released run's folder or .pt file, or a hub id{note}",
    )


def run(args: argparse.Namespace) -> int:
    """Inspect or convert."""
    from internvla_ros.model.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(args.source or resource(DEFAULT_CHECKPOINT))
    if args.action == "inspect":
        facts = describe(checkpoint)
        print(json.dumps(facts, indent=2) if args.json else table(facts))
        return 0
    import torch

    from internvla_ros.model.convert import convert

    dtype = None if args.dtype is None else getattr(torch, args.dtype)
    convert(checkpoint, Path(args.target), args.to, family=args.names, dtype=dtype)
    print(args.target)
    return 0


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Facts about a checkpoint, ready for JSON; raises `CheckpointError` where it is unfit."""
    from internvla_ros.model.convert import hollow_policy
    from internvla_ros.model.weights import check_weights

    config, weights = checkpoint.config, checkpoint.weights
    network = hollow_policy(checkpoint)
    check_weights(network, weights)
    parts = {name: _parameters(part) for name, part in network.named_children()}
    released = weights.path.suffix == ".pt"
    # By place, for tied weights are listed twice and stored once.
    sizes = {(e.path, e.offset): e.nbytes for e in weights.entries.values() if e.nbytes}
    return {
        "folder": str(checkpoint.folder),
        "layout": "released" if released else "internvla",
        **({"training steps": checkpoint.origin.step} if checkpoint.origin is not None else {}),
        "megabytes": round(sum(sizes.values()) / 1e6, 1),
        "stored as": sorted(
            {str(weights.dtype(n)).removeprefix("torch.") for n in weights.names()}
        ),
        "parameters": {**parts, "all": _parameters(network)},
        "cameras": list(config.cameras),
        "planner image": list(config.planner.image_size or ["its own size"]),
        "actor image": [config.vision.image_size] * 2,
        "chunk": [config.actor.chunk_size, config.actor.action_dim],
        "DDIM steps": config.num_ddim_steps,
        "guidance": config.guidance,
        "statistics": sorted(checkpoint.statistics),
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
