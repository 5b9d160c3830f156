"""The engine's contract: what it is told, what it gives, and the facts it ends with.

In: whole handshake messages, each with the epoch whose keys protected it.  Out: messages to send,
keys to install and facts, strictly in order.  Epochs are 0 plain, 1 early data, 2 handshake, 3
and up application, for both protocols (RFC 9147 section 6.1 [9147-6.1-1]).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from sealwire.crypto.certificates import CertificateVerifier, Credential, PeerCertificate, RawPublicKey
from sealwire.crypto.compression import CompressionAlgorithm
from sealwire.crypto.groups import Group
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.ocsp import StapleMode
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.psk import Psk, PskMode
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.srtp import SrtpProfile
from sealwire.crypto.strikes import StrikeRegister
from sealwire.crypto.suites import CipherSuite, SuiteSpec
from sealwire.crypto.ticketkeys import TicketKeys
from sealwire.tls13.agreements import Agreements
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.messages import NewSessionTicket

if TYPE_CHECKING:
    from sealwire.tls13.messages import ClientHello
    from sealwire.tls13.tickets import Opened, SessionTicket

EPOCH_PLAIN: Final = 0
EPOCH_EARLY: Final = 1
EPOCH_HANDSHAKE: Final = 2
EPOCH_APPLICATION: Final = 3

# The values of ssl.VerifyMode, which Context takes.
VERIFY_NONE: Final = 0
VERIFY_OPTIONAL: Final = 1
VERIFY_REQUIRED: Final = 2


#: Who a peer is: the certificates, or the raw public key (RFC 7250), whose private key it holds.
PeerIdentity = PeerCertificate | RawPublicKey


class Settings(Protocol):
    """What the engine asks of a configuration; `sealwire.context.Config` has this shape."""

    @property
    def provider(self) -> CryptoProvider: ...
    @property
    def suites(self) -> tuple[CipherSuite, ...]: ...
    @property
    def groups(self) -> tuple[Group, ...]: ...
    @property
    def key_shares(self) -> tuple[Group, ...] | None: ...
    @property
    def signature_schemes(self) -> tuple[SignatureScheme, ...]: ...
    @property
    def alpn(self) -> tuple[bytes, ...]: ...
    @property
    def verify_mode(self) -> int: ...
    @property
    def check_hostname(self) -> bool: ...
    @property
    def verifier(self) -> CertificateVerifier: ...
    @property
    def credentials(self) -> tuple[Credential, ...]: ...
    @property
    def staple_mode(self) -> StapleMode: ...
    @property
    def certificate_timestamps(self) -> bool: ...
    @property
    def certificate_compression(self) -> tuple[CompressionAlgorithm, ...]: ...
    @property
    def psk_modes(self) -> tuple[PskMode, ...]: ...
    @property
    def max_message_bytes(self) -> int: ...
    @property
    def max_chain_bytes(self) -> int: ...
    @property
    def max_chain_length(self) -> int: ...
    @property
    def num_tickets(self) -> int: ...
    @property
    def ticket_request(self) -> tuple[int, int] | None: ...
    @property
    def ticket_keys(self) -> TicketKeys: ...
    @property
    def max_early_data_size(self) -> int: ...
    @property
    def strikes(self) -> StrikeRegister | None: ...
    @property
    def tickets_as_proof(self) -> bool: ...
    @property
    def clock(self) -> Callable[[], float]: ...
    @property
    def grease(self) -> bool: ...
    @property
    def psk_client(self) -> object | None: ...
    @property
    def psk_server(self) -> object | None: ...
    @property
    def record_size_limit(self) -> int | None: ...
    @property
    def srtp_profiles(self) -> tuple[SrtpProfile, ...]: ...
    @property
    def srtp_mki(self) -> bytes: ...
    @property
    def keylog(self) -> Callable[[str], None] | None: ...

    def credential_for(
        self,
        server_name: str | None,
        schemes: Sequence[SignatureScheme],
        *,
        raw_public_key: bool = False,
        chain_schemes: Sequence[SignatureScheme] | None = None,
        authorities: Sequence[bytes] = (),
    ) -> Credential | None: ...

    def for_server_name(self, name: str | None) -> Settings: ...

    def offer_psks(self, prefix: bytes) -> tuple[Psk, ...]: ...

    def find_psk(self, identity: bytes, prefix: bytes) -> Psk | None: ...


class EarlyData(enum.Enum):
    """What became of early data (RFC 8446 section 2.3)."""

    NOT_OFFERED = "not offered"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Direction(enum.Enum):
    """Which way keys protect."""

    SEND = "send"
    RECEIVE = "receive"


class SendMessage(NamedTuple):
    """Send `message` (whole, TLS form) under the keys of `epoch`.

    `handle` names it for :meth:`Handshake.acknowledged`.
    """

    epoch: int
    message: bytes
    handle: int


@dataclass(frozen=True, slots=True)
class SendCompatibilityCcs:
    """Send a ChangeCipherSpec for middleboxes (RFC 8446 appendix D.4).  Streams only."""


class InstallKeys(NamedTuple):
    """Protect one direction with the keys of `secret` from here on.

    RFC 8446 section 5.1: no handshake message may straddle this point.
    """

    direction: Direction
    epoch: int
    spec: SuiteSpec
    secret: Secret


@dataclass(frozen=True, slots=True)
class HandshakeDone:
    """The peer's Finished was verified and ours is among the messages given out."""


