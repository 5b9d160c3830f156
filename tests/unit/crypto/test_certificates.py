"""Verification of peers: what is accepted, and each refusal with its class and alert."""

from __future__ import annotations

import datetime
import os
import ssl
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cryptography
import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA65PrivateKey,
    MLDSA87PrivateKey,
)
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.certificates import (
    CertificateVerifier,
    PeerCertificate,
    Purpose,
    VerifiedPeer,
    leaf_public_key,
)
from sealwire.errors import Alert, CertificateError, CertificateFailure, ConfigurationError
from tests.unit.crypto.authority import (
    DIGITAL_SIGNATURE,
    KEY_CERT_SIGN,
    KEY_ENCIPHERMENT,
    NOW,
    Issued,
    authority,
    ec_key,
    issue,
    named,
    rsa_key,
)

SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
ANY_USAGE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE

ROOT = authority()
MIDDLE = authority("Test Intermediate", ROOT)
LEAF = issue("server", MIDDLE, names=["server.test", "*.wild.test", "192.0.2.1", "2001:db8::1"])


def verifier(*roots: Issued, legacy: bool = False, now: datetime.datetime = NOW) -> CertificateVerifier:
    return CertificateVerifier(
        [root.der for root in roots or (ROOT,)], clock=lambda: now, allow_legacy_profile=legacy
    )


def verify(
    *chain: Issued,
    roots: Sequence[Issued] = (),
    purpose: Purpose = Purpose.SERVER,
    name: str | None = "server.test",
    legacy: bool = False,
    now: datetime.datetime = NOW,
) -> VerifiedPeer:
    return verifier(*roots, legacy=legacy, now=now).verify(
        [one.der for one in chain], purpose=purpose, name=name
    )


@contextmanager
def refusal(failure: CertificateFailure) -> Iterator[list[CertificateError]]:
    """The block must raise a CertificateError of this class whose reason is one line of ASCII."""
    caught: list[CertificateError] = []
    with pytest.raises(CertificateError) as raised:
        yield caught
    assert raised.value.failure is failure, str(raised.value)
    assert raised.value.reason.isascii()
    assert "\n" not in raised.value.reason
    caught.append(raised.value)


def holding(numbers: rsa.RSAPublicNumbers, subject: str = "server") -> Issued:
    """A certificate of the root's for an RSA key nobody has."""
    builder = x509.CertificateBuilder().subject_name(named(subject)).issuer_name(ROOT.certificate.subject)
    builder = builder.public_key(numbers.public_key()).serial_number(1).not_valid_before(NOW)
    builder = builder.not_valid_after(NOW + datetime.timedelta(days=1))
    if subject != "server":
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    return Issued(builder.sign(ROOT.key, hashes.SHA256()), ROOT.key)


def refused(
    failure: CertificateFailure,
    *chain: Issued,
    roots: Sequence[Issued] = (),
    purpose: Purpose = Purpose.SERVER,
    name: str | None = "server.test",
    legacy: bool = False,
    now: datetime.datetime = NOW,
) -> CertificateError:
    """The error for a chain that must be refused."""
    with refusal(failure) as caught:
        verify(*chain, roots=roots, purpose=purpose, name=name, legacy=legacy, now=now)
    return caught[0]


