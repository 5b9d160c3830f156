"""An idle connection has no parts: what is left of it is its keys, their numbers, and some hundred bytes.

Everything that a hand-over to another process takes along is written down as for one (dtls/handover.py),
together with what only this process knows: counters, timers, the numbers of the sending keys.  It is read
once, so no number is used twice; the openers stay as they are, with their windows.

Whoever asks for a part of a connection that sleeps wakes it, and need not know that it slept.  Datagrams
do so only if one of their records is authentic and new: each is tried with the openers that are there, and
one that fails is counted as it would have been, and nothing is made for it.

What a connection that sleeps holds is charged as such; one that cannot be paid for stays asleep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from sealwire.crypto.hkdf import Secret
from sealwire.dtls.events import State
from sealwire.dtls.handover import decode, encode
from sealwire.dtls.header import (
    ContentType,
    RecordNumber,
    decode_fragments,
    decode_plaintext,
    is_ciphertext,
)
from sealwire.dtls.incoming import FAILURES_BEFORE_SEARCH, SEARCHED_SPANS
from sealwire.dtls.journal import Journal
from sealwire.dtls.outgoing import REKEY_PART
from sealwire.dtls.parts import PARTS
from sealwire.dtls.transfer import Transferable
from sealwire.errors import Discard, LimitReached, ProtocolError
from sealwire.limits import Purpose
from sealwire.limits.weights import ASLEEP_BYTES, CONNECTION_BYTES
from sealwire.record.protect import DISCARDS, Opener, parse_ciphertext_header
from sealwire.record.train import Train, rest_of
from sealwire.telemetry import ConnectionCounters, EndpointCounters
from sealwire.tls13.contract import Direction
from sealwire.wire import Buffer, Reader, Writer

# What a hand-over does not have: newest record, ages of the keys, timers, datagram size, whether
# the sending keys and the connection were used, plaintext records sent; numbers of the sending keys.
_LOCAL: Final = Struct(">HQddddH??QQQQ")
_COUNTERS: Final = tuple(field.name for field in fields(ConnectionCounters) if field.metadata)
_REASONS: Final = tuple(Discard)
# Until memory is asked for again.
_RETRY_SECONDS: Final = 1.0
# What sleep gives back.
_SAVED_BYTES: Final = CONNECTION_BYTES - ASLEEP_BYTES
_PARTS: Final = frozenset(PARTS)
_NOBODY: Final = Journal(b"", 0)
# Records that opened, and that the window refused.
_REFUSED: Final = (Discard.REPLAY, Discard.TOO_OLD)


class Asleep:
    """What is left of a connection's parts.

    Attributes:
        since: when it fell asleep.
        deadline: when it is to be woken, None if never.
        saved: what is charged less for it.
        openers: the keys for what comes; `expiries` say until when the older ones stay, by epoch.
        cids: ids that records to it may carry.
        state: everything else.
        reserved: what a checkpoint left of the sealer's numbers.
        issue_cid, totals: its endpoint's.
        datagrams, bytes, discards: what came and did not wake it.
        failed, ahead: the search for a sender of whom too much was lost; see `Incoming`.
    """

    __slots__ = (
        "ahead",
        "bytes",
        "cids",
        "datagrams",
        "deadline",
        "discards",
        "expiries",
        "failed",
        "issue_cid",
        "openers",
        "reserved",
        "saved",
        "since",
        "state",
        "totals",
    )

    def __init__(
        self,
        since: float,
        deadline: float | None,
        saved: int,
        openers: tuple[Opener, ...],
        expiries: tuple[tuple[int, float], ...],
        cids: tuple[bytes, ...],
        state: Secret,
        reserved: tuple[int, int] | None,
        issue_cid: Callable[[int], bytes],
        totals: EndpointCounters | None,
        search: tuple[int, int],
    ) -> None:
        self.since = since
        self.deadline = deadline
        self.saved = saved
        self.openers = openers
        self.expiries = expiries
        self.cids = cids
        self.state = state
        self.reserved = reserved
        self.issue_cid = issue_cid
        self.totals = totals
        self.datagrams = self.bytes = 0
        self.discards: dict[Discard, int] | None = None
        self.failed, self.ahead = search

    def stirred_by(self, datagram: Buffer) -> bool:
        """Whether a record of `datagram` is authentic and new; if none is, they are counted."""
        found = self._look(datagram)
        if found is None:
            return True
        failed = 0
        for opener, reason in found:
            self._count(opener, reason)
            failed += reason is Discard.AUTHENTICATION
        self.failed += failed
        if failed and self.failed >= FAILURES_BEFORE_SEARCH:
            self.failed = 0
            return self._searched(datagram)
        return False

    def _look(self, datagram: Buffer) -> list[tuple[Opener | None, Discard]] | None:
        """What is wrong with each record, and whose it seemed to be; None if one is authentic and new."""
        found: list[tuple[Opener | None, Discard]] = []
        offset = 0
        if not datagram:
            found.append((None, Discard.EMPTY))
        while offset < len(datagram):
            if not is_ciphertext(datagram[offset]):
                reason, offset = _plaintext(datagram, offset)
                found.append((None, reason))
                continue
            opener = self._opener_for(datagram, offset)
            if opener is None:
                header = parse_ciphertext_header(datagram, offset, len(self.cids[0]) if self.cids else 0)
                if isinstance(header, Discard):
                    found.append((None, header))
                    break
                found.append((None, Discard.UNKNOWN_EPOCH))
                offset = header.end
                continue
            number, offset = opener.would_open(datagram, offset)
            if not number:
                return None
            found.append((opener, DISCARDS[number]))
        return found

    def _opener_for(self, datagram: Buffer, offset: int) -> Opener | None:
        for opener in self.openers:
            if opener.epoch & 3 == datagram[offset] & 3:
                if len(self.cids) > 1:
                    cid = bytes(datagram[offset + 1 : offset + 1 + len(self.cids[0])])
                    if cid != opener.cid and cid in self.cids:
                        opener.cid = cid
                return opener
        return None

    def _count(self, opener: Opener | None, reason: Discard) -> None:
        if opener is not None and reason is Discard.AUTHENTICATION:
            opener.forged += 1
            if self.totals is not None:
                self.totals.records_forged += 1
        elif opener is not None and reason in _REFUSED:
            opener.opened += 1
        self.discard(reason)

    def discard(self, reason: Discard) -> None:
        """Count something dropped."""
        if self.discards is None:
            self.discards = {}
        self.discards[reason] = self.discards.get(reason, 0) + 1

    def _searched(self, datagram: Buffer) -> bool:
        """Whether `datagram` opens with numbers further ahead than 16 bits can say."""
        opener = self._opener_for(datagram, 0) if datagram and is_ciphertext(datagram[0]) else None
        if opener is None:
            return False
        ahead = self.ahead % SEARCHED_SPANS + 1
        opener.ahead = ahead << 16
        try:
            found = opener.would_open(datagram, 0)[0] == 0
        finally:
            opener.ahead = 0
        if not found:
            self._count(opener, Discard.AUTHENTICATION)
        # Awake it looks there again, and finds it.
        self.failed, self.ahead = (FAILURES_BEFORE_SEARCH - 1, ahead - 1) if found else (0, ahead)
        return found

    def reader(self) -> Reader:
        return Reader(self.state, "connection that slept")

    @property
    def newest(self) -> RecordNumber:
        """The highest number that authenticated."""
        epoch, sequence, *_ = _LOCAL.unpack_from(self.state)
        return RecordNumber(epoch, sequence - 1)

    def counted(self, reader: Reader) -> ConnectionCounters:
        """What the connection counted before it slept, and since; `reader` is where that stands."""
        counters = ConnectionCounters()
        for name in _COUNTERS:
            setattr(counters, name, int.from_bytes(reader.vector8(), "big"))
        for _ in range(reader.u8()):
            counters.discard(_REASONS[reader.u8()], int.from_bytes(reader.vector8(), "big"))
        counters.datagrams_received += self.datagrams
        counters.bytes_received += self.bytes
        for reason, count in (self.discards or {}).items():
            counters.discard(reason, count)
        return counters

    @property
    def forgeries_matter(self) -> bool:
        """Whether so many records failed that new keys are due, or the end."""
        return any(opener.forged >= opener.forgery_limit * REKEY_PART for opener in self.openers)


def _plaintext(datagram: Buffer, offset: int) -> tuple[Discard, int]:
    """Why a record of epoch 0 is of no use to a connection that is established, and where it ends."""
    record = decode_plaintext(datagram, offset)
    if isinstance(record, Discard):
        return record, len(datagram)
    if record.content_type == ContentType.HANDSHAKE:
        try:
            decode_fragments(record.content)
        except ProtocolError:
            return Discard.BAD_FRAGMENT, record.end
    elif record.content_type != ContentType.ACK:
        return Discard.PLAINTEXT_ALERT, record.end
    return Discard.UNEXPECTED_PLAINTEXT, record.end


def _write_counters(writer: Writer, counters: ConnectionCounters) -> None:
    for name in _COUNTERS:
        writer.vector8(_shortest(getattr(counters, name)))
    writer.u8(len(counters.discards))
    for reason, count in counters.discards.items():
        writer.u8(_REASONS.index(reason))
        writer.vector8(_shortest(count))


def _shortest(count: int) -> bytes:
    return count.to_bytes((count.bit_length() + 7) // 8, "big")


class Hibernating(Transferable):
    """An association that can do without its parts."""

    __slots__ = ("_asleep",)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._asleep: Asleep | None = None
        super().__init__(*arguments, **named)

    @property
    def asleep(self) -> bool:
        """Whether the parts are put away."""
        return self._asleep is not None

    def hibernate(self, now: float) -> bool:
        """Put the parts away, if nothing is on its way and nothing waits; whether this connection sleeps.

        It wakes by itself.  What it holds is charged as what a sleeping one holds.
        """
        if self._asleep is not None:
            return True
        if self.state is not State.CONNECTED or self.write_closed or self._peer_closed_at is not None:
            return False
        sent, layer = self._sealing.rest(), self._layer
        if sent is None or not self._quiet():
            return False
        openers, expiries = self._opening.rest()
        charged = self._account.held_for(Purpose.CONNECTION)
        self._asleep = Asleep(
            now,
            self.deadline(),
            # A connection that could not be paid for as it woke holds less than others.
            max(min(_SAVED_BYTES, charged - ASLEEP_BYTES), 0),
            openers,
            expiries,
            self._opening.cids,
            self._written(now, sent),
            self._sealing.reserved,
            layer.issue_cid,
            self.conduct.totals,
            self._incoming.search,
        )
        for name in PARTS:
            delattr(self, name)
        self._account.release(Purpose.CONNECTION, self._asleep.saved)
        if self._asleep.totals is not None:
            self._asleep.totals.connections_hibernated += 1
        return True

    def _quiet(self) -> bool:
        """Whether nothing is on its way, due or waiting, in either direction."""
        layer = self._layer
        return not (
            self._events
            or self.path_messages
            or self._last_words
            or self._ticket_bytes
            or self._sought is not None
            or layer.waits
            or layer.outstanding
            or layer.deadline is not None
            or layer.engine.updating_keys
            or layer.cids.retired
            or not layer.reassembly.empty
            or not self._receive_queue.idle
            or not self._outgoing.idle
            or not self._early.empty
            or not self._incoming.empty
            or not self._care.idle
            or self.held_back
        )

    def _written(self, now: float, sent: tuple[int, int, int]) -> Secret:
        writer = Writer()
        newest = self._incoming.newest
        writer.raw(
            _LOCAL.pack(
                newest.epoch,
                newest.sequence + 1,
                *self._rekeying.since,
                *self._layer.flight.timing,
                self._layer.full_mtu,
                self._outgoing.used,
                self.conduct.used,
                self._sealing.plain_sequence,
                *sent,
            )
        )
        writer.vector8(self._incoming.newest_cid)
        _write_counters(writer, self.counters)
        encode(writer, self._moved(now, 0, _NOBODY))
        return Secret.taking(writer.finish())

    def rise(self, *, forced: bool = False) -> None:
        """Have the parts again; nothing happens to a connection that is awake.

        Args:
            forced: whatever the ledger says, as where it is about to end.

        Raises:
            LimitReached: the ledger has no room for a connection that is awake.
        """
        asleep = self._asleep
        if asleep is None:
            return
        if not self._account.charge(Purpose.CONNECTION, asleep.saved) and not forced:
            raise LimitReached(self._account.ledger.refused_by, "no memory is left to wake a connection")
        reader = asleep.reader()
        numbers = _LOCAL.unpack(reader.take(_LOCAL.size))
        newest_cid = reader.vector8()
        counters = asleep.counted(reader)
        moved = decode(reader, b"", 0, self.config)
        epoch, sequence, *since, timeout, initial, full_mtu, sent, used, plain, number, sealed, limit = (
            numbers
        )
        mtu, self.mtu = self.mtu, full_mtu
        self._asleep = None
        self._furnish(
            moved.engine,
            now=asleep.since,
            initial_timeout=initial,
            next_seq=moved.next_seq,
            next_peer_seq=moved.next_peer_seq,
            plain_sequence=plain,
            offered_cid_bytes=0,
            issue_cid=asleep.issue_cid,
            totals=asleep.totals,
            counters=counters,
        )
        self.mtu = self._outgoing.mtu = mtu
        keys = moved.sending.install(Direction.SEND)
        self._sealing.rise(keys, b"", number, sealed, limit)
        self._sealing.reserved = asleep.reserved
        secrets = [keys.install(Direction.RECEIVE) for keys in moved.receiving]
        self._opening.rise(asleep.openers, asleep.expiries, secrets)
        layer = self._layer
        layer.version_selected = True
        layer.thaw_cids(moved.cids)
        layer.flight.timing = timeout, initial
        layer.established()
        layer.apply_outputs(asleep.since)
        self._incoming.handshake_over()
        self._incoming.newest = RecordNumber(epoch, sequence - 1)
        self._incoming.newest_cid = newest_cid
        self._incoming.search = asleep.failed, asleep.ahead
        self._rekeying.since = since[0], since[1]
        self._outgoing.used = sent
        self.conduct.handshake_over()
        self.conduct.used = used
        if asleep.totals is not None:
            asleep.totals.connections_woken += 1
        self._notify()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Only what is not there comes here: a part of a connection that sleeps.
            if name not in _PARTS or self._asleep is None:
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            if name == "counters":
                # To be looked at; whoever has something to count has other parts first.
                reader = self._asleep.reader()
                reader.take(_LOCAL.size)
                reader.vector8()
                return self._asleep.counted(reader)
            # Nobody who asks for an attribute expects a refusal.
            self.rise(forced=True)
            return getattr(self, name)

    # --- what does not wake it ---------------------------------------------------------------------

    def receive_run(self, datagrams: Sequence[Buffer | Train], now: float) -> bool:
        asleep = self._asleep
        if asleep is not None:
            try:
                datagrams = self._stirring(asleep, datagrams, now)
            except LimitReached:
                asleep.discard(Discard.OVER_BUDGET)
                return False
            if not datagrams:
                return False
        return super().receive_run(datagrams, now)

    def _stirring(self, asleep: Asleep, datagrams: Sequence[Buffer | Train], now: float) -> Sequence[Buffer]:
        """Those of `datagrams` that a connection is to be awake for, from the first that is authentic on."""
        singles = rest_of(datagrams, 0, 0)
        for at, datagram in enumerate(singles):
            if asleep.stirred_by(datagram):
                self.rise()
                return singles[at:]
            asleep.datagrams += 1
            asleep.bytes += len(datagram)
        if asleep.forgeries_matter:
            self.rise()
            self._forgeries_matter(now)
        return ()

    def _forgeries_matter(self, now: float) -> None:
        try:
            self._rekeying.after_forgeries(now, connected=True)
        except ProtocolError as error:
            self._fail(error)

    def deadline(self) -> float | None:
        return super().deadline() if self._asleep is None else self._asleep.deadline

    def wake(self, now: float) -> None:
        asleep = self._asleep
        if asleep is not None:
            if asleep.deadline is None or now < asleep.deadline:
                return
            try:
                self.rise()
            except LimitReached:
                # Old keys stay a little longer, and new ones are made a little later.
                asleep.deadline = now + _RETRY_SECONDS
                return
        super().wake(now)

    def transmit_trains(self, now: float, most: int | None = None) -> list[bytes | Train]:
        if self._asleep is not None:
            if self.state is not State.CLOSING:
                return []
            self.rise(forced=True)
        return super().transmit_trains(now, most)

    @property
    def data_waits(self) -> bool:
        return self._asleep is None and super().data_waits

    @property
    def held_back(self) -> bool:
        # Who is held back does not fall asleep.
        return self._asleep is None and super().held_back

    def _finish(self, error: OSError | None) -> None:
        self.rise(forced=True)
        super()._finish(error)
