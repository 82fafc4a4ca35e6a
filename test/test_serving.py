"""The policy server on the loopback: as the released one to its clients, and unshakeable."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integration.random_policy import save_random_policy
from integration.running_server import Serving, serving
from integration.small_release import write_release
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from internvla_ros.evaluate.policies import LearnedPolicy, load_policy
from internvla_ros.evaluate.tabletop import TableTop, run_tabletop
from internvla_ros.model.policy import Policy
from internvla_ros.robots.embodiment import load_embodiment
from internvla_ros.serving.client import PolicyClient
from internvla_ros.serving.codec import decode, encode
from internvla_ros.serving.errors import ServerError, ServerUnreachable
from internvla_ros.serving.protocol import CLOSE_REASON
from internvla_ros.serving.server import PolicyServer, ServerSettings, ServerStartError
from internvla_ros.serving.service import PolicyService
from internvla_ros.train.network import with_words_in_draft

DATA = Path(__file__).parent / "data" / "protocol"
TASK = "put the red cube on the blue plate"
KEY = "a key of enough letters"
FUZZ = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def views(count: int = 2, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(count)]


class Recording:
    """In a policy's place: answers with the seed of each request, when it is let."""

    def __init__(self) -> None:
        self.metadata = {"server": "internvla_ros", "fingerprint": "x"}
        self.seen: list[int] = []
        self.working = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.busy = 0

    def carry_out(self, request: Any) -> Any:
        self.busy += 1
        assert self.busy == 1, "two requests at once"
        self.working.release()
        assert self.may_go_on.wait(30.0)
        seed = request.sampling.seed
        self.seen.append(seed)
        self.busy -= 1
        if seed == 666:
            raise MemoryError("at /home/someone/secret.py")
        if seed == 667:
            raise ValueError("cannot use /home/someone/secret.py, line 3")
        return {"actions": np.full((1, 1, 7), float(seed))}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return Policy.from_pretrained(save_random_policy(tmp_path_factory.mktemp("policy")))


@pytest.fixture(scope="module")
def server(policy: Policy) -> Iterator[Serving]:
    with serving(PolicyService(policy)) as running:
        yield running


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return Policy.from_pretrained(write_release(tmp_path_factory.mktemp("release") / "run"))


@pytest.fixture(scope="module")
def released_server(released: Policy) -> Iterator[Serving]:
    with serving(PolicyService(released, "with_mask")) as running:
        yield running


@pytest.fixture
def client(server: Serving) -> Iterator[PolicyClient]:
    with PolicyClient(server.url) as connected:
        yield connected


def raw(running: Serving) -> ClientConnection:
    """A bare connection, after the server's greeting."""
    connection = connect(running.url, compression=None, max_size=None)
    assert decode(connection.recv(10.0, decode=False))["server"] == "internvla_ros"
    return connection


def recorded(name: str) -> bytes:
    (path,) = DATA.glob(f"{name}_*.msgpack")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("request_name", "answer_name"),
    [("02", "03"), ("04", "05"), ("06", "07"), ("08", "09"), ("10", "11"), ("12", "13"),
     ("22", "23")],
)  # fmt: skip
def test_recorded_requests_get_the_recorded_answers(
    server: Serving, request_name: str, answer_name: str
) -> None:
    with raw(server) as connection:
        connection.send(recorded(request_name))
        assert connection.recv(10.0) == recorded(answer_name)


def test_a_recorded_inference_is_answered_in_kind(
    released_server: Serving, released: Policy
) -> None:
    request = decode(recorded("16"))
    with raw(released_server) as connection:
        connection.send(recorded("16"))
        answer = decode(connection.recv(30.0, decode=False))
    wanted = decode(recorded("17"))
    assert {**answer, "data": None} == {**wanted, "data": None}
    actions = answer["data"]["normalized_actions"]
    assert actions.dtype == wanted["data"]["normalized_actions"].dtype
    images, task = request["payload"]["images"], request["payload"]["task_description"]
    assert np.array_equal(actions, released.predict_normalised([images], [task]))


