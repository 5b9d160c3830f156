"""Hellos as a bystander reads them: as the engine does where it accepts them; JA3 and JA4 by their rules."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given

from sealwire.probe.dissect import hello
from sealwire.tls13.extensions import ALPN, CONNECTION_ID, SERVER_NAME, SUPPORTED_VERSIONS
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.messages import ClientHello, ServerHello
from sealwire.wire import Reader
from tests.unit.probe.dissect import hellos as h
from tests.unit.tls13 import strategies


def compare(theirs: ClientHello, flavor: Flavor) -> None:
    body = theirs.encode(flavor)[4:]
    ours = hello.client_hello(body, flavor is DTLS)
    assert ours is not None
    assert (ours.version, ours.random) == (theirs.legacy_version, theirs.random)
    assert ours.suites == theirs.suites
    assert [code for code, _ in ours.extensions] == list(theirs.extensions)
    name = theirs.extensions.get(SERVER_NAME)
    expected = name.encode("ascii") if name is not None and len(name) <= 255 else None
    assert hello.server_name(ours) == expected
    listed = theirs.extensions.get(ALPN)
    if listed is not None and all(listed):
        assert hello.protocols(ours) == b"".join(bytes((len(one),)) + one for one in listed)
    versions = theirs.extensions.get(SUPPORTED_VERSIONS)
    if versions is not None:
        meant = [version for version in versions if not hello.is_grease(version)]
        datagrams = [version for version in meant if version >> 8 == 0xFE]
        if meant:
            assert hello.offered_version(ours) == (min(datagrams) if datagrams else max(meant))
    cid = theirs.extensions.get(CONNECTION_ID)
    body_of_cid = ours.extension(54)
    assert (cid is None) == (body_of_cid is None)
    if cid is not None and body_of_cid is not None:
        assert body_of_cid[1:] == cid


@given(strategies.client_hellos(TLS))
def test_hellos_of_streams_are_read_as_the_engine_reads_them(theirs: ClientHello) -> None:
    compare(theirs, TLS)


@given(strategies.client_hellos(DTLS))
def test_hellos_of_datagrams_are_read_as_the_engine_reads_them(theirs: ClientHello) -> None:
    compare(theirs, DTLS)


def test_server_hellos_are_read_as_the_engine_reads_them() -> None:
    message = h.server_hello()
    theirs = ServerHello.decode(Reader(message[4:]))
    ours = hello.server_hello(message[4:])
    assert ours is not None
    assert (ours.suites, ours.random) == ((theirs.suite,), theirs.random)
    assert hello.chosen_version(ours) == 0x0304


def parsed(message: bytes) -> hello.Hello:
    found = hello.client_hello(message[4:], False)
    assert found is not None
    return found


def short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def test_ja4_counts_sorts_and_hashes() -> None:
    assert hello.ja4(parsed(h.client_hello()), "t") == "_".join(
        ("t13d0204h2", short("1301,1302"), short("000d,002b_0403,0804"))
    )


def test_ja4_ignores_grease_and_the_order_of_extensions() -> None:
    greased = h.client_hello(
        ((0x1A1A, b""), *reversed(h.PLAIN), (0xFAFA, b"\0")), suites=(0x0A0A, 0x1302, 0x1301)
    )
    assert hello.ja4(parsed(greased), "t") == hello.ja4(parsed(h.client_hello()), "t")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), "00"),
        ((b"h2",), "h2"),
        ((b"http/1.1",), "h1"),
        ((b"x",), "xx"),
        ((b"\xabc",), "a3"),
        ((b"a\x0b",), "6b"),
        ((b"\xff",), "ff"),
    ],
)
def test_ja4_shows_the_ends_of_the_first_protocol(names: tuple[bytes, ...], expected: str) -> None:
    extensions = (h.alpn(*names),) if names else ()
    assert hello.ja4(parsed(h.client_hello(extensions)), "t")[8:10] == expected


@pytest.mark.parametrize(
    ("version", "extensions", "expected"),
    [
        (0x0303, (), "12"),
        (0x0301, (), "10"),
        (0x0300, (), "s3"),
        (0x0303, (h.versions(0x0A0A, 0x0303, 0x0304),), "13"),
        (0xFEFD, (), "d2"),
        (0xFEFD, (h.versions(0xFEFC, 0xFEFD),), "d3"),
        (0x9999, (), "00"),
    ],
)
def test_ja4_shows_the_highest_version(
    version: int, extensions: tuple[h.Extension, ...], expected: str
) -> None:
    assert hello.ja4(parsed(h.client_hello(extensions, version=version)), "t")[1:3] == expected


def test_ja4_without_anything_to_hash() -> None:
    assert (
        hello.ja4(parsed(h.client_hello((), suites=(0x0A0A,))), "q") == "q12i000000_000000000000_000000000000"
    )


def test_ja4_counts_no_further_than_99() -> None:
    many = tuple((0x4000 + n, b"") for n in range(150))
    assert hello.ja4(parsed(h.client_hello(many, suites=range(200))), "t")[4:8] == "9999"


def test_ja3_joins_what_its_authors_join() -> None:
    extensions = ((0, b"\0\0"), (10, h.vector(2, b"\0\x1d\x0a\x0a\0\x17")), (11, b"\2\0\1"), (0x2A2A, b""))
    message = parsed(h.client_hello(extensions, suites=(0x0A0A, 4865, 4866)))
    assert hello.ja3(message) == "771,4865-4866,0-10-11,29-23,0-1"
    served = hello.server_hello(h.server_hello()[4:])
    assert served is not None
    assert hello.ja3s(served) == "771,4865,43-51"


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        h.client_hello()[4:-1],
        h.client_hello()[4:] + b"\0",
        h.client_hello(suites=())[4:],
        h.client_hello(((1, b"x"),))[4:-3] + b"\0\x09x",
        h.client_hello()[4:38] + b"\xff" + h.client_hello()[39:],
    ],
)
def test_what_has_not_the_shape_of_a_hello_is_none(broken: bytes) -> None:
    assert hello.client_hello(broken, False) is None


@pytest.mark.parametrize(
    "extension",
    [
        (0, b""),
        (0, b"\0\5\0\0\1"),
        (0, b"\0\x04\0\0\2a"),
        (16, b"\0\2\0\0"),
        (16, b"\0\3\5ab"),
        (43, b"\3\3\4"),
        (13, b"\0\3\4\3\0"),
        (54, b"\5a"),
    ],
)
def test_an_extension_that_is_wrong_inside_is_only_not_learnt_from(extension: h.Extension) -> None:
    found = parsed(h.client_hello((extension,)))
    assert hello.server_name(found) is None
    assert hello.protocols(found) == b""
    assert hello.offered_version(found) == 0x0303
    assert len(hello.ja4(found, "t")) == 36
