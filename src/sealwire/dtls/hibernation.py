"""An idle connection has no parts: what is left of it is its keys, their numbers, and some hundred bytes.

Everything that a hand-over to another process takes along is written down as for one (dtls/handover.py),
together with what only this process knows: counters, timers, the numbers of the sending keys, the openers
with their windows (dtls/asleep.py).  It is read once, so no number is used twice.

Whoever asks for a part of a connection that sleeps wakes it, and need not know that it slept.  Datagrams
do so only if one of their records is authentic and new: each is tried with an opener made for it, and one
that fails is counted as it would have been, and nothing is left of it.

What a connection that sleeps holds is charged as such; one that cannot be paid for stays asleep.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from sealwire.crypto.hkdf import Secret
from sealwire.dtls.asleep import Asleep, Head, shortest, write_counters, write_head
from sealwire.dtls.epochs import ReceivingKeys
from sealwire.dtls.events import State
from sealwire.dtls.parts import Awake
from sealwire.dtls.transfer import Transferable
from sealwire.errors import Discard, LimitReached, ProtocolError
from sealwire.limits import Purpose
from sealwire.limits.weights import ASLEEP_BYTES, CONNECTION_BYTES
from sealwire.record.train import Train, rest_of
from sealwire.telemetry import ConnectionCounters
from sealwire.tls13.contract import Direction, InstallKeys
from sealwire.tls13.flavor import DTLS
from sealwire.tls13.moved import decode_engine, encode_engine
from sealwire.wire import Buffer, Writer

# When it fell asleep; ages of the keys and timers of flights, two each; datagram size; whether the
# connection and its sending keys were used.
_LOCAL: Final = Struct(">dddddH??")
# Numbers of the sending keys: plaintext records sent, next number, sealed, limit; then of handshake
# messages, the next one each way.
_NUMBERS: Final = 6
# Until memory is asked for again.
_RETRY_SECONDS: Final = 1.0
# What sleep gives back.
_SAVED_BYTES: Final = CONNECTION_BYTES - ASLEEP_BYTES
_NEVER: Final = float("inf")


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
        if (
            self.state is not State.CONNECTED
            or self._awake.write_closed
            or self._awake.peer_closed_at is not None
        ):
            return False
        sent, layer = self._awake.sealing.rest(), self._awake.layer
        if sent is None or not self._quiet():
            return False
        charged = self._account.held_for(Purpose.CONNECTION)
        # A connection that could not be paid for as it woke holds less than others.
        saved = max(min(_SAVED_BYTES, charged - ASLEEP_BYTES), 0)
        self._asleep = Asleep(self._written(now, sent, saved), layer.issue_cid, self._awake.conduct.totals)
        del self._awake
        self._account.release(Purpose.CONNECTION, saved)
        if self._asleep.totals is not None:
            self._asleep.totals.connections_hibernated += 1
        return True

    def _quiet(self) -> bool:
        """Whether nothing is on its way, due or waiting, in either direction."""
        layer = self._awake.layer
        return not (
            self._awake.events
            or self._awake.path_messages
            or self._awake.last_words
            or self._awake.ticket_bytes
            or self._awake.sought is not None
            or layer.waits
            or layer.outstanding
            or layer.deadline is not None
            or layer.engine.updating_keys
            or layer.cids.retired
            or not layer.reassembly.empty
            or not self._awake.receive_queue.idle
            or not self._awake.outgoing.idle
            or not self._awake.early.empty
            or not self._awake.incoming.empty
            or not self._awake.care.idle
            or self.held_back
        )

    def _written(self, now: float, sent: tuple[int, int, int], saved: int) -> Secret:
        awake, layer = self._awake, self._awake.layer
        newest, reserved = awake.incoming.newest, awake.sealing.reserved
        due = [at for at in (awake.rekeying.deadline, awake.care.deadline) if at is not None]
        head = Head(
            suite=layer.engine.session.suite.suite,
            newest_epoch=newest.epoch,
            newest_above=newest.sequence + 1,
            failed=awake.incoming.search[0],
            ahead=awake.incoming.search[1],
            number=awake.number,
            began=awake.began,
            handshake_seconds=awake.handshake_seconds or 0.0,
            saved=saved,
            due=min(due, default=_NEVER),
            keys=0,
            cids=0,
        )
        writer = Writer()
        write_head(writer, head, awake.opening.rest(), awake.opening.cids)
        write_counters(writer, awake.counters)
        writer.vector8(awake.incoming.newest_cid)
        writer.raw(
            _LOCAL.pack(
                now,
                *awake.rekeying.since,
                *layer.flight.timing,
                layer.full_mtu,
                awake.conduct.used,
                awake.outgoing.used,
            )
        )
        numbers = awake.sealing.plain_sequence, *sent, layer.flight.next_seq, layer.reassembly.next_seq
        for number in numbers:
            writer.vector8(shortest(number))
        encode_engine(writer, layer.engine)
        writer.vector16(layer.freeze_cids())
        for number in reserved or ():
            writer.vector8(shortest(number))
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
        head = asleep.head
        if not self._account.charge(Purpose.CONNECTION, head.saved) and not forced:
            raise LimitReached(self._account.ledger.refused_by, "no memory is left to wake a connection")
        reader = asleep.rest()
        counters = asleep.counted(reader)
        newest_cid = reader.vector8()
        slept, sealing, opening, timeout, initial, full_mtu, used, sent = _LOCAL.unpack(
            reader.take(_LOCAL.size)
        )
        plain, number, sealed, limit, next_seq, next_peer_seq = (
            int.from_bytes(reader.vector8(), "big") for _ in range(_NUMBERS)
        )
        engine = decode_engine(reader, self.config, DTLS)
        cids = reader.vector16()
        reserved = [int.from_bytes(reader.vector8(), "big") for _ in range(2)] if reader.remaining else None
        remains, spec = engine.remains(), engine.session.suite
        awake = Awake(head.number, head.began)
        awake.handshake_seconds = head.handshake_seconds
        awake.furnish(
            self._account,
            self.config,
            self.limits,
            self.upkeep,
            full_mtu,
            engine,
            now=slept,
            initial_timeout=initial,
            next_seq=next_seq,
            next_peer_seq=next_peer_seq,
            plain_sequence=plain,
            offered_cid_bytes=0,
            issue_cid=asleep.issue_cid,
            totals=asleep.totals,
            counters=counters,
        )
        awake.outgoing.mtu = self.mtu
        epoch, secret = remains.send
        awake.sealing.rise(InstallKeys(Direction.SEND, epoch, spec, secret), b"", number, sealed, limit)
        if reserved is not None:
            awake.sealing.reserved = reserved[0], reserved[1]
        newest, *older = asleep.receiving(self.config, self.limits)
        awake.opening.rise((ReceivingKeys(newest.opener, remains.receive[1], newest.until), *older), spec)
        layer = awake.layer
        layer.version_selected = True
        layer.thaw_cids(cids)
        layer.flight.timing = timeout, initial
        layer.established()
        layer.apply_outputs(slept)
        awake.incoming.handshake_over()
        awake.incoming.newest = asleep.newest
        awake.incoming.newest_cid = newest_cid
        stirred = asleep.stirred
        awake.incoming.search = (
            (head.failed, head.ahead) if stirred is None else (stirred.failed, stirred.ahead)
        )
        awake.rekeying.since = sealing, opening
        awake.outgoing.used = sent
        awake.conduct.handshake_over()
        awake.conduct.used = used
        self._awake = awake
        self._asleep = None
        if asleep.totals is not None:
            asleep.totals.connections_woken += 1
        self._notify()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Only what is not there comes here: what a connection that sleeps does not have.
            asleep = self._asleep
            if asleep is None or name != "_awake":
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            # Nobody who asks for an attribute expects a refusal.
            self.rise(forced=True)
            return self._awake

    # --- what is known of it asleep ----------------------------------------------------------------

    @property
    def counters(self) -> ConnectionCounters:
        """What this connection did; of one that sleeps, a copy."""
        asleep = self._asleep
        return self._awake.counters if asleep is None else asleep.counted(asleep.rest())

    @property
    def number(self) -> int:
        """Tells connections apart in reports."""
        return self._awake.number if self._asleep is None else self._asleep.head.number

    @property
    def began(self) -> float:
        """When the connection began."""
        return self._awake.began if self._asleep is None else self._asleep.head.began

    @property
    def handshake_seconds(self) -> float | None:
        """How long the handshake took; None while it is not complete."""
        return self._awake.handshake_seconds if self._asleep is None else self._asleep.head.handshake_seconds

    @property
    def write_closed(self) -> bool:
        """The application has said all it had to."""
        return self._asleep is None and self._awake.write_closed

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
            if asleep.stirred_by(datagram, self.config, self.limits):
                self.rise()
                return singles[at:]
        if asleep.stirred is not None and asleep.stirred.rekey:
            self.rise()
            self._forgeries_matter(now)
        return ()

    def _forgeries_matter(self, now: float) -> None:
        try:
            self._awake.rekeying.after_forgeries(now, connected=True)
        except ProtocolError as error:
            self._fail(error)

    def deadline(self) -> float | None:
        return super().deadline() if self._asleep is None else self._asleep.deadline

    def wake(self, now: float) -> None:
        asleep = self._asleep
        if asleep is not None:
            if asleep.deadline is None or now < asleep.deadline or asleep.expire(now):
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
