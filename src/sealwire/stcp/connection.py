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

from typing import TYPE_CHECKING, Final

from sealwire.errors import (
    Alert,
    ConfigurationError,
    ConnectionClosed,
    Error,
    LimitReached,
    ProtocolError,
    Truncated,
)
from sealwire.limits import DEFAULT_LIMITS, Ledger, Limits, Purpose
from sealwire.stcp.deframe import APPLICATION_DATA
from sealwire.stcp.events import Event
from sealwire.stcp.flowing import HIGH_WATER, Flowing
from sealwire.stcp.frames import protocol_name, word_of
from sealwire.stcp.messages import Keepalive
from sealwire.stcp.outgoing import KEY_UPDATE_RECORD_BYTES, Outgoing, charge, check_room
from sealwire.telemetry import KeyUsage
from sealwire.tls13.contract import EPOCH_APPLICATION, EPOCH_EARLY, EarlyData, EarlyPhase
from sealwire.tls13.flavor import TLS
from sealwire.tls13.handshake import Handshake

if TYPE_CHECKING:
    from sealwire.context import Config
    from sealwire.tls13.tickets import SessionTicket
    from sealwire.wire import Buffer

_WARNING: Final = 1


class Connection(Flowing):
    """A client's or server's end of one TLS 1.3 connection.  Make one with `client` or `server`.

    Attributes:
        state: "handshaking", "connected", "closing" (our close_notify is sent, the peer's is
            awaited) or "closed".
        error: what ended the connection, None while it lives and after an orderly close.
        peer_closed: the peer's close_notify has come.
        counters: what this connection did.
    """

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
        early_data: bool = False,
        messages: bool | str = False,
        keepalive: Keepalive | None = None,
    ) -> Connection:
        """A client's end; its ClientHello is ready in `data_to_send`.

        Args:
            now: seconds on any clock that does not go backwards; the handshake's time starts.
            server_name: whom to expect, a DNS name or IP address.
            ledger: the account book to charge; by default one of this connection's own.
            ticket: of an earlier connection to this server, to resume by; use each once.
            early_data: offer early data, if the ticket allows some; see :meth:`send_replayable`.
            messages: speak in messages (docs/stcp.md): True, or the name of an application.  It goes in front
                of the ALPN protocols of `config`, and a peer that agrees on none fails the handshake.
            keepalive: in message mode, when to ask whether the peer is there; None for never.

        Raises:
            ConfigurationError: `config` and `server_name` cannot make a ClientHello.
            LimitReached: the ledger has no room for a connection.
        """
        limits = limits or DEFAULT_LIMITS
        ledger = ledger or Ledger(limits)
        config, protocol = _speaking(config.within(limits), messages)
        if protocol is not None and (ticket is None or ticket.alpn != protocol):
            early_data = False  # what would be sent is for another protocol than the ticket
        handshake = Handshake.client(
            config, TLS, server_name=server_name, ticket=ticket, early_data=early_data
        )
        connection = cls(
            handshake,
            config,
            is_client=True,
            now=now,
            limits=limits,
            ledger=ledger,
            protocol=protocol,
            keepalive=keepalive,
        )
        connection._apply_outputs()
        return connection

    @classmethod
    def server(
        cls,
        config: Config,
        *,
        now: float,
        limits: Limits | None = None,
        ledger: Ledger | None = None,
        peer: object = None,
        messages: bool | str = False,
        keepalive: Keepalive | None = None,
    ) -> Connection:
        """A server's end, waiting for a ClientHello.  Arguments and errors as for `client`.

        `peer` is the socket address of the client, whose prefix is charged as well.
        """
        limits = limits or DEFAULT_LIMITS
        ledger = ledger or Ledger(limits)
        config, protocol = _speaking(config.within(limits), messages)
        handshake = Handshake.server(config, TLS, early=EarlyPhase(wanted=True))
        return cls(
            handshake,
            config,
            is_client=False,
            now=now,
            limits=limits,
            ledger=ledger,
            peer=peer,
            protocol=protocol,
            keepalive=keepalive,
        )

    # -- facts

    @property
    def key_usage(self) -> KeyUsage:
        """What the keys in use have done, and what they may.  Error before the handshake is finished."""
        self._must_be_complete()
        sealer, opener = self._outgoing.sealer, self._opener
        if sealer is None or opener is None:
            raise self.error or ConnectionClosed("the connection is closed")
        # The first record that does not authenticate ends a stream.
        return KeyUsage(
            sealer.epoch, sealer.sealed, sealer.seal_limit, opener.epoch, opener.opened, 0, forgery_limit=1
        )

    @property
    def held_bytes(self) -> int:
        """Bytes charged for this connection now."""
        return self._account.held

    @property
    def buffered(self) -> int:
        """Bytes of application data waiting in :meth:`read`, or of messages in :meth:`read_message`."""
        return len(self._received) if self._messages is None else self._messages.buffered

    @property
    def queued(self) -> int:
        """Bytes waiting for the network."""
        waiting = len(self._unsealed) if self._messages is None else self._messages.waiting
        return self._outgoing.held + waiting

    @property
    def unsealed(self) -> int:
        """Bytes of messages that `pending` has not come to yet."""
        return 0 if self._messages is None else self._messages.waiting

    @property
    def want_read(self) -> bool:
        """Whether more bytes should be read from the network now.

        False while the application does not take what came, while the peer does not take what we
        send (each KeyUpdate it sends may cost us an answer), while the ledger is nearly full, and
        once nothing more is expected.
        """
        if self._messages is None:
            full = len(self._received) >= self._limits.receive_queue_bytes
            full = full or self.queued >= self._limits.send_queue_bytes
        else:
            # What the application wrote may wait for the peer while its own messages come: otherwise
            # two sides that write at once would wait for each other.
            full = self._messages.full or self._outgoing.held >= self._limits.send_queue_bytes
        return self._receiving() and not full and self._ledger.held <= self._ledger.limit * HIGH_WATER

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
        self.must_be_plain()
        view = memoryview(data).cast("B")
        if not view:
            return
        if self.queued >= self._limits.send_queue_bytes:
            self._account.note("send_queue_bytes")
            waiting = f"{self.queued} bytes are already waiting for the network"
            raise LimitReached("send_queue_bytes", waiting)
        if self.state == "handshaking":
            charge(self._account, Purpose.SEND_QUEUE, len(view))
            self._unsealed += view
        else:
            self._seal_application_data(view)
        self.counters.messages_sent += 1

    def send_replayable(self, data: Buffer) -> None:
        """Client: send `data` as early data, before the server has said anything (0-RTT).

        Somebody who records it can send it again, now or to other servers, and the server may act on it each
        time: send only what does no harm when it is done twice.  It is lost if the server does not accept
        it, and never sent again by itself; :attr:`early_data` says so once the handshake is finished.

        Raises:
            ValueError: it is longer than :attr:`max_replayable_bytes`.
            LimitReached: the account has no room.
            Error: early data is not offered (see :meth:`client`), or the handshake is over.
        """
        if self._protocol is not None:
            raise ConfigurationError("message mode was asked for: use send_replayable_message")
        self._send_replayable(data)

    def send_replayable_message(self, data: Buffer) -> None:
        """Client: send `data` as early data, as one message; as :meth:`send_replayable`.

        Only where message mode is asked for and the ticket is of it.  A message takes four bytes more.
        """
        if self._protocol is None:
            raise ConfigurationError("the connection is not in message mode: ask for it with messages=True")
        self._send_replayable(word_of(memoryview(data).nbytes) + memoryview(data).cast("B"))

    def _send_replayable(self, data: Buffer) -> None:
        self._must_be_open()
        room = self.max_replayable_bytes
        view = memoryview(data).cast("B")
        if self._outgoing.epoch != EPOCH_EARLY:
            raise Error("early data cannot be sent: none was offered, or the server has answered already")
        if len(view) > room:
            raise ValueError(f"{len(view)} bytes of early data are more than the {room} that are left")
        check_room(self._account, self._outgoing.sealed_bytes(len(view)))
        self._outgoing.send(APPLICATION_DATA, view)
        self._early.sent += len(view)
        self.counters.early_messages_sent += 1

    @property
    def max_replayable_bytes(self) -> int:
        """How much :meth:`send_replayable` takes now, in bytes; 0 if nothing."""
        if self._write_closed or self._outgoing.epoch != EPOCH_EARLY:
            return 0
        return max(self._handshake.early.limit - self._early.sent, 0)

    @property
    def early_data(self) -> EarlyData:
        """Whether early data was offered and, after the handshake, accepted."""
        return self._handshake.early.outcome

    @property
    def early_buffered(self) -> int:
        """Bytes waiting in :meth:`read_early`."""
        return self._early.buffered

    def read_early(self, n: int = -1) -> bytes:
        """Server: take up to `n` bytes of early data, all of it for -1; apart from :meth:`read`.

        It is from somebody who held the ticket, at some time; until the handshake is finished it may be a
        copy.  This process accepts a flight once.
        """
        if self.early_in_messages:
            raise ConfigurationError("the connection speaks in messages: use read_early_messages")
        return self._early.read(n)

    def read_early_messages(self) -> list[bytes]:
        """Server: take the messages that came as early data; as :meth:`read_early`."""
        return self._early.read_messages()

    def send_before_finished(self, data: Buffer) -> None:
        """Server: send `data` to a client that has not finished the handshake (0.5-RTT).

        Nobody has proved to be there now: the client may be a copy of its own hello, and one that shows a
        certificate has not shown it yet.

        Raises:
            Error: there is no client's hello yet.
            LimitReached, ConnectionClosed: as for :meth:`send`.
            ConfigurationError: message mode was asked for.
        """
        if self._protocol is not None and self.state == "handshaking":
            raise ConfigurationError("message mode was asked for: use write_message_before_finished")
        self._send_before_finished(data)

    def write_message_before_finished(self, data: Buffer) -> None:
        """Server: send `data` as one message to a client that has not finished the handshake.

        As :meth:`send_before_finished`, for a client whose early data came in messages.
        """
        if self.state != "handshaking":
            self.write_message(data)
            return
        if not self.early_in_messages:
            raise ConfigurationError("no early data came in messages")
        self._send_before_finished(word_of(memoryview(data).nbytes) + memoryview(data).cast("B"))

    def _send_before_finished(self, data: Buffer) -> None:
        if self.state == "handshaking":
            self._must_be_open()
            if self._is_client or self._outgoing.epoch != EPOCH_APPLICATION:
                raise Error("nothing can be sent before the client's Finished: there was no hello yet")
            if self.queued >= self._limits.send_queue_bytes:
                self._account.note("send_queue_bytes")
                waiting = f"{self.queued} bytes are already waiting for the network"
                raise LimitReached("send_queue_bytes", waiting)
            view = memoryview(data).cast("B")
            check_room(self._account, self._outgoing.sealed_bytes(len(view)))
            self._outgoing.send(APPLICATION_DATA, view)
            self.counters.messages_sent += 1
            return
        self.send(data)

    def read(self, n: int = -1) -> bytes:
        """Take up to `n` bytes of what the peer sent, all of it for -1; b"" when nothing is there.

        At the end of data `peer_closed` is true.  Data that came before a failure is still given
        out; after it the error is raised.
        """
        self.must_be_plain()
        received = self._received
        if not received and self.error is not None:
            raise self.error
        if 0 <= n < len(received):
            taken = bytes(memoryview(received)[:n])
            del received[:n]
        else:
            taken = bytes(received)
            received.clear()
        if taken:
            self._account.release(Purpose.RECEIVE_QUEUE, len(taken))
        return taken

    def find(self, separator: bytes, start: int = 0) -> int:
        """Offset of `separator` in what :meth:`read` would give, not before `start`; or -1."""
        self.must_be_plain()
        return self._received.find(separator, start)

    def peek(self) -> memoryview:
        """What :meth:`read` would give, where it lies: release it before anything else is done here."""
        self.must_be_plain()
        return memoryview(self._received)

    def drop(self, n: int) -> None:
        """Take the first `n` bytes of :meth:`peek`, which somebody has used."""
        del self._received[:n]
        self._account.release(Purpose.RECEIVE_QUEUE, n)

    # -- ends and keys

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
        if self._messages is not None:
            self._seal_messages(1 << 62)
            if self._messages.has_more:
                # Behind a part of a message close_notify would say that it is lost.
                self._fail(LimitReached(self._ledger.refused_by, "no room to send what was written"))
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

    def receive_data(self, data: Buffer, now: float | None = None) -> None:
        """Take bytes that came from the network, at `now`; message mode needs to know when.

        Raises:
            Error: the connection failed in an earlier call.
        """
        if self.receive_shortly(data, now):
            return
        self._now = now
        if self.error is not None:
            raise self.error
        # RFC 8446 section 6.1: what comes after close_notify is ignored.
        if not self._receiving():
            return
        self.counters.bytes_received += len(data)
        held = self._deframer.held
        try:
            self._receive_records(memoryview(data))
            if self._deframer.held != held and self._receiving():
                charge(self._account, Purpose.REASSEMBLY, self._deframer.held - held)
        except (ProtocolError, LimitReached) as error:
            self._fail(error)
        except Exception:
            self._fail(ProtocolError(Alert.INTERNAL_ERROR, "a callback or sealwire itself failed"))
            raise

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
        data = bytes(self.pending())
        self._outgoing.sent(len(data))
        return data

    def pending(self) -> memoryview:
        """What must go to the network, left here until :meth:`sent` says how much of it went."""
        if self._messages is not None:
            self._seal_messages()
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
        if self._messages is not None:
            self._messages.take_all()
        self._outgoing = Outgoing(self._account, self.counters, is_client=False)
        self._ticket_bytes = 0
        self._account.close()

    def events(self) -> list[Event]:
        """Take what happened since the last call, in order."""
        events, self._events = self._events, []
        self._account.release(Purpose.TICKETS, self._ticket_bytes)
        self._ticket_bytes = 0
        return events

    def deadline(self) -> float | None:
        """When :meth:`wake` must be called next, on the clock of `now`; None for never."""
        if self._deadline is not None:
            return self._deadline
        rekey_at = self._rekey_at
        look_at = None if self._messages is None else self._messages.deadline
        if rekey_at is None or (look_at is not None and look_at < rekey_at):
            return look_at
        return rekey_at

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
            self._account.note("handshake_seconds")
            self._fail(TimeoutError(f"the handshake did not finish within {seconds}"))
            return
        if self._rekey_at is not None and now >= self._rekey_at:
            self._rekey_by_age(now)
        if self._messages is not None:
            try:
                self._messages.wake(now)
            except TimeoutError as error:
                self._fail(error)

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


def _speaking(config: Config, messages: bool | str) -> tuple[Config, bytes | None]:
    """`config` with message mode offered, and the name it is offered by; as it is, and None, without."""
    protocol = protocol_name(messages)
    return (config, None) if protocol is None else (config.speaking(protocol), protocol)
