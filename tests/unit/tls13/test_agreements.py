"""record_size_limit (RFC 8449) and use_srtp (RFC 5764): what is offered, answered and refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealwire.context import PROTOCOL_CLIENT, Config, Context
from sealwire.crypto.srtp import EXPORTER_LABEL, SrtpKeys, SrtpProfile, parse_srtp_profiles
from sealwire.errors import Alert, ConfigurationError, HandshakeError, ProtocolError
from sealwire.tls13 import extensions as ext
from sealwire.tls13.agreements import MAX_RECORD_BYTES
from sealwire.tls13.extensions import Extension, Extensions, Where
from sealwire.tls13.flavor import DTLS, TLS, Flavor
from sealwire.tls13.messages import ClientHello, EncryptedExtensions, HandshakeType, open_message
from sealwire.tls13.values import SrtpOffer
from sealwire.wire import Reader
from tests.record_layers import REFERENCE
from tests.unit.tls13.engines import Delivery, Pair, client, each_flavor, server
from tests.vectors.recorded import Capture, handshake_fragments, walk

LIMITS = [64, 600, 16_384, MAX_RECORD_BYTES]
ALL = tuple(SrtpProfile)


def settings(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[Config, Config]:
    """A client's and a server's, changed."""
    return replace(client(), **ours), replace(server(), **theirs)


def answering(key: Extension[Any], value: Any) -> Any:
    """A rogue that answers `value` in EncryptedExtensions."""

    def rogue(delivery: Delivery) -> Sequence[Delivery]:
        if delivery.kind is not HandshakeType.ENCRYPTED_EXTENSIONS:
            return [delivery]
        block = Extensions(Where.ENCRYPTED_EXTENSIONS)
        block.add(key, value)
        return [delivery.but(EncryptedExtensions(block).encode())]

    return rogue


def offering(flavor: Flavor, key: Extension[Any], value: Any) -> Any:
    """A rogue that offers `value` in ClientHello."""

    def rogue(delivery: Delivery) -> Sequence[Delivery]:
        if delivery.kind is not HandshakeType.CLIENT_HELLO:
            return [delivery]
        hello = ClientHello.decode(open_message(delivery.message)[1], flavor)
        hello.extensions._entries[key.code] = value
        return [delivery.but(hello.encode(flavor))]

    return rogue


# --- record_size_limit -----------------------------------------------------------------------


@each_flavor
@pytest.mark.requirement("8449-1")
@pytest.mark.parametrize("ours", [None, *LIMITS])
@pytest.mark.parametrize("theirs", [None, *LIMITS])
def test_limits_each_way(flavor: Flavor, ours: int | None, theirs: int | None) -> None:
    pair = Pair(flavor, settings({"record_size_limit": ours}, {"record_size_limit": theirs}), run=True)
    if ours is None:
        # Nobody asked, so the server says nothing either.
        assert pair.client.session.record_limits is pair.server.session.record_limits is None
        assert pair.client.agreed.send_limit == pair.server.agreed.send_limit == MAX_RECORD_BYTES
        return
    sent = theirs or MAX_RECORD_BYTES
    assert pair.client.session.record_limits == (sent, ours)
    assert pair.server.session.record_limits == (ours, sent)


@each_flavor
@pytest.mark.requirement("8449-1")
@pytest.mark.parametrize("limit", [0, 1, 63])
def test_a_limit_too_small_is_refused_by_both(flavor: Flavor, limit: int) -> None:
    rogues = [
        (settings({}, {}), offering(flavor, ext.RECORD_SIZE_LIMIT, limit)),
        (settings({"record_size_limit": 600}, {}), answering(ext.RECORD_SIZE_LIMIT, limit)),
    ]
    for configured, rogue in rogues:
        with pytest.raises(HandshakeError) as caught:
            Pair(flavor, configured, rogue=rogue, run=True)
        assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@each_flavor
@pytest.mark.requirement("8449-1")
def test_a_limit_above_ours_may_come_from_a_client_but_not_from_a_server(flavor: Flavor) -> None:
    pair = Pair(flavor, settings({}, {}), rogue=offering(flavor, ext.RECORD_SIZE_LIMIT, 0xFFFF))
    pair.run_until(HandshakeType.SERVER_HELLO, to_server=False)
    assert pair.server.agreed.send_limit == MAX_RECORD_BYTES
    with pytest.raises(HandshakeError) as caught:
        Pair(
            flavor,
            settings({"record_size_limit": 600}, {}),
            rogue=answering(ext.RECORD_SIZE_LIMIT, MAX_RECORD_BYTES + 1),
            run=True,
        )
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@each_flavor
@pytest.mark.requirement("8449-1", "8446-NEG-2")
@pytest.mark.parametrize(
    ("key", "value"), [(ext.RECORD_SIZE_LIMIT, 600), (ext.USE_SRTP, SrtpOffer((7,), b""))]
)
def test_an_answer_to_what_nobody_asked(flavor: Flavor, key: Extension[Any], value: Any) -> None:
    with pytest.raises(ProtocolError) as caught:
        Pair(flavor, rogue=answering(key, value), run=True)
    assert caught.value.alert is Alert.UNSUPPORTED_EXTENSION


@pytest.mark.parametrize("size", [0, 63, MAX_RECORD_BYTES + 1, -1])
def test_a_context_refuses_limits_that_cannot_be(size: int) -> None:
    context = Context(PROTOCOL_CLIENT)
    with pytest.raises(ValueError, match=str(size)):
        context.record_size_limit = size
    assert context.record_size_limit is None
    context.record_size_limit = 64
    assert context.config().record_size_limit == context.record_size_limit == 64
    context.record_size_limit = None
    assert context.config().record_size_limit is None


def test_a_context_knows_padding() -> None:
    context = Context(PROTOCOL_CLIENT)
    for size in (-1, 1 << 15):
        with pytest.raises(ValueError, match="blocks"):
            context.set_block_padding(size)
    context.set_block_padding(128)
    assert (context.config().block_padding, context.config().padding_callback) == (128, None)
    context.set_record_padding_callback(max)
    assert (context.config().block_padding, context.config().padding_callback) == (0, max)
    with pytest.raises(TypeError):
        context.set_record_padding_callback(5)  # type: ignore[arg-type]
    context.set_record_padding_callback(None)
    assert context.config().padding_callback is None


# --- use_srtp --------------------------------------------------------------------------------


@pytest.mark.requirement("5764-1")
@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        (ALL, ALL[::-1], ALL[-1]),  # the server's order counts
        ((ALL[0],), ALL, ALL[0]),
        ((ALL[0],), (ALL[3],), None),
        ((), ALL, None),
        (ALL, (), None),
    ],
)
def test_one_profile_of_both_is_agreed_on(
    ours: tuple[SrtpProfile, ...], theirs: tuple[SrtpProfile, ...], agreed: SrtpProfile | None
) -> None:
    pair = Pair(DTLS, settings({"srtp_profiles": ours}, {"srtp_profiles": theirs}), run=True)
    assert pair.client.session.srtp_profile is pair.server.session.srtp_profile is agreed


@pytest.mark.requirement("5764-1")
@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"), [(b"", b"", b""), (b"x", b"x", b"x"), (b"x", b"y", b""), (b"", b"y", b"")]
)
def test_an_identifier_is_agreed_on_if_both_have_it(ours: bytes, theirs: bytes, agreed: bytes) -> None:
    pair = Pair(
        DTLS,
        settings({"srtp_profiles": ALL, "srtp_mki": ours}, {"srtp_profiles": ALL, "srtp_mki": theirs}),
        run=True,
    )
    assert pair.client.session.srtp_mki == pair.server.session.srtp_mki == agreed


@pytest.mark.requirement("5764-1")
@pytest.mark.parametrize(
    "answer",
    [SrtpOffer((8,), b""), SrtpOffer((7, 1), b""), SrtpOffer((7,), b"other"), SrtpOffer((0x1234,), b"")],
)
def test_an_srtp_answer_that_cannot_be(answer: SrtpOffer) -> None:
    offered = (SrtpProfile.SRTP_AEAD_AES_128_GCM, SrtpProfile.SRTP_AES128_CM_SHA1_80)
    with pytest.raises(HandshakeError) as caught:
        Pair(
            DTLS,
            settings({"srtp_profiles": offered, "srtp_mki": b"mine"}, {}),
            rogue=answering(ext.USE_SRTP, answer),
            run=True,
        )
    assert caught.value.alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.requirement("5764-1")
def test_unknown_profiles_of_a_client_are_passed_over() -> None:
    rogue = offering(DTLS, ext.USE_SRTP, SrtpOffer((0x7777, 8, 0), b"mki"))
    pair = Pair(DTLS, settings({}, {"srtp_profiles": ALL}), rogue=rogue)
    pair.run_until(HandshakeType.SERVER_HELLO, to_server=False)
    assert pair.server.agreed.srtp_profile is SrtpProfile.SRTP_AEAD_AES_256_GCM
    assert pair.server.agreed.srtp_mki == b""


def test_streams_do_not_speak_of_srtp() -> None:
    pair = Pair(TLS, settings({"srtp_profiles": ALL}, {"srtp_profiles": ALL}), run=True)
    assert pair.client.session.srtp_profile is pair.server.session.srtp_profile is None
    rogue = offering(TLS, ext.USE_SRTP, SrtpOffer((7,), b""))
    pair = Pair(TLS, settings({}, {"srtp_profiles": ALL}), rogue=rogue)
    pair.run_until(HandshakeType.SERVER_HELLO, to_server=False)
    assert pair.server.agreed.srtp_profile is None


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0", b"\0\x01\x07\0", b"\0\x02\0\x07", b"\0\x02\0\x07\x01", b"\0\x02\0\x07\0x"]
)
def test_malformed_use_srtp(data: bytes) -> None:
    body = len(data).to_bytes(2, "big") + data
    block = (len(body) + 2).to_bytes(2, "big") + b"\0\x0e" + body
    with pytest.raises(ProtocolError) as caught:
        Extensions.decode(Reader(block), Where.CLIENT_HELLO)
    assert caught.value.alert is Alert.DECODE_ERROR


@pytest.mark.requirement("5764-1")
@pytest.mark.parametrize(
    ("profile", "key", "salt"),
    [
        (SrtpProfile.SRTP_AES128_CM_SHA1_80, 16, 14),
        (SrtpProfile.SRTP_AES128_CM_SHA1_32, 16, 14),
        (SrtpProfile.SRTP_AEAD_AES_128_GCM, 16, 12),
        (SrtpProfile.SRTP_AEAD_AES_256_GCM, 32, 12),
    ],
)
def test_material_is_split_in_the_order_of_the_rfc(profile: SrtpProfile, key: int, salt: int) -> None:
    assert SrtpKeys.material_bytes(profile) == 2 * (key + salt)
    material = bytes(range(2 * (key + salt)))
    keys = SrtpKeys.split(profile, material)
    assert keys.client_key + keys.server_key + keys.client_salt + keys.server_salt == material
    assert [len(keys.client_key), len(keys.server_key)] == [key, key]
    assert [len(keys.client_salt), len(keys.server_salt)] == [salt, salt]
    assert EXPORTER_LABEL == b"EXTRACTOR-dtls_srtp"
    assert keys.client_key.hex() not in repr(keys)


def test_profiles_by_name() -> None:
    names = "SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80"
    assert parse_srtp_profiles(names) == (7, 1)
    assert parse_srtp_profiles([]) == ()
    for wrong in ("SRTP_NULL", "", f"{names}:SRTP_AEAD_AES_128_GCM"):
        with pytest.raises(ConfigurationError):
            parse_srtp_profiles(wrong)
    context = Context(PROTOCOL_CLIENT)
    context.use_srtp(names, mki=b"id")
    assert (context.config().srtp_profiles, context.config().srtp_mki) == ((7, 1), b"id")
    with pytest.raises(ConfigurationError, match="255"):
        context.use_srtp(names, mki=bytes(256))


# --- what others sent -------------------------------------------------------------------------


def recorded(shared_data: Path, name: str) -> tuple[ClientHello, EncryptedExtensions, list[tuple[int, int]]]:
    """ClientHello and EncryptedExtensions of a capture, and (epoch, inner bytes) of its protected records."""
    capture = Capture.load(shared_data / "dtls13" / "dtls13_captures" / f"{name}.json")
    records, _ = walk(capture, REFERENCE)
    parts: dict[int, dict[int, bytes]] = {}
    for record in records:
        for kind, offset, fragment in (
            handshake_fragments(record.content) if record.content_type == 22 else ()
        ):
            parts.setdefault(kind, {})[offset] = fragment
    body = {kind: b"".join(part for _, part in sorted(found.items())) for kind, found in parts.items()}
    sizes = [(record.epoch, len(record.content) + 1 + record.padding) for record in records if record.epoch]
    return (
        ClientHello.decode(Reader(body[1]), DTLS),
        EncryptedExtensions.decode(Reader(body[8])),
        sizes,
    )


@pytest.mark.requirement("8449-1")
def test_nss_keeps_to_a_limit_of_600(shared_data: Path) -> None:
    hello, answer, sizes = recorded(shared_data, "nss__record_size_limit")
    assert hello.extensions.require(ext.RECORD_SIZE_LIMIT) == 600
    assert 64 <= answer.extensions.require(ext.RECORD_SIZE_LIMIT) <= MAX_RECORD_BYTES
    assert 560 < max(size for _, size in sizes) <= 600


@pytest.mark.requirement("5764-1")
def test_boringssl_agrees_on_a_profile(shared_data: Path) -> None:
    hello, answer, _ = recorded(shared_data, "bssl__srtp_sni")
    offered, chosen = hello.extensions.require(ext.USE_SRTP), answer.extensions.require(ext.USE_SRTP)
    assert len(chosen.profiles) == 1
    assert chosen.profiles[0] in offered.profiles
    assert SrtpProfile(chosen.profiles[0]).name == "SRTP_AEAD_AES_128_GCM"
    assert chosen.mki == offered.mki == b""
