"""How long the policy takes for one chunk, stage by stage, and how much memory.

    python bench/policy.py --size nano|tiny|3b --device cpu|cuda [--baseline] [--help]

nano is the checkpoint that ships; tiny and 3b are the released architecture with random weights
(3b at its real size, tiny in its proportions at a hundredth). With --baseline the same work is done
in turns the way the released code does it, and the ratio of the medians is printed together with
the largest difference of the actions and whether the answers are equal. Times are wall clock after
warm-up, synchronised with the device.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from released_way import Clock, ReleasedWay, neutral_inputs
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoTokenizer

from internvla_ros.data.normalisation import DatasetStatistics, action_statistics
from internvla_ros.model.decoding import Decoding, greedy
from internvla_ros.model.images import at_image_size, planner_pixels, to_tensor
from internvla_ros.model.plan import Plan
from internvla_ros.model.policy import Policy
from internvla_ros.model.quantise import quantise
from internvla_ros.model.sizes import SIZES, released_config
from internvla_ros.model.weights import WeightsOnMeta
from internvla_ros.resources import DEFAULT_CHECKPOINT
from internvla_ros.resources import resource as shipped

INSTRUCTION = "put the red cube on the blue plate"
TILE = 1 << 20


class Stages:
    """Milliseconds by stage, a list each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count a block's time for a stage."""
        self._synchronise()
        started = time.perf_counter()
        yield
        self._synchronise()
        self.times[stage].append(1e3 * (time.perf_counter() - started))

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Work:
    """What is done for one chunk."""

    views: list[NDArray[np.uint8]]
    noise: Tensor
    steps: int
    scale: float
    answer_tokens: int


