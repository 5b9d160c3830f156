"""What differs between the handshakes of TLS 1.3 and DTLS 1.3, as constants.

RFC 9147 section 5 changes the TLS 1.3 handshake in a handful of places.  The engine asks its
Flavor for each of them, so there is one engine and no ``if dtls``.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealwire.crypto.hkdf import DTLS13_PREFIX, TLS13_PREFIX


@dataclass(frozen=True, slots=True, eq=False)
class Flavor:
    """The constants of one of the two protocols; there are two objects, compared by identity."""

    name: str
    #: The code of version 1.3 in supported_versions.
    version: int
    #: What the frozen version fields of both hellos say.
    legacy_version: int
    #: Names of the older versions a peer may turn out to speak, for messages to people.
    older_versions: dict[int, str]
    label_prefix: bytes
    #: ClientHello has a legacy_cookie field (RFC 9147 section 5.3).
    has_legacy_cookie: bool
    #: Middlebox compatibility (RFC 8446 appendix D.4): a session id that is echoed, and
    #: ChangeCipherSpec.  RFC 9147 section 5 forbids both.
    compatibility_mode: bool
    #: A message ends early data (RFC 8446 section 4.5); datagrams have epochs for that (RFC 9147 section
    #: 5.6 [9147-5.6-1]), so that sending keys of two epochs live side by side.
    has_end_of_early_data: bool
    #: After sending KeyUpdate the new sending keys wait for its acknowledgement
    #: (RFC 9147 section 8); over a stream they are used at once.
    keys_wait_for_acknowledgement: bool
    #: How many key shares a first ClientHello carries unless configured: see `offers_hybrid_share`.
    offers_hybrid_share: bool
    #: SRTP keys are agreed on (RFC 5764), which is for datagrams.
    has_srtp: bool

    def version_name(self, code: int) -> str:
        """A version for people: ``"DTLS 1.2"``."""
        if code == self.version:
            return self.name
        return self.older_versions.get(code, f"version {code:#06x}")


TLS = Flavor(
    name="TLS 1.3",
    version=0x0304,
    legacy_version=0x0303,
    older_versions={0x0303: "TLS 1.2", 0x0302: "TLS 1.1", 0x0301: "TLS 1.0", 0x0300: "SSL 3.0"},
    label_prefix=TLS13_PREFIX,
    has_legacy_cookie=False,
    compatibility_mode=True,
    has_end_of_early_data=True,
    keys_wait_for_acknowledgement=False,
    offers_hybrid_share=True,
    has_srtp=False,
)

# RFC 9147 section 5.9 [9147-5.9-1]: labels start with "dtls13", without a blank.
# RFC 9147 section 5.3 [9147-5.3-2]: DTLS 1.3 is FEFC, 1.2 FEFD, 1.0 FEFF.
# A DTLS server answers with a cookie anyway, and its HelloRetryRequest can name the hybrid group
# for free; so the first hello offers a classical share only and fits one datagram
# (docs/decisions/0004).
DTLS = Flavor(
    name="DTLS 1.3",
    version=0xFEFC,
    legacy_version=0xFEFD,  # RFC 9147 section 5.3 [9147-5.3-1]
    older_versions={0xFEFD: "DTLS 1.2", 0xFEFF: "DTLS 1.0"},
    label_prefix=DTLS13_PREFIX,
    has_legacy_cookie=True,
    compatibility_mode=False,
    has_end_of_early_data=False,
    keys_wait_for_acknowledgement=True,
    offers_hybrid_share=False,
    has_srtp=True,
)
