"""Limits beside each other and beside the machine; pressure; reservations; the page made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.drive.machine import LimitsWarning, default_limits, limits_at_start, read_machine
from sealwire.errors import LimitReached
from sealwire.limits import (
    Budget,
    Disagreement,
    Ledger,
    Limits,
    Machine,
    Pressure,
    Purpose,
    check_limits,
    fit,
    predict_memory,
    prefixes_of,
    tables_bytes,
)
from sealwire.limits.page import page
from sealwire.limits.prefixes import name_of
from sealwire.limits.weights import CONNECTION_BYTES, HALF_OPEN_BYTES, PROCESS_BYTES

MIB = 1024 * 1024
ROOT = Path(__file__).resolve().parents[2]


def pairs(found: list[Disagreement]) -> list[tuple[str, str]]:
    return [(one.first, one.second) for one in found]


class TestAgreement:
    def test_the_defaults_agree(self) -> None:
        assert check_limits(Limits()) == []
        assert check_limits(Limits(), Machine(memory_bytes=1 << 30, descriptors=65_536), streams=True) == []

    @pytest.mark.parametrize(
        ("changed", "first", "second"),
        [
            # A chain of 32 KiB behind a message of 16 KiB.
            ({"handshake_message_bytes": 16_384}, "certificate_chain_bytes", "handshake_message_bytes"),
            # The promise of 256 MB, 10,000 connections and 26 KB each, turned up.
            ({"connections": 100_000, "prefixes": 200_000}, "connections", "total_bytes"),
            ({"prefixes": 100}, "connections", "prefixes"),
            ({"send_queue_bytes": 1 * MIB}, "receive_queue_bytes and send_queue_bytes", "connection_bytes"),
            ({"message_bytes": 1 * MIB}, "message_bytes", "connection_bytes"),
            ({"reassembly_bytes": 512 * 1024}, "reassembly_bytes", "handshake_bytes"),
            ({"prefix_connections": 3_000}, "prefix_connections", "site_connections"),
            (
                {"prefix_handshakes": 400, "prefix_connections": 300},
                "prefix_handshakes",
                "prefix_connections",
            ),
            ({"prefix_bytes": 200 * MIB}, "prefix_bytes", "site_bytes"),
            ({"handshake_message_bytes": 300_000}, "handshake_message_bytes", "reassembly_bytes"),
        ],
    )
    def test_the_two_that_do_not_are_named(self, changed: dict[str, int], first: str, second: str) -> None:
        limits = replace(Limits(), **changed)  # type: ignore[arg-type]
        assert (first, second) in pairs(check_limits(limits))
        [one] = [one for one in check_limits(limits) if (one.first, one.second) == (first, second)]
        assert first in str(one)
        assert second in str(one)
        assert any(character.isdigit() for character in one.why)

    def test_the_machine(self) -> None:
        machine = Machine(
            memory_bytes=128 * MIB,
            memory_source="cgroup memory.max",
            descriptors=1024,
            receive_buffer_bytes=212_992,
        )
        limits = Limits(connections=9_999)
        found = pairs(check_limits(limits, machine, streams=True, receive_buffer_bytes=4 * MIB))
        assert found == [
            ("total_bytes", "cgroup memory.max"),
            ("connections", "RLIMIT_NOFILE"),
            ("receive buffer", "net.core.rmem_max"),
        ]
        # Datagrams of all peers come by one descriptor.
        assert ("connections", "RLIMIT_NOFILE") not in pairs(check_limits(limits, machine))
        assert check_limits(Limits(), Machine()) == []

    @given(st.integers(1, 1 << 40))
    def test_fitted_limits_fit(self, memory: int) -> None:
        limits = fit(Limits(), Machine(memory_bytes=memory))
        assert limits.total_bytes <= Limits().total_bytes
        bare = PROCESS_BYTES + tables_bytes(limits)
        if memory * 3 // 4 > bare + HALF_OPEN_BYTES:
            assert limits.total_bytes + bare <= memory
        assert ("connections", "total_bytes") not in pairs(check_limits(limits))

    def test_room_enough_changes_nothing(self) -> None:
        assert fit(Limits(), Machine(memory_bytes=1 << 40)) == fit(Limits(), Machine()) == Limits()


class TestServers:
    def test_a_server_warns_of_what_does_not_agree(self) -> None:
        with pytest.warns(LimitsWarning, match="prefix_bytes and site_bytes do not agree"):
            assert limits_at_start(Limits(prefix_bytes=200 * MIB)).prefix_bytes == 200 * MIB

    def test_one_without_limits_takes_what_fits(self) -> None:
        assert limits_at_start(None) == default_limits()


class TestMachine:
    def test_cgroup_2(self, tmp_path: Path) -> None:
        """The least of all levels from its own up to the root holds."""
        write(tmp_path / "proc/self/cgroup", "0::/system.slice/app.service\n")
        write(tmp_path / "proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\n")
        write(tmp_path / "proc/sys/net/core/rmem_max", "212992\n")
        own = tmp_path / "sys/fs/cgroup/system.slice/app.service/memory.max"
        write(own, "max\n")
        assert read_machine(tmp_path).memory_bytes == 16_000_000 * 1024
        write(own.parent.parent / "memory.max", "536870912\n")
        assert read_machine(tmp_path).memory_bytes == 512 * MIB
        write(own, "268435456\n")
        machine = read_machine(tmp_path)
        assert (machine.memory_bytes, machine.memory_source) == (256 * MIB, "cgroup memory.max")
        assert machine.receive_buffer_bytes == 212_992

    def test_a_container_sees_its_own_level_as_the_root(self, tmp_path: Path) -> None:
        write(tmp_path / "proc/self/cgroup", "0::/../../docker/4f2a\n")
        write(tmp_path / "sys/fs/cgroup/memory.max", "134217728\n")
        assert read_machine(tmp_path).memory_bytes == 128 * MIB

    def test_cgroup_1(self, tmp_path: Path) -> None:
        write(tmp_path / "proc/self/cgroup", "11:cpu,cpuacct:/a\n4:memory:/a/b\n0::/a\n")
        limit = tmp_path / "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes"
        write(limit, "9223372036854771712\n")
        assert read_machine(tmp_path).memory_bytes is None
        write(limit, "104857600\n")
        machine = read_machine(tmp_path)
        assert (machine.memory_bytes, machine.memory_source) == (100 * MIB, "cgroup memory.limit_in_bytes")

    @pytest.mark.parametrize("text", ["", "garbage", "0::", "1:2", "\x00", "::::\n0\n"])
    def test_nothing_that_can_be_read_sets_no_bound(self, tmp_path: Path, text: str) -> None:
        write(tmp_path / "proc/self/cgroup", text)
        write(tmp_path / "proc/meminfo", "MemTotal:\n")
        machine = read_machine(tmp_path)
        assert (machine.memory_bytes, machine.receive_buffer_bytes) == (None, None)

    def test_this_machine(self) -> None:
        machine = read_machine()
        assert machine.memory_bytes is not None
        assert machine.memory_bytes > 64 * MIB
        assert default_limits().total_bytes <= Limits().total_bytes


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class TestPressure:
    def test_levels_and_their_gap(self) -> None:
        ledger = Ledger(1_000)
        heard: list[tuple[Pressure, Pressure]] = []
        ledger.on_pressure(lambda level, before: heard.append((level, before)))

        def hold(n: int) -> Pressure:
            if n > ledger.held:
                assert ledger.charge(Purpose.CONNECTION, n - ledger.held)
            else:
                ledger.release(Purpose.CONNECTION, ledger.held - n)
            return ledger.level

        assert [hold(n) for n in (699, 700, 799, 800, 899, 900, 949, 950)] == [0, 1, 1, 2, 2, 3, 3, 4]
        # Swaying around a threshold says nothing.
        said = len(heard)
        assert [hold(n) for n in (901, 950, 900, 1_000)] == [4, 4, 4, 4]
        assert len(heard) == said == 4
        assert [hold(n) for n in (899, 850, 849, 750, 749, 650, 649)] == [3, 3, 2, 2, 1, 1, 0]
        # A leap tells of one change.
        assert hold(1_000) is Pressure.CRITICAL
        assert heard[-1] == (Pressure.CRITICAL, Pressure.NONE)
        hold(0)
        assert heard[-1] == (Pressure.NONE, Pressure.CRITICAL)

    @given(st.lists(st.integers(0, 1_000), max_size=50))
    def test_the_level_follows_from_what_is_held(self, amounts: list[int]) -> None:
        ledger = Ledger(1_000)
        for n in amounts:
            if n > ledger.held:
                ledger.charge(Purpose.CONNECTION, n - ledger.held)
            else:
                ledger.release(Purpose.CONNECTION, ledger.held - n)
            begins = [0, 700, 800, 900, 950]
            assert begins[ledger.level] - 50 <= ledger.held
            if ledger.level < Pressure.CRITICAL:
                assert ledger.held < begins[ledger.level + 1]


class TestPrefixes:
    @pytest.mark.parametrize(
        ("address", "names"),
        [
            (("192.0.2.7", 5), ["192.0.2.7"]),
            (("::ffff:192.0.2.7", 5, 0, 0), ["192.0.2.7"]),
            (("2001:db8:1:2:3::4", 5, 0, 0), ["2001:db8:1:2::/64", "2001:db8:1::/48"]),
            (("fe80::1%eth0", 5, 0, 2), ["fe80::1%eth0"]),
            (("fe80::1", 5, 0, 2), ["fe80::1"]),
            ("/run/socket", []),
            (("a name", 5), []),
            ((), []),
            (None, []),
        ],
    )
    def test_of_addresses(self, address: object, names: list[str]) -> None:
        assert [name_of(key) for key in prefixes_of(address)] == names


class TestReservations:
    def test_a_peer_pays_for_what_is_kept_for_it(self) -> None:
        ledger = Ledger(Limits(prefix_bytes=100_000, connection_bytes=100_000))
        budget = Budget(ledger)
        with budget.reserve(60_000, peer=("192.0.2.1", 1)) as first:
            with pytest.raises(LimitReached) as caught:
                budget.reserve(60_000, peer=("192.0.2.1", 2))
            assert caught.value.name == "prefix_bytes"
            with budget.reserve(60_000, peer=("192.0.2.2", 2)), budget.reserve(60_000):
                assert ledger.held_for(Purpose.APPLICATION) == 180_000
            assert first.size == ledger.held == 60_000
            [row] = ledger.prefixes
            # It is no connection.
            assert (row.held, row.connections, row.handshakes) == (60_000, 0, 0)
        assert (ledger.held, len(ledger.prefixes), first.size) == (0, 0, 0)
        first.release()

    def test_an_error_gives_it_back(self) -> None:
        ledger = Ledger(Limits())
        with pytest.raises(KeyError), Budget(ledger).reserve(10):
            raise KeyError
        assert ledger.held == 0
        with pytest.raises(ValueError, match="-1"):
            Budget(ledger).reserve(-1)


def test_a_prediction_is_the_sum_of_its_parts() -> None:
    none, some = predict_memory(0), predict_memory(1_000, handshakes=10, queued_bytes=500)
    assert none.total == PROCESS_BYTES + tables_bytes(Limits())
    assert some.queues == 500_000
    assert 1_000 * CONNECTION_BYTES < some.connections < 1_100 * CONNECTION_BYTES
    assert some.total == none.total + some.connections + some.handshakes + some.queues


def test_the_page_is_as_the_declarations_are() -> None:
    assert (ROOT / "docs/limits.md").read_text() == page(), "run python -m sealwire.limits docs/limits.md"
