"""The table of extensions: which message may hold what, in which shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.compression import CompressionAlgorithm
from sealwire.crypto.groups import Group
from sealwire.errors import Alert, ProtocolError
from sealwire.tls13 import extensions as ext
from sealwire.tls13 import values
from sealwire.tls13.extensions import Extension, Extensions, Where
from sealwire.tls13.values import CertificateType
from sealwire.wire import Reader, Writer
from tests.unit.tls13.strategies import VALUES, blocks

_CH, _SH, _HRR = Where.CLIENT_HELLO, Where.SERVER_HELLO, Where.HELLO_RETRY_REQUEST
_EE, _CR, _NST = Where.ENCRYPTED_EXTENSIONS, Where.CERTIFICATE_REQUEST, Where.NEW_SESSION_TICKET
_CT = Where.CERTIFICATE

# RFC 8446 section 4.2 (the table), RFC 8879 section 7.1 and RFC 9146 section 3, written down a second time.
PLACES: dict[int, set[Where]] = {
    0: {_CH, _EE},
    5: {_CH, _CR, _CT},
    10: {_CH, _EE},
    13: {_CH, _CR},
    14: {_CH, _EE},
    16: {_CH, _EE},
    18: {_CH, _CR, _CT},
    19: {_CH, _EE},
    20: {_CH, _EE},
    27: {_CH, _CR},
    28: {_CH, _EE},
    41: {_CH, _SH},
    42: {_CH, _EE, _NST},
    43: {_CH, _SH, _HRR},
    44: {_CH, _HRR},
    45: {_CH},
    47: {_CH, _CR},
    49: {_CH},
    50: {_CH, _CR},
    51: {_CH, _SH, _HRR},
    54: {_CH, _SH},
    58: {_CH, _EE},
    61: {_CH, _SH},
}


def block_of(*entries: tuple[int, bytes]) -> bytes:
    writer = Writer()
    with writer.length16():
        for code, body in entries:
            writer.u16(code)
            writer.vector16(body)
    return writer.finish()


def body_of(key: Extension[Any], value: Any) -> bytes:
    writer = Writer()
    key.encode(writer, value)
    return writer.finish()


def decode(data: bytes, where: Where) -> Extensions:
    reader = Reader(data)
    block = Extensions.decode(reader, where)
    assert reader.remaining == 0
    return block


def refusal(data: bytes, where: Where) -> Alert:
    with pytest.raises(ProtocolError) as caught:
        decode(data, where).refuse_misplaced()
    return caught.value.alert


def test_every_extension_is_drawn_by_these_tests() -> None:
    assert set(VALUES) == set(ext._ALL)


@pytest.mark.requirement("8446-NEG-2")
def test_the_table_is_that_of_the_rfc() -> None:
    places: dict[int, set[Where]] = {}
    for key in ext._ALL:
        assert places.setdefault(key.code, set()).isdisjoint(key.where), key.name
        places[key.code] |= set(key.where)
    assert places == PLACES


@pytest.mark.requirement("8446-NEG-2")
@pytest.mark.parametrize("where", Where)
@pytest.mark.parametrize("code", PLACES)
def test_each_cell_of_the_table(code: int, where: Where) -> None:
    key = next((key for key in ext._ALL if key.code == code and where in key.where), None)
    if key is None:
        # Not looked into: a message that may not hold it says nothing about its shape.
        assert refusal(block_of((code, b"\xff")), where) is Alert.ILLEGAL_PARAMETER
        return
    # Something is accepted there, and a byte too many is not.
    example = body_of(key, _EXAMPLES[key])
    assert decode(block_of((code, example)), where).get(key) == _EXAMPLES[key]
    assert refusal(block_of((code, example + b"\0")), where) is Alert.DECODE_ERROR


_EXAMPLES: dict[Extension[Any], Any] = {
    ext.SERVER_NAME: "example.org",
    ext.SERVER_NAME_ACCEPTED: True,
    ext.SUPPORTED_GROUPS: (Group.X25519, Group(0x1A1A)),
    ext.SIGNATURE_ALGORITHMS: (0x0403,),
    ext.ALPN: (b"h2", b"http/1.1"),
    ext.PRE_SHARED_KEYS: values.OfferedPsks((values.PskIdentity(b"i", 7),), (bytes(32),)),
    ext.SELECTED_PSK: 0,
    ext.EARLY_DATA: True,
    ext.MAX_EARLY_DATA: 0xFFFFFFFF,
    ext.SUPPORTED_VERSIONS: (0x0304, 0x0A0A),
    ext.SELECTED_VERSION: 0x0304,
    ext.COOKIE: b"cookie",
    ext.PSK_KEY_EXCHANGE_MODES: b"\x01",
    ext.CERTIFICATE_AUTHORITIES: (b"\x30\x00",),
    ext.POST_HANDSHAKE_AUTH: True,
    ext.SIGNATURE_ALGORITHMS_CERT: (0x0804,),
    ext.KEY_SHARES: (values.KeyShareEntry(Group.X25519, bytes(32)),),
    ext.KEY_SHARE: values.KeyShareEntry(Group.X25519, bytes(32)),
    ext.KEY_SHARE_REQUEST: Group.X25519,
    ext.CONNECTION_ID: b"\x01\x02",
    ext.TICKET_REQUEST: (3, 1),
    ext.USE_SRTP: values.SrtpOffer((7, 1), b"key"),
    ext.RECORD_SIZE_LIMIT: 600,
    ext.TICKETS_EXPECTED: 2,
    ext.RETURN_ROUTABILITY: True,
    ext.STATUS_REQUEST: values.ANY_OCSP_RESPONSE,
    ext.STATUS_REQUESTED: True,
    ext.CERTIFICATE_STATUS: b"\x30\x03\x0a\x01\x00",
    ext.TIMESTAMPS_REQUESTED: True,
    ext.CERTIFICATE_TIMESTAMPS: (b"\0" * 47, b"\1"),
    ext.CLIENT_CERTIFICATE_TYPES: (CertificateType.RAW_PUBLIC_KEY, CertificateType.X509),
    ext.CLIENT_CERTIFICATE_TYPE: CertificateType.RAW_PUBLIC_KEY,
    ext.SERVER_CERTIFICATE_TYPES: (CertificateType.X509, CertificateType(224)),
    ext.SERVER_CERTIFICATE_TYPE: CertificateType.X509,
    ext.COMPRESS_CERTIFICATE: (CompressionAlgorithm.BROTLI, CompressionAlgorithm(0x0A0A)),
}


@pytest.mark.requirement("8446-NEG-10")
@pytest.mark.parametrize("key", ext._ALL, ids=lambda key: f"{key.name} in {key.where[0].value}")
@given(data=st.data())
def test_each_shape_both_ways_and_cut_short(key: Extension[Any], data: st.DataObject) -> None:
    value = data.draw(VALUES[key])
    body = body_of(key, value)
    for where in key.where:
        assert decode(block_of((key.code, body)), where).get(key) == value
        for n in range(len(body)):
            assert refusal(block_of((key.code, body[:n])), where) is Alert.DECODE_ERROR


MALFORMED: dict[str, tuple[Extension[Any], str]] = {
    "no certificate type": (ext.SERVER_CERTIFICATE_TYPES, "00"),
    "no certificate type of a client": (ext.CLIENT_CERTIFICATE_TYPES, "00"),
    "no compression": (ext.COMPRESS_CERTIFICATE, "00"),
    "one and a half compressions": (ext.COMPRESS_CERTIFICATE, "03000100"),
    "a status request with an empty responder": (ext.STATUS_REQUEST, "01000200000000"),
    "a status request without its extensions": (ext.STATUS_REQUEST, "010000"),
    "no timestamps": (ext.CERTIFICATE_TIMESTAMPS, "0000"),
    "an empty timestamp": (ext.CERTIFICATE_TIMESTAMPS, "00050001010000"),
    "bytes behind the timestamps": (ext.CERTIFICATE_TIMESTAMPS, "000300010100"),
    "a request for timestamps that says more": (ext.TIMESTAMPS_REQUESTED, "00"),
    "an empty status": (ext.CERTIFICATE_STATUS, "01000000"),
    "a status of another kind": (ext.CERTIFICATE_STATUS, "0200000100"),
    "no name": (ext.SERVER_NAME, "0000"),
    "an empty name": (ext.SERVER_NAME, "0003000000"),
    "another type of name": (ext.SERVER_NAME, "000401000161"),
    "two names": (ext.SERVER_NAME, "00080000016100000162"),
    "an answered name": (ext.SERVER_NAME_ACCEPTED, "000400000161"),
    "no group": (ext.SUPPORTED_GROUPS, "0000"),
    "half a group": (ext.SUPPORTED_GROUPS, "0003001d00"),
    "no scheme": (ext.SIGNATURE_ALGORITHMS, "0000"),
    "no protocol": (ext.ALPN, "0000"),
    "an empty protocol": (ext.ALPN, "000400016100"),
    "no version": (ext.SUPPORTED_VERSIONS, "00"),
    "half a version": (ext.SUPPORTED_VERSIONS, "03030403"),
    "an empty cookie": (ext.COOKIE, "0000"),
    "no mode": (ext.PSK_KEY_EXCHANGE_MODES, "00"),
    "no authority": (ext.CERTIFICATE_AUTHORITIES, "0000"),
    "an empty authority": (ext.CERTIFICATE_AUTHORITIES, "00020000"),
    "an empty share": (ext.KEY_SHARE, "001d0000"),
    "an empty share among shares": (ext.KEY_SHARES, "0004001d0000"),
    "no identity": (ext.PRE_SHARED_KEYS, "0000" + "0021" + "20" + "00" * 32),
    "no binder": (ext.PRE_SHARED_KEYS, "0007" + "000161" + "00000000" + "0000"),
    "a short binder": (ext.PRE_SHARED_KEYS, "0007" + "000161" + "00000000" + "0020" + "1f" + "00" * 31),
    "something in nothing": (ext.EARLY_DATA, "00"),
}


@pytest.mark.requirement("8446-NEG-10")
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_values(name: str) -> None:
    key, body = MALFORMED[name]
    assert refusal(block_of((key.code, bytes.fromhex(body))), key.where[0]) is Alert.DECODE_ERROR


def test_a_server_name_is_ascii() -> None:
    # A wrong value in a right shape.
    assert refusal(block_of((0, bytes.fromhex("0004000001e9"))), _CH) is Alert.ILLEGAL_PARAMETER


@pytest.mark.requirement("8446-NEG-2")
@given(data=st.data())
@pytest.mark.parametrize("where", Where)
def test_no_extension_comes_twice(where: Where, data: st.DataObject) -> None:
    block = data.draw(blocks(where).filter(len))
    writer = Writer()
    block.encode(writer)
    encoded = writer.finish()
    code = data.draw(st.sampled_from(list(block)))
    # The second one may have any content, even none.
    again = block_of((code, b""))[2:]
    inner = encoded[2:] + again
    assert refusal(len(inner).to_bytes(2, "big") + inner, where) is Alert.ILLEGAL_PARAMETER


@pytest.mark.requirement("8446-NEG-1")
@pytest.mark.parametrize("where", Where)
def test_unknown_extensions_are_kept_and_say_nothing(where: Where) -> None:
    grease = [(code * 0x0101, bytes([code])) for code in range(0x0A, 0x100, 0x10)]
    data = block_of(*grease, (65281, b"\0"))
    block = decode(data, where)
    assert list(block) == [code for code, _ in grease] + [65281]
    writer = Writer()
    block.encode(writer)
    assert writer.finish() == data


def test_a_missing_extension_that_is_needed() -> None:
    block = Extensions(_CH)
    assert block.get(ext.KEY_SHARES) is None
    with pytest.raises(ProtocolError, match="ClientHello lacks key_share") as caught:
        block.require(ext.KEY_SHARES)
    assert caught.value.alert is Alert.MISSING_EXTENSION


def test_an_answer_to_nothing() -> None:
    offered, answer = Extensions(_CH), Extensions(_EE)
    offered.add(ext.ALPN, (b"a",))
    answer.add(ext.ALPN, (b"a",))
    answer.refuse_unsolicited(offered)
    answer.add(ext.SERVER_NAME_ACCEPTED, True)
    with pytest.raises(ProtocolError, match="answers extension 0") as caught:
        answer.refuse_unsolicited(offered)
    assert caught.value.alert is Alert.UNSUPPORTED_EXTENSION


def test_what_is_the_same_and_what_differs() -> None:
    def block(*keys: Extension[Any]) -> Extensions:
        made = Extensions(_CH)
        for key in keys:
            made.add(key, _EXAMPLES[key])
        return made

    one, other = block(ext.ALPN, ext.COOKIE), block(ext.COOKIE, ext.ALPN)
    assert one != other
    assert one == block(ext.ALPN, ext.COOKIE)
    assert one != "something else"
    assert not one.differs_from(other, but=frozenset())
    assert one.differs_from(block(ext.ALPN), but=frozenset())
    assert block(ext.ALPN).differs_from(one, but=frozenset())
    assert not one.differs_from(block(ext.ALPN), but=frozenset((ext.COOKIE.code,)))
    assert one.differs_from(block(ext.ALPN), but=frozenset((ext.ALPN.code,)))


@pytest.mark.requirement("8446-NEG-2")
def test_a_misplaced_extension_in_a_server_hello_is_judged_after_the_version() -> None:
    block = decode(block_of((16, b"\xff")), _SH)
    with pytest.raises(ProtocolError, match="does not belong") as caught:
        block.refuse_misplaced()
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER
