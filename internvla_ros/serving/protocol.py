"""What may be asked of a policy server, and how it answers.

The requests without a slash in their type are those of the released server; one without any type
is told by its fields, and asks for an inference unless it names a device or a reset. Those that
begin with "internvla/" are this package's own: planner and actor, each by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from internvla_ros.serving.fields import Batch, Fields, Image, RequestError
from internvla_ros.serving.plan import PlanArrays, PlanArraysError

DEFAULT_PORT = 10093
DEFAULT_ID = "default"
OWN = "internvla/"
KEY_VARIABLE = "INTERNVLA_API_KEY"
"""Environment variable that holds the key, so that it stands in no command line."""
CLOSE_REASON = "Internal server error. Traceback included in previous frame."
INTERNAL_ERROR = 1011
"""The close code after an error."""

_MOST_STEPS = 1000
_LONGEST_ID = 256


@dataclass(frozen=True)
class Ping:
    """Is anybody there?"""


@dataclass(frozen=True)
class Init:
    """Make sure that the policy is on a device."""

    device: str


@dataclass(frozen=True)
class Reset:
    """An episode begins; without effect, as nothing is remembered from request to request."""


@dataclass(frozen=True)
class Describe:
    """Say what the policy is."""


@dataclass(frozen=True)
class Sampling:
    """How chunks are sampled, as `internvla_ros.model.actor.Actor.act` takes it."""

    seed: int = 0
    num_ddim_steps: int | None = None
    guidance: float | None = None
    sampler: str = "ddim"
    unnorm_key: str | None = None


@dataclass(frozen=True, eq=False)
class Infer:
    """Plan and act at once.

    Attributes:
        images: of every sample its views, uint8 [h, w, 3] RGB.
        instructions: as many.
        states: [B, state_dim] in SI units, for policies that take the robot's state.
        points: [B, num_points, 2] in 0..1 of the first view, NaN where withheld, for policies that
            take points.
        first_step: answer with the first step in SI units, as a request without type or batch
            expects, rather than with normalised chunks.
    """

    images: Batch
    instructions: tuple[str, ...]
    states: NDArray[np.float64] | None = None
    points: NDArray[np.float64] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    first_step: bool = False


@dataclass(frozen=True, eq=False)
class Look:
    """Where to act: `Planner.look`."""

    images: Batch
    instructions: tuple[str, ...]
    trace: bool = False
    drafts: dict[str, list[int]] | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """One question about each image: `Planner.answer`."""

    images: tuple[Image, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Act:
    """How to act under a plan: `Actor.act`."""

    images: Batch
    plan: PlanArrays | None
    states: NDArray[np.float64] | None = None
    points: NDArray[np.float64] | None = None
    sampling: Sampling = field(default_factory=Sampling)
    previous: NDArray[np.float64] | None = None
    frozen: int = 0


Request = Ping | Init | Reset | Describe | Infer | Look | Answer | Act


def is_remote(policy: str) -> bool:
    """Whether a policy's name is the address of a server rather than a folder."""
    return policy.startswith(("ws://", "wss://"))


def reply_type(request: Request) -> str:
    """What the answer to a request calls itself."""
    return _REPLIES[type(request)]


def request_id(message: Any) -> Any:
    """What the answer repeats, so that it is known for what it is.

    Raises:
        RequestError: it is neither a text nor a number.
    """
    given = message.get("request_id", DEFAULT_ID) if isinstance(message, Mapping) else DEFAULT_ID
    if not isinstance(given, str | int) or len(str(given)) > _LONGEST_ID:
        raise RequestError(f"'request_id' must be a text of at most {_LONGEST_ID} characters")
    return given


def is_own(message: Any) -> bool:
    """Whether a message is one of this package's own requests, right or wrong."""
    kind: Any = message.get("type") if isinstance(message, Mapping) else None
    return isinstance(kind, str) and kind.startswith(OWN)


def parse(message: Any) -> Request:
    """The request in a decoded message.

    Raises:
        RequestError: it asks for nothing that is known, or a field is wrong.
    """
    if not isinstance(message, Mapping):
        raise RequestError(f"a request is a map, not a {type(message).__name__}")
    kind = message.get("type")
    payload = message.get("payload")
    fields = Fields(message if payload is None else payload)
    if isinstance(kind, str) and kind in _PARSERS:
        return _PARSERS[kind](fields)
    if is_own(message):
        known = ", ".join(name for name in _PARSERS if name.startswith(OWN))
        raise RequestError(f"there is no request '{str(kind)[:64]}'; there are {known}")
    if fields.has("device"):
        return _init(fields)
    return Reset() if fields.has("reset") else _infer(fields, first_step=True)


