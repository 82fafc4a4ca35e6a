"""`internvla serve`: offer a policy to robots and clients on other machines."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from internvla_ros.resources import DEFAULT_CHECKPOINT, resource
from internvla_ros.serving.protocol import DEFAULT_PORT, KEY_VARIABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `internvla serve`."""
    parser.add_argument("--checkpoint", metavar="DIR", help="default: the one that ships")
    parser.add_argument("--host", default="127.0.0.1", help="name or address to listen on")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0: any that is free")
    parser.add_argument("--device", default="cpu", help="where the network runs: cpu or cuda")
    parser.add_argument(
        "--api-key",
        default="",
        metavar="KEY",
        help=f"asked of every client; better in {KEY_VARIABLE}, which no list of processes shows",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="let other machines in without a key"
    )
    parser.add_argument(
        "--unnorm-key",
        metavar="NAME",
        help="statistics for requests that name none; needed where there are several",
    )
    parser.add_argument("--compile", action="store_true", help="fuse kernels (torch.compile)")
    parser.add_argument("--cuda-graphs", action="store_true", help="replay calls as CUDA graphs")
    parser.add_argument("--max-size", type=_megabytes, default=64, help="of a message, MB")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from internvla_ros.serving.server import MEGABYTE, PolicyServer, ServerSettings

    settings = ServerSettings(
        host=args.host,
        port=args.port,
        api_key=args.api_key or os.environ.get(KEY_VARIABLE, ""),
        insecure=args.insecure,
        max_size=args.max_size * MEGABYTE,
    )
    server = PolicyServer(settings, _say)
    if args.insecure and not settings.api_key:
        _say("INSECURE: whoever can reach this address can use the policy")
    checkpoint = Path(args.checkpoint) if args.checkpoint else resource(DEFAULT_CHECKPOINT)
    _say(f"loading {checkpoint} onto {args.device} ...")

    from internvla_ros.model.policy import Policy
    from internvla_ros.serving.service import PolicyService

    policy = Policy.from_pretrained(args.checkpoint or checkpoint, args.device)
    policy.accelerate(compiled=args.compile, cuda_graphs=args.cuda_graphs)

    def warm_up() -> None:
        _say("warming up ...")
        started = time.monotonic()
        policy.warm_up(views=len(policy.config.cameras) or 1)
        _say(f"warm after {time.monotonic() - started:.1f} s")

    server.run(PolicyService(policy, args.unnorm_key), warm_up)
    return 0


def _say(line: str) -> None:
    print(f"internvla serve: {line}", flush=True)


def _megabytes(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value
