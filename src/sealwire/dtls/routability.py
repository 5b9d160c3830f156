"""Return routability messages (RFC 9853 section 4) of one connection."""

from __future__ import annotations

import enum
from typing import Final

from sealwire.errors import Discard
from sealwire.telemetry import ConnectionCounters

# Type and cookie.
_MESSAGE_BYTES: Final = 9
# Several wait only if a peer checks again and again.
_MAX_MESSAGES: Final = 8


class PathMessage(enum.IntEnum):
    """Types of return routability messages."""

    CHALLENGE = 0
    RESPONSE = 1
    DROP = 2


class PathInbox:
    """Messages that came and wait for whoever knows the address they came from."""

    __slots__ = ("_counters", "_messages")

    def __init__(self, counters: ConnectionCounters) -> None:
        self._counters = counters
        self._messages: tuple[tuple[int, bytes], ...] = ()

    def __bool__(self) -> bool:
        return bool(self._messages)

    def receive(self, content: bytes) -> None:
        """Take the content of a record; what is malformed or one too many is ignored [9853-4]."""
        if len(content) != _MESSAGE_BYTES or len(self._messages) >= _MAX_MESSAGES:
            self._counters.discard(Discard.PATH_MESSAGE)
        else:
            self._messages += ((content[0], content[1:]),)

    def take(self) -> tuple[tuple[int, bytes], ...]:
        """What came since the last call, as (type, cookie)."""
        messages, self._messages = self._messages, ()
        return messages
