"""What the shim says to the runner on one connection: the handshake, then an echo of every byte inverted.

Both transports follow the same script (DoExchange in BoringSSL's bssl_shim.cc); they differ in how
bytes and time reach the engine.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from sealwire.context import Config
from sealwire.dtls import connection as dtls
from sealwire.dtls import events as dtls_events
from sealwire.errors import Alert, Error, ProtocolError
from sealwire.stcp import connection as stcp
from sealwire.stcp import events as stcp_events
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import EarlyData, Session
from sealwire.tls13.flavor import DTLS, TLS
from sealwire.tls13.messages import ClientHello, HandshakeType, open_message
from sealwire.tls13.tickets import SessionTicket
from tests.bogo import boring, checks, policy
from tests.bogo.checks import Unexpected
from tests.bogo.flags import Flags
from tests.bogo.wire import Clock, Datagram, DatagramWire, Elapsed, ExpectTimer, NewMtu

# A timer so close to its end counts as run out.
_FUDGE_SECONDS: Final = 0.01
_READ_BYTES: Final = 512
_LONGEST_BYTES: Final = 65_507
_DECOMPRESSION_FAILURE: Final = 30


class Dialogue(ABC):
    """One connection of a test.

    Args:
        ticket: what a client resumes by.
    """

    def __init__(self, flags: Flags, config: Config, clock: Clock, ticket: SessionTicket | None) -> None:
        self.flags = flags
        self.config = config
        self.clock = clock
        self.ticket = ticket
        #: The newest ticket that came, for the next connection.
        self.new_ticket: SessionTicket | None = None
        #: What holds once the server has rejected early data.
        self.retry = flags
        #: The peer sent close_notify.
        self.peer_closed = False

    @property
    def server_name(self) -> str | None:
        """Whom a client asks for."""
        return self.flags.octets("-host-name").decode() or None

    def run(self, *, is_resume: bool, witness: policy.Witness) -> None:
        """Play it to the end.

        Raises:
            Error: the connection failed.
            Unexpected: something is not as the test says it must be.
        """
        flags = self.flags
        arrivals = self._arrivals()
        early: list[bytes] = []
        written = self._write_early()
        while not self._connected:
            messages = next(arrivals, None)
            if messages is None:
                self._raise_error()
                raise EOFError("the runner hung up in the handshake")
            early += messages
        if self._outcome is EarlyData.REJECTED and "-server" not in flags:
            # An application starts over then, and so does BoringSSL's shim.
            self.flags = self.retry
            written = 0
        self._check_early_data(flags)
        flags = self.flags
        checks.handshake(flags, self._session, is_resume=is_resume, offered_alpn=self._offered_alpn)
        if "-expect-selected-credential" in flags:
            wanted = flags.number("-expect-selected-credential")
            if wanted != witness.signed_with:
                raise Unexpected(f"credential {witness.signed_with} signed and not {wanted}")
        if "-expect-verify-result" in flags and self._session.peer is not None:
            self._check_verify_result()
        if "-export-keying-material" in flags:
            length = flags.number("-export-keying-material")
            self._write(self._export(flags.octets("-export-label"), flags.octets("-export-context"), length))
        if "-send-alert" in flags:
            self._send_alert(Alert(_DECOMPRESSION_FAILURE))
            return
        if "-shim-writes-first" in flags:
            for data in self._initial_writes(written):
                self._write(data)
        if "-shim-shuts-down" not in flags:
            self._echo(chain((early,), arrivals))
        self._check_ticket()
        if "-check-close-notify" in flags:
            self._close()
            for _ in arrivals:
                pass
            if not self.peer_closed:
                raise Unexpected("the peer sent no close_notify")

    def _note(self, events: Iterable[dtls_events.Event | stcp_events.Event]) -> None:
        for event in events:
            match event:
                case dtls_events.TicketReceived(ticket) | stcp_events.TicketReceived(ticket):
                    self.new_ticket = ticket
                case dtls_events.PeerClosed() | stcp_events.PeerClosed():
                    self.peer_closed = True

    def _initial_writes(self, written: int = 0) -> Iterator[bytes]:
        """What is said first, write by write, without the first `written` bytes."""
        flags = self.flags
        once = flags.octets("-shim-initial-write") or b"hello"
        for _ in range(flags.number("-repeat-shim-initial-write", 1)):
            if once[written:]:
                yield once[written:]
            written = max(written - len(once), 0)

    def _check_early_data(self, flags: Flags) -> None:
        outcome = self._outcome
        for flag, wanted in (
            ("-expect-accept-early-data", EarlyData.ACCEPTED),
            ("-expect-reject-early-data", EarlyData.REJECTED),
            ("-expect-no-offer-early-data", EarlyData.NOT_OFFERED),
        ):
            if flag in flags and outcome is not wanted and not isinstance(self, DatagramDialogue):
                raise Unexpected(f"early data was {outcome.value}")

    def _write_early(self) -> int:
        """Send as early data what may be; returns how many bytes of the initial writes that were."""
        return 0

    def _echo(self, arrivals: Iterable[list[bytes]]) -> None:
        flags = self.flags
        if "-key-update-before-read" in flags:
            self._update_keys()
        for messages in arrivals:
            for message in messages:
                if "-key-update" in flags:
                    self._update_keys()
                self._write(bytes(byte ^ 0xFF for byte in message))
                if "-key-update-before-read" in flags:
                    self._update_keys()
            if self.peer_closed:
                return
        self._raise_error()

    @property
    def _offered_alpn(self) -> bytes:
        """The protocols in the peer's hello, as it wrote them."""
        names: tuple[bytes, ...] = ()
        for message in boring.SeenHandshake.messages:
            kind, body = open_message(message)
            if kind is HandshakeType.CLIENT_HELLO:
                hello = ClientHello.decode(body, DTLS if "-dtls" in self.flags else TLS)
                names = hello.extensions.get(ext.ALPN) or ()
        return b"".join(bytes((len(name),)) + name for name in names)

    def _check_verify_result(self) -> None:
        """What an application would ask that let everybody in: would the certificate have been accepted?"""
        verifier = self.config.verifier
        assert isinstance(verifier, policy.FlagVerifier)
        if verifier.refuse is not ("-verify-fail" in self.flags):
            raise Unexpected("wrong certificate verification result")

    def _check_ticket(self) -> None:
        flags = self.flags
        if "-server" in flags:
            return
        wanted = "-expect-no-session" not in flags and "-shim-shuts-down" not in flags
        if wanted is not (self.new_ticket is not None):
            raise Unexpected("no ticket came" if wanted else "a ticket came")
        if self.new_ticket is not None:
            capable = self.new_ticket.max_early_data > 0
            if capable is not ("-expect-ticket-supports-early-data" in flags):
                raise Unexpected("the ticket allows early data" if capable else "the ticket allows none")

    @property
    @abstractmethod
    def _connected(self) -> bool: ...
    @property
    @abstractmethod
    def _outcome(self) -> EarlyData: ...
    @property
    @abstractmethod
    def _session(self) -> Session: ...
    @abstractmethod
    def _arrivals(self) -> Iterator[list[bytes]]:
        """What came from the peer, an empty list where it was no data; ends with the connection."""

    @abstractmethod
    def _write(self, data: bytes) -> None: ...
    @abstractmethod
    def _update_keys(self) -> None: ...
    @abstractmethod
    def _close(self) -> None: ...
    @abstractmethod
    def _send_alert(self, alert: Alert) -> None: ...
    @abstractmethod
    def _export(self, label: bytes, context: bytes, n: int) -> bytes: ...
    @abstractmethod
    def _raise_error(self) -> None:
        """Raise what ended the connection, if it was an error."""


