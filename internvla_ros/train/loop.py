"""The optimizer loop of all stages: schedule, clipping, averaging, metrics, exact resume."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from internvla_ros.train.errors import StoppedError, TrainingError
from internvla_ros.train.feed import Batch, Batches, Feed
from internvla_ros.train.hardware import is_sharded
from internvla_ros.train.metrics import Journal
from internvla_ros.train.randomness import restore_streams, save_streams, seed_process
from internvla_ros.train.settings import LoopConfig
from internvla_ros.train.states import States

LATEST, BEST = "checkpoint", "best"
BEST_FILE = "best.json"


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate, and what they are called."""

    name: str
    parameters: Sequence[nn.Parameter]
    peak: float


@dataclass(frozen=True)
class Objective:
    """What a loop trains.

    Attributes:
        module: called with a batch, returns the sum of each loss over the batch's elements.
        groups: what is trained; everything else is frozen.
        weights: of each loss's mean in what is minimised.
        batches: by number.
        export: writes the policy from weights by name into a folder, said to be of that step.
        held_out: batches on which the losses are measured without training.
        draw: a picture of what the module predicts, where there is anything to draw on.
    """

    module: nn.Module
    groups: Sequence[Group]
    weights: Mapping[str, float]
    batches: Batches
    export: Callable[[Mapping[str, Tensor], Path, int], None]
    held_out: Sequence[Any] = ()
    draw: Callable[[nn.Module], NDArray[np.uint8]] | None = None


@dataclass(frozen=True)
class LoopOptions:
    """What does not change the numbers that come out."""

    workers: int = 0
    """Processes that make batches ahead."""
    tensorboard: bool = False
    deadline: float = math.inf
    """`time.monotonic()` from which on a run stops after the step it is in."""
    progress: bool = True


Tensors = list[Tensor] | tuple[Tensor, ...]


def warmed_up_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """An exponential average that forgets faster at first, so that it never holds the start.

    After n updates the decay is at most (1 + n) / (10 + n).
    """

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = float(count)
        torch._foreach_lerp_(averaged, current, 1.0 - min(decay, (1.0 + n) / (10.0 + n)))

    return update


