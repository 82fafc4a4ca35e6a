"""Carrying requests out on a policy, one after the other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from internvla_ros import __version__
from internvla_ros.serving.answers import answer_to_map
from internvla_ros.serving.fields import RequestError
from internvla_ros.serving.local import LocalActor, LocalPlanner
from internvla_ros.serving.protocol import (
    Act,
    Answer,
    Describe,
    Infer,
    Init,
    Look,
    Ping,
    Request,
    Reset,
    Sampling,
)

if TYPE_CHECKING:
    from internvla_ros.model.policy import Policy

SERVER = "internvla_ros"
"""How this package's server names itself in what it says first."""


class DeviceError(RequestError):
    """The policy is not on the device that was asked for; the words are the released server's."""


class PolicyService:
    """What one policy answers. Nothing is kept from one request to the next."""

    def __init__(self, policy: Policy, unnorm_key: str | None = None) -> None:
        """`unnorm_key`: of the statistics for requests that name none, where there are several.

        Raises:
            RequestError: there are no such statistics.
        """
        self._policy = policy
        self._unnorm_key = unnorm_key
        if unnorm_key is not None:
            self._key(Sampling(), scaled=True)
        self._config = policy.config
        self._planner = LocalPlanner(policy.planner)
        self._actor = LocalActor(policy.actor)
        self._description = {
            "config": policy.config.to_json(),
            "statistics": sorted(policy.statistics),
            "device": str(policy.device),
        }
        self.metadata = {
            "server": SERVER,
            "version": __version__,
            "policy": policy.config.name,
            "fingerprint": self._fingerprint(),
        }

    def carry_out(self, request: Request) -> Any:
        """The data of the answer, None where there is none.

        Raises:
            RequestError: this policy cannot do what is asked for.
            ValueError: as the policy raises it.
        """
        return self._HANDLERS[type(request)](self, request)

    def _fingerprint(self) -> str:
        """Tells policies apart by all that their users may rely on."""
        statistics = {
            name: [each.action.low.tolist(), each.action.high.tolist()]
            for name, each in sorted(self._policy.statistics.items())
        }
        text = json.dumps([self._description, statistics], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _nothing(self, request: Request) -> None:
        return None

    def _init(self, request: Init) -> None:
        if request.device.split(":")[0] != self._policy.device.type:
            raise DeviceError("Failed to initialize device")

    def _describe(self, request: Describe) -> dict[str, Any]:
        return self._description

    def _look(self, request: Look) -> dict[str, Any]:
        self._check_views(request.images, self._config.planner.views)
        drafts = self._usable(request.drafts)
        plan, answers = self._planner.look(
            request.images, request.instructions, trace=request.trace, drafts=drafts
        )
        return {
            "hidden_states": plan.hidden_states,
            "attention_mask": plan.attention_mask,
            "answers": [answer_to_map(answer) for answer in answers],
            "drafts": drafts,
        }

    def _answer(self, request: Answer) -> dict[str, Any]:
        answers = self._planner.answer(request.images, request.questions)
        return {"answers": [answer_to_map(answer) for answer in answers]}

    def _act(self, request: Act) -> dict[str, Any]:
        options = self._sampling(request.sampling)
        self._check_observation(request)
        if request.plan is not None:
            self._check_plan(request.plan.hidden_states)
            if self._config.actor.draft_words and not all(request.plan.instructions):
                raise RequestError("this actor reads words: give the plan's 'instructions'")
        if request.previous is not None:
            self._check_previous(request)
            options |= {"previous": request.previous, "frozen": request.frozen}
        actions = self._actor.act(
            request.images, request.plan, request.states, request.points, **options
        )
        return {"actions": actions}

    def _infer(self, request: Infer) -> dict[str, Any]:
        actor = self._config.actor
        scaled = request.first_step or actor.state_dim > 0
        options = self._sampling(request.sampling, scaled=scaled)
        missing = [
            f"'{name}' [B, {shape}]"
            for name, shape, count, given in (
                ("states", f"{actor.state_dim}", actor.state_dim, request.states),
                ("points", f"{actor.num_points}, 2", actor.num_points, request.points),
            )
            if count and given is None
        ]
        if missing:
            raise RequestError(
                f"policy '{self._config.name}' takes more than views: give {' and '.join(missing)} "
                "too, states in SI units and points in 0..1 of the first view (NaN: withheld)"
            )
        self._check_views(request.images, self._config.planner.views)
        self._check_observation(request)
        options |= {"states": request.states, "points": request.points}
        predict = self._policy.predict if request.first_step else self._policy.predict_normalised
        actions = predict(request.images, request.instructions, **options)
        if request.first_step:
            return {"raw_action": _step(actions[0, 0])}
        return {"normalized_actions": actions}

    def _sampling(self, sampling: Sampling, *, scaled: bool = True) -> dict[str, Any]:
        """Options of the policy's; `scaled`: actions or states go through the statistics."""
        most = self._config.actor.diffusion_steps
        if (sampling.num_ddim_steps or 1) > most:
            raise RequestError(f"'num_ddim_steps' must be in 1..{most}")
        return {**dataclasses.asdict(sampling), "unnorm_key": self._key(sampling, scaled)}

    def _key(self, sampling: Sampling, scaled: bool) -> str | None:
        """The name of the statistics to use; None where there is no choice, or no need."""
        known = sorted(self._policy.statistics)
        key = self._unnorm_key if sampling.unnorm_key is None else sampling.unnorm_key
        if key is None and (len(known) == 1 or not scaled):
            return None
        if key not in known:
            asked = "missing" if key is None else f"'{key[:64]}'"
            raise RequestError(f"'unnorm_key' is {asked}; it must be one of {', '.join(known)}")
        return key

    def _usable(self, drafts: dict[str, list[int]] | None) -> dict[str, list[int]]:
        """The drafts whose tokens exist: a wrong index would break a GPU's context for good."""
        tokens = len(self._policy.tokenizer)
        known = (drafts or {}).items()
        return {kind: ids for kind, ids in known if all(each < tokens for each in ids)}

    def _check_views(self, images: Any, wanted: int) -> None:
        if any(len(views) < wanted for views in images):
            raise RequestError(f"the planner takes {wanted} views of every sample")

    def _check_observation(self, request: Act | Infer) -> None:
        actor, batch = self._config.actor, len(request.images)
        if request.states is not None and actor.state_dim:
            _check_shape("states", request.states, (batch, actor.state_dim))
        if request.points is not None and actor.num_points:
            _check_shape("points", request.points, (batch, actor.num_points, 2))

    def _check_plan(self, hidden_states: NDArray[np.float32]) -> None:
        layers, width = hidden_states.shape[0], hidden_states.shape[-1]
        qformer = self._config.qformer
        wanted = qformer.end_layer - qformer.start_layer, qformer.input_dim
        if (layers, width) != wanted:
            raise RequestError(
                f"this policy's plans have {wanted[0]} layers of width {wanted[1]}, "
                f"this one {layers} of {width}: it is of another policy"
            )

    def _check_previous(self, request: Act) -> None:
        assert request.previous is not None
        batch, steps, width = request.previous.shape
        if (batch, width) != (len(request.images), self._config.actor.action_dim) or steps < 1:
            raise RequestError(
                f"'previous' must be [{len(request.images)}, K >= 1, "
                f"{self._config.actor.action_dim}], got {list(request.previous.shape)}"
            )
        if request.frozen > steps:
            raise RequestError(f"'frozen' must be in 0..{steps}")

    _HANDLERS: ClassVar[dict[type[Any], Callable[..., Any]]] = {
        Ping: _nothing,
        Reset: _nothing,
        Init: _init,
        Describe: _describe,
        Look: _look,
        Answer: _answer,
        Infer: _infer,
        Act: _act,
    }


def _check_shape(name: str, values: NDArray[np.float64], shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise RequestError(f"'{name}' must be {list(shape)}, got {list(values.shape)}")


def _step(action: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """One step [7] as closed-loop clients of the released server take it."""
    return {
        "xyz_delta": action[:3],
        "rotation_delta": action[3:6],
        "open_gripper": action[6:7],
    }
