"""Certificates of peers: decoding them, showing them, and deciding whether to believe them.

Path building and the rules of the web PKI come from ``cryptography.x509.verification``.  Around it:
checks that come before (decoding, key kinds, bounds on what a stranger's keys may cost us), checks
that TLS adds (digitalSignature), and a diagnosis that turns its refusal into a CertificateFailure.

The library is strict on purpose, and some of its rules surprise outside the web: a leaf needs a
subjectAltName and an authorityKeyIdentifier, must not be a CA, and an issuer needs keyUsage.
``allow_legacy_profile`` relaxes exactly these.  What no option brings back: issuers with Ed25519 or
RSASSA-PSS keys, SHA-1 signatures, version 1 certificates, revocation.  docs/certificates.md has it all.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import overload

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from sealwire.crypto import ocsp
from sealwire.crypto.accepted import AcceptedChains, Question
from sealwire.crypto.credentials import Credential, load_credential
from sealwire.crypto.diagnosis import Case, diagnose, extension, wrong_name
from sealwire.crypto.keys import (
    DECODE_ERRORS,
    PublicKey,
    certificate_public_key,
    load_certificate,
    load_root,
    malformed,
)
from sealwire.crypto.names import IPAddress, certificate_names, common_name, matches, reference_name
from sealwire.crypto.peers import PeerCertificate
from sealwire.crypto.pins import Pins
from sealwire.crypto.purpose import Purpose
from sealwire.crypto.rawkeys import RawPublicKey
from sealwire.errors import Alert, CertificateError, CertificateFailure, ConfigurationError

__all__ = [
    "CertificateVerifier",
    "Credential",
    "PeerCertificate",
    "Purpose",
    "RawPublicKey",
    "VerifiedKey",
    "VerifiedPeer",
    "check_may_sign",
    "leaf_public_key",
    "load_credential",
]

# Longest list looked at, and so the bound on decoding a stranger's certificates.
_CHAIN_MAXIMUM_LENGTH = 10
# As many issuers above a leaf as the library follows (its default max_chain_depth), and one to fail on.
_PATH_MAXIMUM_STEPS = 9
# A straight chain costs one signature per certificate, a cross-signed one two or three; a signature costs
# up to a millisecond (P-521), so a stranger gets less than a twentieth of a second of us.
_SIGNATURE_CHECKS_MAXIMUM = 40


# A peer that comes again shows the same certificate; the bytes alone decide what the key is.
@lru_cache(maxsize=64)
# A key that is known need not be decoded again; a chain is 48 KiB at most, by default.
@lru_cache(maxsize=16)
def leaf_public_key(der: bytes) -> PublicKey:
    """The key of an end-entity certificate, for checking CertificateVerify.

    Raises:
        CertificateError: MALFORMED, or UNSUPPORTED_ALGORITHM for a key of a kind, curve or size TLS 1.3
            does not use here.
    """
    return certificate_public_key(load_certificate(der))


def check_may_sign(der: bytes) -> None:
    """That the key of an end-entity certificate may sign handshakes, if its keyUsage says anything.

    It holds also where nobody asks whom the certificate is from (RFC 8446 section 4.4.2.2).

    Raises:
        CertificateError: BAD_USAGE; MALFORMED for a certificate whose extensions cannot be decoded.
    """
    try:
        _check_digital_signature(load_certificate(der))
    except DECODE_ERRORS:
        raise malformed("a certificate's extensions cannot be decoded") from None


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """Proof that a chain was accepted: made by :meth:`CertificateVerifier.verify` alone.

    Attributes:
        certificate: what the peer showed.
        path: the DER certificates relied upon, leaf first, root last; the leaf alone if it was pinned.
        purpose: for which side the leaf was accepted.
        name: the name it was accepted for, None if none was asked.
        issued: the certificates of `path`, decoded; empty where none was relied upon for another.
    """

    certificate: PeerCertificate
    path: tuple[bytes, ...]
    purpose: Purpose
    name: str | None
    issued: tuple[x509.Certificate, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """Proof that a raw public key is trusted: made by :meth:`CertificateVerifier.verify` alone."""

    key: RawPublicKey
    purpose: Purpose


class CertificateVerifier:
    """Judges what peers show against what was configured.  Immutable, so one serves all connections.

    Args:
        roots: trusted certificates, DER; a leaf listed here is trusted as itself.
        clock: the time to judge by, timezone-aware; the system's by default.
        allow_legacy_profile: accept leaves without subjectAltName (the common name then stands for the
            host name) or authorityKeyIdentifier, leaves that are CAs, issuers without keyUsage.
        max_chain_length: longest certificate list accepted from a peer.
        pinned_fingerprints: where there are any, they decide about certificates in place of `roots`: no
            path, name or date is looked at (:class:`~sealwire.crypto.pins.Pins` has the forms).
        raw_public_keys: trusted raw public keys, DER SubjectPublicKeyInfo (RFC 7250); no other is accepted.

    Raises:
        ConfigurationError: a root that cannot be decoded, a fingerprint that is none.
    """

    __slots__ = (
        "_accepted",
        "_authorities",
        "_by_subject",
        "_clock",
        "_legacy",
        "_max_chain_length",
        "_pins",
        "_raw_keys",
        "_roots",
        "_store",
    )

    def __init__(
        self,
        roots: Sequence[bytes],
        *,
        clock: Callable[[], datetime.datetime] = _utc_now,
        allow_legacy_profile: bool = False,
        max_chain_length: int = _CHAIN_MAXIMUM_LENGTH,
        pinned_fingerprints: Iterable[str] = (),
        raw_public_keys: Iterable[bytes] = (),
    ) -> None:
        by_subject: dict[x509.Name, list[x509.Certificate]] = {}
        certificates = []
        for der in dict.fromkeys(roots):
            try:
                certificate = load_root(der)
                by_subject.setdefault(certificate.subject, []).append(certificate)
            except DECODE_ERRORS:
                raise ConfigurationError(
                    "a trusted certificate cannot be decoded: remove or replace it"
                ) from None
            certificates.append(certificate)
        self._roots = frozenset(certificates)
        self._authorities = tuple(dict.fromkeys(one.subject.public_bytes() for one in certificates))
        self._by_subject = by_subject
        # An empty Store is refused by the library; None means that nobody is trusted.
        self._store = Store(certificates) if certificates else None
        self._clock = clock
        self._legacy = allow_legacy_profile
        self._max_chain_length = max_chain_length
        self._pins = Pins(pinned_fingerprints)
        self._raw_keys = frozenset(raw_public_keys)
        self._accepted = AcceptedChains()

    @property
    def accepts_raw_public_keys(self) -> bool:
        """Whether there is a raw public key that would be accepted, so that asking for one makes sense."""
        return bool(self._raw_keys)

    @property
    def accepts_certificates(self) -> bool:
        """Whether there is any certificate that would be accepted: an authority, or a pin, is known."""
        return self._store is not None or len(self._pins) > 0

    def authorities(self) -> tuple[bytes, ...]:
        """DER names of the trusted authorities, as certificate_authorities has them; none with pins."""
        return () if self._pins else self._authorities

    def within(self, max_chain_length: int) -> CertificateVerifier:
        """The same, for lists of at most `max_chain_length` certificates."""
        if max_chain_length == self._max_chain_length:
            return self
        other = copy.copy(self)
        other._max_chain_length = max_chain_length
        return other

    def afresh(self) -> CertificateVerifier:
        """The same, with no chain remembered: each is new to it once more."""
        other = copy.copy(self)
        other._accepted = AcceptedChains()
        return other

    def judge_staples(
        self, peer: VerifiedPeer, staples: Mapping[bytes, bytes], mode: ocsp.StapleMode
    ) -> None:
        """Look at the OCSP responses that came with a chain this verifier accepted.

        Judged are the certificates that have an issuer in the path.  One that is trusted by itself, as a
        pinned one, answers to nobody, and needs no staple.

        Args:
            staples: DER OCSPResponse by DER certificate; those of certificates not relied upon are ignored.
            mode: whether the leaf must have one.

        Raises:
            CertificateError: REVOKED, or REJECTED with bad_certificate_status_response.
        """
        path = peer.issued
        if len(path) < 2:
            return
        if staples:
            now = self._clock()
            for der, certificate, issuer in zip(peer.path, path, path[1:], strict=False):
                staple = staples.get(der)
                if staple is not None:
                    ocsp.judge(staple, certificate, issuer, now)
        if peer.path[0] in staples:
            return
        if mode is ocsp.StapleMode.REQUIRED:
            raise ocsp.missing("a response is required here")
        if mode is ocsp.StapleMode.OPTIONAL and ocsp.must_staple(path[0]):
            # RFC 7633 section 4.2.3: we asked, so a server that has the certificate must have answered.
            raise ocsp.missing("it says that it always has one")

    @overload
    def verify(self, shown: RawPublicKey, *, purpose: Purpose, name: str | None) -> VerifiedKey: ...

    @overload
    def verify(self, shown: Sequence[bytes], *, purpose: Purpose, name: str | None) -> VerifiedPeer: ...

    def verify(
        self, shown: Sequence[bytes] | RawPublicKey, *, purpose: Purpose, name: str | None
    ) -> VerifiedPeer | VerifiedKey:
        """Accept or refuse what a peer shows; that it holds the key is another matter [8446-AUTH-5].

        Args:
            shown: DER certificates, leaf first; the others may be in any order, and some may not belong.  Or
                a raw public key.
            purpose: which side the peer is.
            name: host name or IP address the leaf must be for; None leaves the name unchecked.  Pins and
                raw public keys stand for the peer themselves, so they have no name.

        Raises:
            CertificateError: refused, and why.  Nothing else, for any bytes.
        """
        if isinstance(shown, RawPublicKey):
            return self._verify_key(shown, purpose)
        return self._verify_chain(shown, purpose, name)

    def _verify_key(self, shown: RawPublicKey, purpose: Purpose) -> VerifiedKey:
        # RFC 7250 section 4.2 [7250-1]: without a binding known from elsewhere a raw key proves nothing, so
        # one that is not listed is refused (what CVE-2024-12797 was about).
        if shown.spki not in self._raw_keys:
            raise CertificateError(
                CertificateFailure.REJECTED, f"the peer's raw public key is not among the trusted ({shown!r})"
            )
        _ = shown.key
        return VerifiedKey(shown, purpose)

    def _verify_pinned(self, chain: Sequence[bytes], purpose: Purpose, name: str | None) -> VerifiedPeer:
        if chain[0] not in self._pins:
            # RFC 8122 section 6.2: the alert for a certificate that does not match its fingerprint.
            raise CertificateError(
                CertificateFailure.REJECTED,
                "the fingerprint of the peer's certificate is not among the pinned",
                Alert.BAD_CERTIFICATE,
            )
        certificate_public_key(load_certificate(chain[0]))
        check_may_sign(chain[0])
        return VerifiedPeer(PeerCertificate(chain), (chain[0],), purpose, name)

    def _verify_chain(self, chain: Sequence[bytes], purpose: Purpose, name: str | None) -> VerifiedPeer:
        if not chain:
            raise CertificateError(CertificateFailure.MISSING, "the peer showed no certificate")
        if len(chain) > self._max_chain_length:
            raise CertificateError(
                CertificateFailure.REJECTED,
                f"the peer's list has {len(chain)} certificates, more than {self._max_chain_length}",
                Alert.BAD_CERTIFICATE,
                "certificate_chain_length",
            )
        if self._pins:
            return self._verify_pinned(chain, purpose, name)
        now = self._clock()
        question = Question(tuple(chain), purpose, name, self._max_chain_length)
        accepted = self._accepted.find(question, now)
        if accepted is not None:
            return accepted
        reference = None if name is None else _reference(name)
        leaf = load_certificate(chain[0])
        certificate_public_key(leaf)
        usable: list[x509.Certificate] = []
        unusable: list[x509.Certificate] = []
        # The leaf, and duplicates, add nothing to a path but cost.
        for der in dict.fromkeys(chain[1:]):
            if der == chain[0]:
                continue
            other = load_certificate(der)
            try:
                certificate_public_key(other)
                usable.append(other)
            except CertificateError:
                # A stray certificate of an odd kind must not spoil a chain that needs it not.
                unusable.append(other)
        try:
            case = Case(
                leaf=leaf,
                intermediates=usable,
                unusable=unusable,
                roots=lambda subject: self._by_subject.get(subject, ()),
                is_root=lambda certificate: certificate in self._roots,
                purpose=purpose,
                reference=reference,
                now=now,
                legacy=self._legacy,
            )
            _check_digital_signature(leaf)
            path = self._path(case)
            relied_upon = tuple(certificate.public_bytes(Encoding.DER) for certificate in path)
            peer = VerifiedPeer(PeerCertificate(chain), relied_upon, purpose, name, tuple(path))
            self._accepted.keep(question, peer)
        except CertificateError:
            raise
        except DECODE_ERRORS:
            raise malformed("a certificate of the chain cannot be decoded") from None
        return peer

    def _path(self, case: Case) -> list[x509.Certificate]:
        if self._store is None:
            raise CertificateError(
                CertificateFailure.UNKNOWN_ISSUER,
                "no certificate authority is trusted: load one to verify peers",
            )
        # Who takes longer lists means longer paths, too; the number of signatures stays bounded.
        longer = self._max_chain_length if self._max_chain_length > _CHAIN_MAXIMUM_LENGTH else 0
        steps = max(_PATH_MAXIMUM_STEPS, longer)
        builder = PolicyBuilder().store(self._store).time(case.now).max_chain_depth(steps - 1)
        others = _bounded(case, steps)
        try:
            if self._legacy or case.purpose is Purpose.CLIENT or case.reference is None:
                # The library's server verifier insists on a name to look for.  Its client verifier does
                # not; told which usage to ask for it serves all other cases, and the name is ours to check.
                ca, ee = _policies(case.purpose, self._legacy)
                builder = builder.extension_policies(ca_policy=ca, ee_policy=ee)
                path = builder.build_client_verifier().verify(case.leaf, others).chain
                _check_name(path, case.reference, self._legacy)
                return path
            return builder.build_server_verifier(_subject(case.reference)).verify(case.leaf, others)
        except VerificationError as error:
            raise diagnose(case, str(error)) from None


def _bounded(case: Case, steps: int) -> list[x509.Certificate]:
    """The peer's intermediates that may be searched for a path, once that search is known to be short.

    Certificates that issued one another in a ring make paths without number.  The library's own bound on
    that is younger than the oldest version we run on (48 searches for ever), so the possible steps are
    counted here first, by names alone, which costs nothing.

    Raises:
        CertificateError: the search would check more than _SIGNATURE_CHECKS_MAXIMUM signatures.
    """
    # A self-issued certificate leads back to where it stands.  A root among the peer's list is no loss,
    # the store has its own copy; what is lost is a certificate of a CA's new key under its old one.
    useful = [one for one in case.intermediates if one.subject != one.issuer]
    issuers = {
        one: [other for other in useful if other.subject == one.issuer] for one in (case.leaf, *useful)
    }
    arrivals = {case.leaf: 1}
    checks = 0
    for _ in range(steps):
        following: dict[x509.Certificate, int] = {}
        for certificate, ways in arrivals.items():
            checks += ways * (len(issuers[certificate]) + len(case.roots(certificate.issuer)))
            for issuer in issuers[certificate]:
                following[issuer] = following.get(issuer, 0) + ways
        if checks > _SIGNATURE_CHECKS_MAXIMUM:
            raise CertificateError(
                CertificateFailure.REJECTED,
                "the peer's certificates issued one another in more ways than are followed",
                Alert.BAD_CERTIFICATE,
            )
        arrivals = following
    return useful


def _reference(name: str) -> str | IPAddress:
    try:
        return reference_name(name)
    except ConfigurationError as error:
        raise CertificateError(CertificateFailure.WRONG_NAME, str(error)) from None


def _subject(reference: str | IPAddress) -> x509.DNSName | x509.IPAddress:
    return x509.DNSName(reference) if isinstance(reference, str) else x509.IPAddress(reference)


def _policies(purpose: Purpose, legacy: bool) -> tuple[ExtensionPolicy, ExtensionPolicy]:
    """What is asked of issuers' and of leaves' extensions: the library's rules, for `purpose`."""
    wanted = {purpose.key_usage}
    if legacy:
        wanted.add(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)

    def usage(policy: Policy, certificate: x509.Certificate, value: x509.ExtendedKeyUsage | None) -> None:
        if value is not None and wanted.isdisjoint(value):
            raise ValueError("required extended key usage is absent")

    def signs(policy: Policy, certificate: x509.Certificate, value: x509.KeyUsage | None) -> None:
        if value is not None and not value.key_cert_sign:
            raise ValueError("key usage does not allow signing certificates")

    agnostic = Criticality.AGNOSTIC
    ca = ExtensionPolicy.webpki_defaults_ca().may_be_present(x509.ExtendedKeyUsage, agnostic, usage)
    ee = ExtensionPolicy.webpki_defaults_ee().may_be_present(x509.ExtendedKeyUsage, agnostic, usage)
    if legacy:
        ca = ca.may_be_present(x509.AuthorityKeyIdentifier, agnostic, None)
        ca = ca.may_be_present(x509.KeyUsage, agnostic, signs)
        ee = ee.may_be_present(x509.AuthorityKeyIdentifier, agnostic, None)
        ee = ee.may_be_present(x509.SubjectAlternativeName, agnostic, None)
        ee = ee.may_be_present(x509.BasicConstraints, agnostic, None)
        ee = ee.may_be_present(x509.KeyUsage, agnostic, None)
    return ca, ee


def _check_digital_signature(leaf: x509.Certificate) -> None:
    # RFC 8446 section 4.4.2.2 [8446-AUTH-1]: the key must be allowed to sign, if keyUsage says anything.
    usage = extension(leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise CertificateError(
            CertificateFailure.BAD_USAGE, "the certificate's key may not sign handshakes (key usage)"
        )


def _check_name(path: Sequence[x509.Certificate], reference: str | IPAddress | None, legacy: bool) -> None:
    if reference is None:
        return
    leaf = path[0]
    names = certificate_names(leaf)
    if any(matches(name, reference) for name in names):
        return
    if legacy and extension(leaf, x509.SubjectAlternativeName) is None:
        # Name constraints bind subjectAltName only; under them a common name could be anybody's.
        constrained = any(extension(issuer, x509.NameConstraints) is not None for issuer in path[1:])
        cn = common_name(leaf)
        if not constrained and cn == str(reference):
            return
        names = (cn,) if cn else ()
    raise wrong_name(reference, names)
