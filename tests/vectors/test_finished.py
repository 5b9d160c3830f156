"""Finished and CertificateVerify of recorded connections, checked by the package's own engine parts.

From the opened records of a capture to its proofs: fragments are put together by `dtls.reassembly`,
hashed by `Transcript`, and every Finished is verified with the handshake secrets of the key log.
The messages of other stacks must also come out of our codecs byte for byte as they went in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from sealwire.context import PROTOCOL_CLIENT, Config, Context
from sealwire.crypto.certificates import PeerCertificate, Purpose
from sealwire.crypto.hkdf import DTLS13_PREFIX, TLS13_PREFIX, Secret
from sealwire.crypto.suites import SUITES, CipherSuite, SuiteSpec
from sealwire.dtls.header import decode_fragments
from sealwire.dtls.reassembly import Reassembly
from sealwire.errors import Alert, Discard, ProtocolError
from sealwire.limits import Account, Ledger, Limits
from sealwire.tls13.acceptance import Presented
from sealwire.tls13.authentication import authenticate, verify_finished
from sealwire.tls13.extensions import PRE_SHARED_KEYS
from sealwire.tls13.flavor import DTLS
from sealwire.tls13.messages import (
    HEADER_BYTES,
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    Finished,
    HandshakeType,
    KeyUpdate,
    NewSessionTicket,
    ServerHello,
    open_message,
)
from sealwire.tls13.schedule import Deriver
from sealwire.tls13.transcript import Transcript, message_hash
from sealwire.wire import Reader
from tests.record_layers import LAYERS, PROVIDER
from tests.vectors.recorded import COPIES, Capture, walk
from tests.vectors.test_captures import ALL, COPIED

_HANDSHAKE = 22
_FRAGMENT_HEADER_BYTES = 12
_KT = HandshakeType


@dataclass(slots=True)
class Connection:
    """One connection of a capture: the messages of both sides in order, each with its epoch."""

    client_random: bytes
    messages: dict[str, list[tuple[int, bytes]]] = field(default_factory=lambda: {"c2s": [], "s2c": []})
    reassembly: dict[str, Reassembly] = field(default_factory=dict)

    def take(self, direction: str, epoch: int, content: bytes) -> None:
        reassembly = self.reassembly.get(direction)
        if reassembly is None:
            limits = Limits(future_messages=64)
            account = Account(Ledger(limits.total_bytes), limits.connection_bytes)
            reassembly = self.reassembly[direction] = Reassembly(account, limits)
        for fragment in decode_fragments(content):
            assert reassembly.offer(fragment, epoch) in (None, Discard.STALE_MESSAGE)
        while (whole := reassembly.pop()) is not None:
            self.messages[direction].append(whole)


@cache
def connections(path: Path) -> tuple[Connection, ...]:
    """Every connection of a capture, each message whole."""
    records, _ = walk(Capture.load(path), LAYERS[-1])
    found: list[Connection] = []
    for record in records:
        if record.content_type != _HANDSHAKE:
            continue
        first = record.content
        starts_hello = first[0] == _KT.CLIENT_HELLO and first[6:9] == bytes(3)
        if starts_hello:
            random = first[_FRAGMENT_HEADER_BYTES + 2 : _FRAGMENT_HEADER_BYTES + 34]
            if not found or found[-1].client_random != random:
                found.append(Connection(random))
        found[-1].take(record.direction, record.epoch, record.content)
    for connection in found:
        assert all(reassembly.empty for reassembly in connection.reassembly.values())
    return tuple(found)


@cache
def anyone() -> Config:
    """Settings under which no chain is judged: the certificates of captures are long expired."""
    context = Context(PROTOCOL_CLIENT)
    context.check_hostname = False
    context.verify_mode = 0
    return context.config()


@dataclass(slots=True)
class Proofs:
    """What was checked in one connection."""

    checked: Counter[str] = field(default_factory=Counter)
    retried: bool = False
    spec: SuiteSpec = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]


def check(path: Path, prefix: bytes = DTLS13_PREFIX, flip: Callable[[bytes], bytes] = bytes) -> list[Proofs]:
    """Verify every Finished and CertificateVerify of a capture.  `flip` damages what is hashed."""
    secrets = {
        (words[0], bytes.fromhex(words[1])): Secret(bytes.fromhex(words[2]))
        for words in (line.split() for line in Capture.load(path).facts["keylog"])
    }
    return [
        _check(
            connection,
            secrets["CLIENT_HANDSHAKE_TRAFFIC_SECRET", connection.client_random],
            secrets["SERVER_HANDSHAKE_TRAFFIC_SECRET", connection.client_random],
            prefix,
            flip,
        )
        for connection in connections(path)
    ]


def _check(
    connection: Connection, client: Secret, server: Secret, prefix: bytes, flip: Callable[[bytes], bytes]
) -> Proofs:
    proofs = Proofs()
    ours, theirs = iter(connection.messages["c2s"]), iter(connection.messages["s2c"])
    _, first = next(ours)
    _, answer = next(theirs)
    hello = ServerHello.decode(open_message(answer)[1])
    proofs.spec = spec = SUITES[hello.suite]
    if hello.is_retry_request:
        proofs.retried = True
        transcript = Transcript.after_retry(PROVIDER, spec, message_hash(PROVIDER, spec, first), answer)
        transcript.add(next(ours)[1])
        _, answer = next(theirs)
        assert ServerHello.decode(open_message(answer)[1]).suite == spec.suite
    else:
        transcript = Transcript(PROVIDER, spec)
        transcript.add(flip(first))
    transcript.add(answer)
    deriver = Deriver(PROVIDER, spec, prefix)
    for messages, secret, signer in ((theirs, server, Purpose.SERVER), (ours, client, Purpose.CLIENT)):
        chain: list[bytes] = []
        for epoch, message in messages:
            kind, body = open_message(message)
            # RFC 9147 section 5.6: no EndOfEarlyData [9147-5.6-1].
            assert kind is not _KT.END_OF_EARLY_DATA
            assert epoch == 2
            if kind is _KT.CERTIFICATE:
                chain = [entry.der for entry in Certificate.decode(body, 10).entries]
                proofs.checked[f"{signer.name} certificates"] += len(chain)
            elif kind is _KT.CERTIFICATE_VERIFY:
                presented = Presented(PeerCertificate(chain))
                authenticate(anyone(), presented, body, signer, transcript)
                proofs.checked[f"{signer.name} signature"] += 1
            elif kind is _KT.FINISHED:
                verify_finished(deriver, secret, transcript, body)
                proofs.checked[f"{signer.name} finished"] += 1
            transcript.add(message)
            if kind is _KT.FINISHED:
                break
    return proofs


def assert_proved(path: Path) -> None:
    facts = Capture.load(path).facts["connections"]
    proved = check(path)
    assert len(proved) == len(facts)
    for proofs, fact in zip(proved, facts, strict=True):
        assert proofs.checked["SERVER finished"] == proofs.checked["CLIENT finished"] == 1
        assert proofs.retried is fact["hrr"]
        assert proofs.spec.suite == int(fact["suite"], 16)


@pytest.mark.requirement(
    "9147-5.1-14", "9147-5.2-1", "9147-5.9-1", "8446-KS-3", "8446-KS-4", "8446-AUTH-2", "9147-5.6-1"
)
@pytest.mark.parametrize("name", COPIED)
def test_every_proof_of_a_copied_capture(name: str) -> None:
    assert_proved(COPIES / f"{name}.json")


@pytest.mark.requirement("9147-5.1-14", "9147-5.2-1", "9147-5.9-1", "8446-KS-3", "8446-KS-4", "8446-AUTH-2")
@pytest.mark.parametrize("name", ALL)
def test_every_proof_of_a_shared_capture(name: str, shared_data: Path) -> None:
    assert_proved(shared_data / "dtls13" / "dtls13_captures" / f"{name}.json")


def test_the_copies_hold_every_kind_of_proof() -> None:
    proved = [proofs for name in COPIED for proofs in check(COPIES / f"{name}.json")]
    total = sum((proofs.checked for proofs in proved), Counter[str]())
    assert total["SERVER finished"] == total["CLIENT finished"] == len(proved)
    assert total["SERVER signature"] == len(proved)
    assert total["CLIENT signature"] >= 1
    assert {proofs.retried for proofs in proved} == {False, True}
    assert {proofs.spec.hash_name for proofs in proved} == {"sha256", "sha384"}


def test_a_changed_bit_in_the_hello_shows_in_the_proofs() -> None:
    """The tests above can fail: the signature is the first proof a changed transcript breaks."""
    path = COPIES / "bssl__x25519_ecdsa.json"
    with pytest.raises(ProtocolError) as caught:
        check(path, flip=lambda message: message[:-1] + bytes((message[-1] ^ 1,)))
    assert caught.value.alert is Alert.DECRYPT_ERROR


@pytest.mark.requirement("9147-5.9-1")
def test_labels_of_streams_do_not_fit_datagrams() -> None:
    with pytest.raises(ProtocolError, match="Finished does not fit") as caught:
        check(COPIES / "bssl__x25519_ecdsa.json", prefix=TLS13_PREFIX)
    assert caught.value.alert is Alert.DECRYPT_ERROR


def again(message: bytes, hash_bytes: int) -> bytes | None:
    """The message, decoded and encoded by our codecs; None for a type that has none."""
    kind, body = open_message(message)
    match kind:
        case _KT.CLIENT_HELLO:
            return ClientHello.decode(body, DTLS).encode(DTLS)
        case _KT.SERVER_HELLO:
            return ServerHello.decode(body).encode()
        case _KT.ENCRYPTED_EXTENSIONS:
            return EncryptedExtensions.decode(body).encode()
        case _KT.CERTIFICATE_REQUEST:
            return CertificateRequest.decode(body).encode()
        case _KT.CERTIFICATE:
            return Certificate.decode(body, 10).encode()
        case _KT.CERTIFICATE_VERIFY:
            return CertificateVerify.decode(body).encode()
        case _KT.FINISHED:
            return Finished.decode(body, hash_bytes).encode()
        case _KT.NEW_SESSION_TICKET:
            return NewSessionTicket.decode(body).encode()
        case _KT.KEY_UPDATE:
            return KeyUpdate.decode(body).encode()
    return None


def assert_codecs_are_exact(path: Path) -> Counter[HandshakeType]:
    seen: Counter[HandshakeType] = Counter()
    for connection, proofs in zip(connections(path), check(path), strict=True):
        for messages in connection.messages.values():
            for _, message in messages:
                kind = HandshakeType(message[0])
                assert again(message, proofs.spec.hash_bytes) == message, f"{path.stem}: {kind.name}"
                seen[kind] += 1
    return seen


def test_codecs_return_what_other_stacks_sent() -> None:
    seen: Counter[HandshakeType] = Counter()
    for name in COPIED:
        seen += assert_codecs_are_exact(COPIES / f"{name}.json")
    assert set(seen) >= {
        _KT.CLIENT_HELLO,
        _KT.SERVER_HELLO,
        _KT.ENCRYPTED_EXTENSIONS,
        _KT.CERTIFICATE_REQUEST,
        _KT.CERTIFICATE,
        _KT.CERTIFICATE_VERIFY,
        _KT.FINISHED,
        _KT.NEW_SESSION_TICKET,
        _KT.KEY_UPDATE,
    }


@pytest.mark.parametrize("name", ALL)
def test_codecs_return_what_other_stacks_sent_in_shared_captures(name: str, shared_data: Path) -> None:
    assert_codecs_are_exact(shared_data / "dtls13" / "dtls13_captures" / f"{name}.json")


def test_the_shared_captures_hold_pre_shared_keys(shared_data: Path) -> None:
    """Resumed connections and external keys are among what is proved above."""
    hellos = [
        ClientHello.decode(Reader(message, start=HEADER_BYTES), DTLS)
        for name in ALL
        for connection in connections(shared_data / "dtls13" / "dtls13_captures" / f"{name}.json")
        for _, message in connection.messages["c2s"]
        if message[0] == _KT.CLIENT_HELLO
    ]
    assert sum(PRE_SHARED_KEYS.code in hello.extensions for hello in hellos) >= 4
