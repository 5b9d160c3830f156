"""Frames: messages with boundaries, and a little control, inside the byte stream (docs/wire-stcp.md).

A frame is a word of four bytes, most significant first, and a body: bit 31 says control, bits 30 to 26
are zero, bits 25 to 0 are the body's length.  A body without bit 31 is one message.  A control body is a
kind and what belongs to it.  A `FrameReader` cuts what came into both: a length is judged with its
word, before a byte of the body is there, and what is held grows with bytes received.  Frames are not
fragmented, and records know nothing of them: a word may lie in two records, a record hold many frames.
"""

from __future__ import annotations

import enum
from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Final

from sealwire.errors import Alert, ConfigurationError, ProtocolError

if TYPE_CHECKING:
    from sealwire.wire import Buffer

#: The ALPN name of message mode (docs/wire-stcp.md); with an application, ``stcp/1:NAME``.
PROTOCOL: Final = b"stcp/1"

WORD_BYTES: Final = 4
#: The longest message the format allows; limits are smaller.
MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
_CONTROL: Final = 1 << 31
_RESERVED: Final = 0x7C00_0000
_LENGTH: Final = 0x03FF_FFFF
_WORD: Final = Struct(">I")
_TOKEN_BYTES: Final = 8

#: What a waiting message is charged beside its bytes: the object that holds them and its place in a queue.
MESSAGE_OVERHEAD_BYTES: Final = 48
# Pieces of a message below this are gathered, so that single bytes do not become an object each.
_GATHERED_BYTES: Final = 1_024


class Control(enum.IntEnum):
    """Kinds of control frames."""

    #: Eight bytes for the peer to send back.
    PING = 1
    #: Those of the newest ping that came.
    PONG = 2
    #: The sender means to close before long: finish what is under way, begin nothing.
    GO_AWAY = 3


#: Bytes of a control frame's body by kind; with the kind's own byte.
CONTROL_BODY_BYTES: Final[dict[int, int]] = {
    Control.PING: 1 + _TOKEN_BYTES,
    Control.PONG: 1 + _TOKEN_BYTES,
    Control.GO_AWAY: 1,
}
_LONGEST_CONTROL: Final = max(CONTROL_BODY_BYTES.values())


def protocol_name(messages: bool | str) -> bytes | None:
    """The ALPN name for the drivers' `messages`: True, the name of an application, or False for None.

    Raises:
        ConfigurationError: the name is not 1 to 248 characters of ASCII.
    """
    if messages is True:
        return PROTOCOL
    if messages is False:
        return None
    # RFC 7301 section 3.1: a protocol name has at most 255 bytes.
    if not messages.isascii() or not 1 <= len(messages) <= 255 - len(PROTOCOL) - 1:
        raise ConfigurationError(
            f"application {messages!r} is not 1 to 248 ASCII characters: choose another name"
        )
    return PROTOCOL + b":" + messages.encode("ascii")


def word_of(length: int) -> bytes:
    """The word in front of a message of `length` bytes."""
    return _WORD.pack(length)


def control_frame(kind: Control, token: bytes = b"") -> bytes:
    """A whole control frame."""
    return _WORD.pack(_CONTROL | (1 + len(token))) + bytes((kind,)) + token


