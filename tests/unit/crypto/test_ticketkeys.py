"""Ticket keys: shared, rotated, and every wrong ticket is None."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.crypto.providers.deterministic import DeterministicProvider
from sealwire.crypto.ticketkeys import TICKET_KEY_BYTES, TICKET_OVERHEAD_BYTES, TicketKeys, Unsealed
from sealwire.errors import ConfigurationError

NOW = 1_800_000_000.0
K1, K2, K3 = (bytes([n]) * TICKET_KEY_BYTES for n in (1, 2, 3))


@given(state=st.binary(max_size=300), context=st.binary(max_size=20))
def test_other_processes_with_the_same_keys_open_it(state: bytes, context: bytes) -> None:
    ticket = TicketKeys([K1]).seal(state, NOW, context)
    assert len(ticket) == len(state) + TICKET_OVERHEAD_BYTES
    for keys in ([K1], [K2, K1], [K1, K2]):
        assert TicketKeys(keys).open(ticket, NOW + 5, context) == Unsealed(state, NOW)
    assert TicketKeys([K2]).open(ticket, NOW, context) is None
    assert TicketKeys().open(ticket, NOW, context) is None
    assert TicketKeys([K1]).open(ticket, NOW, context + b"x") is None


def test_every_changed_bit_and_every_truncation_is_none() -> None:
    keys = TicketKeys([K1, K2])
    ticket = keys.seal(b"state", NOW)
    for at in range(len(ticket)):
        for bit in range(8):
            changed = bytearray(ticket)
            changed[at] ^= 1 << bit
            assert keys.open(bytes(changed), NOW) is None
        assert keys.open(ticket[:at], NOW) is None
    assert keys.open(ticket + b"\0", NOW) is None
    assert keys.open(ticket, NOW) is not None


@given(noise=st.binary(max_size=200))
def test_noise_is_none(noise: bytes) -> None:
    keys = TicketKeys([K1])
    assert keys.open(noise, NOW) is None
    name = keys.seal(b"", NOW)[:16]
    assert keys.open(name + noise, NOW) is None


def test_two_tickets_never_look_alike() -> None:
    """No state shows, and the same state sealed twice is two tickets; only the key names agree."""
    keys = TicketKeys([K1])
    one, two = keys.seal(bytes(100), NOW), keys.seal(bytes(100), NOW)
    assert one[:16] == two[:16]
    assert one[16:32] != two[16:32]
    assert one[32:] != two[32:]
    assert bytes(8) not in one[32:]
    assert K1 not in one


@pytest.mark.requirement("8446-PSK-4")
def test_age_is_authenticated_and_bounded() -> None:
    keys = TicketKeys([K1], lifetime_seconds=100)
    ticket = keys.seal(b"s", NOW + 0.25)
    assert keys.open(ticket, NOW + 100) == Unsealed(b"s", NOW + 0.25)
    assert keys.open(ticket, NOW + 100.5) is None
    # The clock of another host may be behind, but not by much.
    assert keys.open(ticket, NOW - 59) is not None
    assert keys.open(ticket, NOW - 61) is None
    for bad in (0, -1, 7 * 86_400 + 1, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="seven days"):
            TicketKeys([K1], lifetime_seconds=bad)
    with pytest.raises(ConfigurationError, match="rotate"):
        TicketKeys(rotation_seconds=0)


@pytest.mark.requirement("8446-PSK-5")
def test_given_keys_rotate_over_hosts_without_losing_a_ticket() -> None:
    hosts = [TicketKeys([K1]), TicketKeys([K1])]
    for step in ([K1, K2], [K2, K1], [K2]):
        for host in hosts:
            tickets = [one.seal(b"s", NOW) for one in hosts]
            host.replace(step)
            # In the middle of a step, too, all tickets open everywhere; only the last step forgets a key.
            if step != [K2]:
                assert all(one.open(ticket, NOW) for one in hosts for ticket in tickets)
    assert all(one.open(ticket, NOW) for one in hosts for ticket in [one.seal(b"s", NOW) for one in hosts])
    assert hosts[0].open(TicketKeys([K1]).seal(b"s", NOW), NOW) is None


@pytest.mark.requirement("8446-PSK-5")
def test_random_keys_replace_themselves() -> None:
    keys = TicketKeys(lifetime_seconds=100, rotation_seconds=50, provider=DeterministicProvider(1))
    assert repr(keys) == "<TicketKeys 0 random>"
    first = keys.seal(b"1", NOW)
    assert keys.seal(b"1", NOW + 49)[:16] == first[:16]
    second = keys.seal(b"2", NOW + 50)
    assert second[:16] != first[:16]
    # The older key opens for as long as a ticket of it may live, then it is gone.
    assert keys.open(first, NOW + 100) is not None
    late = keys.seal(b"late", NOW + 149)
    assert repr(keys) == "<TicketKeys 3 random>"
    assert keys.open(second, NOW + 150) is not None
    keys.seal(b"later", NOW + 300)
    assert repr(keys) == "<TicketKeys 1 random>"
    assert keys.open(late, NOW + 200) is None
    # Two objects never share a random key.
    assert TicketKeys().open(TicketKeys().seal(b"x", NOW), NOW) is None


def test_given_keys_never_replace_themselves() -> None:
    keys = TicketKeys([K1], rotation_seconds=1)
    assert keys.seal(b"", NOW)[:16] == keys.seal(b"", NOW + 1e6)[:16]
    assert "given" in repr(keys)
    assert K1.hex() not in repr(keys)


def test_keys_that_cannot_be() -> None:
    for bad, complaint in (([b"short"], "5 bytes"), ([K1, K1], "twice"), ([K1, b""], "0 bytes")):
        with pytest.raises(ConfigurationError, match=complaint):
            TicketKeys(bad)
        keys = TicketKeys([K3])
        with pytest.raises(ConfigurationError, match=complaint):
            keys.replace(bad)
        assert keys.open(TicketKeys([K3]).seal(b"", NOW), NOW) is not None
    with pytest.raises(ConfigurationError, match="at least one"):
        TicketKeys().replace([])
