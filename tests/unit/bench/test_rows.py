"""The rows themselves, at the smallest scale: that they work, not how fast."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import pytest

from sealwire.bench import crypto_switch, rows, runner
from sealwire.bench.advice import advise
from sealwire.bench.clocks import Stopwatch
from sealwire.bench.closed_loop import little
from sealwire.bench.crypto_replay import Replay
from sealwire.bench.crypto_switch import Crypto
from sealwire.bench.measurement import Absent, Bench, Role, Scale
from sealwire.bench.rivals.openssl_memory import pyopenssl_presence
from sealwire.bench.rows import changes, handshake, record
from sealwire.cli import authority
from sealwire.record import protect
from sealwire.record.train import bytes_of, count_of
from sealwire.sim import Link
from sealwire.tls13 import authentication
from tests.unit.bench import made

SCALE = Scale("test", runs=5, seconds=0.001, handshakes=3, connections=3, patience_seconds=60.0)
VARIANTS = (handshake.FULL, handshake.CLIENT_AUTH, handshake.RETRY)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    authority.write(path, authority.make(("localhost",), (), days=1, key_type="ec"))
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_handshakes_are_what_their_row_says(directory: Path, variant: str) -> None:
    bench = Bench(directory, SCALE, Crypto(), Stopwatch(), {}, lambda question: {})
    body = handshake.Memory(bench, variant)
    reading = body.run(0.0)
    body.verify()
    assert set(reading.values) == {"", "client", "server", "wire"}
    assert reading.values["client"] + reading.values["server"] <= reading.values[""] * 1.01
    body._retried = not body._retried
    with pytest.raises(ValueError, match="against the name of the row"):
        body.verify()


@pytest.mark.parametrize(("variant", "signatures"), [(handshake.FULL, 1), (handshake.CLIENT_AUTH, 2)])
def test_the_crypto_of_a_handshake_is_recorded_whole(directory: Path, variant: str, signatures: int) -> None:
    before = vars(authentication)["verify"]
    server, client = handshake.contexts(directory, variant)
    replay = Replay(server.config(), client.config())
    assert vars(authentication)["verify"] is before
    replay.work(2)
    replay.verify()
    text = [str(call) for call in replay._calls]
    for name in ("key_share", "respond", "_RecordedShare.finish"):
        assert sum(name in call for call in text) == 1, name
    for name in ("signing", "Replay._verify", "_RecordedVerifier"):
        assert sum(name in call for call in text) == signatures, name
    assert sum("hkdf_secrets" in call for call in text) > 15


def test_a_row_of_each_kind_runs(directory: Path) -> None:
    names = (
        "handshake.memory.full",
        "handshake.udp.full",
        "handshake.rate.resumed",
        "handshake.server.resumed",
        "memory.idle",
        "stcp.256",
    )
    chosen = [one for one in rows.ROWS if one.name in names]
    plan = runner.Plan(location=rows.LOCATION, directory=directory, scale=SCALE)
    result = runner.run(chosen, plan)
    package = not isinstance(pyopenssl_presence(), Absent)
    for one in result.measured:
        for entry in one.entries:
            if entry.role is Role.RIVAL and entry.status == "not present":
                assert entry.name != "pyOpenSSL, DTLS 1.2" or not package
                continue
            assert (entry.status, entry.reason) == ("measured", ""), (one.name, entry.name)
            assert len(entry.readings) == SCALE.runs
    (ledger,) = (row for row in result.rows() if row.name == "memory.idle.ledger")
    assert all(value > 1_000 for value in ledger.ours.values("ledger"))


def test_changes_on_a_simulated_link_lose_nothing(directory: Path) -> None:
    body = changes.Simulated(Bench(directory, SCALE, Crypto(), Stopwatch(), {}, lambda question: {}))
    body._seed = 1  # those that follow lost messages while ids were given up at once
    reading = body.run(0.1)
    assert {kind: reading.values[kind] for kind in ("", *changes.KINDS)} == dict.fromkeys(
        ("", *changes.KINDS), 0.0
    )
    assert reading.values["changes"] > 100
    assert all(check.passed for check in reading.checks)
    assert body.run(0.1).values[""] == 0.0


def test_what_a_simulated_link_loses_is_in_the_figure(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "Link", partial(Link, loss=0.01))
    body = changes.Simulated(Bench(directory, SCALE, Crypto(), Stopwatch(), {}, lambda question: {}))
    reading = body.run(0.1)
    assert reading.values[""] > 10


@pytest.mark.long
def test_rows_of_several_processes_run(directory: Path) -> None:
    names = ("workers.record", "workers.handshake", "copies.64", "latency.64", "changes.sockets", "bulk.1200")
    chosen = [one for one in rows.ROWS if one.name in names]
    assert len(chosen) == len(names)
    plan = runner.Plan(location=rows.LOCATION, directory=directory, scale=SCALE, rivals=False)
    result = runner.run(chosen, plan)
    for one in result.measured:
        for entry in one.entries:
            assert (entry.status, entry.reason) == ("measured", ""), (one.name, entry.name)
        for check in one.checks:
            assert check.passed or check.name == "sabotage" or "clock" in check.name, (one.name, check)
    (copies,) = (row for row in result.rows() if row.name == "copies.64")
    assert all(1.0 < value < 10.0 for value in copies.ours.values("")), "short messages are copied into place"
    (lost,) = (row for row in result.rows() if row.name == "changes.sockets")
    assert lost.ours.values("") == [0.0] * SCALE.runs


def test_what_stands_in_for_runs_of_records_carries_the_same_messages() -> None:
    sealer = Crypto().sealer(record._SPEC, record.keys(), 3)
    opener = Crypto().opener(record._SPEC, record.keys(), 3)
    for size, count in ((1, 1), (64, 130), (1200, 100)):
        messages = [bytes([n]) * size for n in range(count)]
        framed = crypto_switch._frame_trains(sealer, 23, messages, 0, 16_385)
        sealed = protect.seal_trains(sealer, 23, messages, 0, 16_385)
        assert bytes_of(framed) == bytes_of(sealed)
        assert count_of(framed) == count
        alert = sealer.seal(21, b"\x01\0")
        assert crypto_switch._unframe_trains(opener, [*framed, alert], 0, 0)[0] == messages
        found = crypto_switch._unframe_trains(opener, [*framed, alert], len(framed), 0)
        assert found[2] is not None
        assert found[2][0] == 21


@pytest.mark.parametrize(
    ("rate", "latency", "clients", "passed"),
    [(1000.0, 0.001, 1, True), (1000.0, 0.0005, 1, False), (500.0, 0.1, 50, True), (600.0, 0.1, 50, False)],
)
def test_littles_law(rate: float, latency: float, clients: int, passed: bool) -> None:
    assert little(rate, latency, clients).passed is passed


def test_advice_names_its_rule_and_what_it_saw() -> None:
    result = made.run("a")
    assert advise(result) == []
    first = result.measured[0]
    heavy = dataclasses.replace(
        first,
        name="record.seal.64",
        entries=(made.entry(Role.OURS, 4.0, 4.0), made.entry(Role.CRYPTO_ALONE, 2.0, 2.0)),
    )
    busy = {**result.conditions, "load_after": 7.0}
    twin = {**result.software, "compiled": False}
    result = dataclasses.replace(result, measured=(heavy,), conditions=busy, software=twin)
    found = {one.rule: one.sentence for one in advise(result)}
    assert set(found) == {"busy-machine", "twin", "record-overhead"}
    assert "record.seal.64 takes 2.00 times its crypto" in found["record-overhead"]
