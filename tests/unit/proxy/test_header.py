"""The PROXY protocol's header: known bytes, round trips, and that nothing damaged is believed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.proxy import Header, HeaderError, TlsFacts
from sealwire.proxy.header import FIXED_BYTES, MAX_HEADER_BYTES, SIGNATURE, crc32c, decode, missing

FULL = Header(
    ("192.0.2.1", 56324),
    ("198.51.100.7", 443),
    alpn=b"h2",
    authority="www.example.org",
    unique_id=b"\x00\x01id",
    tls=TlsFacts(
        "TLSv1.3",
        "TLS_AES_128_GCM_SHA256",
        certificate=True,
        in_this_connection=True,
        verified=True,
        common_name="client",
    ),
)


def raw(command: int, family: int, body: bytes, version: int = 2) -> bytes:
    return SIGNATURE + bytes((version << 4 | command, family)) + len(body).to_bytes(2, "big") + body


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


V4 = bytes.fromhex("c0000201 c6336407 dc04 01bb")


def test_the_bytes_of_the_specification() -> None:
    """Section 2.2: the signature, version and command, family, length, addresses, ports."""
    header = Header(("192.0.2.1", 56324), ("198.51.100.7", 443))
    assert header.encode() == bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c") + V4
    assert decode(header.encode()) == header
    six = Header(("2001:db8::1", 1), ("2001:db8::2", 2))
    assert six.encode()[12:16] == bytes.fromhex("21 21 0024")
    assert decode(six.encode()) == six
    unix = Header("/run/a", "")
    assert unix.encode()[12:16] == bytes.fromhex("21 31 00d8")
    assert decode(unix.encode()) == unix
    assert Header().encode() == SIGNATURE + bytes.fromhex("21 00 0000")


def test_the_tlvs_of_the_specification() -> None:
    body = FULL.encode()[FIXED_BYTES + 12 :]
    assert body.startswith(tlv(0x01, b"h2") + tlv(0x02, b"www.example.org") + tlv(0x05, b"\x00\x01id"))
    ssl = body[len(tlv(0x01, b"h2") + tlv(0x02, b"www.example.org") + tlv(0x05, b"\x00\x01id")) :]
    # SSL, CERT_CONN and CERT_SESS; verify 0 is success.
    inner = bytes.fromhex("07 00000000") + tlv(0x21, b"TLSv1.3") + tlv(0x23, b"TLS_AES_128_GCM_SHA256")
    assert ssl == tlv(0x20, inner + tlv(0x22, b"client"))
    plain = Header(FULL.source, FULL.destination, tls=TlsFacts("TLSv1.3", "X")).encode()
    assert plain[FIXED_BYTES + 12 + 3 :][:5] == bytes.fromhex("01 00000001")  # no certificate: not verified


@pytest.mark.parametrize("checksum", [False, True])
def test_every_prefix_says_how_much_is_missing(checksum: bool) -> None:
    encoded = FULL.encode(checksum=checksum)
    for n in range(len(encoded)):
        assert missing(encoded[:n]) == (FIXED_BYTES if n < FIXED_BYTES else len(encoded)) - n
        with pytest.raises(HeaderError):
            decode(encoded[:n])
    assert missing(encoded) == 0
    assert decode(encoded) == FULL
    with pytest.raises(HeaderError):
        decode(encoded + b"x")


def test_every_flipped_bit_of_a_header_with_a_checksum_is_noticed_or_of_no_effect() -> None:
    encoded = FULL.encode(checksum=True)
    for n in range(len(encoded)):
        for bit in range(8):
            damaged = bytearray(encoded)
            damaged[n] ^= 1 << bit
            try:
                found = decode(bytes(damaged))
            except HeaderError:
                continue
            # Only two go through: the command that says that nothing is said, and a checksum of another type.
            assert (n, found) in ((12, Header()), (len(encoded) - 7, FULL))


def test_a_wrong_checksum_is_refused() -> None:
    assert (
        crc32c(b"123456789") == 0xE3069283
    )  # RFC 3720 appendix B.4's polynomial, its well-known check value
    encoded = bytearray(FULL.encode(checksum=True))
    encoded[-1] ^= 1
    with pytest.raises(HeaderError, match="checksum"):
        decode(bytes(encoded))
    with pytest.raises(HeaderError, match="checksum"):
        decode(raw(1, 0x11, V4 + tlv(0x03, b"abc")))


def test_what_speaks_for_itself_says_nothing_about_a_client() -> None:
    assert decode(raw(0, 0x11, V4 + tlv(0x02, b"x"))) == Header()
    assert decode(raw(0, 0x00, b"")) == Header()
    assert decode(raw(1, 0x00, b"anything at all")) == Header()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "no PROXY protocol header"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "version 1"),
        (b"\x16\x03\x01\x02\x00" + bytes(20), "no PROXY protocol header"),
        (raw(1, 0x11, V4, version=1), "version 1, not 2"),
        (raw(1, 0x11, V4, version=3), "version 3, not 2"),
        (raw(2, 0x11, V4), "unknown command 2"),
        (raw(1, 0x12, V4), "0x12"),
        (raw(1, 0x41, V4), "0x41"),
        (raw(1, 0x01, V4), "0x01"),
        (raw(1, 0x11, V4[:-1]), "cut short"),
        (raw(1, 0x21, V4), "cut short"),
        (raw(1, 0x31, V4), "cut short"),
        (raw(1, 0x11, V4 + b"\x01"), "cut short"),
        (raw(1, 0x11, V4 + b"\x01\x00\x05abc"), "cut short"),
        (raw(1, 0x11, V4 + tlv(0x20, b"\x01\x00")), "cut short"),
        (raw(1, 0x11, V4 + tlv(0x20, b"\x01" + bytes(4) + b"\x21\x00\x09x")), "cut short"),
        (raw(1, 0x11, V4 + tlv(0x02, b"a") * 2), "two TLVs"),
        (raw(1, 0x11, V4 + tlv(0x20, b"\x01" + bytes(4) + tlv(0x21, b"x") * 2)), "two TLVs"),
        (raw(1, 0x11, V4 + tlv(0x02, b"\xff\xfe")), "UTF-8"),
        (raw(1, 0x11, V4 + tlv(0x02, b"a\nb")), "printable"),
        (raw(1, 0x11, V4 + tlv(0x02, b"")), "empty"),
        (raw(1, 0x11, V4 + tlv(0x01, b"")), "application protocol"),
        (raw(1, 0x11, V4 + tlv(0x05, bytes(129))), "unique id"),
        (raw(1, 0x11, V4 + tlv(0x20, b"\x01" + bytes(4) + tlv(0x22, b"\x1b[2J"))), "printable"),
    ],
)
def test_bad_headers_are_refused(data: bytes, words: str) -> None:
    def take() -> None:
        missing(data)
        decode(data)

    with pytest.raises(HeaderError, match=words):
        take()


def test_a_declared_length_is_refused_before_anything_is_read() -> None:
    with pytest.raises(HeaderError, match=str(MAX_HEADER_BYTES)):
        missing(SIGNATURE + b"\x21\x11\xff\xff")
    with pytest.raises(HeaderError):
        Header(FULL.source, FULL.destination, unique_id=bytes(129)).encode()
    with pytest.raises(HeaderError):
        Header(FULL.source, FULL.destination, authority="x" * 5000).encode()
    with pytest.raises(HeaderError, match="no address"):
        Header(("nonsense", 1), ("127.0.0.1", 2)).encode()


def test_unknown_tlvs_and_padding_are_passed_over() -> None:
    found = decode(
        raw(1, 0x11, V4 + tlv(0xEA, b"cloud") + tlv(0x04, b"\0\0") + tlv(0x04, b"") + tlv(1, b"h2"))
    )
    assert found == Header(("192.0.2.1", 56324), ("198.51.100.7", 443), alpn=b"h2")
    # Without the SSL bit the TLV says that TLS was not used.
    assert decode(raw(1, 0x11, V4 + tlv(0x20, bytes(5)))).tls is None


def test_addresses_of_both_families() -> None:
    mapped = Header(("::ffff:192.0.2.1", 1), ("::ffff:192.0.2.2", 2))
    assert decode(mapped.encode()) == Header(("192.0.2.1", 1), ("192.0.2.2", 2))
    mixed = decode(Header(("2001:db8::1", 1), ("192.0.2.2", 2)).encode())
    assert mixed.destination is not None
    assert ipaddress.ip_address(mixed.destination[0]) == ipaddress.ip_address("::ffff:192.0.2.2")
    assert decode(Header(("fe80::1%eth0", 1), ("fe80::2", 2)).encode()).source == ("fe80::1", 1)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_header_or_an_error(data: bytes) -> None:
    for start in (b"", SIGNATURE, SIGNATURE + b"\x21\x11" + len(data).to_bytes(2, "big")):
        whole = start + data
        try:
            if missing(whole) == 0:
                decode(whole)
        except HeaderError:
            pass


names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=40)
ports = st.integers(0, 0xFFFF)
v4 = st.tuples(st.ip_addresses(v=4).map(str), ports)
v6 = st.tuples(st.integers(1 << 120, (1 << 128) - 1).map(lambda n: str(ipaddress.IPv6Address(n))), ports)
facts = st.builds(
    lambda version, cipher, cert, here, name: TlsFacts(
        version, cipher, certificate=cert, in_this_connection=cert and here, verified=cert, common_name=name
    ),
    names, names, st.booleans(), st.booleans(), st.none() | names,
)  # fmt: skip


@given(
    st.builds(
        lambda ends, alpn, authority, unique_id, tls: Header(
            ends[0], ends[1], alpn, authority, unique_id, tls
        ),
        st.one_of(st.tuples(v4, v4), st.tuples(v6, v6)),
        st.none() | st.binary(min_size=1, max_size=255),
        st.none() | names,
        st.none() | st.binary(max_size=128),
        st.none() | facts,
    ),
    st.booleans(),
)
def test_round_trip(header: Header, checksum: bool) -> None:
    assert decode(header.encode(checksum=checksum)) == header
