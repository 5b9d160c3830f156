"""Stapled OCSP responses: what an issuer says today about a certificate it gave out (RFC 6960).

A staple comes from the peer, so nothing in it is believed before its signature is: by the issuer
itself, or by a responder whose certificate the issuer signed for that use alone.  It must speak of
this serial number of this issuer, and be neither from the future nor too old.  One that says
"revoked" ends the connection with certificate_revoked; one that cannot be relied on, with
bad_certificate_status_response (RFC 6066 section 8): a peer that sends rubbish has no excuse.

Nothing is fetched here, neither responses nor lists.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from sealwire.crypto.diagnosis import extension
from sealwire.crypto.keys import DECODE_ERRORS, PssPublicKey, PublicKey, certificate_public_key
from sealwire.errors import Alert, CertificateError, CertificateFailure, ConfigurationError

__all__ = ["StapleMode", "check_staple", "judge", "must_staple", "valid_until"]


class StapleMode(enum.IntEnum):
    """Whether a peer's certificate must come with an OCSP response (RFC 6066 section 8)."""

    #: Peers are not asked for one.
    NONE = 0
    #: Asked for, and judged if it comes; a certificate that says it needs one (RFC 7633) must have it.
    OPTIONAL = 1
    #: No connection without a good one.
    REQUIRED = 2


# Clocks differ; RFC 6960 leaves the tolerance to us.
_SKEW: Final = datetime.timedelta(minutes=5)
# RFC 6960 section 4.2.2.1: without nextUpdate newer information is always there, so an old one will not do.
_AGE_WITHOUT_NEXT_UPDATE: Final = datetime.timedelta(days=1)
# What a stranger's response may cost: entries looked at, and signatures checked.
_MOST_ENTRIES: Final = 64
_MOST_RESPONDERS: Final = 4

_RSA_OIDS: Final = {
    SignatureAlgorithmOID.RSA_WITH_SHA256: hashes.SHA256(),
    SignatureAlgorithmOID.RSA_WITH_SHA384: hashes.SHA384(),
    SignatureAlgorithmOID.RSA_WITH_SHA512: hashes.SHA512(),
}
_ECDSA_OIDS: Final = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: hashes.SHA256(),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: hashes.SHA384(),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: hashes.SHA512(),
}
_PSS_HASHES: Final = (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())


def judge(
    staple: bytes, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime.datetime
) -> None:
    """Return if `staple`, a DER OCSPResponse, says that `certificate` is good.

    Args:
        issuer: of `certificate`, from a path that was verified.
        now: with a time zone.

    Raises:
        CertificateError: REVOKED (certificate_revoked), else REJECTED (bad_certificate_status_response).
    """
    try:
        response = ocsp.load_der_ocsp_response(staple)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise _bad(f"is an error of the responder, {response.response_status.name.lower()}")
        # RFC 5280 section 4.2: what is critical and not understood is not relied on.
        if any(
            one.critical and isinstance(one.value, x509.UnrecognizedExtension) for one in response.extensions
        ):
            raise _bad("has a critical extension that is not known")
        entries = _entries(response, certificate, issuer)
        # Before anything is believed.
        _check_signer(response, issuer, now)
        _check_entries(entries, now)
    except DECODE_ERRORS:
        raise _bad("cannot be decoded") from None


# Of certificates that were accepted, and no more than that many are kept.
@lru_cache(maxsize=64)
def must_staple(certificate: x509.Certificate) -> bool:
    """Whether `certificate` says that it comes with a staple (RFC 7633)."""
    features = extension(certificate, x509.TLSFeature)
    return features is not None and x509.TLSFeatureType.status_request in features


def missing(why: str) -> CertificateError:
    """The error for a certificate without a staple where it must have one."""
    return CertificateError(
        CertificateFailure.REJECTED,
        f"the peer's certificate came without an OCSP response, and {why}",
        Alert.BAD_CERTIFICATE_STATUS_RESPONSE,
    )


def _bad(what: str) -> CertificateError:
    return CertificateError(
        CertificateFailure.REJECTED,
        f"the OCSP response stapled to the peer's certificate {what}",
        Alert.BAD_CERTIFICATE_STATUS_RESPONSE,
    )


def _entries(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate
) -> list[ocsp.OCSPSingleResponse]:
    """What the response says about `certificate`; at least one entry."""
    found = []
    for count, entry in enumerate(response.responses):
        if count == _MOST_ENTRIES:
            raise _bad(f"speaks of more than {_MOST_ENTRIES} certificates")
        if entry.serial_number != certificate.serial_number:
            continue
        # The library hashes the issuer's name and key as a CertID has them (RFC 6960 section 4.1.1).
        expected = (
            ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, entry.hash_algorithm).build()
        )
        if (entry.issuer_name_hash, entry.issuer_key_hash) == (
            expected.issuer_name_hash,
            expected.issuer_key_hash,
        ):
            found.append(entry)
    if not found:
        raise _bad("speaks of other certificates")
    return found