@dataclass(frozen=True, slots=True)
class TicketReceived:
    """The server sent a session ticket.

    `message` is as it came; `ticket` what a client keeps of it to resume, once.
    """

    message: NewSessionTicket
    ticket: SessionTicket


@dataclass(frozen=True, slots=True)
class EarlyDataAnswered:
    """Whether the server takes early data; given once, at both ends, if the client offered some.

    Refused, epoch 1 is over: a client forgets its keys, a server over a stream skips what was sent in it.
    """

    accepted: bool


Output = EarlyDataAnswered | SendMessage | SendCompatibilityCcs | InstallKeys | HandshakeDone | TicketReceived


@dataclass(frozen=True, slots=True)
class ConnectionIds:
    """What two sides agreed on connection ids (RFC 9146 section 3).

    `ours` stands in records to us and `theirs` in records to the peer, b"" for none.
    """

    negotiated: bool
    ours: bytes
    theirs: bytes
    #: Whether both sides answer return routability checks (RFC 9853).
    return_routability: bool


NO_CONNECTION_IDS: Final = ConnectionIds(False, b"", b"", False)


@dataclass(frozen=True, slots=True)
class Session:
    """The facts of a finished handshake."""

    #: "TLS 1.3" or "DTLS 1.3".
    version: str
    suite: SuiteSpec
    #: The key exchange group; None where a pre-shared key was used without one (psk_ke).
    group: Group | None
    #: The negotiated application protocol, None without ALPN.
    alpn: bytes | None
    #: The name the client asked for.
    server_name: str | None
    #: The peer's certificates or raw public key; None where it showed neither: a client that was not asked
    #: or had none, and whoever proved itself by a pre-shared key.
    peer: PeerIdentity | None
    #: How the peer signed; None where it did not.
    peer_scheme: SignatureScheme | None
    #: The pre-shared key both sides proved to have, by its identity; None where certificates were used.
    psk_identity: bytes | None
    #: Whether a ticket of an earlier connection stood for certificates.
    resumed: bool
    #: Whether a HelloRetryRequest was part of the handshake.
    retried: bool
    #: What was agreed on connection ids; those of the first records, they may change.
    connection_ids: ConnectionIds
    #: What became of early data.
    early_data: EarlyData = EarlyData.NOT_OFFERED
    #: What was agreed for the records and beside them.
    agreed: Agreements = field(default_factory=Agreements)
    #: Server: by how many seconds its ticket is older to the client than to us: the way of the hello, and
    #: how far the two clocks, or two servers', went apart (RFC 8446 section 8.3).  None without a ticket.
    ticket_age_skew: float | None = None

    @property
    def record_limits(self) -> tuple[int, int] | None:
        """The longest records each way, sent and received, content, type and padding in bytes (RFC 8449).

        None where the two did not speak of them.
        """
        return self.agreed.record_limits

    @property
    def srtp_profile(self) -> SrtpProfile | None:
        """What was agreed on for SRTP (RFC 5764), None without."""
        return self.agreed.srtp_profile

    @property
    def srtp_mki(self) -> bytes:
        """The master key identifier agreed on for SRTP, b"" for none."""
        return self.agreed.srtp_mki

    @property
    def peer_bytes(self) -> int:
        """What keeping `peer` holds of memory that the peer chose the size of."""
        if isinstance(self.peer, PeerCertificate):
            return self.peer.size_bytes
        return 0 if self.peer is None else len(self.peer.spki)

    @property
    def peer_certificate(self) -> PeerCertificate | None:
        """The peer's certificates; None where it showed none, a raw public key for one."""
        return self.peer if isinstance(self.peer, PeerCertificate) else None

    @property
    def peer_raw_public_key(self) -> RawPublicKey | None:
        """The peer's raw public key (RFC 7250); None where it showed none."""
        return self.peer if isinstance(self.peer, RawPublicKey) else None


