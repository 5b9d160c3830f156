"""How long records are over datagrams: padding that never passes the MTU, and limits both sides keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sealwire import dtls
from sealwire.context import Config
from sealwire.crypto.srtp import SrtpProfile
from sealwire.errors import Alert, Discard, Error, ProtocolError
from sealwire.record.padding import Padding
from tests import certificates, configs
from tests.unit.dtls.rig import Rig, Tap, joined
from tests.unit.dtls.test_rogue_records import each_side, of

MTU = 1200
OVERHEAD = 5 + 16
ACK_BYTES = 268


def rig(*, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None, **options: Any) -> Rig:
    """Two sides with changed configurations; the server's chain needs several records."""
    identity = certificates.large_server(3_000)
    return joined(
        client=replace(configs.client_context(identity.cafile).config(), **(client or {})),
        server=replace(configs.server_context(identity).config(), **(server or {})),
        **options,
    )


def flights(one: Rig) -> dict[str, list[bytes]]:
    """Everything both send until the handshake is done, by sender."""
    sent: dict[str, list[bytes]] = {"client": [], "server": []}
    for _ in range(200):
        before = sum(map(len, sent.values()))
        for name, side in (("client", one.client), ("server", one.server)):
            sent[name] += one.deliver(side)
        if one.client.state is one.server.state is dtls.State.CONNECTED:
            return sent
        if sum(map(len, sent.values())) == before:
            one.wake()
    raise AssertionError("no handshake")


def inner_sizes(datagrams: list[bytes]) -> list[int]:
    """Content, type and padding of every protected record (no connection ids, lengths present)."""
    sizes = []
    for datagram in datagrams:
        offset = 0
        while offset < len(datagram):
            if datagram[offset] & 0xE0 != 0x20:
                offset += 13 + int.from_bytes(datagram[offset + 11 : offset + 13], "big")
                continue
            n = int.from_bytes(datagram[offset + 3 : offset + 5], "big")
            sizes.append(n - 16)
            offset += 5 + n
    return sizes


# --- padding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [16, 100, 512, 16_384])
def test_every_protected_record_is_padded_to_blocks_and_no_datagram_passes_the_mtu(block: int) -> None:
    one = rig(client={"block_padding": block}, server={"block_padding": block}, handshake=False)
    sent = flights(one)
    for size in (0, 1, 15, 16, 17, 99, 100, 500, one.client.max_message_bytes):
        for side in (one.client, one.server):
            side.send(bytes(size))
    for side, name in ((one.client, "client"), (one.server, "server")):
        sent[name] += one.deliver(side)
    assert [len(message) for message in one.server.messages()][-1] == one.client.max_message_bytes
    one.client.close(one.now)
    sent["client"] += one.deliver(one.client)
    for datagrams in sent.values():
        assert max(map(len, datagrams)) <= MTU
        for datagram in datagrams:
            *before, last = sizes if (sizes := inner_sizes([datagram])) else [0]
            # Only what fills its datagram may stop short of a block, and an ACK, which every path must carry.
            assert all(size % block == 0 for size in before)
            assert last % block == 0 or len(datagram) in (MTU, ACK_BYTES), (last, len(datagram))
    assert one.server.max_message_bytes == MTU - OVERHEAD - 1


def test_padding_by_a_callback() -> None:
    asked: list[tuple[int, int]] = []

    def callback(content_type: int, n: int) -> int:
        asked.append((content_type, n))
        return 10_000 if n == 7 else 3

    one = rig(client={"padding_callback": callback})
    one.client.send_many([b"1234567", b"12345678"])
    sent = one.deliver(one.client)
    assert [len(datagram) for datagram in sent] == [MTU, OVERHEAD + 1 + 8 + 3]
    assert one.server.messages() == [b"1234567", b"12345678"]
    assert {(23, 7), (23, 8)} <= set(asked)
    assert {content_type for content_type, _ in asked} == {22, 23}


def test_a_padding_callback_that_fails_ends_the_connection() -> None:
    def callback(content_type: int, n: int) -> int:
        raise RuntimeError("no")

    one = rig()
    one.client._sealing.padding = Padding(0, callback)
    one.client.send(b"data")
    one.take(one.client)
    assert isinstance(one.client.error, ProtocolError)
    assert one.client.error.alert is Alert.INTERNAL_ERROR


