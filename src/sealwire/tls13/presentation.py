"""What we show for ourselves: which credential, its Certificate message, and the proof that it is ours.

The peer's ClientHello or CertificateRequest says what it can check and what it would like to have
with it: a staple (RFC 6066 section 8), timestamps (RFC 6962), a compressed message (RFC 8879).  A
certificate that fits all of it is preferred; one that the peer can at least check the handshake with is
shown otherwise, for RFC 8446 section 4.4.2.2 leaves it to the peer to refuse the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealwire.crypto.certificates import Credential, Purpose
from sealwire.crypto.compression import CompressionAlgorithm
from sealwire.crypto.signatures import SignatureScheme
from sealwire.errors import Alert, HandshakeError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.authentication import signed_content
from sealwire.tls13.contract import Settings
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.messages import (
    HEADER_BYTES,
    Certificate,
    CertificateEntry,
    CertificateVerify,
    CompressedCertificate,
)
from sealwire.tls13.transcript import Transcript
from sealwire.tls13.values import STATUS_OCSP, CertificateType

# CertificateStatus is a byte and a three-byte length before it, in an extension of 65,535 bytes at most.
_STAPLE_MAXIMUM_BYTES: Final = 0xFFFF - 4
# A peer may list types that nobody has.
_SHOWN: Final[frozenset[int]] = frozenset((CertificateType.X509, CertificateType.RAW_PUBLIC_KEY))


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the peer says about the certificate it is to be shown."""

    #: Schemes it takes in CertificateVerify; empty where it sent none.
    schemes: tuple[SignatureScheme, ...]
    #: Schemes it can check in a chain.
    chain_schemes: tuple[SignatureScheme, ...]
    #: DER names of authorities it trusts; empty where it does not say.
    authorities: tuple[bytes, ...]
    #: Ways to compress that it understands.
    compressions: tuple[CompressionAlgorithm, ...]
    staple: bool
    timestamps: bool
    #: What it takes, best first.
    types: tuple[CertificateType, ...]

    @classmethod
    def of(cls, block: Extensions, types: tuple[CertificateType, ...]) -> Wishes:
        """Those of a ClientHello or a CertificateRequest."""
        schemes = block.get(ext.SIGNATURE_ALGORITHMS) or ()
        if block.where is Where.CLIENT_HELLO:
            request = block.get(ext.STATUS_REQUEST)
            staple = request is not None and request.kind == STATUS_OCSP
        else:
            staple = ext.STATUS_REQUESTED.code in block
        return cls(
            schemes=schemes,
            # RFC 8446 section 4.2.3 [8446-AUTH-1]: without the second list the first holds for both.
            chain_schemes=block.get(ext.SIGNATURE_ALGORITHMS_CERT) or schemes,
            authorities=block.get(ext.CERTIFICATE_AUTHORITIES) or (),
            compressions=block.get(ext.COMPRESS_CERTIFICATE) or (),
            staple=staple,
            timestamps=ext.TIMESTAMPS_REQUESTED.code in block,
            types=types,
        )


def choose(settings: Settings, server_name: str | None, wishes: Wishes) -> Credential | None:
    """The credential to show; None if the peer can check none of ours."""
    for kind in wishes.types:
        if kind not in _SHOWN:
            continue
        credential = settings.credential_for(
            server_name,
            wishes.schemes,
            raw_public_key=kind is CertificateType.RAW_PUBLIC_KEY,
            chain_schemes=wishes.chain_schemes,
            authorities=wishes.authorities,
        )
        if credential is not None:
            return credential
    return None


def type_of(credential: Credential) -> CertificateType:
    return CertificateType.RAW_PUBLIC_KEY if credential.is_raw_public_key else CertificateType.X509


def has_one_of(settings: Settings, types: tuple[CertificateType, ...]) -> bool:
    """Whether there is a credential of one of `types`, whatever it signs with."""
    return any(type_of(one) in types for one in settings.credentials)


def certificate_message(
    settings: Settings, credential: Credential | None, context: bytes, wishes: Wishes
) -> bytes:
    """Our Certificate or CompressedCertificate, TLS form; without a credential its list is empty."""
    if credential is None:
        return Certificate(context, ()).encode()
    if credential.is_raw_public_key:
        # RFC 8446 section 4.4.2 [7250-1]: one entry, the SubjectPublicKeyInfo.
        entry = CertificateEntry(credential.spki, Extensions(Where.CERTIFICATE))
        return Certificate(context, (entry,)).encode()
    entries = [CertificateEntry(der, Extensions(Where.CERTIFICATE)) for der in credential.chain]
    staple = credential.staple(settings.clock()) if wishes.staple else b""
    if 0 < len(staple) <= _STAPLE_MAXIMUM_BYTES:
        # RFC 8446 section 4.4.2.1 [8446-AUTH-6]
        entries[0].extensions.add(ext.CERTIFICATE_STATUS, staple)
    if wishes.timestamps and credential.timestamps:
        entries[0].extensions.add(ext.CERTIFICATE_TIMESTAMPS, credential.timestamps)
    message = Certificate(context, tuple(entries)).encode()
    for algorithm in settings.certificate_compression:
        if algorithm in wishes.compressions:
            # RFC 8879 section 4 [8879-1]: what is packed is the message without its header.
            body = message[HEADER_BYTES:]
            packed = credential.compressed.get(algorithm, body)
            compressed = CompressedCertificate(algorithm, len(body), packed).encode()
            return compressed if worth_sending(compressed, message) else message
    return message


def worth_sending(compressed: bytes, message: bytes) -> bool:
    """Whether a Certificate message goes out compressed: where that made it smaller."""
    return len(compressed) < len(message)


def certificate_verify(
    credential: Credential, wishes: Wishes, signer: Purpose, transcript: Transcript
) -> bytes:
    """Our CertificateVerify over the transcript up to our Certificate, TLS form."""
    scheme = _choose_scheme(credential, wishes.schemes)
    signature = credential.sign(scheme, signed_content(signer, transcript.hash()))
    return CertificateVerify(scheme, signature).encode()


def _choose_scheme(credential: Credential, offered: tuple[SignatureScheme, ...]) -> SignatureScheme:
    for scheme in credential.schemes:
        if scheme in offered:
            return scheme
    raise HandshakeError(
        Alert.HANDSHAKE_FAILURE, "the peer accepts no signature scheme our certificate's key can make"
    )