@dataclass(slots=True)
class EarlyPhase:
    """What is known of early data while the handshake goes on."""

    #: Client: the application wants to send some.  Server: the transport lets some in.
    wanted: bool = False
    #: Client: it is offered, and the server has not said yet.
    pending: bool = False
    outcome: EarlyData = EarlyData.NOT_OFFERED
    #: Bytes of early data at most, once there are keys for it.
    limit: int = 0
    #: The application protocol it is for, once there are keys for it.
    alpn: bytes | None = None
    #: Server: where the client is, as its tickets shall say; b"" not to say it.
    place: bytes = b""
    #: Server: the ticket that stands for a cookie; it was opened, its binder checked, and it has counted.
    shown: Opened | None = None


# One for all connections that are complete and had none: it never changes again.
_NO_EARLY_DATA: Final = EarlyPhase()


class Exchange:
    """What all states of one handshake share: settings, and the outputs not yet taken."""

    __slots__ = (
        "_outputs",
        "agreed",
        "client_random",
        "connection_ids",
        "early",
        "flavor",
        "handles",
        "hello",
        "may_update_keys",
        "own_connection_id",
        "provider",
        "settings",
    )

    def __init__(self, settings: Settings, flavor: Flavor) -> None:
        self.settings = settings
        self.flavor = flavor
        self.provider = settings.provider
        self._outputs: tuple[Output, ...] = ()
        self.client_random = b""
        #: Server: the id it wants on records to it; None not to negotiate ids.
        self.own_connection_id: bytes | None = None
        #: What was agreed; known from ServerHello on, before any keys.
        self.connection_ids = NO_CONNECTION_IDS
        #: What else was agreed for the records and beside them.
        self.agreed = Agreements()
        #: Off once the transport has no numbers left for another KeyUpdate (RFC 9147 section 8).
        self.may_update_keys = True
        self.early = EarlyPhase()
        #: Server: the ClientHello that comes next, where the transport has decoded and checked it.
        self.hello: ClientHello | None = None
        #: How many messages were sent; each has its number for a handle.
        self.handles = 0

    def settle(self, session: Session) -> None:
        """The handshake is over: give up what only it needed."""
        self.client_random = b""
        self.own_connection_id = None
        if session.early_data is EarlyData.NOT_OFFERED:
            self.early = _NO_EARLY_DATA
        self.early.shown = None
        self.agreed = session.agreed

    def put(self, output: Output) -> None:
        """Have `output` done, behind those before it."""
        # A tuple, because an empty list that waits for a whole connection's life is 64 bytes.
        self._outputs += (output,)

    def take(self) -> list[Output]:
        """What was put in since the last call."""
        outputs, self._outputs = self._outputs, ()
        return list(outputs)

    def send(self, epoch: int, message: bytes) -> int:
        """Queue a message; returns its handle."""
        self.handles += 1
        self.put(SendMessage(epoch, message, self.handles))
        return self.handles

    def send_compatibility_ccs(self) -> None:
        if self.flavor.compatibility_mode:
            self.put(SendCompatibilityCcs())

    def install(self, direction: Direction, epoch: int, spec: SuiteSpec, secret: Secret) -> None:
        self.put(InstallKeys(direction, epoch, spec, secret))

    def log_secret(self, label: str, secret: Secret) -> None:
        """Write a line of the key log (RFC 9850), if there is one."""
        if self.settings.keylog is not None:
            self.settings.keylog(f"{label} {self.client_random.hex()} {bytes(secret).hex()}")