class PlainFrameReader:
    """Cuts the opened byte stream into messages and control frames.

    Args:
        limit: the longest message taken, in bytes.

    Attributes:
        messages: whole messages, oldest first; take them with :meth:`take`.
        held: bytes held: those of messages with their overhead, and the part of a frame that came.
        ready: bytes of whole messages.
    """

    __slots__ = (
        "_head",
        "_is_control",
        "_missing",
        "_parts",
        "_parts_bytes",
        "held",
        "limit",
        "messages",
        "ready",
    )

    def __init__(self, limit: int) -> None:
        self.limit = min(limit, MAX_MESSAGE_BYTES)
        self.messages: deque[bytes] = deque()
        self.held = 0
        self.ready = 0
        self._head = b""  # of a word that is not whole
        self._missing = 0  # of a body that is not whole
        self._is_control = False
        self._parts: list[Buffer] = []
        self._parts_bytes = 0

    @property
    def count(self) -> int:
        """How many whole messages there are."""
        return len(self.messages)

    @property
    def cut(self) -> bool:
        """Whether the stream is inside a frame."""
        return bool(self._missing or self._head)

    def feed(self, content: bytes) -> list[tuple[Control, bytes]]:
        """Take the next bytes of the stream; the control frames they complete, kind and token.

        Raises:
            ProtocolError: decode_error for a word with reserved bits, an unknown control frame or one of
                a wrong length; illegal_parameter for a message above the limit.
        """
        controls: list[tuple[Control, bytes]] = []
        end = len(content)
        at = 0
        if self._missing:
            at = min(self._missing, end)
            self._add(content[:at])
            self._missing -= at
            if self._missing:
                return controls
            self._finish(b"".join(self._parts), controls)
            self._drop_parts()
        elif self._head:
            content = self._head + content
            end = len(content)
            self.held -= len(self._head)
            self._head = b""
        messages = self.messages
        unpack, limit = _WORD.unpack_from, self.limit
        while end - at >= WORD_BYTES:
            (length,) = unpack(content, at)
            at += WORD_BYTES
            self._is_control = length > limit and self._judge(length)
            length &= _LENGTH
            if length > end - at:
                self._missing = length - (end - at)
                if at < end:
                    self._add(content[at:])
                return controls
            body = content[at : at + length]
            at += length
            if self._is_control:
                self._finish(body, controls)
            else:
                messages.append(body)
                self.ready += length
                self.held += length + MESSAGE_OVERHEAD_BYTES
        if at < end:
            self._head = content[at:]
            self.held += end - at
            if self._head[0] & 0x7C:
                raise reserved()
        return controls

    def _judge(self, word: int) -> bool:
        """A word that is not simply a message's within the limit: whether it is a control frame's."""
        if word & _RESERVED:
            raise reserved()
        if word & _CONTROL:
            if not 1 <= word & _LENGTH <= _LONGEST_CONTROL:
                raise malformed(f"a control frame has {word & _LENGTH} bytes")
            return True
        raise too_long(word)

    def _add(self, part: bytes) -> None:
        self.held += len(part)
        if len(part) >= _GATHERED_BYTES:
            self._parts.append(part)
        elif self._parts and isinstance(self._parts[-1], bytearray):
            self._parts[-1] += part
        else:
            self._parts.append(bytearray(part))
        self._parts_bytes += len(part)

    def _drop_parts(self) -> None:
        self.held -= self._parts_bytes
        self._parts_bytes = 0
        self._parts.clear()

    def _finish(self, body: bytes, controls: list[tuple[Control, bytes]]) -> None:
        if not self._is_control:
            self.messages.append(body)
            self.ready += len(body)
            self.held += len(body) + MESSAGE_OVERHEAD_BYTES
            return
        kind = body[0]
        if CONTROL_BODY_BYTES.get(kind) != len(body):
            raise malformed(f"a control frame of kind {kind} has {len(body)} bytes")
        controls.append((Control(kind), body[1:]))

    def take(self) -> bytes | None:
        """The oldest whole message, None if there is none."""
        if not self.messages:
            return None
        message = self.messages.popleft()
        self.ready -= len(message)
        self.held -= len(message) + MESSAGE_OVERHEAD_BYTES
        return message

    def take_all(self) -> list[bytes]:
        """All whole messages, oldest first."""
        messages = list(self.messages)
        self.held -= self.ready + len(messages) * MESSAGE_OVERHEAD_BYTES
        self.ready = 0
        self.messages.clear()
        return messages

    def drop_newest(self, held: int) -> None:
        """Forget the newest messages until no more than `held` bytes are held."""
        while self.held > held and self.messages:
            message = self.messages.pop()
            self.ready -= len(message)
            self.held -= len(message) + MESSAGE_OVERHEAD_BYTES

    def drop_partial(self) -> None:
        """Forget the frame that is not whole."""
        self._drop_parts()
        self.held -= len(self._head)
        self._head = b""
        self._missing = 0


def too_long(length: int) -> ProtocolError:
    """The error of a message above the limit, its own or the format's."""
    if length > MAX_MESSAGE_BYTES:
        return ProtocolError(Alert.ILLEGAL_PARAMETER, f"a message of {length} bytes is above 32 MiB")
    reason = f"a message of {length} bytes is above the limit message_bytes"
    return ProtocolError(Alert.ILLEGAL_PARAMETER, reason, "message_bytes")


def reserved() -> ProtocolError:
    """The error of a word with reserved bits."""
    return malformed("a frame has reserved bits set")


def malformed(reason: str) -> ProtocolError:
    """The error of a frame that is none."""
    return ProtocolError(Alert.DECODE_ERROR, reason)
