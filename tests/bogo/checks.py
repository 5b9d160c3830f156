"""The assertions a test asks of the shim itself: each ``-expect-...`` flag."""

from __future__ import annotations

from sealwire.crypto.transparency import encode_timestamps
from sealwire.tls13.contract import Session
from sealwire.tls13.values import CertificateType
from sealwire.wire import Writer
from tests.bogo.flags import Flags

_VERSIONS = {0x0304: "TLS 1.3", 0xFEFC: "DTLS 1.3"}


class Unexpected(Exception):
    """What a test expects is not so."""


def _same(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise Unexpected(f"{what} is {got!r} and not {wanted!r}")


def handshake(flags: Flags, session: Session, *, is_resume: bool, offered_alpn: bytes | None) -> None:
    """What must hold once the handshake is complete."""
    server = "-server" in flags
    _same("resumed", session.resumed, is_resume and "-expect-session-miss" not in flags)
    alpn = flags.octets("-select-alpn" if server else "-expect-alpn") or None
    _same("application protocol", session.alpn, alpn)
    if "-expect-version" in flags:
        _same(
            "version",
            session.version,
            {0x0304: "TLS 1.3", 0xFEFC: "DTLS 1.3"}.get(flags.number("-expect-version")),
        )
    if "-expect-server-name" in flags:
        _same("server name", session.server_name, flags.octets("-expect-server-name").decode())
    # A resumed session has no signature of its own.
    if "-expect-peer-signature-algorithm" in flags and not session.resumed:
        _same("peer's signature", session.peer_scheme, flags.number("-expect-peer-signature-algorithm"))
    if "-expect-curve-id" in flags:
        _same("group", session.group, flags.number("-expect-curve-id"))
    for flag in ("-expect-cipher", "-expect-cipher-aes"):
        if flag in flags:
            _same("suite", session.suite.suite, flags.number(flag))
    if "-expect-hrr" in flags or "-expect-no-hrr" in flags:
        _same("retried", session.retried, "-expect-hrr" in flags)
    if "-expect-advertised-alpn" in flags:
        _same("offered protocols", offered_alpn, flags.octets("-expect-advertised-alpn"))
    if "-expect-no-peer-cert" in flags:
        _same("peer", session.peer, None)
    elif session.peer is None and (not server or "-require-any-client-certificate" in flags):
        raise Unexpected("the peer showed no certificate")
    if "-expect-peer-certificate-type" in flags:
        kind = CertificateType.X509 if session.peer_raw_public_key is None else CertificateType.RAW_PUBLIC_KEY
        _same("peer's certificate type", kind, flags.number("-expect-peer-certificate-type"))
    if "-expect-peer-rpk-sha256" in flags:
        key = session.peer_raw_public_key
        _same("raw key", key and key.fingerprint, flags.octets("-expect-peer-rpk-sha256"))
    if "-expect-ticket-age-skew" in flags and session.resumed:
        # Where the clock stands still while nobody waits, the skew is exact but for a ticket's milliseconds.
        skew = session.ticket_age_skew
        _same("ticket's age", skew and round(skew), flags.number("-expect-ticket-age-skew"))
    if "-expect-ocsp-response" in flags and not session.resumed:
        certificate = session.peer_certificate
        _same("staple", certificate and certificate.ocsp_response, flags.octets("-expect-ocsp-response"))
    if "-expect-signed-cert-timestamps" in flags:
        writer = Writer()
        encode_timestamps(writer, session.peer_certificate.timestamps if session.peer_certificate else ())
        _same("timestamps", writer.finish(), flags.octets("-expect-signed-cert-timestamps"))
