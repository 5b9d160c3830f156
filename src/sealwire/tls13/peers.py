"""Who a peer was, as tickets remember it: certificates with their staple, a raw public key, or nobody.

Whoever was authenticated once is looked at again before a ticket is relied on: trust and time may
have changed since, and an OCSP response is good for its time only.
"""

from __future__ import annotations

from typing import Final

from sealwire.crypto.certificates import PeerCertificate, Purpose, RawPublicKey
from sealwire.crypto.transparency import encode_timestamps, read_timestamps
from sealwire.errors import CertificateError
from sealwire.tls13.contract import VERIFY_NONE, PeerIdentity, Settings
from sealwire.wire import Reader, Writer, decode_error

_NOBODY: Final = 0
_CERTIFICATES: Final = 1
_RAW_PUBLIC_KEY: Final = 2


def encoded_bytes(peer: PeerIdentity | None) -> int:
    """About how much room :func:`encode_peer` takes."""
    match peer:
        case PeerCertificate():
            return peer.size_bytes
        case RawPublicKey():
            return len(peer.spki)
        case None:
            return 0


def encode_peer(writer: Writer, peer: PeerIdentity | None) -> None:
    match peer:
        case PeerCertificate():
            writer.u8(_CERTIFICATES)
            with writer.length24():
                for der in peer.chain:
                    writer.vector24(der)
            writer.vector16(peer.ocsp_response)
            encode_timestamps(writer, peer.timestamps)
        case RawPublicKey():
            writer.u8(_RAW_PUBLIC_KEY)
            writer.vector24(peer.spki)
        case None:
            writer.u8(_NOBODY)


def decode_peer(reader: Reader) -> PeerIdentity | None:
    """What :func:`encode_peer` wrote; ProtocolError(decode_error) for anything else."""
    kind = reader.u8()
    if kind == _NOBODY:
        return None
    if kind == _RAW_PUBLIC_KEY:
        return RawPublicKey(reader.vector24(low=1))
    if kind != _CERTIFICATES:
        raise decode_error("remembered peer")
    block = reader.sub24()
    chain = []
    while block.remaining:
        chain.append(block.vector24(low=1))
    if not chain:
        raise decode_error("remembered peer")
    return PeerCertificate(chain, reader.vector16(), read_timestamps(reader))


def still_accepted(settings: Settings, peer: PeerIdentity | None, purpose: Purpose, name: str | None) -> bool:
    """Whether a peer accepted once is accepted now; nobody is, as there is nothing to look at."""
    if peer is None or settings.verify_mode == VERIFY_NONE:
        return True
    try:
        if isinstance(peer, RawPublicKey):
            # RFC 7250 section 4.2 [7250-1]: a key that was taken off the list is not trusted any longer.
            settings.verifier.verify(peer, purpose=purpose, name=None)
        else:
            verified = settings.verifier.verify(peer.chain, purpose=purpose, name=name)
            staples = {peer.chain[0]: peer.ocsp_response} if peer.ocsp_response else {}
            settings.verifier.judge_staples(verified, staples, settings.staple_mode)
    except CertificateError:
        return False
    return True
