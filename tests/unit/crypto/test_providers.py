"""Providers: primitives against independent implementations, and what the seed makes repeatable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.groups import GROUPS, HYBRID_GROUPS, Group
from sealwire.crypto.providers import default_provider
from sealwire.crypto.providers.deterministic import DeterministicProvider
from sealwire.crypto.providers.openssl import OpenSslProvider
from sealwire.crypto.suites import SUITES, SuiteSpec

PROVIDER = default_provider()
every_suite = pytest.mark.parametrize("spec", SUITES.values(), ids=lambda spec: spec.name)
every_hash = pytest.mark.parametrize("hash_name", ["sha256", "sha384"])


def test_the_default_is_openssl_and_one_object() -> None:
    assert isinstance(PROVIDER, OpenSslProvider)
    assert default_provider() is PROVIDER


@every_hash
def test_a_digest_can_be_copied_midway(hash_name: str) -> None:
    digest = PROVIDER.digest(hash_name)
    digest.update(b"one")
    fork = digest.copy()
    digest.update(b"two")
    assert digest.digest() == hashlib.new(hash_name, b"onetwo").digest()
    assert fork.digest() == hashlib.new(hash_name, b"one").digest()


@every_hash
@given(secret=st.binary(min_size=1, max_size=64), info=st.binary(max_size=80), n=st.integers(1, 200))
def test_expand_agrees_with_the_library(hash_name: str, secret: bytes, info: bytes, n: int) -> None:
    algorithm = hashes.SHA256() if hash_name == "sha256" else hashes.SHA384()
    assert PROVIDER.hkdf_expand(hash_name, secret, info, n) == HKDFExpand(algorithm, n, info).derive(secret)


@every_hash
def test_expand_ends_at_255_blocks(hash_name: str) -> None:
    size = hashlib.new(hash_name).digest_size
    assert len(PROVIDER.hkdf_expand(hash_name, b"secret", b"", 255 * size)) == 255 * size
    with pytest.raises(ValueError, match="at most"):
        PROVIDER.hkdf_expand(hash_name, b"secret", b"", 255 * size + 1)


def test_extract_without_salt_is_extract_with_zeros() -> None:
    # RFC 5869 section 2.2.
    assert PROVIDER.hkdf_extract("sha256", b"", b"ikm") == PROVIDER.hkdf_extract("sha256", bytes(32), b"ikm")


@every_suite
@given(data=st.binary(max_size=200), aad=st.binary(max_size=40))
def test_an_aead_opens_what_it_sealed_and_nothing_else(spec: SuiteSpec, data: bytes, aad: bytes) -> None:
    aead = PROVIDER.aead(spec, bytes(range(spec.key_bytes)))
    nonce = bytes(range(12))
    sealed = aead.seal(nonce, data, aad)
    assert len(sealed) == len(data) + spec.tag_bytes
    assert aead.open(nonce, sealed, aad) == data
    assert aead.open(nonce, memoryview(sealed), bytearray(aad)) == data
    assert aead.open(nonce, sealed[:-1], aad) is None
    assert aead.open(nonce, sealed[: spec.tag_bytes - 1], aad) is None
    assert aead.open(nonce, b"", aad) is None
    assert aead.open(bytes(12), sealed, aad) is None
    assert aead.open(nonce, sealed, aad + b"\0") is None
    for at in {0, len(sealed) // 2, len(sealed) - 1}:
        changed = bytearray(sealed)
        changed[at] ^= 1
        assert aead.open(nonce, changed, aad) is None


@every_suite
def test_keys_of_wrong_length_are_our_own_mistake(spec: SuiteSpec) -> None:
    for make in (PROVIDER.aead, PROVIDER.mask):
        with pytest.raises(ValueError, match=f"{spec.key_bytes} bytes"):
            make(spec, bytes(spec.key_bytes - 1))


# The masks, as other tools compute them: `printf SAMPLE | openssl enc -aes-128-ecb -nopad -K KEY`, and the
# same with -aes-256-ecb; for ChaCha20 `printf '\0\0' | openssl enc -chacha20 -K KEY -iv SAMPLE`.
MASKS = {
    "TLS_AES_128_GCM_SHA256": "0a940bb5416ef045f1c39458c653ea5a",
    "TLS_AES_256_GCM_SHA384": "5a6e045708fb7196f02e553d02c3a692",
    "TLS_CHACHA20_POLY1305_SHA256": "b65b",
    "TLS_AES_128_CCM_SHA256": "0a940bb5416ef045f1c39458c653ea5a",
    "TLS_AES_128_CCM_8_SHA256": "0a940bb5416ef045f1c39458c653ea5a",
}


@pytest.mark.requirement("9147-4.2.3-1")
@every_suite
def test_masks_repeat_and_depend_on_the_sample(spec: SuiteSpec) -> None:
    mask = PROVIDER.mask(spec, bytes(range(spec.key_bytes)))
    sample = bytes(range(16))
    first = mask(sample)
    other = mask(bytes(16))
    assert len(first) >= 2
    assert first[:2] != other[:2]
    assert mask(sample) == first
    assert mask(bytes(16)) == other
    assert first.hex().startswith(MASKS[spec.name])


CLASSICAL = tuple(group for group in GROUPS if group not in HYBRID_GROUPS)
SHARES = {group: PROVIDER.key_share(group).public for group in CLASSICAL}


class TestDeterministic:
    @pytest.mark.parametrize(
        "draw",
        [
            lambda provider: provider.random(32),
            lambda provider: provider.random(1000),
            *(lambda provider, group=group: provider.key_share(group).public for group in GROUPS),
            *(lambda provider, group=group: provider.respond(group, SHARES[group]) for group in CLASSICAL),
        ],
    )
    def test_the_seed_decides(self, draw: Callable[[DeterministicProvider], object]) -> None:
        one, two, other = DeterministicProvider(5), DeterministicProvider(5), DeterministicProvider(6)
        first = draw(one)
        assert first == draw(two)
        assert first != draw(other)
        # Draws follow one another; they do not repeat.
        assert draw(one) != first

    def test_a_seed_is_bytes_or_a_number(self) -> None:
        assert DeterministicProvider(b"5").random(8) == DeterministicProvider(5).random(8)

    def test_what_stays_random(self) -> None:
        # As its documentation says; if the library learns to take a seed here, that text is out of date.
        share = PROVIDER.key_share(Group.X25519MLKEM768).public
        one, two = (DeterministicProvider(5).respond(Group.X25519MLKEM768, share)[0] for _ in range(2))
        assert one[:1088] != two[:1088]
        assert one[1088:] == two[1088:]
