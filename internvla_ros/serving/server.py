"""The policy server: a websocket, one request a message, carried out one after the other.

Compatible with the released policy server, whose clients can talk to it: after an error they get
what looks like a traceback as a text frame, then the connection is closed. Paths and source lines
stay here. There is no encryption: across networks that are not trusted, put a proxy with TLS in
front (`wss://`) or use a tunnel.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import itertools
import json
import logging
import re
import signal
import socket
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.protocol import State

from internvla_ros.serving.codec import CodecError, decode, encode
from internvla_ros.serving.fields import RequestError
from internvla_ros.serving.protocol import (
    CLOSE_REASON,
    DEFAULT_PORT,
    INTERNAL_ERROR,
    KEY_VARIABLE,
    Ping,
    Request,
    failure,
    is_own,
    parse,
    reply_type,
    request_id,
    success,
)
from internvla_ros.serving.service import DeviceError, PolicyService

MEGABYTE = 1 << 20
SHORTEST_KEY = 16
_GOING_AWAY = 1001
_STOP_PATIENCE = 10.0  # s for requests in work to be finished
_READ_AHEAD = 2  # messages of one client
_PATH = re.compile(r"(?<![\w.])~?(?:/[\w.@+-]+){2,}/?")

# What websockets has to say of broken handshakes is of no use to who runs the server.
_QUIET = logging.getLogger("internvla_ros.serving.websockets")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class ServerStartError(RuntimeError):
    """The server cannot be started as asked for."""


@dataclass(frozen=True)
class ServerSettings:
    """Where to listen and to whom.

    Attributes:
        host: name or address to listen on.
        port: 0: any that is free.
        api_key: asked of every client ("Authorization: Api-Key ..."); "": none is.
        insecure: listen on addresses other than loopback without a key.
        max_size: bytes of a message at most.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    api_key: str = field(default="", repr=False)
    insecure: bool = False
    max_size: int = 64 * MEGABYTE


