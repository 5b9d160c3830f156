"""The traces of RFC 8448, replayed from their private keys to their records.

Each trace gives the random numbers of both sides, and so their key exchange keys; from these and
the messages everything else must follow: secrets, keys, Finished, and every record to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from sealwire.crypto.certificates import Purpose, leaf_public_key
from sealwire.crypto.groups import Group
from sealwire.crypto.hkdf import TLS13_PREFIX, Secret, traffic_keys
from sealwire.crypto.signatures import SignatureScheme, verify
from sealwire.crypto.suites import SUITES, CipherSuite
from sealwire.errors import CertificateError
from sealwire.record.stream_reference import StreamOpener, StreamSealer
from sealwire.tls13 import extensions as ext
from sealwire.tls13.authentication import signed_content, verify_finished
from sealwire.tls13.flavor import TLS
from sealwire.tls13.messages import (
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    HandshakeType,
    NewSessionTicket,
    ServerHello,
    open_message,
)
from sealwire.tls13.schedule import ApplicationStage, Deriver, EarlyStage, HandshakeStage
from sealwire.tls13.transcript import Transcript, message_hash
from tests.record_layers import LAYERS, PROVIDER, Layer, each_layer

HANDSHAKE, APPLICATION_DATA, ALERT = 22, 23, 21
CLOSE_NOTIFY = b"\x01\x00"
SPEC = SUITES[CipherSuite.TLS_AES_128_GCM_SHA256]
DERIVER = Deriver(PROVIDER, SPEC, TLS13_PREFIX)

Trace = dict[str, bytes]


@cache
def _read(path: Path) -> dict[str, Trace]:
    traces: dict[str, Trace] = {}
    for line in path.read_text("ascii").splitlines():
        if line.startswith("["):
            trace = traces.setdefault(line.strip("[]"), {})
        elif " = " in line and not line.startswith("#"):
            name, value = (part.strip() for part in line.split("=", 1))
            try:
                trace[name] = bytes.fromhex(value)
            except ValueError:
                trace[name] = value.encode("ascii")  # names, and numbers with an odd count of digits
    return traces


@pytest.fixture
def traces(shared_data: Path) -> dict[str, Trace]:
    return _read(shared_data / "dtls13" / "rfc8448_botan" / "transcripts.vec")


def records(data: bytes) -> Iterator[bytes]:
    """The records of a byte stream, compatibility ChangeCipherSpec left out."""
    while data:
        n = 5 + int.from_bytes(data[3:5], "big")
        assert len(data) >= n
        if data[0] != 20:
            yield data[:n]
        data = data[n:]


def messages(data: bytes) -> Iterator[bytes]:
    """The handshake messages of a flight."""
    while data:
        n = 4 + int.from_bytes(data[1:4], "big")
        yield data[:n]
        data = data[n:]


def plain(record: bytes) -> bytes:
    """The message of a plaintext record."""
    assert record[0] == HANDSHAKE
    assert len(record) == 5 + int.from_bytes(record[3:5], "big")
    return record[5:]


def key_exchange(pool: bytes, group: Group, public: bytes, peer: bytes) -> bytes:
    """The shared secret of the one whose random numbers are `pool` and whose share is `public`."""
    size = 32
    for at in range(len(pool) - size + 1):
        number = pool[at : at + size]
        if group is Group.X25519:
            private = x25519.X25519PrivateKey.from_private_bytes(number)
            if private.public_key().public_bytes_raw() == public:
                return private.exchange(x25519.X25519PublicKey.from_public_bytes(peer))
            continue
        assert group is Group.SECP256R1
        try:
            key = ec.derive_private_key(int.from_bytes(number, "big"), ec.SECP256R1())
        except ValueError:
            continue
        if key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) == public:
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), peer)
            return key.exchange(ec.ECDH(), point)
    raise AssertionError(f"no key for the share of {group.name} among the random numbers")


@dataclass(slots=True)
class Replay:
    """A trace from its ClientHello to the application keys."""

    trace: Trace
    layer: Layer
    hello: ClientHello
    server_hello: ServerHello
    transcript: Transcript
    early: EarlyStage
    handshake: HandshakeStage
    application: ApplicationStage
    resumption: Secret
    server_flight: list[bytes] = field(default_factory=list)
    client_flight: list[bytes] = field(default_factory=list)
    server_sealer: StreamSealer = field(init=False)
    client_sealer: StreamSealer = field(init=False)

    def __post_init__(self) -> None:
        self.server_sealer = self.sealer(self.application.server_secret, 3)
        self.client_sealer = self.sealer(self.application.client_secret, 3)

    def sealer(self, secret: Secret, epoch: int) -> StreamSealer:
        return self.layer.stream_sealer(
            PROVIDER, SPEC, traffic_keys(PROVIDER, SPEC, secret, TLS13_PREFIX), epoch
        )

    def opener(self, secret: Secret, epoch: int) -> StreamOpener:
        return self.layer.stream_opener(
            PROVIDER, SPEC, traffic_keys(PROVIDER, SPEC, secret, TLS13_PREFIX), epoch
        )

    def same(self, name: str, sealer: StreamSealer, content_type: int, content: bytes) -> None:
        """The trace's record `name` is what we would have sent."""
        assert sealer.seal_run(content_type, content) == b"".join(records(self.trace[name])), name


