"""The configuration of a released run, and ours, one from the other.

A run's `config.yaml` (or `config.json`, the same content) holds everything about its training. What
determines the network is under `framework`, how views and instruction are given under
`datasets.vla_data`; the language model is described by the `config.json` of the base model that the
run names.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Container, Iterable, Mapping
from typing import Any, TypeVar

from transformers import Qwen2_5_VLConfig

from internvla_ros.model.config import (
    ActorConfig,
    ConfigError,
    PlannerConfig,
    PolicyConfig,
    QFormerConfig,
    VisionExpertConfig,
)

T = TypeVar("T")

DINOV2 = {
    "s": (384, 6, False),
    "b": (768, 12, False),
    "l": (1024, 16, False),
    "g": (1536, 24, True),
}
"""Letter of `dinov2_vit?14` -> width, heads, whether its MLP is a SwiGLU."""
DINOV2_TABLE = 518
"""Side in px for which the released DINOv2 has its table of positions (37 x 37 patches of 14)."""
ACTORS = {"DiT-S": (384, 6, 4), "DiT-B": (768, 12, 12), "DiT-L": (1024, 24, 16)}
"""Width, depth, heads."""
BASE_FOLDER = "./base_vlm"
WHOLE_INSTRUCTION = "{instruction}"
_TYPE = ("dtype", "torch_dtype")
_BOOKKEEPING = {
    *_TYPE,
    "_name_or_path",
    "architectures",
    "chunk_size_feed_forward",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "layer_types",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "transformers_version",
}
"""What transformers adds to every configuration, or derives from the rest of it."""


def policy_config(
    run: Mapping[str, Any], base: Mapping[str, Any], names: Iterable[str], source: str
) -> PolicyConfig:
    """Our configuration of a released run.

    run: its configuration; base: the base model's config.json; names: what its checkpoint's entries
    are called, from which DINOv2's blocks are counted; source: for messages. Raises `ConfigError`
    naming the entry at fault.
    """
    names = list(names)
    data = _section(run, "datasets.vla_data")
    views = _views(data)
    width, depth, heads = _actor_size(run, source)
    qwen = qwen_config(base, source)
    hidden = qwen["text_config"]["hidden_size"]
    qformer = "framework.layer_qformer"
    return PolicyConfig(
        planner=PlannerConfig(qwen, _image_size(data), native_answers=True, views=0),
        vision=VisionExpertConfig(_dinov2(run, names, source), views=0),
        qformer=QFormerConfig(
            start_layer=_entry(run, f"{qformer}.qformer_start_layer", int, source),
            end_layer=_entry(run, f"{qformer}.qformer_end_layer", int, source),
            num_query_tokens=_entry(run, f"{qformer}.num_query_tokens", int, source),
            input_dim=_entry(run, f"{qformer}.input_dim", int, source, hidden),
            hidden_dim=_qformer_width(run, source, width),
        ),
        actor=ActorConfig(
            hidden_dim=width,
            depth=depth,
            num_heads=heads,
            action_dim=_entry(run, "framework.action_model.action_dim", int, source, 7),
            chunk_size=1
            + _entry(run, "framework.action_model.future_action_window_size", int, source),
            history=any("history_embedder" in name for name in names),
        ),
        prompt=data.get("CoT_prompt") or WHOLE_INSTRUCTION,
        cameras=("front", "wrist")[:views] if views < 3 else tuple(data["obs"]),
        name=str(run.get("run_id") or "internvla-m1"),
    )


def run_config(config: PolicyConfig, previous: Mapping[str, Any] | None) -> dict[str, Any]:
    """The released configuration of ours; on top of the `previous` one, where it came from one.

    Raises `ConfigError` where the released layout has no place for something.
    """
    unfit = misfits(config)
    if unfit:
        raise ConfigError(f"the released layout has no place for {'; '.join(unfit)}")
    run = copy.deepcopy(dict(previous or {}))
    width, actor = config.qformer.hidden_dim, config.actor
    letter = next(k for k, v in DINOV2.items() if v[0] == config.vision.dinov2["hidden_size"])
    kind = next(k for k, v in ACTORS.items() if v[0] == actor.hidden_dim)
    spellings = [
        k for k in ("ouptput_dim", "output_dim") if k in _section(run, "framework.layer_qformer")
    ]
    _set(run, "framework.framework_py", "InternVLA-M1", keep=True)
    _set(run, "framework.qwenvl.base_vlm", BASE_FOLDER, keep=True)
    _set(run, "framework.qwenvl.attn_implementation", "flash_attention_2", keep=True)
    _set(run, "framework.qwenvl.vl_hidden_dim", config.qformer.input_dim)
    _set(run, "framework.dino.dino_backbone", f"dinov2_vit{letter}14")
    _set(run, "framework.layer_qformer.qformer_start_layer", config.qformer.start_layer)
    _set(run, "framework.layer_qformer.qformer_end_layer", config.qformer.end_layer)
    _set(run, "framework.layer_qformer.num_query_tokens", config.qformer.num_query_tokens)
    _set(run, "framework.layer_qformer.input_dim", config.qformer.input_dim)
    # The released code reads the misspelt one.
    for spelling in spellings or ("ouptput_dim", "output_dim"):
        _set(run, f"framework.layer_qformer.{spelling}", width)
    _set(run, "framework.layer_qformer.grad_scale", 0.5, keep=True)
    _set(run, "framework.action_model.action_model_type", kind)
    _set(run, "framework.action_model.action_hidden_dim", width)
    _set(run, "framework.action_model.action_dim", actor.action_dim)
    _set(run, "framework.action_model.future_action_window_size", actor.chunk_size - 1)
    _set(run, "framework.action_model.past_action_window_size", 0, keep=True)
    _set_inputs(run, config)
    return run


def misfits(config: PolicyConfig) -> list[str]:
    """What of a policy the released layout can't say, in words."""
    actor, dino = config.actor, dict(config.vision.dinov2)
    dino_sizes = (
        dino.get("hidden_size"),
        dino.get("num_attention_heads"),
        bool(dino.get("use_swiglu_ffn", False)),
    )
    grid = (dino.get("patch_size", 14), dino.get("image_size"))
    return [
        what
        for what, present in (
            ("a table of image positions in the planner", config.planner.absolute_positions),
            ("image points given to the actor", actor.num_points),
            ("the robot's state given to the actor", actor.state_dim),
            ("a drafted chunk", actor.draft_scale),
            (f"{actor.diffusion_steps} diffusion steps", actor.diffusion_steps != 100),
            (f"a QFormer with {config.qformer.num_heads} heads", config.qformer.num_heads != 8),
            (
                f"{actor.depth} actor blocks {actor.hidden_dim} wide with {actor.num_heads} heads",
                (actor.hidden_dim, actor.depth, actor.num_heads) not in ACTORS.values(),
            ),
            (
                "a vision expert other than DINOv2 ViT-S/B/L/g with patches of 14 px and a 37 x 37 "
                "table",
                dino_sizes not in DINOV2.values() or grid != (14, DINOV2_TABLE),
            ),
            ("another system prompt", config.planner.system_prompt != PlannerConfig.system_prompt),
        )
        if present
    ]


