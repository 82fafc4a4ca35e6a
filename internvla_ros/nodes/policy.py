"""What planner_node and actor_node share: their part of a policy, here or remote, and its views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from internvla_ros.model.config import PolicyConfig
from internvla_ros.msg import CameraViews
from internvla_ros.nodes.converters import ConversionError, image_to_rgb
from internvla_ros.serving.local import ActorPart, LocalActor, LocalPlanner, PlannerPart
from internvla_ros.serving.protocol import is_remote

if TYPE_CHECKING:
    from internvla_ros.serving.client import PolicyClient

LOCAL = "local"
_REPLY_TIMEOUT = 10.0  # s; the arm has long come to rest when it is over
_START_PATIENCE = 30.0  # s for the server to come up, which may have been started just before


class PolicyError(RuntimeError):
    """There is no policy to run."""


def load_planner(
    policy: str, checkpoint: str, device: str, tell: Callable[[str], None]
) -> PlannerPart:
    """The planner of a policy server, or of a checkpoint folder and no weight of the actor.

    Args:
        policy: "local", or a server's address (ws://host:port).
        checkpoint, device: of a local one.
        tell: takes a line about how far it is.

    Raises:
        PolicyError: no policy is named.
        CheckpointError: the checkpoint cannot be loaded.
        PolicyClientError: the server cannot be reached, or is none.
    """
    if policy != LOCAL:
        return _remote(policy, tell)
    tell("importing PyTorch")
    from internvla_ros.model.planner import Planner

    loaded = Planner.from_pretrained(_named(checkpoint), device, watch=_percentage(tell))
    return LocalPlanner(loaded)


def load_actor(policy: str, checkpoint: str, device: str, tell: Callable[[str], None]) -> ActorPart:
    """The actor of a policy server, or of a checkpoint folder; see `load_planner`."""
    if policy != LOCAL:
        return _remote(policy, tell)
    tell("importing PyTorch")
    from internvla_ros.model.actor import Actor

    return LocalActor(Actor.from_pretrained(_named(checkpoint), device, watch=_percentage(tell)))


def release(part: PlannerPart | ActorPart) -> None:
    """End the connection of a remote planner or actor; a local one has nothing to be ended."""
    close = getattr(part, "close", None)
    if callable(close):
        close()


def _percentage(tell: Callable[[str], None]) -> Callable[[float], None]:
    return lambda share: tell(f"loading weights {100.0 * share:.0f} %")


def statistics_for(datasets: Sequence[str], asked: str, usual: str) -> str | None:
    """Which of a policy's statistics un-normalise its actions; None: the only ones it has.

    Args:
        datasets: names of all there are.
        asked: the user's choice, "" for none.
        usual: the robot's own.

    Raises:
        PolicyError: what was asked for is not there, or there is no telling which.
    """
    known = ", ".join(datasets)
    if asked and asked not in datasets:
        raise PolicyError(f"parameter 'unnorm_key' is '{asked}'; the policy has {known}")
    if asked or usual in datasets:
        return asked or usual
    if len(datasets) == 1:
        return None
    raise PolicyError(
        f"the policy has statistics for {known}, none of them the robot's ({usual}): choose one "
        "with parameter 'unnorm_key'"
    )


def _named(checkpoint: str) -> str:
    if not checkpoint:
        raise PolicyError("parameter 'checkpoint' is empty; give the folder of a policy")
    return checkpoint


def _remote(policy: str, tell: Callable[[str], None]) -> PolicyClient:
    """A client that knows its policy, and from now on never waits for a lost server."""
    if not is_remote(policy):
        raise PolicyError(f"parameter 'policy' is '{policy}'; give 'local' or ws://host:port")
    tell(f"asking {policy}")
    from internvla_ros.serving.client import PolicyClient

    client = PolicyClient(policy, timeout=_REPLY_TIMEOUT, patience=_START_PATIENCE)
    assert client.config is not None
    client.ask_for_config()
    client.patience = 0.0
    return client


def views_for(config: PolicyConfig, views: CameraViews) -> list[NDArray[np.uint8]]:
    """The pictures, uint8 [h, w, 3] RGB, of the policy's cameras in its order.

    Raises:
        ConversionError: a camera is missing, or an image cannot be read.
    """
    names = list(views.names)
    missing = [name for name in config.cameras if name not in names]
    if missing:
        raise ConversionError(
            f"camera_views lacks {', '.join(missing)}, which the policy needs; "
            f"it has {', '.join(names) or 'no cameras'}"
        )
    return [image_to_rgb(views.images[names.index(name)]) for name in config.cameras]
