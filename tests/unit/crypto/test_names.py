"""Names: what may be asked for, what a wildcard stands for."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.names import (
    certificate_names,
    common_name,
    matches,
    reference_name,
    server_name_indication,
)
from sealwire.errors import ConfigurationError
from tests.unit.crypto.authority import issue


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.org.", "example.org"),
        ("localhost", "localhost"),
        ("my_host.test", "my_host.test"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("B\u00dcCHER.example", "xn--bcher-kva.example"),
        ("\u4f8b\u3048.test", "xn--r8jz45g.test"),
        ("192.0.2.1", ipaddress.ip_address("192.0.2.1")),
        ("2001:db8::1", ipaddress.ip_address("2001:db8::1")),
        ("[2001:db8::1]", ipaddress.ip_address("2001:db8::1")),
        ("fe80::1%eth0", ipaddress.ip_address("fe80::1")),
    ],
)
def test_a_name_becomes_what_certificates_hold(name: str, reference: object) -> None:
    assert reference_name(name) == reference
    if isinstance(reference, str):
        assert server_name_indication(name) == reference
    else:
        # RFC 6066 section 3.
        assert server_name_indication(name) is None


def test_no_name_is_no_server_name() -> None:
    assert server_name_indication(None) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..b",
        ".example.org",
        "-a.example",
        "a-.example",
        "exa mple.org",
        "example.org/path",
        "user@example.org",
        "example.org:443",
        "*.example.org",
        "a" * 64 + ".org",
        ".".join(["a" * 50] * 6),
        "127.0.0.256",
        "127.1",
        "example.org\0.evil.test",
        "example.org\n",
        # IDNA 2003 would turn these into other names than IDNA 2008 does.
        "stra\u00dfe.example",
        "\u03b2\u03bf\u03bb\u03bf\u03c2.example",
        "a\u200db.example",
        "\u3002",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError):
        reference_name(name)


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_a_configuration_error(text: str) -> None:
    try:
        reference = reference_name(text)
    except ConfigurationError:
        return
    assert isinstance(reference, ipaddress.IPv4Address | ipaddress.IPv6Address) or reference.isascii()
    assert reference_name(str(reference)) == reference


@pytest.mark.parametrize(
    ("presented", "reference", "expected"),
    [
        ("a.test", "a.test", True),
        ("A.test.", "a.test", True),
        ("a.test", "b.test", False),
        ("*.b.test", "a.b.test", True),
        ("*.b.test", "b.test", False),
        ("*.b.test", "x.a.b.test", False),
        ("*.b.test", ".b.test", False),
        ("*.test", "a.test", False),
        ("*", "test", False),
        ("a*.b.test", "aa.b.test", False),
        ("a.*.test", "a.b.test", False),
        ("*.*.test", "a.b.test", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("*.0.2.1", "192.0.2.1", True),
    ],
)
def test_wildcards_stand_for_one_whole_leftmost_label(presented: str, reference: str, expected: bool) -> None:
    # RFC 9525 section 6.3.  The last case shows why a reference that is an address is never a string.
    assert matches(presented, reference) is expected


def test_an_address_matches_an_address_only() -> None:
    address = ipaddress.ip_address("192.0.2.1")
    assert matches(address, address)
    assert not matches("192.0.2.1", address)
    assert not matches(address, "192.0.2.1")
    assert not matches("*.0.2.1", reference_name("192.0.2.1"))


def test_names_of_a_certificate() -> None:
    certificate = issue("CN.Test", names=["B.test", "192.0.2.1"]).certificate
    assert certificate_names(certificate) == ("b.test", ipaddress.ip_address("192.0.2.1"))
    assert common_name(certificate) == "cn.test"
    bare = issue("").certificate
    assert certificate_names(bare) == ()
    assert common_name(bare) == ""
