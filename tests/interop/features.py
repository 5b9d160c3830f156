"""What is to be shown with other people's software, in the order docs/interop.md lists it.

A test says what it shows by ``@shows(feature, ..., peer=..., they="client")``; fields in
braces are filled from its parameters.  What a peer cannot do is said here, with how that is known;
where a test of its own found out, it is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import pytest

Role = str
CLIENT: Final = "client"
SERVER: Final = "server"

ROLES: Final = (CLIENT, SERVER)

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
    {"cookie", "no cookie", "first hello in two datagrams", "use_srtp", "short record headers from them"}
).union(FEATURES["Connection ids"], FEATURES["The path"])

#: What only one role of theirs can show.
ONLY_AS: Final[dict[str, Role]] = {
    "we move to another port, they follow": SERVER,
    "they move to another port, we follow if told to": CLIENT,
}

_Lacks = dict[tuple[str, str, Role], str]


def _lacks(peer: str, reason: str, *names: str, they: Sequence[Role] = ROLES) -> _Lacks:
    return {(peer, name, role): reason for name in names for role in they}


#: (Peer, feature, their role): why it cannot, and how we know.  "(tested)" is tests/interop/test_lacks.py.
LACKS: Final[_Lacks] = (
    _lacks(
        "wolfSSL",
        "Debian builds it without early data: the library has no wolfSSL_write_early_data (tested)",
        "early data (0-RTT)",
    )
    | _lacks(
        "wolfSSL",
        "no such name in the library (tested)",
        "certificate compression",
        "record_size_limit",
        "short record headers from them",
    )
    | _lacks(
        "wolfSSL",
        "does not negotiate RFC 9853 (tested); it moves, and is moved, by the application's word",
        "return routability check",
    )
    | _lacks(
        "wolfSSL",
        "ends the connection when asked for some (tested); we ask nobody who lacks RFC 9853 by ourselves",
        "spare connection ids",
    )
    | _lacks(
        "wolfSSL",
        "has no hybrid share in its first hello, which fits one datagram; its second is split (tested)",
        "first hello in two datagrams",
        they=[CLIENT],
    )
    | _lacks(
        "wolfSSL",
        "reads no first hello in pieces; ours goes out whole after the first silence (test_wolfssl.py)",
        "first hello in two datagrams",
        they=[SERVER],
    )
    | _lacks(
        "NSS",
        "implements no such suite (tested)",
        "TLS_AES_128_CCM_SHA256",
        "TLS_AES_128_CCM_8_SHA256",
    )
    | _lacks(
        "NSS",
        "3.110 does not list this group (tested)",
        "X448",
        "SecP256r1MLKEM768",
        "SecP384r1MLKEM1024",
    )
    | _lacks("NSS", "has no Ed25519 certificates in TLS (tested)", "ED25519 certificate")
    | _lacks("NSS", "has no raw public keys (tested)", "raw public keys")
    | _lacks("NSS", "offers and takes keys with an exchange only (tested)", "external PSK alone (psk_ke)")
    | _lacks(
        "NSS",
        "takes early data, then waits for the EndOfEarlyData that RFC 9147 section 5.6 leaves out, and never "
        "completes (test_early_data_driven.py)",
        "early data (0-RTT)",
        they=[SERVER],
    )
    | _lacks("NSS", "negotiates no connection ids (tested)", *FEATURES["Connection ids"])
    | _lacks("OpenSSL", "leaves the extension unanswered and sends none (tested)", "record_size_limit")
    | _lacks(
        "Python ssl",
        "Python 3.11's ssl module has no function or option for it",
        "TLS_AES_128_CCM_SHA256",
        "TLS_AES_128_CCM_8_SHA256",
        "X448",
        *(name for name in FEATURES["Key exchange"] if "MLKEM" in name),
        "raw public keys",
        "certificate compression",
        "stapled OCSP response",
        "external PSK alone (psk_ke)",
        "wrong PSK refused",
        "unknown PSK, certificate instead",
        "early data (0-RTT)",
        "exporter",
        "record_size_limit",
    )
)


def shows(*features: str, peer: str, they: Role) -> pytest.MarkDecorator:
    """Marks a test with what it shows with `peer` in the role `they`."""
    return pytest.mark.shows(*features, peer=peer, they=they)


def features(peer: str) -> Iterator[tuple[str, str]]:
    """Section and feature of every row that concerns `peer`."""
    for section, names in FEATURES.items():
        for name in names:
            if peer in DATAGRAM_PEERS or name not in ONLY_DATAGRAMS:
                yield section, name


def checked(feature: str, peer: str, they: Role, who: str) -> tuple[str, str, Role]:
    """What a test shows, if it can be.

    Raises:
        pytest.UsageError: there is no such feature or role, or the peer is said to lack it.
    """
    known = feature in {name for _, name in features(peer)}
    if not known or they not in ROLES or ONLY_AS.get(feature, they) != they:
        raise pytest.UsageError(f"{who}: no such feature: {feature!r} of {peer} as {they}")
    if (peer, feature, they) in LACKS:
        raise pytest.UsageError(f"{who} shows {feature!r}, which {peer} is said to lack")
    return peer, feature, they


def shown_by(item: pytest.Item) -> list[tuple[str, str, Role]]:
    """(Peer, feature, their role) of everything a test shows; a UsageError if its marks are wrong."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return [
        checked(template.format_map(parameters), mark.kwargs["peer"], mark.kwargs["they"], item.nodeid)
        for mark in item.iter_markers("shows")
        for template in mark.args
    ]