class DatagramDialogue(Dialogue):
    """DTLS, on a virtual clock."""

    def __init__(
        self,
        wire: DatagramWire,
        flags: Flags,
        config: Config,
        clock: Clock,
        ticket: SessionTicket | None,
    ) -> None:
        super().__init__(flags, config, clock, ticket)
        self._wire = wire
        mtu = flags.number("-mtu", boring.MTU_BYTES)
        limits, timeout = policy.limits(flags), boring.initial_timeout(flags)
        if "-server" in flags:
            self.connection = dtls.Connection.server(
                config, now=clock.now, limits=limits, mtu=mtu, initial_timeout=timeout
            )
        else:
            self.connection = dtls.Connection.client(
                config,
                now=clock.now,
                limits=limits,
                mtu=mtu,
                initial_timeout=timeout,
                server_name=self.server_name,
                ticket=ticket,
            )
        self.connection._layer.engine.__class__ = boring.SeenHandshake

    def _flush(self) -> None:
        for datagram in self.connection.transmit(self.clock.now):
            self._wire.send(datagram)
        self._note(self.connection.events())

    def _arrivals(self) -> Iterator[list[bytes]]:
        connection = self.connection
        self._flush()
        while connection.state is not dtls_events.State.CLOSED:
            order = self._wire.receive()
            match order:
                case None:
                    return
                case Datagram(data):
                    connection.receive(data, self.clock.now)
                case Elapsed(microseconds):
                    self.clock.microseconds += microseconds
                    self._run_timers()
                case NewMtu(size):
                    connection.mtu = size
                    connection._layer._mtu = connection._layer.full_mtu = size
                case ExpectTimer(microseconds):
                    self._check_timer(microseconds)
                case _:
                    raise Unexpected("the initial timeout cannot be changed on the way")
            self._flush()
            yield connection.messages()

    def _run_timers(self) -> None:
        deadline, now = self.connection._layer.deadline, self.clock.now
        if deadline is not None and 0 < deadline - now <= _FUDGE_SECONDS:
            now = deadline
        self.connection.wake(now)

    def _check_timer(self, expected: int | None) -> None:
        deadline = self.connection._layer.deadline
        left = None if deadline is None else max(round((deadline - self.clock.now) * 1e6), 0)
        if left != expected:
            raise Unexpected(f"the next timer runs out in {left} and not in {expected} microseconds")

    @property
    def _connected(self) -> bool:
        return self.connection.was_connected

    @property
    def _outcome(self) -> EarlyData:
        return self.connection.early_data

    @property
    def _session(self) -> Session:
        return self.connection.session

    def _write(self, data: bytes) -> None:
        # BoringSSL does not hold application data to the MTU.
        outgoing = self.connection._outgoing
        mtu, outgoing.mtu = outgoing.mtu, _LONGEST_BYTES
        self.connection.send(data)
        self._flush()
        outgoing.mtu = mtu

    def _update_keys(self) -> None:
        self.connection.update_keys(self.clock.now)
        self._flush()

    def _close(self) -> None:
        self.connection.close(self.clock.now)
        self._flush()

    def _send_alert(self, alert: Alert) -> None:
        self.connection._fail(ProtocolError(alert, "the test wants it"))
        self._flush()

    def _export(self, label: bytes, context: bytes, n: int) -> bytes:
        return self.connection.export(label, context, n)

    def _raise_error(self) -> None:
        if self.connection.error is not None:
            raise self.connection.error


