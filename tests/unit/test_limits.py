"""Limits, Ledger and Account: numbers that must be positive, sums that must come back to zero."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.limits import Account, Ledger, Limits, Purpose


class TestLimits:
    @pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
    @pytest.mark.parametrize("value", [0, -1])
    def test_every_limit_is_positive_or_a_policy(self, name: str, value: int) -> None:
        changed: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"{name} must be (positive|Policy)"):
            Limits(**changed)

    def test_not_a_number_is_no_limit(self) -> None:
        with pytest.raises(ValueError, match="handshake_seconds"):
            Limits(handshake_seconds=float("nan"))

    def test_parts_fit_into_their_whole(self) -> None:
        with pytest.raises(ValueError, match="connection_bytes is above"):
            Limits(total_bytes=100, connection_bytes=101)
        with pytest.raises(ValueError, match="handshakes is above"):
            Limits(connections=10, handshakes=11)
        Limits(total_bytes=100, connection_bytes=100, connections=10, handshakes=10)

    def test_they_do_not_change(self) -> None:
        with pytest.raises(FrozenInstanceError):
            Limits().connections = 5  # type: ignore[misc]
        with pytest.raises(TypeError):
            Limits(5)  # type: ignore[call-arg]


class TestLedger:
    def test_what_is_refused_is_not_held(self) -> None:
        ledger = Ledger(100)
        assert ledger.charge(Purpose.HANDSHAKE, 60)
        assert ledger.charge(Purpose.REASSEMBLY, 40)
        assert not ledger.charge(Purpose.HANDSHAKE, 1)
        assert (ledger.held, ledger.peak, ledger.refusals) == (100, 100, 1)
        ledger.release(Purpose.HANDSHAKE, 60)
        assert (ledger.held, ledger.peak) == (40, 100)
        assert ledger.held_for(Purpose.HANDSHAKE) == 0
        assert ledger.held_for(Purpose.REASSEMBLY) == 40

    def test_releasing_what_was_never_charged_is_a_bug(self) -> None:
        ledger = Ledger(100)
        ledger.charge(Purpose.HANDSHAKE, 10)
        with pytest.raises(AssertionError, match="never charged"):
            ledger.release(Purpose.REASSEMBLY, 10)
        with pytest.raises(AssertionError, match="never charged"):
            ledger.release(Purpose.HANDSHAKE, 11)
        account = Account(ledger, 100)
        with pytest.raises(AssertionError, match="never charged"):
            account.release(Purpose.HANDSHAKE, 1)
        assert ledger.held == 10


class TestAccount:
    def test_its_own_cap_comes_first(self) -> None:
        ledger = Ledger(100)
        small, large = Account(ledger, 30), Account(ledger, 100)
        assert small.charge(Purpose.SEND_QUEUE, 30)
        assert not small.charge(Purpose.SEND_QUEUE, 1)
        assert ledger.held == 30
        assert not large.charge(Purpose.SEND_QUEUE, 71)
        assert (large.held, ledger.held, ledger.refusals) == (0, 30, 2)
        assert large.charge(Purpose.SEND_QUEUE, 70)
        assert ledger.held_for(Purpose.SEND_QUEUE) == 100
        assert small.held_for(Purpose.SEND_QUEUE) == 30

    def test_closing_gives_everything_back_once(self) -> None:
        ledger = Ledger(100)
        account, other = Account(ledger, 100), Account(ledger, 100)
        other.charge(Purpose.TABLES, 5)
        for purpose in (Purpose.CONNECTION, Purpose.HANDSHAKE):
            account.charge(purpose, 10)
        account.close()
        account.close()
        assert (account.held, ledger.held) == (0, 5)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.sampled_from(Purpose),
                st.integers(0, 60),
                st.sampled_from(["charge", "release", "close"]),
            ),
            max_size=60,
        )
    )
    def test_sums_agree_whatever_happens(self, steps: list[tuple[int, Purpose, int, str]]) -> None:
        ledger = Ledger(150)
        accounts = [Account(ledger, 100) for _ in range(3)]
        held: list[dict[Purpose, int]] = [dict.fromkeys(Purpose, 0) for _ in accounts]
        for which, purpose, n, action in steps:
            account, expected = accounts[which], held[which]
            if action == "charge":
                fits = (
                    sum(expected.values()) + n <= 100 and sum(map(sum, (h.values() for h in held))) + n <= 150
                )
                assert account.charge(purpose, n) is fits
                expected[purpose] += n if fits else 0
            elif action == "release":
                n = min(n, expected[purpose])
                account.release(purpose, n)
                expected[purpose] -= n
            else:
                account.close()
                held[which] = dict.fromkeys(Purpose, 0)
            for one, sums in zip(accounts, held, strict=True):
                assert one.held == sum(sums.values())
                assert all(one.held_for(p) == sums[p] for p in Purpose)
            for p in Purpose:
                assert ledger.held_for(p) == sum(sums[p] for sums in held)
            assert ledger.held == sum(one.held for one in accounts) <= ledger.peak <= ledger.limit
        for account in accounts:
            account.close()
        assert ledger.held == 0