def success(kind: str, given_id: Any, data: Any = None) -> dict[str, Any]:
    """The message that answers a request."""
    message = {"status": "ok", "ok": True, "type": kind, "request_id": given_id}
    return message if data is None else {**message, "data": data}


def failure(kind: str, given_id: Any, reason: str) -> dict[str, Any]:
    """The message that says why a request cannot be met; the connection stays."""
    return {
        "status": "error",
        "ok": False,
        "type": kind,
        "request_id": given_id,
        "message": reason,
    }


def _init(fields: Fields) -> Init:
    return Init(fields.text("device"))


def _infer(fields: Fields, *, first_step: bool = False) -> Infer:
    """A batch, or the one sample of a closed-loop client (`images`, `task_description`)."""
    if fields.has("batch_images"):
        images, instructions = fields.batch("batch_images"), fields.texts("instructions")
        first_step = False
    elif fields.has("images"):
        name = "task_description" if fields.has("task_description") else "instruction"
        images, instructions = (fields.views("images"),), (fields.text(name),)
    else:
        raise RequestError(
            "an inference needs 'batch_images' and 'instructions', "
            "or the 'images' of one sample and 'task_description'"
        )
    if not fields.flag("use_ddim", True):
        raise RequestError("'use_ddim' must be true: chunks are sampled by DDIM only")
    fields.flag("do_sample", False)  # of decoding text, which no inference does
    sampling = Sampling(
        seed=_seed(fields),
        num_ddim_steps=_steps(fields),
        guidance=fields.number("cfg_scale"),
        unnorm_key=fields.optional_text("unnorm_key"),
    )
    _same_count(images, instructions, "instructions")
    return Infer(images, instructions, *_observation(fields), sampling, first_step)


def _look(fields: Fields) -> Look:
    images, instructions = fields.batch("images"), fields.texts("instructions")
    _same_count(images, instructions, "instructions")
    return Look(images, instructions, fields.flag("trace", False), fields.drafts("drafts"))


def _answer(fields: Fields) -> Answer:
    images, questions = fields.views("images"), fields.texts("questions")
    _same_count(images, questions, "questions")
    return Answer(images, questions)


def _act(fields: Fields) -> Act:
    planned = fields.has("hidden_states")
    images = fields.batch("images", blind=not planned)
    plan = _plan(fields, len(images)) if planned else None
    sampling = Sampling(
        seed=_seed(fields),
        num_ddim_steps=_steps(fields),
        guidance=fields.number("guidance"),
        sampler=fields.optional_text("sampler") or "ddim",
        unnorm_key=fields.optional_text("unnorm_key"),
    )
    previous = fields.numbers("previous", 3)
    frozen = fields.integer("frozen", 0, 4096) or 0
    return Act(images, plan, *_observation(fields), sampling, previous, frozen)


def _plan(fields: Fields, batch: int) -> PlanArrays:
    states = fields.array("hidden_states", np.float32)
    mask = fields.array("attention_mask", np.bool_)
    texts = ("",) * len(mask) if mask.ndim else ()
    if fields.has("instructions"):
        texts = fields.texts("instructions")
    try:
        plan = PlanArrays(states, mask, texts)
    except PlanArraysError as error:
        raise RequestError(str(error)) from error
    _same_count(range(batch), plan.instructions, "plans")
    return plan


def _observation(
    fields: Fields,
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    return fields.numbers("states", 2), fields.numbers("points", 3, gaps=True)


def _seed(fields: Fields) -> int:
    return fields.integer("seed", 0, 2**63 - 1) or 0


def _steps(fields: Fields) -> int | None:
    return fields.integer("num_ddim_steps", 1, _MOST_STEPS)


def _same_count(samples: Any, others: Any, what: str) -> None:
    if len(samples) != len(others):
        raise RequestError(f"{len(others)} {what} for {len(samples)} samples")


_PARSERS: dict[str, Callable[[Fields], Request]] = {
    "ping": lambda fields: Ping(),
    "init": _init,
    "reset": lambda fields: Reset(),
    "infer": _infer,
    "internvla/describe": lambda fields: Describe(),
    "internvla/look": _look,
    "internvla/answer": _answer,
    "internvla/act": _act,
}
_REPLIES: dict[type[Any], str] = {
    Ping: "pong",
    Init: "init_result",
    Reset: "reset_result",
    Infer: "inference_result",
    Describe: "internvla/describe_result",
    Look: "internvla/look_result",
    Answer: "internvla/answer_result",
    Act: "internvla/act_result",
}
