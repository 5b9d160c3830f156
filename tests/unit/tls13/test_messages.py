"""Each handshake message both ways: what is encoded is decoded again, and what is broken is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealwire.errors import Alert, ProtocolError
from sealwire.tls13.flavor import DTLS, TLS
from sealwire.tls13.messages import (
    HELLO_RETRY_RANDOM,
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    CompressedCertificate,
    EncryptedExtensions,
    Finished,
    HandshakeType,
    KeyUpdate,
    NewSessionTicket,
    ServerHello,
    frame,
    open_message,
)
from sealwire.wire import Reader
from tests.unit.tls13 import strategies


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of message: any of it, and its codec."""

    any: st.SearchStrategy[Any]
    decode: Callable[[Reader], Any]
    encode: Callable[[Any], bytes]
    kind: HandshakeType


def shape(any_: st.SearchStrategy[Any], decode: Callable[[Reader], Any], kind: HandshakeType) -> Shape:
    return Shape(any_, decode, lambda message: message.encode(), kind)


_KT = HandshakeType
SHAPES = {
    "ClientHello of a stream": Shape(
        strategies.client_hellos(TLS),
        lambda reader: ClientHello.decode(reader, TLS),
        lambda hello: hello.encode(TLS),
        _KT.CLIENT_HELLO,
    ),
    "ClientHello of datagrams": Shape(
        strategies.client_hellos(DTLS),
        lambda reader: ClientHello.decode(reader, DTLS),
        lambda hello: hello.encode(DTLS),
        _KT.CLIENT_HELLO,
    ),
    "ServerHello": shape(strategies.server_hellos, ServerHello.decode, _KT.SERVER_HELLO),
    "HelloRetryRequest": shape(strategies.retry_requests, ServerHello.decode, _KT.SERVER_HELLO),
    "EncryptedExtensions": shape(
        strategies.encrypted_extensions, EncryptedExtensions.decode, _KT.ENCRYPTED_EXTENSIONS
    ),
    "CertificateRequest": shape(
        strategies.certificate_requests, CertificateRequest.decode, _KT.CERTIFICATE_REQUEST
    ),
    "Certificate": shape(
        strategies.certificates, lambda reader: Certificate.decode(reader, 10), _KT.CERTIFICATE
    ),
    "CompressedCertificate": shape(
        strategies.compressed_certificates, CompressedCertificate.decode, _KT.COMPRESSED_CERTIFICATE
    ),
    "CertificateVerify": shape(
        strategies.certificate_verifies, CertificateVerify.decode, _KT.CERTIFICATE_VERIFY
    ),
    "Finished": shape(strategies.finished, lambda reader: Finished.decode(reader, 32), _KT.FINISHED),
    "NewSessionTicket": shape(strategies.tickets, NewSessionTicket.decode, _KT.NEW_SESSION_TICKET),
    "KeyUpdate": shape(strategies.key_updates, KeyUpdate.decode, _KT.KEY_UPDATE),
}


def decoded_or_alert(kind: Shape, body: bytes) -> Any:
    """The message, or the alert of the one error that may be raised instead."""
    try:
        return kind.decode(Reader(body))
    except ProtocolError as error:
        return error.alert


each_shape = pytest.mark.parametrize("name", SHAPES)
#: Building a block draws much, and how fast is no property of ours.
drawn = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.requirement("8446-NEG-1")
@each_shape
@given(data=st.data())
@drawn
def test_what_is_encoded_is_decoded_again(name: str, data: st.DataObject) -> None:
    kind = SHAPES[name]
    message = data.draw(kind.any)
    encoded = kind.encode(message)
    opened, body = open_message(encoded)
    assert opened is kind.kind
    decoded = kind.decode(body)
    assert decoded == message
    assert kind.encode(decoded) == encoded


@pytest.mark.requirement("8446-NEG-10")
@each_shape
@given(data=st.data())
@drawn
def test_no_prefix_is_a_message(name: str, data: st.DataObject) -> None:
    kind = SHAPES[name]
    encoded = kind.encode(data.draw(kind.any))
    body = encoded[4:]
    for n in range(len(encoded)):
        # The length is left as it was, and so says more than there is.
        with pytest.raises(ProtocolError) as caught:
            open_message(encoded[:n])
        assert caught.value.alert is Alert.DECODE_ERROR
    for n in range(len(body)):
        decoded = decoded_or_alert(kind, body[:n])
        if decoded is not Alert.DECODE_ERROR:
            # Hellos without any extension block are those of older versions, and well formed.
            assert isinstance(decoded, ClientHello | ServerHello)
            assert len(decoded.extensions) == 0
            assert kind.encode(decoded) == frame(kind.kind, body[:n] + b"\0\0")


