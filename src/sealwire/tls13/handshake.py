"""Handshake: the engine as both transports use it.

    handshake = Handshake.client(settings, DTLS, server_name="host")
    for output in handshake.outputs(): ...        # SendMessage, InstallKeys, ..., in order
    handshake.receive(epoch, message)             # one whole message; raises ProtocolError (fatal)

Every error is turned into its alert in one place, the transport, from the ProtocolError raised
here; after one, the engine raises it again whatever is asked.
"""

from __future__ import annotations

from sealwire.crypto.groups import Group
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.errors import Alert, Error, HandshakeError, ProtocolError
from sealwire.tls13 import client, server
from sealwire.tls13.agreements import Agreements
from sealwire.tls13.contract import (
    EPOCH_PLAIN,
    ConnectionIds,
    Direction,
    EarlyData,
    EarlyDataAnswered,
    EarlyPhase,
    Exchange,
    HandshakeDone,
    InstallKeys,
    Output,
    SendCompatibilityCcs,
    SendMessage,
    Session,
    Settings,
    TicketReceived,
)
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.messages import ClientHello, open_message
from sealwire.tls13.states import Connected, Failed, Remains, State
from sealwire.tls13.tickets import SessionTicket
from sealwire.tls13.transcript import Transcript
from sealwire.wire import Buffer

__all__ = [
    "DTLS",
    "TLS",
    "ConnectionIds",
    "Direction",
    "EarlyData",
    "EarlyDataAnswered",
    "EarlyPhase",
    "Flavor",
    "Handshake",
    "HandshakeDone",
    "InstallKeys",
    "Output",
    "SendCompatibilityCcs",
    "SendMessage",
    "Session",
    "SessionTicket",
    "Settings",
    "TicketReceived",
]


