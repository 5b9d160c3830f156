"""Compressed certificates (RFC 8879): in both directions, by agreement only, and bombs that do not go off."""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Sequence
from dataclasses import replace

import pytest

from sealwire.context import Config
from sealwire.crypto.compression import CompressedForms, CompressionAlgorithm, available_algorithms
from sealwire.errors import Alert
from sealwire.limits import Limits
from sealwire.tls13 import extensions as ext
from sealwire.tls13.flavor import DTLS, Flavor
from sealwire.tls13.messages import CompressedCertificate, HandshakeType, frame, open_message
from tests import certificates, configs
from tests.unit.tls13.cells import Cell, Change, cells, replaced
from tests.unit.tls13.engines import (
    Pair,
    certificate_request,
    client_hello,
    each_flavor,
    put,
    refused,
)

_KT = HandshakeType
ZLIB, BROTLI, ZSTD = CompressionAlgorithm.ZLIB, CompressionAlgorithm.BROTLI, CompressionAlgorithm.ZSTD
LIMIT = Limits().handshake_message_bytes


def settings(
    ours: Sequence[CompressionAlgorithm] = (ZLIB,),
    theirs: Sequence[CompressionAlgorithm] = (ZLIB,),
    *,
    mutual: bool = False,
    large: bool = False,
) -> tuple[Config, Config]:
    server = certificates.large_server() if large else certificates.server()
    own = certificates.client()
    client = configs.client_context(server.cafile, identity=own if mutual else None).config()
    served = configs.server_context(server, client_roots=own.cafile if mutual else None).config()
    return (
        replace(client, certificate_compression=tuple(ours)),
        replace(served, certificate_compression=tuple(theirs)),
    )


def default() -> tuple[Config, Config]:
    return settings()


def mutual() -> tuple[Config, Config]:
    return settings(mutual=True)


def compressed(message: bytes) -> CompressedCertificate:
    kind, body = open_message(message)
    assert kind is _KT.COMPRESSED_CERTIFICATE
    return CompressedCertificate.decode(body)


def shown(pair: Pair, *, by_client: bool = False) -> bytes:
    """The message with which a side showed its certificate, whichever form it took."""
    (message,) = [
        one.message
        for one in pair.delivered
        if one.to_server is by_client and one.kind in (_KT.CERTIFICATE, _KT.COMPRESSED_CERTIFICATE)
    ]
    return message


# --- by agreement -------------------------------------------------------------------------------------


@pytest.mark.requirement("8879-1")
@pytest.mark.parametrize("algorithm", available_algorithms(), ids=lambda one: one.name)
@each_flavor
def test_both_sides_compress(flavor: Flavor, algorithm: CompressionAlgorithm) -> None:
    pair = Pair(flavor, settings([algorithm], [algorithm], mutual=True, large=True), run=True)
    pair.assert_same_keys()
    assert pair.client.session.peer_certificate is not None
    assert pair.client.session.peer_certificate.chain == certificates.large_server().chain
    assert pair.server.session.peer_certificate is not None
    assert pair.server.session.peer_certificate.chain == certificates.client().chain
    for message in (shown(pair), shown(pair, by_client=True)):
        assert compressed(message).algorithm is algorithm
    # 20 KB that are mostly zeros.
    assert compressed(shown(pair)).uncompressed_length > 20_000
    assert len(shown(pair)) < 5_000
    hello = client_hello(pair.delivered[0].message, flavor)
    assert hello.extensions.get(ext.COMPRESS_CERTIFICATE) == (algorithm,)
    (request,) = [one.message for one in pair.delivered if one.kind is _KT.CERTIFICATE_REQUEST]
    assert certificate_request(request).extensions.get(ext.COMPRESS_CERTIFICATE) == (algorithm,)


@pytest.mark.requirement("8879-1")
@each_flavor
def test_the_sender_takes_its_own_favourite(flavor: Flavor) -> None:
    pair = Pair(flavor, settings([ZLIB, ZSTD, BROTLI], [BROTLI, ZLIB], mutual=True), run=True)
    assert compressed(shown(pair)).algorithm is BROTLI
    assert compressed(shown(pair, by_client=True)).algorithm is ZLIB


@pytest.mark.requirement("8879-1")
@pytest.mark.parametrize(("ours", "theirs"), [([], [ZLIB]), ([ZLIB], []), ([ZSTD], [ZLIB])])
@each_flavor
def test_without_agreement_nothing_is_compressed(
    flavor: Flavor, ours: list[CompressionAlgorithm], theirs: list[CompressionAlgorithm]
) -> None:
    pair = Pair(flavor, settings(ours, theirs, mutual=True), run=True)
    for message in (shown(pair), shown(pair, by_client=True)):
        assert message[0] == _KT.CERTIFICATE


