"""What the capturing process and its signer say to each other, over a socket pair.

A message is its length (32 bits), a kind, and a body: rows as they are, everything else in JSON.
Both ends are one program of one version, so there is no more to it.
"""

from __future__ import annotations

import enum
import json
import socket
import struct
from typing import Any, Final

from sealwire.errors import Error

HEAD: Final = struct.Struct("<IB")
ROWS: Final = struct.Struct("<I")
#: Longest body; rows are sent in pieces of about one MiB.
BODY_MAXIMUM_BYTES: Final = 1 << 22


class Kind(enum.IntEnum):
    """Kinds of message; TAKEN, READY, FAILED and DONE come from the signer."""

    ROWS = 1
    COUNTERS = 2
    LOST = 3
    STOP = 4
    READY = 16
    TAKEN = 17
    FAILED = 18
    DONE = 19


def message(kind: Kind, body: bytes) -> bytes:
    return HEAD.pack(len(body), kind) + body


def json_message(kind: Kind, /, **facts: Any) -> bytes:
    return message(kind, json.dumps(facts).encode())


class Messages:
    """The messages that arrive on a socket."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._buffer = bytearray()

    def read(self, wait: bool = True) -> tuple[Kind, bytes] | None:
        """The next message; None at the end of the stream, or if `wait` is false and none is there.

        Raises OSError, and Error for what is no message.
        """
        while True:
            if len(self._buffer) >= HEAD.size:
                length, kind = HEAD.unpack_from(self._buffer)
                if length > BODY_MAXIMUM_BYTES:
                    raise Error("the signer's socket carries something else")
                if len(self._buffer) >= HEAD.size + length:
                    body = bytes(self._buffer[HEAD.size : HEAD.size + length])
                    del self._buffer[: HEAD.size + length]
                    return Kind(kind), body
            try:
                data = self._stream.recv(1 << 20, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            if not data:
                if not wait:
                    raise ConnectionResetError("the signer ended")
                return None
            self._buffer += data