class Handshake:
    """One handshake and what follows it on the same connection.  Not thread-safe."""

    __slots__ = ("_exchange", "_state", "complete")

    def __init__(self, exchange: Exchange, state: State) -> None:
        self._exchange = exchange
        self._state = state
        #: Whether the peer's Finished was verified, and nothing was wrong since.
        self.complete = isinstance(state, Connected)

    @classmethod
    def client(
        cls,
        settings: Settings,
        flavor: Flavor,
        *,
        server_name: str | None,
        connection_id: bytes | None = None,
        ticket: SessionTicket | None = None,
        early_data: bool = False,
    ) -> Handshake:
        """A client whose first ClientHello is among the outputs.

        Args:
            server_name: DNS name or address the server's certificate must be for.  None only with
                `settings.check_hostname` off.
            connection_id: the id we want on records to us (RFC 9146); b"" to accept the server's
                only, None not to speak of it.
            ticket: of an earlier connection, to resume by.  One that is too old, for another server, or
                whose server would not be accepted today is left out.
            early_data: offer early data, if the ticket allows some.

        Raises:
            ConfigurationError: the name cannot be used, or is missing while names are checked.
        """
        exchange = Exchange(settings, flavor)
        exchange.early.wanted = early_data
        return cls(
            exchange,
            client.start(exchange, client.Target.checked(settings, server_name, connection_id, ticket)),
        )

    @classmethod
    def server(
        cls,
        settings: Settings,
        flavor: Flavor,
        *,
        connection_id: bytes | None = None,
        early: EarlyPhase | None = None,
    ) -> Handshake:
        """A server that waits for a ClientHello.

        Args:
            connection_id: the id we want on records to us if the client speaks of ids (RFC 9146);
                b"" to use the client's only, None not to negotiate ids.
            early: what the transport knows of early data; without it none is accepted.
        """
        exchange = Exchange(settings, flavor)
        exchange.own_connection_id = connection_id
        exchange.early = early or EarlyPhase()
        return cls(exchange, server.ExpectClientHello(exchange))

    @classmethod
    def from_cookie(
        cls,
        settings: Settings,
        flavor: Flavor,
        *,
        suite: CipherSuite,
        group: Group | None,
        client_hello_1_hash: bytes,
        hello_retry_request: bytes,
        connection_id: bytes | None = None,
        place: bytes = b"",
    ) -> Handshake:
        """A server that waits for the second ClientHello and kept nothing of the first.

        Args:
            suite: the suite the HelloRetryRequest named.
            group: the group it asked a share for, None if it did not.
            client_hello_1_hash: hash of the first ClientHello under the suite's hash.
            hello_retry_request: the whole message as it was sent, in TLS form.
            connection_id: as for :meth:`server`.
            place: where the client is, for its tickets to say.
        """
        exchange = Exchange(settings, flavor)
        exchange.early.place = place
        exchange.own_connection_id = connection_id
        spec = SUITES[suite]
        transcript = Transcript.after_retry(exchange.provider, spec, client_hello_1_hash, hello_retry_request)
        return cls(exchange, server.ExpectReturned(exchange, spec, group, transcript))

    @property
    def receive_epoch(self) -> int:
        """The epoch the next message must come in."""
        return self._state.epoch

    @property
    def connection_ids(self) -> ConnectionIds:
        """What was agreed on connection ids (RFC 9146); known from ServerHello on."""
        return self._exchange.connection_ids

    @property
    def early(self) -> EarlyPhase:
        """What is known of early data now."""
        return self._exchange.early

    @property
    def session(self) -> Session:
        """The facts; Error before the handshake is complete."""
        return self._connected().session

    def remains(self) -> Remains:
        """What of a finished handshake can move to another process; Error before it is complete."""
        return self._connected().remains()

    def receive(self, epoch: int, message: Buffer) -> None:
        """Take one whole handshake message that came protected under `epoch`.

        Raises:
            ProtocolError: the peer broke the protocol or cannot be accepted; fatal.
        """
        state = self._state
        if isinstance(state, Failed):
            raise state.error
        try:
            kind, body = open_message(message)
            if kind not in state.expects:
                raise state.unexpected(kind)
            if epoch != state.epoch:
                raise ProtocolError(
                    Alert.UNEXPECTED_MESSAGE, f"{kind.name} came in epoch {epoch} instead of {state.epoch}"
                )
            self._state = following = state.receive(kind, body, bytes(message))
            if following is not state:
                self.complete = isinstance(following, Connected)
        except ProtocolError as error:
            cause = error.__cause__
            if not self.complete and not isinstance(error, HandshakeError):
                error = HandshakeError(error.alert, error.reason, error.limit)
            self._failed(error)
            raise error from cause
        except Exception as cause:
            # A signer, a key log or another callback of the application failed: the peer is told, and
            # a server with other peers goes on.
            failure = HandshakeError(Alert.INTERNAL_ERROR, f"a callback failed: {cause}")
            self._failed(failure)
            raise failure from cause

    def hello(self, message: bytes, hello: ClientHello | None) -> None:
        """Server: as :meth:`receive`, for a ClientHello the transport has decoded and checked, if it has."""
        self._exchange.hello = hello
        self.receive(EPOCH_PLAIN, message)

    def _failed(self, error: ProtocolError) -> None:
        self._state = Failed(self._exchange, error)
        self.complete = False

    def outputs(self) -> list[Output]:
        """What is to be done, in order; each output is given once."""
        return self._exchange.take()

    def acknowledged(self, handle: int) -> None:
        """The peer has the message sent with `handle` and everything sent before it."""
        if isinstance(self._state, Connected):
            self._state.acknowledged(handle)

    def update_keys(self, *, request_peer: bool = False) -> None:
        """Move to new sending keys; with `request_peer` ask the peer for the same."""
        self._connected().update_keys(request_peer=request_peer)

    @property
    def updating_keys(self) -> bool:
        """Whether a KeyUpdate of ours waits to be acknowledged."""
        return isinstance(self._state, Connected) and self._state.updating

    @property
    def agreed(self) -> Agreements:
        """What was agreed so far for records and beside them."""
        return self._exchange.agreed

    @property
    def pending_key_updates(self) -> int:
        """KeyUpdates of ours that are under way or must follow the one that is."""
        return self._state.pending if isinstance(self._state, Connected) else 0

    @property
    def may_update_keys(self) -> bool:
        """Whether the transport has numbers left for another KeyUpdate; it says so itself."""
        return self._exchange.may_update_keys

    @may_update_keys.setter
    def may_update_keys(self, value: bool) -> None:
        self._exchange.may_update_keys = value

    def export(self, label: bytes, context: bytes, n: int) -> bytes:
        """Exported keying material (RFC 8446 section 7.5); Error before the handshake is complete."""
        return self._connected().export(label, context, n)

    def fail(self, alert: Alert, reason: str) -> ProtocolError:
        """End the handshake because of something the transport saw; returns the error to raise."""
        kind = ProtocolError if self.complete else HandshakeError
        error = kind(alert, reason)
        self._failed(error)
        return error

    def _connected(self) -> Connected:
        if isinstance(self._state, Failed):
            raise self._state.error
        if not isinstance(self._state, Connected):
            raise Error("the handshake is not complete")
        return self._state