def replay(trace: Trace, layer: Layer, early: EarlyStage | None = None) -> Replay:
    """Walk a full handshake of the trace; every derived value is used to open or to verify."""
    first = plain(trace["Record_ClientHello_1"])
    hello = ClientHello.decode(open_message(first)[1], TLS)
    if "Record_HelloRetryRequest" in trace:
        request = plain(trace["Record_HelloRetryRequest"])
        assert ServerHello.decode(open_message(request)[1]).is_retry_request
        transcript = Transcript.after_retry(PROVIDER, SPEC, message_hash(PROVIDER, SPEC, first), request)
        first = plain(trace["Record_ClientHello_2"])
        hello = ClientHello.decode(open_message(first)[1], TLS)
    else:
        transcript = Transcript(PROVIDER, SPEC)
    transcript.add(first)
    answer = plain(trace["Record_ServerHello"])
    assert answer == trace["Message_ServerHello"]
    transcript.add(answer)
    server_hello = ServerHello.decode(open_message(answer)[1])
    assert server_hello.suite == SPEC.suite

    theirs = server_hello.extensions.require(ext.KEY_SHARE)
    [ours] = [entry for entry in hello.extensions.require(ext.KEY_SHARES) if entry.group == theirs.group]
    shared = key_exchange(trace["Client_RNG_Pool"], ours.group, ours.share, theirs.share)
    assert shared == key_exchange(trace["Server_RNG_Pool"], ours.group, theirs.share, ours.share)
    early = early or EarlyStage.start(DERIVER)
    handshake = early.handshake(shared, transcript.hash())

    def open_flight(name: str, secret: Secret) -> list[bytes]:
        opener = layer.stream_opener(PROVIDER, SPEC, traffic_keys(PROVIDER, SPEC, secret, TLS13_PREFIX), 2)
        flight = b""
        for record in records(trace[name]):
            content_type, content = opener.open(record)
            assert content_type == HANDSHAKE
            flight += content
        return list(messages(flight))

    def prove(flight: list[bytes], secret: Secret, signer: Purpose) -> None:
        chain: list[bytes] = []
        for message in flight:
            kind, body = open_message(message)
            if kind is HandshakeType.CERTIFICATE:
                chain = [entry.der for entry in Certificate.decode(body, 10).entries]
            elif kind is HandshakeType.CERTIFICATE_VERIFY:
                check_signature(trace, signer, chain, CertificateVerify.decode(body), transcript.hash())
            elif kind is HandshakeType.FINISHED:
                verify_finished(DERIVER, secret, transcript, body)
            transcript.add(message)

    server_flight = open_flight("Record_ServerHandshakeMessages", handshake.server_secret)
    prove(server_flight, handshake.server_secret, Purpose.SERVER)
    application = handshake.application(transcript.hash())
    client_flight = open_flight("Record_ClientFinished", handshake.client_secret)
    prove(client_flight, handshake.client_secret, Purpose.CLIENT)
    resumption = application.resumption_secret(transcript.hash())
    return Replay(
        trace,
        layer,
        hello,
        server_hello,
        transcript,
        early,
        handshake,
        application,
        resumption,
        server_flight,
        client_flight,
    )


def check_signature(
    trace: Trace, signer: Purpose, chain: list[bytes], message: CertificateVerify, transcript_hash: bytes
) -> None:
    """Content and signature are those of the trace; an RSA key of 1024 bits is refused all the same."""
    side = "Server" if signer is Purpose.SERVER else "Client"
    content = signed_content(signer, transcript_hash)
    assert content == trace[f"{side}_MessageToSign"]
    assert message.signature == trace[f"{side}_MessageSignature"]
    [shown] = chain
    if len(shown) < 100:
        key: object = load_der_public_key(shown)  # a raw public key, which is no certificate
    elif message.scheme is SignatureScheme.ECDSA_SECP256R1_SHA256:
        key = leaf_public_key(shown)
    else:
        with pytest.raises(CertificateError, match="1024"):
            leaf_public_key(shown)
        return
    verify(key, message.scheme, message.signature, content)


