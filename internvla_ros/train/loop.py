"""The optimizer loop of both stages: schedule, clipping, EMA, metrics, exact resume."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

STATE_FILE = "trainer_state.pt"
METRICS_FILE = "metrics.jsonl"


class TrainingError(RuntimeError):
    """A run that cannot start, continue or go on."""


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast; the learning rate is constant between warm-up and cool-down."""

    steps: int
    warmup_steps: int = 200
    cooldown_steps: int = 0
    floor: float = 0.02
    """Learning rate at the end, as a fraction of the peak."""
    clip: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    ema_decay: float = 0.0
    """Decay of the averaged weights, 0: none. Averaged weights are what a checkpoint holds."""
    log_every: int = 50
    save_every: int = 1000
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning-rate factor at `step`, 0-based."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = (self.steps - step) / max(1, self.cooldown_steps)
        return warm * (self.floor + (1 - self.floor) * min(1.0, max(0.0, left)))


@dataclass
class Streams:
    """The run's sources of randomness, saved with it."""

    numpy: np.random.Generator
    torch: torch.Generator

    @classmethod
    def seeded(cls, seed: int) -> Streams:
        """Both streams from one seed."""
        return cls(np.random.default_rng(seed), torch.Generator().manual_seed(seed))


StepFunction = Callable[[Streams], Mapping[str, Tensor]]
SaveFunction = Callable[[nn.Module, int], None]


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
    """Runs `step_function` (which returns named losses, "loss" among them) to the last step."""

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[Mapping[str, Any]],
        config: LoopConfig,
        folder: Path,
    ) -> None:
        self.module = module
        self.config = config
        self.folder = folder
        self.streams = Streams.seeded(config.seed)
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            [dict(group) for group in groups], betas=config.betas, weight_decay=config.weight_decay
        )
        for group in self.optimizer.param_groups:
            group["peak_lr"] = group["lr"]
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average: AveragedModel | None = None
        if config.ema_decay:
            self.average = AveragedModel(module, multi_avg_fn=warmed_up_average(config.ema_decay))

    @property
    def best(self) -> nn.Module:
        """The averaged network where there is one, else the trained one."""
        return self.average.module if self.average is not None else self.module

    def run(self, step_function: StepFunction, save: SaveFunction) -> None:
        """Train; every `save_every` steps, and at the end, a checkpoint and the state are written.

        Ctrl-C writes both and re-raises KeyboardInterrupt.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        window: list[Mapping[str, float]] = []
        clock = time.monotonic()
        bar = tqdm(total=self.config.steps, initial=self.step, unit="step", smoothing=0.05)
        try:
            while self.step < self.config.steps:
                window.append(self._one_step(step_function))
                bar.update()
                if self.step % self.config.log_every == 0:
                    rate = len(window) / (time.monotonic() - clock)
                    bar.set_postfix_str(self._log(window, rate))
                    window, clock = [], time.monotonic()
                if self.step % self.config.save_every == 0:
                    self._save(save)
        except KeyboardInterrupt:
            self._save(save)
            raise
        finally:
            bar.close()
        self._save(save)

    def _one_step(self, step_function: StepFunction) -> Mapping[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.config.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        losses = step_function(self.streams)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        if not bool(torch.isfinite(norm)):
            raise TrainingError(
                f"the gradient is not finite at step {self.step}; resume with a lower rate"
            )
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.module)
        self.step += 1
        return {**{k: float(v.detach()) for k, v in losses.items()}, "grad_norm": float(norm)}

    def _log(self, window: Sequence[Mapping[str, float]], rate: float) -> str:
        means = {k: float(np.mean([w[k] for w in window])) for k in window[-1]}
        line = {
            "step": self.step,
            **means,
            "steps_per_s": rate,
            "lr": self.optimizer.param_groups[0]["lr"],
        }
        with (self.folder / METRICS_FILE).open("a") as stream:
            stream.write(json.dumps({k: round(v, 6) for k, v in line.items()}) + "\n")
        return " ".join(f"{k}={v:.4g}" for k, v in means.items() if k != "grad_norm")

    def _save(self, save: SaveFunction) -> None:
        save(self.best, self.step)
        state = {
            "step": self.step,
            "module": self.module.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": self.streams.torch.get_state(),
            "global_rng": torch.get_rng_state(),
            "numpy_rng": json.dumps(self.streams.numpy.bit_generator.state),
        }
        temporary = self.folder / (STATE_FILE + ".writing")
        torch.save(state, temporary)
        os.replace(temporary, self.folder / STATE_FILE)

    def resume(self) -> bool:
        """Continue from the folder's saved state, exactly; False where there is none."""
        path = self.folder / STATE_FILE
        if not path.is_file():
            return False
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.module.load_state_dict(state["module"])
            if self.average is not None and state["average"] is not None:
                self.average.load_state_dict(state["average"])
            peaks = [group["peak_lr"] for group in self.optimizer.param_groups]
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError, ValueError, EOFError) as error:
            raise TrainingError(f"cannot resume from {path}: {error}") from error
        for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
            group["peak_lr"] = peak
        self.step = int(state["step"])
        self.streams.torch.set_state(state["torch_rng"])
        torch.set_rng_state(state["global_rng"])
        self.streams.numpy.bit_generator.state = json.loads(state["numpy_rng"])
        return True
