"""What holds a descriptor says so when it is dropped without being closed.

Python's own sockets and transports warn like that; these objects say what the descriptor was for, and
are entered with the registry of :mod:`sealwire.ownership` while somebody watches.
"""

from __future__ import annotations

import socket
import warnings

from sealwire import ownership


class HoldsDescriptor:
    """Base of what owns a socket: :meth:`_hold` once it does, :meth:`_let_go` once it is closed."""

    _held: tuple[socket.socket, str] | None = None

    def _hold(self, sock: socket.socket, what: str) -> None:
        """This object owns `sock`; `what` for, in words without secrets."""
        self._held = sock, what
        ownership.own(ownership.Kind.SOCKET, self)

    def _let_go(self) -> None:
        """The descriptor is closed, or somebody else's.  May be called again."""
        self._held = None
        ownership.let_go(self)

    def __del__(self) -> None:
        # One that could not be made holds a socket that somebody else has closed.
        if self._held is not None and self._held[0].fileno() >= 0:
            warnings.warn(f"unclosed {self._held[1]}", ResourceWarning, source=self, stacklevel=1)