FULL = [
    "Simple_1RTT_Handshake",
    "HelloRetryRequest_Handshake",
    "Client_Authentication_Handshake",
    "Middlebox_Compatibility_Mode",
    "RawPublicKey_With_Client_Authentication",
]


@pytest.mark.requirement("8446-KS-1", "8446-KS-2", "8446-KS-3", "8446-KS-4", "8446-AUTH-2")
@each_layer
@pytest.mark.parametrize("name", FULL)
def test_a_full_handshake(name: str, traces: dict[str, Trace], layer: Layer) -> None:
    trace = traces[name]
    run = replay(trace, layer)
    named = {message[0]: message for message in run.server_flight}
    expected = {
        HandshakeType.ENCRYPTED_EXTENSIONS: "Message_EncryptedExtensions",
        HandshakeType.CERTIFICATE_REQUEST: "Message_CertificateRequest",
        HandshakeType.CERTIFICATE: "Message_Server_Certificate",
        HandshakeType.CERTIFICATE_VERIFY: "Message_Server_CertificateVerify",
        HandshakeType.FINISHED: "Message_Server_Finished",
    }
    assert {kind: trace[value] for kind, value in expected.items() if value in trace} == named
    authenticated = "Client_Authentication" in name
    assert [HandshakeType(message[0]).name for message in run.client_flight] == (
        ["CERTIFICATE", "CERTIFICATE_VERIFY", "FINISHED"] if authenticated else ["FINISHED"]
    )
    # The same bytes leave our own sealers.
    handshake = run.sealer(run.handshake.server_secret, 2)
    run.same("Record_ServerHandshakeMessages", handshake, HANDSHAKE, b"".join(run.server_flight))
    handshake = run.sealer(run.handshake.client_secret, 2)
    run.same("Record_ClientFinished", handshake, HANDSHAKE, b"".join(run.client_flight))
    if "SessionTicket" in trace and "Record_NewSessionTicket" in trace:
        opener = run.opener(run.application.server_secret, 3)
        content_type, ticket = opener.open(trace["Record_NewSessionTicket"])
        assert content_type == HANDSHAKE
        NewSessionTicket.decode(open_message(ticket)[1])
        run.same("Record_NewSessionTicket", run.server_sealer, HANDSHAKE, ticket)
    if "Client_AppData" in trace:
        run.same("Record_Client_AppData", run.client_sealer, APPLICATION_DATA, trace["Client_AppData"])
        run.same("Record_Server_AppData", run.server_sealer, APPLICATION_DATA, trace["Server_AppData"])
    run.same("Record_Client_CloseNotify", run.client_sealer, ALERT, CLOSE_NOTIFY)
    run.same("Record_Server_CloseNotify", run.server_sealer, ALERT, CLOSE_NOTIFY)


@pytest.mark.parametrize("name", FULL)
def test_codecs_return_the_messages_of_a_trace(name: str, traces: dict[str, Trace], layer: Layer) -> None:
    run = replay(traces[name], layer)
    assert run.hello.encode(TLS) == plain(
        traces[name].get("Record_ClientHello_2", traces[name]["Record_ClientHello_1"])
    )
    assert run.server_hello.encode() == traces[name]["Message_ServerHello"]
    for message in run.server_flight:
        kind, body = open_message(message)
        match kind:
            case HandshakeType.ENCRYPTED_EXTENSIONS:
                assert EncryptedExtensions.decode(body).encode() == message
            case HandshakeType.CERTIFICATE_REQUEST:
                assert CertificateRequest.decode(body).encode() == message
            case HandshakeType.CERTIFICATE:
                assert Certificate.decode(body, 10).encode() == message


@pytest.fixture
def layer() -> Layer:
    """Where a test does not ask for each: the newest."""
    return LAYERS[-1]


# RFC 8448 section 3, "Simple 1-RTT Handshake": the secrets as printed there.
PRINTED = {
    "early": "33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a",
    "handshake": "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac",
    "c hs traffic": "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21",
    "s hs traffic": "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38",
    "main": "18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919",
    "c ap traffic": "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
    "s ap traffic": "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
    "exp master": "fe22f881176eda18eb8f44529e6792c50c9a3f89452f68d8ae311b4309d3cf50",
    "res master": "7df235f2031d2a051287d02b0241b0bfdaf86cc856231f2d5aba46c434ec196c",
}


