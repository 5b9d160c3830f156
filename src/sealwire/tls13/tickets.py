"""Resumption: session tickets, as a client keeps them and as a server reads them (RFC 8446 section 4.6.1).

A server keeps nothing: what it must know stands in the ticket, sealed under keys that other processes
and hosts may share.  A ticket is good for the protocol, name and hash it was made for, and brings back
who the client was; both sides look at the peer's certificates again, by today's rules, before they
rely on it.  A client uses a ticket once, so that nobody who watches can link two connections by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from sealwire.crypto.certificates import Purpose
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.psk import Psk, PskKind
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.errors import ProtocolError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import VERIFY_NONE, VERIFY_REQUIRED, Exchange, PeerIdentity, Session, Settings
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.messages import ClientHello, NewSessionTicket
from sealwire.tls13.peers import decode_peer, encode_peer, encoded_bytes, still_accepted
from sealwire.tls13.schedule import Deriver
from sealwire.wire import Reader, Writer

# RFC 8446 section 4.6.1 [8446-PSK-4]: a week at most, whatever the server says.
_LIFETIME_MAXIMUM_SECONDS: Final = 604_800
# A client's certificates travel in its ticket; longer chains are not resumed.
_MAX_CHAIN_BYTES: Final = 8 * 1024
_NONCE_BYTES: Final = 8
# What a ticket is bound to besides its key: the shape of its state.
_CONTEXT: Final = b"sealwire session ticket 3"


@dataclass(frozen=True, slots=True)
class SessionTicket:
    """What a client needs to resume, once.  Holds secrets: store it like a private key.

    Times are wall-clock seconds.  Connection ids are no part of it: each connection agrees on its own
    (RFC 9146 section 3 [9146-4]).
    """

    identity: bytes
    secret: Secret
    suite: CipherSuite
    #: Code of the protocol version, which tells TLS and DTLS apart.
    version: int
    server_name: str
    received_at: float
    lifetime: int
    age_add: int
    #: Who the server was; None where a pre-shared key stood for its certificates.
    peer: PeerIdentity | None
    #: The application protocol of that connection; early data is for the same.  None without one.
    alpn: bytes | None = None
    #: Bytes of early data the server would take at most, 0 for none.
    max_early_data: int = 0

    def encode(self) -> bytes:
        """Bytes for :meth:`decode`, to keep between processes."""
        writer = Writer()
        writer.vector16(self.identity)
        writer.vector8(self.secret)
        writer.u16(self.suite)
        writer.u16(self.version)
        writer.vector16(self.server_name.encode())
        writer.u64(max(round(self.received_at * 1000), 0))
        writer.u32(self.lifetime)
        writer.u32(self.age_add)
        encode_peer(writer, self.peer)
        writer.vector8(self.alpn or b"")
        writer.u32(self.max_early_data)
        return writer.finish()

    @classmethod
    def decode(cls, data: bytes) -> SessionTicket:
        """ProtocolError(decode_error) for bytes that :meth:`encode` did not make."""
        reader = Reader(data, "session ticket")
        ticket = cls(
            identity=reader.vector16(low=1),
            secret=Secret(reader.vector8(low=1)),
            suite=CipherSuite(reader.u16()),
            version=reader.u16(),
            server_name=reader.vector16().decode("utf-8", "replace"),
            received_at=reader.u64() / 1000,
            lifetime=reader.u32(),
            age_add=reader.u32(),
            peer=decode_peer(reader),
            alpn=reader.vector8() or None,
            max_early_data=reader.u32(),
        )
        reader.finish()
        return ticket

    @property
    def expires_at(self) -> float:
        """When it is too old, wall-clock seconds."""
        return self.received_at + self.lifetime

    def usable(self, exchange: Exchange, server_name: str | None) -> bool:
        """Whether this connection may offer it: same protocol and name, not too old, peer still accepted."""
        settings = exchange.settings
        age = settings.clock() - self.received_at
        if not 0 <= age < self.lifetime or self.suite not in settings.suites:
            return False
        # [8446-NEG-9, 8446-PSK-5]
        if self.version != exchange.flavor.version or self.server_name != (server_name or ""):
            return False
        if self.peer is None and settings.psk_client is None and settings.verify_mode != VERIFY_NONE:
            # A key vouched for the server then; now certificates have to.
            return False
        name = server_name if settings.check_hostname else None
        return still_accepted(settings, self.peer, Purpose.SERVER, name)

    def psk(self) -> Psk:
        """The key it stands for."""
        return Psk(self.identity, self.secret, SUITES[self.suite].hash_name, PskKind.RESUMPTION)

    def obfuscated_age(self, now: float) -> int:
        """RFC 8446 section 4.2.11.1: milliseconds, hidden by what the server added."""
        return (int((now - self.received_at) * 1000) + self.age_add) & 0xFFFFFFFF


def received(
    exchange: Exchange,
    session: Session,
    deriver: Deriver,
    resumption_secret: Secret,
    message: NewSessionTicket,
) -> SessionTicket:
    """What a client keeps of a NewSessionTicket."""
    secret = deriver.expand(resumption_secret, b"resumption", message.nonce, deriver.spec.hash_bytes)
    return SessionTicket(
        identity=message.ticket,
        secret=Secret(secret),
        suite=session.suite.suite,
        version=exchange.flavor.version,
        server_name=session.server_name or "",
        # Whole milliseconds, as it is stored, and never later than it was: its age is not below zero.
        received_at=int(exchange.settings.clock() * 1000) / 1000,
        lifetime=min(message.lifetime, _LIFETIME_MAXIMUM_SECONDS),
        age_add=message.age_add,
        peer=session.peer,
        alpn=session.alpn,
        max_early_data=message.extensions.get(ext.MAX_EARLY_DATA) or 0,
    )


@dataclass(frozen=True, slots=True)
class _State:
    """What a server puts into a ticket."""

    version: int
    suite: CipherSuite
    secret: Secret
    server_name: str
    #: Who the client was.
    peer: PeerIdentity | None
    alpn: bytes
    age_add: int
    max_early_data: int
    #: Name of the strike register that knows whether its early data was accepted; b"" if none is to be.
    register: bytes
    #: Where the client was, as far as it matters.
    place: bytes

    def encode(self) -> bytes:
        writer = Writer()
        writer.u16(self.version)
        writer.u16(self.suite)
        writer.vector8(self.secret)
        writer.vector16(self.server_name.encode())
        encode_peer(writer, self.peer)
        writer.vector8(self.alpn)
        writer.u32(self.age_add)
        writer.u32(self.max_early_data)
        writer.vector8(self.register)
        writer.vector8(self.place)
        return writer.finish()

    @classmethod
    def decode(cls, data: bytes) -> _State:
        reader = Reader(data, "ticket state")
        state = cls(
            reader.u16(),
            CipherSuite(reader.u16()),
            Secret(reader.vector8(low=1)),
            reader.vector16().decode("utf-8", "replace"),
            decode_peer(reader),
            reader.vector8(),
            reader.u32(),
            reader.u32(),
            reader.vector8(),
            reader.vector8(),
        )
        reader.finish()
        return state


def promised(settings: Settings, hello: ClientHello, *, resumed: bool, by_key: bool) -> int:
    """How many tickets a server gives after `hello`: what is asked for, within its configuration."""
    if by_key:
        # With a pre-shared key a ticket saves nothing.  It would outlive the key's removal, and nobody
        # would know any more whose connection it is.
        return 0
    modes = hello.extensions.get(ext.PSK_KEY_EXCHANGE_MODES) or b""
    if not any(mode in modes for mode in settings.psk_modes):
        # RFC 8446 section 4.2.9: there is no mode to use one by.
        return 0
    wanted = hello.extensions.get(ext.TICKET_REQUEST)
    # RFC 9149 section 2 [9149-1]
    return settings.num_tickets if wanted is None else min(wanted[resumed], settings.num_tickets)


def issue(
    exchange: Exchange, session: Session, deriver: Deriver, resumption_secret: Secret, count: int
) -> list[bytes]:
    """A server's NewSessionTicket messages, `count` of them."""
    settings = exchange.settings
    if encoded_bytes(session.peer) > _MAX_CHAIN_BYTES:
        return []
    strikes = settings.strikes
    early_size = settings.max_early_data_size if strikes is not None else 0
    # A ticket that can count nowhere says so, and nobody looks it up.
    counts = strikes is not None and (early_size or settings.tickets_as_proof)
    messages = []
    for _ in range(count):
        # Each ticket has a nonce, and so a key, of its own [8446-PSK-4].
        nonce = exchange.provider.random(_NONCE_BYTES)
        secret = Secret(deriver.expand(resumption_secret, b"resumption", nonce, deriver.spec.hash_bytes))
        age_add = int.from_bytes(exchange.provider.random(4), "big")
        register = strikes.name if strikes is not None and counts else b""
        state = _State(
            exchange.flavor.version,
            session.suite.suite,
            secret,
            session.server_name or "",
            session.peer,
            session.alpn or b"",
            age_add,
            early_size,
            register,
            exchange.early.place,
        )
        ticket = settings.ticket_keys.seal(state.encode(), settings.clock(), _CONTEXT)
        lifetime = min(int(settings.ticket_keys.lifetime_seconds), _LIFETIME_MAXIMUM_SECONDS)
        block = Extensions(Where.NEW_SESSION_TICKET)
        if early_size:
            # RFC 8446 section 4.6.1
            block.add(ext.MAX_EARLY_DATA, early_size)
        messages.append(NewSessionTicket(lifetime, age_add, nonce, ticket, block).encode())
    return messages


