"""The handshake layer: the engine's whole messages over a network that loses, repeats and reorders.

What arrives is reassembled and given to the engine in order; what the engine sends is a flight that
is repeated until acknowledged; records that came are acknowledged where no flight of ours does it
(RFC 9147 sections 5.2 to 5.8 and 7).  Decisions A1 to A6 of docs/decisions/0005 are marked.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Final

from sealwire.dtls.cid import CidPool, Usage
from sealwire.dtls.conduct import Conduct
from sealwire.dtls.deadlines import earliest
from sealwire.dtls.early import EARLY_SECONDS
from sealwire.dtls.epochs import Opening, Sealing
from sealwire.dtls.flight import Flight
from sealwire.dtls.header import (
    MAX_SEQUENCE,
    RECORD_NUMBER_BYTES,
    ContentType,
    RecordNumber,
    decode_ack,
    decode_fragments,
    encode_ack,
)
from sealwire.dtls.reassembly import Reassembly
from sealwire.errors import Alert, Discard, KeysExhausted, ProtocolError
from sealwire.limits import Account, Limits, Purpose
from sealwire.telemetry import ConnectionCounters
from sealwire.tls13.contract import (
    EPOCH_APPLICATION,
    EPOCH_EARLY,
    EPOCH_HANDSHAKE,
    EPOCH_PLAIN,
    NO_CONNECTION_IDS,
    Direction,
    EarlyDataAnswered,
    HandshakeDone,
    InstallKeys,
    SendMessage,
    TicketReceived,
)
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import UPDATE_REQUESTED, ClientHello, HandshakeType, open_message
from sealwire.tls13.tickets import SessionTicket

# RFC 9147 section 4.4 [9147-4.4-12]: sizes to fall back to when a flight meets silence again and again:
# what IPv4 hosts must accept (576), and what RFC 791 lets a link have with room for options (296).
_FALLBACK_MTU_BYTES: Final = (548, 268)
_SILENT_TRANSMISSIONS: Final = 3
# Some servers read no ClientHello that is split over records (wolfSSL 5.9, unless told to), and say nothing
# to one.  So one that met silence goes out whole, once, if it fits an Ethernet frame behind IPv6 and UDP.
_WHOLE_HELLO_BYTES: Final = 1500 - 40 - 8
_LEAST_MTU_FOR_WHOLE_HELLOS: Final = 1200
# ACKs are not repeated, so they must pass whatever the path has become: no larger than what every
# path carries, which is 15 numbers, one and a half transmissions of a peer.
_ACK_DATAGRAM_BYTES: Final = _FALLBACK_MTU_BYTES[-1]
# Record numbers remembered for the next ACK; older ones are dropped first, which costs the peer a
# retransmission.
_MAX_ACK_NUMBERS: Final = 32
# [8446-POST-3]: what a server can make a client hold.
_MAX_TICKETS: Final = 8
_CID_MESSAGES: Final = frozenset((HandshakeType.NEW_CONNECTION_ID, HandshakeType.REQUEST_CONNECTION_ID))
# Spare connection ids are for connections that live.
_CID_PATIENCE_SECONDS: Final = 1.0
# The engine's handles are positive.
_NEW_CID_HANDLE: Final = -1
_NO_HANDLE: Final = -2


class HandshakeLayer:
    """Moves the messages of one engine.

    RFC 9147 section 5.8.4 [9147-5.8.4-1, 9147-5.8.4-4]: what is sent after the handshake is acknowledged
    message by message, so tickets, key updates and ids do not wait for each other.
    """

    __slots__ = (
        "_account",
        "_ack_deadline",
        "_ack_now",
        "_cid_messages",
        "_cids",
        "_cids_wanted_at",
        "_conduct",
        "_counters",
        "_flight",
        "_flight_charge",
        "_key_updates_in_a_row",
        "_limits",
        "_mtu",
        "_opening",
        "_sealing",
        "_spare_cids",
        "_to_acknowledge",
        "engine",
        "full_mtu",
        "issue_cid",
        "reassembly",
        "tickets",
        "version_selected",
        "write_closed",
    )

    def __init__(
        self,
        engine: Handshake,
        sealing: Sealing,
        opening: Opening,
        *,
        account: Account,
        limits: Limits,
        counters: ConnectionCounters,
        mtu: int,
        initial_timeout: float,
        next_seq: int,
        next_peer_seq: int,
        spare_cids: int = 0,
        conduct: Conduct,
    ) -> None:
        self.engine = engine
        #: DTLS 1.3 is agreed upon: a hello of the peer, retry or not, was taken.
        self.version_selected = next_peer_seq > 0
        self._sealing = sealing
        self._opening = opening
        self._account = account
        self._limits = limits
        self._counters = counters
        self._conduct = conduct
        self._flight = Flight(initial_timeout, next_seq)
        self._flight_charge = 0
        self._mtu = self.full_mtu = mtu
        self.reassembly = Reassembly(account, limits, next_peer_seq)
        self._to_acknowledge: tuple[RecordNumber, ...] = ()
        self._ack_deadline: float | None = None
        self._ack_now = False
        self._key_updates_in_a_row = 0
        # Both exist once the handshake is complete.
        self._cids = CidPool(NO_CONNECTION_IDS, bytes)
        self._cid_messages: tuple[bytes, ...] = ()
        self._spare_cids = spare_cids
        # When spare ids are asked for, so that a connection that ends soon costs nothing.
        self._cids_wanted_at: float | None = None
        #: Tickets that came; the newest, if nobody takes them.
        self.tickets: tuple[SessionTicket, ...] = ()
        #: Nothing but ACKs goes out any more.
        self.write_closed = False
        #: Makes another id of so many bytes for records to us.
        self.issue_cid: Callable[[int], bytes] = bytes

    # --- time ------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When :meth:`wake` is due, None if never."""
        return earliest(self._flight.deadline, self._ack_deadline, self._cids_wanted_at)

    def wake(self, now: float) -> None:
        """Send what is due again.

        Raises:
            TimeoutError: the peer stayed silent through all transmissions allowed.
        """
        if self._ack_deadline is not None and self._ack_deadline <= now:
            self._ack_deadline = None
            self._ack_now = True
        if self._cids_wanted_at is not None and self._cids_wanted_at <= now:
            self._cids_wanted_at = None
            self._top_up_cids()
        flight = self._flight
        if flight.deadline is None or flight.deadline > now:
            return
        if flight.expiries >= self._limits.retransmissions:
            self._account.note("retransmissions")
            raise TimeoutError(f"the peer did not answer {flight.expiries} transmissions")
        flight.expire(now)
        self._counters.retransmissions += 1
        if flight.expiries >= _SILENT_TRANSMISSIONS:
            self._mtu = next((size for size in _FALLBACK_MTU_BYTES if size < self._mtu), self._mtu)
        elif self._sealing.epoch == EPOCH_PLAIN and self.full_mtu >= _LEAST_MTU_FOR_WHOLE_HELLOS:
            whole = flight.expiries == 1 and self._mtu == self.full_mtu
            self._mtu = max(_WHOLE_HELLO_BYTES, self.full_mtu) if whole else self.full_mtu

    def path_carries(self, size: int, now: float) -> None:
        """Cut what is outstanding into datagrams of at most `size` bytes, and send it at once.

        RFC 9147 section 4.4 [9147-4.4-10, 9147-4.4-11]
        """
        self.full_mtu = min(self.full_mtu, size)
        self._mtu = min(self._mtu, size)
        self._flight.cut_anew(now)

    # --- messages in -----------------------------------------------------------------------

    def receive(self, number: RecordNumber, content: bytes, now: float) -> None:
        """Take the content of a handshake record."""
        epoch = number.epoch
        try:
            fragments = decode_fragments(content)
        except ProtocolError:
            if epoch > EPOCH_PLAIN:
                raise
            self._counters.discard(Discard.BAD_FRAGMENT)
            return
        if epoch == EPOCH_PLAIN and self.engine.receive_epoch > EPOCH_PLAIN:
            # Nothing new may come in plaintext any more.  What is old may be the peer's flight
            # again, because ours did not arrive.
            self._counters.discard(Discard.UNEXPECTED_PLAINTEXT)
            if all(fragment.message_seq < self.reassembly.next_seq for fragment in fragments):
                self._flight.prompt(now)
            return
        # RFC 9147 sections 7 and 7.1 [9147-7-3, 9147-7.1-8]: only handshake records that opened come here,
        # and those of which nothing was kept are taken off the list again.
        kept = fresh = True
        # Listed before it is handled: handling may begin our next flight, which clears the list.
        self._to_acknowledge = (*self._to_acknowledge, number)[-_MAX_ACK_NUMBERS:]
        for fragment in fragments:
            # Plaintext anybody can forge, so only what is next counts as an answer there.
            answers = epoch > EPOCH_PLAIN or fragment.message_seq == self.reassembly.next_seq
            reason = self._conduct.offer(fragment, epoch, self.reassembly)
            if reason is None:
                if answers and not self.engine.complete:
                    # RFC 9147 section 7.2 [9147-7.2-5]: even a part of the answer is one.
                    self._acknowledged(self._flight.acknowledge_all(now, answered=number), now)
                self._deliver(now)
            else:
                self._counters.discard(reason)
                if reason is Discard.STALE_MESSAGE:
                    fresh = False
                else:
                    kept = False
        # The peer repeats a flight that ours answers, and has not got ours.
        # That is so in the handshake only: updates of both sides' keys may cross, each answering nothing.
        handshaking = not self.engine.complete or epoch in self._flight.epochs
        unanswered = not fresh and epoch < EPOCH_APPLICATION and handshaking
        if unanswered:
            # RFC 9147 section 5.8.1 [9147-5.8.1-3]
            self._flight.prompt(now)
        if unanswered or not kept:
            # RFC 9147 section 7 [9147-7-2, 9147-7-5]: only what was processed or kept is
            # acknowledged; what came again only where no flight of ours says so.
            self._unlist(number)

    def _unlist(self, number: RecordNumber) -> None:
        self._to_acknowledge = tuple(one for one in self._to_acknowledge if one != number)

    def _deliver(self, now: float) -> None:
        """Give whole messages to the engine, in order."""
        while (ready := self.reassembly.pop()) is not None:
            epoch, message = ready
            if self.engine.complete and message[0] in _CID_MESSAGES and self.engine.connection_ids.negotiated:
                self._receive_cid_message(epoch, message)
                self._send_cid_messages()
                continue
            was_complete = self.engine.complete
            self.engine.may_update_keys = self.may_update_keys
            self.engine.receive(epoch, message)
            self.version_selected = True
            if was_complete:
                self._count_key_updates(message)
            self.apply_outputs(now)

    def _count_key_updates(self, message: bytes) -> None:
        if message[0] != HandshakeType.KEY_UPDATE:
            return
        self._counters.key_updates += 1
        if not self.engine.may_update_keys and message[-1] == UPDATE_REQUESTED:
            # RFC 9147 section 8 [9147-8-7]: an answer would pass the limit, so there is none.
            self._counters.key_requests_ignored += 1
        self._key_updates_in_a_row += 1
        self._conduct.key_update(self._key_updates_in_a_row)
        if self._key_updates_in_a_row > self._limits.key_updates_in_a_row:
            # [8446-POST-3]
            why = "too many KeyUpdates without data between them"
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, why, "key_updates_in_a_row")

    def data_received(self) -> None:
        """Application data came: KeyUpdates and requests before it were no flood."""
        self._key_updates_in_a_row = 0
        self._cids.data_received()

    def hello(self, message: bytes, hello: ClientHello | None, now: float) -> None:
        """Take a whole ClientHello that was put together elsewhere (TLS form), and perhaps decoded."""
        self.version_selected = True
        self.engine.hello(message, hello)
        self.apply_outputs(now)

    def established(self) -> None:
        """The handshake is complete: its budgets shrink."""
        self.reassembly.established()

    def prompt(self, now: float) -> None:
        """The peer shows that it lacks our flight."""
        self._flight.prompt(now)

    def server_hello_missing(self, now: float) -> None:
        """What follows the ServerHello came without it: ask with an empty ACK, not at once.

        RFC 9147 section 7.1 [9147-7.1-9], once per retransmission period (decision A1).
        """
        if self.version_selected and self._sealing.epoch == EPOCH_PLAIN and self._ack_deadline is None:
            self._ack_deadline = now + self._flight.patience

    def apply_outputs(self, now: float) -> None:
        """Do what the engine decided, in its order."""
        agreed = self.engine.agreed
        self._sealing.inner_limit = agreed.send_limit
        if agreed.record_size_limit:
            self._opening.limit_records(agreed.receive_limit)
        for output in self.engine.outputs():
            if isinstance(output, SendMessage):
                if not self.engine.complete or output.epoch < EPOCH_APPLICATION:
                    # RFC 9147 section 7 [9147-7-4]: our next flight answers the peer's; the list starts over.
                    self._to_acknowledge = ()
                    self._ack_deadline = None
                    # The peer's silence may have been loss; this flight finds out for itself.
                    self._mtu = self.full_mtu
                self._check_message_numbers()
                self._flight.add(*output)
            elif isinstance(output, InstallKeys):
                self._install(output, now)
            elif isinstance(output, EarlyDataAnswered):
                if not output.accepted:
                    self._sealing.forget(EPOCH_EARLY)
            elif isinstance(output, HandshakeDone):
                self._opening.forget(EPOCH_EARLY)
                self._opening.linger(now)
                self._cids = CidPool(self.engine.connection_ids, self.issue_cid, self._spare_cids)
                if self._spare_cids and self.engine.connection_ids.theirs:
                    self._cids_wanted_at = now + _CID_PATIENCE_SECONDS
                self._sealing.use_cid(self._cids.current)
                self._sealing.forget_before(self._sealing.epoch, self._flight.epochs)
            elif isinstance(output, TicketReceived):
                self.tickets = (*self.tickets, output.ticket)[-_MAX_TICKETS:]
            else:
                # RFC 9147 section 5 [9147-5-2]: above all no ChangeCipherSpec.
                raise AssertionError(f"{output} is for streams")
        self._charge_flight()

    def _install(self, keys: InstallKeys, now: float) -> None:
        ids = self.engine.connection_ids
        if keys.direction is Direction.SEND:
            self._sealing.install(keys, self._cids.current if self.engine.complete else ids.theirs)
            self._sealing.forget_before(keys.epoch, self._flight.epochs | {EPOCH_HANDSHAKE})
            return
        self._opening.install(keys, ids.ours)
        if keys.epoch == EPOCH_EARLY:
            # No message comes there.  RFC 9147 section 5.6 [9147-5.6-2]: nor for long.
            self._opening.expire_at(EPOCH_EARLY, now + EARLY_SECONDS)
        else:
            self.reassembly.change_keys(keys.epoch)

    def _check_message_numbers(self) -> None:
        if self._flight.next_seq > 0xFFFF:
            # Errata 8048 [9147-5.2-5]
            raise ProtocolError(Alert.INTERNAL_ERROR, "handshake message numbers are used up")

    def _charge_flight(self) -> None:
        size = self._flight.outstanding_bytes
        if size > self._flight_charge:
            if not self._account.charge(Purpose.HANDSHAKE, size - self._flight_charge):
                raise ProtocolError(Alert.INTERNAL_ERROR, "no memory is left for the handshake")
        elif size < self._flight_charge:
            self._account.release(Purpose.HANDSHAKE, self._flight_charge - size)
        self._flight_charge = size

    @property
    def may_update_keys(self) -> bool:
        """Whether there are epochs and message numbers for another KeyUpdate of ours.

        RFC 9147 sections 4.2.1 and 5.2 [9147-4.2.1-7, 9147-5.2-5]: both end long before they would wrap.
        """
        pending = self.engine.pending_key_updates
        return (
            not self.write_closed
            and self._sealing.epoch + pending < self._limits.epochs
            and self._flight.next_seq + pending < self._limits.handshake_messages
        )

    @property
    def waits(self) -> bool:
        """Whether an acknowledgement, a ticket or a message about ids is still to go to somebody."""
        return self._ack_now or bool(self._to_acknowledge or self._cid_messages or self.tickets)

    @property
    def outstanding(self) -> bool:
        """Whether messages of ours wait to be acknowledged."""
        return self._flight.outstanding

    @property
    def flight(self) -> Flight:
        return self._flight

    @property
    def server_hello_waits(self) -> bool:
        """Whether our ServerHello never left, so that the peer can have no keys."""
        return EPOCH_PLAIN in self._flight.epochs and not self._flight.anything_sent

    def update_keys(self, now: float, *, request_peer: bool) -> None:
        """Send KeyUpdate; new sending keys follow once it is acknowledged (RFC 9147 section 8).

        Raises:
            KeysExhausted: nothing is left for another one.
        """
        if not self.may_update_keys:
            epoch = self._sealing.epoch + self.engine.pending_key_updates
            self._account.note("epochs" if epoch >= self._limits.epochs else "handshake_messages")
            raise KeysExhausted("epochs or handshake message numbers are nearly used up")
        self.engine.update_keys(request_peer=request_peer)
        self._counters.key_updates += 1
        self.apply_outputs(now)

    # --- connection ids --------------------------------------------------------------------

    @property
    def cids(self) -> CidPool:
        """The connection ids in use, once the handshake is complete."""
        return self._cids

    def _receive_cid_message(self, epoch: int, message: bytes) -> None:
        kind, body = open_message(message)
        if epoch != self.engine.receive_epoch:
            # Errata 8047 [9147-8-8]: nothing new in an epoch after its KeyUpdate.
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, f"{kind.name} came in epoch {epoch}")
        self._cid_messages += (*self._cids.receive(kind, body), *self._cids.top_up())
        self._follow_cids()

    def freeze_cids(self) -> bytes:
        """The ids for :meth:`thaw_cids`; b"" where all is as the handshake left it, as most often."""
        fresh = CidPool(self.engine.connection_ids, self.issue_cid, self._spare_cids)
        return b"" if (frozen := self._cids.freeze()) == fresh.freeze() else frozen

    def thaw_cids(self, frozen: bytes) -> None:
        self._cids = CidPool(self.engine.connection_ids, self.issue_cid, self._spare_cids)
        if frozen:
            self._cids.thaw(frozen)
        self._follow_cids()

    def _follow_cids(self) -> None:
        self._sealing.use_cid(self._cids.current)
        self._opening.cids = self._cids.accepted

    def offer_cids(self, count: int, usage: Usage) -> None:
        """Give the peer further ids for its records; Error as :meth:`CidPool.offer` says."""
        self._cid_messages += (self._cids.offer(count, usage),)
        self._follow_cids()
        self._send_cid_messages()

    def request_cids(self, count: int) -> None:
        """Ask the peer for spare ids; Error as :meth:`CidPool.request` says."""
        self._cid_messages += (self._cids.request(count),)
        self._send_cid_messages()

    def rotate_cid(self) -> bool:
        """Use a spare id of the peer's from now on: whether there was one."""
        rotated = self._cids.rotate()
        self._follow_cids()
        if rotated:
            self._top_up_cids()
        return rotated

    def _top_up_cids(self) -> None:
        self._cid_messages += tuple(self._cids.top_up())
        self._send_cid_messages()

    def _send_cid_messages(self) -> None:
        # Errata 8047 [9147-8-8]: while a KeyUpdate is on its way they wait for the new epoch.
        if self.engine.updating_keys:
            return
        messages, self._cid_messages = self._cid_messages, ()
        if self.write_closed:
            # Nothing that needs an acknowledgement goes out behind a close_notify.
            return
        if self._flight.next_seq + len(messages) > self._limits.handshake_messages:
            # What numbers are left are for the end; ids are a convenience.
            self._account.note("handshake_messages")
            return
        for message in messages:
            self._check_message_numbers()
            new = message[0] == HandshakeType.NEW_CONNECTION_ID
            self._flight.add(self._sealing.epoch, message, _NEW_CID_HANDLE if new else _NO_HANDLE)
        self._charge_flight()

    # --- acknowledgements ------------------------------------------------------------------

    def end_of_run(self, now: float) -> None:
        """Decide when the records of this batch are acknowledged.

        RFC 9147 section 7.1 [9147-7.1-1, 9147-7.1-4]: a flight that is whole was answered, which emptied
        the list; what is left on it is a part, or nothing else will answer it.
        """
        if not self._to_acknowledge:
            return
        if self.engine.complete:
            # RFC 9147 section 7.1 [9147-7.1-3, 9147-5.7-1, 9147-8-1]: nothing else answers these flights.
            self._ack_now = True
        elif self._ack_deadline is None and self.version_selected:
            # [9147-7.1-2]: part of a flight came; its rest is late after a quarter of the timer.
            self._ack_deadline = now + self._flight.patience

    def receive_ack(self, epoch: int, content: bytes, now: float) -> None:
        """Take an ACK that came in `epoch`."""
        self._counters.acks_received += 1
        if not self.version_selected:
            # bis PR 327 [9147-7-10, decision A2]
            self._counters.discard(Discard.EARLY_ACK)
            return
        try:
            numbers = decode_ack(content)
        except ProtocolError:
            if epoch > EPOCH_PLAIN:
                raise
            self._counters.discard(Discard.MALFORMED_ACK)
            return
        # Errata 8108, decision A3 [9147-7.2-6].
        highest = epoch if epoch < EPOCH_APPLICATION else self._sealing.epoch
        if numbers and (max(numbers)[0] > highest or max(map(itemgetter(1), numbers)) > MAX_SEQUENCE):
            if epoch > EPOCH_PLAIN:
                raise ProtocolError(Alert.ILLEGAL_PARAMETER, "ACK names a record that cannot exist")
            # In plaintext anybody could end the connection that way, and NSS as a client does
            # acknowledge epoch 2 in plaintext, because it has no keys to send with yet.  So it proves
            # nothing; it is a sign that the peer wants the rest.
            self._counters.discard(Discard.MALFORMED_ACK)
            numbers = []
        if not self._flight.outstanding:
            self._conduct.idle_ack()
        if numbers:
            self._acknowledged(self._flight.acknowledge(numbers, now), now)
        else:
            # [9147-7.1-9, decision A1]
            self._flight.prompt(now)

    def _acknowledged(self, handles: list[int], now: float) -> None:
        for handle in handles:
            if handle == _NEW_CID_HANDLE:
                self._cid_messages += tuple(self._cids.acknowledged())
            elif handle != _NO_HANDLE:
                self.engine.acknowledged(handle)
        if handles:
            self.apply_outputs(now)
            self._send_cid_messages()
            if self.engine.complete:
                self._sealing.forget_before(self._sealing.epoch, self._flight.epochs)

    # --- messages out ----------------------------------------------------------------------

    def transmit(self, budget: int | None, now: float) -> list[bytes]:
        """ACKs and handshake messages that are due, packed into as few datagrams as they need.

        RFC 9147 section 4.3 [9147-4.3-1, 9147-4.3-2, 9147-4.3-3, 9147-4.3-4]: records are made to fit the
        MTU, and whole ones fill a datagram.  `budget` bounds their bytes, None does not.
        """
        limit = self._mtu if budget is None else min(self._mtu, budget)
        datagrams: list[bytes] = []
        datagram = bytearray()
        if self._ack_now:
            self._ack_now = False
            self._ack_deadline = None
            datagram += self._ack_record(min(limit, _ACK_DATAGRAM_BYTES))
        while (epoch := self._flight.pending_epoch()) is not None:
            left = limit - len(datagram)
            content = self._flight.next_content(self._sealing.content_room(epoch, left), epoch)
            if content is not None:
                sequence, record = self._sealing.record(
                    content.epoch, ContentType.HANDSHAKE, content.data, left
                )
                self._counters.records_sealed += content.epoch > EPOCH_PLAIN
                datagram += record
                self._flight.sent(content, RecordNumber(content.epoch, sequence), now)
                continue
            if not datagram:
                # Not even an empty datagram has room: the budget is spent.
                break
            datagrams.append(bytes(datagram))
            if budget is not None:
                budget -= len(datagram)
                limit = min(self._mtu, budget)
            datagram.clear()
        if datagram:
            datagrams.append(bytes(datagram))
        return datagrams

    def _ack_record(self, limit: int) -> bytes:
        """An ACK of everything to be acknowledged, in the highest sending epoch [9147-7-7, 9147-7-8]."""
        epoch = self._sealing.epoch
        room = max((self._sealing.content_room(epoch, limit) - 2) // RECORD_NUMBER_BYTES, 0)
        # [9147-7.1-6, 9147-7.1-7]: the newest ones, if not all fit; [9147-7-6]: during the handshake none of
        # an epoch above the ACK's.  Later the two directions count their epochs apart (decision A3).
        complete = self.engine.complete
        readable = [number for number in self._to_acknowledge if complete or number.epoch <= epoch]
        numbers = readable[len(readable) - min(room, len(readable)) :]
        if complete:
            # RFC 9147 section 7 [9147-7-4]: during the handshake the list stays until the flight is over.
            self._to_acknowledge = ()
        self._counters.acks_sent += 1
        self._counters.records_sealed += epoch > EPOCH_PLAIN
        return self._sealing.record(epoch, ContentType.ACK, encode_ack(numbers), limit)[1]