def frames(data: bytes) -> list[tuple[int, bytes, bytes]]:
    """Of each whole websocket frame its first byte, its payload (as masked), and all its bytes."""
    found, at = [], 0
    while at + 2 <= len(data):
        masked, size, start = data[at + 1] >> 7, data[at + 1] & 127, at + 2
        if size > 125:
            start = at + (4 if size == 126 else 10)
            size = int.from_bytes(data[at + 2 : start], "big")
        start += 4 * masked
        if start + size > len(data):
            break
        found.append((data[at], data[start : start + size], data[at : start + size]))
        at = start + size
    return found


def converse(running: Serving, data: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Say what a client once said, frame by frame; the answer's head, and its frames."""
    end = data.index(b"\r\n\r\n") + 4
    with socket.create_connection((running.server.host, running.server.port), 30.0) as wire:
        wire.sendall(data[:end])
        answer = b""
        head = -1
        for number, (_, _, frame) in enumerate(frames(data[end:]), 1):
            while head < 0 or len(frames(answer[head:])) < number:
                more = wire.recv(1 << 16)
                assert more, "the server hung up"
                answer += more
                head = answer.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in answer else -1
            wire.sendall(frame)
        while more := wire.recv(1 << 16):
            answer += more
    return answer[:head], [(first, payload) for first, payload, _ in frames(answer[head:])]


def test_a_recorded_connection_is_answered_byte_for_byte_but_for_the_numbers(
    released_server: Serving,
) -> None:
    """The released client's own bytes: handshake, ping, untyped inference, error, close."""
    head, ours = converse(
        released_server, (DATA / "raw_small_session_client_to_server.bin").read_bytes()
    )
    wanted = (DATA / "raw_small_session_server_to_client.bin").read_bytes()
    end = wanted.index(b"\r\n\r\n") + 4
    theirs = [(first, payload) for first, payload, _ in frames(wanted[end:])]
    accept = re.compile(rb"Sec-WebSocket-Accept: (\S+)")
    assert accept.findall(head) == accept.findall(wanted[:end])
    assert b"Sec-WebSocket-Extensions" not in head
    assert [opcode for opcode, _ in ours] == [opcode for opcode, _ in theirs]
    assert ours[1] == theirs[1]  # pong
    step, recorded_step = decode(ours[2][1]), decode(theirs[2][1])
    for name, value in recorded_step["data"]["raw_action"].items():
        mine = step["data"]["raw_action"][name]
        assert (mine.dtype, mine.shape) == (value.dtype, value.shape)
    assert list(step) == list(recorded_step)
    assert ours[3][1].startswith(b"Traceback (most recent call last):\n")
    assert ours[4] == theirs[4]  # close
    assert ours[4][1] == struct.pack("!H", 1011) + CLOSE_REASON.encode()


def test_an_api_key_as_the_released_client_sends_it(released_server: Serving) -> None:
    head, said = converse(released_server, (DATA / "raw_api_key_client_to_server.bin").read_bytes())
    assert head.startswith(b"HTTP/1.1 101 ")
    assert decode(said[0][1])["server"] == "internvla_ros"


def test_what_comes_over_the_wire_is_what_a_local_policy_gives(
    client: PolicyClient, policy: Policy
) -> None:
    images, points = [views(seed=1), views(seed=2)], np.full((2, 2, 2), 0.5)
    state = np.full((2, 10), 0.1)
    drafts: dict[str, list[int]] = {}
    plan, answers = client.look(images[:1], [TASK], trace=True, drafts=drafts)
    assert drafts.keys() == {"boxes", "points", "trace"}
    assert client.look(images[:1], [TASK], trace=True, drafts=drafts)[1] == answers
    assert answers == policy.look(images[:1], [TASK], trace=True)[1]
    plan = client.plan(images, [TASK, "warm up"])
    local = policy.plan(images, [TASK, "warm up"])
    options: dict[str, Any] = {"seed": 4, "num_ddim_steps": 3, "guidance": 2.0}
    commitment = {"previous": np.zeros((2, 3, 7)), "frozen": 2}
    for extra in ({}, {"sampler": "dpm-solver++"}, commitment):
        actions = client.act(images, plan, state, points, **options, **extra)
        assert np.array_equal(actions, policy.act(images, local, state, points, **options, **extra))
    blind = client.act([[]], None, state[:1])
    assert np.array_equal(blind, policy.act([[]], None, state[:1]))
    inferred = client.infer(images, [TASK] * 2, state, points, **options)
    wanted = policy.predict_normalised(images, [TASK] * 2, state, points, **options)
    assert inferred.dtype == np.float32 and np.array_equal(inferred, wanted)
    assert client.ground(images[0][0], "cup") == policy.ground(images[0][0], "cup")
    assert client.config == policy.config


def test_an_actor_that_reads_words_is_told_them(policy: Policy) -> None:
    reading = with_words_in_draft(policy).eval()
    torch.nn.init.normal_(reading.actor.dit.draft_words.weight)
    state, points = np.full((1, 10), 0.1), np.full((1, 2, 2), 0.5)
    plan = reading.plan([views()], [TASK])
    with serving(PolicyService(reading)) as running, PolicyClient(running.url) as client:
        told = client.plan([views()], [TASK])
        actions = client.act([views()], told, state, points)
        assert np.array_equal(actions, reading.act([views()], plan, state, points))
        with pytest.raises(ServerError, match="give the plan's 'instructions'"):
            client.act([views()], replace(told, instructions=("",)), state, points)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda c: c.infer([views()], [TASK]), r"give 'states' \[B, 10\] and 'points' \[B, 2, 2\]"),
        (lambda c: c.infer([views()], [TASK], np.zeros((1, 10))), "give 'points'"),
        (lambda c: c.infer([views()], [TASK], np.zeros((2, 10)), np.zeros((1, 2, 2))),
         r"'states' must be \[1, 10\], got \[2, 10\]"),
        (lambda c: c.look([[]], [TASK]), "at least one"),
        (lambda c: c.act([views()], None), "needs the robot's state of 10 numbers"),
        (lambda c: c.act([views()], None, np.zeros((1, 10)), np.zeros((1, 3, 2))), "'points' must"),
        (lambda c: c.act([views()], None, np.zeros((1, 10)), num_ddim_steps=101), "in 1..100"),
        (lambda c: c.act([views()], None, np.zeros((1, 10)), sampler="x"), "no sampler 'x'"),
        (lambda c: c.act([views()], None, np.zeros((1, 10)), unnorm_key="x"), "one of widowx_250s"),
        (lambda c: c.act([views()], None, np.zeros((1, 10)), previous=np.zeros((1, 2, 6))),
         r"'previous' must be \[1, K >= 1, 7\]"),
        (lambda c: c.act([views()], None, np.zeros((1, 10)), previous=np.zeros((1, 2, 7)),
                         frozen=3), r"'frozen' must be in 0\.\.2"),
        (lambda c: c.init("cuda"), "Failed to initialize device"),
        (lambda c: c.request("internvla/dance", {}), "there is no request 'internvla/dance'"),
    ],
)  # fmt: skip
def test_what_cannot_be_met_is_said_and_the_next_request_is_answered(
    client: PolicyClient, ask: Any, words: str
) -> None:
    with pytest.raises(ServerError, match=words):
        ask(client)
    client.ping()