def qwen_config(base: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A base model's config.json, flat as once published or nested, as one that is nested.

    What depends on the installed transformers or says nothing about the network is left out.
    """
    if base.get("model_type", "qwen2_5_vl") != "qwen2_5_vl":
        raise ConfigError(f"{source}: the base model is no Qwen2.5-VL but {base['model_type']!r}")
    try:
        values = Qwen2_5_VLConfig(**_without(base, _TYPE)).to_dict()
    except (TypeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{source}: the base model's configuration is unusable: {error}"
        ) from error
    return _without(values, _BOOKKEEPING)


def base_config(qwen: Mapping[str, Any], previous: Mapping[str, Any] | None) -> dict[str, Any]:
    """The config.json of the base folder: the one it came from, where that says the same."""
    if previous is not None and qwen_config(previous, "the base model") == dict(qwen):
        return dict(previous)
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **copy.deepcopy(dict(qwen)),
    }


def bounded_by_extremes(run: Mapping[str, Any]) -> bool:
    """Whether the run's actions were scaled by min and max, as LIBERO's are, not by quantiles."""
    return "libero" in str(_section(run, "datasets.vla_data").get("data_mix", "")).lower()


def _image_size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height to which views are resized, one number standing for both."""
    size = data.get("image_size")
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _views(data: Mapping[str, Any]) -> int:
    """Views a sample. LIBERO runs have two (scene and wrist), whatever their `obs` says."""
    if "libero" in str(data.get("data_mix", "")).lower():
        return 2
    listed = data.get("obs")
    return len(listed) if isinstance(listed, list) and listed else 1


def _dinov2(run: Mapping[str, Any], names: list[str], source: str) -> dict[str, Any]:
    backbone = _entry(run, "framework.dino.dino_backbone", str, source)
    match = re.fullmatch(r"dinov2_vit([sblg])14", backbone)
    if match is None:
        known = ", ".join(f"dinov2_vit{letter}14" for letter in DINOV2)
        raise ConfigError(f"{source}: unknown dino_backbone {backbone!r}; known: {known}")
    width, heads, swiglu = DINOV2[match[1]]
    blocks = {m[1] for n in names if (m := re.search(r"dino_encoder\.body\.blocks\.(\d+)\.", n))}
    if not blocks:
        raise ConfigError(f"{source}: the checkpoint has no block of dino_encoder.body")
    return {
        "hidden_size": width,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": heads,
        "mlp_ratio": 4,
        "image_size": DINOV2_TABLE,
        "patch_size": 14,
        "layerscale_value": 1.0,
        "use_swiglu_ffn": swiglu,
    }


def _actor_size(run: Mapping[str, Any], source: str) -> tuple[int, int, int]:
    kind = _entry(run, "framework.action_model.action_model_type", str, source)
    if kind not in ACTORS:
        raise ConfigError(f"{source}: unknown action_model_type {kind!r}; known: {sorted(ACTORS)}")
    return ACTORS[kind]


def _qformer_width(run: Mapping[str, Any], source: str, default: int) -> int:
    section = "framework.layer_qformer"
    correct = _entry(run, f"{section}.output_dim", int, source, default)
    return _entry(run, f"{section}.ouptput_dim", int, source, correct)


def _set_inputs(run: dict[str, Any], config: PolicyConfig) -> None:
    data = _section(run, "datasets.vla_data")
    size = config.planner.image_size
    if size is not None or "image_size" in data:
        _set(run, "datasets.vla_data.image_size", None if size is None else list(size))
    if config.prompt != WHOLE_INSTRUCTION:
        _set(run, "datasets.vla_data.CoT_prompt", config.prompt)
    elif data.get("CoT_prompt"):
        del run["datasets"]["vla_data"]["CoT_prompt"]


def _section(run: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """The mapping under a dotted path; empty where there is none."""
    value: Any = run
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _entry(
    run: Mapping[str, Any], path: str, kind: type[T], source: str, default: T | None = None
) -> T:
    section, _, key = path.rpartition(".")
    value = _section(run, section).get(key, default)
    if value is None:
        raise ConfigError(f"{source}: {path} is missing")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{source}: {path} must be of type {kind.__name__}, not {value!r}")
    return value


def _set(run: dict[str, Any], path: str, value: Any, keep: bool = False) -> None:
    """Set the entry at a dotted path; with `keep`, only where there is none."""
    *sections, key = path.split(".")
    for section in sections:
        run = run.setdefault(section, {})
    if not (keep and key in run):
        run[key] = value


def _without(values: Mapping[str, Any], keys: Container[str]) -> dict[str, Any]:
    """A nested mapping without the entries of these names."""
    return {
        k: _without(v, keys) if isinstance(v, Mapping) else v
        for k, v in values.items()
        if k not in keys
    }
