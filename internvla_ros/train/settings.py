"""Everything that a recipe says, as values; read and checked by `recipe`.

Each field's allowed range stands with it, so that a mistake is told with its line of the file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from internvla_ros.spatial.prompts import SPATIAL_PROMPT

PLAIN_PROMPT = "Your task is {instruction}."
"""What the planner reads where it is not asked where anything is."""

Size = Literal["nano", "tiny", "3b"]
Precision = Literal["auto", "no", "bf16"]
Decay = Literal["linear", "cosine"]
Stage = Literal["stage1", "actor", "stage2"]
STAGES: tuple[Stage, ...] = ("stage1", "actor", "stage2")
Guidance = Literal["none", "stage1", "full"]
SIMPLE = "simple"
"""What an evaluation calls the scenes that are of no suite."""


def within(default: Any, low: float = 0.0, high: float = math.inf) -> Any:
    """A number with its default and its range, both ends allowed."""
    return field(default=default, metadata={"range": (low, high)})


def required(low: float = 0.0, high: float = math.inf) -> Any:
    """A number that a recipe has to state."""
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class LoopConfig:
    """How long and how fast.

    `linear`: the peak rate between warm-up and a straight cool-down. `cosine`: half a cosine from
    the end of the warm-up to the last step. Both end at the floor.
    """

    steps: int = required(1)
    warmup_steps: int = within(200)
    decay: Decay = "linear"
    cooldown_steps: int = within(0)
    floor: float = within(0.02, 0, 1)
    """Learning rate at the end, as a fraction of the peak."""
    floor_rate: float = within(0.0)
    """Learning rate at the end, absolute; the higher of the two floors holds."""
    clip: float = within(1.0)
    weight_decay: float = within(0.01)
    betas: tuple[float, float] = (0.9, 0.95)
    ema_decay: float = within(0.0, 0, 1)
    """Decay of the averaged weights, 0: none. Averaged weights are what a checkpoint holds."""
    accumulate: int = within(1, 1)
    """Batches whose gradients are added up before the optimizer's step."""
    log_every: int = within(50, 1)
    save_every: int = within(1000, 1)
    """Steps between two states from which the run can go on: what a stopped machine loses."""
    keep: int = within(2, 1)
    """States kept, the newest ones."""
    pictures_every: int = within(0)
    """Steps between two pictures of predictions on held-out frames, 0: none."""
    seed: int = within(0)

    def learning_rate(self, step: int, peak: float) -> float:
        """At `step`, 0-based."""
        low = max(self.floor * peak, min(self.floor_rate, peak))
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.decay == "cosine":
            span = max(1, self.steps - self.warmup_steps)
            done = min(1.0, max(0.0, (step - self.warmup_steps) / span))
            left = 0.5 * (1 + math.cos(math.pi * done))
        else:
            left = min(1.0, max(0.0, (self.steps - step) / max(1, self.cooldown_steps)))
        return warm * (low + (peak - low) * left)


@dataclass(frozen=True)
class ActionLossConfig:
    """How action samples are drawn and weighted."""

    batch_size: int = within(32, 1)
    condition_dropout: float = within(0.1, 0, 1)
    """Share of the samples that get the learned `uncondition` instead of the latent plan; for these
    no image is encoded at all. 1 trains the actor on points and state alone."""
    point_dropout: float = within(0.1, 0, 1)
    """Probability that all points of a sample are withheld."""
    repeated_diffusion_steps: int = within(4, 1)
    """Noise draws per encoded sample."""
    word_dropout: float = within(0.05, 0, 1)
    """Probability that the instruction's words are withheld from a draft which reads them."""
    point_noise: float = within(0.012)
    """Standard deviation added to the annotated points, as a fraction of the image: the planner's
    own points are about this wrong."""
    state_noise: float = within(0.02)
    """Standard deviation added to the normalised state."""
    draft_batch_size: int = within(512)
    """Samples a step for the draft, where the actor has one: it costs little and needs many."""
    noise_weight_cap: float = within(0.0)
    """Weigh each sample's loss by its noise-to-signal power, up to this cap; 0: all alike.

    The error of the clean chunk is that of the noise times this power. Where little compute goes
    into training, equal weights leave the first, noisiest denoising steps, and with them the
    chunk's destination, centimetres off.
    """
    gradient_decay: float = within(0.5, 0, 1)
    """Share of the actor's gradient that reaches the planner; 0 spares its backward pass."""