def _check_entries(entries: Sequence[ocsp.OCSPSingleResponse], now: datetime.datetime) -> None:
    # Signed by whom it must be: once revoked is revoked, whatever the age of the news.
    for entry in entries:
        if entry.certificate_status is ocsp.OCSPCertStatus.REVOKED:
            reason = entry.revocation_reason
            why = f" ({reason.value})" if reason is not None else ""
            raise CertificateError(
                CertificateFailure.REVOKED, f"the peer's certificate was revoked by its issuer{why}"
            )
    if any(entry.certificate_status is not ocsp.OCSPCertStatus.GOOD for entry in entries):
        raise _bad("does not know the certificate")
    for entry in entries:
        begins, ends = entry.this_update_utc, entry.next_update_utc
        if begins > now + _SKEW:
            raise _bad("is from the future")
        if ends is not None and ends < begins:
            raise _bad("ends before it begins")
        if (ends if ends is not None else begins + _AGE_WITHOUT_NEXT_UPDATE) < now - _SKEW:
            raise _bad("is too old")


def _check_signer(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime.datetime) -> None:
    """The response is signed by the issuer, or by somebody the issuer certified for that (4.2.2.2)."""
    if _is_responder(response, issuer) and _signed_by(response, issuer):
        return
    candidates = [one for one in response.certificates if _is_responder(response, one)]
    for one in candidates[:_MOST_RESPONDERS]:
        if _delegated(one, issuer, now) and _signed_by(response, one):
            return
    raise _bad("is not signed by the certificate's issuer, nor by a responder of it")


def _is_responder(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return response.responder_name == certificate.subject
    # RFC 6960 section 4.2.1: KeyHash is the SHA-1 of the key, as in this form of a SubjectKeyIdentifier.
    digest = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
    return digest == response.responder_key_hash


def _delegated(responder: x509.Certificate, issuer: x509.Certificate, now: datetime.datetime) -> bool:
    """RFC 6960 section 4.2.2.2: signed by the issuer itself, for this use, and in its time.

    A responder's own revocation is not looked for, as if it had id-pkix-ocsp-nocheck.
    """
    if not responder.not_valid_before_utc <= now <= responder.not_valid_after_utc:
        return False
    purposes = extension(responder, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
        return False
    usage = extension(responder, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        return False
    if not isinstance(responder.signature_hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        return False
    try:
        responder.verify_directly_issued_by(issuer)
    except (InvalidSignature, *DECODE_ERRORS):
        return False
    return True


def _signed_by(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    signature, content = response.signature, response.tbs_response_bytes
    algorithm = response.signature_algorithm_oid
    try:
        key: PublicKey = certificate_public_key(signer)
    except CertificateError:
        # Of a kind or size that costs us more than a stranger may.
        return False
    try:
        match key:
            case ec.EllipticCurvePublicKey() if algorithm in _ECDSA_OIDS:
                key.verify(signature, content, ec.ECDSA(_ECDSA_OIDS[algorithm]))
                return True
            case RSAPublicKey() if algorithm in _RSA_OIDS:
                key.verify(signature, content, PKCS1v15(), _RSA_OIDS[algorithm])
                return True
            case RSAPublicKey() if algorithm == SignatureAlgorithmOID.RSASSA_PSS:
                return _signed_with_pss(key, signature, content)
            case PssPublicKey() if algorithm == SignatureAlgorithmOID.RSASSA_PSS:
                return _signed_with_pss(key.rsa, signature, content)
            case Ed25519PublicKey() | Ed448PublicKey():
                key.verify(signature, content)
                return True
            case _:
                return False
    except InvalidSignature:
        return False


def _signed_with_pss(key: RSAPublicKey, signature: bytes, content: bytes) -> bool:
    # The library keeps the parameters to itself; these are the ones anybody uses (RFC 4055, RFC 8446).
    for hash_ in _PSS_HASHES:
        try:
            key.verify(signature, content, PSS(MGF1(hash_), hash_.digest_size), hash_)
        except InvalidSignature:
            continue
        return True
    return False


# --- our own staple -----------------------------------------------------------------------------------


def check_staple(staple: bytes, leaf: bytes) -> None:
    """ConfigurationError unless `staple` is a response about the certificate `leaf` (DER)."""
    try:
        response = ocsp.load_der_ocsp_response(staple)
        successful = response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
        serials = {entry.serial_number for entry in response.responses} if successful else set()
        serial = x509.load_der_x509_certificate(leaf).serial_number
    except DECODE_ERRORS:
        raise ConfigurationError(
            "the OCSP response cannot be decoded: pass DER, as `openssl ocsp -respout` writes it"
        ) from None
    if not successful:
        raise ConfigurationError("the OCSP response is an error of the responder: ask again")
    if serial not in serials:
        raise ConfigurationError("the OCSP response is about another certificate: pass this one's")


@lru_cache(maxsize=256)
def valid_until(staple: bytes) -> float:
    """Seconds since 1970 until which peers rely on a staple of ours; 0 for what is none.

    Without a nextUpdate it is a day from thisUpdate, as peers like us have it.
    """
    try:
        response = ocsp.load_der_ocsp_response(staple)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return 0.0
        return min(
            (
                entry.next_update_utc or entry.this_update_utc + _AGE_WITHOUT_NEXT_UPDATE
                for entry in response.responses
            ),
            default=datetime.datetime.fromtimestamp(0, datetime.UTC),
        ).timestamp()
    except DECODE_ERRORS:
        return 0.0
