"""The client of a policy server: thin, and clear about what it cannot reach."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from integration.running_server import serving
from websockets.sync.server import ServerConnection, serve

from internvla_ros.serving import client as client_module
from internvla_ros.serving.client import PolicyClient
from internvla_ros.serving.codec import encode
from internvla_ros.serving.errors import ServerError, ServerUnreachable
from internvla_ros.serving.plan import PlanArrays, PlanArraysError

ROOT = Path(__file__).resolve().parent.parent

# A server in a process of its own: echoes a request's seed, and never answers seed 13.
ECHO = """
import sys, time
import numpy as np
from internvla_ros.serving.server import PolicyServer, ServerSettings

class Echo:
    metadata = {"server": "internvla_ros", "fingerprint": sys.argv[2]}
    def carry_out(self, request):
        if request.sampling.seed == 13:
            print("working", flush=True)
            time.sleep(600)
        return {"actions": np.full((1, 1, 7), float(request.sampling.seed))}

server = PolicyServer(ServerSettings(port=int(sys.argv[1])), lambda line: print(line, flush=True))
server.run(Echo())
"""


class Echo:
    """ECHO in a process; `line` reads on until a line that contains something."""

    def __init__(self, port: int = 0, fingerprint: str = "x") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", ECHO, str(port), fingerprint], stdout=subprocess.PIPE, text=True
        )
        self.url = self.line("ready on").split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])

    def line(self, text: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return line
        raise AssertionError(f"the server ended without saying '{text}'")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def echo(client: PolicyClient, seed: int) -> float:
    return float(client.act([[]], None, seed=seed)[0, 0, 0])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_neither_the_client_nor_what_nodes_use_of_it_needs_torch() -> None:
    code = (
        "import sys\n"
        "import internvla_ros.serving.client, internvla_ros.serving.local\n"
        "import internvla_ros.evaluate.policies\n"
        "print([name for name in ('torch', 'transformers', 'rclpy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    "url", ["", "gpu", "http://gpu", "ws://", "ws://gpu:port", "ws:gpu", "ws://gpu:99999"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="is no policy server; give one as ws://host:10093"):
        PolicyClient(url)


def test_the_port_is_the_released_one_unless_given() -> None:
    assert PolicyClient("ws://gpu").url == "ws://gpu:10093"
    assert PolicyClient("ws://gpu:7").url == "ws://gpu:7"
    assert PolicyClient("wss://gpu/policy").url == "wss://gpu/policy"


def test_a_server_killed_at_work_is_an_error_and_one_that_comes_back_is_found() -> None:
    first = Echo()
    with PolicyClient(first.url) as client:
        assert echo(client, 1) == 1.0
        killer = threading.Thread(target=lambda: (first.line("working"), first.kill()))
        killer.start()
        with pytest.raises(ServerUnreachable, match="lost during 'internvla/act'"):
            echo(client, 13)
        killer.join()
        with pytest.raises(ServerUnreachable, match="no policy server answers"):
            echo(client, 2)
        second = Echo(first.port)
        client.patience = 30.0
        try:
            assert echo(client, 3) == 3.0
            second.kill()  # between two requests: the next one connects anew without an error
            second = Echo(first.port)
            assert echo(client, 4) == 4.0
            second.kill()
            second = Echo(first.port, "another policy")
            with pytest.raises(ServerError, match="has another policy than before"):
                echo(client, 5)
        finally:
            second.kill()


def test_attempts_come_in_growing_pauses_that_cost_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, attempts = [100.0], []
    monkeypatch.setattr(client_module.time, "monotonic", lambda: now[0])

    def refuse(*args: Any, **options: Any) -> Any:
        attempts.append(now[0])
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(client_module, "connect", refuse)
    client = PolicyClient("ws://gpu")
    for _ in range(400):
        with pytest.raises(ServerUnreachable, match="no policy server answers at ws://gpu:10093"):
            client.ping()
        now[0] += 0.1
    pauses = np.diff(attempts)
    assert (np.diff(pauses) > -0.11).all()
    assert pauses[0] < 0.4 and 7.9 < pauses[-1] < 8.2


def test_with_patience_a_server_that_comes_late_is_waited_for() -> None:
    port = free_port()
    started: list[Echo] = []
    late = threading.Thread(target=lambda: started.append(Echo(port)))
    late.start()
    try:
        with PolicyClient(f"ws://127.0.0.1:{port}", patience=60.0) as client:
            assert echo(client, 2) == 2.0
    finally:
        late.join()
        started[0].kill()


def test_an_answer_that_does_not_come_in_time() -> None:
    server = Echo()
    try:
        with PolicyClient(server.url, timeout=0.2) as client:
            with pytest.raises(ServerUnreachable, match=r"did not answer '.*' within 0\.2 s"):
                echo(client, 13)
            client.ping()  # on another connection, where no late answer can be mistaken for this
    finally:
        server.kill()


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(metadata={})
    monkeypatch.setenv("INTERNVLA_API_KEY", "x" * 20)
    with serving(nothing, api_key="x" * 20) as running, PolicyClient(running.url) as client:
        client.ping()


def other_server(*frames: str | bytes) -> Any:
    """A websocket server that greets, then answers every message with the next of the frames."""

    def converse(connection: ServerConnection) -> None:
        for frame in frames:
            connection.send(frame)
            connection.recv()

    return serve(converse, "127.0.0.1", 0, compression=None)


@pytest.mark.parametrize(
    ("frames", "error", "words"),
    [
        ((b"\xc1",), ServerUnreachable, "does not greet"),
        ((encode({}), b"\xc1"), ServerError, "answers in an unknown way"),
        ((encode({}), encode([])), ServerError, "something that was not asked"),
        ((encode({}), encode({"request_id": "r9"})), ServerError, "something that was not asked"),
        ((encode({}), encode({"request_id": "r1"})), ServerError, "refused without a reason"),
        ((encode({}), encode({"request_id": "r1", "ok": True})), ServerError,
         "lacks 'normalized_actions'"),
        ((encode({}), "Traceback\nKeyError: 'images'\n"), ServerError, "KeyError: 'images'"),
        ((encode({}), ""), ServerError, "no reason given"),
    ],
)  # fmt: skip
def test_servers_that_are_none(
    frames: tuple[str | bytes, ...], error: type[Exception], words: str
) -> None:
    with other_server(*frames) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        try:
            with (
                PolicyClient(f"ws://127.0.0.1:{port}") as client,
                pytest.raises(error, match=words),
            ):
                client.infer([[np.zeros((2, 2, 3), np.uint8)]], ["go"])
        finally:
            server.shutdown()
            thread.join()


def test_a_released_server_can_only_infer() -> None:
    with other_server(encode({"env": "simpler_env"})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        try:
            with (
                PolicyClient(f"ws://127.0.0.1:{port}") as client,
                pytest.raises(ServerError, match="it can only infer"),
            ):
                client.plan([[np.zeros((2, 2, 3), np.uint8)]], ["go"])
        finally:
            server.shutdown()
            thread.join()


def test_what_is_no_websocket_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for reply in (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0\r\n"):
                wire, _ = listening.accept()
                wire.recv(4096)
                wire.sendall(reply)
                wire.close()

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ServerError, match="is no policy server: HTTP 404"):
            PolicyClient(url).ping()
        with pytest.raises(ServerUnreachable, match="is no policy server"):
            PolicyClient(url).ping()
        thread.join()


def test_a_plan_is_checked_where_it_is_made() -> None:
    states, mask = np.zeros((1, 2, 3, 4), np.float32), np.ones((2, 3), bool)
    assert PlanArrays(states, mask, ("a", "b")).instructions == ("a", "b")
    one = PlanArrays.of_one(states[:, 0], mask[0], "a")
    assert one.hidden_states.shape == (1, 1, 3, 4) and one.attention_mask.shape == (1, 3)
    for wrong in (
        (states.astype(float), mask, ("a", "b")),
        (states[0], mask, ("a", "b")),
        (states, mask[:1], ("a", "b")),
        (states, mask, ("a",)),
        (states, ~mask, ("a", "b")),
    ):
        with pytest.raises(PlanArraysError):
            PlanArrays(*wrong)