class StreamDialogue(Dialogue):
    """TLS over a byte stream."""

    def __init__(
        self,
        connected: socket.socket,
        flags: Flags,
        config: Config,
        clock: Clock,
        ticket: SessionTicket | None,
    ) -> None:
        super().__init__(flags, config, clock, ticket)
        self._socket = connected
        limits = policy.limits(flags)
        if "-server" in flags:
            self.connection = stcp.Connection.server(config, now=clock.now, limits=limits)
        else:
            self.connection = stcp.Connection.client(
                config,
                now=clock.now,
                limits=limits,
                server_name=self.server_name,
                ticket=ticket,
                early_data="-enable-early-data" in flags,
            )
        self.connection._handshake.__class__ = boring.SeenHandshake

    def _flush(self) -> None:
        data = self.connection.data_to_send()
        if data:
            self._socket.sendall(data)
        self._note(self.connection.events())

    def _arrivals(self) -> Iterator[list[bytes]]:
        connection = self.connection
        self._flush()
        while connection.state != "closed" and not self.peer_closed:
            data = self._socket.recv(65536)
            if not data:
                return
            connection.receive_data(data)
            self._flush()
            messages = []
            size = self.flags.number("-read-size", _READ_BYTES)
            while connection.early_buffered:
                # Half a round trip early: the runner waits for it before it goes on.
                message = connection.read_early(size)
                connection.send_before_finished(bytes(byte ^ 0xFF for byte in message))
                self._flush()
            while connection.buffered:
                messages.append(connection.read(size))
            yield messages

    @property
    def _connected(self) -> bool:
        return self.connection._handshake.complete

    @property
    def _outcome(self) -> EarlyData:
        return self.connection.early_data

    @property
    def _session(self) -> Session:
        return self.connection.session

    def _write_early(self) -> int:
        if "-shim-writes-first" not in self.flags or not self.connection.max_replayable_bytes:
            return 0
        if "-export-keying-material" in self.flags:
            self._export(b"early", b"", 32)
        written = 0
        for data in self._initial_writes():
            part = data[: self.connection.max_replayable_bytes]
            if part:
                self.connection.send_replayable(part)
                self._flush()
            written += len(part)
        return written

    def _write(self, data: bytes) -> None:
        self.connection.send(data)
        self._flush()

    def _update_keys(self) -> None:
        self.connection.update_keys()
        self._flush()

    def _close(self) -> None:
        self.connection.close()
        self._flush()

    def _send_alert(self, alert: Alert) -> None:
        self.connection.abort(ProtocolError(alert, "the test wants it"))
        self._flush()

    def _export(self, label: bytes, context: bytes, n: int) -> bytes:
        return self.connection.export(label, context, n)

    def _raise_error(self) -> None:
        error = self.connection.error
        if error is not None:
            raise error


def failure(error: BaseException) -> str:
    """What the runner looks for on stderr."""
    words = f"{type(error).__name__}: {error}"
    return words if isinstance(error, Error | Unexpected | TimeoutError) else f"broken: {words}"
