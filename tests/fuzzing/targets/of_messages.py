"""Decoders of messages and of what is around them."""

from __future__ import annotations

from typing import Final

from sealwire.dtls.cid import decode_new_connection_id
from sealwire.dtls.header import (
    decode_ack,
    decode_alert,
    decode_fragments,
    decode_plaintext,
    encode_ack,
    encode_plaintext,
)
from sealwire.errors import Discard, ProtocolError
from sealwire.record.header import parse_ciphertext_header
from sealwire.tls13.flavor import DTLS, TLS
from sealwire.tls13.messages import (
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    HandshakeType,
    KeyUpdate,
    NewSessionTicket,
    ServerHello,
    frame,
    open_message,
)
from sealwire.wire import Reader
from tests.fuzzing.targets.promise import Target, known, plain_decoder
from tests.fuzzing.test_messages import decode


def _message(kind: HandshakeType, flavor_bit: bool) -> Target:
    """A decoder, and the law that what it accepts is what it would send."""
    flavor = DTLS if flavor_bit else TLS

    def target(body: bytes) -> None:
        message = frame(kind, body)
        try:
            value = decode(message, flavor)
        except ProtocolError as error:
            known(error)
            return
        match value:
            case ClientHello() | ServerHello() if not len(value.extensions):
                # Of an older version: it ends before its extensions, and the version is what is answered.
                pass
            case ClientHello():
                assert value.encode(flavor) == message
            case (
                ServerHello()
                | EncryptedExtensions()
                | CertificateRequest()
                | CertificateVerify()
                | NewSessionTicket()
                | KeyUpdate()
            ):
                assert value.encode() == message
            case _:
                pass

    return target


def _raw_message(data: bytes) -> None:
    for flavor in (TLS, DTLS):
        try:
            open_message(data)
            decode(data, flavor)
        except ProtocolError as error:
            known(error)


def _ack(data: bytes) -> None:
    numbers = decode_ack(data)
    assert sorted(decode_ack(encode_ack(numbers))) == sorted(numbers)


def _plaintext(data: bytes) -> None:
    at = 0
    while at < len(data):
        record = decode_plaintext(data, at)
        if isinstance(record, Discard):
            return
        assert at < record.end <= len(data)
        written = encode_plaintext(record.content_type, record.sequence, record.content)
        assert written[3:] == data[at + 3 : record.end]
        try:
            decode_fragments(record.content)
        except ProtocolError as error:
            known(error)
        at = record.end


def _ciphertext_header(data: bytes) -> None:
    cid_bytes = data[0] % 21 if data else 0
    for at in range(min(len(data), 4)):
        if data[at] >> 5 == 1:
            header = parse_ciphertext_header(data, at, cid_bytes)
            assert isinstance(header, Discard) or at < header.body_offset <= header.end <= len(data)


_KINDS: Final = (
    HandshakeType.CLIENT_HELLO,
    HandshakeType.SERVER_HELLO,
    HandshakeType.ENCRYPTED_EXTENSIONS,
    HandshakeType.CERTIFICATE_REQUEST,
    HandshakeType.CERTIFICATE,
    HandshakeType.CERTIFICATE_VERIFY,
    HandshakeType.FINISHED,
    HandshakeType.NEW_SESSION_TICKET,
    HandshakeType.KEY_UPDATE,
)

MESSAGES: Final[tuple[Target, ...]] = (
    *(_message(kind, flavor) for kind in _KINDS for flavor in (False, True)),
    _raw_message,
    plain_decoder(decode_fragments),
    plain_decoder(_ack),
    plain_decoder(decode_alert),
    _plaintext,
    plain_decoder(lambda data: decode_new_connection_id(Reader(data))),
    _ciphertext_header,
)
