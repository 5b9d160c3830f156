"""Stapled OCSP responses: the good one, and every way in which one can be wrong."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.certificates import CertificateVerifier, Purpose, VerifiedPeer
from sealwire.crypto.ocsp import StapleMode, judge, must_staple, valid_until
from sealwire.errors import Alert, CertificateError, CertificateFailure
from tests.staples import BY_NAME, REVOKED, UNKNOWN, staple, unsuccessful
from tests.unit.crypto.authority import (
    DIGITAL_SIGNATURE,
    KEY_ENCIPHERMENT,
    NOW,
    Issued,
    authority,
    issue,
    rsa_key,
)

ROOT = authority()
MIDDLE = authority("Middle", ROOT)
LEAF = issue("server", MIDDLE, names=["server.test"])
OTHER = issue("other", MIDDLE, names=["other.test"])
STRANGER = authority("Stranger")
OCSP_SIGNING = [ExtendedKeyUsageOID.OCSP_SIGNING]
ECDSA_SHA1 = bytes.fromhex("06072a8648ce3d0401")
ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
RESPONDER = issue("responder", MIDDLE, usages=OCSP_SIGNING)


def good(**changes: Any) -> bytes:
    return staple(LEAF.certificate, MIDDLE.certificate, MIDDLE.key, now=NOW, **changes)


def delegated(responder: Issued, **changes: Any) -> bytes:
    changes = {"responder": responder.certificate, "enclosed": [responder.certificate], **changes}
    return staple(LEAF.certificate, MIDDLE.certificate, responder.key, now=NOW, **changes)


def look_at(data: bytes, now: datetime.datetime = NOW) -> None:
    judge(data, LEAF.certificate, MIDDLE.certificate, now)


def refusal(data: bytes, now: datetime.datetime = NOW) -> CertificateError:
    with pytest.raises(CertificateError) as caught:
        look_at(data, now)
    return caught.value


GOOD: dict[str, Callable[[], bytes]] = {
    "signed by the issuer": good,
    "responder by name": lambda: good(encoding=BY_NAME),
    "issuer hashed with SHA-256": lambda: good(hashed_with=hashes.SHA256()),
    "issuer hashed with SHA-512": lambda: good(hashed_with=hashes.SHA512()),
    "signed with SHA-384": lambda: good(signed_with=hashes.SHA384()),
    "without an end, and fresh": lambda: good(hours=(-23, None)),
    "of a clock that is a little ahead": lambda: good(hours=(0.08, 24)),
    "of a clock that is a little behind": lambda: good(hours=(-9, -0.08)),
    "by a responder": lambda: delegated(RESPONDER),
    "by a responder by name": lambda: delegated(RESPONDER, encoding=BY_NAME),
    "by a responder with RSA": lambda: delegated(
        issue("rsa", MIDDLE, usages=OCSP_SIGNING, key=rsa_key(), key_usage=DIGITAL_SIGNATURE)
    ),
    "by a responder with Ed25519": lambda: delegated(
        issue("ed", MIDDLE, usages=OCSP_SIGNING, key=Ed25519PrivateKey.generate())
    ),
    "by a responder among others": lambda: delegated(
        RESPONDER, enclosed=[OTHER.certificate, STRANGER.certificate, RESPONDER.certificate]
    ),
}


@pytest.mark.requirement("8446-AUTH-6")
@pytest.mark.parametrize("name", GOOD)
def test_good_ones(name: str) -> None:
    look_at(GOOD[name]())


def flipped(data: bytes) -> bytes:
    """The same with another signature: the response's last bytes, where no certificates follow."""
    return data[:-1] + bytes((data[-1] ^ 1,))


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "decoded"),
    "rubbish": (lambda: b"\x30\x03\x02\x01\x00", "decoded"),
    "a byte short": (lambda: good()[:-1], "decoded"),
    "a byte long": (lambda: good() + b"\0", "decoded"),
    "of another certificate": (
        lambda: staple(OTHER.certificate, MIDDLE.certificate, MIDDLE.key, now=NOW), "other certificates",
    ),
    "of a namesake of the issuer": (lambda: good(named_issuer=ROOT.certificate), "other certificates"),
    "of nobody we know": (lambda: good(status=UNKNOWN), "does not know"),
    "tomorrow's": (lambda: good(hours=(1, 24)), "future"),
    "yesterday's": (lambda: good(hours=(-48, -24)), "too old"),
    "without an end, and old": (lambda: good(hours=(-25, None)), "too old"),
    "with another signature": (lambda: flipped(good()), "not signed"),
    "signed with another key": (
        lambda: signed_again(tbs_of(good()), key=ec.generate_private_key(ec.SECP256R1())), "not signed",
    ),
    "signed by the root, which did not issue it": (
        lambda: delegated(ROOT), "not signed",
    ),
    "signed by the certificate itself": (lambda: delegated(LEAF), "not signed"),
    "signed with SHA-1": (
        lambda: signed_again(tbs_of(good()), hash_=hashes.SHA1(), algorithm=ECDSA_SHA1), "not signed",
    ),
    "of too many certificates": (lambda: with_entries(65), "more than 64"),
    "by a responder that is not enclosed": (lambda: delegated(RESPONDER, enclosed=[]), "not signed"),
    "by a responder with another use": (
        lambda: delegated(issue("r", MIDDLE, usages=[ExtendedKeyUsageOID.SERVER_AUTH])), "not signed",
    ),
    "by a responder with every use": (
        lambda: delegated(issue("r", MIDDLE, usages=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])),
        "not signed",
    ),
    "by a responder without any use": (lambda: delegated(issue("r", MIDDLE)), "not signed"),
    "by a responder that may not sign": (
        lambda: delegated(issue("r", MIDDLE, usages=OCSP_SIGNING, key_usage=KEY_ENCIPHERMENT)), "not signed",
    ),
    "by a responder of another issuer": (
        lambda: delegated(issue("r", STRANGER, usages=OCSP_SIGNING)), "not signed",
    ),
    "by a responder of a namesake": (
        lambda: delegated(issue("r", STRANGER, usages=OCSP_SIGNING, issuer_name="Middle")), "not signed",
    ),
    "by a responder below the root": (
        lambda: delegated(issue("r", ROOT, usages=OCSP_SIGNING)), "not signed",
    ),
    "by a responder whose time is over": (
        lambda: delegated(issue("r", MIDDLE, usages=OCSP_SIGNING, days=(-9, -1))), "not signed",
    ),
    "by a responder whose time is to come": (
        lambda: delegated(issue("r", MIDDLE, usages=OCSP_SIGNING, days=(1, 9))), "not signed",
    ),
    "by a responder with a key nobody should have": (
        lambda: delegated(
            issue("r", MIDDLE, usages=OCSP_SIGNING, key=ec.generate_private_key(ec.SECP224R1()))
        ),
        "not signed",
    ),
    "by the fifth responder of one name": (
        lambda: delegated(
            RESPONDER,
            encoding=BY_NAME,
            enclosed=[
                *(issue("responder", MIDDLE, usages=OCSP_SIGNING).certificate for _ in range(4)),
                RESPONDER.certificate,
            ],
        ),
        "not signed",
    ),
    "with a critical extension": (lambda: with_extension(critical=True), "critical"),
}  # fmt: skip


