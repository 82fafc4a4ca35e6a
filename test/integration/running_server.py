"""A policy server in a thread of the tests' own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from internvla_ros.serving.server import PolicyServer, ServerSettings


class Serving:
    """The server, what it has said so far, and the thread that it runs in."""

    def __init__(self, service: Any, **settings: Any) -> None:
        self.said: list[str] = []
        self.server = PolicyServer(ServerSettings(**{"port": 0, **settings}), self.said.append)
        self.thread = threading.Thread(target=self.server.run, args=(service,))
        self.thread.start()
        assert self.server.started.wait(30.0)

    @property
    def url(self) -> str:
        return self.server.url

    def stop(self) -> None:
        """Tell it to stop and wait until it has."""
        if self.thread.is_alive():
            self.server.stop()
        self.thread.join(30.0)
        assert not self.thread.is_alive()


@contextmanager
def serving(service: Any, **settings: Any) -> Iterator[Serving]:
    """A server on a free port of this machine; it is stopped at the end."""
    running = Serving(service, **settings)
    try:
        yield running
    finally:
        running.stop()