class PolicyServer:
    """Listens until SIGINT, SIGTERM or `stop`, then finishes what it is at."""

    def __init__(self, settings: ServerSettings, say: Callable[[str], None]) -> None:
        """Take the port; nobody is let in before `run`.

        Args:
            settings: where to listen and to whom.
            say: is told in words what happens.

        Raises:
            ServerStartError: the address cannot be had, or a key is missing or unfit.
        """
        self._settings = settings
        self._say = say
        self._socket = _bound(settings)
        self.host, self.port = self._socket.getsockname()[:2]
        try:
            _check_key(settings, ipaddress.ip_address(self.host).is_loopback)
        except ServerStartError:
            self._socket.close()
            raise
        self.started = threading.Event()
        self._clients = itertools.count(1)
        self._incidents = itertools.count(1)
        self._present = self._waiting = self._answered = 0
        self._busy: set[ServerConnection] = set()

    @property
    def url(self) -> str:
        """Where clients find it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}"

    def run(self, service: PolicyService, warm_up: Callable[[], None] | None = None) -> None:
        """Answer requests until told to stop. All work is done in one thread, `warm_up` first."""
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy")
        try:
            if warm_up is not None:
                worker.submit(warm_up).result()
            asyncio.run(self._serve(service, worker))
        finally:
            worker.shutdown(cancel_futures=True)
            self._socket.close()

    def stop(self) -> None:
        """Let `run` come to its end; may be called from any thread once it has started."""
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def _serve(self, service: PolicyService, worker: ThreadPoolExecutor) -> None:
        self._service, self._worker = service, worker
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._loop.add_signal_handler(number, self._stopping.set)
        server = await serve(
            self._converse,
            sock=self._socket,
            compression=None,
            max_size=self._settings.max_size,
            max_queue=_READ_AHEAD,
            origins=[None],  # no browser: any site open in one could reach this machine's loopback
            process_request=self._let_in,
            logger=_QUIET,
        )
        self._say(f"ready on {self.url}")
        self.started.set()
        await self._stopping.wait()
        await self._end(server)

    async def _end(self, server: Server) -> None:
        """Let nobody in, finish the requests in work, and say good-bye."""
        self._say(f"stopping; finishing {self._waiting} requests")
        server.close(close_connections=False)
        idle = [each for each in server.connections if each not in self._busy]
        await asyncio.gather(*(each.close(_GOING_AWAY) for each in idle))
        try:
            await asyncio.wait_for(server.wait_closed(), _STOP_PATIENCE)
        except TimeoutError:
            self._say(f"gave up on {self._waiting} requests")
            for each in server.connections:
                each.transport.abort()

    def _let_in(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """What to answer instead of a websocket; None: let the client in."""
        if request.path.split("?")[0] == "/healthz":
            return self._health(connection)
        key = self._settings.api_key
        given = " ".join(request.headers.get_all("Authorization"))
        if key and not hmac.compare_digest(given.encode(), f"Api-Key {key}".encode()):
            self._say(f"refused {_peer(connection)}: {'wrong' if given else 'no'} API key")
            return connection.respond(
                HTTPStatus.UNAUTHORIZED, "this server asks for 'Authorization: Api-Key ...'\n"
            )
        return None

    def _health(self, connection: ServerConnection) -> Response:
        state = {
            "status": "stopping" if self._stopping.is_set() else "ok",
            "clients": self._present,
            "waiting": self._waiting,
            "answered": self._answered,
        }
        response = connection.respond(HTTPStatus.OK, json.dumps(state) + "\n")
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    async def _converse(self, connection: ServerConnection) -> None:
        """One client, from its first message to its last."""
        number = next(self._clients)
        self._present += 1
        self._say(f"client {number} came from {_peer(connection)}")
        try:
            await connection.send(encode(self._service.metadata))
            async for frame in connection:
                self._busy.add(connection)
                goes_on = await self._reply(connection, frame)
                self._busy.discard(connection)
                if not goes_on or self._stopping.is_set():
                    break
            if self._stopping.is_set():
                await connection.close(_GOING_AWAY)
        except ConnectionClosed:
            pass
        finally:
            self._busy.discard(connection)
            self._present -= 1
            self._say(f"client {number} left")

    async def _reply(self, connection: ServerConnection, frame: str | bytes) -> bool:
        """Answer one message; false after an error that ends the conversation."""
        try:
            await connection.send(await self._answer(connection, frame))
        except ConnectionClosed:
            raise
        except Exception as error:
            name, words = self._told(error)
            await connection.send(f"Traceback (most recent call last):\n{name}: {words}")
            await connection.close(INTERNAL_ERROR, CLOSE_REASON)
            return False
        return True

    async def _answer(self, connection: ServerConnection, frame: str | bytes) -> bytes:
        if isinstance(frame, str):
            raise RequestError("a request is a binary message, this is a text")
        message = decode(frame)
        given_id = request_id(message)
        try:
            request = parse(message)
            data = await self._carry_out(connection, request)
            answer = encode(success(reply_type(request), given_id, data))
        except DeviceError as error:
            answer = encode(failure("init_result", given_id, str(error)))
        except ConnectionClosed:
            raise
        except Exception as error:
            if not is_own(message):
                raise
            answer = encode(failure(f"{message['type']}_result", given_id, self._told(error)[1]))
        self._answered += 1
        return answer

    async def _carry_out(self, connection: ServerConnection, request: Request) -> Any:
        """The data of the answer, worked out when all earlier requests have been."""
        if isinstance(request, Ping):
            return None
        self._waiting += 1
        try:
            return await self._loop.run_in_executor(self._worker, self._work, connection, request)
        finally:
            self._waiting -= 1

    def _work(self, connection: ServerConnection, request: Request) -> Any:
        if connection.state is not State.OPEN:
            raise RequestError("whoever asked has gone")
        return self._service.carry_out(request)

    def _told(self, error: Exception) -> tuple[str, str]:
        """An error's name and words as clients may see them; what they may not, is said here."""
        if isinstance(error, RequestError | CodecError):
            return type(error).__name__, str(error)
        if isinstance(error, ValueError):  # the policy's own words about what it was given
            return type(error).__name__, _PATH.sub("<path>", str(error))
        incident = next(self._incidents)
        self._say(f"incident {incident}:\n{''.join(traceback.format_exception(error)).rstrip()}")
        return "ServerError", (
            f"the policy failed with {type(error).__name__}; the server's log says more under "
            f"incident {incident}"
        )


def _bound(settings: ServerSettings) -> socket.socket:
    """A socket that has the address and does not listen yet."""
    where = f"{settings.host}, port {settings.port}"
    if not 0 <= settings.port < 1 << 16:
        raise ServerStartError(f"there is no port {settings.port}; give one in 0..65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ServerStartError(f"the server's address {where} is unknown: {error}") from error
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        found.close()
        raise ServerStartError(
            f"the server cannot listen on {where}: {error.strerror}; give others with --host and "
            "--port"
        ) from error
    return found


def _check_key(settings: ServerSettings, local: bool) -> None:
    key = settings.api_key
    if key and (len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable()):
        raise ServerStartError(f"an API key has {SHORTEST_KEY} or more printable ASCII characters")
    if not local and not key and not settings.insecure:
        raise ServerStartError(
            f"{settings.host} can be reached from other machines: set a key in {KEY_VARIABLE}, "
            "or allow everybody with --insecure"
        )


def _peer(connection: ServerConnection) -> str:
    address = connection.remote_address
    return str(address[0]) if address else "somewhere"
