"""Config: what connections are made with, a Context as it was when asked."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sealwire.context.sessions import SessionStore
from sealwire.crypto.certificates import CertificateVerifier, Credential
from sealwire.crypto.compression import CompressionAlgorithm
from sealwire.crypto.groups import Group
from sealwire.crypto.ocsp import StapleMode
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.psk import (
    ClientCallback,
    Psk,
    PskMode,
    ServerCallback,
    ask_client,
    ask_server,
    find_psk,
    psks_to_offer,
)
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.srtp import SrtpProfile
from sealwire.crypto.strikes import StrikeRegister
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.crypto.ticketkeys import TicketKeys
from sealwire.limits import Limits

__all__ = ["Config"]


#: More tickets than connections a client makes at once are of no use.
MAX_TICKETS: Final = 8


def wall_clock() -> float:
    """Seconds since 1970: tickets travel between hosts, which have no other clock in common."""
    return datetime.datetime.now(datetime.UTC).timestamp()


@dataclass(frozen=True, slots=True, eq=False)
class Config:
    """What connections are made with: a Context as it was when asked.  Immutable; share it freely.

    Attributes:
        key_shares: groups a client sends shares for at once; None leaves it to the protocol.
        alpn: application protocols, best first.
        verify_mode: CERT_NONE, CERT_OPTIONAL or CERT_REQUIRED.
        max_chain_bytes, max_chain_length: bounds on a peer's certificate list.
        keylog: takes one line of a key log (RFC 9850), without its line end; None writes none.
        psk_client, psk_server: the application's callbacks; :meth:`offer_psks` and :meth:`find_psk` ask them.
        ticket_keys: seal and open session tickets.
        num_tickets: session tickets a server gives each client that wants some; not 0, a client wants some.
        ticket_request: session tickets a client asks for, after a full and after a resumed handshake.
        session_store: where drivers keep a client's tickets; None for nowhere.
        max_early_data_size: bytes of early data a server takes from a client that comes back, 0 for none.
        strikes: remembers which tickets have counted, for early data or as proof; None accepts none.
        tickets_as_proof: whether a ticket may show a client's address in place of a cookie.
        record_size_limit: longest record wanted from peers; None says nothing of it.
        block_padding, padding_callback: how protected records are padded.
        srtp_profiles, srtp_mki: what to agree on for SRTP; none switches it off.
        clock: wall-clock seconds, for the age of tickets.
        staple_mode: whether peers are asked for an OCSP response with their certificate, and must have one.
        certificate_timestamps: whether peers are asked for signed certificate timestamps (RFC 6962).
        psk_modes: how pre-shared keys are used, best first.
        grease: whether a client's hello holds values that mean nothing (RFC 8701).
        max_message_bytes: the longest handshake message, and so the longest certificate once unpacked.
        certificate_compression: algorithms to compress with and to accept, best first; none switches it off.
    """

    provider: CryptoProvider
    suites: tuple[CipherSuite, ...]
    groups: tuple[Group, ...]
    key_shares: tuple[Group, ...] | None
    signature_schemes: tuple[SignatureScheme, ...]
    alpn: tuple[bytes, ...]
    credentials: tuple[Credential, ...]
    verify_mode: int
    check_hostname: bool
    verifier: CertificateVerifier = field(repr=False)
    max_chain_bytes: int
    max_chain_length: int
    keylog: Callable[[str], None] | None = field(repr=False)
    choose: Callable[[str | None], Config | None] | None = field(repr=False, default=None)
    psk_client: ClientCallback | None = field(repr=False, default=None)
    psk_server: ServerCallback | None = field(repr=False, default=None)
    ticket_keys: TicketKeys = field(repr=False, default_factory=TicketKeys)
    certificate_compression: tuple[CompressionAlgorithm, ...] = ()
    num_tickets: int = 0
    ticket_request: tuple[int, int] | None = None
    session_store: SessionStore | None = None
    max_early_data_size: int = 0
    strikes: StrikeRegister | None = field(repr=False, default=None)
    tickets_as_proof: bool = False
    record_size_limit: int | None = None
    block_padding: int = 0
    padding_callback: Callable[[int, int], int] | None = field(repr=False, default=None)
    srtp_profiles: tuple[SrtpProfile, ...] = ()
    srtp_mki: bytes = b""
    clock: Callable[[], float] = field(repr=False, default=wall_clock)
    staple_mode: StapleMode = StapleMode.NONE
    certificate_timestamps: bool = False
    psk_modes: tuple[PskMode, ...] = (PskMode.PSK_DHE_KE,)
    grease: bool = False
    max_message_bytes: int = Limits().handshake_message_bytes

    def credential_for(
        self,
        server_name: str | None,
        schemes: Sequence[SignatureScheme],
        *,
        raw_public_key: bool = False,
        chain_schemes: Sequence[SignatureScheme] | None = None,
        authorities: Sequence[bytes] = (),
    ) -> Credential | None:
        """The credential to show a peer that accepts `schemes`; None if none can sign with any of them.

        Among several, one that is for `server_name` comes first; then one whose chain the peer can check;
        then one whose chain is of an authority it trusts; then the one loaded first.

        Args:
            raw_public_key: whether a raw public key was negotiated (RFC 7250); otherwise it is a certificate.
            chain_schemes: what the peer can check in a chain (signature_algorithms_cert); None for anything.
            authorities: DER names the peer trusts; empty where it does not say.
        """
        able = [
            one
            for one in self.credentials
            if one.is_raw_public_key is raw_public_key and not set(one.schemes).isdisjoint(schemes)
        ]
        if len(able) < 2:
            return able[0] if able else None

        def unfit(credential: Credential) -> tuple[bool, bool, bool]:
            return (
                server_name is not None and not credential.serves(server_name),
                chain_schemes is not None and not credential.checkable_with(chain_schemes),
                bool(authorities) and credential.issuers.isdisjoint(authorities),
            )

        return min(able, key=unfit)

    def within(self, limits: Limits) -> Config:
        """The same, with the bounds of `limits` on a peer's certificate list."""
        size, length = limits.certificate_chain_bytes, limits.certificate_chain_length
        message = limits.handshake_message_bytes
        if (self.max_chain_bytes, self.max_chain_length, self.max_message_bytes) == (size, length, message):
            return self
        choose = self.choose

        def bounded(name: str | None) -> Config | None:
            chosen = None if choose is None else choose(name)
            return None if chosen is None else chosen.within(limits)

        return replace(
            self,
            max_chain_bytes=size,
            max_chain_length=length,
            max_message_bytes=message,
            verifier=self.verifier.within(length),
            choose=None if choose is None else bounded,
        )

    def speaking(self, protocol: bytes) -> Config:
        """The same, with the application protocol `protocol` in front of the others."""
        if self.alpn[:1] == (protocol,):
            return self
        choose = self.choose

        def speaking(name: str | None) -> Config | None:
            chosen = None if choose is None else choose(name)
            return None if chosen is None else chosen.speaking(protocol)

        return replace(
            self,
            alpn=(protocol, *(one for one in self.alpn if one != protocol)),
            choose=None if choose is None else speaking,
        )

    def for_server_name(self, name: str | None) -> Config:
        """The Config to go on with for a client that asked for `name`; runs ``sni_callback``.

        Raises:
            HandshakeError: what the callback raised, or internal_error if it failed otherwise.
        """
        if self.choose is None:
            return self
        return self.choose(name) or self

    def offer_psks(self, prefix: bytes) -> tuple[Psk, ...]:
        """External keys a client puts into its ClientHello, best first; none without a callback.

        Calls the application, so once per connection.

        Args:
            prefix: TLS13_PREFIX or DTLS13_PREFIX; imported keys differ between the two.

        Raises:
            HandshakeError: internal_error, the callback failed.
        """
        psk = None if self.psk_client is None else ask_client(self.psk_client)
        if psk is None:
            return ()
        return psks_to_offer(self.provider, prefix, psk, [SUITES[suite].hash_name for suite in self.suites])

    def find_psk(self, identity: bytes, prefix: bytes) -> Psk | None:
        """The external key a client offers by `identity`; None if the application does not know it.

        Raises:
            HandshakeError: internal_error, the callback failed.
        """
        callback = self.psk_server
        if callback is None:
            return None
        return find_psk(self.provider, prefix, identity, lambda name: ask_server(callback, name))