def test_drafts_of_tokens_that_do_not_exist_are_left_out(client: PolicyClient) -> None:
    drafts = {"boxes": [10**9], "points": [1]}
    assert client.look([views()], [TASK], drafts=drafts)[1] == client.look([views()], [TASK])[1]
    assert all(token < 10**9 for token in drafts["boxes"])


def test_a_plan_of_another_policy(client: PolicyClient, released: Policy) -> None:
    from internvla_ros.serving.local import LocalPlanner

    plan, _ = LocalPlanner(released.planner).look([views()], [TASK])
    with pytest.raises(ServerError, match="it is of another policy"):
        client.act([views()], plan, np.zeros((1, 10)))


def test_statistics_have_to_be_named_where_there_are_several(released: Policy) -> None:
    with pytest.raises(ValueError, match="'nothing'; it must be one of with_mask, without_mask"):
        PolicyService(released, "nothing")
    with serving(PolicyService(released)) as running, PolicyClient(running.url) as client:
        plan = client.plan([views(1)], [TASK])
        with pytest.raises(ServerError, match="'unnorm_key' is missing; it must be one of with_m"):
            client.act([views(1)], plan)
        assert client.act([views(1)], plan, unnorm_key="without_mask").shape == (1, 8, 7)
        assert client.infer([views(1)], [TASK]).shape == (1, 8, 7)


