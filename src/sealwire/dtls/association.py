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
from sealwire.dtls.parts import Parts
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

    __slots__ = (
        "_budget",
        "_closing_error",
        "_finished_answered",
        "_goodbye_said",
        "_handshake_deadline",
        "_keys_seen",
        "_peer_closed_at",
        "_ticket_bytes",
        "address",
        "address_shown",
        "began",
        "error",
        "handshake_seconds",
        "number",
        "on_output",
        "state",
        "was_connected",
        "write_closed",
    )

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
        #: Tells connections apart in reports.
        self.number = next(_numbers)
        #: When it began, and how long the handshake took; None while it is not complete.
        self.began = now
        self.handshake_seconds: float | None = None
        self.state = State.HANDSHAKING
        #: Why the connection ended; None while it has not, or after a close of our own.
        self.error: OSError | None = None
        #: Whether the handshake was ever complete.
        self.was_connected = False
        #: Called when something is to be transmitted that no receive or wake caused.
        self.on_output: Callable[[Any], None] | None = None
        #: Who the peer is on the network; set by an Endpoint, for its owner's use.
        self.address: object = None
        #: Whether the peer's address is proved or, by a ticket, at least shown to have been its own.
        self.address_shown = address_proved

        # What may still be sent to an address nobody proved, None once it is proved.
        self._budget: int | None = None if address_proved else 0
        # Whether any protected record of the peer was opened.
        self._keys_seen = False
        # Server: part of the client's last flight came, so our Finished was accepted over there.
        self._finished_answered = False
        self._handshake_deadline: float | None = now + limits.handshake_seconds
        #: The application has said all it had to: close_notify is sent, or will be behind what waits.
        self.write_closed = False
        self._goodbye_said = False
        # Why a close of our own goes on, None where the application asked for it.
        self._closing_error: KeysExhausted | None = None
        self._peer_closed_at: RecordNumber | None = None
        self._ticket_bytes = 0
        self._furnish(
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
        self._layer.apply_outputs(now)

    def _earn(self, received_bytes: int) -> None:
        if self._budget is not None:
            self._budget += _AMPLIFICATION * received_bytes

    @property
    def connection_ids(self) -> ConnectionIds:
        """What the handshake agreed on connection ids (RFC 9146)."""
        return self._layer.engine.connection_ids

    def path_record(self, kind: int, cookie: bytes) -> bytes:
        """A datagram with one return routability message (RFC 9853), for an Endpoint."""
        sealing = self._sealing
        self.counters.records_sealed += 1
        return sealing.record(sealing.epoch, ContentType.RETURN_ROUTABILITY, bytes((kind,)) + cookie)[1]

    def deadline(self) -> float | None:
        """When wake() is due, None if never."""
        if self.state is State.CLOSED:
            return None
        if self.state is not State.CONNECTED:
            return earliest(self._layer.deadline, self._handshake_deadline, self._opening.deadline)
        return earliest(
            self._layer.deadline,
            self._handshake_deadline,
            self._opening.deadline,
            self._rekeying.deadline,
            self._care.deadline,
        )

    def wake(self, now: float) -> None:
        """Do what is due by `now`."""
        if self.state is State.CLOSED:
            return
        self._opening.expire(now)
        if self._handshake_deadline is not None and self._handshake_deadline <= now:
            seconds = self._handshake_deadline - self.began
            self._account.note("handshake_seconds")
            self._finish(TimeoutError(f"the handshake did not finish within {seconds:g} seconds"))
            return
        try:
            self._layer.wake(now)
            if self.state is State.CONNECTED:
                self._rekeying.wake(now)
                self._care.wake(now)
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
        before = self.counters.records_opened
        size = bytes_of(datagrams)
        self.counters.datagrams_received += count_of(datagrams)
        self.counters.bytes_received += size
        self._earn(size)
        forged = self._opening.forged
        try:
            single = self._receive_data_runs(datagrams, now)
            for number, content_type, content in self._incoming.records(single):
                if number.epoch == EPOCH_PLAIN:
                    self._receive_plaintext(number, content_type, content, now)
                else:
                    self._receive_record(number, content_type, content, now)
            if self.state is not State.CLOSED:
                self._end_of_run(now, self._opening.forged - forged)
        except ProtocolError as error:
            self._fail(error)
        authentic = self.counters.records_opened > before
        if self._handshake_deadline is not None:
            self.conduct.heard_in_handshake(now)
        elif not self.conduct.used and self.counters.messages_received:
            self.conduct.first_use()
        if authentic:
            self._care.heard(now)
        return authentic

    def _receive_data_runs(self, datagrams: Sequence[Buffer | Train], now: float) -> Sequence[Buffer]:
        """Take application data run by run while nothing out of the ordinary comes; the rest, one by one."""
        index = offset = 0
        while index < len(datagrams) and self.state is State.CONNECTED and self._peer_closed_at is None:
            run = self._incoming.run(datagrams, index, offset)
            if run is None:
                break
            epoch, messages, other, index, offset = run
            if messages:
                self._opening.opened(epoch, now)
                self._layer.data_received()
                taken = self._receive_queue.put_received(messages)
                self.counters.messages_received += taken
                if taken < len(messages):
                    self.counters.discard(Discard.RECEIVE_QUEUE_FULL, len(messages) - taken)
            if other is not None:
                self._receive_record(*other, now)
        return rest_of(datagrams, index, offset) if index < len(datagrams) else ()

    def _end_of_run(self, now: float, forged: int) -> None:
        if self._incoming.server_hello_missing:
            self._incoming.server_hello_missing = False
            self._layer.server_hello_missing(now)
        self._layer.end_of_run(now)
        if not self._opening.one_cid:
            self._layer.cids.seen(self._incoming.newest_cid)
        if self._opening.overlong:
            # RFC 8449 section 4 [8449-1]: it authenticated, so it is the peer's doing.
            raise ProtocolError(Alert.RECORD_OVERFLOW, "a record is longer than record_size_limit allows")
        self._rekeying.looked(now)
        # Negative where keys were forgotten with what was counted under them.
        if forged > 0:
            self.conduct.forged(forged)
            self._rekeying.after_forgeries(now, connected=self.was_connected)

    def _receive_plaintext(self, number: RecordNumber, content_type: int, content: bytes, now: float) -> None:
        if content_type == ContentType.HANDSHAKE:
            self._receive_handshake(number, content, now)
        elif content_type == ContentType.ACK:
            # A client that has part of a ServerHello can acknowledge it only like this; once it has
            # shown its keys it needs to no more, and anybody can forge these.
            if self._keys_seen:
                self.counters.discard(Discard.UNEXPECTED_PLAINTEXT)
            else:
                self._layer.receive_ack(EPOCH_PLAIN, content, now)
        elif self._opening.epoch > EPOCH_PLAIN:
            # The peer has better ways (decision A19).
            self.counters.discard(Discard.PLAINTEXT_ALERT)
        else:
            self._receive_alert(number, content)

    def _receive_record(self, number: RecordNumber, content_type: int, content: bytes, now: float) -> None:
        """Handle a record that authenticated: what is wrong in it is the peer's doing [9147-4.5.2-6].

        One that did not came no further than a counter: no alert, no timer, no state knows of it
        (RFC 9147 section 4.5.2 [9147-4.5.2-2, 9147-4.5.2-4, 9147-4.5.2-5, 9147-11-8]).
        """
        if number.epoch == EPOCH_EARLY:
            # It may be a copy of what somebody sent before, so it proves nobody's address or presence.
            if self._early.receive(content_type, content):
                self._events += (EarlyDataArrived(),)
            return
        self._budget = None
        self._keys_seen = True
        if content_type == ContentType.HANDSHAKE and self._sealing.epoch >= EPOCH_APPLICATION:
            self._finished_answered = True
        self._opening.opened(number.epoch, now)
        late = self._peer_closed_at is not None and number > self._peer_closed_at
        # An ACK is no data: of a side that closed, it lets the other one go on with new keys.
        if late and content_type != ContentType.ACK:
            # RFC 9147 section 5.10 [9147-5.10-5]
            self.counters.discard(Discard.AFTER_CLOSE)
        elif content_type == ContentType.APPLICATION_DATA:
            if number.epoch < EPOCH_APPLICATION:
                raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "application data under handshake keys")
            self._receive_data(content)
        elif content_type == ContentType.HANDSHAKE:
            self._receive_handshake(number, content, now)
        elif content_type == ContentType.ACK:
            self._layer.receive_ack(number.epoch, content, now)
        elif content_type == ContentType.ALERT:
            self._receive_alert(number, content)
        elif content_type == ContentType.RETURN_ROUTABILITY and self.connection_ids.return_routability:
            self.path_messages.receive(content)
        else:
            # RFC 9147 section 4.1 [9147-4.1-4]
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, f"record of content type {content_type}")

    def _receive_handshake(self, number: RecordNumber, content: bytes, now: float) -> None:
        self._layer.receive(number, content, now)
        if self._layer.engine.complete and not self.was_connected:
            self._connected(now)
        tickets, self._layer.tickets = self._layer.tickets, ()
        for ticket in tickets:
            if size := charge_ticket(self._account, ticket):
                self._ticket_bytes += size
                self._events += (TicketReceived(ticket),)

    def _receive_data(self, content: bytes) -> None:
        self._layer.data_received()
        if self.state is State.CLOSING:
            self.counters.discard(Discard.CLOSED)
        elif self._receive_queue.put((content,)):
            self.counters.messages_received += 1
        else:
            self.counters.discard(Discard.RECEIVE_QUEUE_FULL)

    def _connected(self, now: float) -> None:
        handshake_over(self._account, self._layer.engine.session.peer_bytes, self.limits)
        self._layer.established()
        self.state = State.CONNECTED
        self.was_connected = True
        self.handshake_seconds = now - self.began
        self._incoming.handshake_over()
        self._handshake_deadline = None
        self._budget = None
        self._early.answered()
        if self._early.empty:
            self._early = EARLY_OVER
        self.conduct.handshake_over()
        self._care.begin(self.mtu, self._longest_probe, self.connection_ids.return_routability, now)
        self._events += (Connected(self._layer.engine.session),)

    def _receive_alert(self, number: RecordNumber, content: bytes) -> None:
        try:
            _, description = decode_alert(content)
        except ProtocolError:
            if number.epoch == EPOCH_PLAIN:
                self.counters.discard(Discard.UNEXPECTED_PLAINTEXT)
                return
            raise
        alert = Alert(description)
        if alert is Alert.USER_CANCELED and self.was_connected:
            # RFC 8446 section 6.1 [8446-ALERT-2]: close_notify follows it.
            return
        if alert is Alert.CLOSE_NOTIFY and self.was_connected:
            if self._peer_closed_at is None:
                self._peer_closed_at = number
                self._events += (PeerClosed(),)
                self._care.end()
                if self._goodbye_said:
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
        self._closing_error = error
        self._outgoing.drop()

    def _queue_alert(self, level: int, alert: Alert) -> None:
        # Decision A18: the highest epoch the peer can read for sure.
        epoch = self._sealing.epoch
        if self.state is State.HANDSHAKING and not self._finished_answered:
            readable = EPOCH_HANDSHAKE in self._sealing and not self._layer.server_hello_waits
            epoch = EPOCH_HANDSHAKE if readable else EPOCH_PLAIN
        if self._last_words is None:
            self._last_words = LastWords(self._sealing)
        self._last_words.queue(level, alert, epoch)

    def _finish(self, error: OSError | None) -> None:
        self.state = State.CLOSED
        self.error = error
        self._outgoing.drop()
        self._early.close()
        self._incoming.close()
        self._care.end()
        self._ticket_bytes = 0
        wind_down(self._account)
        ownership.let_go(self)
        self._events += (Closed(error),)

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
                for kind, cookie in self.path_messages.take():
                    if kind == PathMessage.CHALLENGE:
                        # [9853-2]: at once, to the one address there is.
                        datagrams.append(self.path_record(PathMessage.RESPONSE, cookie))
                    elif kind != PathMessage.RESPONSE or not self.path_answered(cookie, now):
                        # [9853-4]: nothing was asked.
                        self.counters.discard(Discard.PATH_MESSAGE)
                datagrams += self._layer.transmit(self._budget, now)
                datagrams += self._early.transmit()
                # Half of what is left, so that there is always something for the handshake to go on.
                left = None if self._budget is None else (self._budget - bytes_of(datagrams)) // 2
                datagrams += self._early.transmit_unfinished(left)
                if self.state is not State.HANDSHAKING:
                    self._transmit_data(datagrams, now, most)
        except ProtocolError as error:
            self._fail(error)
        if self._last_words is not None:
            datagrams += self._last_words.transmit(self.mtu, self._budget)
            self._last_words = None
        if self.state is State.CLOSED:
            self._sealing.clear()
        if datagrams:
            self._care.sent(now)
            size = bytes_of(datagrams)
            self.counters.datagrams_sent += count_of(datagrams)
            self.counters.bytes_sent += size
            if self._budget is not None:
                self._budget -= size
        return datagrams

    @property
    def _longest_probe(self) -> int:
        """What the peer's limit on records leaves of a datagram."""
        epoch = self._sealing.epoch
        return self._sealing.overhead(epoch) + self._sealing.inner_limit - 1

    def path_answered(self, cookie: bytes, now: float) -> bool:
        """A path_response came from the peer's address: whether it answers a challenge of this connection."""
        answered = self._care.answered(cookie, now)
        self._follow_path()
        return answered

    def _follow_path(self) -> None:
        """Send what the path was found to carry."""
        size = self._care.mtu
        if size and size != self.mtu:
            self.mtu = self._outgoing.mtu = size
            self._events += (MessageSizeChanged(self._outgoing.max_message_bytes),)

    def _care_for_peer(self, now: float) -> list[bytes]:
        """Challenges and empty records that are due."""
        sealer = self._sealing.sealer(self._sealing.epoch)
        datagrams = []
        for challenge in self._care.challenges(now):
            content = bytes((PathMessage.CHALLENGE,)) + challenge.cookie
            padding = max(challenge.size - sealer.overhead - len(content), 0)
            datagrams.append(sealer.seal(ContentType.RETURN_ROUTABILITY, content, padding))
        if self._care.empty_due:
            datagrams.append(sealer.seal(ContentType.APPLICATION_DATA, b""))
        self.counters.records_sealed += len(datagrams)
        return datagrams

    @property
    def data_waits(self) -> bool:
        """Whether there is application data that transmit_trains() could send at once."""
        return self.state in (State.CONNECTED, State.CLOSING) and self._outgoing.sendable

    def _transmit_data(self, datagrams: list[bytes | Train], now: float, most: int | None) -> None:
        if self.state is State.CONNECTED:
            datagrams += self._care_for_peer(now)
        sealed = self._outgoing.seal(most)
        if sealed:
            datagrams += sealed
            self._layer.cids.requests_sent = 0
            self._care.data_sent()
            if not self.conduct.used:
                self.conduct.first_use()
        waits = self._outgoing.bytes_held > 0
        # Whoever closes and has nothing to send any more needs no new keys.
        if waits or (datagrams and self.state is State.CONNECTED):
            try:
                if self._rekeying.after_sealing(now):
                    datagrams += self._layer.transmit(None, now)
            except KeysExhausted as error:
                self._close_exhausted(error)
        # What still waits, waits for new keys.
        if self.state is State.CLOSING and not self._outgoing.bytes_held:
            if not self._goodbye_said:
                self._queue_alert(WARNING, Alert.CLOSE_NOTIFY)
            self._finish(self._closing_error)
        elif self.write_closed and not self._goodbye_said and not waits and not self._layer.outstanding:
            # What comes behind a close_notify is ignored [9147-5.10-5], so it waits for our last flight.
            self._goodbye_said = True
            self._queue_alert(WARNING, Alert.CLOSE_NOTIFY)
            if self._peer_closed_at is not None:
                self._finish(None)