def der(tag: int, body: bytes) -> bytes:
    n = len(body)
    size = n.to_bytes((n.bit_length() + 7) // 8, "big")
    return bytes((tag,)) + (bytes((n,)) if n < 128 else bytes((0x80 | len(size),)) + size) + body


def parts(body: bytes) -> list[bytes]:
    """The elements of the SEQUENCE that `body` is the content of, each whole."""
    found = []
    while body:
        n, start = body[1], 2
        if n >= 0x80:
            start += n & 0x7F
            n = int.from_bytes(body[2:start], "big")
        found.append(body[: start + n])
        body = body[start + n :]
    return found


def content(element: bytes) -> bytes:
    return element[2:] if element[1] < 0x80 else element[2 + (element[1] & 0x7F) :]


def signed_again(
    tbs: bytes,
    key: ec.EllipticCurvePrivateKey | None = None,
    hash_: hashes.HashAlgorithm | None = None,
    algorithm: bytes = ECDSA_SHA256,
) -> bytes:
    """A response around `tbs` that the library would not make."""
    key = key or MIDDLE.key  # type: ignore[assignment]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(tbs, ec.ECDSA(hash_ or hashes.SHA256()))
    basic = der(0x30, tbs + der(0x30, algorithm) + der(0x03, b"\0" + signature))
    kind = bytes.fromhex("06092b0601050507300101")
    return der(0x30, b"\x0a\x01\x00" + der(0xA0, der(0x30, kind + der(0x04, basic))))


def tbs_of(response: bytes) -> bytes:
    return ocsp.load_der_ocsp_response(response).tbs_response_bytes


def with_entries(count: int) -> bytes:
    """Many entries about the same certificate."""
    *before, entries = parts(content(tbs_of(good())))
    return signed_again(der(0x30, b"".join(before) + der(0x30, content(entries) * count)))


def with_extension(*, critical: bool) -> bytes:
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.1"), b"\x05\x00")
    state, hashed = ocsp.OCSPCertStatus.GOOD, hashes.SHA1()
    return (
        ocsp.OCSPResponseBuilder()
        .add_response(LEAF.certificate, MIDDLE.certificate, hashed, state, NOW, None, None, None)
        .responder_id(ocsp.OCSPResponderEncoding.HASH, MIDDLE.certificate)
        .add_extension(strange, critical)
        .sign(MIDDLE.key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


@pytest.mark.requirement("8446-AUTH-6", "8446-AUTH-5")
@pytest.mark.parametrize("name", BAD)
def test_bad_ones(name: str) -> None:
    make, match = BAD[name]
    error = refusal(make())
    assert (error.failure, error.alert) == (
        CertificateFailure.REJECTED,
        Alert.BAD_CERTIFICATE_STATUS_RESPONSE,
    )
    assert match in error.reason


@pytest.mark.requirement("8446-AUTH-6")
@pytest.mark.parametrize(
    "status", [one for one in ocsp.OCSPResponseStatus if one is not ocsp.OCSPResponseStatus.SUCCESSFUL]
)
def test_a_responder_that_says_it_cannot_say(status: ocsp.OCSPResponseStatus) -> None:
    error = refusal(unsuccessful(status))
    assert error.alert is Alert.BAD_CERTIFICATE_STATUS_RESPONSE
    assert "error of the responder" in error.reason


def test_an_extension_that_is_not_critical_may_be_anything() -> None:
    look_at(with_extension(critical=False))


@pytest.mark.requirement("8446-AUTH-5")
@pytest.mark.parametrize("hours", [(-1, 24), (-48, -24), (-48, None)], ids=["now", "old news", "no end"])
def test_revoked_is_revoked(hours: tuple[float, float | None]) -> None:
    error = refusal(good(status=REVOKED, reason=x509.ReasonFlags.key_compromise, hours=hours))
    assert (error.failure, error.alert) == (CertificateFailure.REVOKED, Alert.CERTIFICATE_REVOKED)
    assert "keyCompromise" in error.reason
    assert refusal(good(status=REVOKED)).alert is Alert.CERTIFICATE_REVOKED
    # Whoever has no right to say so does not say it.
    assert refusal(flipped(good(status=REVOKED))).alert is Alert.BAD_CERTIFICATE_STATUS_RESPONSE


def test_several_entries_must_agree() -> None:
    look_at(with_entries(64))
    look_at(signed_again(tbs_of(good())))
    *before, entries = parts(content(tbs_of(good())))
    *_, gone = parts(content(tbs_of(good(status=REVOKED))))
    for both in (content(entries) + content(gone), content(gone) + content(entries)):
        error = refusal(signed_again(der(0x30, b"".join(before) + der(0x30, both))))
        assert error.failure is CertificateFailure.REVOKED


@given(data=st.binary(max_size=200))
def test_any_bytes_are_an_error_of_the_right_kind(data: bytes) -> None:
    assert refusal(data).alert is Alert.BAD_CERTIFICATE_STATUS_RESPONSE
    assert valid_until(data) == 0.0


WHOLE = good()


@given(data=st.data())
def test_a_damaged_response_is_good_only_if_it_says_the_same(data: st.DataObject) -> None:
    whole = WHOLE
    position = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255))
    damaged = whole[:position] + bytes((byte,)) + whole[position + 1 :]
    alert = None
    try:
        look_at(damaged)
    except CertificateError as error:
        alert = error.alert
    if alert is None:
        # What is not signed, such as the wrapping, may have more than one form; what is may not.
        assert tbs_of(damaged) == tbs_of(whole)
    else:
        assert alert is Alert.BAD_CERTIFICATE_STATUS_RESPONSE


def test_how_long_ours_is_good() -> None:
    hour = 3600
    assert valid_until(good()) == NOW.timestamp() + 24 * hour
    assert valid_until(good(hours=(-1, None))) == NOW.timestamp() + 23 * hour
    assert valid_until(unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)) == 0.0