@pytest.mark.requirement("8879-1", "8446-AUTH-3")
@each_flavor
def test_an_empty_list_is_not_compressed(flavor: Flavor) -> None:
    _, theirs = mutual()
    pair = Pair(flavor, (default()[0], replace(theirs, verify_mode=1)), run=True)
    assert pair.server.session.peer is None
    assert shown(pair, by_client=True)[0] == _KT.CERTIFICATE


@pytest.mark.requirement("8879-1")
@each_flavor
def test_algorithms_nobody_knows_are_passed_over(flavor: Flavor) -> None:
    pair = Pair(flavor, default())
    first = pair.waiting[0]
    hello = client_hello(first.message, flavor)
    block = put(hello.extensions, 27, (CompressionAlgorithm(0x0A0A), CompressionAlgorithm(0xFF), ZLIB))
    pair.waiting[0] = first.but(replace(hello, extensions=block).encode(flavor))
    pair.step()
    (message,) = [one.message for one in pair.waiting if one.kind is _KT.COMPRESSED_CERTIFICATE]
    assert compressed(message).algorithm is ZLIB


@pytest.mark.requirement("8879-1")
@each_flavor
def test_the_transcript_holds_the_message_as_it_came(flavor: Flavor) -> None:
    """The same certificate packed in another way is another message: the signature does not fit."""

    def repacked(message: bytes, pair: Pair) -> bytes:
        whole = compressed(message)
        plain = zlib.decompress(whole.compressed)
        return replace(whole, compressed=zlib.compress(plain, 1)).encode()

    pair = Pair(flavor, default())
    delivery = pair.run_until(_KT.COMPRESSED_CERTIFICATE, to_server=False)
    pair.waiting[0] = delivery.but(repacked(delivery.message, pair))
    refused(pair, Alert.DECRYPT_ERROR, victim="client")


# --- once ---------------------------------------------------------------------------------------------


def test_a_certificate_is_packed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from sealwire.crypto import compression

    packed: list[int] = []
    real = compression.compress

    def counting(algorithm: CompressionAlgorithm, message: bytes) -> bytes:
        packed.append(len(message))
        return real(algorithm, message)

    monkeypatch.setattr(compression, "compress", counting)
    ours, theirs = settings(mutual=True)
    for _ in range(5):
        assert Pair(DTLS, (ours, theirs), run=True).connected
    # One of the server, one of the client.
    assert len(packed) == 2
    other = replace(ours, certificate_compression=(BROTLI,))
    for _ in range(3):
        Pair(DTLS, (other, replace(theirs, certificate_compression=(BROTLI, ZLIB))), run=True)
    assert len(packed) == 4


def test_what_is_kept_packed_is_bounded() -> None:
    forms = CompressedForms()
    for n in range(100):
        message = b"certificate %d" % n
        assert zlib.decompress(forms.get(ZLIB, message)) == message
        assert len(forms) <= CompressedForms.MOST
    assert len(forms) == CompressedForms.MOST


# --- bad ones -----------------------------------------------------------------------------------------


def packed(
    data: bytes | None = None, *, declared: int | None = None, algorithm: CompressionAlgorithm = ZLIB
) -> Change:
    """Another compressed message in place of the right one."""

    def change(message: bytes, pair: Pair) -> bytes:
        whole = compressed(message)
        return CompressedCertificate(
            algorithm,
            whole.uncompressed_length if declared is None else declared,
            whole.compressed if data is None else data,
        ).encode()

    return change


def tail(extra: bytes) -> Change:
    return lambda message, pair: replace(
        compressed(message), compressed=compressed(message).compressed + extra
    ).encode()


def cut(n: int) -> Change:
    return lambda message, pair: replace(
        compressed(message), compressed=compressed(message).compressed[:-n]
    ).encode()


def inside(change: bytes) -> Change:
    """A well packed body that is no certificate."""
    return packed(zlib.compress(change), declared=len(change))


