"""The compiled HMAC beside the standard library's, and what it refuses."""

from __future__ import annotations

import hmac
import os
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.hkdf import Secret
from sealwire.crypto.providers.openssl import OpenSslProvider

if os.environ.get("SEALWIRE_PURE") == "1":
    pytest.skip("SEALWIRE_PURE=1: only the twins run", allow_module_level=True)

_mac: Any = pytest.importorskip("sealwire.crypto._mac")
_mac.load()

HASHES = st.sampled_from(["sha256", "sha384"])


@given(HASHES, st.binary(max_size=200), st.binary(max_size=400))
def test_it_is_hmac(hash_name: str, key: bytes, data: bytes) -> None:
    assert _mac.digest(hash_name, key, data) == hmac.digest(key, data, hash_name)


@pytest.mark.parametrize("hash_name", ["sha256", "sha384"])
def test_an_empty_key_is_not_the_key_before(hash_name: str) -> None:
    _mac.digest(hash_name, b"another key", b"data")
    assert _mac.digest(hash_name, b"", b"data") == hmac.digest(b"", b"data", hash_name)


def test_secrets_are_bytes_too() -> None:
    assert _mac.digest("sha256", Secret(b"key"), b"") == hmac.digest(b"key", b"", "sha256")


@pytest.mark.parametrize(
    ("key", "data"), [("key", b""), (b"", "data"), (bytearray(b"key"), b""), (b"", None)]
)
def test_anything_else_is_refused(key: object, data: object) -> None:
    with pytest.raises(TypeError):
        _mac.digest("sha256", key, data)


def test_hashes_it_does_not_have() -> None:
    with pytest.raises(KeyError):
        _mac.digest("md5", b"", b"")


def test_threads_do_not_mix_their_keys() -> None:
    wrong: list[bytes] = []

    def work(key: bytes) -> None:
        expected = hmac.digest(key, b"data", "sha384")
        wrong.extend(key for _ in range(20_000) if _mac.digest("sha384", key, b"data") != expected)

    threads = [threading.Thread(target=work, args=(bytes((n,)) * 48,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


INFOS = st.lists(st.tuples(st.binary(max_size=300), st.integers(2, 32)), min_size=1, max_size=8)


@given(HASHES, st.binary(min_size=1, max_size=100), INFOS)
def test_expansions_of_one_secret_are_hkdf(
    hash_name: str, secret: bytes, infos: list[tuple[bytes, int]]
) -> None:
    plain = OpenSslProvider()
    expected = [plain.hkdf_expand(hash_name, secret, info, n) for info, n in infos]
    assert _mac.expand(hash_name, secret, tuple(infos), Secret) == expected
    assert plain.hkdf_secrets(hash_name, secret, tuple(infos)) == expected


def test_expansions_are_secrets_and_the_next_key_is_another() -> None:
    first = _mac.expand("sha256", b"key", ((b"info", 32),), Secret)
    assert [type(one) for one in first] == [Secret]
    assert _mac.expand("sha256", b"", ((b"info", 32),), Secret) != first


@pytest.mark.parametrize(
    ("key", "infos"),
    [
        ("key", ((b"", 32),)),
        (b"key", (("", 32),)),
        (b"key", ((b"", 33),)),
        (b"key", ((b"", 1),)),
        (b"key", ((b"", -1),)),
        (b"key", ((b"", 32),) * 9),
    ],
)
def test_expansions_it_does_not_do(key: object, infos: object) -> None:
    with pytest.raises(TypeError):
        _mac.expand("sha256", key, infos, Secret)


def test_expansions_with_hashes_it_does_not_have() -> None:
    with pytest.raises(KeyError):
        _mac.expand("md5", b"key", ((b"", 16),), Secret)


def test_threads_do_not_mix_the_keys_they_expand() -> None:
    wrong: list[bytes] = []
    infos = tuple((bytes((n,)), 48) for n in range(3))

    def work(key: bytes) -> None:
        expected = _mac.expand("sha384", key, infos, Secret)
        wrong.extend(key for _ in range(5_000) if _mac.expand("sha384", key, infos, Secret) != expected)

    threads = [threading.Thread(target=work, args=(bytes((n,)) * 48,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class _OwnHkdf(OpenSslProvider):
    def hkdf_expand(self, hash_name: str, secret: bytes, info: bytes, n: int) -> bytes:
        return info[:1] * n


def test_a_provider_with_an_hkdf_of_its_own_is_obeyed() -> None:
    assert _OwnHkdf().hkdf_secrets("sha256", b"secret", ((b"a", 4), (b"b", 2))) == [b"aaaa", b"bb"]


def test_the_provider_takes_it() -> None:
    import sealwire.crypto.providers.openssl as openssl

    assert openssl._hmac is _mac.digest
    provider = OpenSslProvider()
    with pytest.raises(ValueError, match="at most"):
        provider.hkdf_expand("sha256", b"secret", b"", 255 * 32 + 1)