class EarlyGrant(NamedTuple):
    """What a ticket says of early data, and where its client was; all of it authentic.

    `issued_at` is wall-clock seconds; `register` names who remembers whether it has counted.
    """

    psk: Psk
    suite: CipherSuite
    alpn: bytes
    age_add: int
    max_size: int
    register: bytes
    place: bytes
    issued_at: float

    def due(self, obfuscated_age: int) -> float:
        """When a hello should come whose ticket is as old as it claims (RFC 8446 section 8.3)."""
        age = (obfuscated_age - self.age_add) & 0xFFFFFFFF
        return self.issued_at + age / 1000


class Opened(NamedTuple):
    """A ticket of ours, opened: who its client was, and what it says of early data."""

    identity: bytes
    peer: PeerIdentity | None
    grant: EarlyGrant


def open_ticket(
    settings: Settings, flavor: Flavor, identity: bytes, server_name: str | None, now: float
) -> Opened | None:
    """What is in a ticket: one AEAD operation at most.

    None if it is none of ours, too old, or not for this connection.
    """
    unsealed = settings.ticket_keys.open(identity, now, _CONTEXT)
    if unsealed is None:
        return None
    try:
        state = _State.decode(unsealed.state)
    except ProtocolError:
        return None
    # [8446-PSK-5]: the ticket brings no rights it was not made for.
    if (
        state.version != flavor.version
        or state.server_name != (server_name or "")
        or state.suite not in SUITES
    ):
        return None
    psk = Psk(identity, state.secret, SUITES[state.suite].hash_name, PskKind.RESUMPTION)
    grant = EarlyGrant(
        psk,
        state.suite,
        state.alpn,
        state.age_add,
        state.max_early_data,
        state.register,
        state.place,
        unsealed.sealed_at,
    )
    return Opened(identity, state.peer, grant)


def accept(exchange: Exchange, identity: bytes, server_name: str | None) -> Opened | None:
    """What a ticket stands for; None if it is not ours, too old, or not for this connection.

    None is no error: the handshake goes on in full (RFC 8446 section 4.2.11).
    """
    settings = exchange.settings
    if not settings.num_tickets:
        return None
    known = exchange.early.shown
    if known is not None and known.identity == identity:
        opened: Opened | None = known
    else:
        opened = open_ticket(settings, exchange.flavor, identity, server_name, settings.clock())
    if opened is None:
        return None
    if settings.verify_mode == VERIFY_REQUIRED and opened.peer is None:
        return None
    if not still_accepted(settings, opened.peer, Purpose.CLIENT, None):
        return None
    return opened