def ours(policy: Policy, work: Work, clock: Clock) -> tuple[Tensor, list[int]]:
    """A normalised chunk [1, T, D] and the tokens of an answer, as this package does it."""
    planner, actor, config = policy.planner, policy.actor, policy.config
    used = config.planner.views or None
    layers = (config.qformer.start_layer, config.qformer.end_layer)
    with clock("preprocess"):
        pictures = [to_tensor(view, policy.device) for view in work.views]
        views = at_image_size(pictures, config.planner.image_size)
        patches, _ = planner_pixels(
            views[:used], None, patch=planner.patch, merge=planner.merge, temporal=planner.temporal
        )
        grids = tuple(planner.grid((v.shape[1], v.shape[0]), None) for v in views[:used])
        merged = [(rows // planner.merge, columns // planner.merge) for rows, columns in grids]
        tokens = [rows * columns for rows, columns in merged]
        prompt = planner.chat_format.prompt(planner.prompt(INSTRUCTION), tokens)
        reading = planner.prepare([prompt], [merged])
    with clock("vision tower"):
        features = planner.run(planner.features, patches.to(planner.dtype), grids)
    with clock("language model"):
        if work.answer_tokens:
            states, prefix = planner.read(reading, features, *layers)
        else:
            states = planner.hidden_states(reading, features, *layers)
    with clock("vision expert + QFormer + denoising"):
        plan = Plan(states, reading.mask, (INSTRUCTION,))
        actions = actor.sample(
            [views],
            plan,
            neutral_inputs(policy)[1],
            noise=work.noise,
            num_ddim_steps=work.steps,
            guidance=work.scale,
        )
    answer: list[int] = []
    if work.answer_tokens:
        with clock("answer"):
            answer = greedy(planner, prefix, Decoding(work.answer_tokens))[0]
    return actions, answer


def build(size: str, device: str, dtype: torch.dtype) -> Policy:
    """The shipped policy, or the released architecture with random weights."""
    folder = shipped(DEFAULT_CHECKPOINT)
    if size == "nano":
        return Policy.from_pretrained(folder, device, dtype)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    config = released_config(size, tokenizer)
    width = config.actor.action_dim
    statistics = action_statistics(np.random.default_rng(0).uniform(-1, 1, (100, width)))
    with WeightsOnMeta():
        policy = Policy(config, tokenizer, {"random": DatasetStatistics(statistics)})
    randomise(policy, torch.device(device), dtype)
    return policy.eval()


def randomise(policy: Policy, device: torch.device, dtype: torch.dtype) -> None:
    """Give every weight memory and a value: norms 1, biases 0, all else a random tile's."""
    tile = torch.randn(TILE, generator=torch.Generator().manual_seed(0)).mul_(0.02)
    tile = tile.to(device, dtype)
    done: dict[int, nn.Parameter] = {}
    for module in policy.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in done:
                value = torch.empty(parameter.shape, dtype=dtype, device=device)
                if parameter.ndim == 1:
                    value.fill_(0.0 if "bias" in name else 1.0)
                else:
                    for part in value.view(-1).split(TILE):
                        part.copy_(tile[: len(part)])
                done[id(parameter)] = nn.Parameter(value, requires_grad=False)
            setattr(module, name, done[id(parameter)])
    policy.to(device)


def summary(times: dict[str, list[float]]) -> str:
    """A table of milliseconds; the total is that of each call, not of the percentiles."""
    width = max(len(name) for name in times)
    lines = [f"{'ms':{width}} {'p50':>9} {'p95':>9} {'p99':>9}"]
    total = np.sum(list(times.values()), axis=0)
    for name, values in [*times.items(), ("total", total)]:
        p50, p95, p99 = np.percentile(values, [50, 95, 99])
        lines.append(f"{name:{width}} {p50:9.1f} {p95:9.1f} {p99:9.1f}")
    return "\n".join(lines)


def memory(device: torch.device) -> str:
    """The most memory held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    words = f"peak memory {peak:.2f} GiB"
    if device.type == "cuda":
        words += f", on the GPU {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
    return words


def measure(policy: Policy, work: Work, calls: int, warm_up: int, baseline: bool) -> bool:
    """Time both ways in turns, print the tables; returns whether their results agree."""
    mine, theirs = Stages(policy.device), Stages(policy.device)
    released = ReleasedWay(policy) if baseline else None
    worst, equal = 0.0, True
    with torch.inference_mode():
        for call in tqdm(range(warm_up + calls), desc="chunks", disable=None, leave=False):
            if call == warm_up:
                mine.times.clear()
                theirs.times.clear()
            actions, answer = ours(policy, work, mine)
            if released is not None:
                others, other = released.chunk(
                    work.views,
                    INSTRUCTION,
                    work.noise,
                    work.steps,
                    work.scale,
                    work.answer_tokens,
                    theirs,
                )
                if policy.config.actor.draft_scale:
                    points, state = neutral_inputs(policy)
                    assert points is not None and state is not None
                    drafted = policy.actor.dit.drafted(points, state)
                    others = drafted + policy.config.actor.draft_scale * others
                worst = max(worst, float((actions - others).abs().max()))
                equal = equal and answer == other
    print(summary(mine.times))
    if released is None:
        return True
    print(f"\nthe released way\n{summary(theirs.times)}")
    medians = [np.median(np.sum(list(s.times.values()), axis=0)) for s in (theirs, mine)]
    print(f"\nlargest difference of the actions {worst:.1e}, answers equal: {equal}")
    print(f"ratio {medians[0] / medians[1]:.2f} (released way / ours, medians of the totals)")
    return equal


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("nano", *SIZES), default="nano")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="default: float32, on cuda bfloat16"
    )
    parser.add_argument("--steps", type=int, default=10, help="DDIM steps (%(default)s)")
    parser.add_argument("--cfg", type=float, default=1.5, help="guidance (%(default)s)")
    parser.add_argument("--views", type=int, default=2, help="camera views (%(default)s)")
    parser.add_argument(
        "--view-size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT")
    )
    parser.add_argument(
        "--answer-tokens", type=int, default=8, help="of a grounding answer; 0: none (%(default)s)"
    )
    parser.add_argument("--calls", type=int, default=20, help="measured calls (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=3, help="calls before (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: as PyTorch likes")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--cuda-graphs", action="store_true", help="replay CUDA graphs")
    parser.add_argument("--int8", action="store_true", help="int8 weights for the language model")
    parser.add_argument("--baseline", action="store_true", help="also the released way, in turns")
    return parser.parse_args(arguments)


def main() -> int:
    """Print the tables."""
    args = parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("policy: --device cuda, but this PyTorch sees no NVIDIA GPU", file=sys.stderr)
        return 2
    kind = args.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    policy = build(args.size, args.device, getattr(torch, kind))
    if args.int8:
        saved = quantise(policy.planner.vlm.model.language_model)
        print(f"int8 weights save {saved / 2**30:.2f} GiB")
    policy.accelerate(compiled=args.compile, cuda_graphs=args.cuda_graphs)
    config, rng = policy.config.actor, np.random.default_rng(0)
    width, height = args.view_size
    work = Work(
        [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(args.views)],
        torch.randn(
            1, config.chunk_size, config.action_dim, generator=torch.Generator().manual_seed(0)
        ).to(device),
        args.steps,
        args.cfg,
        args.answer_tokens,
    )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    parameters = sum(p.numel() for p in policy.parameters()) / 1e6
    print(
        f"{policy.config.name}, {parameters:.1f} M parameters, {kind}, {name}, "
        f"{torch.get_num_threads()} thread(s), {args.views} views of {width}x{height}, "
        f"{args.steps} steps, guidance {args.cfg}, {args.answer_tokens} answer tokens, "
        f"{args.calls} calls"
    )
    agree = measure(policy, work, args.calls, args.warm_up, args.baseline)
    print(memory(device))
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
