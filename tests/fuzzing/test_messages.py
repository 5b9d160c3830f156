"""Every handshake message, damaged in every place: a value, or an error that knows its alert."""

from __future__ import annotations

import pytest

from sealwire.errors import Alert, ProtocolError
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.messages import (
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
from tests.fuzzing.mutations import mutations, sample
from tests.fuzzing.recordings import NAMES, Conversation, Delivery, recording

FLAVORS = pytest.mark.parametrize("flavor", [TLS, DTLS], ids=["TLS", "DTLS"])
RECORDINGS = pytest.mark.parametrize("name", NAMES)
#: Of some 20,000 damaged messages of one connection, each of which needs a handshake up to it.
SAMPLED = 2_000


def decode(message: bytes, flavor: Flavor) -> object:
    """The message as its decoder understands it."""
    kind, body = open_message(message)
    match kind:
        case HandshakeType.CLIENT_HELLO:
            return ClientHello.decode(body, flavor)
        case HandshakeType.SERVER_HELLO:
            return ServerHello.decode(body)
        case HandshakeType.ENCRYPTED_EXTENSIONS:
            return EncryptedExtensions.decode(body)
        case HandshakeType.CERTIFICATE_REQUEST:
            return CertificateRequest.decode(body)
        case HandshakeType.CERTIFICATE:
            return Certificate.decode(body, 10)
        case HandshakeType.CERTIFICATE_VERIFY:
            return CertificateVerify.decode(body)
        case HandshakeType.FINISHED:
            return Finished.decode(body, 32)
        case HandshakeType.NEW_SESSION_TICKET:
            return NewSessionTicket.decode(body)
        case HandshakeType.KEY_UPDATE:
            return KeyUpdate.decode(body)
    return None


def assert_knows_its_alert(error: ProtocolError) -> None:
    assert isinstance(error.alert, Alert)
    assert error.reason


def kinds(deliveries: list[Delivery]) -> list[str]:
    return [HandshakeType(delivery.message[0]).name for delivery in deliveries]


@FLAVORS
def test_the_recordings_hold_every_message(flavor: Flavor) -> None:
    seen = {name: kinds(Conversation(recording(name), flavor).run()) for name in NAMES}
    assert seen["hybrid"][:2] == ["CLIENT_HELLO", "SERVER_HELLO"]
    assert seen["mutual with retry"] == [
        "CLIENT_HELLO",
        "SERVER_HELLO",  # which is the HelloRetryRequest
        "CLIENT_HELLO",
        "SERVER_HELLO",
        "ENCRYPTED_EXTENSIONS",
        "CERTIFICATE_REQUEST",
        "CERTIFICATE",
        "CERTIFICATE_VERIFY",
        "FINISHED",
        "CERTIFICATE",
        "CERTIFICATE_VERIFY",
        "FINISHED",
    ]


@FLAVORS
@RECORDINGS
def test_every_damaged_message_through_its_decoder(flavor: Flavor, name: str) -> None:
    """The full product: everything a decoder can be given that differs in one place."""
    refused = total = 0
    for delivery in Conversation(recording(name), flavor).run():
        decode(delivery.message, flavor)
        for damaged in mutations(delivery.message):
            total += 1
            try:
                decode(damaged, flavor)
            except ProtocolError as error:
                assert_knows_its_alert(error)
                refused += 1
    assert total > 4_000
    # Every prefix is refused, and so are many replaced lengths.
    assert refused > total / 6


def through_the_engine(name: str, flavor: Flavor, number: int, damaged: bytes) -> bool:
    """Whether a fresh pair of engines takes `damaged` for the `number`-th message."""
    conversation = Conversation.before(recording(name), flavor, number)
    delivery = conversation.waiting.popleft()
    receiver = conversation.receiver(delivery)
    try:
        receiver.receive(delivery.epoch, damaged)
        conversation.collect()
        conversation.run()
    except ProtocolError as error:
        assert_knows_its_alert(error)
        return False
    return True


def damages(name: str, flavor: Flavor) -> list[tuple[int, bytes]]:
    deliveries = Conversation(recording(name), flavor).run()
    return [
        (number, damaged)
        for number, delivery in enumerate(deliveries)
        for damaged in mutations(delivery.message)
    ]


def assert_all_end_well(name: str, flavor: Flavor, chosen: list[tuple[int, bytes]]) -> None:
    accepted = [
        (number, damaged) for number, damaged in chosen if through_the_engine(name, flavor, number, damaged)
    ]
    # The Finished of both sides covers every byte before it: nothing damaged may go unnoticed.
    assert accepted == [], [(number, damaged.hex()) for number, damaged in accepted[:3]]


@pytest.mark.requirement("8446-NEG-10", "8446-KS-4")
@FLAVORS
@RECORDINGS
def test_damaged_messages_through_the_engine(flavor: Flavor, name: str) -> None:
    assert_all_end_well(name, flavor, sample(damages(name, flavor), SAMPLED, f"{name} {flavor}"))


@pytest.mark.long
@pytest.mark.requirement("8446-NEG-10", "8446-KS-4")
@FLAVORS
@RECORDINGS
def test_every_damaged_message_through_the_engine(flavor: Flavor, name: str) -> None:
    assert_all_end_well(name, flavor, damages(name, flavor))


@FLAVORS
@RECORDINGS
def test_each_message_in_each_wrong_epoch_and_in_the_place_of_each_other(flavor: Flavor, name: str) -> None:
    deliveries = Conversation(recording(name), flavor).run()
    for number in range(len(deliveries)):
        for epoch in range(5):
            if epoch != deliveries[number].epoch:
                conversation = Conversation.before(recording(name), flavor, number)
                delivery = conversation.waiting.popleft()
                with pytest.raises(ProtocolError):
                    conversation.receiver(delivery).receive(epoch, delivery.message)
        for other in {delivery.message[0] for delivery in deliveries} - {deliveries[number].message[0]}:
            wrong = next(delivery.message for delivery in deliveries if delivery.message[0] == other)
            # A Certificate may stand where a CertificateRequest stood; it cannot come twice.
            assert not through_the_engine(name, flavor, number, wrong)
