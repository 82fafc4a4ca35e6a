"""What can be found wrong before any process is started."""

from __future__ import annotations

import json
from pathlib import Path

from internvla_ros.model.config import PolicyConfig
from internvla_ros.resources import DEFAULT_CHECKPOINT, ResourceError, resource
from internvla_ros.robots.embodiment import Embodiment, load_embodiment

_FILES = ("config.json", "model.safetensors", "dataset_statistics.json", "tokenizer.json")
_SERVER_PATIENCE = 5.0  # s for a policy server to answer


class PreflightError(RuntimeError):
    """The graph would not come up."""


def find_checkpoint(given: str) -> Path:
    """The checkpoint's folder, absolute: the one given, or the one that ships.

    Raises:
        PreflightError: there is none.
    """
    if given:
        path = Path(given).expanduser()
        return path.absolute() if path.exists() or "/" not in given else _fetched(given)
    try:
        return resource(DEFAULT_CHECKPOINT)
    except ResourceError as error:
        raise PreflightError(
            "no checkpoint ships with this build; give one with --checkpoint DIR"
        ) from error


def _fetched(name: str) -> Path:
    """The local copy of a repository on the Hugging Face hub; any other path as it is."""
    from internvla_ros.model.hub import CheckpointError, download, is_repository

    if not is_repository(name):
        return Path(name).expanduser().absolute()
    try:
        return download(name)
    except CheckpointError as error:
        raise PreflightError(
            f"there is no folder {name}, and the hub does not give it: {error}"
        ) from error


def check(robot: str, checkpoint: Path) -> tuple[Embodiment, PolicyConfig]:
    """The robot and the policy's configuration, which must fit each other.

    Reads no weights, only that their file is whole. A checkpoint in the released layout, or in
    shards, is read as the policy itself reads it.

    Raises:
        EmbodimentError: the robot is unknown or its file is wrong.
        ConfigError: the policy's configuration is wrong.
        PreflightError: the checkpoint is missing, incomplete or corrupt, or needs other cameras.
    """
    embodiment = load_embodiment(robot)
    if not checkpoint.exists():
        raise PreflightError(f"no checkpoint folder at {checkpoint}")
    if checkpoint.suffix == ".pt" or (checkpoint / "checkpoints").is_dir() or _sharded(checkpoint):
        config = _read_whole(checkpoint)
        _check_cameras(embodiment, config, f"in {checkpoint}")
        return embodiment, config
    missing = [name for name in _FILES if not (checkpoint / name).is_file()]
    if missing:
        raise PreflightError(f"{checkpoint} is not a checkpoint: it lacks {', '.join(missing)}")
    config = PolicyConfig.from_file(checkpoint / "config.json")
    _check_safetensors(checkpoint / "model.safetensors")
    for name in ("dataset_statistics.json", "tokenizer.json"):
        _check_json(checkpoint / name)
    _check_cameras(embodiment, config, f"in {checkpoint}")
    return embodiment, config


def check_policy(robot: str, policy: str, checkpoint: str) -> str:
    """Check the robot against the policy that is to move it, wherever that runs.

    Args:
        robot: name or path.
        policy: "local" or a server's address.
        checkpoint: folder of a local policy; "": the one that ships.

    Returns:
        The absolute path of the local policy's folder, "" for a remote one.

    Raises:
        PolicyClientError: the server cannot be reached, or is none.
        Others as `check` does.
    """
    if policy == "local":
        folder = find_checkpoint(checkpoint)
        check(robot, folder)
        return str(folder)
    if checkpoint:
        raise PreflightError(f"the server at {policy} has its own checkpoint: give one of the two")
    from internvla_ros.serving.client import PolicyClient

    with PolicyClient(policy, patience=_SERVER_PATIENCE) as client:
        _check_cameras(load_embodiment(robot), client.config, f"at {policy}")
    return ""


def _sharded(checkpoint: Path) -> bool:
    return (checkpoint / "model.safetensors.index.json").is_file()


def _read_whole(checkpoint: Path) -> PolicyConfig:
    """The configuration, after everything but the weights was read; takes seconds to import."""
    from internvla_ros.model.checkpoint import CheckpointError, read_checkpoint

    try:
        return read_checkpoint(checkpoint).config
    except CheckpointError as error:
        raise PreflightError(str(error)) from error


def _check_cameras(embodiment: Embodiment, config: PolicyConfig, where: str) -> None:
    cameras = [camera.name for camera in embodiment.cameras]
    lacking = [name for name in config.cameras if name not in cameras]
    if lacking:
        raise PreflightError(
            f"the policy {where} needs camera {', '.join(lacking)}; robot "
            f"{embodiment.name} has {', '.join(cameras)}"
        )


def _check_safetensors(path: Path) -> None:
    """That the file is as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise PreflightError(f"{path} is corrupt: it is cut short in its header")
        try:
            header = json.loads(file.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PreflightError(f"{path} is corrupt: its header cannot be read") from error
    if size != 8 + length + max(ends, default=0):
        raise PreflightError(
            f"{path} is corrupt: {size} bytes, its header says {8 + length + max(ends, default=0)}"
        )


def _check_json(path: Path) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PreflightError(f"{path} is corrupt: {error}") from error