def test_three_clients_are_answered_one_after_the_other_each_in_order() -> None:
    service = Recording()
    with serving(service) as running:

        def work(first: int) -> None:
            with PolicyClient(running.url) as client:
                for seed in range(first, first + 20):
                    assert client.act([[]], None, seed=seed)[0, 0, 0] == seed

        with ThreadPoolExecutor(3) as clients:
            list(clients.map(work, [100, 200, 300]))
    assert len(service.seen) == 60
    for first in (100, 200, 300):
        own = [seed for seed in service.seen if first <= seed < first + 20]
        assert own == list(range(first, first + 20))


def test_one_client_in_many_threads() -> None:
    with (
        serving(Recording()) as running,
        PolicyClient(running.url) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        answers = threads.map(lambda seed: client.act([[]], None, seed=seed)[0, 0, 0], range(40))
        assert list(answers) == list(range(40))


def test_the_server_is_well_while_it_works() -> None:
    service = Recording()
    service.may_go_on.clear()
    with (
        serving(service, api_key=KEY) as running,
        PolicyClient(running.url, api_key=KEY) as one,
        PolicyClient(running.url, api_key=KEY) as other,
        ThreadPoolExecutor(1) as thread,
    ):
        answer = thread.submit(one.act, [[]], None)
        assert service.working.acquire(timeout=30.0)
        other.ping()
        with urllib.request.urlopen(running.url.replace("ws", "http") + "/healthz") as reply:
            assert reply.status == 200
            assert reply.headers["Content-Type"] == "application/json"
            state = json.load(reply)
        assert state == {"status": "ok", "clients": 2, "waiting": 1, "answered": 1}
        service.may_go_on.set()
        assert answer.result(30.0).shape == (1, 1, 7)


def test_a_stop_lets_requests_in_work_be_finished() -> None:
    service = Recording()
    service.may_go_on.clear()
    running = Serving(service)
    with PolicyClient(running.url) as client, ThreadPoolExecutor(1) as thread:
        answer = thread.submit(client.act, [[]], None, seed=9)
        assert service.working.acquire(timeout=30.0)
        running.server.stop()
        service.may_go_on.set()
        assert answer.result(30.0)[0, 0, 0] == 9
        running.stop()
        with pytest.raises(ServerUnreachable, match="no policy server answers"):
            client.act([[]], None)


def test_a_fault_of_the_policy_tells_no_secrets_and_ends_nothing() -> None:
    with serving(Recording()) as running, PolicyClient(running.url) as client:
        with pytest.raises(ServerError, match=r"failed with MemoryError.* incident 1$") as caught:
            client.act([[]], None, seed=666)
        assert "secret" not in str(caught.value)
        assert any("incident 1" in line and "secret.py" in line for line in running.said)
        with pytest.raises(ServerError, match="cannot use <path>, line 3"):
            client.act([[]], None, seed=667)
        with raw(running) as connection:
            step = {"images": views(1), "task_description": "a", "seed": 666}
            connection.send(encode(step))
            text = connection.recv(10.0)
            assert isinstance(text, str) and "MemoryError" in text and "secret" not in text
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv(10.0)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, CLOSE_REASON)
        assert client.act([[]], None, seed=1)[0, 0, 0] == 1


@pytest.mark.parametrize("given_key", ["", "another key of letters", KEY[:-1]])
def test_only_who_has_the_key_comes_in(given_key: str) -> None:
    with serving(Recording(), api_key=KEY) as running:
        with (
            PolicyClient(running.url, api_key=given_key) as stranger,
            pytest.raises(ServerError, match="asks for an API key"),
        ):
            stranger.ping()
        with PolicyClient(running.url, api_key=KEY) as friend:
            friend.ping()
        assert KEY not in repr(running.server._settings) + "".join(running.said)


