"""What may go wrong with a remote policy."""

from __future__ import annotations


class PolicyClientError(RuntimeError):
    """The remote policy did not do what it was asked for."""


class ServerUnreachable(PolicyClientError):  # noqa: N818
    """There is no connection, it broke, or no answer came in time; later it may be otherwise."""


class ServerError(PolicyClientError):
    """The server said that it cannot do this, and why, or answers in an unknown way."""
