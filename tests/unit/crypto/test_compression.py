"""Certificate compression: round trips, and bombs that stop at the cap."""

from __future__ import annotations

import os
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto import compression
from sealwire.crypto.compression import (
    CompressionAlgorithm,
    available_algorithms,
    compress,
    decompress,
    parse_compression_algorithms,
)
from sealwire.errors import Alert, CertificateError, ConfigurationError, HandshakeError
from tests.unit.crypto.authority import authority, issue

ZLIB, BROTLI, ZSTD = CompressionAlgorithm.ZLIB, CompressionAlgorithm.BROTLI, CompressionAlgorithm.ZSTD
LIMIT = 64 * 1024
LEAF = issue("server", authority(), names=["server.test"])


@pytest.fixture(params=[ZLIB, BROTLI, ZSTD], ids=lambda one: one.name)
def algorithm(request: pytest.FixtureRequest) -> CompressionAlgorithm:
    one: CompressionAlgorithm = request.param
    if one not in available_algorithms():
        pytest.skip(f"absent: a package for {one.name} (the extra sealwire[compression])")
    return one


def refused(algorithm: CompressionAlgorithm, data: bytes, declared: int, limit: int = LIMIT) -> str:
    with pytest.raises(CertificateError) as caught:
        decompress(algorithm, data, declared, limit)
    assert caught.value.alert is Alert.BAD_CERTIFICATE
    return caught.value.reason


@pytest.mark.requirement("8879-1")
@given(message=st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 70_000).map(bytes)))
def test_round_trip(message: bytes) -> None:
    for algorithm in available_algorithms():
        packed = compress(algorithm, message)
        assert decompress(algorithm, packed, len(message), len(message)) == message


def test_a_chain_gets_smaller(algorithm: CompressionAlgorithm) -> None:
    message = LEAF.der * 3
    packed = compress(algorithm, message)
    assert len(packed) < len(message)
    assert decompress(algorithm, packed, len(message), LIMIT) == message


@pytest.mark.requirement("8879-1")
def test_a_claim_above_the_limit_is_refused_before_anything_is_unpacked(
    algorithm: CompressionAlgorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(data: bytes, size: int) -> bytes:
        raise AssertionError("it was unpacked")

    monkeypatch.setattr(compression, "_codecs", lambda: {algorithm: (bytes, unpack)})
    packed = b"whatever"
    for claim in (LIMIT + 1, 16 * 1024 * 1024, 0xFFFFFF):
        assert "more than" in refused(algorithm, packed, claim)
    assert "empty" in refused(algorithm, packed, 0)
    assert "empty" in refused(algorithm, b"", 10)
    with pytest.raises(AssertionError):
        decompress(algorithm, packed, LIMIT, LIMIT)


@pytest.mark.requirement("8879-1")
def test_bombs_stop_at_the_cap(algorithm: CompressionAlgorithm) -> None:
    """Twenty megabytes of zeros in a few kilobytes: the cost is that of what was declared."""
    bomb = compress(algorithm, bytes(20_000_000))
    assert len(bomb) < 100_000
    for declared in (1, 1000, LIMIT):
        tracemalloc.start()
        assert "more than the" in refused(algorithm, bomb, declared)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000


def test_zlib_asks_for_one_byte_more_than_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    make = zlib.decompressobj

    class Watching:
        def __init__(self) -> None:
            self.unpacker = make()

        def decompress(self, data: bytes, size: int) -> bytes:
            asked.append(size)
            return self.unpacker.decompress(data, size)

        def __getattr__(self, name: str) -> object:
            return getattr(self.unpacker, name)

    packed = compress(ZLIB, bytes(1000))
    monkeypatch.setattr(zlib, "decompressobj", Watching)
    assert refused(ZLIB, packed, 10)
    assert decompress(ZLIB, packed, 1000, LIMIT) == bytes(1000)
    assert asked == [11, 1001]


@pytest.mark.requirement("8879-1")
def test_every_other_length_is_refused(algorithm: CompressionAlgorithm) -> None:
    message = os.urandom(50) + bytes(50)
    packed = compress(algorithm, message)
    for declared in (1, 49, 99):
        assert "more than the" in refused(algorithm, packed, declared)
    for declared in (101, 102, LIMIT):
        assert "less than the" in refused(algorithm, packed, declared)


def test_every_truncation_and_anything_behind_is_refused(algorithm: CompressionAlgorithm) -> None:
    for message in (LEAF.der, b"x", bytes(5000)):
        packed = compress(algorithm, message)
        for n in range(len(packed)):
            refused(algorithm, packed[:n], len(message))
        for junk in (b"\0", b"x", b"junk and more", packed):
            refused(algorithm, packed + junk, len(message))


def test_damage_is_another_message_or_bad_certificate(algorithm: CompressionAlgorithm) -> None:
    message = LEAF.der
    packed = compress(algorithm, message)
    for at in range(len(packed)):
        for bit in (0, 3, 7):
            changed = bytearray(packed)
            changed[at] ^= 1 << bit
            try:
                assert len(decompress(algorithm, bytes(changed), len(message), LIMIT)) == len(message)
            except CertificateError as error:
                assert error.alert is Alert.BAD_CERTIFICATE  # noqa: PT017


@given(noise=st.binary(min_size=1, max_size=200), declared=st.integers(1, 1000))
def test_noise_is_bad_certificate(noise: bytes, declared: int) -> None:
    for algorithm in available_algorithms():
        try:
            assert len(decompress(algorithm, noise, declared, LIMIT)) == declared
        except CertificateError as error:
            assert error.alert is Alert.BAD_CERTIFICATE  # noqa: PT017


def test_a_window_of_128_mib_is_refused() -> None:
    zstandard = pytest.importorskip("zstandard", reason="absent: zstandard (the extra sealwire[compression])")
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(bytes(100)) + packer.flush()
    assert "memory" in refused(ZSTD, packed, 100)


def test_an_algorithm_that_was_not_offered() -> None:
    for algorithm in (CompressionAlgorithm(0), CompressionAlgorithm(77)):
        with pytest.raises(HandshakeError) as caught:
            decompress(algorithm, b"x", 1, LIMIT)
        assert caught.value.alert is Alert.ILLEGAL_PARAMETER
    assert CompressionAlgorithm(77).name == "COMPRESSION_004D"
    with pytest.raises(ValueError, match="CompressionAlgorithm"):
        CompressionAlgorithm(65536)


def test_names() -> None:
    assert parse_compression_algorithms("zlib") == (ZLIB,)
    assert parse_compression_algorithms([]) == ()
    assert [int(one) for one in CompressionAlgorithm] == [1, 2, 3]
    with pytest.raises(ConfigurationError, match="zlib, brotli, zstd"):
        parse_compression_algorithms("gzip")
    with pytest.raises(ConfigurationError, match="twice"):
        parse_compression_algorithms(["zlib", "ZLIB"])


def test_without_the_packages_there_is_zlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "brotli", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    compression._codecs.cache_clear()
    try:
        assert available_algorithms() == (ZLIB,)
        with pytest.raises(ConfigurationError, match=r"sealwire\[compression\]"):
            parse_compression_algorithms("brotli")
        # A Brotli that cannot be bounded is as good as none.
        (tmp_path / "brotli.py").write_text("class Decompressor: pass\nclass error(Exception): pass\n")
        monkeypatch.delitem(sys.modules, "brotli")
        monkeypatch.syspath_prepend(str(tmp_path))
        compression._codecs.cache_clear()
        assert available_algorithms() == (ZLIB,)
    finally:
        monkeypatch.undo()
        compression._codecs.cache_clear()