BOMB = zlib.compress(bytes(16 * 1024 * 1024), 9)
_BAD = Alert.BAD_CERTIFICATE
WRONG: dict[str, Cell] = {
    "a claim of 16 MB": Cell(("8879-1",), packed(declared=0xFFFFFF), _BAD, "declares", mutual),
    "a claim of one byte too many": Cell(("8879-1",), packed(declared=LIMIT + 1), _BAD, "declares", mutual),
    "a bomb that claims little": Cell(("8879-1",), packed(BOMB, declared=1_000), _BAD, "more than", mutual),
    "a bomb that claims all it may": Cell(
        ("8879-1",), packed(BOMB, declared=LIMIT), _BAD, "more than", mutual
    ),
    "a claim of nothing": Cell(("8879-1",), packed(declared=0), _BAD, "empty", mutual),
    "less than claimed": Cell(
        ("8879-1",), packed(zlib.compress(b"x" * 99), declared=100), _BAD, "less than", mutual
    ),
    "cut short": Cell(("8879-1",), cut(1), _BAD, "unpacked", mutual),
    "with a byte behind it": Cell(("8879-1",), tail(b"\0"), _BAD, "unpacked", mutual),
    "with another stream behind it": Cell(
        ("8879-1",), tail(zlib.compress(b"more")), _BAD, "unpacked", mutual
    ),
    "rubbish": Cell(("8879-1",), packed(b"rubbish"), _BAD, "unpacked", mutual),
    "with an algorithm that was not offered": Cell(
        ("8879-1",), packed(algorithm=BROTLI), Alert.ILLEGAL_PARAMETER, "BROTLI", mutual
    ),
    "with an algorithm nobody knows": Cell(
        ("8879-1",), packed(algorithm=CompressionAlgorithm(0x4444)), Alert.ILLEGAL_PARAMETER, "4444", mutual
    ),
    "with nothing in it": Cell(
        ("8446-NEG-10",),
        lambda message, pair: frame(_KT.COMPRESSED_CERTIFICATE, bytes.fromhex("0001 000005 000000")),
        Alert.DECODE_ERROR, "", mutual,
    ),
    "with a byte too many": Cell(
        ("8446-NEG-10",),
        lambda message, pair: frame(_KT.COMPRESSED_CERTIFICATE, message[4:] + b"\0"),
        Alert.DECODE_ERROR, "", mutual,
    ),
    "around no certificate": Cell(("8446-NEG-10",), inside(b"\xff" * 50), Alert.DECODE_ERROR, "", mutual),
    "around a certificate with a byte behind it": Cell(
        ("8446-NEG-10",), inside(b"\0\0\0\0\0"), Alert.DECODE_ERROR, "", mutual
    ),
    "around a list without end": Cell(
        ("8446-AUTH-1",),
        inside(b"\0" + (11 * 6).to_bytes(3, "big") + b"\0\0\x01x\0\0" * 11),
        Alert.BAD_CERTIFICATE, "longer than 10", mutual,
    ),
    "around one that answers a context": Cell(
        ("8446-POST-4",), inside(b"\x01c\0\0\x06\0\0\x01x\0\0"), Alert.ILLEGAL_PARAMETER, "context", mutual
    ),
}  # fmt: skip


@cells(("CompressedCertificate", WRONG))
def test_a_wrong_one_of_a_server(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.COMPRESSED_CERTIFICATE, cell, to_server=False)


@cells(("CompressedCertificate", WRONG))
def test_a_wrong_one_of_a_client(flavor: Flavor, cell: Cell) -> None:
    replaced(flavor, _KT.COMPRESSED_CERTIFICATE, cell, to_server=True)


@pytest.mark.requirement("8879-1", "8446-NEG-2")
@each_flavor
def test_one_that_nobody_asked_for(flavor: Flavor) -> None:
    """From a side that compresses whatever it was asked."""
    for to_server, ours, theirs in ((False, (), (ZLIB,)), (True, (ZLIB,), ())):
        pair = Pair(flavor, settings(ours, theirs, mutual=True))
        waiting = pair.run_until(_KT.CERTIFICATE, to_server=to_server)
        body = waiting.message[4:]
        message = CompressedCertificate(ZLIB, len(body), zlib.compress(body)).encode()
        pair.waiting[0] = waiting.but(message)
        refused(pair, Alert.UNEXPECTED_MESSAGE, "not asked for", victim="server" if to_server else "client")


@pytest.mark.requirement("8879-1")
@pytest.mark.parametrize("algorithm", available_algorithms(), ids=lambda one: one.name)
def test_bombs_cost_little(algorithm: CompressionAlgorithm) -> None:
    """64 MiB in a few bytes, which claim to be as much as may be: refused at once."""
    from sealwire.crypto import compression

    bomb = compression.compress(algorithm, bytes(64 * 1024 * 1024))
    message = CompressedCertificate(algorithm, LIMIT, bomb).encode()
    pair = Pair(DTLS, settings([algorithm], [algorithm]))
    waiting = pair.run_until(_KT.COMPRESSED_CERTIFICATE, to_server=False)
    pair.waiting[0] = waiting.but(message)
    tracemalloc.start()
    began = time.process_time()
    try:
        refused(pair, Alert.BAD_CERTIFICATE, "more than", victim="client")
        spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert spent < 0.5
    assert peak < 2 * 1024 * 1024


@pytest.mark.requirement("8879-1")
def test_the_bound_is_that_of_uncompressed_messages() -> None:
    """A Config within tighter limits unpacks no more than they allow."""
    ours, theirs = settings(large=True)
    assert ours.within(Limits(handshake_message_bytes=4096)).max_message_bytes == 4096
    pair = Pair(DTLS, (ours.within(Limits(handshake_message_bytes=4096)), theirs))
    refused(pair, Alert.BAD_CERTIFICATE, "more than 4096", victim="client")
