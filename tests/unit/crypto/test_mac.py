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


def test_the_provider_takes_it() -> None:
    import sealwire.crypto.providers.openssl as openssl

    assert openssl._hmac is _mac.digest
    provider = OpenSslProvider()
    with pytest.raises(ValueError, match="at most"):
        provider.hkdf_expand("sha256", b"secret", b"", 255 * 32 + 1)
