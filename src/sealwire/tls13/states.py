"""What a state of the handshake is, and the last one both sides share: Connected.

A state holds exactly what is known when it is entered; handling a message returns the next state.
Connected handles what may come after the handshake: KeyUpdate and, at a client, tickets
(RFC 8446 section 4.6, RFC 9147 section 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from sealwire.crypto.hkdf import Secret, next_traffic_secret
from sealwire.errors import Alert, ProtocolError
from sealwire.tls13.authentication import FinishedVerified, PeerAuthenticated
from sealwire.tls13.contract import (
    EPOCH_APPLICATION,
    Direction,
    Exchange,
    HandshakeDone,
    Session,
    TicketReceived,
)
from sealwire.tls13.messages import HandshakeType, KeyUpdate, NewSessionTicket
from sealwire.tls13.schedule import ApplicationStage, Deriver, deriver_of, export
from sealwire.tls13.tickets import received
from sealwire.wire import Reader

_NONE: Final = Secret()


class State:
    """One state.  `epoch` is the epoch its messages must come in; `expects` are their types."""

    __slots__ = ("epoch", "exchange")

    expects: ClassVar[tuple[HandshakeType, ...]]

    def __init__(self, exchange: Exchange, epoch: int) -> None:
        self.exchange = exchange
        self.epoch = epoch

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        """Handle a message of an expected type; `message` is the whole of it for the transcript."""
        raise AssertionError(f"{type(self).__name__} expects nothing")

    def unexpected(self, kind: HandshakeType) -> ProtocolError:
        """The error for a message this state does not expect, or not from this side [8446-POST-5]."""
        expected = ", ".join(expect.name for expect in self.expects if expect is not kind) or "nothing"
        return ProtocolError(Alert.UNEXPECTED_MESSAGE, f"expected {expected}, got {kind.name}")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Remains:
    """All that a finished handshake keeps beside its Session; see :mod:`sealwire.tls13.moved`."""

    is_client: bool
    #: Epoch and traffic secret of each direction.
    send: tuple[int, Secret]
    receive: tuple[int, Secret]
    exporter_secret: Secret
    resumption_secret: Secret
    #: Handles given out so far, and the one of the KeyUpdate that is not acknowledged, 0 for none.
    handles: int
    update_handle: int
    update_follows: bool
    following_asks: bool
    asked: bool


class Connected(State):
    """The handshake is over.  The proofs are required so that it cannot be over too early."""

    __slots__ = (
        "_asked",
        "_deriver",
        "_exporter_secret",
        "_following_asks",
        "_is_client",
        "_receive_secret",
        "_resumption_secret",
        "_send_epoch",
        "_send_secret",
        "_update_follows",
        "_update_handle",
        "session",
    )

    # No CertificateRequest: post_handshake_auth is not offered [8446-POST-4].
    expects = (HandshakeType.KEY_UPDATE, HandshakeType.NEW_SESSION_TICKET)

    def __init__(
        self,
        exchange: Exchange,
        session: Session,
        application: ApplicationStage,
        resumption_secret: Secret,
        peer: PeerAuthenticated,
        finished: FinishedVerified,
        *,
        is_client: bool,
    ) -> None:
        super().__init__(exchange, EPOCH_APPLICATION)
        assert session.peer is peer.peer
        assert isinstance(finished, FinishedVerified)
        self.session = session
        self._is_client = is_client
        self._deriver: Deriver = application.deriver
        self._exporter_secret = application.exporter_secret
        # A server's tickets were made with it before, and all are.
        self._resumption_secret = resumption_secret if is_client else _NONE
        ours, theirs = application.client_secret, application.server_secret
        if not is_client:
            ours, theirs = theirs, ours
        self._send_epoch, self._send_secret = EPOCH_APPLICATION, ours
        # What is received is of the state's own epoch.
        self._receive_secret = theirs
        # The handle of our KeyUpdate that is not acknowledged yet, 0 if there is none; whether
        # another must follow it, and whether that one asks the peer for its own.
        self._update_handle = 0
        self._update_follows = False
        self._following_asks = False
        # The peer was asked for new keys and has not moved to them yet.
        self._asked = False
        exchange.put(HandshakeDone())

    @classmethod
    def again(cls, exchange: Exchange, session: Session, remains: Remains) -> Connected:
        """As it was in another process, where the proofs were given."""
        self = cls.__new__(cls)
        super(Connected, self).__init__(exchange, remains.receive[0])
        self.session = session
        self._is_client = remains.is_client
        self._deriver = deriver_of(exchange.provider, session.suite, exchange.flavor.label_prefix)
        self._exporter_secret = remains.exporter_secret
        self._resumption_secret = remains.resumption_secret
        self._send_epoch, self._send_secret = remains.send
        self._receive_secret = remains.receive[1]
        self._update_handle = remains.update_handle
        self._update_follows = remains.update_follows
        self._following_asks = remains.following_asks
        self._asked = remains.asked
        exchange.handles = remains.handles
        return self

    def remains(self) -> Remains:
        """What there is to move to another process."""
        return Remains(
            is_client=self._is_client,
            send=(self._send_epoch, self._send_secret),
            receive=(self.epoch, self._receive_secret),
            exporter_secret=self._exporter_secret,
            resumption_secret=self._resumption_secret,
            handles=self.exchange.handles,
            update_handle=self._update_handle,
            update_follows=self._update_follows,
            following_asks=self._following_asks,
            asked=self._asked,
        )

    def receive(self, kind: HandshakeType, body: Reader, message: bytes) -> State:
        if kind is HandshakeType.NEW_SESSION_TICKET:
            if not self._is_client:
                raise self.unexpected(kind)
            ticket = NewSessionTicket.decode(body)
            kept = received(self.exchange, self.session, self._deriver, self._resumption_secret, ticket)
            self.exchange.put(TicketReceived(ticket, kept))
            return self
        update = KeyUpdate.decode(body)
        self._asked = False
        self._receive_secret = self._next(self._receive_secret)
        self.epoch += 1
        self.exchange.install(Direction.RECEIVE, self.epoch, self._deriver.spec, self._receive_secret)
        if update.update_requested and self.exchange.may_update_keys:
            # RFC 9147 section 8 [9147-8-7]: a request is ignored where its answer would pass a limit.
            # RFC 8446 section 4.6.3: one answer serves all requests that wait for it.
            self.update_keys(request_peer=False)
        return self

    def update_keys(self, *, request_peer: bool) -> None:
        """Send KeyUpdate, and move to new sending keys when the flavor allows."""
        if self._update_handle:
            # RFC 9147 section 8 [9147-8-2]: one at a time; the next one serves all that wait.
            self._update_follows = True
            self._following_asks |= request_peer
            return
        # RFC 9846 [8446-POST-2]: what was asked for is not asked for again before it came.
        ask = request_peer and not self._asked
        self._asked = self._asked or ask
        handle = self.exchange.send(self._send_epoch, KeyUpdate(ask).encode())
        if self.exchange.flavor.keys_wait_for_acknowledgement:
            self._update_handle = handle
        else:
            self._advance()

    @property
    def updating(self) -> bool:
        """Whether a KeyUpdate of ours waits for its acknowledgement."""
        return self._update_handle != 0

    @property
    def pending(self) -> int:
        """KeyUpdates that are not done: the one on its way, and the one that must follow it."""
        return (self._update_handle != 0) + self._update_follows

    def acknowledged(self, handle: int) -> None:
        """The peer has our message `handle`, and everything sent before it."""
        if handle != self._update_handle:
            return
        # RFC 9147 section 8 [9147-8-2, 9147-8-8]
        self._update_handle = 0
        self._advance()
        follows, asks = self._update_follows, self._following_asks
        self._update_follows = self._following_asks = False
        if follows:
            self.update_keys(request_peer=asks)

    def _advance(self) -> None:
        self._send_secret = self._next(self._send_secret)
        self._send_epoch += 1
        self.exchange.install(Direction.SEND, self._send_epoch, self._deriver.spec, self._send_secret)

    def _next(self, secret: Secret) -> Secret:
        return next_traffic_secret(self._deriver.provider, self._deriver.spec, secret, self._deriver.prefix)

    def export(self, label: bytes, context: bytes, n: int) -> bytes:
        """Exported keying material (RFC 8446 section 7.5)."""
        return export(self._deriver, self._exporter_secret, label, context, n)


class Failed(State):
    """The handshake or connection ended with an error, which every later call meets again."""

    __slots__ = ("error",)

    expects = ()

    def __init__(self, exchange: Exchange, error: ProtocolError) -> None:
        super().__init__(exchange, 0)
        self.error = error
