"""Signatures inside chains, as signature_algorithms_cert speaks of them (RFC 8446 section 4.2.3).

Which of our chains a peer can check depends on how its certificates were signed, not on the leaf's
key alone; and what we can check in a peer's chain is not what we take in CertificateVerify.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PSS
from cryptography.x509.oid import SignatureAlgorithmOID

from sealwire.crypto.keys import DECODE_ERRORS
from sealwire.crypto.signatures import SignatureScheme

__all__ = ["VERIFIABLE", "accepted_in_chains", "issuers_of", "signatures_of"]

_S = SignatureScheme

#: What path validation here can check in a chain.
VERIFIABLE: tuple[SignatureScheme, ...] = (
    _S.ECDSA_SECP256R1_SHA256,
    _S.ECDSA_SECP384R1_SHA384,
    _S.ECDSA_SECP521R1_SHA512,
    _S.RSA_PSS_RSAE_SHA256,
    _S.RSA_PSS_RSAE_SHA384,
    _S.RSA_PSS_RSAE_SHA512,
    _S.RSA_PKCS1_SHA256,
    _S.RSA_PKCS1_SHA384,
    _S.RSA_PKCS1_SHA512,
)

# In certificates an ECDSA scheme binds no curve: issuers sign with the hash they like.
_BY_OID: dict[x509.ObjectIdentifier, frozenset[SignatureScheme]] = {
    SignatureAlgorithmOID.RSA_WITH_SHA1: frozenset({_S.RSA_PKCS1_SHA1}),
    SignatureAlgorithmOID.RSA_WITH_SHA256: frozenset({_S.RSA_PKCS1_SHA256}),
    SignatureAlgorithmOID.RSA_WITH_SHA384: frozenset({_S.RSA_PKCS1_SHA384}),
    SignatureAlgorithmOID.RSA_WITH_SHA512: frozenset({_S.RSA_PKCS1_SHA512}),
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: frozenset({_S.ECDSA_SHA1}),
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: frozenset({_S.ECDSA_SECP256R1_SHA256}),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: frozenset({_S.ECDSA_SECP384R1_SHA384}),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: frozenset({_S.ECDSA_SECP521R1_SHA512}),
    SignatureAlgorithmOID.ED25519: frozenset({_S.ED25519}),
    SignatureAlgorithmOID.ED448: frozenset({_S.ED448}),
    x509.ObjectIdentifier("2.16.840.1.101.3.4.3.17"): frozenset({_S.MLDSA44}),
    x509.ObjectIdentifier("2.16.840.1.101.3.4.3.18"): frozenset({_S.MLDSA65}),
    x509.ObjectIdentifier("2.16.840.1.101.3.4.3.19"): frozenset({_S.MLDSA87}),
}
# Which of the two depends on the issuer's key, which need not be in the chain; peers that take one take both.
_PSS_BY_HASH: dict[str, frozenset[SignatureScheme]] = {
    "sha256": frozenset({_S.RSA_PSS_RSAE_SHA256, _S.RSA_PSS_PSS_SHA256}),
    "sha384": frozenset({_S.RSA_PSS_RSAE_SHA384, _S.RSA_PSS_PSS_SHA384}),
    "sha512": frozenset({_S.RSA_PSS_RSAE_SHA512, _S.RSA_PSS_PSS_SHA512}),
}


def signatures_of(chain: Sequence[x509.Certificate]) -> tuple[frozenset[SignatureScheme], ...]:
    """For each certificate of `chain` the schemes of which a peer must know one to check its signature.

    RFC 8446 section 4.4.2.2: nobody checks what a certificate says of itself, so self-signed ones have none.
    """
    return tuple(_signature_of(one) for one in chain if not _self_issued(one))


def issuers_of(chain: Sequence[x509.Certificate]) -> frozenset[bytes]:
    """DER names of those who issued the certificates of `chain`."""
    try:
        return frozenset(one.issuer.public_bytes() for one in chain)
    except DECODE_ERRORS:
        return frozenset()


def _self_issued(certificate: x509.Certificate) -> bool:
    try:
        return certificate.subject == certificate.issuer
    except DECODE_ERRORS:
        return False


def _signature_of(certificate: x509.Certificate) -> frozenset[SignatureScheme]:
    try:
        if certificate.signature_algorithm_oid != SignatureAlgorithmOID.RSASSA_PSS:
            return _BY_OID.get(certificate.signature_algorithm_oid, frozenset())
        parameters, hash_ = certificate.signature_algorithm_parameters, certificate.signature_hash_algorithm
        if isinstance(parameters, PSS) and hash_ is not None:
            return _PSS_BY_HASH.get(hash_.name, frozenset())
    except DECODE_ERRORS:
        pass
    return frozenset()


def accepted_in_chains(schemes: Sequence[SignatureScheme]) -> tuple[SignatureScheme, ...]:
    """What signature_algorithms_cert says beside `schemes` in signature_algorithms; () to leave it out.

    It only ever adds: some peers apply the list to self-signed certificates, too, which need no check.
    """
    more = tuple(one for one in VERIFIABLE if one not in schemes)
    return (*schemes, *more) if more else ()
