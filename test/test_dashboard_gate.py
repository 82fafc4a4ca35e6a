"""The door to the page: who is let in, what is asked of others, and that bytes pass unharmed."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvla_ros.dashboard import gate as gate_module
from internvla_ros.dashboard.gate import Gate, GateError, Refusal, Request, Rules, parse_head

TOKEN = "letters0and1digits2"
COOKIE = "internvla_dashboard_8080"
WEBSOCKET = {"upgrade": "websocket", "connection": "Upgrade"}


def request(target: str = "/", method: str = "GET", **headers: str) -> Request:
    return Request(method, target, {"host": "localhost:8080", **headers})


def status(rules: Rules, asked: Request) -> str:
    """The number that is answered, or "in"."""
    refusal = rules.refusal(asked)
    return "in" if refusal is None else refusal.status[:3]


@pytest.fixture
def here() -> Rules:
    return Rules(local=True, token="", cookie=COOKIE)


@pytest.fixture
def abroad() -> Rules:
    return Rules(local=False, token=TOKEN, cookie=COOKIE)


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:8080", "[::1]:8080"])
def test_this_machine_may_come_in(here: Rules, host: str) -> None:
    assert status(here, request(host=host)) == "in"
    assert status(here, request(host=host, origin=f"http://{host}", **WEBSOCKET)) == "in"


@pytest.mark.parametrize("host", ["evil.example", "192.168.1.5:8080", "localhost.evil.example", ""])
def test_a_foreign_name_for_this_machine_is_refused(here: Rules, host: str) -> None:
    assert status(here, request(host=host)) == "403"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:9999", "http://127.0.0.1:8080", ""]
)
def test_another_site_may_not_use_the_page(here: Rules, abroad: Rules, origin: str) -> None:
    """Not even one on this machine: a browser sends a page's own origin by the name it went by."""
    for rules in (here, abroad):
        cookie = f"{COOKIE}={TOKEN}"
        assert status(rules, request(origin=origin, cookie=cookie, **WEBSOCKET)) == "403"


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "get"])
def test_nothing_but_get(here: Rules, method: str) -> None:
    assert status(here, request(method=method)) == "405"


def test_a_token_in_the_address_becomes_a_cookie(abroad: Rules) -> None:
    refusal = abroad.refusal(request(f"/?token={TOKEN}", host="robot:8080"))
    assert refusal is not None and refusal.status.startswith("303")
    headers = dict(refusal.headers)
    assert headers["Location"] == "/"  # the token does not stay in the address bar
    assert headers["Set-Cookie"] == f"{COOKIE}={TOKEN}; Path=/; HttpOnly; SameSite=Lax"
    kept = headers["Set-Cookie"].partition(";")[0]
    assert status(abroad, request(host="robot:8080", cookie=kept)) == "in"
    assert status(abroad, request(cookie=f"other=1; {kept}", **WEBSOCKET)) == "in"


def test_a_websocket_needs_the_cookie(abroad: Rules) -> None:
    assert status(abroad, request(f"/?token={TOKEN}", **WEBSOCKET)) == "401"


@given(
    token=st.text(max_size=40).filter(lambda text: text != TOKEN),
    target=st.sampled_from(
        ["/", "/index.html", "/?token=", "/?Token=" + TOKEN, "/#token=" + TOKEN]
    ),
)
def test_no_other_token_opens(token: str, target: str) -> None:
    abroad = Rules(local=False, token=TOKEN, cookie=COOKIE)
    assert status(abroad, request(target)) == "401"
    assert status(abroad, request(f"/?token={token}")) == "401"
    assert status(abroad, request(target, cookie=f"{COOKIE}={token}")) == "401"


def test_who_is_refused_is_asked_for_the_token(abroad: Rules) -> None:
    refusal = abroad.refusal(request())
    assert refusal is not None
    answer = refusal.encode()
    assert b'name="token"' in answer and TOKEN.encode() not in answer
    assert b"X-Frame-Options: DENY" in answer and b"Connection: close" in answer


@given(st.binary(max_size=200))
def test_no_bytes_upset_the_parser(head: bytes) -> None:
    try:
        asked = parse_head(head + b"\r\n\r\n")
    except ValueError:
        return
    assert asked.target.startswith("/")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/2\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded\r\n\r\n",
        b"GET /\r\n\r\n",
    ],
)
def test_what_is_ambiguous_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match=r"HTTP/1|header"):
        parse_head(head)


