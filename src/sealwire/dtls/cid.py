"""Connection ids over time: which ones stand in records, and the messages that change them.

RFC 9147 section 9: either side may be given further ids by NewConnectionId, at once (immediate) or for
later (spare), and may ask for some by RequestConnectionId.  An id is used on one path only, so that
who watches two paths cannot tell that they are one connection [9147-9-9].
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from sealwire.errors import Alert, Error, ProtocolError
from sealwire.tls13.contract import ConnectionIds
from sealwire.tls13.messages import HandshakeType, frame
from sealwire.wire import Reader, Writer, decode_error

# Ids we accept records under, and spare ones of the peer that we keep [9147-9-4].
_MAX_IDS: Final = 8
# Ids of ours that are not counted any more, under which records may still be on their way.
_MAX_LINGERING: Final = 8
# Requests answered before data must come in between [9147-9-13].
_MAX_REQUESTS: Final = 16
# What we ask for by ourselves before we send data in between: well below what a peer like us answers.
_MAX_OWN_REQUESTS: Final = 6


class Usage(enum.IntEnum):
    """What a NewConnectionId wants of its ids."""

    IMMEDIATE = 0
    SPARE = 1


def encode_new_connection_id(cids: list[bytes], usage: Usage) -> bytes:
    """A NewConnectionId message, TLS form."""
    writer = Writer()
    with writer.length16():
        for cid in cids:
            writer.vector8(cid)
    writer.u8(usage)
    return frame(HandshakeType.NEW_CONNECTION_ID, writer.finish())


def decode_new_connection_id(reader: Reader) -> tuple[list[bytes], Usage]:
    """Ids and usage; ProtocolError for another shape."""
    block = reader.sub16()
    cids: list[bytes] = []
    while block.remaining:
        cids.append(block.vector8())
    usage = reader.u8()
    reader.finish()
    if usage not in (Usage.IMMEDIATE, Usage.SPARE):
        raise ProtocolError(Alert.ILLEGAL_PARAMETER, f"NewConnectionId has usage {usage}")
    return cids, Usage(usage)


def encode_request_connection_id(count: int) -> bytes:
    """A RequestConnectionId message, TLS form."""
    return frame(HandshakeType.REQUEST_CONNECTION_ID, bytes((count,)))


def _decode_ids(reader: Reader) -> tuple[bytes, ...]:
    block = reader.sub16()
    cids = []
    while block.remaining:
        cids.append(block.vector8())
    return tuple(cids)


class CidPool:
    """The ids of one connection, both ways.

    Attributes:
        ours: ids the peer may put into records, oldest first.
        requests_sent: requests of ours since we last sent data.
        retired: ids that records to us may carry no more; whoever routes by them empties it.
        current: the id our records carry.
    """

    __slots__ = (
        "_agreed",
        "_issue",
        "_left",
        "_lingering",
        "_new_pending",
        "_owed",
        "_replaced",
        "_request_pending",
        "_requests",
        "_spare",
        "_superseded",
        "_wanted",
        "current",
        "ours",
        "requests_sent",
        "retired",
    )

    def __init__(self, agreed: ConnectionIds, issue: Callable[[int], bytes], wanted: int = 0) -> None:
        """`issue` makes another id of so many bytes for records to us; `wanted` spare ones are asked for."""
        self._agreed = agreed
        self._issue = issue
        self.ours: tuple[bytes, ...] = (agreed.ours,) if agreed.ours else ()
        self.retired: tuple[bytes, ...] = ()
        # How many of `ours` an immediate offer of ours replaced, once the peer has it.
        self._superseded = 0
        # The same of the offer on its way.
        self._replaced = 0
        self.current = agreed.theirs
        self._spare: tuple[bytes, ...] = ()
        self._new_pending = False
        self._request_pending = False
        self._owed = 0
        self._requests = 0
        # A peer without return routability could not follow us anyway, and may not know the messages.
        self._wanted = wanted if agreed.return_routability else 0
        self.requests_sent = 0
        # How many of `ours` the peer has gone past: its newest record carries a later one.
        self._left = 0
        self._lingering: tuple[bytes, ...] = ()

    @property
    def accepted(self) -> tuple[bytes, ...]:
        """All ids records to us may carry: `ours`, and before them those the network may still bring."""
        return self._lingering + self.ours

    def freeze(self) -> bytes:
        """All of it, for :meth:`thaw` in another process."""
        writer = Writer()
        for cids in (self.ours, (self.current,), self._spare, self._lingering):
            with writer.length16():
                for cid in cids:
                    writer.vector8(cid)
        for number in (self._superseded, self._replaced, self._owed, self._requests, self._wanted):
            writer.u16(number)
        writer.u8(self.requests_sent)
        writer.u8(self._left)
        writer.u8(self._new_pending | self._request_pending << 1)
        return writer.finish()

    def thaw(self, data: bytes) -> None:
        """Be as the one that was frozen.  ProtocolError(decode_error) for anything else."""
        reader = Reader(data, "connection ids")
        ours, current, spare, lingering = (_decode_ids(reader) for _ in range(4))
        if len(current) != 1:
            raise decode_error("connection ids")
        self.ours, (self.current,), self._spare, self._lingering = ours, current, spare, lingering
        self._superseded, self._replaced, self._owed = reader.u16(), reader.u16(), reader.u16()
        self._requests, self._wanted = reader.u16(), reader.u16()
        self.requests_sent, self._left, pending = reader.u8(), reader.u8(), reader.u8()
        self._new_pending, self._request_pending = bool(pending & 1), bool(pending & 2)
        reader.finish()

    @property
    def spare(self) -> int:
        """Ids of the peer kept for later."""
        return len(self._spare)

    # --- what the peer sends ---------------------------------------------------------------

    def receive(self, kind: HandshakeType, body: Reader) -> list[bytes]:
        """Take a NewConnectionId or RequestConnectionId; returns messages to send in answer.

        Raises:
            ProtocolError: ids were not negotiated, or their use breaks section 9.
        """
        if kind is HandshakeType.NEW_CONNECTION_ID:
            self._receive_new(*decode_new_connection_id(body))
            return []
        count = body.u8()
        body.finish()
        if not self.ours:
            # [9147-9-7, 9147-9-8, 9147-9-14]
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "RequestConnectionId without connection ids")
        self._requests += 1
        if self._requests > _MAX_REQUESTS:
            # [9147-9-13]
            raise ProtocolError(Alert.TOO_MANY_CIDS_REQUESTED, "too many connection ids were requested")
        self._owed = max(self._owed, count)
        return self._answer()

    def _receive_new(self, cids: list[bytes], usage: Usage) -> None:
        if not self._agreed.theirs:
            # [9147-9-6, 9147-9-8, 9147-9-14]
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "NewConnectionId without connection ids")
        if not all(cids):
            raise ProtocolError(Alert.ILLEGAL_PARAMETER, "NewConnectionId holds an empty id")
        if self._request_pending and not cids and usage is Usage.SPARE:
            # [9147-9-12]: the peer has none to give, and asking again would not change that.
            self._wanted = 0
        self._request_pending = False
        if usage is Usage.IMMEDIATE:
            # [9147-9-1]: one of the new ones from here on, and what was spare is not wanted any more.
            if not cids:
                raise ProtocolError(Alert.ILLEGAL_PARAMETER, "NewConnectionId names no id to use at once")
            self.current, *cids = cids
            self._spare = ()
        for cid in cids:
            # [9147-9-3, 9147-9-4]: in the order given, and not more than we have room for.
            if cid not in self._spare and cid != self.current and len(self._spare) < _MAX_IDS:
                self._spare += (cid,)

    def data_received(self) -> None:
        """Application data came: requests before it were no flood."""
        self._requests = 0

    # --- what we send ----------------------------------------------------------------------

    def offer(self, count: int, usage: Usage) -> bytes:
        """A NewConnectionId with up to `count` fresh ids.

        Raises:
            ValueError: `count` is not positive.
            Error: ids were not negotiated in this direction, one is on its way, or none is left.
        """
        if count < 1:
            raise ValueError(f"{count} connection ids cannot be offered")
        if not self.ours:
            # [9147-9-6, 9147-9-14]
            raise Error("this side receives no connection ids, so there are none to give out")
        if self._new_pending:
            # [9147-9-5, 9147-5.8.4-3]
            raise Error("a NewConnectionId is not acknowledged yet")
        self._make_room()
        return self._offer(count, usage)

    def _offer(self, count: int, usage: Usage) -> bytes:
        fresh = self._fresh(min(count, self._room(usage)))
        if not fresh:
            raise Error(f"{len(self.ours)} connection ids are in use already")
        self._replaced = len(self.ours) if usage is Usage.IMMEDIATE else 0
        self.ours += tuple(fresh)
        self._new_pending = True
        return encode_new_connection_id(fresh, usage)

    def _room(self, usage: Usage) -> int:
        # One place stays free of spare ids: an immediate offer, which retires all before it, needs it.
        return _MAX_IDS - len(self.ours) - (usage is Usage.SPARE)

    def _fresh(self, n: int) -> list[bytes]:
        fresh: list[bytes] = []
        # All are as long as the first, because a header does not say how long its id is; and of short
        # ones not every draw is new.
        for _ in range(4 * n):
            cid = self._issue(len(self.ours[0]))
            if len(fresh) < n and cid not in fresh and cid not in self.accepted:
                fresh.append(cid)
        return fresh

    def _make_room(self) -> None:
        """Retire what an immediate offer replaced.

        Not when the peer acknowledges it: records under the old ids are still on their way then.
        """
        self._retire(self._superseded)
        self._superseded = 0

    def _retire(self, n: int) -> None:
        # What is asked for or offered next may overtake a record under an id the peer has given up, so the
        # last few of those still open; who changes ids faster than the network forgets loses some.
        lingering = self._lingering + self.ours[:n]
        past = max(len(lingering) - _MAX_LINGERING, 0)
        self.retired += lingering[:past]
        self._lingering = lingering[past:]
        self.ours = self.ours[n:]
        self._left = max(self._left - n, 0)

    def seen(self, cid: bytes) -> None:
        """The peer's newest record carries `cid`."""
        if cid in self.ours:
            self._left = max(self._left, self.ours.index(cid))

    def request(self, count: int) -> bytes:
        """A RequestConnectionId.

        Raises:
            Error: the peer receives no ids, or one is not answered yet.
        """
        if not self._agreed.theirs:
            raise Error("the peer receives no connection ids, so there are none to ask for")
        if self._request_pending:
            # [9147-9-11]
            raise Error("a RequestConnectionId is not answered yet")
        if not 1 <= count <= 255:
            raise ValueError(f"{count} connection ids cannot be asked for")
        self._request_pending = True
        self.requests_sent += 1
        return encode_request_connection_id(count)

    def top_up(self) -> list[bytes]:
        """A request for what is missing of the spare ids wanted, if it may be made now [9147-9-9]."""
        missing = self._wanted - len(self._spare)
        if (
            missing <= 0
            or not self._agreed.theirs
            or self._request_pending
            or self.requests_sent >= _MAX_OWN_REQUESTS
        ):
            return []
        return [self.request(missing)]

    def acknowledged(self) -> list[bytes]:
        """Our NewConnectionId arrived; returns messages that waited for that."""
        self._new_pending = False
        # [9147-9-1]: what the peer sends from here on carries a new one.
        self._superseded += self._replaced
        self._replaced = 0
        return self._answer()

    def _answer(self) -> list[bytes]:
        if not self._owed or self._new_pending:
            return []
        wanted, self._owed = self._owed, 0
        # [9147-9-10, 9147-9-12]: what was asked for, as far as there is room.
        if self._room(Usage.SPARE) < wanted:
            self._make_room()
            # RFC 9147 has no message to give ids back.  Ids are used in order [9147-9-3], so those the
            # peer has gone past make room for the ones it asks for.
            self._retire(self._left)
        room = min(wanted, self._room(Usage.SPARE))
        if room <= 0:
            return [self._none()]
        return [self._offer(room, Usage.SPARE)]

    def _none(self) -> bytes:
        # [9147-9-12]: even none may be given, and the asker must know.
        self._new_pending = True
        return encode_new_connection_id([], Usage.SPARE)

    def rotate(self) -> bool:
        """Go over to a spare id of the peer's, if there is one: whether there was [9147-9-2]."""
        if not self._spare:
            return False
        self.current, *spare = self._spare
        self._spare = tuple(spare)
        return True
