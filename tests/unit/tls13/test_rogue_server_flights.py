"""A server whose protected messages or certificates are wrong, and the one alert the client has for it."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace

import pytest

from sealwire.context import Config
from sealwire.crypto.certificates import CertificateVerifier, Purpose
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.suites import SUITES
from sealwire.errors import Alert, CertificateError, CertificateFailure
from sealwire.tls13 import extensions as ext
from sealwire.tls13.authentication import signed_content
from sealwire.tls13.extensions import Extensions, Where
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.messages import (
    Certificate,
    CertificateEntry,
    CertificateVerify,
    HandshakeType,
    frame,
)
from sealwire.tls13.transcript import Transcript
from tests import certificates, configs
from tests.certificates import Kind
from tests.unit.tls13.cells import Cell, Change, cells, flipped, replaced
from tests.unit.tls13.engines import (
    Pair,
    certificate,
    certificate_request,
    certificate_verify,
    client,
    each_flavor,
    encrypted_extensions,
    mutual,
    put,
    refused,
    server,
    server_hello,
    with_alpn,
    with_raw_extension,
    without,
)

_KT = HandshakeType


def encrypted(code: int, value: object) -> Change:
    def change(message: bytes, pair: Pair) -> bytes:
        block = encrypted_extensions(message).extensions
        return replace(encrypted_extensions(message), extensions=put(block, code, value)).encode()

    return change


def encrypted_raw(code: int, body: bytes, *, once: bool = True) -> Change:
    def change(message: bytes, pair: Pair) -> bytes:
        block = encrypted_extensions(message).extensions
        return with_raw_extension(message, without(block, code) if once else block, code, body)

    return change


ENCRYPTED: dict[str, Cell] = {
    "an answer to nothing": Cell(("8446-NEG-2",), encrypted(0xFAFA, b""), Alert.UNSUPPORTED_EXTENSION),
    "early data accepted that was not announced": Cell(
        ("8446-NEG-2", "8446-0RTT-1"),
        encrypted(ext.EARLY_DATA.code, True),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "a protocol without an offer": Cell(
        ("8446-NEG-2", "8446-NEG-9"),
        encrypted(ext.ALPN.code, (b"b/2",)),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "a protocol that was not offered": Cell(
        ("8446-NEG-9",),
        encrypted(ext.ALPN.code, (b"c/3",)),
        Alert.ILLEGAL_PARAMETER,
        "protocol",
        with_alpn,
    ),
    "two protocols": Cell(
        ("8446-NEG-9",),
        encrypted(ext.ALPN.code, (b"a/1", b"b/2")),
        Alert.DECODE_ERROR,
        "",
        with_alpn,
    ),
    "no protocol in the list": Cell(
        ("8446-NEG-9", "8446-NEG-10"),
        encrypted(ext.ALPN.code, ()),
        Alert.DECODE_ERROR,
        "",
        with_alpn,
    ),
    "protocols twice": Cell(
        ("8446-NEG-2",),
        encrypted_raw(16, b"\0\x04\x03b/2", once=False),
        Alert.ILLEGAL_PARAMETER,
        "repeats",
        with_alpn,
    ),
    "a name that says something": Cell(
        ("6066-1", "8446-NEG-10"),
        encrypted_raw(0, bytes.fromhex("0004000001 61")),
        Alert.DECODE_ERROR,
    ),
    "a key share": Cell(("8446-NEG-2",), encrypted_raw(51, b""), Alert.ILLEGAL_PARAMETER, "belong"),
    "a version": Cell(
        ("8446-NEG-2",),
        encrypted_raw(43, b"\x03\x04"),
        Alert.ILLEGAL_PARAMETER,
        "belong",
    ),
    "bytes behind it": Cell(
        ("8446-NEG-10",),
        lambda message, pair: frame(_KT.ENCRYPTED_EXTENSIONS, message[4:] + b"\0"),
        Alert.DECODE_ERROR,
    ),
}


def request_block(change: Callable[[Extensions], Extensions]) -> Change:
    def make(message: bytes, pair: Pair) -> bytes:
        request = certificate_request(message)
        return replace(request, extensions=change(request.extensions)).encode()

    return make


REQUEST: dict[str, Cell] = {
    "with a context": Cell(
        ("8446-POST-4",),
        lambda message, pair: replace(certificate_request(message), context=b"c").encode(),
        Alert.ILLEGAL_PARAMETER,
        "context",
        mutual,
    ),
    "without schemes": Cell(
        ("8446-NEG-7",),
        request_block(lambda block: without(block, 13)),
        Alert.MISSING_EXTENSION,
        "signature_algorithms",
        mutual,
    ),
    "with no scheme": Cell(
        ("8446-NEG-10",),
        request_block(lambda block: put(block, 13, ())),
        Alert.DECODE_ERROR,
        "",
        mutual,
    ),
    "with a key share": Cell(
        ("8446-NEG-2",),
        request_block(lambda block: put(block, 51, b"")),
        Alert.ILLEGAL_PARAMETER,
        "belong",
        mutual,
    ),
    "with schemes twice": Cell(
        ("8446-NEG-2",),
        lambda message, pair: with_raw_extension(
            message, certificate_request(message).extensions, 13, b"\0\x02\x04\x03"
        ),
        Alert.ILLEGAL_PARAMETER,
        "repeats",
        mutual,
    ),
}


def shown(change: Callable[[Certificate], Certificate]) -> Change:
    return lambda message, pair: change(certificate(message)).encode()


def entry_extension(code: int, body: object) -> Change:
    def change(message: Certificate) -> Certificate:
        first, *others = message.entries
        block = put(first.extensions, code, body)
        return replace(message, entries=(CertificateEntry(first.der, block), *others))

    return shown(change)


def leaf(der: Callable[[bytes], bytes]) -> Change:
    def change(message: Certificate) -> Certificate:
        first, *others = message.entries
        return replace(message, entries=(CertificateEntry(der(first.der), first.extensions), *others))

    return shown(change)


def many(message: Certificate) -> Certificate:
    return replace(message, entries=message.entries * 11)


def heavy(message: Certificate) -> Certificate:
    bulk = CertificateEntry(bytes(48 * 1024), Extensions(Where.CERTIFICATE))
    return replace(message, entries=(*message.entries, bulk))


CERTIFICATE: dict[str, Cell] = {
    "empty": Cell(
        ("8446-AUTH-1",),
        shown(lambda message: replace(message, entries=())),
        Alert.DECODE_ERROR,
        "empty",
    ),
    "with a context": Cell(
        ("8446-AUTH-1",),
        shown(lambda message: replace(message, context=b"c")),
        Alert.ILLEGAL_PARAMETER,
        "context",
    ),
    "with an answer to nothing": Cell(
        ("8446-NEG-2", "8446-AUTH-6"),
        entry_extension(18, (b"x",)),
        Alert.UNSUPPORTED_EXTENSION,
    ),
    "with an extension of another message": Cell(
        ("8446-NEG-2",), entry_extension(10, b""), Alert.ILLEGAL_PARAMETER, "belong"
    ),
    "with an empty certificate": Cell(("8446-NEG-10",), leaf(lambda der: b""), Alert.DECODE_ERROR),
    "that is no certificate": Cell(("8446-AUTH-5",), leaf(lambda der: b"nonsense"), Alert.BAD_CERTIFICATE),
    "cut short": Cell(("8446-AUTH-5",), leaf(lambda der: der[:-1]), Alert.BAD_CERTIFICATE),
    "with a changed signature": Cell(
        ("8446-AUTH-5",),
        leaf(lambda der: der[:-1] + bytes((der[-1] ^ 1,))),
        Alert.UNKNOWN_CA,
    ),
    "with too many certificates": Cell(
        ("8446-AUTH-5",), shown(many), Alert.BAD_CERTIFICATE, "longer than 10 certificates"
    ),
    "with too many bytes": Cell(
        ("8446-AUTH-5",), shown(heavy), Alert.BAD_CERTIFICATE, "longer than 49152 bytes"
    ),
    "of somebody else": Cell(
        ("8446-AUTH-5",),
        leaf(lambda der: certificates.server(Kind.RSA_2048).chain[0]),
        Alert.UNKNOWN_CA,
    ),
    "of a client": Cell(
        ("8446-AUTH-5",),
        leaf(lambda der: certificates.client(name="localhost").chain[0]),
        Alert.UNSUPPORTED_CERTIFICATE,
    ),
    "for another name": Cell(
        ("8446-AUTH-5",),
        leaf(lambda der: certificates.server(names=("other.example",)).chain[0]),
        Alert.BAD_CERTIFICATE,
        "localhost",
    ),
}


def transcript_hash(pair: Pair) -> bytes:
    """The hash over everything the client has seen up to now, without a retry."""
    hellos = [one for one in pair.delivered if one.kind is _KT.SERVER_HELLO]
    transcript = Transcript(pair.client_settings.provider, SUITES[server_hello(hellos[0].message).suite])
    for delivery in pair.delivered:
        transcript.add(delivery.message)
    return transcript.hash()


def signed(scheme: SignatureScheme, content: Callable[[Pair], bytes]) -> Change:
    """A CertificateVerify by the server's own key over something."""

    def change(message: bytes, pair: Pair) -> bytes:
        [credential] = pair.server_settings.credentials
        return CertificateVerify(scheme, credential.sign(scheme, content(pair))).encode()

    return change


