"""A client whose certificate, proof or Finished is wrong, and the one alert the server has for it."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace

import pytest

from sealwire.crypto.certificates import CertificateVerifier, Purpose
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.suites import SUITES
from sealwire.errors import Alert, CertificateError, CertificateFailure
from sealwire.tls13.authentication import signed_content
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.messages import (
    Certificate,
    CertificateEntry,
    CertificateVerify,
    HandshakeType,
    frame,
)
from sealwire.tls13.transcript import Transcript
from tests import certificates
from tests.certificates import Kind
from tests.unit.tls13.cells import Cell, Change, cells, flipped, replaced
from tests.unit.tls13.engines import (
    Delivery,
    Pair,
    certificate,
    certificate_verify,
    default,
    each_flavor,
    mutual,
    optional,
    put,
    refused,
    server_hello,
)

_KT = HandshakeType


def shown(change: Callable[[Certificate], Certificate]) -> Change:
    return lambda message, pair: change(certificate(message)).encode()


def leaf(der: Callable[[bytes], bytes], code: int | None = None, body: bytes = b"") -> Change:
    def change(message: Certificate) -> Certificate:
        first, *others = message.entries
        block = first.extensions if code is None else put(first.extensions, code, body)
        return replace(message, entries=(CertificateEntry(der(first.der), block), *others))

    return shown(change)


def same(der: bytes) -> bytes:
    return der


CERTIFICATE: dict[str, Cell] = {
    "empty": Cell(
        ("8446-AUTH-3",),
        shown(lambda message: replace(message, entries=())),
        Alert.CERTIFICATE_REQUIRED,
        "no certificate",
    ),
    "with a context": Cell(
        ("8446-POST-4",),
        shown(lambda message: replace(message, context=b"c")),
        Alert.ILLEGAL_PARAMETER,
        "context",
    ),
    "with an answer to nothing": Cell(
        ("8446-NEG-2", "8446-AUTH-6"), leaf(same, 5, b"\x01\0\0\x01x"), Alert.UNSUPPORTED_EXTENSION
    ),
    "with an extension of another message": Cell(
        ("8446-NEG-2",), leaf(same, 13, b""), Alert.ILLEGAL_PARAMETER, "belong"
    ),
    "that is no certificate": Cell(("8446-AUTH-5",), leaf(lambda der: b"nonsense"), Alert.BAD_CERTIFICATE),
    "with too many certificates": Cell(
        ("8446-AUTH-5",),
        shown(lambda message: replace(message, entries=message.entries * 11)),
        Alert.BAD_CERTIFICATE,
        "longer than 10 certificates",
    ),
    "with too many bytes": Cell(
        ("8446-AUTH-5",),
        leaf(lambda der: der + bytes(48 * 1024)),
        Alert.BAD_CERTIFICATE,
        "longer than 49152 bytes",
    ),
    "of somebody else": Cell(
        ("8446-AUTH-5",),
        leaf(lambda der: certificates.client(Kind.RSA_2048).chain[0]),
        Alert.UNKNOWN_CA,
    ),
    "of a server": Cell(
        ("8446-AUTH-5",),
        leaf(lambda der: certificates.server().chain[0]),
        Alert.UNSUPPORTED_CERTIFICATE,
    ),
    "with bytes behind it": Cell(
        ("8446-NEG-10",),
        lambda message, pair: frame(_KT.CERTIFICATE, message[4:] + b"\0"),
        Alert.DECODE_ERROR,
    ),
}


@cells(("Certificate", CERTIFICATE))
def test_one_wrong_certificate(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.CERTIFICATE, cell, to_server=True, settings=mutual)
    if cell.alert is not Alert.CERTIFICATE_REQUIRED:
        # One that is shown is judged also where none had to be.
        shown_freely = mutual()[0], optional()[1]
        replaced(flavor, _KT.CERTIFICATE, cell, to_server=True, settings=lambda: shown_freely)


def transcript_hash(pair: Pair) -> bytes:
    """The hash over everything delivered and waiting up to the client's Certificate."""
    suite = next(one for one in pair.delivered if one.kind is _KT.SERVER_HELLO)
    transcript = Transcript(pair.server_settings.provider, SUITES[server_hello(suite.message).suite])
    for delivery in pair.delivered:
        transcript.add(delivery.message)
    return transcript.hash()


def signed(content: Callable[[Pair], bytes]) -> Change:
    def change(message: bytes, pair: Pair) -> bytes:
        [credential] = pair.client_settings.credentials
        scheme = SignatureScheme.ECDSA_SECP256R1_SHA256
        return CertificateVerify(scheme, credential.sign(scheme, content(pair))).encode()

    return change


def named(scheme: SignatureScheme) -> Change:
    return lambda message, pair: replace(certificate_verify(message), scheme=scheme).encode()