class TestAccepts:
    def test_a_chain_and_says_what_it_relied_upon(self) -> None:
        peer = verify(LEAF, MIDDLE)
        assert peer.path == (LEAF.der, MIDDLE.der, ROOT.der)
        assert peer.certificate.chain == (LEAF.der, MIDDLE.der)
        assert (peer.purpose, peer.name) == (Purpose.SERVER, "server.test")

    @pytest.mark.parametrize(
        "name",
        [
            "server.test",
            "SERVER.Test",
            "server.test.",
            "a.wild.test",
            "192.0.2.1",
            "2001:db8::1",
            "2001:0DB8:0:0::1",
            "[2001:db8::1]",
            "2001:db8::1%eth0",
            None,
        ],
    )
    def test_every_name_of_the_leaf(self, name: str | None) -> None:
        assert verify(LEAF, MIDDLE, name=name).name == name

    def test_extra_doubled_and_misordered_intermediates(self) -> None:
        # RFC 8446 section 4.4.2: only the leaf's place is fixed.
        upper = authority("Upper", ROOT)
        lower = authority("Lower", upper)
        leaf = issue("server", lower, names=["server.test"])
        stray = authority("Stray")
        path = verify(leaf, stray, ROOT, upper, leaf, upper, lower).path
        assert path == (leaf.der, lower.der, upper.der, ROOT.der)

    def test_a_stray_certificate_with_an_unusable_key(self) -> None:
        stray = issue("stray", key=rsa_key(1024))
        assert verify(LEAF, stray, MIDDLE).path[0] == LEAF.der

    @pytest.mark.parametrize(
        "key",
        [
            ec.generate_private_key(ec.SECP384R1()),
            Ed25519PrivateKey.generate(),
            rsa_key(),
            Ed448PrivateKey.generate(),
        ],
        ids=("P-384", "Ed25519", "RSA", "Ed448"),
    )
    def test_leaf_keys_of_every_kind(self, key: ec.EllipticCurvePrivateKey) -> None:
        leaf = issue("server", ROOT, key=key, names=["server.test"])
        assert verify(leaf).path == (leaf.der, ROOT.der)

    def test_a_leaf_that_is_trusted_itself(self) -> None:
        alone = issue("server", names=["server.test"])
        assert verify(alone, roots=[alone]).path == (alone.der,)

    def test_a_client(self) -> None:
        leaf = issue("client", ROOT, names=["client.test"], usages=[CLIENT_AUTH])
        assert verify(leaf, purpose=Purpose.CLIENT, name=None).purpose is Purpose.CLIENT
        assert verify(leaf, purpose=Purpose.CLIENT, name="client.test").name == "client.test"

    def test_a_cross_signed_issuer_by_whichever_way_leads_home(self) -> None:
        stranger = authority("Stranger")
        key = ec_key()
        for_us = authority("Cross", ROOT, key=key)
        for_them = authority("Cross", stranger, key=key)
        leaf = issue("server", for_us, names=["server.test"])
        assert verify(leaf, for_them, for_us).path == (leaf.der, for_us.der, ROOT.der)


