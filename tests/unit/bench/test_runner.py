"""Turns, processes, and contenders that misbehave.  Nothing here depends on how long anything takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sealwire.bench import fingerprint, rows, runner
from sealwire.bench.clocks import Stopwatch
from sealwire.bench.crypto_switch import Crypto
from sealwire.bench.measurement import Bench, Contender, Figure, Kind, Measurement, Role, Scale
from sealwire.bench.processes import choose_cpus
from sealwire.bench.results import Entry, Measured, Result
from sealwire.bench.rows import record
from sealwire.record import protect
from tests.unit.bench import rows_for_tests
from tests.unit.bench.rows_for_tests import Constant

ROOT = Path(__file__).resolve().parents[3]
SCALE = Scale("test", runs=5, seconds=0.001, handshakes=5, connections=5, patience_seconds=30.0)


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers must find the rows of this directory."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def measure(tmp_path: Path, *names: str, scale: Scale = SCALE, rivals: bool = True) -> Result:
    chosen = [one for one in rows_for_tests.ROWS if one.name in names]
    assert len(chosen) == len(names)
    plan = runner.Plan(location=rows_for_tests.LOCATION, directory=tmp_path, scale=scale, rivals=rivals)
    return runner.run(chosen, plan)


def entries(measured: Measured) -> dict[str, Entry]:
    return {entry.name: entry for entry in measured.entries}


def test_contenders_that_fail_cost_their_own_place_alone(tmp_path: Path) -> None:
    scale = dataclasses.replace(SCALE, patience_seconds=5.0)
    result = measure(tmp_path, "rivals.bad", "peers.two", scale=scale)
    found = entries(result.measured[0])
    assert found["crashing"].reason == "it ended by signal SIGABRT: stack smashed somewhere"
    assert found["hanging"].reason == "hung: it said nothing for 5 seconds"
    assert found["refusing"].reason == "OSError: the library is too old"
    assert found["lying"].reason == "ValueError: what was computed is not right"
    for name in ("crashing", "hanging", "refusing", "lying"):
        assert found[name].status == "failed"
        assert found[name].readings == ()
    assert (found["missing"].status, found["missing"].reason) == ("not present", "not installed")
    assert found["missing"].readings == ()
    # The first turn warmed up: turns 2 to 6 count.
    assert found["good"].values("") == pytest.approx([5.002, 5.003, 5.004, 5.005, 5.006])
    assert len(found["sealwire"].readings) == len(found["yardstick"].readings) == 5
    # Ours had a new process for each of them, and a turn to warm up in each.
    assert found["sealwire"].values("") == pytest.approx([2.002] * 5)
    peers = entries(result.measured[1])
    assert peers["sealwire"].values("") == [42.0] * 5


def test_readings_carry_cpu_and_memory(tmp_path: Path) -> None:
    (reading, *_) = entries(measure(tmp_path, "secured.honest").measured[0])["sealwire"].readings
    assert reading.rss_bytes > 1 << 20
    assert reading.user_seconds >= 0
    assert reading.system_seconds >= 0


def test_a_result_says_where_it_comes_from(tmp_path: Path) -> None:
    result = measure(tmp_path, "secured.honest")
    assert len(str(result.machine["id"])) == 16
    assert result.software["compiled"] is protect.COMPILED
    assert {"commit", "python", "openssl_interpreter", "openssl_cryptography"} <= set(result.software)
    assert result.hooks == {"slow_down": 0.0}
    assert result.machine == fingerprint.machine()


def test_rivals_can_be_left_out(tmp_path: Path) -> None:
    result = measure(tmp_path, "rivals.bad", rivals=False)
    assert set(entries(result.measured[0])) == {"sealwire", "yardstick"}


@pytest.mark.parametrize(
    ("row", "passed", "words"),
    [
        ("secured.honest", True, "it saves 2"),
        ("secured.rewired", False, "the row does not measure its crypto"),
        ("secured.stripped", False, "removes more than crypto"),
    ],
)
def test_the_sabotage_test(tmp_path: Path, row: str, passed: bool, words: str) -> None:
    result = measure(tmp_path, row)
    (measured,) = result.measured
    (check,) = (check for check in measured.checks if check.name == "sabotage")
    assert check.passed is passed
    assert words in check.sentence
    failed = [name for name, _ in result.failed_checks()]
    assert failed == ([] if passed else [row])


def test_a_real_row_without_its_crypto_does_not_verify(tmp_path: Path) -> None:
    (measured,) = measure(tmp_path, "rewired.verified").measured
    assert entries(measured)["sealwire"].reason == "ValueError: what was sealed does not open"
    assert [check.name for check in measured.checks if not check.passed] == ["sabotage"]


@pytest.mark.long  # the figures are measured, so this has no place among the quick ones
def test_a_real_row_rewired_to_skip_its_crypto_is_caught_even_unverified(tmp_path: Path) -> None:
    scale = dataclasses.replace(SCALE, seconds=0.05)
    (measured,) = measure(tmp_path, "rewired.unverified", scale=scale).measured
    (check,) = (check for check in measured.checks if check.name == "sabotage")
    assert not check.passed


@pytest.mark.parametrize("size", record.SIZES)
def test_rows_of_records_do_their_work(tmp_path: Path, size: int) -> None:
    bench = Bench(tmp_path, SCALE, Crypto(), Stopwatch(), {}, lambda question: {})
    for task in (record.Sealing(bench, size), record.Opening(bench, size)):
        task.prepare(2)
        task.work(2)
        task.verify()


def test_every_row_is_declared_once_and_of_a_known_group() -> None:
    names = [one.row_name(figure) for one in rows.ROWS for figure in one.figures]
    assert len(set(names)) == len(names)
    groups = {one.group for one in rows.ROWS}
    assert groups == {
        "record",
        "bulk",
        "handshake",
        "memory",
        "crypto",
        "udp",
        "stcp",
        "seal",
        "copies",
        "latency",
        "workers",
        "changes",
        "connections",
    }


def test_a_secured_row_can_be_sabotaged() -> None:
    for one in rows.ROWS:
        roles = {contender.role for contender in one.contenders}
        if one.group in ("record", "handshake") or one.name in ("bulk.64", "bulk.1200"):
            assert {Role.WITHOUT_CRYPTO, Role.CRYPTO_ALONE} <= roles, one.name


def test_declarations_that_make_no_sense() -> None:
    ours = Contender("sealwire", Role.OURS, lambda bench: Constant(1.0))
    figure = Figure("", "us", Kind.TIME, "")
    with pytest.raises(ValueError, match="same name"):
        Measurement("a", "a", (figure,), (ours, ours))
    with pytest.raises(ValueError, match="exactly one contender is ours"):
        Measurement("a", "a", (figure,), ())
    with pytest.raises(ValueError, match="first figure"):
        Measurement("a", "a", (dataclasses.replace(figure, name="b"),), (ours,))


def test_two_cpus_or_none() -> None:
    first, second = choose_cpus()
    assert (first is None) == (second is None)
    assert first is None or first != second


class _Clock:
    """A process_time and perf_counter that advance when asked."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def test_a_slow_down_prolongs_spans_by_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr("time.process_time", clock)
    monkeypatch.setattr("time.perf_counter", clock)
    for part in (0.0, 0.15):
        watch = Stopwatch(part)
        for _ in range(3):
            watch.start()
            clock.now += 1.0
            watch.stop()
        assert watch.spans == 3
        assert watch.cpu_seconds == pytest.approx(3 * (1 + part), rel=0.02)
        assert watch.wall_seconds == pytest.approx(3 * (1 + part), rel=0.02)