# --- the verifier -----------------------------------------------------------------------------------


def promising(features: list[x509.TLSFeatureType]) -> Issued:
    """A leaf with the TLS feature extension (RFC 7633)."""
    key = ec.generate_private_key(ec.SECP256R1())
    plain = issue("server", MIDDLE, key=key, names=["server.test"]).certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(plain.subject)
        .issuer_name(plain.issuer)
        .public_key(key.public_key())
        .serial_number(plain.serial_number)
        .not_valid_before(plain.not_valid_before_utc)
        .not_valid_after(plain.not_valid_after_utc)
    )
    for one in plain.extensions:
        builder = builder.add_extension(one.value, one.critical)
    builder = builder.add_extension(x509.TLSFeature(features), critical=False)
    return Issued(builder.sign(MIDDLE.key, hashes.SHA256()), key)


MUST_STAPLE = promising([x509.TLSFeatureType.status_request])
VERIFIER = CertificateVerifier([ROOT.der], clock=lambda: NOW)


def accepted(*chain: Issued, verifier: CertificateVerifier = VERIFIER) -> VerifiedPeer:
    return verifier.verify([one.der for one in chain], purpose=Purpose.SERVER, name="server.test")


def test_who_says_that_it_has_one() -> None:
    assert must_staple(MUST_STAPLE.certificate)
    assert not must_staple(LEAF.certificate)
    assert not must_staple(promising([x509.TLSFeatureType.status_request_v2]).certificate)


