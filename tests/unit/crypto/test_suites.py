"""Suites: code points, limits, names."""

from __future__ import annotations

import pytest

from sealwire.crypto.suites import DEFAULT_SUITES, SUITES, AeadKind, CipherSuite, parse_suites
from sealwire.errors import ConfigurationError


@pytest.mark.requirement("8446-NEG-7")
def test_the_table_is_that_of_rfc_8446() -> None:
    assert {spec.name: (spec.suite, spec.hash_name, spec.key_bytes) for spec in SUITES.values()} == {
        "TLS_AES_128_GCM_SHA256": (0x1301, "sha256", 16),
        "TLS_AES_256_GCM_SHA384": (0x1302, "sha384", 32),
        "TLS_CHACHA20_POLY1305_SHA256": (0x1303, "sha256", 32),
        "TLS_AES_128_CCM_SHA256": (0x1304, "sha256", 16),
        "TLS_AES_128_CCM_8_SHA256": (0x1305, "sha256", 16),
    }
    assert {spec.hash_name: spec.hash_bytes for spec in SUITES.values()} == {"sha256": 32, "sha384": 48}
    assert {spec.iv_bytes for spec in SUITES.values()} == {12}
    short = {spec.suite for spec in SUITES.values() if spec.has_short_tag}
    assert short == {CipherSuite.TLS_AES_128_CCM_8_SHA256}
    assert {spec.tag_bytes for suite, spec in SUITES.items() if suite not in short} == {16}
    assert SUITES[CipherSuite.TLS_AES_128_CCM_8_SHA256].tag_bytes == 8


@pytest.mark.requirement("9147-4.5.3-1", "9147-4.5.3-6", "9147-4.5.3-8", "9147-4.5.3-9")
def test_every_suite_states_both_limits() -> None:
    for spec in SUITES.values():
        match spec.aead:
            case AeadKind.AES_GCM:
                assert 2**24 < spec.seal_limit <= 2**24.5
                assert spec.forgery_limit == 2**36
            case AeadKind.CHACHA20_POLY1305:
                assert spec.seal_limit < 2**48
                assert spec.forgery_limit == 2**36
            case AeadKind.AES_CCM:
                assert spec.seal_limit == 2**23
                assert spec.forgery_limit == (2**7 if spec.has_short_tag else int(2**23.5))


@pytest.mark.requirement("9147-4.5.3-7")
def test_ccm_is_off_and_short_tags_must_be_asked_for() -> None:
    assert {SUITES[suite].aead for suite in DEFAULT_SUITES} == {AeadKind.AES_GCM, AeadKind.CHACHA20_POLY1305}
    assert tuple(SUITES)[: len(DEFAULT_SUITES)] == DEFAULT_SUITES
    assert parse_suites("TLS_AES_128_CCM_SHA256") == (CipherSuite.TLS_AES_128_CCM_SHA256,)
    with pytest.raises(ConfigurationError, match="allow_short_tags=True"):
        parse_suites("TLS_AES_128_CCM_8_SHA256")
    both = parse_suites("TLS_AES_128_CCM_8_SHA256:TLS_AES_128_CCM_SHA256", allow_short_tags=True)
    assert both == (CipherSuite.TLS_AES_128_CCM_8_SHA256, CipherSuite.TLS_AES_128_CCM_SHA256)


def test_an_unknown_code_point_survives() -> None:
    assert CipherSuite(0x13AB) == 0x13AB
    assert CipherSuite(0x13AB).name == "SUITE_13AB"
    assert CipherSuite(0x1301) is CipherSuite.TLS_AES_128_GCM_SHA256
    for bad in (-1, 0x10000):
        with pytest.raises(ValueError, match="CipherSuite"):
            CipherSuite(bad)


def test_names_are_parsed_in_the_order_given() -> None:
    expected = (CipherSuite.TLS_CHACHA20_POLY1305_SHA256, CipherSuite.TLS_AES_128_GCM_SHA256)
    assert parse_suites("TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256") == expected
    assert parse_suites(["TLS_CHACHA20_POLY1305_SHA256", " TLS_AES_128_GCM_SHA256 "]) == expected


@pytest.mark.parametrize("names", ["", [], "TLS_RSA_WITH_NULL_MD5", "TLS_AES_128_GCM_SHA256:", "AES128-SHA"])
def test_a_wrong_name_is_answered_with_the_right_ones(names: str | list[str]) -> None:
    with pytest.raises(ConfigurationError, match="TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384"):
        parse_suites(names)


def test_a_suite_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        parse_suites("TLS_AES_128_GCM_SHA256:TLS_AES_128_GCM_SHA256")
