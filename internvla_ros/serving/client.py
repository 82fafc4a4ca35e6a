"""A policy on another machine, with the methods of `Planner`, `Actor` and `Policy`; no PyTorch.

policy = PolicyClient("ws://gpu:10093")
plan, answers = policy.look([[front, wrist]], ["put the cup on the plate"])
actions = policy.act([[front, wrist]], plan, state[None], seed=0)
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

from internvla_ros.model.config import ConfigError, PolicyConfig
from internvla_ros.serving.answers import AnswerError, answer_from_map
from internvla_ros.serving.codec import CodecError, decode, encode
from internvla_ros.serving.errors import ServerError, ServerUnreachable
from internvla_ros.serving.plan import PlanArrays, PlanArraysError
from internvla_ros.serving.protocol import DEFAULT_PORT, KEY_VARIABLE, OWN, is_remote
from internvla_ros.spatial.prompts import Kind, question
from internvla_ros.spatial.types import SpatialAnswer

Image = NDArray[np.uint8]
Views = Sequence[Image]

CONNECT_TIMEOUT = 5.0
"""s for a connection to be made."""
REPLY_TIMEOUT = 30.0
"""s for an answer, in which earlier requests of other clients may have to be answered too."""
LARGEST_REPLY = 256 << 20
"""Bytes."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0  # s between attempts to connect, doubling


