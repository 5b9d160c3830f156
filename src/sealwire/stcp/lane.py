"""Which ways of data a stream connection has: beside the long one in Python the short one, compiled.

The classes here are beneath those of the connection and hold what the short way (`_lane`) looks at:
:class:`Lane` beneath the connection itself, :class:`Queues` beneath its message mode, :class:`Sending`
beneath what goes out.  Without the compiled modules they are empty, and everything goes the long way, which
says how it is: a short way does all of what the long one would do with simple data, or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from sealwire.limits.charging import AccountSums, PlainAccountSums
from sealwire.stcp.frames import PlainFrameReader

if TYPE_CHECKING:
    from sealwire.wire import Buffer


class PlainQueues:
    """What of message mode the short way looks at."""

    __slots__ = (
        "_account",
        "_charged",
        "_controls",
        "_heard_at",
        "_limits",
        "_outgoing",
        "_reader",
        "_rest",
        "_run",
        "peer_going_away",
        "waiting",
    )


class PlainSending:
    """What of the sending half of the record layer the short way looks at."""

    __slots__ = ("_padding", "_sealer", "held", "inner_limit", "used")


class PlainLane:
    """A connection without a short way."""

    def receive_shortly(self, data: Buffer, now: float | None) -> bool:
        """Take what came from the network; False, and nothing was taken, if that is not for the short way."""
        return False

    def write_shortly(self, data: Buffer) -> bool:
        """Queue a message; False, and nothing was taken, if that is not for the short way."""
        return False

    def send_shortly(self, data: Buffer, write: Callable[[bytes], int]) -> bool:
        """As :meth:`sealwire.stcp.Connection.send_through`; False, and nothing was done, if not that way."""
        return False


if TYPE_CHECKING:
    FrameReader = PlainFrameReader
    Queues = PlainQueues
    Sending = PlainSending
    Lane = PlainLane
else:

    def _choose():
        """The compiled classes where they are built, and what they stand on as well."""
        if os.environ.get("SEALWIRE_PURE") != "1" and AccountSums is not PlainAccountSums:
            try:
                from sealwire.stcp import _frames, _lane
            except ImportError as error:
                if os.environ.get("SEALWIRE_REQUIRE_COMPILED") == "1":
                    raise ImportError(f"SEALWIRE_REQUIRE_COMPILED=1, but {error}") from error
            else:
                return _frames.FrameReader, _lane.Queues, _lane.Sending, _lane.Lane
        return PlainFrameReader, PlainQueues, PlainSending, PlainLane

    FrameReader, Queues, Sending, Lane = _choose()
