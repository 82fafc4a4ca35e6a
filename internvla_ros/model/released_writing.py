"""Writing the released layout, so that the released code, too, can run a policy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
import yaml
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from internvla_ros.data.normalisation import (
    DatasetStatistics,
    parse_statistics,
    plain_statistics,
)
from internvla_ros.model.checkpoint import (
    PROCESSOR_FILES,
    Checkpoint,
    copy_files,
    deferred,
)
from internvla_ros.model.config import ConfigError, PolicyConfig
from internvla_ros.model.released import (
    BASE,
    CHECKPOINTS,
    CONFIGS,
    STATISTICS,
    SUMMARY,
    Origin,
    released_state_dict_shapes,
)
from internvla_ros.model.released_config import (
    base_config,
    bounded_by_extremes,
    policy_config,
    run_config,
)
from internvla_ros.model.released_names import WRAPPER, Family, family_of, to_ours
from internvla_ros.model.stored import CheckpointError
from internvla_ros.model.weights import tied_entries
from internvla_ros.model.writing import written_whole

_EMBEDDING = "planner.vlm.model.language_model.embed_tokens.weight"
_LIKE_ALL = "actor.dit.x_embedder.weight"


def save_released(
    folder: Path,
    network: nn.Module,
    config: PolicyConfig,
    tokenizer: PreTrainedTokenizerBase,
    statistics: Mapping[str, DatasetStatistics],
    *,
    source: Checkpoint | None = None,
    step: int = 0,
    family: Family | None = None,
) -> None:
    """Write a network as a released run; arguments as of `write_released`.

    source: the checkpoint that the network came from, if any; what it says that the network does
    not go along. Raises `CheckpointError` where the released layout has no place for something.
    """
    ties = tied_entries(network)
    tensors = {k: deferred(v) for k, v in network.state_dict().items() if k not in ties}

    def base_files(base: Path) -> None:
        tokenizer.save_pretrained(str(base))
        if source is not None:
            copy_files(source.base_folder, base, PROCESSOR_FILES)

    origin = None if source is None else source.origin
    write_released(folder, config, statistics, tensors, base_files, origin, step, family)


def write_released(
    folder: Path,
    config: PolicyConfig,
    statistics: Mapping[str, DatasetStatistics],
    tensors: Mapping[str, Callable[[], Tensor]],
    base_files: Callable[[Path], None],
    origin: Origin | None = None,
    step: int = 0,
    family: Family | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write a released run, whole or not at all.

    tensors: by our names; base_files: writes tokenizer and processor files into a folder; origin:
    of the run that the policy came from, on top of which the configuration is written; family: of
    the names, None: as in the origin.
    """
    try:
        run = _run_config(config, origin)
        base = base_config(config.planner.qwen, None if origin is None else origin.base)
        content = _statistics(statistics, run, origin)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    state = _state_dict(config, tensors, _names(config, origin, family))
    with written_whole(folder) as temporary:
        (temporary / CONFIGS[0]).write_text(yaml.safe_dump(run, sort_keys=False))
        _write_json(temporary / CONFIGS[1], run)
        _write_json(temporary / STATISTICS, content)
        (temporary / SUMMARY).write_text(json.dumps({"steps": step}) + "\n")
        (temporary / BASE).mkdir()
        base_files(temporary / BASE)
        _write_json(temporary / BASE / "config.json", base)
        (temporary / CHECKPOINTS).mkdir()
        file = temporary / CHECKPOINTS / f"steps_{step}_pytorch_model.pt"
        with file.open("wb") as stream:
            torch.save(state, cast("IO[bytes]", _Counted(stream, progress)))


class _Counted:
    """A file that reports what is written to it."""

    def __init__(self, file: BinaryIO, progress: Callable[[int], object] | None) -> None:
        self._file = file
        self._progress = progress

    def write(self, data: Any) -> int:
        count = self._file.write(data)
        if self._progress is not None:
            self._progress(count)
        return count

    def flush(self) -> None:
        self._file.flush()


def _run_config(config: PolicyConfig, origin: Origin | None) -> dict[str, Any]:
    """The run's configuration: as it was, to the letter, where it still says the same."""
    if origin is None:
        return run_config(config, None)
    if policy_config(origin.config, origin.base, origin.names, "the origin") == config:
        return dict(origin.config)
    return run_config(config, origin.config)


def _names(config: PolicyConfig, origin: Origin | None, family: Family | None) -> list[str]:
    """What the entries are to be called, in order: as in the origin, or of the family asked for."""
    if origin is None or family is not None:
        return list(released_state_dict_shapes(config, family or "new"))
    expected = released_state_dict_shapes(config, family_of(origin.names))
    same = {name.removeprefix(WRAPPER) for name in origin.names} == set(expected)
    return list(origin.names if same else expected)


def _state_dict(
    config: PolicyConfig, tensors: Mapping[str, Callable[[], Tensor]], names: list[str]
) -> dict[str, Tensor]:
    family = family_of(names)
    shapes = released_state_dict_shapes(config, family)
    embedding = tensors[_EMBEDDING]()
    state: dict[str, Tensor] = {}
    for name in names:
        plain = name.removeprefix(WRAPPER)
        ours = to_ours(plain, family)
        if _EMBEDDING in ours or (plain.endswith("lm_head.weight") and ours[0] not in tensors):
            state[name] = embedding  # tied: stored once, listed twice
        elif all(part in tensors for part in ours):
            parts = [tensors[part]() for part in ours]
            state[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
        elif "history_embedder" in plain:  # never used, but the released code has a place for it
            state[name] = torch.zeros(shapes[plain], dtype=tensors[_LIKE_ALL]().dtype)
        else:
            raise CheckpointError(f"the policy has no {' or '.join(ours)}")
    return state


def _statistics(
    statistics: Mapping[str, DatasetStatistics], run: Mapping[str, Any], origin: Origin | None
) -> dict[str, Any]:
    """What the file is to hold: a block as it came, where it still says the same."""
    extremes = bounded_by_extremes(run)
    before = (
        {} if origin is None else parse_statistics(origin.statistics, "the origin's statistics")
    )
    content: dict[str, Any] = {}
    for name, dataset in statistics.items():
        if (dataset.action.bounds == "extremes") != extremes:
            raise ConfigError(
                f"the released layout scales by {'min and max' if extremes else 'q01 and q99'} "
                f"here, and the statistics of {name} do not"
            )
        block = plain_statistics(dataset)
        block["action"].pop("bounds", None)
        unchanged = name in before and plain_statistics(before[name]) == block
        content[name] = origin.statistics[name] if origin is not None and unchanged else block
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
