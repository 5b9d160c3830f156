"""From a capture file to rows in DuckDB: count and sums equal, every row provable.

In reduced size; `make test-long` does a file of a million flows, $SEALWIRE_PROBE_FILES/million.pcap or one
made here.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sealwire.probe
from sealwire import cli
from sealwire.bench import probe_files
from sealwire.probe.batch import OFFSETS
from sealwire.probe.seal import engine
from sealwire.probe.seal.keys import load_public_key
from sealwire.probe.seal.segment import Segment
from sealwire.probe.seal.tree import root_of_path
from sealwire.probe.store import reading
from sealwire.probe.store.disk import Folders
from sealwire.probe.store.housekeeping import Housekeeping
from sealwire.probe.store.proving import prove_row
from sealwire.probe.verify import Trust, verify_proof
from tests.unit.probe import packets as p

pytest.importorskip("duckdb")

SUMMED = ("forward_packets", "forward_bytes", "backward_packets", "backward_bytes", "source_port", "ended")


def captured(path: Path) -> dict[str, int]:
    """Count and sums straight from the capture, without anything of the store."""
    found = dict.fromkeys(("count", *SUMMED), 0)
    for batch in sealwire.probe.read(str(path)).batches():
        found["count"] += len(batch)
        stride = len(batch.rows) // len(batch) if len(batch) else 1
        for name in SUMMED:
            offset, code = OFFSETS[name]
            width = {"Q": 8, "q": 8, "I": 4, "H": 2, "B": 1}[code]
            column = (
                batch.rows[at + offset : at + offset + width] for at in range(0, len(batch.rows), stride)
            )
            found[name] += sum(int.from_bytes(value, "little") for value in column)
    return found


def asked(store: Path) -> dict[str, int]:
    """Count and sums as whoever asks gets them."""
    from sealwire.probe.store.query import Questions

    sums = ", ".join(
        f"sum({f'epoch_ns({name})' if name == 'ended' else name}::hugeint) {name}" for name in SUMMED
    )
    with Questions(store) as questions:
        answer = questions.ask(f"select count(*) as count, count(distinct row) as rows, {sums} from flows")
        found = dict(zip(answer.columns, next(answer.rows()), strict=True))
    assert found.pop("rows") == found["count"]
    return found


def stored(place: Path, capture: Path) -> Path:
    """The capture sealed and stored; half of it compacted by a collector's housekeeping."""
    assert cli.main(["keygen", str(place / "probe.key")]) == 0
    sealing = ["probe", "-r", str(capture), "--sign", str(place / "probe.key"), "-w", str(place / "spool")]
    assert cli.main(sealing) == 0
    key = str(place / "probe.key.pub")
    assert cli.main(["store", "import", str(place / "spool"), str(place / "st"), "--key", key]) == 0
    house = Housekeeping(place / "st")
    now = 0.0
    house.poll(now)
    while house.busy:
        time.sleep(0.05)
        now += 1.0
        house.poll(now)
    house.close()
    assert not house.state.trouble
    return place / "st"


def proved(segment: Segment) -> Iterator[bool]:
    """Whether each leaf of a segment leads to the signed root: all paths from one tree."""
    leaves = segment.leaves()
    hashes = engine.leaf_hashes(segment.framed)
    levels = [[hashes[at : at + 32] for at in range(0, len(hashes), 32)]]
    while len(levels[-1]) > 1:
        level = levels[-1]
        pairs = zip(level[::2], level[1::2], strict=False)
        levels.append([hashlib.sha256(b"\1" + a + b).digest() for a, b in pairs] + level[len(level) & ~1 :])
    for index, leaf in enumerate(leaves):
        path, at = [], index
        for level in levels[:-1]:
            if at ^ 1 < len(level):
                path.append(level[at ^ 1])
            at >>= 1
        yield root_of_path(leaf, index, len(leaves), path) == segment.root


def whole_way(place: Path, capture: Path, proofs: int) -> None:
    store = stored(place, capture)
    assert asked(store) == captured(capture)
    key = load_public_key(place / "probe.key.pub")
    disk, trust = Folders(store), Trust({key.id: key})
    names = reading.files(disk, key.id.hex())
    rows: list[int] = []
    for index, name in enumerate(names):
        for found in reading.segments(disk, key.id.hex(), name, reading.following(names, index)):
            assert isinstance(found, reading.Arrived)
            assert found.segment.authentic(key)
            assert all(proved(found.segment))
            rows += range(found.segment.header.first_event, found.segment.header.last_event + 1)
    assert rows == list(range(len(rows)))
    for row in random.Random(3).sample(rows, min(proofs, len(rows))):
        proof = verify_proof(prove_row(disk, row).proof, trust, time.time_ns())
        assert proof.header.first_event + proof.index == row


def test_a_few_thousand_flows(tmp_path: Path) -> None:
    capture = tmp_path / "flows.pcap"
    steps = [(n / 1000, "|>" if n % 3 else "<|", p.udp(n, 53, b"x" * (n % 50))) for n in range(1, 4000)]
    capture.write_bytes(p.pcap(p.conversation(*steps)))
    whole_way(tmp_path, capture, 300)


@pytest.mark.long
def test_a_million_flows(tmp_path: Path) -> None:
    given = os.environ.get("SEALWIRE_PROBE_FILES")
    capture = Path(given or tmp_path) / "million.pcap"
    if not capture.exists():
        probe_files.make("million", capture)
    whole_way(tmp_path, capture, 500)
    assert asked(tmp_path / "st")["count"] == 1_000_000