@each_side
def test_padded_records_open_whatever_the_other_side_does(side: str) -> None:
    one = rig(**{side: {"block_padding": 256}})
    one.echo()


# --- record_size_limit -----------------------------------------------------------------------


@pytest.mark.requirement("8449-1")
@pytest.mark.parametrize(("to_client", "to_server"), [(64, None), (100, 500), (600, 64), (16_385, 16_385)])
@pytest.mark.parametrize("block", [0, 128])
def test_no_record_is_longer_than_its_receiver_said(
    to_client: int, to_server: int | None, block: int
) -> None:
    one = rig(
        client={"record_size_limit": to_client, "block_padding": block},
        server={"record_size_limit": to_server, "block_padding": block},
        handshake=False,
    )
    sent = flights(one)
    assert one.client.session.record_limits == (to_server or 16_385, to_client)
    limits = {"client": to_server or 16_385, "server": to_client}
    for side, name in ((one.client, "client"), (one.server, "server")):
        longest = min(limits[name] - 1, MTU - OVERHEAD - 1)
        assert side.max_message_bytes == longest
        with pytest.raises(ValueError, match=f"above the {longest}"):
            side.send(bytes(longest + 1))
        side.send(bytes(longest))
        side.send(b"")
        sent[name] += one.deliver(side)
        assert [len(message) for message in one.other(side).messages()] == [longest, 0]
        assert max(inner_sizes(sent[name])) <= limits[name]
    one.client.update_keys(one.now, request_peer=True)
    one.run()
    one.echo()


@each_side
@pytest.mark.requirement("8449-1", "8446-ALERT-5")
@pytest.mark.parametrize("padding", [0, 60])
def test_a_longer_record_is_the_peers_doing(tap: Tap, side: str, padding: int) -> None:
    one = joined(
        client=replace(configs.client_context().config(), record_size_limit=100),
        server=replace(configs.server_context().config(), record_size_limit=100),
    )
    victim = of(one, side)
    sealer = one.other(victim)._sealing.sealer(3)
    victim.receive(sealer.seal(23, bytes(99 - padding), padding), one.now)
    assert victim.messages() == [bytes(99 - padding)]
    record = sealer.seal(23, bytes(100 - padding), padding)
    # One that does not authenticate says nothing of the peer.
    victim.receive(record[:-1] + bytes((record[-1] ^ 1,)), one.now)
    assert victim.error is None
    victim.receive(record, one.now)
    assert victim.counters.discards[Discard.OVERSIZED_RECORD] == 1
    one.refuses(victim, Alert.RECORD_OVERFLOW)


@each_side
def test_without_an_agreement_long_records_are_fine(side: str) -> None:
    one = joined(mtu=16_000)
    of(one, side).send(bytes(15_000))
    one.run()
    assert one.other(of(one, side)).messages() == [bytes(15_000)]


# --- use_srtp --------------------------------------------------------------------------------


def with_profiles(config: Config, *profiles: SrtpProfile) -> Config:
    return replace(config, srtp_profiles=profiles)


@pytest.mark.requirement("5764-1")
@pytest.mark.parametrize("profile", list(SrtpProfile))
def test_both_sides_have_the_same_srtp_keys(profile: SrtpProfile) -> None:
    one = joined(
        client=with_profiles(configs.client_context().config(), profile),
        server=with_profiles(configs.server_context().config(), *SrtpProfile),
    )
    assert one.client.session.srtp_profile is one.server.session.srtp_profile is profile
    keys = one.client.srtp_keys()
    assert keys == one.server.srtp_keys()
    parts = [keys.client_key, keys.server_key, keys.client_salt, keys.server_salt]
    assert [len(part) for part in parts] == [profile.key_bytes] * 2 + [profile.salt_bytes] * 2
    assert len(set(parts)) == 4
    material = one.server.export(b"EXTRACTOR-dtls_srtp", b"", sum(map(len, parts)))
    assert b"".join(parts) == material


def test_no_srtp_keys_without_a_profile() -> None:
    one = joined(handshake=False)
    with pytest.raises(Error, match="not complete"):
        one.client.srtp_keys()
    one.run()
    with pytest.raises(Error, match="use_srtp"):
        one.client.srtp_keys()