def named(scheme: SignatureScheme) -> Change:
    """The right signature, said to be of another scheme."""
    return lambda message, pair: replace(certificate_verify(message), scheme=scheme).encode()


_P256 = SignatureScheme.ECDSA_SECP256R1_SHA256
VERIFY: dict[str, Cell] = {
    "flipped": Cell(("8446-AUTH-2",), flipped, Alert.DECRYPT_ERROR),
    "empty": Cell(
        ("8446-AUTH-2",),
        lambda message, pair: CertificateVerify(_P256, b"").encode(),
        Alert.DECRYPT_ERROR,
    ),
    "in the client's name": Cell(
        ("8446-AUTH-2",),
        signed(_P256, lambda pair: signed_content(Purpose.CLIENT, transcript_hash(pair))),
        Alert.DECRYPT_ERROR,
    ),
    "over another transcript": Cell(
        ("8446-AUTH-2",),
        signed(_P256, lambda pair: signed_content(Purpose.SERVER, bytes(32))),
        Alert.DECRYPT_ERROR,
    ),
    "over the bare hash": Cell(("8446-AUTH-2",), signed(_P256, transcript_hash), Alert.DECRYPT_ERROR),
    "of another curve": Cell(
        ("8446-AUTH-2",),
        named(SignatureScheme.ECDSA_SECP384R1_SHA384),
        Alert.ILLEGAL_PARAMETER,
        "does not fit",
    ),
    "of another kind of key": Cell(
        ("8446-AUTH-2",),
        named(SignatureScheme.RSA_PSS_RSAE_SHA256),
        Alert.ILLEGAL_PARAMETER,
        "does not fit",
    ),
    "with PKCS #1, which certificates may use": Cell(
        ("8446-AUTH-2",),
        named(SignatureScheme.RSA_PKCS1_SHA256),
        Alert.ILLEGAL_PARAMETER,
        "RSA_PKCS1_SHA256",
    ),
    "with SHA-1": Cell(
        ("8446-AUTH-2",),
        named(SignatureScheme.ECDSA_SHA1),
        Alert.ILLEGAL_PARAMETER,
        "ECDSA_SHA1",
    ),
    "with a scheme nobody knows": Cell(
        ("8446-AUTH-2",), named(SignatureScheme(0x0A0A)), Alert.ILLEGAL_PARAMETER
    ),
    "bytes behind it": Cell(
        ("8446-NEG-10",),
        lambda message, pair: frame(_KT.CERTIFICATE_VERIFY, message[4:] + b"\0"),
        Alert.DECODE_ERROR,
    ),
}

