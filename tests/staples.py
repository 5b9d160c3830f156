"""OCSP responses for tests: good ones, and ones that are wrong in one way."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from sealwire.crypto.keys import PlainPrivateKey, PrivateKey

GOOD = ocsp.OCSPCertStatus.GOOD
REVOKED = ocsp.OCSPCertStatus.REVOKED
UNKNOWN = ocsp.OCSPCertStatus.UNKNOWN
BY_HASH = ocsp.OCSPResponderEncoding.HASH
BY_NAME = ocsp.OCSPResponderEncoding.NAME


def staple(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    key: PrivateKey,
    *,
    now: datetime.datetime | None = None,
    status: ocsp.OCSPCertStatus = GOOD,
    reason: x509.ReasonFlags | None = None,
    hours: tuple[float, float | None] = (-1, 24),
    responder: x509.Certificate | None = None,
    encoding: ocsp.OCSPResponderEncoding = BY_HASH,
    enclosed: Sequence[x509.Certificate] = (),
    hashed_with: hashes.HashAlgorithm | None = None,
    signed_with: hashes.HashAlgorithm | None = None,
    named_issuer: x509.Certificate | None = None,
) -> bytes:
    """DER that says `status` of `certificate`, signed with `key`; `hours` are counted from `now`.

    Args:
        responder: who signs, if it is not `issuer`.
        named_issuer: whom the entry names as issuer, if not `issuer`.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    begins = now + datetime.timedelta(hours=hours[0])
    ends = None if hours[1] is None else now + datetime.timedelta(hours=hours[1])
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            certificate,
            named_issuer or issuer,
            hashed_with or hashes.SHA1(),
            status,
            begins,
            ends,
            begins if status is REVOKED else None,
            reason,
        )
        .responder_id(encoding, responder or issuer)
    )
    if enclosed:
        builder = builder.certificates(list(enclosed))
    algorithm = None if isinstance(key, PlainPrivateKey) else signed_with or hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def unsuccessful(status: ocsp.OCSPResponseStatus) -> bytes:
    """DER of a responder that says nothing."""
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)
