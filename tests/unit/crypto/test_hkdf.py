"""Expand-Label and what is derived with it: known answers, both prefixes, nothing printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sealwire.crypto.hkdf import (
    DTLS13_PREFIX,
    TLS13_PREFIX,
    Secret,
    TrafficKeys,
    expand_label,
    next_traffic_secret,
    traffic_keys,
)
from sealwire.crypto.providers import default_provider
from sealwire.crypto.suites import SUITES, CipherSuite, SuiteSpec

PROVIDER = default_provider()
AES_128 = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]


def test_server_handshake_keys_of_rfc_8448_section_3() -> None:
    secret = bytes.fromhex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
    keys = traffic_keys(PROVIDER, AES_128, secret, TLS13_PREFIX)
    assert keys.key.hex() == "3fce516009c21727d0f2e4e86ee403bc"
    assert keys.iv.hex() == "5d313eb2671276ee13000b30"
    assert keys.sn_key == b""


@pytest.mark.requirement("9147-5.9-1")
def test_traffic_keys_of_other_dtls_stacks(shared_data: Path) -> None:
    known = json.loads((shared_data / "dtls13" / "dtls13_kats.json").read_text())["traffic_keys"]
    checked = 0
    for answer in known:
        if answer["suite"] == "0x1304":
            continue  # AES-CCM, which is not offered
        spec = SUITES[CipherSuite(int(answer["suite"], 16))]
        secret = bytes.fromhex(answer["traffic_secret"])
        keys = traffic_keys(PROVIDER, spec, secret, DTLS13_PREFIX)
        assert (keys.key.hex(), keys.iv.hex(), keys.sn_key.hex()) == (
            answer["key"],
            answer["iv"],
            answer["sn_key"],
        )
        assert (
            next_traffic_secret(PROVIDER, spec, secret, DTLS13_PREFIX).hex() == answer["next_traffic_secret"]
        )
        checked += 1
    assert checked > 150


@pytest.mark.parametrize("spec", SUITES.values(), ids=lambda spec: spec.name)
def test_sizes_and_prefixes(spec: SuiteSpec) -> None:
    secret = bytes(range(spec.hash_bytes))
    stream = traffic_keys(PROVIDER, spec, secret, TLS13_PREFIX)
    datagram = traffic_keys(PROVIDER, spec, secret, DTLS13_PREFIX)
    assert (len(stream.key), len(stream.iv), len(stream.sn_key)) == (spec.key_bytes, 12, 0)
    assert (len(datagram.key), len(datagram.iv), len(datagram.sn_key)) == (spec.key_bytes, 12, spec.key_bytes)
    assert len({stream.key, datagram.key, datagram.sn_key}) == 3
    after = next_traffic_secret(PROVIDER, spec, secret, TLS13_PREFIX)
    assert isinstance(after, Secret)
    assert len(after) == spec.hash_bytes


def test_labels_and_contexts_that_do_not_fit() -> None:
    for label in (b"", bytes(250)):
        with pytest.raises(ValueError, match="7 to 255"):
            expand_label(PROVIDER, "sha256", b"secret", TLS13_PREFIX, label, b"", 32)
    with pytest.raises(ValueError, match="256"):
        expand_label(PROVIDER, "sha256", b"secret", TLS13_PREFIX, b"label", bytes(256), 32)
    assert expand_label(PROVIDER, "sha256", b"secret", TLS13_PREFIX, bytes(249), bytes(255), 32)


def test_secrets_do_not_print() -> None:
    secret = Secret(b"\x42" * 32)
    keys = TrafficKeys(Secret(b"\x41" * 16), Secret(b"\x43" * 12), secret)
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r}", repr(keys), str(keys), str([keys])):
        assert "secret of" in text
        for byte in (b"A", b"B", b"C"):
            assert (byte * 4).decode() not in text
            assert byte.hex() * 4 not in text
    assert secret == b"\x42" * 32
