"""The inner life of a connection over a byte stream: records in, records out, and how it ends.

:class:`Association` holds the parts and moves them on; what its owner may ask of it is
:class:`sealwire.stcp.connection.Connection`.  A peer's mistake ends it in one place, `_fail`, with the
alert the error knows.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Final

from sealwire import ownership
from sealwire.crypto.hkdf import TLS13_PREFIX, TrafficKeys, traffic_keys
from sealwire.crypto.suites import SuiteSpec
from sealwire.errors import (
    Alert,
    ConnectionClosed,
    Error,
    HandshakeError,
    LimitReached,
    PeerAlert,
    ProtocolError,
    Truncated,
)
from sealwire.limits import Account, Ledger, Limits, Purpose
from sealwire.limits.weights import PEER_BYTES_INCLUDED, STREAM_BYTES, TICKET_BYTES
from sealwire.record.padding import Padding
from sealwire.record.stream import STREAM_HEADER_BYTES, StreamOpener, StreamSealer
from sealwire.stcp.deframe import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    PLAINTEXT_LIMIT_BYTES,
    Deframer,
    MessageJoiner,
)
from sealwire.stcp.early import EarlyStream
from sealwire.stcp.events import Closed, Connected, Event, GoingAway, PeerClosed, TicketReceived
from sealwire.stcp.lane import Lane
from sealwire.stcp.messages import RUN_BYTES, Keepalive, MessageMode
from sealwire.stcp.outgoing import Outgoing, charge, check_room
from sealwire.telemetry import ConnectionCounters
from sealwire.tls13.contract import (
    EPOCH_APPLICATION,
    EPOCH_EARLY,
    Direction,
    EarlyDataAnswered,
    HandshakeDone,
    InstallKeys,
    SendCompatibilityCcs,
    SendMessage,
    Session,
)
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import HandshakeType

if TYPE_CHECKING:
    from sealwire.context import Config
    from sealwire.wire import Buffer

# Events kept for an owner that does not ask: what a server can make a client hold [8446-POST-3].
_MAX_EVENTS: Final = 16
# A peer sends one for compatibility, two with a retry; each costs us a record's handling and holds nothing.
_MAX_CCS: Final = 32
_numbers = count(1)
_WARNING: Final = 1
_FATAL: Final = 2


class Association(Lane):
    """What one connection is made of, and how records move it on."""

    def __init__(
        self,
        handshake: Handshake,
        config: Config,
        *,
        is_client: bool,
        now: float,
        limits: Limits,
        ledger: Ledger,
        peer: object = None,
        protocol: bytes | None = None,
        keepalive: Keepalive | None = None,
    ) -> None:
        self.state = "handshaking"
        self.error: Error | TimeoutError | None = None
        self.peer_closed = False
        #: Tells connections apart in reports.
        self.number = next(_numbers)
        self.began = now
        self._provider = config.provider
        self._is_client = is_client
        self._limits = limits
        self._ledger = ledger
        self.counters = ConnectionCounters()
        self._account = Account(ledger, min(limits.handshake_bytes, limits.connection_bytes))
        self._handshake = handshake
        self._deadline: float | None = now + limits.handshake_seconds
        # Keys of the handshake, or of the last update by age, are as old as this says.
        self._keys_since = now
        self._receive_epoch_then = 0
        self._events: list[Event] = []
        self._ticket_bytes = 0
        self._deframer = Deframer()
        self._joiner = MessageJoiner(limits.handshake_message_bytes)
        self._opener: StreamOpener | None = None
        self._hello_seen = is_client
        self._ccs_received = 0
        self._key_updates_in_a_row = 0
        self._received = bytearray()  # opened, not read by the application
        self._unsealed = bytearray()  # given by the application before the handshake finished
        # Message mode, as it was asked for; as it is, from the end of the handshake on.
        self._protocol = protocol
        self._keepalive = keepalive
        self._messages: MessageMode | None = None
        self._now: float | None = now  # as told with what came last
        self._early = EarlyStream(self._account)
        # Derived once: rejected early data is met by trying the handshake's keys on it.
        self._trial: tuple[SuiteSpec, TrafficKeys, int] | None = None
        self._max_early_data = config.max_early_data_size
        self._outgoing = Outgoing(
            self._account,
            self.counters,
            is_client=is_client,
            padding=Padding(config.block_padding, config.padding_callback),
        )
        self._write_closed = False
        if peer is not None:
            self._account.place(peer)
        try:
            charge(self._account, Purpose.CONNECTION, STREAM_BYTES)
        except LimitReached:
            self._account.close()
            raise
        ownership.own(ownership.Kind.CONNECTION, self)

    def _receiving(self) -> bool:
        return not self.peer_closed and self.state != "closed"

    # -- records coming in

    def _receive_records(self, view: memoryview) -> None:
        """Take what the network gave: whole records, and the beginning of one."""
        at, end = 0, len(view)
        deframer = self._deframer
        while at < end:
            if not deframer.held and self._runs():
                at = self._open_run(view, at)
                if at == end or not self._receiving():
                    return
            record, at = deframer.take(view, at)
            if record is None:
                return
            if not self._runs() or not self._open_run(record, 0):
                self._receive_record(record)
            if not self._receiving():
                return

    def _runs(self) -> bool:
        """Whether records of application data may come in runs: nothing has to be looked at in between."""
        opener = self._opener
        return (
            opener is not None
            and opener.epoch >= EPOCH_APPLICATION
            and self.state != "handshaking"
            and not self._joiner.held
        )

    def _open_run(self, view: memoryview, at: int) -> int:
        """Open protected records from offset `at`; the offset behind the last one that was."""
        opener = self._opener
        assert opener is not None
        received = self._received if self._messages is None else bytearray()
        before, opened = len(received), opener.opened
        records, other = 0, None
        try:
            at, records, other = opener.open_run(view, at, received)
        finally:
            self.counters.records_opened += opener.opened - opened
            if len(received) > before:
                self._key_updates_in_a_row = 0
                if self._messages is not None:
                    self._receive_messages(received)
                else:
                    self._charge_received(before)
                    self.counters.messages_received += records
        if other is not None:
            self._receive_content(*other)
        return at

    def _receive_messages(self, content: Buffer) -> None:
        assert self._messages is not None
        if self._now is None:
            raise ValueError("in message mode receive_data needs the time")
        if self._messages.receive(bytes(content), self._now):
            self._events.append(GoingAway())

    def _charge_received(self, before: int) -> None:
        """Charge what was opened behind offset `before`; what there is no room for is dropped."""
        received = self._received
        if self._account.charge(Purpose.RECEIVE_QUEUE, len(received) - before):
            return
        come = bytes(memoryview(received)[before:])
        del received[before:]
        for start in range(0, len(come), PLAINTEXT_LIMIT_BYTES):
            part = come[start : start + PLAINTEXT_LIMIT_BYTES]
            charge(self._account, Purpose.RECEIVE_QUEUE, len(part))
            received += part

    def _receive_record(self, record: memoryview) -> None:
        content_type = record[0]
        content: Buffer = record[STREAM_HEADER_BYTES:]
        if content_type == CHANGE_CIPHER_SPEC:
            self._receive_compatibility_ccs(content)
            return
        if self._early.skipping and content_type == APPLICATION_DATA:
            opened = self._try(record)
            if opened is None:
                self._early.skip(record, self._max_early_data)
                return
            self._early.skipping = False
            content_type, content = opened
        elif self._opener is None:
            # RFC 8446 section 5.1: there is no application data without protection.
            if content_type == APPLICATION_DATA:
                raise _unexpected("application data came before any keys")
        elif content_type == APPLICATION_DATA:
            content_type, content = self._opener.open(record)
            self.counters.records_opened += 1
        elif not self._may_be_plaintext_alert(content_type):
            raise _unexpected("an unprotected record came where keys are in use")
        self._receive_content(content_type, content)

    def _receive_content(self, content_type: int, content: Buffer) -> None:
        if content_type == HANDSHAKE:
            self._receive_handshake(content)
        elif content_type == APPLICATION_DATA:
            self._receive_application_data(content)
        elif content_type == ALERT:
            self._receive_alert(content)
        else:
            raise _unexpected(f"a protected record has type {content_type}")

    def _try(self, record: memoryview) -> tuple[int, Buffer] | None:
        """Open a record that may be rejected early data; None if it is, or there are no keys yet."""
        if self._trial is None or self._opener is None:
            return None
        try:
            opened = self._opener.open(record)
        except ProtocolError as error:
            if error.alert is not Alert.BAD_RECORD_MAC:
                raise
            # A failure is final for an opener.  No record was opened under these keys yet.
            self._opener = StreamOpener(self._provider, *self._trial)
            ownership.own(ownership.Kind.KEYS, self._opener)
            return None
        self._trial = None
        self.counters.records_opened += 1
        return opened

    def _receive_compatibility_ccs(self, content: Buffer) -> None:
        # RFC 8446 section 5: one byte 1, after the first ClientHello and before the peer's Finished;
        # then it is dropped.  Everything else is unexpected_message.
        if bytes(content) != b"\x01" or not self._hello_seen or self._handshake.complete:
            raise _unexpected("a ChangeCipherSpec is not the one that compatibility allows")
        self._refuse_interleaving()
        self._ccs_received += 1
        if self._ccs_received > _MAX_CCS:
            raise _unexpected("more ChangeCipherSpecs than compatibility has a use for")

    def _may_be_plaintext_alert(self, content_type: int) -> bool:
        # A client that cannot accept our ServerHello has no keys to say so with.
        opener = self._opener
        return content_type == ALERT and not self._is_client and opener is not None and self._unproved(opener)

    def _unproved(self, opener: StreamOpener) -> bool:
        return opener.opened == 0 and not self._handshake.complete

    def _refuse_interleaving(self) -> None:
        # RFC 8446 section 5.1: no other record between the parts of a handshake message.
        if self._joiner.held:
            raise _unexpected("another record came inside a handshake message")

    def _receive_handshake(self, content: Buffer) -> None:
        # RFC 8446 section 5.4 [8446-ALERT-4]: no zero-length handshake or alert records.
        if not len(content):
            raise _unexpected("a handshake record is empty")
        joiner = self._joiner
        before = joiner.held
        charge(self._account, Purpose.REASSEMBLY, len(content))
        joiner.feed(content)
        while (message := joiner.message()) is not None:
            self._receive_message(message)
        self._account.release(Purpose.REASSEMBLY, before + len(content) - joiner.held)

    def _receive_message(self, message: bytes) -> None:
        if message[0] == HandshakeType.KEY_UPDATE and self._handshake.complete:
            # Each one costs two key derivations; a peer has no use for many [8446-POST-3].
            self._key_updates_in_a_row += 1
            if self._key_updates_in_a_row > self._limits.key_updates_in_a_row:
                reason = "KeyUpdates without data in between reached the limit key_updates_in_a_row"
                raise ProtocolError(Alert.UNEXPECTED_MESSAGE, reason, "key_updates_in_a_row")
            self.counters.key_updates += 1
        epoch = 0 if self._opener is None else self._opener.epoch
        self._handshake.receive(epoch, message)
        self._hello_seen = True
        self._apply_outputs()

    def _receive_application_data(self, content: Buffer) -> None:
        if self._opener is not None and self._opener.epoch == EPOCH_EARLY:
            self._refuse_interleaving()
            limit = self._handshake.early.limit
            if self.early_in_messages:
                self._early.receive_messages(content, limit, self._limits.message_bytes)
            else:
                self._early.receive(content, limit)
            self.counters.early_messages_received += 1
            return
        if not self._handshake.complete:
            raise _unexpected("application data came before the handshake finished")
        self._refuse_interleaving()
        if not len(content):
            return
        self._key_updates_in_a_row = 0
        if self._messages is not None:
            self._receive_messages(content)
            return
        charge(self._account, Purpose.RECEIVE_QUEUE, len(content))
        self._received += content
        self.counters.messages_received += 1

    def _receive_alert(self, content: Buffer) -> None:
        if len(content) != 2:
            # RFC 8446 sections 5.1 and 5.4 [8446-ALERT-1]: one whole alert in a record, never none.
            kind = Alert.DECODE_ERROR if len(content) else Alert.UNEXPECTED_MESSAGE
            raise ProtocolError(kind, f"an alert has 2 bytes, not {len(content)}")
        alert = Alert(content[1])
        # RFC 8446 section 6 [8446-ALERT-1]: the level is ignored, all others are fatal.
        if alert not in (Alert.CLOSE_NOTIFY, Alert.USER_CANCELED):
            self._become_closed(PeerAlert(alert))
            return
        self._refuse_interleaving()
        if alert is Alert.USER_CANCELED:
            return  # close_notify follows
        if self._messages is not None and self._messages.cut:
            if not self._write_closed:
                self._send_alert(Alert.DECODE_ERROR, _FATAL)
            self._become_closed(Truncated("the peer closed inside a message"))
            return
        self.peer_closed = True
        if self.state == "handshaking":
            self._become_closed(ConnectionClosed("the peer closed the connection during the handshake"))
            return
        self._events.append(PeerClosed())
        if self._write_closed:
            self._become_closed(None)

    # -- what the handshake engine wants

    def _apply_outputs(self) -> None:
        messages = bytearray()
        # RFC 8449 section 4 [8449-1]
        agreed = self._handshake.agreed
        self._outgoing.inner_limit = agreed.send_limit
        if self._opener is not None:
            self._opener.inner_limit = agreed.receive_limit
        for output in self._handshake.outputs():
            if isinstance(output, SendMessage):
                messages += output.message
                continue
            self._send_handshake(messages)
            messages.clear()
            if isinstance(output, InstallKeys):
                self._install(output)
            elif isinstance(output, SendCompatibilityCcs):
                self._outgoing.send_compatibility_ccs()
            elif isinstance(output, HandshakeDone):
                self._connected()
            elif isinstance(output, EarlyDataAnswered):
                self._early_data_answered(output.accepted)
            elif len(self._events) < _MAX_EVENTS:
                self._keep_ticket(TicketReceived(output.ticket))
        self._send_handshake(messages)

    def _keep_ticket(self, event: TicketReceived) -> None:
        # A ticket there is no room for is one handshake more, later.
        size = TICKET_BYTES + len(event.ticket.identity)
        if self._account.charge(Purpose.TICKETS, size):
            self._ticket_bytes += size
            self._events.append(event)

    def _early_data_answered(self, accepted: bool) -> None:
        if accepted:
            return
        if self._is_client:
            self._outgoing.uninstall()
        else:
            # RFC 8446 section 4.2.10 [8446-0RTT-3]
            self._early.skipping = True

    def _send_handshake(self, messages: bytearray) -> None:
        # After our close_notify an answer to KeyUpdate would be data after the end.
        if messages and not self._write_closed:
            self._outgoing.send(HANDSHAKE, messages)

    def _install(self, keys: InstallKeys) -> None:
        derived = traffic_keys(self._provider, keys.spec, keys.secret, TLS13_PREFIX)
        if keys.direction is Direction.RECEIVE:
            # RFC 8446 section 5.1 [8446-ALERT-3]: messages must not span a key change.
            if self._joiner.held:
                raise _unexpected("handshake bytes came in front of a key change")
            if self._early.cut:
                raise ProtocolError(Alert.DECODE_ERROR, "early data ends inside a message")
            self._opener = StreamOpener(self._provider, keys.spec, derived, keys.epoch)
            ownership.own(ownership.Kind.KEYS, self._opener)
            self._trial = (keys.spec, derived, keys.epoch) if self._early.skipping else None
            self._opener.inner_limit = self._handshake.agreed.receive_limit
        elif not self._write_closed:
            spec = keys.spec
            if self._limits.records_per_key < spec.seal_limit:
                spec = replace(spec, seal_limit=self._limits.records_per_key)
            sealer = StreamSealer(self._provider, spec, derived, keys.epoch)
            ownership.own(ownership.Kind.KEYS, sealer)
            self._outgoing.install(sealer)
            if self._handshake.complete and self.state != "handshaking":
                self.counters.key_updates += 1

    def _connected(self) -> None:
        held = self._handshake.session.peer_bytes
        self._agree_on_messages()
        self._account.handshake_over(self._limits.connection_bytes)
        charge(self._account, Purpose.CONNECTION, max(held - PEER_BYTES_INCLUDED, 0))
        self.state = "connected"
        self._deadline = None
        self._events.append(Connected())
        waiting, self._unsealed = self._unsealed, bytearray()
        self._account.release(Purpose.SEND_QUEUE, len(waiting))
        self._seal_application_data(memoryview(waiting))

    @property
    def early_in_messages(self) -> bool:
        """Whether early data is for message mode."""
        return self._protocol is not None and self._handshake.early.alpn == self._protocol

    def _agree_on_messages(self) -> None:
        """Whether the connection is in message mode, which it is if that was asked for and agreed on."""
        if self._protocol is None:
            return
        agreed = self._handshake.session.alpn
        if agreed is None:
            # Bytes would not mean the same to both sides.
            reason = "the peer did not agree on message mode: it knows nothing of " + self._protocol.decode()
            raise ProtocolError(Alert.NO_APPLICATION_PROTOCOL, reason)
        if agreed == self._protocol:
            began = self.began if self._now is None else self._now
            self._messages = MessageMode(self._account, self.counters, self._limits, self._keepalive, began)

    def _seal_messages(self, most: int = RUN_BYTES) -> None:
        """Seal what was written, until `most` bytes wait for the network or there is no room."""
        mode = self._messages
        while mode is not None and mode.has_more and self.state == "connected" and self._outgoing.held < most:
            run, cost = mode.run()
            try:
                check_room(self._account, self._outgoing.sealed_bytes(len(run)) - cost)
            except LimitReached:
                return  # later: the driver asks again
            mode.sealed()
            self._seal(memoryview(run))

    def _seal_application_data(self, data: memoryview) -> None:
        check_room(self._account, self._outgoing.sealed_bytes(len(data)))
        self._seal(data)

    def _seal(self, data: memoryview) -> None:
        while data:
            # RFC 8446 section 5.5 [8446-POST-2]: new keys before the AEAD's limit.
            room = self._outgoing.key_room_bytes
            if room <= 0:
                self._handshake.update_keys()
                self._apply_outputs()
                self.counters.rekeyed_by_use += 1
                continue
            self._outgoing.send(APPLICATION_DATA, data[:room])
            data = data[room:]

    def _send_alert(self, alert: Alert, level: int) -> None:
        try:
            self._outgoing.send(ALERT, bytes((level, alert)))
        except (LimitReached, ProtocolError):
            pass  # no room or no record number left: the peer learns it from the end of the stream

    # -- ends

    def _fail(self, error: Error | TimeoutError) -> None:
        """Close because of `error`, and tell the peer if it is one with an alert."""
        if (
            self.state == "handshaking"
            and isinstance(error, ProtocolError)
            and not isinstance(error, HandshakeError)
        ):
            error = HandshakeError(error.alert, error.reason, error.limit)
        if isinstance(error, ProtocolError) and error.limit:
            self._account.note(error.limit)
        if not self._write_closed:
            if isinstance(error, ProtocolError):
                self._send_alert(error.alert, _FATAL)
            elif isinstance(error, LimitReached):
                self._send_alert(Alert.INTERNAL_ERROR, _FATAL)
            self._write_closed = True
        self._become_closed(error)

    def _become_closed(self, error: Error | TimeoutError | None) -> None:
        if self.state == "closed":
            return
        self.state = "closed"
        self.error = error
        self._deadline = None
        self._write_closed = True
        if self._messages is not None:
            self._messages.drop()
        # Nothing is opened or sealed any more: the keys go.
        self._opener = self._trial = None
        self._outgoing.uninstall()
        self._deframer = Deframer()
        self._joiner = MessageJoiner(self._limits.handshake_message_bytes)
        self._account.release(Purpose.SEND_QUEUE, len(self._unsealed))
        self._unsealed.clear()
        # What was received is still the application's to read, and the last records are still to
        # be sent: those stay charged.
        for purpose in (Purpose.CONNECTION, Purpose.REASSEMBLY):
            self._account.release(purpose, self._account.held_for(purpose))
        ownership.let_go(self)
        self._events.append(Closed(error))

    # -- what may be asked when

    @property
    def session(self) -> Session:
        """Facts of the handshake.  Raises Error before it is finished."""
        self._must_be_complete()
        return self._handshake.session

    def _must_be_open(self) -> None:
        if self.error is not None:
            raise self.error
        if self._write_closed:
            raise ConnectionClosed("this side of the connection is closed")

    def _must_be_complete(self) -> None:
        if not self._handshake.complete:
            if self.error is not None:
                raise self.error
            raise Error("the handshake is not finished")


def _unexpected(reason: str) -> ProtocolError:
    return ProtocolError(Alert.UNEXPECTED_MESSAGE, reason)