class Loop:
    """Trains an objective to the last step, or until it is told to stop."""

    def __init__(
        self,
        objective: Objective,
        config: LoopConfig,
        folder: Path,
        accelerator: Accelerator,
        options: LoopOptions | None = None,
    ) -> None:
        self.objective, self.config, self.folder = objective, config, folder
        self.accelerator, self.options = accelerator, options or LoopOptions()
        self.states = States(folder, config.keep)
        self.step = 0
        self.stopped = False
        groups = [group for group in objective.groups if group.parameters]
        self._freeze(groups)
        self.module = objective.module.to(accelerator.device)
        self.average: AveragedModel | None = None
        if config.ema_decay:
            if is_sharded(accelerator):
                raise TrainingError(
                    "averaged weights need all weights in one process: set ema_decay to 0"
                )
            self.average = AveragedModel(
                self.module, multi_avg_fn=warmed_up_average(config.ema_decay)
            )
            accelerator.register_for_checkpointing(self.average)
        optimizer = torch.optim.AdamW(
            [{"params": list(g.parameters), "lr": g.peak} for g in groups],
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.peaks = {group.name: group.peak for group in groups}
        self.wrapped, self.optimizer = accelerator.prepare(self.module, optimizer)
        seed_process(config.seed, accelerator.process_index)

    def _freeze(self, groups: Sequence[Group]) -> None:
        self.objective.module.requires_grad_(False)
        for group in groups:
            for parameter in group.parameters:
                parameter.requires_grad_(True)

    @property
    def best(self) -> nn.Module:
        """The averaged network where there is one, else the trained one."""
        return self.average.module if self.average is not None else self.module

    def run(self) -> bool:
        """Train; False where it was stopped before the last step.

        Every `save_every` steps, and at the end, a checkpoint and a state are written. The first
        Ctrl-C or SIGTERM ends the run after the step it is in, with both written.
        """
        if self.step >= self.config.steps:
            return True
        chief, accumulate = self.accelerator.is_main_process, self.config.accumulate
        journal = None
        if chief:
            journal = Journal(self.folder, self.step, self.options.tensorboard)
        self.wrapped.train()
        feed = Feed(
            self.objective.batches,
            self.step * accumulate,
            self.config.steps * accumulate,
            self.options.workers,
            self.accelerator.device.type == "cuda",
        )
        bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            unit="step",
            smoothing=0.05,
            disable=not (chief and self.options.progress),
        )
        with bar, _stop_signals(self) as interrupted:
            self._steps(feed, journal, bar)
        if journal is not None:
            journal.close()
        if interrupted():
            raise KeyboardInterrupt
        return self.step >= self.config.steps

    def _steps(self, feed: Feed, journal: Journal | None, bar: tqdm[Any]) -> None:
        window = _Window()
        saved = self.step
        while self.step < self.config.steps and not self.stopped:
            try:
                losses, norm = self._one_step(feed)
            except StoppedError:
                break
            window.add(losses, norm)
            bar.update()
            if self.step % self.config.log_every == 0:
                line = self._line(window, feed)
                if journal is not None:
                    journal.write(self.step, line)
                    bar.set_postfix_str(_brief(line, self.objective.weights))
                window, feed.waited = _Window(), 0.0
            if self.config.pictures_every and self.step % self.config.pictures_every == 0:
                self._draw(journal)
            if self.step % self.config.save_every == 0:
                self._save(journal)
                saved = self.step
        if saved != self.step:
            self._save(journal)

    def _one_step(self, feed: Feed) -> tuple[dict[str, Tensor], Tensor]:
        """This process's share of each mean loss, and the norm of the gradient."""
        micro = [next(feed) for _ in range(self.config.accumulate)]
        counts = self._agree(micro)
        for group, peak in zip(self.optimizer.param_groups, self.peaks.values(), strict=True):
            group["lr"] = self.config.learning_rate(self.step, peak)
        self.optimizer.zero_grad()
        shares: dict[str, Tensor] = {}
        for batch in micro:
            with self.accelerator.accumulate(self.wrapped):
                sums = self.wrapped(batch.to(self.accelerator.device))
                means = {name: sums[name] / counts[name] for name in sums if counts[name]}
                total = torch.stack([self.objective.weights[k] * v for k, v in means.items()]).sum()
                # Processes and accumulated batches are averaged over; these are sums already.
                parts = self.accelerator.num_processes * self.config.accumulate
                self.accelerator.backward(total * parts if parts > 1 else total)
            for name, value in {"loss": total, **means}.items():
                shares[name] = shares.get(name, 0) + value.detach()
        norm = self.accelerator.clip_grad_norm_(self._trained(), self.config.clip)
        norm = torch.as_tensor(0.0 if norm is None else norm)  # DeepSpeed clips by itself
        if not bool(torch.isfinite(norm)):
            raise TrainingError(
                f"the gradient is not finite at step {self.step}; resume with a lower rate"
            )
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.module)
        self.step += 1
        return shares, norm.detach()

    def _trained(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _agree(self, micro: Sequence[Batch]) -> dict[str, float]:
        """Over how many elements each loss of this step is summed, in all processes.

        They also agree here on whether to stop, lest one waits for another; raises StoppedError.
        """
        names = list(self.objective.weights)
        stop = self.stopped or time.monotonic() >= self.options.deadline
        values = [sum(batch.counts.get(name, 0) for batch in micro) for name in names]
        if self.accelerator.num_processes > 1:
            everyone = torch.tensor(
                [*values, float(stop)], dtype=torch.float64, device=self.accelerator.device
            )
            *values, asked = self.accelerator.reduce(everyone, "sum").tolist()
            stop = asked > 0
        if stop:
            self.stopped = True
            raise StoppedError
        return dict(zip(names, values, strict=True))

    def _line(self, window: _Window, feed: Feed) -> dict[str, float]:
        """What is written of the steps of a window; collective."""
        means = {k: v / window.steps for k, v in window.losses.items()}
        if self.accelerator.num_processes > 1:
            means = {k: self.accelerator.reduce(v, "sum") for k, v in means.items()}
        seconds = time.monotonic() - window.start
        rates = {
            f"lr_{name}": group["lr"]
            for name, group in zip(self.peaks, self.optimizer.param_groups, strict=True)
        }
        return {
            **{k: float(v) for k, v in means.items()},
            "grad_norm": float(window.norm / window.steps),
            **rates,
            "steps_per_s": round(window.steps / seconds, 4),
            "data_wait": round(feed.waited / seconds, 4),
        }

    def _draw(self, journal: Journal | None) -> None:
        if journal is not None and self.objective.draw and not is_sharded(self.accelerator):
            with _evaluating(self.best):
                journal.picture(self.step, self.objective.draw(self.best))

    def _save(self, journal: Journal | None) -> None:
        """Export the policy, then write the state that says that it is done; collective."""
        entries = self._entries()
        if journal is not None:
            self.objective.export(entries, self.folder / LATEST, self.step)
            self._judge(journal, entries)
            self.states.begin(self.step)
        self.accelerator.wait_for_everyone()
        scratch = self.states.scratch(self.step)
        self.accelerator.save_state(str(scratch))
        save_streams(scratch / f"streams_{self.accelerator.process_index}.pt")
        self.accelerator.wait_for_everyone()
        if journal is not None:
            self.states.finish(self.step)
        self.accelerator.wait_for_everyone()

    def _entries(self) -> Mapping[str, Tensor]:
        """The weights to export, by the module's names; collective where they are spread."""
        if is_sharded(self.accelerator):
            return self.accelerator.get_state_dict(self.wrapped)
        return self.best.state_dict()

    def _judge(self, journal: Journal, entries: Mapping[str, Tensor]) -> None:
        """Keep a second checkpoint of the step with the lowest loss on held-out batches."""
        if not self.objective.held_out or is_sharded(self.accelerator):
            return
        losses = self.measure()
        journal.write(self.step, {f"held_out_{k}": v for k, v in losses.items()})
        path = self.folder / BEST_FILE
        if path.is_file() and json.loads(path.read_text())["loss"] <= losses["loss"]:
            return
        self.objective.export(entries, self.folder / BEST, self.step)
        path.write_text(json.dumps({"step": self.step, **losses}) + "\n")

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """The mean losses on the held-out batches, and their weighted sum, "loss"."""
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        with _evaluating(self.best) as network, self.accelerator.autocast():
            for batch in self.objective.held_out:
                for name, value in network(batch.to(self.accelerator.device)).items():
                    sums[name] = sums.get(name, 0.0) + float(value)
                    counts[name] = counts.get(name, 0.0) + batch.counts[name]
        means = {name: sums[name] / counts[name] for name in sums if counts[name]}
        return {"loss": sum(self.objective.weights[k] * v for k, v in means.items()), **means}

    def resume(self) -> bool:
        """Continue from the newest whole state, exactly; False where there is none."""
        found: list[int | None] = [None]
        if self.accelerator.is_main_process:
            found = [self.states.newest(_warn)]
        broadcast_object_list(found)
        if found[0] is None:
            return False
        folder = self.states.path(found[0])
        try:
            self.accelerator.load_state(str(folder))
            restore_streams(folder / f"streams_{self.accelerator.process_index}.pt")
        except (RuntimeError, KeyError, ValueError, OSError) as error:
            raise TrainingError(
                f"cannot resume from {folder}: {error}; was it written by another recipe, or by "
                "another number of processes?"
            ) from error
        self.step = found[0]
        return True


class _Window:
    """Sums over the steps since the last line; on the device, so that nothing waits for it."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.steps = 0
        self.losses: dict[str, Tensor] = {}
        self.norm: Tensor | float = 0.0

    def add(self, losses: Mapping[str, Tensor], norm: Tensor) -> None:
        self.steps += 1
        self.norm = self.norm + norm
        for name, value in losses.items():
            self.losses[name] = self.losses[name] + value if name in self.losses else value


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """Without dropout, for as long as it lasts."""
    training = network.training
    network.eval()
    try:
        yield network
    finally:
        network.train(training)


@contextmanager
def _stop_signals(loop: Loop) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM stop the loop after its step; whether one came is what is yielded."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def request(number: int, frame: FrameType | None) -> None:
        came.append(number)
        loop.stopped = True
        if len(came) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _brief(line: Mapping[str, float], weights: Mapping[str, float]) -> str:
    wait = f"wait {100 * line['data_wait']:.0f} %"
    return " ".join([*(f"{k}={line[k]:.4g}" for k in ("loss", *weights) if k in line), wait])


def _warn(text: str) -> None:
    print(f"WARNING: {text}", file=sys.stderr, flush=True)