FINISHED: dict[str, Cell] = {
    "flipped": Cell(("8446-KS-4",), flipped, Alert.DECRYPT_ERROR),
    "zeros": Cell(
        ("8446-KS-4",),
        lambda message, pair: frame(_KT.FINISHED, bytes(len(message) - 4)),
        Alert.DECRYPT_ERROR,
    ),
    "too short": Cell(
        ("8446-KS-4", "8446-NEG-10"),
        lambda message, pair: frame(_KT.FINISHED, message[4:-1]),
        Alert.DECODE_ERROR,
    ),
    "too long": Cell(
        ("8446-KS-4", "8446-NEG-10"),
        lambda message, pair: frame(_KT.FINISHED, message[4:] + b"\0"),
        Alert.DECODE_ERROR,
    ),
    "empty": Cell(("8446-KS-4",), lambda message, pair: frame(_KT.FINISHED, b""), Alert.DECODE_ERROR),
}


@cells(("EncryptedExtensions", ENCRYPTED))
def test_one_wrong_encrypted_extensions(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.ENCRYPTED_EXTENSIONS, cell, to_server=False)


@cells(("CertificateRequest", REQUEST))
def test_one_wrong_certificate_request(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.CERTIFICATE_REQUEST, cell, to_server=False)


@cells(("Certificate", CERTIFICATE))
def test_one_wrong_certificate(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.CERTIFICATE, cell, to_server=False)


@cells(("CertificateVerify", VERIFY))
def test_one_wrong_certificate_verify(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.CERTIFICATE_VERIFY, cell, to_server=False)


@cells(("Finished", FINISHED))
def test_one_wrong_finished(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.FINISHED, cell, to_server=False)