@dataclass(frozen=True)
class StageOne:
    """Spatial grounding: conversations about images, loss on the assistant's tokens."""

    loop: LoopConfig
    learning_rate: float = within(1.5e-3)
    batch_size: int = within(16, 1)
    coordinate_sigma: float = within(1.0)
    """Width in pixels of the soft targets around a coordinate; 0: plain cross-entropy."""
    dense_weight: float = within(0.5)
    """Weight of the auxiliary detection loss; 0: none."""
    episode_weight: float = within(0.5, 0, 1)
    """Share of the images that are frames from inside episodes; the rest are snapshots."""


@dataclass(frozen=True)
class StageTwo:
    """Actions under the spatial prompt, co-trained with grounding. A rate of 0 freezes a part."""

    loop: LoopConfig
    action: ActionLossConfig = field(default_factory=ActionLossConfig)
    learning_rate_planner: float = within(1e-4)
    learning_rate_actor: float = within(1e-3)
    learning_rate_rest: float = within(5e-4)
    """Of vision expert and QFormer."""
    grounding_weight: float = within(0.1)
    grounding_batch_size: int = within(4)
    """Conversations a step; 0: no co-training."""


@dataclass(frozen=True)
class ModelConfig:
    """What is trained, and from what weights it starts."""

    size: Size = "nano"
    cameras: tuple[str, ...] = ("front", "wrist")
    start: str = ""
    """A checkpoint to go on from, of either layout, a folder or hub id; everything else then comes
    from it."""
    planner: str = ""
    """Qwen2.5-VL to start from, a folder or hub id in transformers' layout."""
    vision: str = ""
    """DINOv2 to start from, likewise."""
    prompt: str = SPATIAL_PROMPT
    draft_words: bool = False
    """Have the draft of the actor's chunk read the instruction's words. A checkpoint whose draft
    does not goes on from the same actions."""
    noise_scale: float = within(1.0, 0, 1)
    """Of the noise that chunks are made from once trained, as `PolicyConfig.noise_scale`."""
    lora_rank: int = within(0)
    """Rank of low-rank adapters in the language model, which then stays as it is otherwise; 0:
    everything is trained."""
    lora_alpha: int = within(32, 1)
    gradient_checkpointing: bool = False
    precision: Precision = "auto"
    """`auto`: bf16 where the hardware computes it, else float32."""


@dataclass(frozen=True)
class DataSet:
    """One set of episodes. Made by the data engine where no `path` is given."""

    name: str
    path: str = ""
    robot: str = "widowx_250s"
    weight: float = within(1.0)
    """Share of the action samples, and of the episodes' conversations, beside the other sets."""
    unnorm_key: str = ""
    """Name of its statistics in the checkpoint; empty: the robot file's."""
    episodes: int = within(0)
    """How many; of a set with a path 0 means all."""
    snapshots: int = within(0)
    seed: int = within(0)
    engine: tuple[str, ...] = ()
    """Further options of `internvla generate`, e.g. "--split=seen"."""


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    sets: tuple[DataSet, ...] = ()
    llava: tuple[str, ...] = ()
    """LLaVA-style files for stage 1 and co-training."""
    llava_weight: float = within(0.2)
    """Share of these conversations beside all others, which together count 1."""
    held_out_episodes: int = within(40)
    """Episodes a robot, made beside the others, for pictures, validation and the evaluation."""
    held_out_seed: int = within(777)
    held_out_engine: tuple[str, ...] = ()
    """Further options of `internvla generate` for these."""
    drop_pauses: bool = False
    """No chunk begins where arm and gripper rest, as in the released training."""
    skip_damaged: bool = False
    """Leave damaged episodes out, naming them, instead of refusing to start."""
    stored_views: bool = True
    """Decode all views once, at the network's size, into files in the run's folder. Without, every
    sample is decoded from its video: for sets that are too large to be stored so."""


@dataclass(frozen=True)
class EvaluationConfig:
    """What the finished policy is measured on."""

    scenes: int = within(100)
    """Closed-loop scenes a robot."""
    seed: int = within(7)
    suites: tuple[str, ...] = ()
    """Suites of tasks of many families; "simple", which is the default, is "put the A on/in the B"
    alone."""
    frames: int = within(200)
    """Held-out frames a robot whose boxes and points are compared."""
    max_seconds: float = within(25.0)


@dataclass(frozen=True)
class Recipe:
    """All of one model. `actor` is stage 2's warm-up, which needs no planner; None: there is none.

    `stage1` None: there is no grounding before stage 2.
    """

    name: str
    model: ModelConfig
    data: DataConfig
    stage2: StageTwo
    stage1: StageOne | None = None
    actor: StageTwo | None = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that it has, in order."""
        return tuple(stage for stage in STAGES if getattr(self, stage) is not None)

    def loop(self, stage: Stage) -> LoopConfig:
        """The loop of one of its stages."""
        config = getattr(self, stage)
        if config is None:
            raise ValueError(f"the recipe {self.name} has no {stage}")
        return config.loop
