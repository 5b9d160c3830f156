"""One DTLS 1.3 connection without sockets, clocks or threads (RFC 9147).

    connection = Connection.client(config, now=t, server_name="host")
    for datagram in connection.transmit(t): ...     # what to send now
    connection.receive(datagram, t)                 # what came
    connection.wake(t)                              # when deadline() is reached

The law: after every receive, wake, send or close, take transmit(), events() and messages(), and ask
deadline() again.  Time is any clock that never goes back, in seconds.  Received bytes never raise:
they become messages, a counted Discard, or end the connection with an alert and a Closed event.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from sealwire.context import Config
from sealwire.dtls.epochs import Opening, Sealing
from sealwire.dtls.events import Closed, Connected, Event, PeerClosed
from sealwire.dtls.flight import Flight
from sealwire.dtls.header import (
    MAX_CONTENT_BYTES,
    MAX_SEQUENCE,
    RECORD_NUMBER_BYTES,
    ContentType,
    RecordNumber,
    decode_ack,
    decode_alert,
    decode_fragments,
    decode_plaintext,
    encode_ack,
    is_ciphertext,
)
from sealwire.dtls.reassembly import Reassembly
from sealwire.errors import (
    Alert,
    ConnectionClosed,
    Discard,
    HandshakeError,
    LimitReached,
    PeerAlert,
    ProtocolError,
)
from sealwire.limits import Account, Ledger, Limits, Purpose
from sealwire.record.protect import DISCARDS, parse_ciphertext_header
from sealwire.telemetry import ConnectionCounters
from sealwire.tls13.contract import (
    EPOCH_APPLICATION,
    EPOCH_HANDSHAKE,
    EPOCH_PLAIN,
    Direction,
    HandshakeDone,
    InstallKeys,
    SendMessage,
    Session,
)
from sealwire.tls13.handshake import DTLS, Handshake
from sealwire.wire import Buffer

# What the objects of a connection weigh while it shakes hands, and later (measured with tracemalloc
# over 1,000 connections of each kind, rounded up).
HANDSHAKE_BYTES: Final = 32 * 1024
CONNECTION_BYTES: Final = 12 * 1024
# RFC 9147 section 5.8.2 [9147-5.8.2-1]
INITIAL_TIMEOUT_SECONDS: Final = 1.0
# Leaves room for IPv6 and UDP headers on every path that carries IPv6 (1280 bytes), as QUIC does.
DEFAULT_MTU_BYTES: Final = 1200
# RFC 9147 section 4.4 [9147-4.4-12]: sizes to fall back to when a flight meets silence again and again:
# what IPv4 hosts must accept (576), and what RFC 791 lets a link have with room for options (296).
_FALLBACK_MTU_BYTES: Final = (548, 268)
_SILENT_TRANSMISSIONS: Final = 2
_MIN_MTU_BYTES: Final = 128
# Record numbers remembered for the next ACK; older ones are dropped first, which costs the peer a
# retransmission.
_MAX_ACK_NUMBERS: Final = 64
# A charge beside the bytes of a queued message: the object and its place in the queue.
_MESSAGE_OVERHEAD_BYTES: Final = 64
# RFC 9147 section 4.5.3 [9147-4.5.3-2]: new keys are asked for at this part of the limit.
_REKEY_PART: Final = 0.9
_FATAL: Final = 2
_WARNING: Final = 1


class State(enum.StrEnum):
    """Where a connection is in its life."""

    HANDSHAKING = "handshaking"
    CONNECTED = "connected"
    CLOSING = "closing"  # close_notify is queued
    CLOSED = "closed"


class Connection:
    """One association with one peer.  Not thread-safe; see the module's law."""

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
        version_selected: bool = False,
        address_proved: bool = True,
    ) -> None:
        """Made by :meth:`client`, :meth:`server` or an Endpoint."""
        if mtu < _MIN_MTU_BYTES:
            raise ValueError(f"an MTU of {mtu} bytes is below the least one, {_MIN_MTU_BYTES}")
        self.config = config
        self.limits = limits
        #: Largest datagram this connection makes, in bytes of UDP payload.
        self.mtu = mtu
        self.counters = ConnectionCounters()
        self.state = State.HANDSHAKING
        #: Why the connection ended; None while it has not, or after a close of our own.
        self.error: OSError | None = None
        #: Called when something is to be transmitted that no receive or wake caused.
        self.on_output: Callable[[Connection], None] | None = None
        #: Who the peer is on the network; set by an Endpoint, for its owner's use.
        self.address: object = None

        self._handshake = handshake
        self._account = account
        self._sealing = Sealing(config.provider, plain_sequence)
        self._opening = Opening(config.provider, limits.replay_window, b"")
        self._flight = Flight(initial_timeout, next_message_seq)
        self._flight_charge = 0
        self._flight_mtu = mtu
        self._reassembly = Reassembly(account, limits, next_peer_message_seq)
        self._version_selected = version_selected
        # RFC 9147 section 5.1 [9147-5.1-8]: what may still be sent to an address nobody proved,
        # None once it is proved.
        self._budget: int | None = None if address_proved else 0

        self._to_acknowledge: deque[RecordNumber] = deque(maxlen=_MAX_ACK_NUMBERS)
        self._ack_deadline: float | None = None
        self._ack_now = False
        self._handshake_deadline: float | None = now + limits.handshake_seconds

        self._send_queue: list[bytes] = []
        self._send_queue_bytes = 0
        self._receive_queue: list[bytes] = []
        self._receive_queue_bytes = 0
        self._alert: tuple[int, Alert] | None = None
        self._alert_epoch = EPOCH_PLAIN
        self._peer_closed_at: RecordNumber | None = None
        self._key_updates_in_a_row = 0
        self._events: list[Event] = []
        self._was_connected = False
        self._apply_outputs(now)

    # --- making one ------------------------------------------------------------------------

    @classmethod
    def client(
        cls,
        config: Config,
        *,
        now: float,
        server_name: str | None = None,
        limits: Limits | None = None,
        mtu: int = DEFAULT_MTU_BYTES,
        initial_timeout: float = INITIAL_TIMEOUT_SECONDS,
        ledger: Ledger | None = None,
    ) -> Connection:
        """A client; its ClientHello is in the first transmit().

        Args:
            now: the time, in seconds.
            server_name: name or address the server's certificate must be for.
            mtu: largest UDP payload to send, in bytes.
            initial_timeout: seconds until the first retransmission.
            ledger: account to charge; one of its own by default.

        Raises:
            ConfigurationError: no usable server name while names are checked.
            LimitReached: the ledger has no room.
        """
        limits = limits or Limits()
        account = _open_account(ledger, limits)
        # RFC 9147 section 5.1 [9147-5.1-13]: an empty id says that we need none and take the server's.
        handshake = Handshake.client(config, DTLS, server_name=server_name, connection_id=b"")
        return cls(
            config,
            handshake,
            now=now,
            limits=limits,
            mtu=mtu,
            initial_timeout=initial_timeout,
            account=account,
        )

    @classmethod
    def server(
        cls,
        config: Config,
        *,
        now: float,
        limits: Limits | None = None,
        mtu: int = DEFAULT_MTU_BYTES,
        initial_timeout: float = INITIAL_TIMEOUT_SECONDS,
        ledger: Ledger | None = None,
        address_proved: bool = True,
    ) -> Connection:
        """A server for a single peer, without the cookie exchange of an Endpoint.

        Only for peers whose address cannot be forged (RFC 9147 section 5.1 [9147-5.1-7]: ICE, a
        test); else say so by `address_proved`, and at most three times the bytes received are sent
        until the peer proves it.
        """
        limits = limits or Limits()
        return cls(
            config,
            Handshake.server(config, DTLS),
            now=now,
            limits=limits,
            mtu=mtu,
            initial_timeout=initial_timeout,
            account=_open_account(ledger, limits),
            address_proved=address_proved,
        )

    def begin(self, message: bytes, received_bytes: int, now: float) -> None:
        """Server: take the whole ClientHello (TLS form) that an Endpoint's gate let through."""
        if self._budget is not None:
            self._budget += 3 * received_bytes
        self._version_selected = True
        try:
            self._handshake.receive(EPOCH_PLAIN, message)
            self._apply_outputs(now)
        except ProtocolError as error:
            self._fail(error)

    def hello_repeated(self, now: float) -> None:
        """Server: the peer's ClientHello came again, so our answer to it did not arrive."""
        if self.state is State.HANDSHAKING:
            self._flight.prompt(now)

    # --- what the application asks ---------------------------------------------------------

    @property
    def was_connected(self) -> bool:
        """Whether the handshake was ever complete."""
        return self._was_connected

    @property
    def session(self) -> Session:
        """The facts of the finished handshake; Error before it is."""
        return self._handshake.session

    @property
    def max_message_bytes(self) -> int:
        """The longest message send() takes, in bytes; 0 before keys exist [9147-4.4-4]."""
        epoch = self._sealing.epoch
        return min(self.mtu - self._sealing.overhead(epoch), MAX_CONTENT_BYTES) if epoch else 0

    @property
    def send_queue_bytes(self) -> int:
        """Bytes given to send() that transmit() has not given out."""
        return self._send_queue_bytes

    @property
    def held_bytes(self) -> int:
        """Bytes charged for this connection now."""
        return self._account.held

    def send(self, data: Buffer) -> None:
        """Queue one message; see :meth:`send_many`."""
        self.send_many((data,))

    def send_many(self, messages: Sequence[Buffer]) -> None:
        """Queue messages, each to travel whole in a datagram of its own.

        Before the handshake is done they wait for it.  All are queued or none.

        Raises:
            ValueError: a message is longer than :attr:`max_message_bytes`.
            LimitReached: the send queue is full (send_queue_bytes).
            ConnectionClosed or the error that ended the connection.
        """
        if self.state in (State.CLOSING, State.CLOSED):
            raise self.error or ConnectionClosed("the connection is closed")
        # Overhead before the keys exist is that of the suites we have, which all have 16-byte tags.
        longest = self.max_message_bytes or min(self.mtu - 22, MAX_CONTENT_BYTES)
        size = 0
        for message in messages:
            if len(message) > longest:
                raise ValueError(
                    f"a message of {len(message)} bytes is above the {longest} a datagram carries"
                )
            size += len(message) + _MESSAGE_OVERHEAD_BYTES
        if self._send_queue_bytes + size > self.limits.send_queue_bytes or not self._account.charge(
            Purpose.SEND_QUEUE, size
        ):
            raise LimitReached("send_queue_bytes", "the send queue is full")
        self._send_queue.extend(map(bytes, messages))
        self._send_queue_bytes += size
        self.counters.messages_sent += len(messages)
        self._notify()

    def messages(self) -> list[bytes]:
        """Messages that came since the last call, in order of arrival."""
        messages, self._receive_queue = self._receive_queue, []
        if messages and self.state is not State.CLOSED:
            self._account.release(Purpose.RECEIVE_QUEUE, self._receive_queue_bytes)
        self._receive_queue_bytes = 0
        return messages

    def events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def update_keys(self, now: float, *, request_peer: bool = False) -> None:
        """Move to new sending keys once the peer acknowledged it (RFC 9147 section 8).

        Raises:
            Error: the handshake is not complete, or the connection is closed.
        """
        if self.state in (State.CLOSING, State.CLOSED):
            raise self.error or ConnectionClosed("the connection is closed")
        self._handshake.update_keys(request_peer=request_peer)
        self.counters.key_updates += 1
        self._apply_outputs(now)
        self._notify()

    def export(self, label: bytes, context: bytes, n: int) -> bytes:
        """Exported keying material of `n` bytes (RFC 8446 section 7.5); Error before completion."""
        return self._handshake.export(label, context, n)

    def close(self, now: float) -> None:
        """Send what is queued and close_notify, then be closed.  May be called again."""
        if self.state is State.HANDSHAKING:
            # Nobody waits for a close_notify yet; user_canceled tells the peer to stop waiting.
            self._queue_alert(_WARNING, Alert.USER_CANCELED)
            self._finish(None)
        elif self.state is State.CONNECTED:
            self.state = State.CLOSING
        self._notify()

    def abort(self, error: OSError | None = None) -> None:
        """Be closed at once, without a word to the peer."""
        if self.state is not State.CLOSED:
            self._finish(error)
            self._alert = None

    # --- time ------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When wake() is due, None if never."""
        if self.state is State.CLOSED:
            return None
        due = (self._flight.deadline, self._ack_deadline, self._handshake_deadline, self._opening.deadline)
        return min((at for at in due if at is not None), default=None)

    def wake(self, now: float) -> None:
        """Do what is due by `now`."""
        if self.state is State.CLOSED:
            return
        self._opening.expire(now)
        if self._handshake_deadline is not None and self._handshake_deadline <= now:
            seconds = self.limits.handshake_seconds
            self._give_up(f"the handshake did not finish within {seconds:g} seconds")
            return
        if self._ack_deadline is not None and self._ack_deadline <= now:
            self._ack_deadline = None
            self._ack_now = True
        if self._flight.deadline is not None and self._flight.deadline <= now:
            self._retransmit(now)

    def _retransmit(self, now: float) -> None:
        flight = self._flight
        if flight.expiries >= self.limits.retransmissions:
            self._give_up(f"the peer did not answer {flight.expiries} transmissions")
            return
        flight.expire(now)
        self.counters.retransmissions += 1
        if flight.expiries >= _SILENT_TRANSMISSIONS:
            smaller = [size for size in _FALLBACK_MTU_BYTES if size < self._flight_mtu]
            if smaller:
                self._flight_mtu = smaller[0]

    def _give_up(self, reason: str) -> None:
        self._finish(TimeoutError(reason))

    # --- receiving -------------------------------------------------------------------------

    def receive(self, datagram: Buffer, now: float) -> None:
        """Take one datagram from the peer."""
        self.receive_run((datagram,), now)

    def receive_run(self, datagrams: Sequence[Buffer], now: float) -> bool:
        """Take datagrams from the peer, in order of arrival.

        Returns whether any record of them was authentic.
        """
        before = self.counters.records_opened
        size = sum(map(len, datagrams))
        self.counters.datagrams_received += len(datagrams)
        self.counters.bytes_received += size
        if self._budget is not None:
            self._budget += 3 * size
        index = offset = 0
        try:
            while index < len(datagrams):
                if self.state is State.CLOSED:
                    self._discard(Discard.CLOSED)
                    break
                datagram = datagrams[index]
                if offset >= len(datagram):
                    if not datagram:
                        self._discard(Discard.EMPTY)
                    index, offset = index + 1, 0
                elif is_ciphertext(datagram[offset]):
                    index, offset = self._receive_ciphertexts(datagrams, index, offset, now)
                else:
                    offset = self._receive_plaintext(datagram, offset, now)
            self._schedule_ack(now)
        except ProtocolError as error:
            self._fail(error)
        return self.counters.records_opened > before

    def _receive_ciphertexts(
        self, datagrams: Sequence[Buffer], index: int, offset: int, now: float
    ) -> tuple[int, int]:
        datagram = datagrams[index]
        opener = self._opening.opener(datagram[offset] & 3)
        if opener is None:
            return index, self._skip_unknown_epoch(datagram, offset, now)
        epoch = opener.epoch
        forged = opener.forged
        entries, index, offset = opener.open_run(datagrams, index, offset)
        for content_type, sequence, content in entries:
            if content_type < 0:
                self._discard(DISCARDS[-content_type])
                continue
            self.counters.records_opened += 1
            self._receive_record(RecordNumber(epoch, sequence), content_type, content, now)
            if self.state is State.CLOSED:
                return len(datagrams), 0
        if opener.forged > forged and opener.forged >= opener.forgery_limit * _REKEY_PART:
            self._forgeries(opener.forged, opener.forgery_limit, now)
        return index, offset

    def _skip_unknown_epoch(self, datagram: Buffer, offset: int, now: float) -> int:
        # RFC 9147 section 6.1 [9147-6.1-2]: like a record that failed.
        header = parse_ciphertext_header(datagram, offset, self._opening.cid_length)
        if isinstance(header, Discard):
            self._discard(header)
            return len(datagram)
        self._discard(Discard.UNKNOWN_EPOCH)
        waiting_for_server_hello = self._sealing.epoch == EPOCH_PLAIN and self._version_selected
        if waiting_for_server_hello and header.epoch_bits == EPOCH_HANDSHAKE and self._ack_deadline is None:
            # The ServerHello was lost while what followed it came: an empty ACK asks for it
            # (RFC 9147 section 7.1 [9147-7.1-9]), once per retransmission period (decision A1).
            self._ack_deadline = now + self._flight.timeout / 4
        return header.end

    def _forgeries(self, forged: int, limit: int, now: float) -> None:
        """Failed authentications come near the limit, or reach it (RFC 9147 section 4.5.3)."""
        if forged >= limit:
            # [9147-4.5.3-4]
            raise ProtocolError(Alert.BAD_RECORD_MAC, "too many records failed authentication")
        if self._handshake.complete and not self._handshake.updating_keys:
            # [9147-4.5.3-5]
            self._handshake.update_keys(request_peer=True)
            self._apply_outputs(now)

    def _receive_plaintext(self, datagram: Buffer, offset: int, now: float) -> int:
        record = decode_plaintext(datagram, offset)
        if isinstance(record, Discard):
            self._discard(record)
            return len(datagram)
        number = RecordNumber(EPOCH_PLAIN, record.sequence)
        if record.content_type == ContentType.HANDSHAKE:
            self._receive_handshake(number, record.content, now)
        elif self._opening.epoch > EPOCH_PLAIN:
            # Keys exist, so the peer has better ways (decision A19); anybody can forge these.
            plain_alert = record.content_type == ContentType.ALERT
            self._discard(Discard.PLAINTEXT_ALERT if plain_alert else Discard.UNEXPECTED_PLAINTEXT)
        elif record.content_type == ContentType.ACK:
            self._receive_ack(EPOCH_PLAIN, record.content, now)
        else:
            self._receive_alert(number, record.content)
        return record.end

    def _receive_record(self, number: RecordNumber, content_type: int, content: bytes, now: float) -> None:
        """Handle a record that authenticated: what is wrong in it is the peer's doing."""
        self._budget = None
        self._opening.opened(number.epoch, now)
        if self._peer_closed_at is not None and number > self._peer_closed_at:
            # RFC 9147 section 5.10 [9147-5.10-5]
            self._discard(Discard.AFTER_CLOSE)
        elif content_type == ContentType.APPLICATION_DATA:
            if number.epoch < EPOCH_APPLICATION:
                raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "application data under handshake keys")
            self._receive_data(content)
        elif content_type == ContentType.HANDSHAKE:
            self._receive_handshake(number, content, now)
        elif content_type == ContentType.ACK:
            self._receive_ack(number.epoch, content, now)
        elif content_type == ContentType.ALERT:
            self._receive_alert(number, content)
        else:
            # RFC 9147 section 4.1 [9147-4.1-4]
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, f"record of content type {content_type}")

    def _receive_data(self, content: bytes) -> None:
        self._key_updates_in_a_row = 0
        if self.state is State.CLOSING:
            self._discard(Discard.CLOSED)
            return
        size = len(content) + _MESSAGE_OVERHEAD_BYTES
        if self._receive_queue_bytes + size > self.limits.receive_queue_bytes or not self._account.charge(
            Purpose.RECEIVE_QUEUE, size
        ):
            self._discard(Discard.RECEIVE_QUEUE_FULL)
            return
        self._receive_queue.append(content)
        self._receive_queue_bytes += size
        self.counters.messages_received += 1

    # --- handshake messages ------------------------------------------------------------------

    def _receive_handshake(self, number: RecordNumber, content: bytes, now: float) -> None:
        epoch = number.epoch
        try:
            fragments = decode_fragments(content)
        except ProtocolError:
            if epoch == EPOCH_PLAIN:
                self._discard(Discard.BAD_FRAGMENT)
                return
            raise
        if epoch == EPOCH_PLAIN and self._handshake.receive_epoch > EPOCH_PLAIN:
            # Nothing new may come in plaintext any more.  What is old may be the peer's flight
            # again, because ours did not arrive.
            self._discard(Discard.UNEXPECTED_PLAINTEXT)
            if all(fragment.message_seq < self._reassembly.next_seq for fragment in fragments):
                self._flight.prompt(now)
            return
        kept = fresh = True
        # Listed before it is handled: handling may begin our next flight, which clears the list.
        self._to_acknowledge.append(number)
        for fragment in fragments:
            reason = self._reassembly.offer(fragment, epoch)
            if reason is None:
                if epoch > EPOCH_PLAIN and not self._handshake.complete:
                    # RFC 9147 section 7.2 [9147-7.2-5]
                    self._acknowledged(self._flight.acknowledge_all(now), now)
                self._deliver(now)
                if self.state is State.CLOSED:
                    return
            elif reason is Discard.STALE_MESSAGE:
                self._discard(reason)
                fresh = False
            else:
                self._discard(reason)
                kept = False
        if not fresh and not self._handshake.complete:
            # RFC 9147 section 5.8.1 [9147-5.8.1-3]: the peer repeats a flight we answered.
            self._flight.prompt(now)
        if (not kept or not (fresh or self._handshake.complete)) and number in self._to_acknowledge:
            # RFC 9147 section 7 [9147-7-2, 9147-7-5]: only what was processed or kept; after the
            # handshake also what came again.
            self._to_acknowledge.remove(number)

    def _deliver(self, now: float) -> None:
        """Give whole messages to the engine, in order."""
        while (ready := self._reassembly.pop()) is not None:
            epoch, message = ready
            was_complete = self._handshake.complete
            self._handshake.receive(epoch, message)
            if epoch == EPOCH_PLAIN and not was_complete:
                # Plaintext acknowledges our flight only once the engine took it for an answer.
                self._acknowledged(self._flight.acknowledge_all(now), now)
            if was_complete:
                self._count_key_updates(message)
            self._version_selected = True
            self._apply_outputs(now)
            if self.state is State.CLOSED:
                return

    def _count_key_updates(self, message: bytes) -> None:
        if message[0] != _KEY_UPDATE:
            return
        self.counters.key_updates += 1
        self._key_updates_in_a_row += 1
        if self._key_updates_in_a_row > self.limits.key_updates_in_a_row:
            # [8446-POST-3]
            raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "too many KeyUpdates without data between them")

    def _apply_outputs(self, now: float) -> None:
        """Do what the engine decided, in its order."""
        for output in self._handshake.outputs():
            match output:
                case SendMessage(epoch, message, handle):
                    if not self._handshake.complete or epoch < EPOCH_APPLICATION:
                        # Our next flight answers the peer's: the list of records to acknowledge
                        # starts over (RFC 9147 section 7 [9147-7-4]).
                        self._to_acknowledge.clear()
                        self._ack_deadline = None
                    if self._flight.next_seq > 0xFFFF:
                        # Errata 8048 [9147-5.2-5]
                        raise ProtocolError(Alert.INTERNAL_ERROR, "handshake message numbers are used up")
                    self._flight.add(epoch, message, handle)
                case InstallKeys(Direction.SEND):
                    self._sealing.install(output, self._handshake.peer_connection_id or b"")
                    self._sealing.forget_before(output.epoch, self._flight.epochs | {EPOCH_HANDSHAKE})
                case InstallKeys():
                    self._reassembly.change_keys(output.epoch)
                    self._opening.install(output)
                case HandshakeDone():
                    self._connected(now)
                case _:
                    # A ticket: nothing is resumed, so it is not kept; its record is acknowledged.
                    pass
        self._charge_flight()

    def _connected(self, now: float) -> None:
        self.state = State.CONNECTED
        self._was_connected = True
        self._handshake_deadline = None
        self._budget = None
        self._opening.linger(now)
        self._sealing.forget_before(self._sealing.epoch, self._flight.epochs)
        self._account.release(Purpose.CONNECTION, HANDSHAKE_BYTES - CONNECTION_BYTES)
        self._events.append(Connected(self._handshake.session))

    def _charge_flight(self) -> None:
        size = self._flight.outstanding_bytes
        if size > self._flight_charge:
            if not self._account.charge(Purpose.HANDSHAKE, size - self._flight_charge):
                raise ProtocolError(Alert.INTERNAL_ERROR, "no memory is left for the handshake")
        elif size < self._flight_charge:
            self._account.release(Purpose.HANDSHAKE, self._flight_charge - size)
        self._flight_charge = size

    # --- acknowledgements --------------------------------------------------------------------

    def _schedule_ack(self, now: float) -> None:
        """Decide when the records of this run are acknowledged."""
        if not self._to_acknowledge or self.state is State.CLOSED:
            return
        if self._handshake.complete:
            # RFC 9147 section 7.1 [9147-7.1-3, 9147-5.7-1]: nothing else answers these flights.
            self._ack_now = True
        elif self._ack_deadline is None:
            # [9147-7.1-2]: part of a flight came; its rest is late after a quarter of the timer.
            self._ack_deadline = now + self._flight.timeout / 4

    def _receive_ack(self, epoch: int, content: bytes, now: float) -> None:
        self.counters.acks_received += 1
        if not self._version_selected:
            # bis PR 327 [9147-7-10, decision A2]
            self._discard(Discard.EARLY_ACK)
            return
        try:
            numbers = decode_ack(content)
        except ProtocolError:
            if epoch == EPOCH_PLAIN:
                self._discard(Discard.MALFORMED_ACK)
                return
            raise
        # Errata 8108, decision A3 [9147-7.2-6].
        highest = epoch if epoch < EPOCH_APPLICATION else self._sealing.epoch
        for number in numbers:
            if number.epoch > highest or number.sequence > MAX_SEQUENCE:
                raise ProtocolError(Alert.ILLEGAL_PARAMETER, "ACK names a record that cannot exist")
        if not numbers:
            # [9147-7.1-9, decision A1]
            self._flight.prompt(now)
            return
        self._acknowledged(self._flight.acknowledge(numbers, now), now)

    def _acknowledged(self, handles: list[int], now: float) -> None:
        for handle in handles:
            self._handshake.acknowledged(handle)
        if handles:
            self._apply_outputs(now)
            if self.state is State.CONNECTED:
                self._sealing.forget_before(self._sealing.epoch, self._flight.epochs)

    # --- alerts and the end --------------------------------------------------------------------

    def _receive_alert(self, number: RecordNumber, content: bytes) -> None:
        try:
            _, description = decode_alert(content)
        except ProtocolError:
            if number.epoch == EPOCH_PLAIN:
                self._discard(Discard.UNEXPECTED_PLAINTEXT)
                return
            raise
        alert = Alert(description)
        if alert is Alert.USER_CANCELED and self._handshake.complete:
            # RFC 8446 section 6.1 [8446-ALERT-2]: close_notify follows it.
            return
        if alert is Alert.CLOSE_NOTIFY and self._handshake.complete:
            if self._peer_closed_at is None:
                self._peer_closed_at = number
                self._events.append(PeerClosed())
            return
        if alert in (Alert.CLOSE_NOTIFY, Alert.USER_CANCELED):
            self._finish(ConnectionClosed("the peer gave the handshake up"))
            return
        self._finish(PeerAlert(alert))

    def _fail(self, error: ProtocolError) -> None:
        """The one place where an error becomes an alert."""
        if self.state is State.CLOSED:
            return
        if not self._handshake.complete and not isinstance(error, HandshakeError):
            error = HandshakeError(error.alert, error.reason)
        self._queue_alert(_FATAL, error.alert)
        self._finish(error)

    def _queue_alert(self, level: int, alert: Alert) -> None:
        self._alert = (level, alert)
        # Decision A18: the highest epoch the peer can read for sure.
        if self.state is not State.HANDSHAKING:
            self._alert_epoch = self._sealing.epoch
        else:
            self._alert_epoch = EPOCH_HANDSHAKE if EPOCH_HANDSHAKE in self._sealing else EPOCH_PLAIN

    def _finish(self, error: OSError | None) -> None:
        self.state = State.CLOSED
        self.error = error
        self._send_queue.clear()
        self._send_queue_bytes = 0
        self._flight = Flight(INITIAL_TIMEOUT_SECONDS)
        self._to_acknowledge.clear()
        self._ack_now = False
        self._opening.clear()
        self._account.close()
        self._events.append(Closed(error))

    def _discard(self, reason: Discard) -> None:
        self.counters.discard(reason)

    def _notify(self) -> None:
        if self.on_output is not None:
            self.on_output(self)

    # --- sending ---------------------------------------------------------------------------

    def transmit(self, now: float) -> list[bytes]:
        """Datagrams to send now, in order."""
        datagrams: list[bytes] = []
        try:
            if self.state is not State.CLOSED:
                self._transmit_handshake(datagrams, now)
                if self.state is not State.HANDSHAKING:
                    self._transmit_data(datagrams, now)
        except ProtocolError as error:
            self._fail(error)
        if self._alert is not None:
            level, alert = self._alert
            self._alert = None
            _, record = self._sealing.record(self._alert_epoch, ContentType.ALERT, bytes((level, alert)))
            # An alert to an address nobody proved counts as well.
            if self._budget is None or len(record) <= self._budget:
                datagrams.append(record)
        if self.state is State.CLOSED:
            self._sealing.clear()
        if datagrams:
            size = sum(map(len, datagrams))
            self.counters.datagrams_sent += len(datagrams)
            self.counters.bytes_sent += size
            if self._budget is not None:
                self._budget -= size
        return datagrams

    def _transmit_handshake(self, datagrams: list[bytes], now: float) -> None:
        """ACKs and handshake messages, packed into as few datagrams as they need."""
        limit = self._flight_mtu
        left = self._budget
        datagram = bytearray()
        if self._ack_now:
            self._ack_now = False
            self._ack_deadline = None
            datagram += self._ack_record(limit)
        while True:
            if left is not None:
                limit = min(limit, left)
            epoch = self._flight.pending_epoch()
            if epoch is None:
                break
            room = limit - len(datagram) - self._sealing.overhead(epoch)
            content = self._flight.next_content(room, epoch)
            if content is None:
                if not datagram:
                    break
                datagrams.append(bytes(datagram))
                if left is not None:
                    left -= len(datagram)
                datagram.clear()
                continue
            sequence, record = self._sealing.record(content.epoch, ContentType.HANDSHAKE, content.data)
            datagram += record
            self._flight.sent(content, RecordNumber(content.epoch, sequence), now)
        if datagram:
            datagrams.append(bytes(datagram))

    def _ack_record(self, limit: int) -> bytes:
        """An ACK of everything to be acknowledged, in the highest sending epoch [9147-7-7, 9147-7-8]."""
        epoch = self._sealing.epoch
        room = (limit - self._sealing.overhead(epoch) - 2) // RECORD_NUMBER_BYTES
        numbers = [number for number in self._to_acknowledge if number.epoch <= epoch][-room:]
        if self._handshake.complete:
            # RFC 9147 section 7 [9147-7-4]: during the handshake the list stays until the flight is over.
            self._to_acknowledge.clear()
        self.counters.acks_sent += 1
        return self._sealing.record(epoch, ContentType.ACK, encode_ack(numbers))[1]

    def _transmit_data(self, datagrams: list[bytes], now: float) -> None:
        sealer = self._sealing.sealer(self._sealing.epoch)
        if self._send_queue:
            queue, self._send_queue = self._send_queue, []
            self._account.release(Purpose.SEND_QUEUE, self._send_queue_bytes)
            self._send_queue_bytes = 0
            if sealer.sealed + len(queue) > sealer.seal_limit:
                # RFC 9147 section 4.5.3 [9147-4.5.3-1]: never beyond, whatever became of the KeyUpdate.
                raise ProtocolError(Alert.INTERNAL_ERROR, "the sending keys are used up")
            datagrams += sealer.seal_run(ContentType.APPLICATION_DATA, queue)
            self.counters.records_sealed += len(queue)
            if sealer.sealed > sealer.seal_limit * _REKEY_PART and not self._handshake.updating_keys:
                # [9147-4.5.3-2]
                self._handshake.update_keys()
                self._apply_outputs(now)
                self._transmit_handshake(datagrams, now)
        if self.state is State.CLOSING:
            self._queue_alert(_WARNING, Alert.CLOSE_NOTIFY)
            self._finish(None)


_KEY_UPDATE: Final = 24


def _open_account(ledger: Ledger | None, limits: Limits) -> Account:
    """An account that holds the charge for a connection in its handshake."""
    account = Account(ledger or Ledger(limits.total_bytes), limits.connection_bytes)
    if not account.charge(Purpose.CONNECTION, HANDSHAKE_BYTES):
        raise LimitReached("total_bytes", "no memory is left for another connection")
    return account
