"""Which kind of certificate each side shows: X.509 or a raw public key (RFC 7250, RFC 8446 section 4.4.2).

The two directions are agreed on apart from each other.  A client says what it takes and what it has,
best first; the server answers in EncryptedExtensions; silence means X.509.  A side speaks of raw keys
only where it has one, or trusts one: a raw key that is on no list is never accepted.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealwire.errors import Alert, CertificateError, CertificateFailure, HandshakeError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import VERIFY_NONE, Settings
from sealwire.tls13.extensions import Extensions
from sealwire.tls13.values import CertificateType

_X509_ONLY = (CertificateType.X509,)


@dataclass(frozen=True, slots=True)
class AgreedTypes:
    """What the server, and a client that is asked, show."""

    server: CertificateType
    client: CertificateType


def accepted(settings: Settings) -> tuple[CertificateType, ...]:
    """The types we take from a peer, best first."""
    verifier = settings.verifier
    if not verifier.accepts_raw_public_keys:
        return _X509_ONLY
    if settings.verify_mode == VERIFY_NONE or verifier.accepts_certificates:
        return (CertificateType.RAW_PUBLIC_KEY, CertificateType.X509)
    return (CertificateType.RAW_PUBLIC_KEY,)


def offer(settings: Settings, block: Extensions) -> None:
    """Say in a ClientHello what we have and what we take, where it is not X.509 alone."""
    ours = tuple(
        dict.fromkeys(
            CertificateType.RAW_PUBLIC_KEY if one.is_raw_public_key else CertificateType.X509
            for one in settings.credentials
        )
    )
    # RFC 7250 section 4.1 [7250-1]: left out where there is nothing but X.509.
    if CertificateType.RAW_PUBLIC_KEY in ours:
        block.add(ext.CLIENT_CERTIFICATE_TYPES, ours)
    theirs = accepted(settings)
    if theirs != _X509_ONLY:
        block.add(ext.SERVER_CERTIFICATE_TYPES, theirs)


def agreed(offered: Extensions, answer: Extensions) -> AgreedTypes:
    """What EncryptedExtensions decided of our ClientHello's offer; for handshakes without pre-shared key.

    Raises:
        HandshakeError: illegal_parameter for a type that was not offered.
        CertificateError: unsupported_certificate where only raw keys will do and the server says nothing.
    """
    server = answer.get(ext.SERVER_CERTIFICATE_TYPE)
    takes = offered.get(ext.SERVER_CERTIFICATE_TYPES) or _X509_ONLY
    if server is None:
        server = CertificateType.X509
        if server not in takes:
            raise CertificateError(
                CertificateFailure.REJECTED,
                "the server shows an X.509 certificate, and only raw public keys are trusted",
                Alert.UNSUPPORTED_CERTIFICATE,
            )
    client = answer.get(ext.CLIENT_CERTIFICATE_TYPE)
    has = offered.get(ext.CLIENT_CERTIFICATE_TYPES) or _X509_ONLY
    if server not in takes or (client is not None and client not in has):
        raise HandshakeError(
            Alert.ILLEGAL_PARAMETER, "the server chose a certificate type that was not offered"
        )
    return AgreedTypes(server, CertificateType.X509 if client is None else client)


def client_type(settings: Settings, hello: Extensions) -> CertificateType | None:
    """What a server asks its client to show; None where the client does not speak of types.

    Raises:
        HandshakeError: unsupported_certificate, nothing the client has is taken here.
    """
    offered = hello.get(ext.CLIENT_CERTIFICATE_TYPES)
    # RFC 7250 section 4.2: not answered by a server that asks for no certificate.
    if offered is None or settings.verify_mode == VERIFY_NONE:
        return None
    takes = accepted(settings)
    for kind in offered:
        if kind in takes:
            return kind
    raise HandshakeError(
        Alert.UNSUPPORTED_CERTIFICATE, "the client has no certificate of a type that is accepted here"
    )


def server_types(hello: Extensions) -> tuple[CertificateType, ...]:
    """What a client takes from its server, best first."""
    return hello.get(ext.SERVER_CERTIFICATE_TYPES) or _X509_ONLY
