"""The probe's compiled modules under AddressSanitizer and UndefinedBehaviorSanitizer: captures and damage.

    python -m tests.fuzzing.probe_sanitized [SECONDS]

Builds the modules with gcc's sanitizers in a temporary directory, then starts itself again on them:
first every capture of shared/data/probe whole, then damaged pieces of them and of captures made
here, under changing settings, until SECONDS are over; every fifth is compared with the twin.  Any
finding ends the process with the sanitizer's report.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzzing import sanitizers

if TYPE_CHECKING:
    from sealwire.probe.settings import Settings
    from tests.unit.probe.twins import Walked

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "sealwire.crypto._evp",
    "sealwire.crypto._digests",
    "sealwire.probe.dissect._hot",
    "sealwire.probe.dissect._scan",
    "sealwire.probe._flows",
    "sealwire.probe._arrow",
    "sealwire.probe._columns",
)


def work(seconds: float) -> None:
    from sealwire.probe import _flows
    from sealwire.probe.settings import Settings
    from tests.unit.probe.test_outputs import mixed
    from tests.unit.probe.twins import same, walk

    for name in MODULES:
        origin = sys.modules[name].__spec__.origin  # type: ignore[union-attr]
        assert str(origin).startswith(os.environ[sanitizers.VARIABLE]), name
    settings = [
        Settings(),
        Settings().without_timeouts(),
        Settings(idle_timeout=0.5, active_timeout=2, linger=0.01, first_packets=5, tunnels=True),
        Settings(max_flows=10, tunnels=True),
        Settings(max_bytes=65_536, first_packets=255),
        Settings(dissect=True).without_timeouts(),
        Settings(dissect=True, idle_timeout=0.5, active_timeout=2, linger=0.01, tunnels=True),
        Settings(dissect=True, max_flows=10, max_dissection_bytes=65_536),
    ]
    shared = Path(os.environ.get("SEALWIRE_SHARED") or ROOT.parent / "shared") / "data/probe"
    captures = [mixed(), *(path.read_bytes() for path in sorted(shared.glob("*.pcap*")))]
    for capture in captures:
        for chosen in settings:
            walked = walk(_flows.Table, capture, chosen)
            handed_on(walked, chosen)
    print(f"{len(captures)} captures under {len(settings)} settings, whole", flush=True)
    seed = random.randrange(1 << 32)
    chance, runs, packets = random.Random(seed), 0, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        damaged = payloads(chance) if runs % 2 else damage(chance, chance.choice(captures))
        chosen = chance.choice(settings)
        if runs % 5 == 0:
            walked = same(damaged, chosen)
        else:
            walked = walk(_flows.Table, damaged, chosen, budget=chance.choice((1, 100, 5000)))
        handed_on(walked, chosen)
        runs += 1
        packets += walked.counters.get("packets", 0)
    print(f"seed {seed}: {runs} damaged captures, {packets} packets, nothing found", flush=True)


def handed_on(walked: Walked, chosen: Settings) -> None:
    """What is done with a table's answers."""
    from sealwire.probe.batch import Batch
    from sealwire.probe.dissect.facts import Event
    from sealwire.probe.dissect.inspector import Inspector
    from sealwire.probe.write import eve_event

    if not chosen.dissect:
        Batch(walked.rows, chosen.first_packets).columns()
        return
    batch = Inspector(chosen).batch(walked.rows, walked.facts, walked.events)
    batch.columns()
    for record in batch.records():
        if isinstance(record, Event):
            eve_event(record)


def payloads(chance: random.Random) -> bytes:
    """A capture of a few flows whose payloads are messages of every protocol, whole, damaged, cut, mixed."""
    from tests.unit.probe.dissect import hellos
    from tests.unit.probe.dissect.test_bad_input import SEEDS

    steps, offset = [], {"<": 0, ">": 0}
    for _ in range(chance.choice((1, 3, 12, 26))):
        data = bytearray(chance.choice(SEEDS))
        for _ in range(chance.choice((0, 0, 1, 3))):
            at = chance.randrange(len(data) or 1)
            match chance.randrange(4):
                case 0:
                    data[at : at + 1] = bytes((chance.choice((0, 1, 0x7F, 0x80, 0xFF)),))
                case 1:
                    data[at : at + 2] = chance.randbytes(2)
                case 2:
                    del data[at:]
                case _:
                    data[at:at] = chance.randbytes(chance.randrange(1, 40))
        way = chance.choice("<>")
        steps.append((way, offset[way] + chance.choice((0, 0, 0, -3, 5)), bytes(data)))
        offset[way] += len(data)
    if chance.random() < 0.5:
        return hellos.tcp_stream(steps)
    port = chance.choice((53, 443, 3478, 4433, 5353))
    return hellos.datagrams([(way, data) for way, _, data in steps], port=port)


def damage(chance: random.Random, capture: bytes) -> bytes:
    """A piece of a capture with bytes changed, taken out or put in; often only in lengths."""
    data = bytearray(capture[: chance.choice((400, 4_000, 40_000))])
    for _ in range(chance.choice((1, 3, 20, 200))):
        at = chance.randrange(len(data))
        match chance.randrange(6):
            case 0 | 1:
                data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                data[at] ^= 1 << chance.randrange(8)
            case 3:
                data[at : at + 4] = chance.choice((bytes(4), b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\4\0"))
            case 4:
                del data[at : at + chance.randrange(1, 9)]
            case _:
                data[at:at] = chance.randbytes(chance.randrange(1, 9))
        if len(data) < 2:
            break
    return bytes(data)


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    place = os.environ.get(sanitizers.VARIABLE)
    if place:
        sanitizers.load(MODULES, Path(place))
        work(seconds)
        return 0
    with tempfile.TemporaryDirectory() as name:
        sanitizers.build(MODULES, Path(name))
        return sanitizers.restart("tests.fuzzing.probe_sanitized", Path(name), seconds)


if __name__ == "__main__":
    sys.exit(main())
