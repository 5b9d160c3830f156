"""Why a certificate chain was refused: one class of failure and one sentence.

The verifier of ``cryptography`` says no in prose that may change, and part of it is the peer's own
text.  So after a no, and only then, the chain is looked at again: walk from the leaf to a root by
names and signatures (bounded), then ask of that path, in this order: is there one, is it in time,
may it be used for this, is the name right, are its algorithms and its shape what the library takes.
Nothing here accepts a chain; a wrong diagnosis gives a wrong message, never a wrong verdict.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import PublicKeyAlgorithmOID

from sealwire.crypto.keys import DECODE_ERRORS
from sealwire.crypto.names import IPAddress, certificate_names, matches
from sealwire.crypto.purpose import Purpose
from sealwire.errors import CertificateError, CertificateFailure

__all__ = ["Case", "diagnose", "extension", "wrong_name"]

# Signatures checked while looking for the path; more can only come from a chain made to be dear.
_SIGNATURE_CHECKS = 24
_LIBRARY_WORDS_MAXIMUM = 200

_E = TypeVar("_E", bound=x509.ExtensionType)

_LEGACY_HINT = "; ask its issuer for a current profile, or set allow_legacy_certificates"


@dataclass(frozen=True, slots=True)
class Case:
    """What was judged, and by which rules."""

    leaf: x509.Certificate
    #: Other certificates of the peer whose keys are usable.
    intermediates: Sequence[x509.Certificate]
    #: Other certificates of the peer that were left out because their keys are not.
    unusable: Sequence[x509.Certificate]
    roots: Callable[[x509.Name], Sequence[x509.Certificate]]
    is_root: Callable[[x509.Certificate], bool]
    purpose: Purpose
    reference: str | IPAddress | None
    now: datetime.datetime
    legacy: bool


@dataclass(slots=True)
class _Walk:
    """A bounded search for the best path from the leaf; `path` is the longest, or the one with a root."""

    case: Case
    path: list[x509.Certificate] = field(default_factory=list)
    rooted: bool = False
    forged: bool = False
    unsupported: bool = False
    checks: int = _SIGNATURE_CHECKS

    def run(self) -> None:
        self._extend([self.case.leaf])

    def _extend(self, path: list[x509.Certificate]) -> bool:
        last = path[-1]
        if len(path) > len(self.path):
            self.path = list(path)
        if self.case.is_root(last):
            self.path, self.rooted = list(path), True
            return True
        issuer = last.issuer
        known = [*self.case.roots(issuer), *(c for c in self.case.intermediates if c.subject == issuer)]
        for candidate in known:
            if candidate in path or self.checks == 0:
                continue
            self.checks -= 1
            if self._signed(last, candidate) and self._extend([*path, candidate]):
                return True
        if any(c.subject == issuer for c in self.case.unusable):
            self.unsupported = True
        return False

    def _signed(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        try:
            certificate.verify_directly_issued_by(issuer)
        except InvalidSignature:
            self.forged = True
            return False
        except (UnsupportedAlgorithm, TypeError):
            self.unsupported = True
            return False
        except ValueError:
            # The two name different algorithms, or the issuer's key does not decode.
            self.forged = True
            return False
        return True


def diagnose(case: Case, words: str) -> CertificateError:
    """The error for `case`, which the library refused with `words`."""
    try:
        walk = _Walk(case)
        walk.run()
        return (
            _untrusted(walk)
            or _time(walk.path, case.now)
            or _usage(walk.path, case)
            or _name(case)
            or _algorithms(walk.path)
            or _profile(walk.path, case)
            or CertificateError(CertificateFailure.REJECTED, f"the certificate was refused: {_clean(words)}")
        )
    except DECODE_ERRORS:
        return CertificateError(CertificateFailure.MALFORMED, "a certificate of the chain cannot be decoded")


def _untrusted(walk: _Walk) -> CertificateError | None:
    if walk.rooted:
        return None
    if walk.unsupported:
        return CertificateError(
            CertificateFailure.UNSUPPORTED_ALGORITHM,
            "a certificate of the chain uses an unsupported algorithm",
        )
    if walk.forged:
        return CertificateError(
            CertificateFailure.UNKNOWN_ISSUER,
            "the certificate names a known issuer that did not sign it: another has the same name",
        )
    last = walk.path[-1]
    if last.subject == last.issuer:
        what = "the certificate is self-signed" if len(walk.path) == 1 else "the chain ends in a root"
        return CertificateError(CertificateFailure.UNKNOWN_ISSUER, f"{what} that is not trusted")
    return CertificateError(
        CertificateFailure.UNKNOWN_ISSUER,
        "no trusted issuer was found: trust its root, or have the peer send its intermediate certificates",
    )


def _time(path: Sequence[x509.Certificate], now: datetime.datetime) -> CertificateError | None:
    for position, certificate in enumerate(path):
        which = "the certificate" if position == 0 else "an issuer's certificate"
        if now > certificate.not_valid_after_utc:
            when = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
            return CertificateError(CertificateFailure.EXPIRED, f"{which} expired at {when}")
        if now < certificate.not_valid_before_utc:
            when = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC"
            return CertificateError(CertificateFailure.NOT_YET_VALID, f"{which} is not valid before {when}")
    return None


def _usage(path: Sequence[x509.Certificate], case: Case) -> CertificateError | None:
    wanted = case.purpose.key_usage
    for position, certificate in enumerate(path):
        allowed = extension(certificate, x509.ExtendedKeyUsage)
        if allowed is not None and wanted not in allowed:
            who = "the certificate" if position == 0 else "an issuer"
            return _bad_usage(f"{who} may not be used for a {case.purpose.value} (extended key usage)")
    for below, certificate in enumerate(path[1:]):
        constraints = extension(certificate, x509.BasicConstraints)
        # The library wants basicConstraints of roots as well, in every profile.
        if constraints is None or not constraints.ca:
            return _bad_usage("a certificate was used as an issuer that is no CA")
        if constraints.path_length is not None and below > constraints.path_length:
            return _bad_usage("an issuer allows fewer certificates below it than there are")
        usage = extension(certificate, x509.KeyUsage)
        if usage is not None and not usage.key_cert_sign:
            return _bad_usage("an issuer's key may not sign certificates (key usage)")
    constraints = extension(path[0], x509.BasicConstraints)
    if constraints is not None and constraints.ca and not case.legacy:
        return _bad_usage("the certificate is a CA's, which may not be used as a peer's" + _LEGACY_HINT)
    return None


def _bad_usage(reason: str) -> CertificateError:
    return CertificateError(CertificateFailure.BAD_USAGE, reason)


def _name(case: Case) -> CertificateError | None:
    if case.reference is None:
        return None
    if extension(case.leaf, x509.SubjectAlternativeName) is None:
        return None  # _profile or the common name decides
    names = certificate_names(case.leaf)
    if any(matches(name, case.reference) for name in names):
        return None
    return wrong_name(case.reference, names)


def wrong_name(reference: str | IPAddress, names: Sequence[str | IPAddress]) -> CertificateError:
    """The error for a certificate of other names than the one asked for."""
    shown = ", ".join(_clean(str(name)) for name in names[:4]) or "no host name"
    more = ", ..." if len(names) > 4 else ""
    return CertificateError(
        CertificateFailure.WRONG_NAME, f"the certificate is not for {reference} but for {shown}{more}"
    )


def _algorithms(path: Sequence[x509.Certificate]) -> CertificateError | None:
    for position, certificate in enumerate(path):
        last = position == len(path) - 1
        try:
            hash_ = certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            hash_ = None
        # A root's own signature is not checked by anybody.
        if not last and isinstance(hash_, hashes.SHA1 | hashes.MD5 | hashes.SHA224):
            return _bad_algorithm(f"a certificate is signed with {hash_.name}")
        if position == 0:
            continue
        key = certificate.public_key()
        if isinstance(key, RSAPublicKey):
            if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
                return _bad_algorithm("an issuer has an RSASSA-PSS key, which the verifier does not support")
            if key.key_size < 2048:
                return _bad_algorithm(f"an issuer's RSA key has only {key.key_size} bits")
        elif not isinstance(key, ec.EllipticCurvePublicKey):
            return _bad_algorithm(
                "an issuer's key is neither RSA nor ECDSA, which the verifier does not support"
            )
    return None


def _bad_algorithm(reason: str) -> CertificateError:
    return CertificateError(CertificateFailure.UNSUPPORTED_ALGORITHM, reason)


def _profile(path: Sequence[x509.Certificate], case: Case) -> CertificateError | None:
    hint = "" if case.legacy else _LEGACY_HINT
    if extension(path[0], x509.SubjectAlternativeName) is None:
        return _rejected("the certificate has no subjectAltName" + hint)
    if case.is_root(path[0]):
        return None
    for position, certificate in enumerate(path):
        who = "the certificate" if position == 0 else "an issuer's certificate"
        if not case.is_root(certificate) and extension(certificate, x509.AuthorityKeyIdentifier) is None:
            return _rejected(f"{who} has no authorityKeyIdentifier" + hint)
        if position and extension(certificate, x509.KeyUsage) is None:
            return _rejected(f"{who} has no keyUsage" + hint)
        if certificate.version is not x509.Version.v3:
            return _rejected(f"{who} is not of X.509 version 3")
    return None


def _rejected(reason: str) -> CertificateError:
    return CertificateError(CertificateFailure.REJECTED, reason)


def extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    """The extension of class `kind`, None without it."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _clean(words: str) -> str:
    # The library quotes the certificate's subject, which is the peer's text; it stays out of our messages.
    words = words.removeprefix("validation failed: ").partition(" (encountered")[0].partition("<")[0]
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in words)[:_LIBRARY_WORDS_MAXIMUM]
