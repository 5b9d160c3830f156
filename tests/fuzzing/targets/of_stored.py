"""What is stored and comes back, and what says who the peer is."""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import json
import os
import tempfile
from typing import Final

from cryptography import x509

from sealwire.context.sessions import SessionStore
from sealwire.crypto.certificates import CertificateVerifier, PeerCertificate, leaf_public_key
from sealwire.crypto.compression import CompressionAlgorithm, available_algorithms, compress, decompress
from sealwire.crypto.ocsp import check_staple, judge, valid_until
from sealwire.crypto.purpose import Purpose
from sealwire.crypto.rawkeys import parse_raw_public_key, spki_public_key
from sealwire.crypto.ticketkeys import TicketKeys
from sealwire.crypto.trust import memory_roots
from sealwire.errors import CertificateError, ConfigurationError, ProtocolError
from sealwire.tls13 import tickets
from sealwire.tls13.flavor import DTLS
from sealwire.tls13.tickets import SessionTicket
from tests import certificates
from tests.fuzzing.targets.pairs import WALL, early_config
from tests.fuzzing.targets.promise import Script, Target, known, plain_decoder, said
from tests.staples import staple

# Later, a float of seconds no longer tells one millisecond from the next.
_END_OF_TIME: Final = 2.0**40


def _session_ticket(data: bytes) -> None:
    ticket = SessionTicket.decode(data)
    if ticket.received_at < _END_OF_TIME:
        assert SessionTicket.decode(ticket.encode()) == ticket


def _ticket_state(data: bytes) -> None:
    state = tickets._State.decode(data)
    assert tickets._State.decode(state.encode()) == state


def _sealed_ticket(data: bytes) -> None:
    assert TicketKeys([bytes(32)]).open(data, WALL) is None


def _opened_ticket(data: bytes) -> None:
    """A ticket of ours may hold anything: an older version of ours may have sealed it."""
    server, _ = early_config()
    sealed = server.ticket_keys.seal(data, WALL, tickets._CONTEXT)
    tickets.open_ticket(server, DTLS, sealed, "localhost", WALL)


def _load_store(document: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "sessions")
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(document)
        try:
            store = SessionStore.load(path)
        except ConfigurationError as error:
            said(error)
            return
        store.save(path)
        SessionStore.load(path)


def _store_with_digest(data: bytes) -> None:
    """Whatever its tickets are, the digest fits: a file another program wrote with care."""
    try:
        entries = json.loads(data)
        canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return
    digest = hashlib.sha256(canonical.encode("ascii")).hexdigest()
    _load_store(
        json.dumps(
            {"format": "sealwire sessions", "version": 1, "digest": digest, "tickets": entries}
        ).encode()
    )


def _roots(data: bytes) -> None:
    for form in (
        data,
        b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----",
    ):
        try:
            memory_roots(form)
        except ConfigurationError as error:
            said(error)


FILES: Final[tuple[Target, ...]] = (
    plain_decoder(_session_ticket),
    plain_decoder(_ticket_state),
    _sealed_ticket,
    _opened_ticket,
    _load_store,
    _store_with_digest,
    _roots,
)


@functools.cache
def _judged() -> tuple[x509.Certificate, x509.Certificate, bytes]:
    """A certificate, its issuer, and a good staple."""
    server = certificates.server()
    leaf = x509.load_der_x509_certificate(server.chain[0])
    issuer, key = certificates.root_of(server)
    return leaf, issuer, staple(leaf, issuer, key)


def _staple(data: bytes) -> None:
    leaf, issuer, good = _judged()
    valid_until(data)
    try:
        check_staple(data, certificates.server().chain[0])
    except ConfigurationError:
        pass
    try:
        judge(data, leaf, issuer, datetime.datetime.now(datetime.UTC))
    except CertificateError as error:
        known(error)
    else:
        # Its signature covers what is said; what stands beside it (certificates) may differ.
        assert data[:4] == good[:4]


def _damaged_staple(data: bytes) -> None:
    script, changed = Script(data), _judged()[2]
    for _ in range(1 + script.byte(4)):
        changed = script.damaged(changed)
    _staple(changed)


def _compressed(data: bytes) -> None:
    script = Script(data)
    algorithm = CompressionAlgorithm(script.byte(5))
    size, limit = script.word() << 4, 4_096
    body = script.piece() if script.byte(2) else b""
    for _ in range(script.byte(4)):
        if not body and algorithm in available_algorithms():
            body, size = compress(algorithm, bytes(1_000)), 1_000
        body = script.damaged(body)
    try:
        unpacked = decompress(algorithm, body, size, limit)
    except ProtocolError as error:
        known(error)
    else:
        assert len(unpacked) == size <= limit


def _certificate(data: bytes) -> None:
    try:
        leaf_public_key(data)
    except CertificateError as error:
        known(error)
    peer = PeerCertificate((data,))
    for ask in (lambda: peer.names, peer.as_dict, lambda: peer.leaf):
        try:
            ask()
        except CertificateError as error:
            known(error)


@functools.cache
def _verifier() -> CertificateVerifier:
    return CertificateVerifier([certificates.server().root])


def _damaged_certificate(data: bytes) -> None:
    script, der = Script(data), certificates.server().chain[0]
    for _ in range(1 + script.byte(3)):
        der = script.damaged(der)
    _certificate(der)
    try:
        _verifier().verify((der,), purpose=Purpose.SERVER, name="localhost")
    except CertificateError as error:
        known(error)
    else:
        assert der == certificates.server().chain[0]


def _raw_key(data: bytes) -> None:
    try:
        spki_public_key(data)
    except CertificateError as error:
        known(error)
    try:
        parse_raw_public_key(data)
    except ConfigurationError as error:
        said(error)


IDENTITIES: Final[tuple[Target, ...]] = (
    _staple,
    _damaged_staple,
    _compressed,
    _certificate,
    _damaged_certificate,
    _raw_key,
)
