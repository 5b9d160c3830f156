"""Which certificate is shown: what the peer can check, in handshake and chain, and whom it trusts."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS

from sealwire.context import PROTOCOL_CLIENT, Config, Context
from sealwire.crypto.chainsignatures import VERIFIABLE, accepted_in_chains, signatures_of
from sealwire.crypto.credentials import Credential
from sealwire.crypto.signatures import DEFAULT_SCHEMES, SignatureScheme, sign
from sealwire.tls13 import extensions as ext
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.messages import HandshakeType
from sealwire.tls13.presentation import Wishes, choose
from sealwire.tls13.values import CertificateType
from tests import certificates, configs
from tests.certificates import Kind
from tests.unit.crypto.authority import NOW, Issued, authority, issue, named, rsa_key
from tests.unit.tls13.engines import Pair, certificate_request, client_hello, each_flavor

_S = SignatureScheme
_KT = HandshakeType
P256, RSA, PKCS1, ED25519 = (
    _S.ECDSA_SECP256R1_SHA256,
    _S.RSA_PSS_RSAE_SHA256,
    _S.RSA_PKCS1_SHA256,
    _S.ED25519,
)
EC_ROOT, RSA_ROOT = authority("EC root"), authority("RSA root", key=rsa_key())
BY_EC = issue("a", EC_ROOT, names=["a.test"])
BY_RSA = issue("b", RSA_ROOT, names=["b.test"])
BY_BOTH = issue("c", authority("Middle", RSA_ROOT), names=["c.test"])


def credential(leaf: Issued, *above: Issued) -> Credential:
    chain = [leaf.der, *(one.der for one in above)]
    return Credential.from_callable(chain, lambda scheme, content: sign(leaf.key, scheme, content))


def config(*credentials: Credential) -> Config:
    context = Context(PROTOCOL_CLIENT)
    return replace(context.config(), credentials=credentials)


def wishes(
    schemes: Sequence[SignatureScheme],
    in_chains: Sequence[SignatureScheme] = (),
    authorities: Sequence[Issued] = (),
) -> Wishes:
    block = Extensions(Where.CERTIFICATE_REQUEST)
    block.add(ext.SIGNATURE_ALGORITHMS, tuple(schemes))
    if in_chains:
        block.add(ext.SIGNATURE_ALGORITHMS_CERT, tuple(in_chains))
    if authorities:
        names = tuple(one.certificate.subject.public_bytes() for one in authorities)
        block.add(ext.CERTIFICATE_AUTHORITIES, names)
    return Wishes.of(block, (CertificateType.X509,))


EC, RS = credential(BY_EC), credential(BY_RSA)


@pytest.mark.requirement("8446-AUTH-1")
def test_the_chain_counts_beside_the_key() -> None:
    ours = config(RS, EC)
    # Both sign with P-256; who cannot check RSA gets the one whose issuer did not use it.
    assert choose(ours, None, wishes([P256])) is EC
    assert choose(ours, None, wishes([P256, PKCS1])) is RS
    assert choose(ours, None, wishes([P256], [PKCS1])) is RS
    assert choose(ours, None, wishes([P256, PKCS1], [P256])) is EC
    # Every certificate of the chain that somebody else signed.
    both = config(credential(BY_BOTH, authority("x", RSA_ROOT)), EC)
    assert choose(both, None, wishes([P256])) is EC
    # None fits: RFC 8446 section 4.4.2.2 has us show one all the same.
    assert choose(config(RS), None, wishes([P256])) is RS
    assert choose(ours, None, wishes([ED25519])) is None


@pytest.mark.requirement("8446-AUTH-1")
def test_the_name_comes_first() -> None:
    ours = config(RS, EC)
    assert choose(ours, "b.test", wishes([P256])) is RS
    assert choose(ours, "a.test", wishes([P256, PKCS1])) is EC
    assert choose(ours, "other.test", wishes([P256])) is EC


@pytest.mark.requirement("8446-AUTH-7")
def test_authorities_decide_among_what_can_be_checked() -> None:
    ours = config(EC, RS)
    all_schemes = [P256, PKCS1]
    assert choose(ours, None, wishes(all_schemes)) is EC
    assert choose(ours, None, wishes(all_schemes, authorities=[RSA_ROOT])) is RS
    assert choose(ours, None, wishes(all_schemes, authorities=[EC_ROOT, RSA_ROOT])) is EC
    # An authority of whom we have nothing: the first, and the peer will say what it thinks of it.
    assert choose(ours, None, wishes(all_schemes, authorities=[BY_EC])) is EC
    # A chain the peer cannot check is no better for its authority.
    assert choose(ours, None, wishes([P256], authorities=[RSA_ROOT])) is EC
    # An authority above the issuer counts too, if the chain says so.
    below = credential(BY_BOTH, authority("Middle", RSA_ROOT))
    assert choose(config(EC, below), None, wishes(all_schemes, authorities=[RSA_ROOT])) is below


def test_signatures_of_every_kind() -> None:
    for key, hash_, expected in (
        (EC_ROOT, hashes.SHA256(), {P256}),
        (EC_ROOT, hashes.SHA384(), {_S.ECDSA_SECP384R1_SHA384}),
        (RSA_ROOT, hashes.SHA512(), {_S.RSA_PKCS1_SHA512}),
    ):
        (found,) = signatures_of([_signed(key, hash_)])
        assert found == expected
    (found,) = signatures_of([_signed(RSA_ROOT, hashes.SHA256(), PSS(MGF1(hashes.SHA256()), 32))])
    assert found == {RSA, _S.RSA_PSS_PSS_SHA256}
    # What one says of oneself nobody checks.
    assert signatures_of([EC_ROOT.certificate]) == ()


def _signed(
    issuer: Issued, hash_: hashes.SHA256 | hashes.SHA384 | hashes.SHA512, padding: PSS | None = None
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(named("leaf"))
        .issuer_name(issuer.certificate.subject)
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + datetime.timedelta(days=1))
    )
    if padding is not None:
        return builder.sign(issuer.key, hash_, rsa_padding=padding)
    return builder.sign(issuer.key, hash_)


# --- what is said on the wire -------------------------------------------------------------------------


@pytest.mark.requirement("8446-AUTH-1")
@each_flavor
def test_what_can_be_checked_in_chains_is_said_where_it_is_more(flavor: Flavor) -> None:
    assert accepted_in_chains(DEFAULT_SCHEMES) == ()
    own = certificates.client(Kind.ED25519)
    server = certificates.server(Kind.ED25519)
    # Both take Ed25519 alone in handshakes, and chains of the P-256 authority that issued these.
    ours = configs.client_context(server.cafile, identity=own)
    ours.set_signature_schemes("ed25519")
    theirs = configs.server_context(server, client_roots=own.cafile)
    theirs.set_signature_schemes("ed25519")
    pair = Pair(flavor, (ours.config(), theirs.config()), run=True)
    hello = client_hello(pair.delivered[0].message, flavor).extensions
    (request,) = [one.message for one in pair.delivered if one.kind is _KT.CERTIFICATE_REQUEST]
    for block in (hello, certificate_request(request).extensions):
        assert block.get(ext.SIGNATURE_ALGORITHMS) == (ED25519,)
        assert block.get(ext.SIGNATURE_ALGORITHMS_CERT) == (ED25519, *VERIFIABLE)
    plain = Pair(flavor, (configs.client_context().config(), configs.server_context().config()), run=True)
    hello = client_hello(plain.delivered[0].message, flavor).extensions
    assert ext.SIGNATURE_ALGORITHMS_CERT.code not in hello


@pytest.mark.requirement("8446-AUTH-7")
def test_a_server_names_its_authorities_if_they_are_few() -> None:
    own = certificates.client()
    theirs = configs.server_context(client_roots=own.cafile)

    def announced(config: Config) -> tuple[bytes, ...] | None:
        pair = Pair(DTLS, (configs.client_context(identity=own).config(), config), run=True)
        (request,) = [one.message for one in pair.delivered if one.kind is _KT.CERTIFICATE_REQUEST]
        return certificate_request(request).extensions.get(ext.CERTIFICATE_AUTHORITIES)

    (name,) = announced(theirs.config()) or ()
    assert name in theirs.config().verifier.authorities()
    for n in range(60):
        theirs.load_verify_locations(cadata=authority(f"Authority {n}").der)
    assert len(theirs.config().verifier.authorities()) == 61
    assert announced(theirs.config()) is None


@pytest.mark.requirement("8446-AUTH-7")
def test_a_client_with_two_certificates_shows_the_one_that_is_trusted() -> None:
    """Its first certificate is of an authority the server does not know."""
    known, unknown = certificates.client(), certificates.client(Kind.RSA_2048)
    ours = configs.client_context()
    ours.load_cert_chain(unknown.certfile, unknown.keyfile)
    ours.load_cert_chain(known.certfile, known.keyfile)
    pair = Pair(TLS, (ours.config(), configs.server_context(client_roots=known.cafile).config()), run=True)
    assert pair.server.session.peer_certificate is not None
    assert pair.server.session.peer_certificate.chain == known.chain
