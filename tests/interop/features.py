"""What is to be shown with other people's software, in the order docs/interop.md lists it.

A test says what it shows by ``@shows(feature, ..., peer=..., they="client")``; fields in
braces are filled from its parameters.  What a peer cannot do is said here, with how that is known;
where a test of its own found out, it is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

Role = str
CLIENT: Final = "client"
SERVER: Final = "server"

#: Peer: what the page calls it.  Datagrams first, then streams.
DATAGRAM_PEERS: Final = ("wolfSSL", "NSS")
STREAM_PEERS: Final = ("OpenSSL", "Python ssl")

#: Section: features.  Those a stream has too are in STREAM_FEATURES.
FEATURES: Final[dict[str, tuple[str, ...]]] = {
    "Cipher suites": (
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_AES_128_CCM_SHA256",
        "TLS_AES_128_CCM_8_SHA256",
    ),
    "Key exchange": (
        "X25519",
        "X448",
        "P-256",
        "P-384",
        "P-521",
        "X25519MLKEM768",
        "SecP256r1MLKEM768",
        "SecP384r1MLKEM1024",
    ),
    "Hellos": (
        "retry for another group",
        "cookie",
        "no cookie",
        "first hello in two datagrams",
        "ALPN",
        "server name",
    ),
    "Certificates": (
        "ECDSA_P256 certificate",
        "ECDSA_P384 certificate",
        "RSA_2048 certificate",
        "RSA_PSS certificate",
        "ED25519 certificate",
        "mutual authentication",
        "missing client certificate refused",
        "untrusted certificate refused",
        "long chain",
        "raw public keys",
        "certificate compression",
        "stapled OCSP response",
    ),
    "Keys instead of certificates": (
        "external PSK with key exchange",
        "external PSK alone (psk_ke)",
        "wrong PSK refused",
        "unknown PSK, certificate instead",
        "resumption by ticket",
        "early data (0-RTT)",
    ),
    "Connection ids": (
        "connection ids both ways",
        "connection id only for us",
        "connection id only for them",
        "we move to another port, they follow",
        "they move to another port, we follow if told to",
        "return routability check",
        "spare connection ids",
    ),
    "Connected": (
        "data both ways, equal hashes",
        "KeyUpdate by us",
        "KeyUpdate by them",
        "exporter",
        "record_size_limit",
        "use_srtp",
        "short record headers from them",
        "close_notify",
    ),
    "The path": (
        "MTU of 400 bytes",
        "20 % loss",
    ),
}

#: What makes no sense over a stream.
ONLY_DATAGRAMS: Final = frozenset(
    {
        "cookie",
        "no cookie",
        "first hello in two datagrams",
        *FEATURES["Connection ids"],
        *FEATURES["The path"],
    }
)

#: (Peer, feature, their role): how we know that it cannot.
LACKS: Final[dict[tuple[str, str, Role], str]] = {
    ("wolfSSL", "early data (0-RTT)", role): "Debian builds it without: it has no wolfSSL_write_early_data"
    for role in (CLIENT, SERVER)
}


def shows(*features: str, peer: str, they: Role) -> pytest.MarkDecorator:
    """Marks a test with what it shows with `peer` in the role `they`."""
    return pytest.mark.shows(*features, peer=peer, they=they)


def features(peer: str) -> Iterator[tuple[str, str]]:
    """Section and feature of every row that concerns `peer`."""
    for section, names in FEATURES.items():
        for name in names:
            if peer in DATAGRAM_PEERS or name not in ONLY_DATAGRAMS:
                yield section, name


def shown_by(item: pytest.Item) -> list[tuple[str, str, Role]]:
    """(Peer, feature, their role) of everything a test shows.

    Raises:
        pytest.UsageError: a mark names what is not in the lists above, or what is said to lack.
    """
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    shown = []
    for mark in item.iter_markers("shows"):
        peer, they = mark.kwargs["peer"], mark.kwargs["they"]
        for template in mark.args:
            feature = template.format_map(parameters)
            if feature not in {name for _, name in features(peer)} or they not in (CLIENT, SERVER):
                raise pytest.UsageError(f"{item.nodeid}: no such feature: {feature!r} of {peer} as {they}")
            if (peer, feature, they) in LACKS:
                raise pytest.UsageError(f"{item.nodeid} shows {feature!r}, which {peer} is said to lack")
            shown.append((peer, feature, they))
    return shown