class Inner:
    """Stands for the page's own server: keeps what it is sent, echoes what follows an upgrade."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._socket.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += connection.recv(1)
                self.heads.append(head)
                if b"Upgrade: websocket" not in head:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
                    continue
                connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                while data := connection.recv(65536):
                    connection.sendall(data)


@pytest.fixture
def inner() -> Iterator[Inner]:
    server = Inner()
    yield server
    server.close()


def ask(gate: Gate, target: str = "/", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers that a browser gets."""
    connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=10.0)
    connection.request("GET", target, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def test_the_page_comes_through(inner: Inner) -> None:
    gate = Gate("127.0.0.1", 0)
    gate.open(inner.address)
    try:
        code, body, headers = ask(gate, "/a?b=c", Cookie="other=secret")
        assert (code, body) == (200, b"page")
        assert headers["X-Frame-Options"] == "DENY"
        assert inner.heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
        assert b"Connection: close" in inner.heads[0] and b"secret" not in inner.heads[0]
        assert ask(gate, "/", Host="evil.example")[0] == 403
        assert len(inner.heads) == 1
        assert gate.url == f"http://127.0.0.1:{gate.port}/"
    finally:
        gate.close()


def test_a_websocket_passes_both_ways(inner: Inner) -> None:
    gate = Gate("127.0.0.1", 0)
    gate.open(inner.address)
    sent = bytes(range(256)) * 4096
    head = f"GET / HTTP/1.1\r\nHost: localhost:{gate.port}\r\nUpgrade: websocket\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", gate.port), timeout=10.0) as connection:
            connection.sendall(head.encode())
            writer = threading.Thread(target=connection.sendall, args=(sent,))
            writer.start()
            received = b""
            while not received.endswith(sent):
                data = connection.recv(65536)
                assert data, "the connection was cut"
                received += data
            writer.join()
            assert received.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    finally:
        gate.close()


def test_on_other_addresses_a_token_is_made_and_asked_for(
    inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module.socket, "gethostname", lambda: "robot")
    gate = Gate("0.0.0.0", 0)
    gate.open(inner.address)
    try:
        assert len(gate.token) >= 32
        assert gate.url == f"http://robot:{gate.port}/?token={gate.token}"
        assert ask(gate)[0] == 401
        assert ask(gate, "/?token=wrong")[0] == 401
        assert not inner.heads
        code, _, headers = ask(gate, f"/?token={gate.token}")
        assert code == 303
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert ask(gate, Cookie=cookie)[0] == 200
    finally:
        gate.close()


def test_a_token_of_ones_own() -> None:
    gate = Gate("0.0.0.0", 0, TOKEN)
    assert gate.token == TOKEN
    gate.close()


@pytest.mark.parametrize(
    "token", ["short", "with spaces in it 123", "semi;colon;semi;colon", "é" * 20]
)
def test_an_unfit_token(token: str) -> None:
    with pytest.raises(GateError, match="16 or more letters and digits"):
        Gate("0.0.0.0", 0, token)


def test_a_port_that_is_taken_makes_room_for_the_next() -> None:
    first = Gate("127.0.0.1", 0)
    second = Gate("127.0.0.1", first.port)
    assert first.port < second.port < first.port + 20
    first.close()
    second.close()


def test_no_port_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "_TRIED_PORTS", 1)
    taken = Gate("127.0.0.1", 0)
    with pytest.raises(GateError, match=rf"cannot listen on 127.0.0.1, port {taken.port} to"):
        Gate("127.0.0.1", taken.port)
    taken.close()


def test_an_unknown_host() -> None:
    with pytest.raises(GateError, match=r"host 'no\.such\.host\.invalid' is unknown"):
        Gate("no.such.host.invalid", 0)


def test_closing_cuts_off_who_is_inside(inner: Inner) -> None:
    gate = Gate("127.0.0.1", 0)
    gate.open(inner.address)
    connection = socket.create_connection(("127.0.0.1", gate.port), timeout=10.0)
    head = f"GET / HTTP/1.1\r\nHost: localhost:{gate.port}\r\nUpgrade: websocket\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(12) == b"HTTP/1.1 101"
    gate.close()
    while connection.recv(4096):
        pass
    connection.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", gate.port), timeout=2.0)


def test_what_is_refused_says_so_in_plain_text() -> None:
    answer = Refusal("403 Forbidden", "no\n").encode()
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n") and answer.endswith(b"\r\n\r\nno\n")
