"""The inner life of a connection: records in, records out, and the one place where errors become alerts.

:class:`Association` holds the parts (keys, handshake layer, queues, what watches over them) and moves
them on with what comes, with time, and when something is to be sent.  What its owner may ask of it is
:class:`sealwire.dtls.connection.Connection`.  Received bytes never raise: they become messages, a
counted Discard, or end the association with an alert and a Closed event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final

from sealwire import ownership
from sealwire.context import Config
from sealwire.dtls.alerts import FATAL, WARNING, LastWords
from sealwire.dtls.charges import charge_ticket, handshake_over, wind_down
from sealwire.dtls.deadlines import earliest
from sealwire.dtls.early import EARLY_OVER
from sealwire.dtls.events import (
    Closed,
    Connected,
    EarlyDataArrived,
    MessageSizeChanged,
    PeerClosed,
    State,
    TicketReceived,
)
from sealwire.dtls.header import ContentType, RecordNumber, decode_alert
from sealwire.dtls.parts import Awake, Parts
from sealwire.dtls.routability import PathMessage
from sealwire.dtls.upkeep import DEFAULT_UPKEEP, Upkeep
from sealwire.errors import (
    Alert,
    ConnectionClosed,
    Discard,
    HandshakeError,
    KeysExhausted,
    PeerAlert,
    ProtocolError,
)
from sealwire.limits import Account, Limits
from sealwire.record.train import Train, bytes_of, count_of, rest_of
from sealwire.telemetry import EndpointCounters
from sealwire.tls13.contract import (
    EPOCH_APPLICATION,
    EPOCH_EARLY,
    EPOCH_HANDSHAKE,
    EPOCH_PLAIN,
    ConnectionIds,
)
from sealwire.tls13.handshake import Handshake
from sealwire.wire import Buffer

_MIN_MTU_BYTES: Final = 128
_numbers = count(1)
# RFC 9147 section 5.1 [9147-5.1-8]
_AMPLIFICATION: Final = 3


class Association(Parts):
    """What one association is made of, how records move it on, and how it ends."""

    __slots__ = ("address", "error", "on_output", "state", "was_connected")

    def __init__(
        self,
        config: Config,
        handshake: Handshake,
        *,
        now: float,
        limits: Limits,
        mtu: int,
        initial_timeout: float,
        account: Account,
        next_message_seq: int = 0,
        next_peer_message_seq: int = 0,
        plain_sequence: int = 0,
        address_proved: bool = True,
        offered_cid_bytes: int = 0,
        issue_cid: Callable[[int], bytes] | None = None,
        upkeep: Upkeep = DEFAULT_UPKEEP,
        totals: EndpointCounters | None = None,
    ) -> None:
        """Made as a Connection, by its `client` and `server` or by an Endpoint."""
        if mtu < _MIN_MTU_BYTES:
            account.close()
            raise ValueError(f"an MTU of {mtu} bytes is below the least one, {_MIN_MTU_BYTES}")
        super().__init__(config, limits, account, mtu, upkeep)
        self.state = State.HANDSHAKING
        #: Why the connection ended; None while it has not, or after a close of our own.
        self.error: OSError | None = None
        #: Whether the handshake was ever complete.
        self.was_connected = False
        #: Called when something is to be transmitted that no receive or wake caused.
        self.on_output: Callable[[Any], None] | None = None
        #: Who the peer is on the network; set by an Endpoint, for its owner's use.
        self.address: object = None
        self._awake = awake = Awake(next(_numbers), now)
        awake.address_shown = address_proved
        awake.budget = None if address_proved else 0
        awake.keys_seen = awake.finished_answered = False
        awake.handshake_deadline = now + limits.handshake_seconds
        awake.furnish(
            account,
            config,
            limits,
            upkeep,
            mtu,
            handshake,
            now=now,
            initial_timeout=initial_timeout,
            next_seq=next_message_seq,
            next_peer_seq=next_peer_message_seq,
            plain_sequence=plain_sequence,
            offered_cid_bytes=offered_cid_bytes,
            issue_cid=issue_cid or config.provider.random,
            totals=totals,
        )
        ownership.own(ownership.Kind.CONNECTION, self)
        self._awake.layer.apply_outputs(now)

    def show_address(self) -> None:
        """Server: by a ticket, the peer's address is shown to have been its own."""
        self._awake.address_shown = True

    def _earn(self, received_bytes: int) -> None:
        if self._awake.budget is not None:
            self._awake.budget += _AMPLIFICATION * received_bytes

    @property
    def connection_ids(self) -> ConnectionIds:
        """What the handshake agreed on connection ids (RFC 9146)."""
        return self._awake.layer.engine.connection_ids

    def path_record(self, kind: int, cookie: bytes) -> bytes:
        """A datagram with one return routability message (RFC 9853), for an Endpoint."""
        sealing = self._awake.sealing
        self._awake.counters.records_sealed += 1
        return sealing.record(sealing.epoch, ContentType.RETURN_ROUTABILITY, bytes((kind,)) + cookie)[1]

    def deadline(self) -> float | None:
        """When wake() is due, None if never."""
        if self.state is State.CLOSED:
            return None
        awake = self._awake
        if self.state is not State.CONNECTED:
            return earliest(awake.layer.deadline, awake.handshake_deadline, awake.opening.deadline)
        return earliest(
            awake.layer.deadline,
            awake.handshake_deadline,
            awake.opening.deadline,
            awake.rekeying.deadline,
            awake.care.deadline,
        )

    def wake(self, now: float) -> None:
        """Do what is due by `now`."""
        if self.state is State.CLOSED:
            return
        self._awake.opening.expire(now)
        if self._awake.handshake_deadline is not None and self._awake.handshake_deadline <= now:
            seconds = self._awake.handshake_deadline - self._awake.began
            self._account.note("handshake_seconds")
            self._finish(TimeoutError(f"the handshake did not finish within {seconds:g} seconds"))
            return
        try:
            self._awake.layer.wake(now)
            if self.state is State.CONNECTED:
                self._awake.rekeying.wake(now)
                self._awake.care.wake(now)
                self._follow_path()
        except TimeoutError as error:
            self._finish(error)
        except KeysExhausted as error:
            self._close_exhausted(error)
        except ProtocolError as error:
            self._fail(error)

    def receive(self, datagram: Buffer, now: float) -> None:
        """Take one datagram from the peer."""
        self.receive_run((datagram,), now)

    def receive_run(self, datagrams: Sequence[Buffer | Train], now: float) -> bool:
        """Take datagrams from the peer, in order of arrival; trains of them as well.

        Returns whether any record of them was authentic.
        """
        before = self._awake.counters.records_opened
        size = bytes_of(datagrams)
        self._awake.counters.datagrams_received += count_of(datagrams)
        self._awake.counters.bytes_received += size
        self._earn(size)
        forged = self._awake.opening.forged
        try:
            single = self._receive_data_runs(datagrams, now)
            for number, content_type, content in self._awake.incoming.records(single):
                if number.epoch == EPOCH_PLAIN:
                    self._receive_plaintext(number, content_type, content, now)
                else:
                    self._receive_record(number, content_type, content, now)
            if self.state is not State.CLOSED:
                self._end_of_run(now, self._awake.opening.forged - forged)
        except ProtocolError as error:
            self._fail(error)
        authentic = self._awake.counters.records_opened > before
        if self._awake.handshake_deadline is not None:
            self._awake.conduct.heard_in_handshake(now)
        elif not self._awake.conduct.used and self._awake.counters.messages_received:
            self._awake.conduct.first_use()
        if authentic:
            self._awake.care.heard(now)
        return authentic

    def _receive_data_runs(self, datagrams: Sequence[Buffer | Train], now: float) -> Sequence[Buffer]:
        """Take application data run by run while nothing out of the ordinary comes; the rest, one by one."""
        index = offset = 0
        while index < len(datagrams) and self.state is State.CONNECTED and self._awake.peer_closed_at is None:
            run = self._awake.incoming.run(datagrams, index, offset)
            if run is None:
                break
            epoch, messages, other, index, offset = run
            if messages:
                self._awake.opening.opened(epoch, now)
                self._awake.layer.data_received()
                taken = self._awake.receive_queue.put_received(messages)
                self._awake.counters.messages_received += taken
                if taken < len(messages):
                    self._awake.counters.discard(Discard.RECEIVE_QUEUE_FULL, len(messages) - taken)
            if other is not None:
                self._receive_record(*other, now)
        return rest_of(datagrams, index, offset) if index < len(datagrams) else ()

    def _end_of_run(self, now: float, forged: int) -> None:
        if self._awake.incoming.server_hello_missing:
            self._awake.incoming.server_hello_missing = False
            self._awake.layer.server_hello_missing(now)
        self._awake.layer.end_of_run(now)
        if not self._awake.opening.one_cid:
            self._awake.layer.cids.seen(self._awake.incoming.newest_cid)
        if self._awake.opening.overlong:
            # RFC 8449 section 4 [8449-1]: it authenticated, so it is the peer's doing.
            raise ProtocolError(Alert.RECORD_OVERFLOW, "a record is longer than record_size_limit allows")
        self._awake.rekeying.looked(now)
        # Negative where keys were forgotten with what was counted under them.
        if forged > 0:
            self._awake.conduct.forged(forged)
            self._awake.rekeying.after_forgeries(now, connected=self.was_connected)

    def _receive_plaintext(self, number: RecordNumber, content_type: int, content: bytes, now: float) -> None:
        if content_type == ContentType.HANDSHAKE:
            self._receive_handshake(number, content, now)
        elif content_type == ContentType.ACK:
            # A client that has part of a ServerHello can acknowledge it only like this; once it has
            # shown its keys it needs to no more, and anybody can forge these.
            if self._awake.keys_seen:
                self._awake.counters.discard(Discard.UNEXPECTED_PLAINTEXT)
            else:
                self._awake.layer.receive_ack(EPOCH_PLAIN, content, now)
        elif self._awake.opening.epoch > EPOCH_PLAIN:
            # The peer has better ways (decision A19).
            self._awake.counters.discard(Discard.PLAINTEXT_ALERT)
        else:
            self._receive_alert(number, content)

    def _receive_record(self, number: RecordNumber, content_type: int, content: bytes, now: float) -> None:
        """Handle a record that authenticated: what is wrong in it is the peer's doing [9147-4.5.2-6].

        One that did not came no further than a counter: no alert, no timer, no state knows of it
        (RFC 9147 section 4.5.2 [9147-4.5.2-2, 9147-4.5.2-4, 9147-4.5.2-5, 9147-11-8]).
        """
        if number.epoch == EPOCH_EARLY:
            # It may be a copy of what somebody sent before, so it proves nobody's address or presence.
            if self._awake.early.receive(content_type, content):
                self._awake.events += (EarlyDataArrived(),)
            return
        self._awake.budget = None
        self._awake.keys_seen = True
        if content_type == ContentType.HANDSHAKE and self._awake.sealing.epoch >= EPOCH_APPLICATION:
            self._awake.finished_answered = True
        self._awake.opening.opened(number.epoch, now)
        late = self._awake.peer_closed_at is not None and number > self._awake.peer_closed_at
        # An ACK is no data: of a side that closed, it lets the other one go on with new keys.
        if late and content_type != ContentType.ACK:
            # RFC 9147 section 5.10 [9147-5.10-5]
            self._awake.counters.discard(Discard.AFTER_CLOSE)
        elif content_type == ContentType.APPLICATION_DATA:
            if number.epoch < EPOCH_APPLICATION:
                raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "application data under handshake keys")
            self._receive_data(content)
        elif content_type == ContentType.HANDSHAKE:
            self._receive_handshake(number, content, now)
        elif content_type == ContentType.ACK:
            self._awake.layer.receive_ack(number.epoch, content, now)
        elif content_type == ContentType.ALERT:
            self._receive_alert(number, content)
        elif content_type == ContentType.RETURN_ROUTABILITY and self.connection_ids.return_routability:
            self._awake.path_messages.receive(content)
        else:
            # RFC 9147 section 4.1 [9147-4.1-4]
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, f"record of content type {content_type}")

    def _receive_handshake(self, number: RecordNumber, content: bytes, now: float) -> None:
        self._awake.layer.receive(number, content, now)
        if self._awake.layer.engine.complete and not self.was_connected:
            self._connected(now)
        tickets, self._awake.layer.tickets = self._awake.layer.tickets, ()
        for ticket in tickets:
            if size := charge_ticket(self._account, ticket):
                self._awake.ticket_bytes += size
                self._awake.events += (TicketReceived(ticket),)

    def _receive_data(self, content: bytes) -> None:
        self._awake.layer.data_received()
        if self.state is State.CLOSING:
            self._awake.counters.discard(Discard.CLOSED)
        elif self._awake.receive_queue.put((content,)):
            self._awake.counters.messages_received += 1
        else:
            self._awake.counters.discard(Discard.RECEIVE_QUEUE_FULL)

    def _connected(self, now: float) -> None:
        handshake_over(self._account, self._awake.layer.engine.session.peer_bytes, self.limits)
        self._awake.layer.established()
        self.state = State.CONNECTED
        self.was_connected = True
        self._awake.handshake_seconds = now - self._awake.began
        self._awake.incoming.handshake_over()
        self._awake.handshake_deadline = None
        self._awake.budget = None
        self._awake.early.answered()
        if self._awake.early.empty:
            self._awake.early = EARLY_OVER
        self._awake.conduct.handshake_over()
        self._awake.care.begin(self.mtu, self._longest_probe, self.connection_ids.return_routability, now)
        self._awake.events += (Connected(self._awake.layer.engine.session),)

    def _receive_alert(self, number: RecordNumber, content: bytes) -> None:
        try:
            _, description = decode_alert(content)
        except ProtocolError:
            if number.epoch == EPOCH_PLAIN:
                self._awake.counters.discard(Discard.UNEXPECTED_PLAINTEXT)
                return
            raise
        alert = Alert(description)
        if alert is Alert.USER_CANCELED and self.was_connected:
            # RFC 8446 section 6.1 [8446-ALERT-2]: close_notify follows it.
            return
        if alert is Alert.CLOSE_NOTIFY and self.was_connected:
            if self._awake.peer_closed_at is None:
                self._awake.peer_closed_at = number
                self._awake.events += (PeerClosed(),)
                self._awake.care.end()
                if self._awake.goodbye_said:
                    self._finish(None)
            return
        if alert in (Alert.CLOSE_NOTIFY, Alert.USER_CANCELED):
            self._finish(ConnectionClosed("the peer gave the handshake up"))
            return
        self._finish(PeerAlert(alert))

    def _fail(self, error: ProtocolError) -> None:
        """The one place where an error becomes an alert.

        RFC 9147 section 5.10 [9147-5.10-2, 9147-5.10-3]: the connection ends with it, so an offender meets
        a closed door; and a new attempt of its own gets a new alert.
        """
        if self.state is State.CLOSED:
            return
        if not self.was_connected and not isinstance(error, HandshakeError):
            error = HandshakeError(error.alert, error.reason, error.limit)
        if error.limit:
            self._account.note(error.limit)
        self._queue_alert(FATAL, error.alert)
        self._finish(error)

    def _close_exhausted(self, error: KeysExhausted) -> None:
        """No new keys can come: say goodbye while the old ones still can."""
        self.state = State.CLOSING
        self._awake.closing_error = error
        self._awake.outgoing.drop()

    def _queue_alert(self, level: int, alert: Alert) -> None:
        # Decision A18: the highest epoch the peer can read for sure.
        epoch = self._awake.sealing.epoch
        if self.state is State.HANDSHAKING and not self._awake.finished_answered:
            readable = EPOCH_HANDSHAKE in self._awake.sealing and not self._awake.layer.server_hello_waits
            epoch = EPOCH_HANDSHAKE if readable else EPOCH_PLAIN
        if self._awake.last_words is None:
            self._awake.last_words = LastWords(self._awake.sealing)
        self._awake.last_words.queue(level, alert, epoch)

    def _finish(self, error: OSError | None) -> None:
        self.state = State.CLOSED
        self.error = error
        self._awake.outgoing.drop()
        self._awake.early.close()
        self._awake.incoming.close()
        self._awake.care.end()
        self._awake.ticket_bytes = 0
        wind_down(self._account)
        ownership.let_go(self)
        self._awake.events += (Closed(error),)

    def _notify(self) -> None:
        if self.on_output is not None:
            self.on_output(self)

    def transmit(self, now: float) -> list[bytes]:
        """Datagrams to send now, in order."""
        single: list[bytes] = []
        for datagram in self.transmit_trains(now):
            if isinstance(datagram, Train):
                single += datagram.split()
            else:
                single.append(datagram)
        return single

    def transmit_trains(self, now: float, most: int | None = None) -> list[bytes | Train]:
        """As :meth:`transmit`, with neighbours of one size as a :class:`Train`.

        `most` bounds the bytes of application data of this turn; while :attr:`data_waits` there is more.
        """
        datagrams: list[bytes | Train] = []
        try:
            if self.state is not State.CLOSED:
                for kind, cookie in self._awake.path_messages.take():
                    if kind == PathMessage.CHALLENGE:
                        # [9853-2]: at once, to the one address there is.
                        datagrams.append(self.path_record(PathMessage.RESPONSE, cookie))
                    elif kind != PathMessage.RESPONSE or not self.path_answered(cookie, now):
                        # [9853-4]: nothing was asked.
                        self._awake.counters.discard(Discard.PATH_MESSAGE)
                datagrams += self._awake.layer.transmit(self._awake.budget, now)
                datagrams += self._awake.early.transmit()
                # Half of what is left, so that there is always something for the handshake to go on.
                left = None if self._awake.budget is None else (self._awake.budget - bytes_of(datagrams)) // 2
                datagrams += self._awake.early.transmit_unfinished(left)
                if self.state is not State.HANDSHAKING:
                    self._transmit_data(datagrams, now, most)
        except ProtocolError as error:
            self._fail(error)
        if self._awake.last_words is not None:
            datagrams += self._awake.last_words.transmit(self.mtu, self._awake.budget)
            self._awake.last_words = None
        if self.state is State.CLOSED:
            self._awake.sealing.clear()
        if datagrams:
            self._awake.care.sent(now)
            size = bytes_of(datagrams)
            self._awake.counters.datagrams_sent += count_of(datagrams)
            self._awake.counters.bytes_sent += size
            if self._awake.budget is not None:
                self._awake.budget -= size
        return datagrams

    @property
    def _longest_probe(self) -> int:
        """What the peer's limit on records leaves of a datagram."""
        epoch = self._awake.sealing.epoch
        return self._awake.sealing.overhead(epoch) + self._awake.sealing.inner_limit - 1

    def path_answered(self, cookie: bytes, now: float) -> bool:
        """A path_response came from the peer's address: whether it answers a challenge of this connection."""
        answered = self._awake.care.answered(cookie, now)
        self._follow_path()
        return answered

    def _follow_path(self) -> None:
        """Send what the path was found to carry."""
        size = self._awake.care.mtu
        if size and size != self.mtu:
            self.mtu = self._awake.outgoing.mtu = size
            self._awake.events += (MessageSizeChanged(self._awake.outgoing.max_message_bytes),)

    def _care_for_peer(self, now: float) -> list[bytes]:
        """Challenges and empty records that are due."""
        sealer = self._awake.sealing.sealer(self._awake.sealing.epoch)
        datagrams = []
        for challenge in self._awake.care.challenges(now):
            content = bytes((PathMessage.CHALLENGE,)) + challenge.cookie
            padding = max(challenge.size - sealer.overhead - len(content), 0)
            datagrams.append(sealer.seal(ContentType.RETURN_ROUTABILITY, content, padding))
        if self._awake.care.empty_due:
            datagrams.append(sealer.seal(ContentType.APPLICATION_DATA, b""))
        self._awake.counters.records_sealed += len(datagrams)
        return datagrams

    @property
    def data_waits(self) -> bool:
        """Whether there is application data that transmit_trains() could send at once."""
        return self.state in (State.CONNECTED, State.CLOSING) and self._awake.outgoing.sendable

    def _transmit_data(self, datagrams: list[bytes | Train], now: float, most: int | None) -> None:
        if self.state is State.CONNECTED:
            datagrams += self._care_for_peer(now)
        sealed = self._awake.outgoing.seal(most)
        if sealed:
            datagrams += sealed
            self._awake.layer.cids.requests_sent = 0
            self._awake.care.data_sent()
            if not self._awake.conduct.used:
                self._awake.conduct.first_use()
        waits = self._awake.outgoing.bytes_held > 0
        # Whoever closes and has nothing to send any more needs no new keys.
        if waits or (datagrams and self.state is State.CONNECTED):
            try:
                if self._awake.rekeying.after_sealing(now):
                    datagrams += self._awake.layer.transmit(None, now)
            except KeysExhausted as error:
                self._close_exhausted(error)
        # What still waits, waits for new keys.
        if self.state is State.CLOSING and not self._awake.outgoing.bytes_held:
            if not self._awake.goodbye_said:
                self._queue_alert(WARNING, Alert.CLOSE_NOTIFY)
            self._finish(self._awake.closing_error)
        elif (
            self._awake.write_closed
            and not self._awake.goodbye_said
            and not waits
            and not self._awake.layer.outstanding
        ):
            # What comes behind a close_notify is ignored [9147-5.10-5], so it waits for our last flight.
            self._awake.goodbye_said = True
            self._queue_alert(WARNING, Alert.CLOSE_NOTIFY)
            if self._awake.peer_closed_at is not None:
                self._finish(None)