class TestRefuses:
    def test_nothing(self) -> None:
        assert refused(CertificateFailure.MISSING).alert is Alert.CERTIFICATE_REQUIRED

    def test_an_expired_leaf(self) -> None:
        leaf = issue("server", ROOT, names=["server.test"], days=(-20, -10))
        error = refused(CertificateFailure.EXPIRED, leaf)
        assert error.alert is Alert.CERTIFICATE_EXPIRED
        assert "2030-05-22" in error.reason

    def test_a_leaf_not_yet_valid(self) -> None:
        leaf = issue("server", ROOT, names=["server.test"], days=(1, 10))
        assert refused(CertificateFailure.NOT_YET_VALID, leaf).alert is Alert.CERTIFICATE_EXPIRED

    @pytest.mark.parametrize(
        ("days", "failure"),
        [((-20, -10), CertificateFailure.EXPIRED), ((1, 10), CertificateFailure.NOT_YET_VALID)],
    )
    def test_an_issuer_out_of_time(self, days: tuple[float, float], failure: CertificateFailure) -> None:
        root = authority(days=days)
        middle = authority("Middle", ROOT, days=days)
        below_root = issue("server", root, names=["server.test"])
        below_middle = issue("server", middle, names=["server.test"])
        assert "issuer" in refused(failure, below_root, roots=[root]).reason
        assert "issuer" in refused(failure, below_middle, middle).reason

    def test_the_clock_decides(self) -> None:
        refused(CertificateFailure.EXPIRED, LEAF, MIDDLE, now=NOW + datetime.timedelta(days=31))
        refused(CertificateFailure.NOT_YET_VALID, LEAF, MIDDLE, now=NOW - datetime.timedelta(days=2))

    def test_an_unknown_issuer(self) -> None:
        other = authority("Another Root")
        error = refused(CertificateFailure.UNKNOWN_ISSUER, LEAF, MIDDLE, roots=[other])
        assert error.alert is Alert.UNKNOWN_CA

    def test_a_missing_intermediate(self) -> None:
        error = refused(CertificateFailure.UNKNOWN_ISSUER, LEAF)
        assert "intermediate" in error.reason

    def test_another_root_of_the_same_name(self) -> None:
        error = refused(CertificateFailure.UNKNOWN_ISSUER, LEAF, MIDDLE, roots=[authority()])
        assert "same name" in error.reason

    def test_a_self_signed_leaf(self) -> None:
        leaf = issue("server", names=["server.test"])
        assert "self-signed" in refused(CertificateFailure.UNKNOWN_ISSUER, leaf).reason

    def test_everybody_if_nobody_is_trusted(self) -> None:
        nobody = CertificateVerifier([])
        with refusal(CertificateFailure.UNKNOWN_ISSUER):
            nobody.verify([LEAF.der], purpose=Purpose.SERVER, name="server.test")

    @pytest.mark.parametrize(
        "name",
        ["other.test", "wild.test", "a.b.wild.test", "192.0.2.2", "2001:db8::2", "test", "erver.test"],
    )
    def test_a_wrong_name(self, name: str) -> None:
        error = refused(CertificateFailure.WRONG_NAME, LEAF, MIDDLE, name=name)
        assert error.alert is Alert.BAD_CERTIFICATE
        assert name in error.reason
        assert "server.test" in error.reason

    @pytest.mark.parametrize(
        "name", ["", "a..b", "-x.test", "x" * 64 + ".test", "1.2.3", "a b", "*.wild.test"]
    )
    def test_a_name_that_is_none(self, name: str) -> None:
        refused(CertificateFailure.WRONG_NAME, LEAF, MIDDLE, name=name)

    def test_a_wrong_name_of_a_client(self) -> None:
        leaf = issue("client", ROOT, names=["client.test"], usages=[CLIENT_AUTH])
        refused(CertificateFailure.WRONG_NAME, leaf, purpose=Purpose.CLIENT, name="other.test")

    def test_extended_key_usage_for_the_other_side(self) -> None:
        client = issue("peer", ROOT, names=["server.test"], usages=[CLIENT_AUTH])
        server = issue("peer", ROOT, names=["server.test"], usages=[SERVER_AUTH])
        both = issue("peer", ROOT, names=["server.test"], usages=[SERVER_AUTH, CLIENT_AUTH])
        assert refused(CertificateFailure.BAD_USAGE, client).alert is Alert.UNSUPPORTED_CERTIFICATE
        refused(CertificateFailure.BAD_USAGE, server, purpose=Purpose.CLIENT)
        verify(both)
        verify(both, purpose=Purpose.CLIENT)

    def test_an_issuer_whose_extended_key_usage_excludes_us(self) -> None:
        middle = authority("Middle", ROOT, usages=[CLIENT_AUTH])
        leaf = issue("server", middle, names=["server.test"])
        refused(CertificateFailure.BAD_USAGE, leaf, middle)
        refused(CertificateFailure.BAD_USAGE, leaf, middle, legacy=True)

    @pytest.mark.requirement("8446-AUTH-1")
    def test_a_key_that_may_not_sign(self) -> None:
        for legacy in (False, True):
            leaf = issue("server", ROOT, names=["server.test"], key_usage=KEY_ENCIPHERMENT)
            refused(CertificateFailure.BAD_USAGE, leaf, legacy=legacy)
        verify(issue("server", ROOT, names=["server.test"], key_usage=DIGITAL_SIGNATURE))

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_leaf_used_as_issuer(self, legacy: bool) -> None:
        below = issue("server", LEAF, names=["server.test"])
        refused(CertificateFailure.BAD_USAGE, below, LEAF, MIDDLE, legacy=legacy)

    @pytest.mark.parametrize("legacy", [False, True])
    def test_an_issuer_whose_key_usage_forbids_it(self, legacy: bool) -> None:
        middle = authority("Middle", ROOT, key_usage=DIGITAL_SIGNATURE)
        leaf = issue("server", middle, names=["server.test"])
        refused(CertificateFailure.BAD_USAGE, leaf, middle, legacy=legacy)

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_path_longer_than_an_issuer_allows(self, legacy: bool) -> None:
        root = authority(path_length=0)
        middle = authority("Middle", root)
        leaf = issue("server", middle, names=["server.test"])
        refused(CertificateFailure.BAD_USAGE, leaf, middle, roots=[root], legacy=legacy)

    def test_a_certificate_authority_as_peer(self) -> None:
        leaf = issue("server", ROOT, ca=True, names=["server.test"])
        error = refused(CertificateFailure.BAD_USAGE, leaf)
        assert "allow_legacy_certificates" in error.reason
        verify(leaf, legacy=True)

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_name_outside_its_issuers_constraints(self, legacy: bool) -> None:
        middle = authority("Middle", ROOT, constrained_to="inside.test")
        inside = issue("server", middle, names=["a.inside.test"])
        outside = issue("server", middle, names=["server.test"])
        verify(inside, middle, name="a.inside.test", legacy=legacy)
        refused(CertificateFailure.REJECTED, outside, middle, legacy=legacy)

    @pytest.mark.parametrize("kind", [Ed25519PrivateKey, Ed448PrivateKey])
    @pytest.mark.parametrize("legacy", [False, True])
    def test_issuers_the_library_does_not_support(self, legacy: bool, kind: Any) -> None:
        # Documented in docs/certificates.md; when the library learns it, this test says so.
        root = authority(key=kind.generate())
        leaf = issue("server", root, names=["server.test"])
        error = refused(CertificateFailure.UNSUPPORTED_ALGORITHM, leaf, roots=[root], legacy=legacy)
        assert error.alert is Alert.UNSUPPORTED_CERTIFICATE

    @pytest.mark.parametrize("kind", [MLDSA44PrivateKey, MLDSA65PrivateKey, MLDSA87PrivateKey])
    def test_ml_dsa_from_root_to_leaf(self, kind: Any) -> None:
        try:
            root = authority(key=kind.generate())
        except UnsupportedAlgorithm:
            pytest.skip("absent: an OpenSSL with ML-DSA beneath cryptography")
        middle = authority("Middle", root, key=kind.generate())
        leaf = issue("server", middle, key=kind.generate(), names=["server.test"])
        try:
            accepted = verify(leaf, middle, roots=[root])
        except CertificateError:
            # Older versions of the library know the keys and not the issuers; docs/certificates.md says so.
            assert int(cryptography.__version__.partition(".")[0]) < 50
            return
        assert accepted.path == (leaf.der, middle.der, root.der)
        # The signatures are looked at: the same names with another issuer's keys are refused.
        other = authority("Middle", authority(key=kind.generate()), key=kind.generate())
        forged = issue("server", other, key=kind.generate(), names=["server.test"])
        refused(CertificateFailure.UNKNOWN_ISSUER, forged, middle, roots=[root])
        refused(CertificateFailure.UNKNOWN_ISSUER, forged, other, roots=[root])

    def test_a_weak_issuer(self) -> None:
        weak = authority(key=rsa_key(1024))
        leaf = issue("server", weak, names=["server.test"])
        refused(CertificateFailure.UNSUPPORTED_ALGORITHM, leaf, roots=[weak])
        middle = authority("Weak", ROOT, key=rsa_key(1024))
        leaf = issue("server", middle, names=["server.test"])
        refused(CertificateFailure.UNSUPPORTED_ALGORITHM, leaf, middle)

    @pytest.mark.parametrize(
        "key",
        [
            rsa_key(1024),
            ec.generate_private_key(ec.SECP256K1()),
            ec.generate_private_key(ec.BrainpoolP256R1()),
        ],
        ids=["rsa-1024", "secp256k1", "brainpool"],
    )
    def test_leaf_keys_tls_does_not_use(self, key: rsa.RSAPrivateKey) -> None:
        leaf = issue("server", ROOT, key=key, names=["server.test"])
        refused(CertificateFailure.UNSUPPORTED_ALGORITHM, leaf)
        with refusal(CertificateFailure.UNSUPPORTED_ALGORITHM):
            leaf_public_key(leaf.der)

    def test_an_oversized_rsa_exponent(self) -> None:
        numbers = rsa_key().public_key().public_numbers()
        for e in ((1 << 32) + 1, numbers.n - 2):
            with refusal(CertificateFailure.UNSUPPORTED_ALGORITHM):
                leaf_public_key(holding(rsa.RSAPublicNumbers(e, numbers.n)).der)

    def test_an_oversized_rsa_modulus(self) -> None:
        """DOS-7: whoever shows it is refused before anything is verified with it."""
        large = rsa.RSAPublicNumbers(65_537, (1 << 16_383) + 1)
        refused(CertificateFailure.UNSUPPORTED_ALGORITHM, holding(large))
        leaf = issue("server", ROOT, issuer_name="Large", names=["server.test"])
        refused(CertificateFailure.UNSUPPORTED_ALGORITHM, leaf, holding(large, "Large"))

    def test_a_list_that_is_too_long(self) -> None:
        chain = [LEAF.der] + [MIDDLE.der] * 10
        with refusal(CertificateFailure.REJECTED) as caught:
            verifier().verify(chain, purpose=Purpose.SERVER, name="server.test")
        assert caught[0].alert is Alert.BAD_CERTIFICATE

    def test_a_knot_of_issuers_at_bounded_cost(self) -> None:
        # Each of nine certificates issued all others: 9! paths, were they all tried.
        key = ec_key()
        knot = [authority("Knot", key=key) for _ in range(9)]
        leaf = issue("server", knot[0], names=["server.test"])
        refused(CertificateFailure.UNKNOWN_ISSUER, leaf, *knot)

    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("names", [2, 3])
    def test_a_ring_of_issuers_at_bounded_cost(self, names: int, legacy: bool) -> None:
        # The same in a ring, so that no certificate is self-issued: A by B by C by A, three of each.
        keys = [ec_key() for _ in range(names)]
        heads = [authority(f"Ring {at}", key=key) for at, key in enumerate(keys)]
        ring = [
            authority(f"Ring {at}", heads[(at + 1) % names], key=keys[at])
            for at in range(names)
            for _ in range(9 // names)
        ]
        leaf = issue("server", heads[0], names=["server.test"])
        error = refused(CertificateFailure.REJECTED, leaf, *ring, legacy=legacy)
        assert error.alert is Alert.BAD_CERTIFICATE
        assert "issued one another" in error.reason
        # One of each is a detour, not a knot: followed, and found to lead nowhere.
        refused(CertificateFailure.UNKNOWN_ISSUER, leaf, *ring[:: 9 // names], legacy=legacy)

    def test_a_path_longer_than_is_followed(self) -> None:
        chain = [authority("Above 0", ROOT)]
        for at in range(1, 9):
            chain.append(authority(f"Above {at}", chain[-1]))
        leaf = issue("server", chain[-1], names=["server.test"])
        refused(CertificateFailure.REJECTED, leaf, *chain)
        shorter = issue("server", chain[-2], names=["server.test"])
        assert len(verify(shorter, *chain[:-1]).path) == 10

    def test_a_root_that_is_none(self) -> None:
        with pytest.raises(ConfigurationError):
            CertificateVerifier([b"no certificate"])


class TestLegacyProfile:
    def test_no_subject_alternative_name(self) -> None:
        leaf = issue("server.test", ROOT)
        error = refused(CertificateFailure.REJECTED, leaf)
        assert "subjectAltName" in error.reason
        assert "allow_legacy_certificates" in error.reason
        verify(leaf, legacy=True)
        verify(leaf, legacy=True, name=None)
        refused(CertificateFailure.WRONG_NAME, leaf, legacy=True, name="other.test")

    def test_no_authority_key_identifier(self) -> None:
        leaf = issue("server", ROOT, names=["server.test"], key_identifiers=False)
        assert "authorityKeyIdentifier" in refused(CertificateFailure.REJECTED, leaf).reason
        verify(leaf, legacy=True)

    def test_an_issuer_without_key_usage(self) -> None:
        root = authority(key_usage=None)
        leaf = issue("server", root, names=["server.test"])
        assert "keyUsage" in refused(CertificateFailure.REJECTED, leaf, roots=[root]).reason
        verify(leaf, roots=[root], legacy=True)

    def test_a_self_signed_authority_trusted_as_a_peer(self) -> None:
        # What `openssl req -x509` makes.
        alone = issue("server.test", ca=True)
        refused(CertificateFailure.BAD_USAGE, alone, roots=[alone])
        assert verify(alone, roots=[alone], legacy=True).path == (alone.der,)

    def test_the_common_name_yields_to_any_subject_alternative_name(self) -> None:
        leaf = issue("server.test", ROOT, names=["other.test"])
        refused(CertificateFailure.WRONG_NAME, leaf, legacy=True)

    def test_the_common_name_does_not_pass_name_constraints(self) -> None:
        middle = authority("Middle", ROOT, constrained_to="inside.test")
        leaf = issue("server.test", middle)
        refused(CertificateFailure.WRONG_NAME, leaf, middle, legacy=True)

    def test_no_wildcard_in_a_common_name(self) -> None:
        leaf = issue("*.test", ROOT)
        refused(CertificateFailure.WRONG_NAME, leaf, legacy=True)

    def test_usage_is_still_checked_for_the_right_side(self) -> None:
        server = issue("peer", ROOT, names=["server.test"], usages=[SERVER_AUTH])
        client = issue("peer", ROOT, usages=[CLIENT_AUTH])
        anything = issue("peer", ROOT, names=["server.test"], usages=[ANY_USAGE])
        verify(server, legacy=True)
        verify(client, legacy=True, purpose=Purpose.CLIENT, name=None)
        verify(anything, legacy=True)
        refused(CertificateFailure.BAD_USAGE, anything)
        refused(CertificateFailure.BAD_USAGE, client, legacy=True, name=None)
        refused(CertificateFailure.BAD_USAGE, server, legacy=True, purpose=Purpose.CLIENT, name=None)

    def test_trust_and_time_are_as_strict(self) -> None:
        stranger = issue("server.test", authority("Stranger"))
        old = issue("server.test", ROOT, days=(-20, -10))
        refused(CertificateFailure.UNKNOWN_ISSUER, stranger, legacy=True)
        refused(CertificateFailure.EXPIRED, old, legacy=True)


def accepts(
    judge: CertificateVerifier,
    chain: Sequence[bytes],
    purpose: Purpose = Purpose.SERVER,
    name: str | None = "server.test",
) -> bool:
    """Whether the chain is accepted; a CertificateError is the only other outcome there may be."""
    with suppress(CertificateError):
        judge.verify(chain, purpose=purpose, name=name)
        return True
    return False


class TestAnyBytes:
    def test_every_prefix_of_a_leaf(self) -> None:
        judge = verifier(legacy=True)
        for end in range(len(LEAF.der)):
            with refusal(CertificateFailure.MALFORMED):
                judge.verify([LEAF.der[:end], MIDDLE.der], purpose=Purpose.SERVER, name=None)

    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("place", [0, 1])
    @pytest.mark.parametrize("change", [lambda b: b ^ 1, lambda b: b ^ 0x80, lambda b: 0, lambda b: 0xFF])
    def test_every_byte_of_a_chain_changed(
        self, legacy: bool, place: int, change: Callable[[int], int]
    ) -> None:
        judge = verifier(legacy=legacy)
        good = [LEAF.der, MIDDLE.der]
        for at, byte in enumerate(good[place]):
            if change(byte) == byte:
                continue
            bad = bytearray(good[place])
            bad[at] = change(byte)
            chain = list(good)
            chain[place] = bytes(bad)
            if accepts(judge, chain):
                # Only the wrapping of the signature is not signed: its count of unused bits may vary.
                changed = x509.load_der_x509_certificate(chain[place])
                original = x509.load_der_x509_certificate(good[place])
                assert changed.tbs_certificate_bytes == original.tbs_certificate_bytes
                assert changed.signature == original.signature
            with suppress(CertificateError):
                PeerCertificate(chain).as_dict()
                leaf_public_key(chain[0])

    @given(st.lists(st.binary(max_size=300), max_size=4))
    def test_noise(self, chain: list[bytes]) -> None:
        judge = verifier()
        assert not accepts(judge, chain)

    def test_certificates_collected_by_fuzzers(self, shared_data: Path) -> None:
        files = sorted(path for path in (shared_data / "dtls13" / "bad_certs").rglob("*") if path.is_file())
        assert len(files) > 100
        for judge in (verifier(), verifier(legacy=True)):
            for path in files:
                data = path.read_bytes()
                for chain in ([data], [LEAF.der, data], [data, data, MIDDLE.der]):
                    for purpose in Purpose:
                        for name in ("server.test", None):
                            assert not accepts(judge, chain, purpose, name), path
                with suppress(CertificateError):
                    PeerCertificate([data]).as_dict()
                    _ = PeerCertificate([data]).names
                with suppress(CertificateError):
                    leaf_public_key(data)

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_certificates_collected_by_fuzzers_when_trusted(self, shared_data: Path) -> None:
        for path in sorted((shared_data / "dtls13" / "bad_certs").rglob("*")):
            if not path.is_file():
                continue
            data = path.read_bytes()
            for legacy in (False, True):
                try:
                    judge = CertificateVerifier([data, ROOT.der], allow_legacy_profile=legacy)
                except ConfigurationError:
                    continue
                for purpose in Purpose:
                    accepts(judge, [data], purpose, None)

    def test_a_hostile_certificate_writes_nothing(self, tmp_path: Path) -> None:
        # A common name above 64 bytes, which the library warns about each time its length is a new one.
        (tmp_path / "odd.der").write_bytes(_with_long_common_name())
        program = (
            "import sys, pathlib\n"
            "from sealwire.crypto.certificates import PeerCertificate\n"
            "peer = PeerCertificate([pathlib.Path(sys.argv[1]).read_bytes()])\n"
            "print(peer.as_dict()['subject'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "odd.der")],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert "x" * 80 in done.stdout
        assert done.stderr == ""


def _with_long_common_name() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attribute = x509.NameAttribute(x509.NameOID.COMMON_NAME, "x" * 80, _validate=False)
    key = ec_key()
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([attribute]))
        .issuer_name(x509.Name([attribute]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


class TestPeerCertificate:
    def test_as_dict_agrees_with_the_ssl_module(self, tmp_path: Path) -> None:
        root = authority("Names, and \u00fcml\u00e4uts")
        leaf = issue(
            "server",
            root,
            names=["server.test", "*.wild.test", "192.0.2.1", "2001:db8::1", "::ffff:1.2.3.4"],
            key_usage=DIGITAL_SIGNATURE,
        )
        for issued in (leaf, root, ROOT):
            (tmp_path / "cert.pem").write_bytes(issued.pem)
            theirs = ssl._ssl._test_decode_cert(str(tmp_path / "cert.pem"))  # type: ignore[attr-defined]
            assert PeerCertificate([issued.der]).as_dict() == theirs

    def test_what_else_it_tells(self) -> None:
        peer = PeerCertificate([LEAF.der, MIDDLE.der])
        assert peer.names == ("server.test", "*.wild.test", "192.0.2.1", "2001:db8::1")
        assert peer.fingerprint == LEAF.certificate.fingerprint(hashes.SHA256())
        assert peer.leaf == LEAF.certificate
        assert peer == PeerCertificate((LEAF.der, MIDDLE.der))
        assert peer != PeerCertificate([LEAF.der])
        assert hash(peer) == hash(PeerCertificate([LEAF.der, MIDDLE.der]))
        assert peer.fingerprint.hex() in repr(peer)

    def test_a_chain_is_not_empty(self) -> None:
        with pytest.raises(ValueError, match="leaf"):
            PeerCertificate([])

    def test_every_root_of_the_system_agrees_with_the_ssl_module(self, tmp_path: Path) -> None:
        from sealwire.crypto.trust import system_roots

        roots = system_roots()
        if not roots:
            pytest.skip("absent: a system certificate store")
        path = tmp_path / "root.pem"
        for der in roots:
            path.write_text(ssl.DER_cert_to_PEM_cert(der))
            theirs = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ours = PeerCertificate([der]).as_dict()
            assert ours == theirs


def test_key_cert_sign_is_what_authorities_get() -> None:
    assert ROOT.certificate.extensions.get_extension_for_class(x509.KeyUsage).value == KEY_CERT_SIGN