@pytest.mark.parametrize(
    ("mode", "leaf", "needed"),
    [
        (StapleMode.NONE, LEAF, False),
        (StapleMode.OPTIONAL, LEAF, False),
        (StapleMode.REQUIRED, LEAF, True),
        (StapleMode.NONE, MUST_STAPLE, False),
        (StapleMode.OPTIONAL, MUST_STAPLE, True),
        (StapleMode.REQUIRED, MUST_STAPLE, True),
    ],
)
def test_when_a_staple_is_needed(mode: StapleMode, leaf: Issued, needed: bool) -> None:
    peer = accepted(leaf, MIDDLE)
    mine = staple(leaf.certificate, MIDDLE.certificate, MIDDLE.key, now=NOW)
    VERIFIER.judge_staples(peer, {leaf.der: mine}, mode)
    # One of another certificate of the chain is not the leaf's.
    above = staple(MIDDLE.certificate, ROOT.certificate, ROOT.key, now=NOW)
    for staples in ({}, {MIDDLE.der: above}):
        if not needed:
            VERIFIER.judge_staples(peer, staples, mode)
            continue
        with pytest.raises(CertificateError, match="without an OCSP response") as caught:
            VERIFIER.judge_staples(peer, staples, mode)
        assert caught.value.alert is Alert.BAD_CERTIFICATE_STATUS_RESPONSE


def test_intermediates_are_judged_and_strays_are_not() -> None:
    stray = issue("stray", STRANGER)
    peer = accepted(LEAF, stray, MIDDLE)
    gone = staple(MIDDLE.certificate, ROOT.certificate, ROOT.key, now=NOW, status=REVOKED)
    for mode in (StapleMode.OPTIONAL, StapleMode.REQUIRED):
        with pytest.raises(CertificateError) as caught:
            VERIFIER.judge_staples(peer, {LEAF.der: good(), MIDDLE.der: gone}, mode)
        assert caught.value.failure is CertificateFailure.REVOKED
        VERIFIER.judge_staples(peer, {LEAF.der: good(), stray.der: b"junk"}, mode)


def test_what_is_trusted_by_itself_answers_to_nobody() -> None:
    pinned = CertificateVerifier(
        [], clock=lambda: NOW, pinned_fingerprints=[LEAF.certificate.fingerprint(hashes.SHA256()).hex()]
    )
    rooted = CertificateVerifier([LEAF.der], clock=lambda: NOW)
    for verifier in (pinned, rooted):
        peer = accepted(LEAF, verifier=verifier)
        assert peer.path == (LEAF.der,)
        verifier.judge_staples(peer, {}, StapleMode.REQUIRED)
        verifier.judge_staples(peer, {LEAF.der: good(status=REVOKED)}, StapleMode.REQUIRED)


# --- lists of certificates, and what is said about trust ----------------------------------------------


def test_longer_lists_and_paths_where_they_are_allowed() -> None:
    issuers = [ROOT]
    for n in range(12):
        issuers.append(authority(f"Step {n}", issuers[-1]))
    leaf = issue("server", issuers[-1], names=["server.test"])
    chain = [leaf, *reversed(issuers[1:])]
    assert len(chain) == 13
    with pytest.raises(CertificateError, match="13 certificates, more than 10"):
        accepted(*chain)
    for enough in (13, 14, 40):
        assert len(accepted(*chain, verifier=VERIFIER.within(enough)).path) == 14
    with pytest.raises(CertificateError, match="more than 12"):
        accepted(*chain, verifier=VERIFIER.within(12))
    assert VERIFIER.within(10) is VERIFIER


def test_authorities_are_those_that_decide() -> None:
    assert VERIFIER.authorities() == (ROOT.certificate.subject.public_bytes(),)
    assert VERIFIER.accepts_certificates
    pinned = CertificateVerifier([ROOT.der], pinned_fingerprints=["00" * 32])
    assert (pinned.authorities(), pinned.accepts_certificates) == ((), True)
    nobody = CertificateVerifier([])
    assert (nobody.authorities(), nobody.accepts_certificates) == ((), False)