class PolicyClient:
    """Connects when it is first asked for something, and again after a connection was lost.

    One request is on its way at a time; others wait, also those of other threads.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = REPLY_TIMEOUT,
        patience: float = 0.0,
    ) -> None:
        """
        Args:
            url: ws://host:port, or wss:// for a proxy with TLS; the port is 10093 if not given.
            api_key: the server's; None: that of the environment variable INTERNVLA_API_KEY.
            timeout: s to wait for an answer.
            patience: s to go on trying to connect, with growing pauses. With 0 a call fails at once
                while the pause since the last attempt lasts, so that a control loop never waits.

        Raises:
            ValueError: the url is none.
        """
        self.url = _address(url)
        key = os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key
        self._headers = {"Authorization": f"Api-Key {key}"} if key else {}
        self._timeout, self.patience = timeout, patience
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._connection: ClientConnection | None = None
        self._pause, self._not_before = 0.0, 0.0
        self._fingerprint: str | None = None
        self._config: PolicyConfig | None = None
        self._datasets: tuple[str, ...] = ()
        self.metadata: Mapping[str, Any] = {}
        """What the server said of itself when the connection was made."""

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; another request connects again."""
        with self._lock:
            self._drop()

    def request(self, kind: str, payload: Mapping[str, Any]) -> Any:
        """The data of the answer to one request.

        Raises:
            ServerUnreachable: there is no connection, it broke, or no answer came in time.
            ServerError: the server refused, or its answer is not understood.
        """
        with self._lock:
            connection = self._connected()
            if kind.startswith(OWN) and self.metadata.get("server") != "internvla_ros":
                raise ServerError(
                    f"{self.url} is a policy server, but not one of 'internvla serve': it can "
                    "only infer"
                )
            given_id = f"r{next(self._ids)}"
            message = {"type": kind, "request_id": given_id, "payload": dict(payload)}
            return self._data(self._exchange(connection, encode(message), kind), given_id)

    def ping(self) -> None:
        """Have an answer from the server, or an error."""
        self.request("ping", {})

    def init(self, device: str) -> None:
        """Make sure that the policy is on a device; raises `ServerError` if it is not."""
        self.request("init", {"device": device})

    def reset(self, instruction: str = "") -> None:
        """Tell that an episode begins."""
        self.request("reset", {"instruction": instruction})

    def infer(
        self,
        images: Sequence[Views],
        instructions: Sequence[str],
        states: NDArray[np.float64] | None = None,
        points: NDArray[np.float64] | None = None,
        *,
        unnorm_key: str | None = None,
        guidance: float | None = None,
        num_ddim_steps: int | None = None,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Normalised chunks [B, T, D], about -1..1, as `Policy.predict_normalised`."""
        data = self.request(
            "infer",
            _given(
                batch_images=_batch(images),
                instructions=list(instructions),
                unnorm_key=unnorm_key,
                do_sample=False,
                cfg_scale=guidance,
                use_ddim=True,
                num_ddim_steps=num_ddim_steps,
                states=states,
                points=points,
                seed=seed,
            ),
        )
        return _array(data, "normalized_actions", 3)

    @property
    def config(self) -> PolicyConfig:
        """Of the policy; asked for once."""
        return self._config or self.ask_for_config()

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the statistics that the policy can un-normalise with."""
        if self._config is None:
            self.ask_for_config()
        return self._datasets

    def ask_for_config(self) -> PolicyConfig:
        """Have the server describe its policy."""
        data = self.request("internvla/describe", {})
        try:
            self._config = PolicyConfig.from_dict(json.loads(data["config"]), source=self.url)
            self._datasets = tuple(map(str, data["statistics"]))
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise ServerError(f"{self.url} describes its policy in an unknown way") from error
        return self._config

    def look(
        self,
        images: Sequence[Views],
        instructions: Sequence[str],
        *,
        trace: bool = False,
        drafts: dict[str, list[int]] | None = None,
    ) -> tuple[PlanArrays, list[SpatialAnswer]]:
        """As `Planner.look`."""
        payload = _given(
            images=_batch(images), instructions=list(instructions), trace=trace, drafts=drafts
        )
        data = self.request("internvla/look", payload)
        states, mask = _array(data, "hidden_states", 4), _array(data, "attention_mask", 2)
        try:
            plan = PlanArrays(states, mask, tuple(instructions))
        except PlanArraysError as error:
            raise ServerError(f"{self.url} answers with no plan: {error}") from error
        if drafts is not None:
            drafts.update(data.get("drafts") or {})
        return plan, _answers(data)

    def plan(self, images: Sequence[Views], instructions: Sequence[str]) -> PlanArrays:
        """The plan of `look` alone."""
        return self.look(images, instructions)[0]

    def answer(self, images: Views, questions: Sequence[str]) -> list[SpatialAnswer]:
        """As `Planner.answer`."""
        payload = {"images": [_image(view) for view in images], "questions": list(questions)}
        return _answers(self.request("internvla/answer", payload))

    def ground(self, image: Image, query: str, kind: Kind = "box") -> SpatialAnswer:
        """As `Planner.ground`."""
        return self.answer([image], [question(query, kind)])[0]

    def act(
        self,
        images: Sequence[Views],
        plan: PlanArrays | None,
        states: NDArray[np.float64] | None = None,
        points: NDArray[np.float64] | None = None,
        *,
        seed: int = 0,
        num_ddim_steps: int | None = None,
        guidance: float | None = None,
        sampler: str = "ddim",
        unnorm_key: str | None = None,
        previous: NDArray[np.float64] | None = None,
        frozen: int = 0,
    ) -> NDArray[np.float64]:
        """Chunks [B, T, D] in SI units, as `Actor.act`."""
        payload = _given(
            images=_batch(images),
            hidden_states=None if plan is None else plan.hidden_states,
            attention_mask=None if plan is None else plan.attention_mask,
            instructions=None if plan is None else list(plan.instructions),
            states=states,
            points=points,
            seed=seed,
            num_ddim_steps=num_ddim_steps,
            guidance=guidance,
            sampler=sampler,
            unnorm_key=unnorm_key,
            previous=previous,
            frozen=frozen,
        )
        return _array(self.request("internvla/act", payload), "actions", 3)

    def _connected(self) -> ClientConnection:
        """The connection, made anew if need be."""
        if self._connection is not None and self._connection.state is State.OPEN:
            return self._connection
        self._drop()
        deadline = time.monotonic() + self.patience
        while True:
            wait = self._not_before - time.monotonic()
            if wait > 0 and time.monotonic() + wait > deadline:
                raise ServerUnreachable(
                    f"no policy server answers at {self.url}; next attempt in {wait:.1f} s"
                )
            time.sleep(max(wait, 0.0))
            try:
                self._connection = self._open()
            except ServerUnreachable:
                self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
                self._not_before = time.monotonic() + self._pause
                if self._not_before > deadline:
                    raise
            else:
                self._pause = self._not_before = 0.0
                return self._connection

    def _open(self) -> ClientConnection:
        try:
            connection = connect(
                self.url,
                compression=None,
                max_size=LARGEST_REPLY,
                additional_headers=self._headers,
                open_timeout=CONNECT_TIMEOUT,
                close_timeout=1.0,
                proxy=None,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            if status != 401:
                raise ServerError(f"{self.url} is no policy server: HTTP {status}") from error
            raise ServerError(
                f"{self.url} asks for an API key: set {KEY_VARIABLE} to the server's"
            ) from error
        except (OSError, TimeoutError, EOFError) as error:
            raise ServerUnreachable(f"no policy server answers at {self.url}: {error}") from error
        except (InvalidHandshake, InvalidURI) as error:
            raise ServerUnreachable(f"{self.url} is no policy server: {error}") from error
        try:
            self._greet(decode(connection.recv(CONNECT_TIMEOUT, decode=False)))
        except (ConnectionClosed, TimeoutError, CodecError) as error:
            connection.close()
            raise ServerUnreachable(f"{self.url} does not greet as policy servers do") from error
        except ServerError:
            connection.close()
            raise
        return connection

    def _greet(self, metadata: Any) -> None:
        """Remember what the server is; its policy must not change as long as this object lives."""
        self.metadata = metadata if isinstance(metadata, Mapping) else {}
        fingerprint = str(self.metadata.get("fingerprint", ""))
        if self._fingerprint not in (None, fingerprint):
            raise ServerError(
                f"{self.url} has another policy than before ({self.metadata.get('policy')}): "
                "start this process again"
            )
        self._fingerprint = fingerprint

    def _exchange(self, connection: ClientConnection, request: bytes, kind: str) -> Any:
        """The server's answer, decoded. A connection with an answer left in it is given up."""
        whole = False
        try:
            connection.send(request)
            frame = connection.recv(self._timeout)
            whole = isinstance(frame, bytes)
        except TimeoutError as error:
            raise ServerUnreachable(
                f"{self.url} did not answer '{kind}' within {self._timeout:g} s"
            ) from error
        except ConnectionClosed as error:
            raise ServerUnreachable(
                f"the connection to {self.url} was lost during '{kind}': {error}"
            ) from error
        finally:
            if not whole:
                self._drop()
        if isinstance(frame, str):
            raise ServerError(f"{self.url} refused '{kind}': {_last_line(frame)}")
        try:
            return decode(frame)
        except CodecError as error:
            self._drop()
            raise ServerError(f"{self.url} answers in an unknown way: {error}") from error

    def _data(self, answer: Any, given_id: str) -> Any:
        if not isinstance(answer, Mapping) or answer.get("request_id") != given_id:
            self._drop()
            raise ServerError(f"{self.url} answers something that was not asked")
        if not answer.get("ok"):
            raise ServerError(f"{self.url}: {answer.get('message', 'refused without a reason')}")
        return answer.get("data")

    def _drop(self) -> None:
        """Hang up without a word, as nobody may be listening."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close_timeout = 0.1
            connection.close()


def _address(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if not is_remote(url) or not parts.hostname or port == -1:
        raise ValueError(f"'{url}' is no policy server; give one as ws://host:{DEFAULT_PORT}")
    if port is None and parts.scheme == "ws":
        return parts._replace(netloc=f"{parts.netloc}:{DEFAULT_PORT}").geturl()
    return url


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _batch(images: Sequence[Views]) -> list[list[Image]]:
    return [[_image(view) for view in views] for views in images]


def _image(view: Image) -> Image:
    """A view as an array, PIL pictures too."""
    return np.asarray(view)


def _array(data: Any, name: str, dimensions: int) -> NDArray[Any]:
    value = data.get(name) if isinstance(data, Mapping) else None
    if not isinstance(value, np.ndarray) or value.ndim != dimensions:
        raise ServerError(f"the server's answer lacks '{name}' in {dimensions} dimensions")
    return value


def _answers(data: Any) -> list[SpatialAnswer]:
    try:
        return [answer_from_map(each) for each in data["answers"]]
    except (KeyError, TypeError, AnswerError) as error:
        raise ServerError(f"the server's answer has no spatial answers: {error}") from error


def _last_line(text: str) -> str:
    """What a traceback comes down to."""
    return text.strip().splitlines()[-1][:500] if text.strip() else "no reason given"
