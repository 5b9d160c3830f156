"""Arbitrary handshake messages for property tests: every field any value its shape allows."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sealwire.crypto.compression import CompressionAlgorithm
from sealwire.crypto.groups import Group
from sealwire.crypto.signatures import SignatureScheme
from sealwire.crypto.suites import CipherSuite
from sealwire.tls13 import extensions as ext
from sealwire.tls13.extensions import Extension, Extensions, Where
from sealwire.tls13.flavor import Flavor
from sealwire.tls13.messages import (
    HELLO_RETRY_RANDOM,
    Certificate,
    CertificateEntry,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    CompressedCertificate,
    EncryptedExtensions,
    Finished,
    KeyUpdate,
    NewSessionTicket,
    ServerHello,
)
from sealwire.tls13.values import (
    STATUS_OCSP,
    CertificateType,
    KeyShareEntry,
    OfferedPsks,
    PskIdentity,
    SrtpOffer,
    StatusRequest,
)

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
short = st.binary(min_size=1, max_size=20)
some_u16 = st.lists(u16, min_size=1, max_size=6)
groups = some_u16.map(lambda codes: tuple(Group(code) for code in codes))
schemes = some_u16.map(lambda codes: tuple(SignatureScheme(code) for code in codes))
shares = st.builds(KeyShareEntry, u16.map(Group), short)
true = st.just(True)


def tuples_of(items: st.SearchStrategy[Any], low: int = 1) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, min_size=low, max_size=4).map(tuple)


def _status_request(responders: list[bytes]) -> StatusRequest:
    listed = b"".join(len(one).to_bytes(2, "big") + one for one in responders)
    return StatusRequest(STATUS_OCSP, len(listed).to_bytes(2, "big") + listed + b"\0\0")


VALUES: dict[Extension[Any], st.SearchStrategy[Any]] = {
    ext.SERVER_NAME: st.text("abcdefghijklmnopqrstuvwxyz.-0", min_size=1, max_size=30),
    ext.SERVER_NAME_ACCEPTED: true,
    ext.SUPPORTED_GROUPS: groups,
    ext.SIGNATURE_ALGORITHMS: schemes,
    ext.USE_SRTP: st.builds(SrtpOffer, tuples_of(u16), st.binary(max_size=255)),
    ext.ALPN: tuples_of(short),
    ext.RECORD_SIZE_LIMIT: u16,
    ext.PRE_SHARED_KEYS: st.builds(
        OfferedPsks,
        tuples_of(st.builds(PskIdentity, short, u32)),
        tuples_of(st.binary(min_size=32, max_size=255)),
    ),
    ext.SELECTED_PSK: u16,
    ext.EARLY_DATA: true,
    ext.MAX_EARLY_DATA: u32,
    ext.SUPPORTED_VERSIONS: some_u16.map(tuple),
    ext.SELECTED_VERSION: u16,
    ext.COOKIE: short,
    ext.PSK_KEY_EXCHANGE_MODES: short,
    ext.CERTIFICATE_AUTHORITIES: tuples_of(short),
    ext.POST_HANDSHAKE_AUTH: true,
    ext.SIGNATURE_ALGORITHMS_CERT: schemes,
    ext.KEY_SHARES: tuples_of(shares, low=0),
    ext.KEY_SHARE: shares,
    ext.KEY_SHARE_REQUEST: u16.map(Group),
    ext.CONNECTION_ID: st.binary(max_size=20),
    ext.TICKET_REQUEST: st.tuples(u8, u8),
    ext.TICKETS_EXPECTED: u8,
    ext.RETURN_ROUTABILITY: st.just(True),
    ext.STATUS_REQUEST: st.lists(short, max_size=3).map(_status_request),
    ext.STATUS_REQUESTED: true,
    ext.CERTIFICATE_STATUS: short,
    ext.TIMESTAMPS_REQUESTED: true,
    ext.CERTIFICATE_TIMESTAMPS: tuples_of(short),
    ext.CLIENT_CERTIFICATE_TYPES: tuples_of(u8.map(CertificateType)),
    ext.CLIENT_CERTIFICATE_TYPE: u8.map(CertificateType),
    ext.SERVER_CERTIFICATE_TYPES: tuples_of(u8.map(CertificateType)),
    ext.SERVER_CERTIFICATE_TYPE: u8.map(CertificateType),
    ext.COMPRESS_CERTIFICATE: tuples_of(u16.map(CompressionAlgorithm)),
}

#: Codes our table does not know, GREASE among them (RFC 8701).
unknown_codes = st.one_of(st.sampled_from([0x0A0A, 0x7A7A, 0xFAFA, 17, 21, 65281]), u16).filter(
    lambda code: code not in ext._KNOWN_CODES
)


@st.composite
def blocks(draw: st.DrawFn, where: Where) -> Extensions:
    """A block as `where` may carry it, unknown extensions among the others."""
    entries: dict[int, Any] = {}
    known = [key for key in VALUES if where in key.where]
    for key in draw(st.lists(st.sampled_from(known), unique=True)) if known else []:
        entries[key.code] = draw(VALUES[key])
    for code in draw(st.lists(unknown_codes, unique=True, max_size=3)):
        entries[code] = draw(st.binary(max_size=12))
    order = draw(st.permutations(list(entries)))
    # RFC 8446 section 4.2.11: pre_shared_key stands last.
    order.sort(key=lambda code: code == ext.PRE_SHARED_KEYS.code and where is Where.CLIENT_HELLO)
    block = Extensions(where)
    block._entries = {code: entries[code] for code in order}
    return block


def client_hellos(flavor: Flavor) -> st.SearchStrategy[ClientHello]:
    return st.builds(
        ClientHello,
        legacy_version=u16,
        random=st.binary(min_size=32, max_size=32),
        legacy_session_id=st.binary(max_size=32),
        legacy_cookie=st.binary(max_size=255) if flavor.has_legacy_cookie else st.just(b""),
        suites=some_u16.map(lambda codes: tuple(CipherSuite(code) for code in codes)),
        compression_methods=short,
        extensions=blocks(Where.CLIENT_HELLO),
    )


def _server_hellos(where: Where, randoms: st.SearchStrategy[bytes]) -> st.SearchStrategy[ServerHello]:
    return st.builds(
        ServerHello,
        legacy_version=u16,
        random=randoms,
        legacy_session_id_echo=st.binary(max_size=32),
        suite=u16.map(CipherSuite),
        compression_method=u8,
        extensions=blocks(where),
    )


server_hellos = _server_hellos(Where.SERVER_HELLO, st.binary(min_size=32, max_size=32))
retry_requests = _server_hellos(Where.HELLO_RETRY_REQUEST, st.just(HELLO_RETRY_RANDOM))
encrypted_extensions = st.builds(EncryptedExtensions, blocks(Where.ENCRYPTED_EXTENSIONS))
certificate_requests = st.builds(
    CertificateRequest, st.binary(max_size=255), blocks(Where.CERTIFICATE_REQUEST)
)
certificates = st.builds(
    Certificate,
    st.binary(max_size=255),
    tuples_of(
        st.builds(CertificateEntry, st.binary(min_size=1, max_size=300), blocks(Where.CERTIFICATE)), low=0
    ),
)
compressed_certificates = st.builds(
    CompressedCertificate,
    u16.map(CompressionAlgorithm),
    st.integers(0, 0xFFFFFF),
    st.binary(min_size=1, max_size=300),
)
certificate_verifies = st.builds(CertificateVerify, u16.map(SignatureScheme), st.binary(max_size=300))
finished = st.builds(Finished, st.binary(min_size=32, max_size=32))
tickets = st.builds(
    NewSessionTicket,
    lifetime=u32,
    age_add=u32,
    nonce=st.binary(max_size=255),
    ticket=st.binary(min_size=1, max_size=300),
    extensions=blocks(Where.NEW_SESSION_TICKET),
)
key_updates = st.builds(KeyUpdate, st.booleans())
