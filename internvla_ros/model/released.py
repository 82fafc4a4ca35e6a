"""The released layout: a training run's folder, read as it is and written again.

    <run>/config.yaml, config.json              what was trained, and how
    <run>/dataset_statistics.json
    <run>/checkpoints/steps_N_pytorch_model.pt  a state dict

The language model's configuration and tokenizer are not in it: the run names the base model that
they come from, a folder or a hub repository. Written by this package, a run carries them along in
`<run>/base_vlm`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from internvla_ros.data.normalisation import DatasetStatistics, parse_statistics
from internvla_ros.model import released_names
from internvla_ros.model.config import ConfigError, PolicyConfig
from internvla_ros.model.dit import DiT
from internvla_ros.model.hub import SMALL_FILES, download
from internvla_ros.model.pickles import read_pickle
from internvla_ros.model.qformer import LayerwiseQFormer
from internvla_ros.model.released_config import bounded_by_extremes, policy_config
from internvla_ros.model.released_names import WRAPPER, Family
from internvla_ros.model.stored import CheckpointError, StoredTensor
from internvla_ros.model.vision_expert import VisionExpert
from internvla_ros.model.weights import WeightsOnMeta, WeightSource

CONFIGS = ("config.yaml", "config.json")
STATISTICS = "dataset_statistics.json"
SUMMARY = "summary.jsonl"
CHECKPOINTS = "checkpoints"
BASE = "base_vlm"


@dataclass(frozen=True)
class Origin:
    """What a released run says beyond our configuration, so that it can be written again."""

    config: Mapping[str, Any]
    """Its whole configuration."""
    base: Mapping[str, Any]
    """The base model's config.json."""
    statistics: Mapping[str, Any]
    """Its statistics as they are in the file."""
    names: tuple[str, ...]
    """What its checkpoint's entries are called, in stored order."""
    step: int
    """Training steps, as in the checkpoint's file name; 0 where it has none."""

    def to_json(self) -> str:
        """As indented JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_file(cls, path: Path) -> Origin | None:
        """Read what `to_json` wrote; None where there is no such file."""
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text())
            return cls(**{**values, "names": tuple(values["names"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be used: {error}") from error


@dataclass(frozen=True)
class ReleasedRun:
    """A released run that was read; its weights are not loaded."""

    folder: Path
    base_folder: Path
    config: PolicyConfig
    statistics: Mapping[str, DatasetStatistics]
    weights: WeightSource
    origin: Origin


def is_released(path: Path) -> bool:
    """Whether `path` is a run's folder, or a state dict inside one."""
    if path.suffix == ".pt":
        return path.is_file()
    return path.is_dir() and any((path / CHECKPOINTS).glob("*.pt"))


def read_released(path: Path) -> ReleasedRun:
    """Read a run's folder (its newest checkpoint) or one checkpoint file of it.

    Raises:
        CheckpointError: what is missing, unreadable or contradictory, and where.
    """
    file = path if path.suffix == ".pt" else newest(path)
    folder = file.resolve().parent.parent
    run, described = _read_config(folder)
    base_folder = _base_folder(folder, run, described)
    base = _read_json(base_folder / "config.json")
    stored = read_pickle(file)
    try:
        config = policy_config(run, base, stored, str(described))
        raw = _read_json(folder / STATISTICS)
        statistics = released_statistics(raw, run, str(folder / STATISTICS))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    origin = Origin(run, base, raw, tuple(stored), steps(file))
    weights = released_source(file, stored)
    return ReleasedRun(folder, base_folder, config, statistics, weights, origin)


def newest(run: Path) -> Path:
    """The checkpoint of a run with the most steps."""
    files = sorted((run / CHECKPOINTS).glob("*.pt"), key=lambda path: (steps(path), path.name))
    if not files:
        raise CheckpointError(f"{run / CHECKPOINTS} has no checkpoint (steps_N_pytorch_model.pt)")
    return files[-1]


def steps(file: Path) -> int:
    """N of steps_N_pytorch_model.pt; 0 for another name."""
    match = re.match(r"steps_(\d+)", file.name)
    return int(match[1]) if match else 0


