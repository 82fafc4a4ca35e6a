"""Checkpoints on the Hugging Face hub: a local copy of what is needed of a repository."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from internvla_ros.model.stored import CheckpointError

SMALL_FILES = ("*.json", "*.txt", "*.jinja")
"""Configuration, tokenizer and processor of a base model, whose weights are never needed."""
_STATE_DICT = re.compile(r"checkpoints/steps_(\d+)_pytorch_model\.pt")


def is_repository(name: str) -> bool:
    """Whether `name` reads as `owner/name`."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None


def download(repository: str, patterns: Sequence[str] | None = None) -> Path:
    """The folder of a repository's local copy, limited to files of these patterns.

    Without patterns, of several training steps only the newest state dict is fetched. What was
    fetched before needs no network. Raises `CheckpointError`.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    older: list[str] = []
    if patterns is None:
        # Offline, the local copy below is what there is.
        with suppress(HfHubHTTPError, OfflineModeIsEnabled, OSError):
            older = older_steps(HfApi().list_repo_files(repository))
    try:
        allowed = None if patterns is None else list(patterns)
        return Path(
            snapshot_download(repository, allow_patterns=allowed, ignore_patterns=older or None)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{repository} is neither a local folder nor to be had from the Hugging Face hub: "
            f"{error}"
        ) from error


def older_steps(files: Sequence[str]) -> list[str]:
    """State dicts of a released run other than the newest."""
    numbered = {int(m[1]): file for file in files if (m := _STATE_DICT.fullmatch(file))}
    newest = max(numbered, default=None)
    return [file for number, file in numbered.items() if number != newest]