VERIFY: dict[str, Cell] = {
    "flipped": Cell(("8446-AUTH-2",), flipped, Alert.DECRYPT_ERROR),
    "in the server's name": Cell(
        ("8446-AUTH-2",),
        signed(lambda pair: signed_content(Purpose.SERVER, transcript_hash(pair))),
        Alert.DECRYPT_ERROR,
    ),
    "over another transcript": Cell(
        ("8446-AUTH-2",), signed(lambda pair: signed_content(Purpose.CLIENT, bytes(32))), Alert.DECRYPT_ERROR
    ),
    "of another curve": Cell(
        ("8446-AUTH-2",), named(SignatureScheme.ECDSA_SECP384R1_SHA384), Alert.ILLEGAL_PARAMETER
    ),
    "with PKCS #1": Cell(("8446-AUTH-2",), named(SignatureScheme.RSA_PKCS1_SHA256), Alert.ILLEGAL_PARAMETER),
    "with a scheme nobody asked for": Cell(
        ("8446-AUTH-2",), named(SignatureScheme.ED448), Alert.ILLEGAL_PARAMETER, "ED448"
    ),
    "cut short": Cell(
        ("8446-NEG-10",),
        lambda message, pair: frame(_KT.CERTIFICATE_VERIFY, message[4:-1]),
        Alert.DECODE_ERROR,
    ),
}


@cells(("CertificateVerify", VERIFY))
def test_one_wrong_certificate_verify(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.CERTIFICATE_VERIFY, cell, to_server=True, settings=mutual)


@each_flavor
def test_the_right_signature_made_here_is_accepted(flavor: Flavor) -> None:
    """The cells above would prove nothing if their way of signing were wrong in itself."""
    pair = Pair(flavor, mutual())
    delivery = pair.run_until(_KT.CERTIFICATE_VERIFY, to_server=True)
    message = signed(lambda pair: signed_content(Purpose.CLIENT, transcript_hash(pair)))(
        delivery.message, pair
    )
    pair.waiting.popleft()
    pair.deliver(delivery.but(message))


FINISHED: dict[str, Cell] = {
    "flipped": Cell(("8446-KS-4",), flipped, Alert.DECRYPT_ERROR),
    "too short": Cell(
        ("8446-KS-4",), lambda message, pair: frame(_KT.FINISHED, message[4:-1]), Alert.DECODE_ERROR
    ),
    "too long": Cell(
        ("8446-KS-4",), lambda message, pair: frame(_KT.FINISHED, message[4:] + b"\0"), Alert.DECODE_ERROR
    ),
    "the server's own": Cell(
        ("8446-KS-4",),
        lambda message, pair: next(one.message for one in pair.delivered if one.kind is _KT.FINISHED),
        Alert.DECRYPT_ERROR,
    ),
}


@cells(("Finished", FINISHED))
def test_one_wrong_finished(flavor: Flavor, cell: Cell) -> None:
    for settings in (default, mutual, optional):
        replaced(flavor, _KT.FINISHED, cell, to_server=True, settings=settings)


@each_flavor
@pytest.mark.requirement("8446-AUTH-3")
def test_a_certificate_without_its_proof(flavor: Flavor) -> None:
    for settings in (mutual(), (mutual()[0], optional()[1])):
        pair = Pair(flavor, settings)
        pair.rogue = lambda one: [] if one.to_server and one.kind is _KT.CERTIFICATE_VERIFY else [one]
        refused(pair, Alert.UNEXPECTED_MESSAGE, "expected CERTIFICATE_VERIFY, got FINISHED", victim="server")


@each_flavor
@pytest.mark.requirement("8446-AUTH-3")
def test_a_proof_without_a_certificate(flavor: Flavor) -> None:
    pair = Pair(flavor, optional())
    proof = CertificateVerify(SignatureScheme.ECDSA_SECP256R1_SHA256, b"x").encode()
    pair.run_until(_KT.FINISHED, to_server=True)
    pair.waiting.appendleft(Delivery(True, 2, proof))
    refused(pair, Alert.UNEXPECTED_MESSAGE, "expected FINISHED", victim="server")


@each_flavor
@pytest.mark.requirement("8446-AUTH-3")
def test_no_certificate_message_at_all(flavor: Flavor) -> None:
    for settings in (mutual(), optional()):
        pair = Pair(flavor, settings)
        pair.rogue = lambda one: (
            [] if one.to_server and one.kind in (_KT.CERTIFICATE, _KT.CERTIFICATE_VERIFY) else [one]
        )
        refused(pair, Alert.UNEXPECTED_MESSAGE, "got FINISHED", victim="server")


@each_flavor
@pytest.mark.requirement("8446-AUTH-4")
def test_a_certificate_nobody_asked_for(flavor: Flavor) -> None:
    pair = Pair(flavor)
    pair.run_until(_KT.FINISHED, to_server=True)
    pair.waiting.appendleft(Delivery(True, 2, Certificate(b"", ()).encode()))
    refused(pair, Alert.UNEXPECTED_MESSAGE, "expected FINISHED, got CERTIFICATE", victim="server")


@each_flavor
@pytest.mark.requirement("8446-AUTH-5")
@pytest.mark.parametrize(
    ("days", "failure"), [(400, CertificateFailure.EXPIRED), (-400, CertificateFailure.NOT_YET_VALID)]
)
def test_certificates_out_of_their_time(flavor: Flavor, days: int, failure: CertificateFailure) -> None:
    ours, theirs = mutual()
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    verifier = CertificateVerifier((certificates.client().root,), clock=lambda: now)
    pair = Pair(flavor, (ours, replace(theirs, verifier=verifier)))
    error = refused(pair, Alert.CERTIFICATE_EXPIRED, victim="server")
    assert isinstance(error, CertificateError)
    assert error.failure is failure
