"""The door to the page: who may come in is decided here, before anything else sees a request.

The page's own server (viser) asks nobody who they are, so that it listens on a loopback address
that only this process knows, and every connection from outside comes through here:

- Host must name the address that the gate is bound to, where that is the machine's own loopback:
  no foreign site can pass for it by pointing its name here.
- Origin, where a browser states one, must be the page itself: no other site open in the same
  browser may drive the robot.
- On any other address a token is asked for as well, once in the query; after that it is a cookie.

What is let in is passed on byte by byte. There is no encryption: across networks that are not
trusted, reach the loopback address through a tunnel instead.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

SHORTEST_TOKEN = 16
_TRIED_PORTS = 20
_HEAD_LIMIT = 32 * 1024  # bytes of request line and headers
_HEAD_PATIENCE = 10.0  # s for a client to send them
_CHUNK = 64 * 1024  # bytes passed on at once

_GUARDED = (  # added to every answer: nobody may frame the page, nor learn its address from it
    b"X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
)
_ASK = """<!doctype html><meta charset="utf-8"><title>internvla_ros</title>
<style>body{font:16px/1.5 system-ui;display:grid;place-items:center;height:90vh;color:#ddd;
background:#16181c}form{display:flex;gap:.5em}input,button{font:inherit;padding:.4em .8em;
border-radius:6px;border:1px solid #555;background:#222;color:#eee}</style>
<div><h1>A token is needed</h1><p>dashboard_node printed it when it was started.</p>
<form><input name="token" type="password" autofocus><button>Open</button></form></div>"""


class GateError(RuntimeError):
    """The page cannot be offered as asked for."""


@dataclass(frozen=True)
class Request:
    """The head of an HTTP request: target is path and query, header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def is_websocket(self) -> bool:
        """Whether it asks for a websocket."""
        return self.headers.get("upgrade", "") == "websocket"


@dataclass(frozen=True)
class Refusal:
    """An answer instead of the page: status line, headers and text."""

    status: str
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self) -> bytes:
        """The answer as HTTP."""
        body = self.text.encode()
        kind = "text/html" if self.text.startswith("<!doctype") else "text/plain"
        lines = [
            f"HTTP/1.1 {self.status}",
            f"Content-Type: {kind}; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode() + b"\r\n" + _GUARDED + b"\r\n" + body


def parse_head(head: bytes) -> Request:
    """The request line and headers, up to the empty line.

    Raises:
        ValueError: that is no HTTP/1.1 head, or a header stands there twice.
    """
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        raise ValueError("the request line is not that of HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        key = name.lower()
        if not colon or not name or name != name.strip() or key in headers:
            raise ValueError("a header is malformed or stands there twice")
        headers[key] = value.strip()
    return Request(words[0], words[1], headers)


def is_loopback(host: str) -> bool:
    """Whether a host, as a name or an address, means only this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Rules:
    """Decides what is let in."""

    def __init__(self, *, local: bool, token: str, cookie: str) -> None:
        """
        Args:
            local: the gate is bound to a loopback address.
            token: to be asked for; "": none is.
            cookie: the name under which a browser keeps the token.
        """
        self._local = local
        self._token = token
        self._cookie = cookie

    def refusal(self, request: Request) -> Refusal | None:
        """What to answer instead of the page; None: let it in."""
        host = request.headers.get("host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if self._local and not is_loopback(name):
            return Refusal("403 Forbidden", "open this page by the address that was printed\n")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return Refusal("403 Forbidden", "another site may not use this page\n")
        if request.method != "GET":
            return Refusal("405 Method Not Allowed", headers=(("Allow", "GET"),))
        return self._ask(request) if self._token else None

    def _ask(self, request: Request) -> Refusal | None:
        """What to answer to who does not have the token as a cookie."""
        if self._same(self._kept(request)):
            return None
        given = parse_qs(urlsplit(request.target).query).get("token", [""])[0]
        if request.is_websocket or not self._same(given):
            return Refusal("401 Unauthorized", _ASK)
        keep = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Lax"
        return Refusal("303 See Other", headers=(("Location", "/"), ("Set-Cookie", keep)))

    def _kept(self, request: Request) -> str:
        """The token that the request's cookie holds."""
        try:
            cookies = SimpleCookie(request.headers.get("cookie", ""))
        except CookieError:
            return ""
        return cookies[self._cookie].value if self._cookie in cookies else ""

    def _same(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


class Gate:
    """Listens where the page is to be found and passes on what the rules let in.

    Runs in a thread of its own until it is closed.
    """

    def __init__(self, host: str, port: int, token: str = "") -> None:
        """Take the port, or the next one that is free (port 0: any); connections wait from now on.

        Args:
            host: name or address to listen on.
            port: first choice.
            token: asked for on addresses other than loopback; "": one is made.

        Raises:
            GateError: the host is unknown, no port is free, or the token is unfit.
        """
        fit = _fit(token)
        self._socket = _listen(host, port)
        address, self.port = self._socket.getsockname()[:2]
        self.local = ipaddress.ip_address(address).is_loopback
        self.token = "" if self.local else fit or secrets.token_hex(24)
        self.host = host
        self._rules = Rules(
            local=self.local, token=self.token, cookie=f"internvla_dashboard_{self.port}"
        )
        self._inner = ("", 0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)

    @property
    def url(self) -> str:
        """Where the page is found, with the token where one is needed."""
        name = self.host
        if name in ("", "0.0.0.0", "::"):
            name = socket.gethostname()
        if ":" in name:
            name = f"[{name}]"
        query = f"?token={self.token}" if self.token else ""
        return f"http://{name}:{self.port}/{query}"

    def open(self, inner: tuple[str, int]) -> None:
        """Start to let people in, to the page's own server at (host, port)."""
        self._inner = inner
        self._thread.start()
        started: Future[asyncio.Server] = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, sock=self._socket, limit=_HEAD_LIMIT), self._loop
        )
        self._server = started.result()

    def close(self) -> None:
        """Let nobody in any more and cut off who is inside."""
        if not self._thread.is_alive():
            self._socket.close()
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from outside, from its first byte to its last."""
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_PATIENCE)
            request = parse_head(head)
            refusal = self._rules.refusal(request)
        except (ValueError, asyncio.LimitOverrunError):
            refusal = Refusal("400 Bad Request", "this is not a request for a page\n")
        except (OSError, EOFError, TimeoutError):
            writer.close()
            return
        try:
            if refusal is not None:
                writer.write(refusal.encode())
                await writer.drain()
            else:
                await self._pass_on(request, reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # one side has gone
        finally:
            writer.close()

    async def _pass_on(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Join a client and the page's own server until one of them hangs up."""
        inner, outer = await asyncio.open_connection(*self._inner, limit=_HEAD_LIMIT)
        try:
            outer.write(_forwarded(request))
            answer = await inner.readuntil(b"\r\n\r\n")
            writer.write(answer[:-2] + _GUARDED + b"\r\n")
            ways = [asyncio.create_task(_pump(inner, writer))]
            if request.is_websocket:
                ways.append(asyncio.create_task(_pump(reader, outer)))
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            outer.close()


def _forwarded(request: Request) -> bytes:
    """The head of a request for the page's own server: one request a connection."""
    headers = {**request.headers, "connection": "Upgrade" if request.is_websocket else "close"}
    if request.is_websocket:  # the page's server looks for exactly this spelling
        headers["upgrade"] = "websocket"
    headers.pop("cookie", None)
    lines = [f"GET {request.target} HTTP/1.1", *(f"{k.title()}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until there are no more."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket on a port, or on one of the next ones."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise GateError(f"the dashboard's host '{host}' is unknown: {error}") from error
    last = port if port == 0 else min(port + _TRIED_PORTS, 65536) - 1
    for candidate in range(port, last + 1):
        try:
            return socket.create_server((address[0], candidate), family=family)
        except OSError as error:
            problem = error
    raise GateError(
        f"the dashboard cannot listen on {host}, port {port} to {last}: {problem.strerror}; "
        "give another one with the parameters host and port"
    ) from problem


def _fit(token: str) -> str:
    """The token itself, when it is hard enough to guess and a cookie can hold it."""
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isalnum()):
        raise GateError(
            f"the dashboard's token must be {SHORTEST_TOKEN} or more letters and digits; "
            "leave it empty and one is made"
        )
    return token