@pytest.mark.requirement("8446-AUTH-2")
@each_flavor
def test_a_scheme_the_client_did_not_offer(flavor: Flavor) -> None:
    """Both know it and the key can make it; only the client's list speaks against it."""
    schemes = (SignatureScheme.RSA_PSS_RSAE_SHA512,)
    identity = certificates.server(Kind.RSA_2048)
    ours = replace(client(roots=identity.cafile), signature_schemes=schemes)
    theirs = _with(identity)
    pair = Pair(flavor, (ours, theirs))
    delivery = pair.run_until(_KT.CERTIFICATE_VERIFY, to_server=False)
    pair.waiting.popleft()
    [credential] = theirs.credentials
    scheme = SignatureScheme.RSA_PSS_RSAE_SHA256
    content = signed_content(Purpose.SERVER, transcript_hash(pair))
    message = CertificateVerify(scheme, credential.sign(scheme, content)).encode()
    refused(
        pair,
        Alert.ILLEGAL_PARAMETER,
        "which was not offered",
        victim="client",
        act=lambda: pair.deliver(delivery.but(message)),
    )


# --- certificates ------------------------------------------------------------------------------


def at(settings: Config, days: float) -> Config:
    """The same settings, judged by a clock that is off."""
    roots = (certificates.server().root,)
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    return replace(settings, verifier=CertificateVerifier(roots, clock=lambda: now))


@each_flavor
@pytest.mark.requirement("8446-AUTH-5")
@pytest.mark.parametrize(
    ("settings", "name", "alert", "failure"),
    [
        (lambda: at(client(), 400), "localhost", Alert.CERTIFICATE_EXPIRED, CertificateFailure.EXPIRED),
        (
            lambda: at(client(), -400),
            "localhost",
            Alert.CERTIFICATE_EXPIRED,
            CertificateFailure.NOT_YET_VALID,
        ),
        (
            lambda: client(roots=certificates.server(Kind.RSA_2048).cafile),
            "localhost",
            Alert.UNKNOWN_CA,
            CertificateFailure.UNKNOWN_ISSUER,
        ),
        (client, "wrong.example", Alert.BAD_CERTIFICATE, CertificateFailure.WRONG_NAME),
        (client, "127.0.0.2", Alert.BAD_CERTIFICATE, CertificateFailure.WRONG_NAME),
    ],
    ids=["expired", "not yet valid", "unknown issuer", "wrong name", "wrong address"],
)
def test_certificates_that_are_refused(
    flavor: Flavor,
    settings: Callable[[], Config],
    name: str,
    alert: Alert,
    failure: CertificateFailure,
) -> None:
    error = refused(Pair(flavor, (settings(), server()), server_name=name), alert, victim="client")
    assert isinstance(error, CertificateError)
    assert error.failure is failure


@each_flavor
def test_the_bounds_on_a_chain_are_inclusive(flavor: Flavor) -> None:
    identity = certificates.server(intermediates=2)
    theirs = _with(identity)
    ours = client(roots=identity.cafile)
    length, size = len(identity.chain), identity.chain_bytes
    for exact, below, limit in (
        (replace(ours, max_chain_length=length), replace(ours, max_chain_length=length - 1), length - 1),
        (replace(ours, max_chain_bytes=size), replace(ours, max_chain_bytes=size - 1), size - 1),
    ):
        assert Pair(flavor, (exact, theirs), run=True).connected
        refused(Pair(flavor, (below, theirs)), Alert.BAD_CERTIFICATE, f"longer than {limit}", victim="client")


def _with(identity: certificates.Identity) -> Config:
    return configs.server_context(identity).config()


@each_flavor
@pytest.mark.requirement("8446-AUTH-2")
def test_without_verification_the_key_must_still_be_held(flavor: Flavor) -> None:
    stranger = client(roots=certificates.server(Kind.RSA_2048).cafile)
    ours = replace(stranger, verify_mode=0, check_hostname=False)
    assert Pair(flavor, (ours, server()), run=True).connected
    pair = Pair(flavor, (ours, server()))
    delivery = pair.run_until(_KT.CERTIFICATE_VERIFY, to_server=False)
    pair.waiting[0] = delivery.but(flipped(delivery.message, pair))
    refused(pair, Alert.DECRYPT_ERROR, victim="client")
    pair = Pair(flavor, (ours, server()))
    delivery = pair.run_until(_KT.CERTIFICATE, to_server=False)
    pair.waiting[0] = delivery.but(leaf(lambda der: b"nonsense")(delivery.message, pair))
    refused(pair, Alert.BAD_CERTIFICATE, victim="client")