def released_source(path: Path, stored: Mapping[str, StoredTensor]) -> WeightSource:
    """A released state dict by our names; what the release does not have keeps its own name."""
    wrapped = bool(stored) and all(name.startswith(WRAPPER) for name in stored)
    family = released_names.family_of(stored)
    entries: dict[str, StoredTensor] = {}
    for raw, tensor in stored.items():
        ours = released_names.to_ours(raw.removeprefix(WRAPPER) if wrapped else raw, family)
        entries |= _split(ours, tensor) if ours else {raw: tensor}

    def name_in_file(name: str) -> str:
        released = released_names.to_released(name, family)
        return name if released is None else f"{WRAPPER if wrapped else ''}{released}"

    return WeightSource(path, entries, name_in_file)


def released_state_dict_shapes(
    config: PolicyConfig, family: Family = "new"
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released state dict of a policy, in stored order.

    The real size takes no memory and well under a second.
    """
    whole = replace(config, actor=replace(config.actor, history=True))
    shapes: dict[str, tuple[int, ...]] = {}
    for ours, tensor in hollow_network(whole).state_dict().items():
        name = released_names.to_released(ours, family)
        if name is None:
            raise CheckpointError(f"the released layout has no place for {ours}")
        shape = tuple(tensor.shape)
        before = shapes.get(name)
        shapes[name] = shape if before is None else (before[0] + shape[0], *shape[1:])
    return {name: shapes[name] for name in released_names.in_stored_order(shapes, family)}


def hollow_network(config: PolicyConfig) -> nn.Module:
    """The released policy's layers under the policy's names, without memory or tokenizer."""
    network, planner, actor = nn.Module(), nn.Module(), nn.Module()
    qwen = Qwen2_5_VLConfig(**dict(config.planner.qwen))
    with WeightsOnMeta():
        planner.vlm = Qwen2_5_VLForConditionalGeneration(qwen)
        actor.vision_expert = VisionExpert(config.vision, config.qformer.input_dim)
        actor.qformer = LayerwiseQFormer(config.qformer)
        tokens, width = config.qformer.num_query_tokens, config.qformer.hidden_dim
        actor.dit = DiT(config.actor, tokens, width)
    network.planner, network.actor = planner, actor
    return network


def _split(names: tuple[str, ...], tensor: StoredTensor) -> dict[str, StoredTensor]:
    """A tensor's rows shared out evenly; the last gets what is left over (and does not fit)."""
    if len(names) == 1:
        return {names[0]: tensor}
    rows = tensor.shape[0] if tensor.shape else 0
    step = rows // len(names)
    ends = [*(step * (index + 1) for index in range(len(names) - 1)), rows]
    return {
        name: tensor.rows(step * index, end)
        for index, (name, end) in enumerate(zip(names, ends, strict=True))
    }


def released_statistics(
    content: Mapping[str, Any], run: Mapping[str, Any], source: str
) -> dict[str, DatasetStatistics]:
    """The statistics of a run, scaling as its configuration says; raises `StatisticsError`."""
    statistics = parse_statistics(content, source)
    if not bounded_by_extremes(run):
        return statistics
    return {
        name: replace(block, action=replace(block.action, bounds="extremes"))
        for name, block in statistics.items()
    }


def _read_config(folder: Path) -> tuple[dict[str, Any], Path]:
    """The run's configuration and the file it was read from; YAML, as the release does, first."""
    path = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(
            f"{folder} is no released run: it has neither {' nor '.join(CONFIGS)}"
        )
    if path.suffix == ".json":
        return _read_json(path), path
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no configuration")
    return content, path


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return content


def _base_folder(folder: Path, run: Mapping[str, Any], described: Path) -> Path:
    """Where the base model's small files are: a local folder first, then the hub."""
    try:
        name = str(run["framework"]["qwenvl"]["base_vlm"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{described}: framework.qwenvl.base_vlm is missing") from error
    places = [folder / name, folder.parent / name, Path(name), folder / BASE]
    for place in places:
        if (place / "config.json").is_file():
            return place
    repository = _base_repository(name)
    if repository is not None:
        return download(repository, SMALL_FILES)
    looked = ", ".join(dict.fromkeys(str(place) for place in places))
    raise CheckpointError(
        f"{described}: the base model {name!r} is at none of {looked}; put its config.json and "
        f"tokenizer files into {folder / BASE}"
    )


def _base_repository(name: str) -> str | None:
    """The hub repository of a base model, also where a run names its trainer's local copy of it."""
    last = Path(name).name
    if last.startswith("Qwen2.5-VL-"):
        return f"Qwen/{last}"
    return name if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) else None