@pytest.mark.requirement("8446-KS-1", "8446-KS-2")
def test_every_secret_printed_in_section_3(traces: dict[str, Trace], layer: Layer) -> None:
    run = replay(traces["Simple_1RTT_Handshake"], layer)
    assert {
        "early": bytes(run.early.secret).hex(),
        "handshake": bytes(run.handshake.secret).hex(),
        "c hs traffic": bytes(run.handshake.client_secret).hex(),
        "s hs traffic": bytes(run.handshake.server_secret).hex(),
        "main": bytes(run.application.secret).hex(),
        "c ap traffic": bytes(run.application.client_secret).hex(),
        "s ap traffic": bytes(run.application.server_secret).hex(),
        "exp master": bytes(run.application.exporter_secret).hex(),
        "res master": bytes(run.resumption).hex(),
    } == PRINTED


def resumption_psk(traces: dict[str, Trace], layer: Layer) -> bytes:
    """The pre-shared key of the trace's ticket (RFC 8446 section 4.6.1)."""
    run = replay(traces["Simple_1RTT_Handshake"], layer)
    _, content = run.opener(run.application.server_secret, 3).open(run.trace["Record_NewSessionTicket"])
    ticket = NewSessionTicket.decode(open_message(content)[1])
    return DERIVER.expand(run.resumption, b"resumption", ticket.nonce, SPEC.hash_bytes)


@pytest.mark.requirement("8446-KS-1", "8446-KS-2")
def test_the_ticket_gives_the_pre_shared_key_of_the_client(traces: dict[str, Trace], layer: Layer) -> None:
    psk = resumption_psk(traces, layer)
    # Botan's client wrote it into its session, which is part of the next trace.
    assert psk in traces["Resumed_0RTT_Handshake"]["Client_SessionData"]


@pytest.mark.requirement("8446-KS-1", "8446-KS-2", "8446-PSK-2")
def test_the_binder_and_the_early_data_of_a_resumption(traces: dict[str, Trace], layer: Layer) -> None:
    """What exists of the schedule for pre-shared keys: its primitives fit the trace."""
    trace = traces["Resumed_0RTT_Handshake"]
    psk = resumption_psk(traces, layer)
    early = EarlyStage(DERIVER, Secret(PROVIDER.hkdf_extract(SPEC.hash_name, b"", psk)))
    message = plain(trace["Record_ClientHello_1"])
    hello = ClientHello.decode(open_message(message)[1], TLS)
    offered = hello.extensions.require(ext.PRE_SHARED_KEYS)
    binders = 2 + sum(1 + len(binder) for binder in offered.binders)
    binder_key = DERIVER.derive(early.secret, b"res binder", DERIVER.empty_hash())
    truncated = message_hash(PROVIDER, SPEC, message[:-binders])
    assert DERIVER.finished_mac(binder_key, truncated) == offered.binders[0]

    transcript = Transcript(PROVIDER, SPEC)
    transcript.add(message)
    secret = DERIVER.derive(early.secret, b"c e traffic", transcript.hash())
    keys = traffic_keys(PROVIDER, SPEC, secret, TLS13_PREFIX)
    opener = layer.stream_opener(PROVIDER, SPEC, keys, 1)
    assert opener.open(trace["Record_Client_EarlyAppData"]) == (
        APPLICATION_DATA,
        trace["Client_EarlyAppData"],
    )
    # EndOfEarlyData is the first record of the client's last flight.
    end, _ = records(trace["Record_ClientFinished"])
    assert opener.open(end) == (HANDSHAKE, bytes((HandshakeType.END_OF_EARLY_DATA, 0, 0, 0)))


@pytest.mark.requirement("8446-KS-1", "8446-KS-4")
def test_an_external_pre_shared_key(traces: dict[str, Trace], layer: Layer) -> None:
    trace = traces["Externally_Provided_PSK_with_Ephemeral_Key"]
    psk = trace["PskSecret"]
    early = EarlyStage(DERIVER, Secret(PROVIDER.hkdf_extract(SPEC.hash_name, b"", psk)))
    run = replay(trace, layer, early)
    run.same("Record_Client_AppData", run.client_sealer, APPLICATION_DATA, trace["Client_AppData"])
    run.same("Record_Server_AppData", run.server_sealer, APPLICATION_DATA, trace["Server_AppData"])


def test_no_trace_is_left_out(traces: dict[str, Trace]) -> None:
    assert set(traces) == {*FULL, "Resumed_0RTT_Handshake", "Externally_Provided_PSK_with_Ephemeral_Key"}
