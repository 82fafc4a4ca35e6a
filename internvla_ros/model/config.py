"""The one configuration from which a policy of any size is built."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that names something unknown, lacks something, or contradicts itself."""


@dataclass(frozen=True)
class PlannerConfig:
    """The vision-language planner (Qwen2.5-VL).

    `qwen` is a transformers `Qwen2_5_VLConfig` as a dictionary. `image_size` is (width, height) in
    pixels to which every view is resized first, whatever its aspect ratio; None keeps a view's own
    size. Both sides are then rounded to whole merged patches (`images.smart_size`), and answers are
    in pixels of what comes out.
    """

    qwen: Mapping[str, Any]
    image_size: tuple[int, int] | None = (224, 224)
    system_prompt: str | None = "You are a helpful assistant."
    absolute_positions: bool = False
    """Add a learned table of positions to the image tokens. Qwen2.5-VL encodes position by rotary
    angles alone, from which a model this repository trains from scratch learns slowly to read
    absolute coordinates; the released checkpoints have no such table."""
    native_answers: bool = False
    """Free questions about an image (grounding, chat) see it in its own size, as the released
    planner was trained to answer them; plans always see `image_size`."""
    views: int = 1
    """How many of the camera views the planner looks at, from the first; 0: at all it is given."""


@dataclass(frozen=True)
class VisionExpertConfig:
    """DINOv2. `dinov2` is a transformers `Dinov2Config` as a dictionary.

    A view, after the planner's `image_size`, is resized until its shorter side is `image_size` px.
    `views` as the planner's.
    """

    dinov2: Mapping[str, Any]
    image_size: int = 224
    views: int = 1


@dataclass(frozen=True)
class QFormerConfig:
    """Layer-wise querying transformer over the planner's `hidden_states[start_layer:end_layer]`."""

    start_layer: int = 36
    end_layer: int = 37
    num_query_tokens: int = 64
    input_dim: int = 2048
    hidden_dim: int = 768
    num_heads: int = 8
    dropout: float = 0.1


@dataclass(frozen=True)
class ActorConfig:
    """The diffusion transformer. With `state_dim` and `num_points` 0 it is the released actor."""

    hidden_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    action_dim: int = 7
    chunk_size: int = 16
    gripper_index: int = 6
    diffusion_steps: int = 100
    state_dim: int = 0
    """Width of the proprioceptive state given as one token; 0: none."""
    embodiments: tuple[str, ...] = ()
    """Robots that the state tells apart, by the names of their statistics: normalised states, and
    where points lie, may be the same while arms and cameras differ."""
    num_points: int = 0
    """Image points (u, v in 0..1) given as explicit spatial prompt, one token each; 0: none."""
    draft_scale: float = 0.0
    """Diffuse the residual, in this unit, of a chunk drafted from points and state; 0: no draft."""
    draft_words: bool = False
    """Whether the draft reads the instruction's words: where points and state are the same, how a
    thing is grasped may still depend on what it is."""
    history: bool = False
    """Whether there is an embedder of past actions, which the released checkpoints store and their
    code never uses: it is kept so that they can be written again as they were."""

    @property
    def state_width(self) -> int:
        """Numbers of the state as the network takes it: proprioception, then one a robot."""
        return self.state_dim + len(self.embodiments) if self.state_dim else 0

    def told_apart(self, name: str | None) -> list[float]:
        """What follows the proprioception of a robot: 1 in its own place, none of an unknown's."""
        return [float(each == name) for each in self.embodiments]


@dataclass(frozen=True)
class PolicyConfig:
    """Everything that determines the network and what surrounds it at inference."""

    planner: PlannerConfig
    vision: VisionExpertConfig
    qformer: QFormerConfig
    actor: ActorConfig
    prompt: str = (
        "Your task is {instruction}. To identify the key objects for your task. "
        "Locate their bounding boxes in [x1,y1,x2,y2] format."
    )
    lowercase_instruction: bool = True
    cameras: tuple[str, ...] = ("front",)
    policy_rate: float = 5.0
    """Steps of a chunk per second, Hz."""
    num_ddim_steps: int = 10
    guidance: float = 1.5
    noise_scale: float = 1.0
    """Of the noise that chunks are made from. With less of it they stay nearer to the likeliest:
    what a small denoiser adds to a good draft is not all signal."""
    name: str = "internvla-m1"

    @property
    def dt(self) -> float:
        """Seconds between two steps of a chunk."""
        return 1.0 / self.policy_rate

    def to_json(self) -> str:
        """The configuration as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_file(cls, path: Path) -> PolicyConfig:
        """Read a JSON file; raises `ConfigError` naming the file and the entry at fault."""
        try:
            values = json.loads(Path(path).read_text())
        except OSError as error:
            raise ConfigError(
                f"cannot read the policy configuration {path}: {error.strerror}"
            ) from error
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}: not JSON (line {error.lineno}: {error.msg})") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected a JSON object")
        return cls.from_dict(values, source=str(path))

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], source: str = "policy configuration"
    ) -> PolicyConfig:
        """Build from nested dictionaries; unknown and missing entries raise `ConfigError`."""
        parts = dict(values)
        nested: dict[str, type[Any]] = {
            "planner": PlannerConfig,
            "vision": VisionExpertConfig,
            "qformer": QFormerConfig,
            "actor": ActorConfig,
        }
        for key, kind in nested.items():
            if not isinstance(parts.get(key), Mapping):
                raise ConfigError(f"{source}: section '{key}' is missing")
            parts[key] = _build(kind, parts[key], f"{source}: {key}")
        return _build(cls, parts, source)


def _build(kind: type[T], values: Mapping[str, Any], source: str) -> T:
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"{source}: unknown entries {unknown}; known: {sorted(fields)}")
    # JSON has no tuples.
    converted = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return kind(**converted)
    except TypeError as error:
        raise ConfigError(f"{source}: {error}") from error
