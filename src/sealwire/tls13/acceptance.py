"""What the peer shows for itself: its Certificate message, plain or compressed, and whether we take it.

Bounds come first: a compressed message is compared with the limit before it is unpacked, a list is
counted before its certificates are looked at.  Then the policy of the Context judges: the path or
the list of raw keys, and the staples (RFC 8446 section 4.4.2.1).  That the peer holds the key is
shown later, by its CertificateVerify.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sealwire.crypto.certificates import (
    PeerCertificate,
    Purpose,
    RawPublicKey,
    check_may_sign,
    leaf_public_key,
)
from sealwire.crypto.chainsignatures import accepted_in_chains
from sealwire.crypto.compression import decompress
from sealwire.crypto.keys import PublicKey
from sealwire.crypto.ocsp import StapleMode
from sealwire.errors import Alert, CertificateError, CertificateFailure, HandshakeError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import VERIFY_NONE, PeerIdentity, Settings
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.messages import Certificate, CompressedCertificate, HandshakeType
from sealwire.tls13.values import ANY_OCSP_RESPONSE, CertificateType
from sealwire.wire import Reader

_AUTHORITIES_MAXIMUM_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """What we asked the peer to show, which is all that its message may answer."""

    #: The extensions of our ClientHello or CertificateRequest.
    extensions: Extensions
    kind: CertificateType
    shown_by: Purpose
    #: Reference name of a server's certificate; None where none is checked.
    name: str | None


@dataclass(frozen=True, slots=True)
class Presented:
    """Who the peer says it is, accepted; that it holds the key is not shown yet."""

    peer: PeerIdentity

    def key(self) -> PublicKey:
        """The key CertificateVerify must be made with.  CertificateError if it cannot be used."""
        if isinstance(self.peer, RawPublicKey):
            return self.peer.key
        return leaf_public_key(self.peer.chain[0])


def ask(settings: Settings, block: Extensions) -> None:
    """Say in a ClientHello or CertificateRequest what we would like to have with the peer's certificate."""
    if settings.staple_mode is not StapleMode.NONE:
        if block.where is Where.CLIENT_HELLO:
            block.add(ext.STATUS_REQUEST, ANY_OCSP_RESPONSE)
        else:
            block.add(ext.STATUS_REQUESTED, True)
    if settings.certificate_timestamps:
        block.add(ext.TIMESTAMPS_REQUESTED, True)
    if settings.certificate_compression:
        block.add(ext.COMPRESS_CERTIFICATE, settings.certificate_compression)
    chain_schemes = accepted_in_chains(settings.signature_schemes)
    if chain_schemes:
        block.add(ext.SIGNATURE_ALGORITHMS_CERT, chain_schemes)


def request(settings: Settings) -> Extensions:
    """The extensions of a server's CertificateRequest."""
    block = Extensions(Where.CERTIFICATE_REQUEST)
    block.add(ext.SIGNATURE_ALGORITHMS, settings.signature_schemes)
    ask(settings, block)
    authorities = settings.verifier.authorities()
    # RFC 8446 section 4.2.4: a hint for clients with several certificates; a whole store of roots is none.
    if 0 < sum(map(len, authorities)) <= _AUTHORITIES_MAXIMUM_BYTES:
        # [8446-AUTH-7]
        block.add(ext.CERTIFICATE_AUTHORITIES, authorities)
    return block


def read(settings: Settings, kind: HandshakeType, body: Reader, asked: Asked) -> Certificate:
    """The peer's Certificate message, unpacked if it came compressed (RFC 8879).

    Raises:
        ProtocolError: unexpected_message, illegal_parameter or bad_certificate for a compressed one that
            was not asked for or cannot be unpacked; decode_error, unsupported_extension.
    """
    if kind is HandshakeType.COMPRESSED_CERTIFICATE:
        body = _unpacked(settings, body, asked.extensions)
    certificate = Certificate.decode(body, settings.max_chain_length)
    if certificate.context:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "Certificate has a context that was not asked for")
    for entry in certificate.entries:
        # Extensions of an entry answer ours (RFC 8446 section 4.4.2).
        entry.extensions.refuse_unsolicited(asked.extensions)
    return certificate


def _unpacked(settings: Settings, body: Reader, asked: Extensions) -> Reader:
    offered = asked.get(ext.COMPRESS_CERTIFICATE)
    if offered is None:
        raise HandshakeError(Alert.UNEXPECTED_MESSAGE, "a compressed certificate that was not asked for")
    message = CompressedCertificate.decode(body)
    if message.algorithm not in offered:
        # RFC 8879 section 4 [8879-1]
        raise HandshakeError(
            Alert.ILLEGAL_PARAMETER,
            f"the certificate is compressed with {message.algorithm.name}, which was not offered",
        )
    # No larger than one that is not compressed may be.
    unpacked = decompress(
        message.algorithm, message.compressed, message.uncompressed_length, settings.max_message_bytes
    )
    return Reader(unpacked, "Certificate")


def accept(settings: Settings, certificate: Certificate, asked: Asked) -> Presented:
    """Judge a non-empty certificate list by the configured policy.

    Raises:
        CertificateError: refused; its alert tells the peer what was wrong.
        HandshakeError: illegal_parameter, more than one raw public key.
    """
    entries = certificate.entries
    size = sum(len(entry.der) for entry in entries)
    if size > settings.max_chain_bytes:
        raise CertificateError(
            CertificateFailure.REJECTED,
            f"the certificate list is longer than {settings.max_chain_bytes} bytes",
            Alert.BAD_CERTIFICATE,
            "certificate_chain_bytes",
        )
    verified = settings.verify_mode != VERIFY_NONE
    if asked.kind is CertificateType.RAW_PUBLIC_KEY:
        if len(entries) != 1:
            # RFC 8446 section 4.4.2 [7250-1]
            raise HandshakeError(
                Alert.ILLEGAL_PARAMETER, f"{len(entries)} raw public keys where one may be shown"
            )
        raw = RawPublicKey(entries[0].der)
        if verified:
            settings.verifier.verify(raw, purpose=asked.shown_by, name=None)
        return Presented(raw)
    chain = tuple(entry.der for entry in entries)
    staples = {
        entry.der: staple
        for entry in entries
        if (staple := entry.extensions.get(ext.CERTIFICATE_STATUS)) is not None
    }
    if verified:
        peer = settings.verifier.verify(chain, purpose=asked.shown_by, name=asked.name)
        settings.verifier.judge_staples(peer, staples, settings.staple_mode)
    else:
        # RFC 8446 section 4.4.2.2 [8446-AUTH-1]: whoever it is, a key that must not sign proves nothing.
        check_may_sign(chain[0])
    # RFC 6962 section 3.3: about the leaf, and nothing said beside another certificate counts.
    timestamps = entries[0].extensions.get(ext.CERTIFICATE_TIMESTAMPS) or ()
    return Presented(PeerCertificate(chain, staples.get(chain[0], b""), timestamps))
