"""One TLS 1.3 connection over a byte stream, without socket or clock (RFC 8446 sections 5 and 6).

Bytes in (`receive_data`) become records, records are opened under the current receiving keys, and
go to the application's queue, to the handshake engine or to the alert rules; whatever must be sent
waits for `data_to_send`.  After every call the driver asks data_to_send, events and deadline.

A peer's mistake does not raise where its bytes came in: it is answered with its alert under the
current sending keys, reported as :class:`Closed` and stored; every later call raises it.  Reading
pauses (`want_read`) while the application or the peer takes nothing, so neither can make this
side hold more than its limits.  The two directions close apart (RFC 8446 section 6.1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sealwire.crypto.hkdf import TLS13_PREFIX, traffic_keys
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
from sealwire.record.stream import STREAM_HEADER_BYTES, StreamOpener, StreamSealer
from sealwire.stcp.deframe import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    Deframer,
    MessageJoiner,
)
from sealwire.stcp.events import Closed, Connected, Event, PeerClosed, TicketReceived
from sealwire.stcp.outgoing import KEY_UPDATE_RECORD_BYTES, Outgoing, charge, check_room, sealed_bytes
from sealwire.telemetry import ConnectionCounters, KeyUsage
from sealwire.tls13.contract import (
    Direction,
    HandshakeDone,
    InstallKeys,
    SendCompatibilityCcs,
    SendMessage,
    Session,
)
from sealwire.tls13.flavor import TLS
from sealwire.tls13.handshake import Handshake
from sealwire.tls13.messages import HandshakeType

if TYPE_CHECKING:
    from sealwire.context import Config
    from sealwire.tls13.tickets import SessionTicket
    from sealwire.wire import Buffer

#: What the objects of one connection weigh in the ledger (measured with tracemalloc, rounded up).
CONNECTION_BYTES: Final = 8 * 1024

# Events kept for an owner that does not ask: what a server can make a client hold [8446-POST-3].
_MAX_EVENTS: Final = 16
_WARNING: Final = 1
_FATAL: Final = 2
# A ledger fuller than this part of its limit stops reading, so that what is in flight still fits.
_HIGH_WATER: Final = 7 / 8


class Connection:
    """A client's or server's end of one TLS 1.3 connection.  Make one with `client` or `server`.

    Attributes:
        state: "handshaking", "connected", "closing" (our close_notify is sent, the peer's is
            awaited) or "closed".
        error: what ended the connection, None while it lives and after an orderly close.
        peer_closed: the peer's close_notify has come.
        counters: what this connection did.
    """

    def __init__(
        self,
        handshake: Handshake,
        config: Config,
        *,
        is_client: bool,
        now: float,
        limits: Limits,
        ledger: Ledger,
    ) -> None:
        self.state = "handshaking"
        self.error: Error | TimeoutError | None = None
        self.peer_closed = False
        self.counters = ConnectionCounters()
        self._provider = config.provider
        self._is_client = is_client
        self._limits = limits
        self._ledger = ledger
        self._account = Account(ledger, limits.connection_bytes)
        self._handshake = handshake
        self._deadline: float | None = now + limits.handshake_seconds
        # Keys of the handshake, or of the last update by age, are as old as this says.
        self._keys_since = now
        self._receive_epoch_then = 0
        self._events: list[Event] = []
        self._deframer = Deframer()
        self._joiner = MessageJoiner(limits.handshake_message_bytes)
        self._opener: StreamOpener | None = None
        self._hello_seen = is_client
        self._key_updates_in_a_row = 0
        self._received = bytearray()  # opened, not read by the application
        self._unsealed = bytearray()  # given by the application before the handshake finished
        self._outgoing = Outgoing(self._account, self.counters, is_client=is_client)
        self._write_closed = False
        charge(self._account, Purpose.CONNECTION, CONNECTION_BYTES)

    @classmethod
    def client(
        cls,
        config: Config,
        *,
        now: float,
        server_name: str | None = None,
        limits: Limits | None = None,
        ledger: Ledger | None = None,
        ticket: SessionTicket | None = None,
    ) -> Connection:
        """A client's end; its ClientHello is ready in `data_to_send`.

        Args:
            now: seconds on any clock that does not go backwards; the handshake's time starts.
            server_name: whom to expect, a DNS name or IP address.
            ledger: the account book to charge; by default one of this connection's own.
            ticket: of an earlier connection to this server, to resume by; use each once.

        Raises:
            ConfigurationError: `config` and `server_name` cannot make a ClientHello.
            LimitReached: the ledger has no room for a connection.
        """
        limits = limits or Limits()
        ledger = ledger or Ledger(limits.total_bytes)
        config = config.within(limits)
        handshake = Handshake.client(config, TLS, server_name=server_name, ticket=ticket)
        connection = cls(handshake, config, is_client=True, now=now, limits=limits, ledger=ledger)
        connection._apply_outputs()
        return connection

    @classmethod
    def server(
        cls, config: Config, *, now: float, limits: Limits | None = None, ledger: Ledger | None = None
    ) -> Connection:
        """A server's end, waiting for a ClientHello.  Arguments and errors as for `client`."""
        limits = limits or Limits()
        ledger = ledger or Ledger(limits.total_bytes)
        config = config.within(limits)
        handshake = Handshake.server(config, TLS)
        return cls(handshake, config, is_client=False, now=now, limits=limits, ledger=ledger)

    # -- facts

    @property
    def session(self) -> Session:
        """Facts of the handshake.  Raises Error before it is finished."""
        self._must_be_complete()
        return self._handshake.session

    @property
    def key_usage(self) -> KeyUsage:
        """What the keys in use have done, and what they may.  Error before the handshake is finished."""
        self._must_be_complete()
        sealer, opener = self._outgoing.sealer, self._opener
        assert sealer is not None
        assert opener is not None
        # The first record that does not authenticate ends a stream.
        return KeyUsage(
            sealer.epoch, sealer.sealed, sealer.seal_limit, opener.epoch, opener.opened, 0, forgery_limit=1
        )

    @property
    def buffered(self) -> int:
        """Bytes of application data waiting in :meth:`read`."""
        return len(self._received)

    @property
    def queued(self) -> int:
        """Bytes waiting for the network."""
        return self._outgoing.held + len(self._unsealed)

    @property
    def want_read(self) -> bool:
        """Whether more bytes should be read from the network now.

        False while the application does not take what came, while the peer does not take what we
        send (each KeyUpdate it sends may cost us an answer), while the ledger is nearly full, and
        once nothing more is expected.
        """
        return (
            self._receiving()
            and len(self._received) < self._limits.receive_queue_bytes
            and self.queued < self._limits.send_queue_bytes
            and self._ledger.held <= self._ledger.limit * _HIGH_WATER
        )

    @property
    def record_bytes_missing(self) -> int:
        """The most that can be read from the network without reading beyond the record in progress.

        For a driver that gives the byte stream back after close_notify.
        """
        return self._deframer.missing

    def export(self, label: bytes, context: bytes, n: int) -> bytes:
        """`n` bytes of keying material for `label` (RFC 8446 section 7.5; RFC 5705).

        Raises Error before the handshake is finished.
        """
        self._must_be_complete()
        return self._handshake.export(label, context, n)

    def tls_exporter(self) -> bytes:
        """The ``tls-exporter`` channel binding, 32 bytes (RFC 9266 section 4.2)."""
        return self.export(b"EXPORTER-Channel-Binding", b"", 32)

    # -- what the application does

    def send(self, data: Buffer) -> None:
        """Seal `data` for the peer; before the handshake is finished it is kept until then.

        Raises:
            LimitReached: `send_queue_bytes` are waiting already, or the account has no room.
                Nothing of `data` was taken.
            ConnectionClosed: our direction is closed; or whatever else ended the connection.
        """
        self._must_be_open()
        view = memoryview(data).cast("B")
        if not view:
            return
        if self.queued >= self._limits.send_queue_bytes:
            waiting = f"{self.queued} bytes are already waiting for the network"
            raise LimitReached("send_queue_bytes", waiting)
        if self.state == "handshaking":
            charge(self._account, Purpose.SEND_QUEUE, len(view))
            self._unsealed += view
        else:
            self._seal_application_data(view)
        self.counters.messages_sent += 1

    def read(self, n: int = -1) -> bytes:
        """Take up to `n` bytes of what the peer sent, all of it for -1; b"" when nothing is there.

        At the end of data `peer_closed` is true.  Data that came before a failure is still given
        out; after it the error is raised.
        """
        if not self._received and self.error is not None:
            raise self.error
        taken = bytes(self._received) if n < 0 else bytes(memoryview(self._received)[:n])
        del self._received[: len(taken)]
        self._account.release(Purpose.RECEIVE_QUEUE, len(taken))
        return taken

    def find(self, separator: bytes, start: int = 0) -> int:
        """Offset of `separator` in what :meth:`read` would give, not before `start`; or -1."""
        return self._received.find(separator, start)

    def update_keys(self, *, request_peer: bool = False) -> None:
        """Change our sending keys now, and ask the peer to change its own (RFC 8446 section 4.6.3)."""
        self._must_be_open()
        self._must_be_complete()
        check_room(self._account, KEY_UPDATE_RECORD_BYTES)
        self._handshake.update_keys(request_peer=request_peer)
        self._apply_outputs()

    def close(self) -> None:
        """Send close_notify: we send no more.  Receiving goes on until the peer closes.

        During the handshake this cancels it.  Safe to call again.
        """
        if self.state == "closed" or self._write_closed:
            return
        if self.state == "handshaking":
            # RFC 8446 section 6.1 [8446-ALERT-2]: user_canceled is followed by close_notify.
            self._send_alert(Alert.USER_CANCELED, _WARNING)
        self._send_alert(Alert.CLOSE_NOTIFY, _WARNING)
        self._write_closed = True
        if self.state == "handshaking" or self.peer_closed:
            self._become_closed(None)
        else:
            self.state = "closing"

    def abort(self, error: Error | TimeoutError) -> None:
        """End the connection because of `error`; the peer is told if the error knows an alert."""
        if self.state != "closed":
            self._fail(error)

    # -- what the driver does

    def receive_data(self, data: Buffer) -> None:
        """Take bytes that came from the network.

        Raises:
            Error: the connection failed in an earlier call.
        """
        if self.error is not None:
            raise self.error
        # RFC 8446 section 6.1: what comes after close_notify is ignored.
        if not self._receiving():
            return
        self.counters.bytes_received += len(data)
        held = self._deframer.held
        try:
            for record in self._deframer.records(data):
                self._receive_record(record)
                if not self._receiving():
                    return
            charge(self._account, Purpose.REASSEMBLY, self._deframer.held - held)
        except (ProtocolError, LimitReached) as error:
            self._fail(error)
        except Exception:
            self._fail(ProtocolError(Alert.INTERNAL_ERROR, "a callback or sealwire itself failed"))
            raise

    def _receiving(self) -> bool:
        return not self.peer_closed and self.state != "closed"

    def receive_eof(self) -> None:
        """The byte stream ended.  Without close_notify before, that is :class:`Truncated`."""
        if not self._receiving():
            return
        # RFC 8446 section 6.1: without close_notify anyone may have cut the stream.
        where = "during the handshake" if self.state == "handshaking" else "without close_notify"
        self._write_closed = True  # nobody is there to read an alert
        self._become_closed(Truncated(f"the peer's byte stream ended {where}"))

    def data_to_send(self) -> bytes:
        """Take everything that must go to the network now; it is the caller's from here on."""
        data = bytes(self._outgoing.pending())
        self._outgoing.sent(len(data))
        return data

    def pending(self) -> memoryview:
        """What must go to the network, left here until :meth:`sent` says how much of it went."""
        return self._outgoing.pending()

    def sent(self, n: int) -> None:
        """The first `n` bytes of :meth:`pending` went to the network."""
        self._outgoing.sent(n)

    def release(self) -> None:
        """Drop what was not read or sent and give its bytes back to the ledger.

        For the driver, when both its socket and its application are done with the connection.
        """
        if self.state != "closed":
            self._become_closed(ConnectionClosed("the connection was abandoned"))
        self._received.clear()
        self._outgoing = Outgoing(self._account, self.counters, is_client=False)
        self._account.close()

    def events(self) -> list[Event]:
        """Take what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When :meth:`wake` must be called next, on the clock of `now`; None for never."""
        return self._rekey_at if self._deadline is None else self._deadline

    @property
    def _rekey_at(self) -> float | None:
        # Keys nobody used are not worth a record.
        if self._write_closed or not self._outgoing.used:
            return None
        return self._keys_since + self._limits.rekey_seconds

    def wake(self, now: float) -> None:
        """Tell the time; does nothing before the deadline."""
        if self._deadline is not None and now >= self._deadline:
            seconds = f"{self._limits.handshake_seconds:g} seconds"
            self._fail(TimeoutError(f"the handshake did not finish within {seconds}"))
        elif self._rekey_at is not None and now >= self._rekey_at:
            self._rekey_by_age(now)

    def _rekey_by_age(self, now: float) -> None:
        assert self._opener is not None
        # A peer that did not replace its own keys since our last update is asked to.
        asks = self._opener.epoch == self._receive_epoch_then
        self._keys_since, self._receive_epoch_then = now, self._opener.epoch
        try:
            check_room(self._account, KEY_UPDATE_RECORD_BYTES)
        except LimitReached:
            # The peer takes nothing now, so nothing more goes out under the old keys either; later.
            return
        self._handshake.update_keys(request_peer=asks)
        self._apply_outputs()
        self.counters.rekeyed_by_age += 1

    # -- records coming in

    def _receive_record(self, record: memoryview) -> None:
        content_type = record[0]
        content: Buffer = record[STREAM_HEADER_BYTES:]
        if content_type == CHANGE_CIPHER_SPEC:
            self._receive_compatibility_ccs(content)
            return
        if self._opener is None:
            # RFC 8446 section 5.1: there is no application data without protection.
            if content_type == APPLICATION_DATA:
                raise _unexpected("application data came before any keys")
        elif content_type == APPLICATION_DATA:
            content_type, content = self._opener.open(record)
            self.counters.records_opened += 1
        elif not self._may_be_plaintext_alert(content_type):
            raise _unexpected("an unprotected record came where keys are in use")
        if content_type == HANDSHAKE:
            self._receive_handshake(content)
        elif content_type == APPLICATION_DATA:
            self._receive_application_data(content)
        elif content_type == ALERT:
            self._receive_alert(content)
        else:
            raise _unexpected(f"a protected record has type {content_type}")

    def _receive_compatibility_ccs(self, content: Buffer) -> None:
        # RFC 8446 section 5: one byte 1, after the first ClientHello and before the peer's Finished;
        # then it is dropped.  Everything else is unexpected_message.
        if bytes(content) != b"\x01" or not self._hello_seen or self._handshake.complete:
            raise _unexpected("a ChangeCipherSpec is not the one that compatibility allows")
        self._refuse_interleaving()

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
                raise _unexpected("KeyUpdates without data in between reached the limit key_updates_in_a_row")
            self.counters.key_updates += 1
        epoch = 0 if self._opener is None else self._opener.epoch
        self._handshake.receive(epoch, message)
        self._hello_seen = True
        self._apply_outputs()

    def _receive_application_data(self, content: Buffer) -> None:
        if not self._handshake.complete:
            raise _unexpected("application data came before the handshake finished")
        self._refuse_interleaving()
        if not len(content):
            return
        self._key_updates_in_a_row = 0
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
            elif len(self._events) < _MAX_EVENTS:
                self._events.append(TicketReceived(output.ticket))
        self._send_handshake(messages)

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
            self._opener = StreamOpener(self._provider, keys.spec, derived, keys.epoch)
        elif not self._write_closed:
            spec = keys.spec
            if self._limits.records_per_key < spec.seal_limit:
                spec = replace(spec, seal_limit=self._limits.records_per_key)
            self._outgoing.install(StreamSealer(self._provider, spec, derived, keys.epoch))
            if self._handshake.complete and self.state != "handshaking":
                self.counters.key_updates += 1

    def _connected(self) -> None:
        self.state = "connected"
        self._deadline = None
        self._events.append(Connected())
        waiting, self._unsealed = self._unsealed, bytearray()
        self._account.release(Purpose.SEND_QUEUE, len(waiting))
        self._seal_application_data(memoryview(waiting))

    def _seal_application_data(self, data: memoryview) -> None:
        check_room(self._account, sealed_bytes(len(data)))
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
            error = HandshakeError(error.alert, error.reason)
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
        self._deframer = Deframer()
        self._joiner = MessageJoiner(self._limits.handshake_message_bytes)
        self._account.release(Purpose.SEND_QUEUE, len(self._unsealed))
        self._unsealed.clear()
        # What was received is still the application's to read, and the last records are still to
        # be sent: those stay charged.
        for purpose in (Purpose.CONNECTION, Purpose.REASSEMBLY):
            self._account.release(purpose, self._account.held_for(purpose))
        self._events.append(Closed(error))

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