@pytest.mark.requirement("8446-NEG-10")
@each_shape
@given(data=st.data(), more=st.binary(min_size=1, max_size=5))
@drawn
def test_nothing_may_follow_a_message(name: str, data: st.DataObject, more: bytes) -> None:
    kind = SHAPES[name]
    encoded = kind.encode(data.draw(kind.any))
    for call in (lambda: open_message(encoded + more), lambda: kind.decode(Reader(encoded[4:] + more))):
        with pytest.raises(ProtocolError) as caught:
            call()
        assert caught.value.alert is Alert.DECODE_ERROR


@each_shape
@given(data=st.data())
@drawn
def test_one_changed_byte_is_a_value_or_an_alert(name: str, data: st.DataObject) -> None:
    kind = SHAPES[name]
    body = bytearray(kind.encode(data.draw(kind.any))[4:])
    at = data.draw(st.integers(0, max(len(body) - 1, 0)))
    if body:
        body[at] ^= data.draw(st.integers(1, 255))
    decoded = decoded_or_alert(kind, bytes(body))
    if isinstance(decoded, Alert):
        assert decoded in (Alert.DECODE_ERROR, Alert.ILLEGAL_PARAMETER)
    else:
        # Nothing is lost: what was understood says the same bytes again.
        assert kind.encode(decoded)[4:] == bytes(body) or not decoded.extensions


@each_shape
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_an_alert(name: str, body: bytes) -> None:
    decoded = decoded_or_alert(SHAPES[name], body)
    if isinstance(decoded, Alert):
        assert decoded in (Alert.DECODE_ERROR, Alert.ILLEGAL_PARAMETER, Alert.BAD_CERTIFICATE)


@given(st.integers(0, 255), st.binary(max_size=50))
def test_any_type_is_opened(code: int, body: bytes) -> None:
    kind, reader = open_message(memoryview(frame(HandshakeType(code), body)))
    assert kind == code
    assert reader.rest() == body


@pytest.mark.requirement("8446-POST-1")
@pytest.mark.parametrize("value", range(2, 256))
def test_key_update_knows_two_values(value: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        KeyUpdate.decode(Reader(bytes((value,))))
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize("hash_bytes", [32, 48])
def test_finished_has_the_length_of_the_hash(hash_bytes: int) -> None:
    for n in range(64):
        if n == hash_bytes:
            assert Finished.decode(Reader(bytes(n)), hash_bytes) == Finished(bytes(n))
            continue
        with pytest.raises(ProtocolError) as caught:
            Finished.decode(Reader(bytes(n)), hash_bytes)
        assert caught.value.alert is Alert.DECODE_ERROR


def test_a_certificate_list_is_counted_before_it_is_kept() -> None:
    entry = bytes.fromhex("000001 30 0000")
    body = b"\0" + (len(entry) * 4).to_bytes(3, "big") + entry * 4
    assert len(Certificate.decode(Reader(body), 4).entries) == 4
    with pytest.raises(ProtocolError, match="longer than 3") as caught:
        Certificate.decode(Reader(body), 3)
    assert caught.value.alert is Alert.BAD_CERTIFICATE
    # What comes after the bound is not even read.
    with pytest.raises(ProtocolError, match="longer than 3"):
        Certificate.decode(Reader(body[:-1] + b"\xff"), 3)


def test_a_hello_retry_request_is_told_by_its_random() -> None:
    hello = ServerHello.decode(
        Reader(bytes.fromhex("0303") + HELLO_RETRY_RANDOM + bytes.fromhex("00 1301 00"))
    )
    assert hello.is_retry_request
    other = bytes((HELLO_RETRY_RANDOM[0] ^ 1,)) + HELLO_RETRY_RANDOM[1:]
    assert not ServerHello.decode(
        Reader(bytes.fromhex("0303") + other + bytes.fromhex("00 1301 00"))
    ).is_retry_request
    # RFC 8446 section 4.1.3: the value is the hash of a name.
    assert hashlib.sha256(b"HelloRetryRequest").digest() == HELLO_RETRY_RANDOM