def test_no_web_page_comes_in(server: Serving) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(server.url, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(server.url.replace("ws", "http"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "0.0.0.0"}, "can be reached from other machines: set a key in INTERNVLA_API_KEY"),
        ({"host": "::"}, "can be reached from other machines"),
        ({"host": "no.such.host.invalid"}, "is unknown"),
        ({"api_key": "short"}, "16 or more printable"),
        ({"port": 1 << 17}, "no port 131072"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_started(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ServerStartError, match=words):
        PolicyServer(ServerSettings(**{"port": 0, **changes}), print)


def test_a_port_that_is_taken(server: Serving) -> None:
    port = server.server.port
    with pytest.raises(ServerStartError, match=f"cannot listen on 127.0.0.1, port {port}"):
        PolicyServer(ServerSettings(port=port), print)


def test_other_machines_come_in_with_a_key_or_when_everybody_may() -> None:
    for changes in ({"api_key": KEY}, {"insecure": True}):
        with (
            serving(Recording(), host="0.0.0.0", **changes) as running,
            PolicyClient(f"ws://127.0.0.1:{running.server.port}", api_key=KEY) as client,
        ):
            client.ping()


def test_a_message_that_is_too_large_ends_only_its_own_connection() -> None:
    with serving(Recording(), max_size=1000) as running:
        with (
            PolicyClient(running.url) as client,
            pytest.raises(ServerUnreachable, match=r"lost during 'internvla/act'.*1009"),
        ):
            client.act([views()], None)
        with PolicyClient(running.url) as client:
            client.ping()


@FUZZ
@given(
    frame=st.one_of(
        st.binary(max_size=100),
        st.text(max_size=20),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=3)),
            lambda inner: st.dictionaries(
                st.sampled_from(["type", "payload", "request_id", "images", "device"]), inner
            ),
        ).map(encode),
    )
)
def test_nonsense_is_answered_and_survived(server: Serving, frame: bytes | str) -> None:
    with raw(server) as connection:
        connection.send(frame)
        answer = connection.recv(10.0)
        if isinstance(answer, str):
            assert answer.startswith("Traceback (most recent call last):\n") and "/" not in answer
        else:
            assert "ok" in decode(answer)
    with PolicyClient(server.url) as client:
        client.ping()


@FUZZ
@given(st.binary(max_size=300))
def test_noise_on_the_wire_is_survived(server: Serving, noise: bytes) -> None:
    recorded_bytes = (DATA / "raw_api_key_client_to_server.bin").read_bytes()
    handshake = recorded_bytes[: recorded_bytes.index(b"\r\n\r\n") + 4]
    for start in (b"", handshake):
        with socket.create_connection((server.server.host, server.server.port), 10.0) as wire:
            if start:
                wire.sendall(start)
                assert wire.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
            wire.sendall(noise)
    with PolicyClient(server.url) as client:
        client.ping()


def test_a_benchmark_gives_the_same_with_a_remote_policy(server: Serving, policy: Policy) -> None:
    embodiment = load_embodiment("widowx_250s")
    plan = TableTop(scenes=1, seed=5, max_seconds=1.0)
    remote = load_policy(server.url, embodiment, device="cpu")
    reports = [run_tabletop(embodiment, each, plan, {}) for each in (remote, LearnedPolicy(policy))]
    assert reports[0].complete
    assert reports[0].rows == reports[1].rows


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_stop(number: int, tmp_path: Path) -> None:
    checkpoint = save_random_policy(tmp_path)
    command = ["serve", "--port", "0", "--checkpoint", str(checkpoint), "--unnorm-key",
               "widowx_250s"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "internvla_ros.cli", *command],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "INTERNVLA_API_KEY": KEY},
    )  # fmt: skip
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "ready on" in line:
            break
    assert [word for word in ("loading", "warming up", "warm after") if word in "".join(said)]
    with PolicyClient(said[-1].split()[-1], api_key=KEY) as client:
        assert client.act([[]], None, np.zeros((1, 10))).shape == (1, 16, 7)
        process.send_signal(number)
        rest, _ = process.communicate(timeout=30.0)
    assert process.returncode == 0
    assert "stopping" in rest
