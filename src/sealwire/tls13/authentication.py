"""Proofs: who the peer is, and that both sides saw the same handshake.

A :class:`PeerAuthenticated` and a :class:`FinishedVerified` can be made only by the functions
here that do the checking, and the connected state cannot be built without them.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from sealwire.crypto.certificates import Purpose
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.psk import ImportedIdentity, Psk, PskKind
from sealwire.crypto.signatures import HANDSHAKE_SCHEMES, SignatureScheme, verify
from sealwire.errors import Alert, CertificateError, CertificateFailure, HandshakeError
from sealwire.tls13.acceptance import Presented
from sealwire.tls13.contract import PeerIdentity, Settings
from sealwire.tls13.messages import CertificateVerify, Finished
from sealwire.tls13.schedule import Deriver
from sealwire.tls13.transcript import Transcript
from sealwire.wire import Reader

# RFC 8446 section 4.4.3 [8446-AUTH-2]
_SERVER_CONTEXT: Final = b"TLS 1.3, server CertificateVerify"
_CLIENT_CONTEXT: Final = b"TLS 1.3, client CertificateVerify"


def signed_content(signer: Purpose, transcript_hash: bytes) -> bytes:
    """What CertificateVerify signs: 64 blanks, who signs, a zero byte and the transcript hash."""
    context = _SERVER_CONTEXT if signer is Purpose.SERVER else _CLIENT_CONTEXT
    return b" " * 64 + context + b"\0" + transcript_hash


@dataclass(frozen=True, slots=True)
class PeerAuthenticated:
    """The peer proved to hold an accepted certificate's key, a raw key or a pre-shared key, or may have none.

    A pre-shared key is proved by the Finished that every connection needs as well.
    """

    peer: PeerIdentity | None
    scheme: SignatureScheme | None
    psk_identity: bytes | None = None
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class FinishedVerified:
    """The peer's Finished fits our transcript."""


def by_psk(psk: Psk, peer: PeerIdentity | None) -> PeerAuthenticated:
    """Both sides chose a pre-shared key.

    Who holds an external one is the application's knowledge; a ticket's holder is who was authenticated
    when it was given out: `peer`.  An application knows an imported key by its external identity (RFC 9258
    section 5.1).
    """
    if psk.kind is PskKind.RESUMPTION:
        return PeerAuthenticated(peer, None, resumed=True)
    identity = psk.identity
    if psk.kind is PskKind.IMPORTED:
        identity = ImportedIdentity.decode(identity).external_identity
    return PeerAuthenticated(None, None, identity)


def no_certificate_asked() -> PeerAuthenticated:
    """A server that requested no certificate knows its client as nobody."""
    return PeerAuthenticated(None, None)


def no_certificate_shown(settings: Settings, optional: bool) -> PeerAuthenticated:
    """A client answered the request with an empty list (RFC 8446 section 4.4.2.4)."""
    if not optional:
        # [8446-AUTH-3]
        raise CertificateError(CertificateFailure.MISSING, "the client showed no certificate")
    return PeerAuthenticated(None, None)


def authenticate(
    settings: Settings, presented: Presented, body: Reader, shown_by: Purpose, transcript: Transcript
) -> PeerAuthenticated:
    """Check the peer's CertificateVerify over the transcript up to its Certificate."""
    message = CertificateVerify.decode(body)
    if message.scheme not in settings.signature_schemes or message.scheme not in HANDSHAKE_SCHEMES:
        # RFC 8446 section 4.4.3 [8446-AUTH-2]: only what we offered, and never PKCS#1 v1.5.
        raise HandshakeError(
            Alert.ILLEGAL_PARAMETER, f"CertificateVerify uses {message.scheme.name}, which was not offered"
        )
    content = signed_content(shown_by, transcript.hash())
    verify(presented.key(), message.scheme, message.signature, content)
    return PeerAuthenticated(presented.peer, message.scheme)


def verify_finished(
    deriver: Deriver, secret: Secret, transcript: Transcript, body: Reader
) -> FinishedVerified:
    """Check the peer's Finished over the transcript before it [8446-KS-4]."""
    message = Finished.decode(body, deriver.spec.hash_bytes)
    if not hmac.compare_digest(message.mac, deriver.finished_mac(secret, transcript.hash())):
        raise HandshakeError(Alert.DECRYPT_ERROR, "the peer's Finished does not fit the handshake")
    return FinishedVerified()


def finished_message(deriver: Deriver, secret: Secret, transcript: Transcript) -> bytes:
    """Our Finished over the transcript so far."""
    return Finished(deriver.finished_mac(secret, transcript.hash())).encode()
