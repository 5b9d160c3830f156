"""Who seals and opens the records of application data: the one place a driver asks.

Here it is always the connection itself.  Where the kernel can do it (TCP_ULP "tls"), a direction's keys go
there after the handshake: then `sender` hands plaintext to `write`, and `receiver` takes what the kernel
has opened, with the same signatures; the engine keeps everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sealwire.stcp.connection import Connection
    from sealwire.wire import Buffer

#: Gives the network bytes; how many of them it took.
Write = Callable[[bytes], int]


class Receive(Protocol):
    """See :meth:`sealwire.stcp.Connection.receive_data`."""

    def __call__(self, data: Buffer, now: float | None = None) -> None: ...


def sender(connection: Connection) -> Callable[[Buffer, Write], bool]:
    """What the driver gives application data to, with the way to its socket."""
    return connection.send_through


def receiver(connection: Connection) -> Receive:
    """What the driver gives to what it has read from its socket."""
    return connection.receive_data


def is_own(connection: Connection) -> bool:
    """Whether that is the connection itself in both directions: then a driver may use its short ways."""
    return True
