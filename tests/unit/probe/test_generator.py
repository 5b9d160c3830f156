"""The files the probe is measured with: the same from a seed, and true to their truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sealwire.bench import probe_files
from sealwire.probe import read
from tests.unit.probe.packets import NO_TIMEOUTS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        probe_files, "SCENARIOS", {"100m": (100_000_000, 1_000, 0.4), "10g": (10**10, 10**5, 0.003)}
    )


@pytest.mark.parametrize("name", ["100m", "profile"])
@pytest.mark.usefixtures("small")
def test_the_flows_are_those_of_the_truth(tmp_path: Path, name: str) -> None:
    path = tmp_path / "made.pcap"
    packets = probe_files.make(name, path, seed=3)
    truth = [json.loads(line) for line in path.with_suffix(".truth.jsonl").read_text("ascii").splitlines()]
    reading = read(path, settings=NO_TIMEOUTS)
    found = [
        {
            "src": flow.source,
            "sport": flow.source_port,
            "dst": flow.destination,
            "dport": flow.destination_port,
            "proto": flow.protocol,
            "pkts_c2s": flow.forward_packets,
            "pkts_s2c": flow.backward_packets,
            "bytes_c2s": flow.forward_bytes,
            "bytes_s2c": flow.backward_bytes,
        }
        for flow in reading
    ]
    assert sorted(found, key=str) == sorted(truth, key=str)
    assert reading.counters.packets == packets == reading.counters.flow_packets
    assert reading.counters.backwards == 0
    average = reading.counters.wire_bytes / len(truth)
    assert average == pytest.approx(12_500, rel=0.35)  # few flows of a heavy-tailed kind


@pytest.mark.usefixtures("small")
def test_a_seed_is_a_file(tmp_path: Path) -> None:
    made = []
    for number, seed in enumerate((1, 1, 2)):
        path = tmp_path / f"{number}.pcap"
        probe_files.make("100m", path, seed=seed)
        made.append(path.read_bytes())
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("chosen", [False, True])
def test_a_million_flows_are_all_different(tmp_path: Path, chosen: bool) -> None:
    path = tmp_path / "made.pcap"
    with path.open("wb") as file, (tmp_path / "facts").open("w") as facts:
        file.write(bytes.fromhex("4d3cb2a1020004000000000000000000ffff000001000000"))
        probe_files._million(file, facts, 1, chosen, 3_000)
    assert len(list(read(path, settings=NO_TIMEOUTS))) == 3_000


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of mix, profile"):
        probe_files.make("nonsense", tmp_path / "x.pcap")


def test_each_round_of_the_mix_has_other_addresses() -> None:
    frame = bytes(12) + b"\x08\0" + bytes.fromhex("45000014000000004011000001020304050607080000")[:20]
    assert probe_files._moved(frame, 0) == frame
    moved = probe_files._moved(frame, 0x0102)
    assert moved != frame
    assert len(moved) == len(frame)
    assert probe_files._moved(b"\xff" * 60, 5) == b"\xff" * 60
