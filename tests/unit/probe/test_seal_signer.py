"""The signer's process: who holds the key, what is bounded, and what happens when either side is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sealwire.errors import ConfigurationError
from sealwire.probe import Batch
from sealwire.probe.events import Event, Gap, GapReason, Policy, decode
from sealwire.probe.features import row_struct
from sealwire.probe.pressure import Step
from sealwire.probe.seal import frames
from sealwire.probe.seal.client import Signer, WhenFull
from sealwire.probe.seal.keys import PublicKey, generate, load_public_key
from sealwire.probe.seal.segment import Segment
from sealwire.probe.spool import SUFFIX
from sealwire.probe.verify import Trust, Verifier
from tests.unit.probe import sealing as s

STRIDE = row_struct().size


@pytest.fixture(name="key")
def _key(tmp_path: Path) -> Path:
    private, public, _ = generate("ed25519")
    path = tmp_path / "probe.key"
    path.touch(mode=0o600)
    path.write_bytes(private)
    (tmp_path / "probe.key.pub").write_bytes(public)
    return path


def public(key: Path) -> PublicKey:
    return load_public_key(f"{key}.pub")


def spooled(spool: Path) -> list[Segment]:
    files = sorted(path for path in spool.iterdir() if path.name.endswith(SUFFIX))
    return [found.segment for path in files for found in frames.unpack(path.read_bytes())]


def judged(spool: Path, key: Path) -> Verifier:
    trusted = public(key)
    verifier = Verifier(Trust({trusted.id: trusted}), time.time_ns())
    for segment in spooled(spool):
        verifier.segment("spool", segment)
    findings = [finding for finding in verifier.finish() if finding.fault is not None]
    assert findings == [], [str(finding) for finding in findings]
    return verifier


def events(spool: Path) -> list[Event]:
    leaves = [leaf for segment in spooled(spool) for leaf in segment.leaves() if leaf[1] != 1]
    return [event for event in map(decode, leaves) if event is not None]


def gaps(spool: Path) -> list[Gap]:
    return [event for event in events(spool) if isinstance(event, Gap)]


def test_what_goes_in_is_sealed(tmp_path: Path, key: Path) -> None:
    spool = tmp_path / "events"
    with Signer(spool, key) as signer:
        for number in range(20):
            signer.write(Batch(s.rows(50, number)), {"packets": number})
    verdict = judged(spool, key)
    assert (verdict.totals.flows, verdict.totals.gaps, verdict.totals.boots) == (1000, 0, 1)
    assert signer.committed["hash"] == spooled(spool)[-1].hash.hex()
    assert signer.queue.depth == 0
    assert signer.queue.peak > 0
    assert spooled(spool)[-1].header.counters == {"packets": 19, "queue_dropped": 0}


def test_the_capturing_process_never_opens_the_key(tmp_path: Path, key: Path) -> None:
    """Seen by the system: a program that captures while strace would be too much, an audit hook is enough."""
    program = f"""
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from sealwire.probe import Batch
from sealwire.probe.seal.client import Signer
with Signer({str(tmp_path / "events")!r}, {str(key)!r}) as signer:
    signer.write(Batch(bytes.fromhex({s.row(1).hex()!r})))
assert not any(name == {str(key)!r} for name in opened), opened
assert "sealwire.probe.seal.keys" not in sys.modules, "what loads keys"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    judged(tmp_path / "events", key)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_others_can_read_is_refused(tmp_path: Path, key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Signer(tmp_path / "events", key)


def test_keys_that_are_none_are_refused(tmp_path: Path, key: Path) -> None:
    wrong = tmp_path / "wrong.key"
    wrong.touch(mode=0o600)
    wrong.write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(ConfigurationError, match="no private key"):
        Signer(tmp_path / "events", wrong)
    with pytest.raises(OSError, match="No such file"):
        Signer(tmp_path / "events", tmp_path / "absent.key")
    with Signer(tmp_path / "events", key), pytest.raises(ConfigurationError, match="another signer"):
        Signer(tmp_path / "events", key)


def stopped(signer: Signer) -> None:
    os.kill(signer.pid, signal.SIGSTOP)


def test_a_full_queue_keeps_less_and_gaps_say_how_many(tmp_path: Path, key: Path) -> None:
    spool = tmp_path / "events"
    signer = Signer(spool, key, queue_bytes=100_000, when_full=WhenFull.DROP, sample=4)
    stopped(signer)
    steps = []
    for number in range(200):
        signer.write(Batch(s.rows(10, number)))
        assert signer.queue.depth <= 100_000
        steps.append(signer.step)
    assert sorted(set(steps)) == [Step.DELIVER, Step.SAMPLE, Step.LOWEST, Step.FULL]
    os.kill(signer.pid, signal.SIGCONT)
    while signer.queue.depth:
        time.sleep(0.01)
        signer.write(Batch(b""))
    signer.close()
    assert signer.step is Step.DELIVER
    losses = {gap.reason for gap in gaps(spool)}
    assert losses == {GapReason.SAMPLED, GapReason.LOWEST_CLASS, GapReason.QUEUE_FULL}
    assert sum(gap.events or 0 for gap in gaps(spool)) == signer.queue.dropped
    assert judged(spool, key).totals.flows == 2000 - signer.queue.dropped
    said = [event for event in events(spool) if isinstance(event, Policy)]
    assert [Step(event.treatment) for event in said][-1] is Step.DELIVER
    assert {Step(event.treatment) for event in said} == set(steps)
    assert {(event.sample, event.treatment >= Step.SAMPLE) for event in said} == {(1, False), (4, True)}


def test_capture_never_waits_for_a_signer_that_is_stopped(tmp_path: Path, key: Path) -> None:
    """Its socket is full long before the queue is: what does not fit waits here."""
    signer = Signer(tmp_path / "events", key, queue_bytes=8 << 20, when_full=WhenFull.DROP)
    stopped(signer)
    rows, slowest = s.rows(400), 0.0
    for _ in range(60):
        began = time.monotonic()
        signer.write(Batch(rows), {"packets": 7})
        slowest = max(slowest, time.monotonic() - began)
    assert signer.queue.depth > 4 << 20
    assert slowest < 2.0
    os.kill(signer.pid, signal.SIGCONT)
    signer.close()
    assert judged(tmp_path / "events", key).totals.flows == 24_000 - signer.queue.dropped


def test_a_full_queue_makes_a_file_wait(tmp_path: Path, key: Path) -> None:
    spool = tmp_path / "events"
    with Signer(spool, key, queue_bytes=60_000) as signer:
        for number in range(100):
            signer.write(Batch(s.rows(20, number)))
            assert signer.queue.depth <= 48_000
    assert judged(spool, key).totals.flows == 2000
    assert gaps(spool) == []


def test_a_killed_signer_is_started_again_and_a_gap_says_so(tmp_path: Path, key: Path) -> None:
    spool = tmp_path / "events"
    with Signer(spool, key) as signer:
        for number in range(30):
            signer.write(Batch(s.rows(10, number)))
            if number == 10:
                os.kill(signer.pid, signal.SIGKILL)
                time.sleep(0.05)
    verdict = judged(spool, key)
    assert signer.queue.restarts == 1
    assert 300 - signer.queue.lost <= verdict.totals.flows < 300
    reasons = [gap.reason for gap in gaps(spool)]
    assert GapReason.SIGNER_LOST in reasons
    assert GapReason.UNCLEAN_RESTART in reasons


def test_a_probe_that_just_ends_is_said_to(tmp_path: Path, key: Path) -> None:
    spool = tmp_path / "events"
    signer = Signer(spool, key)
    signer.write(Batch(s.rows(10)))
    signer.abandon()
    assert [gap.reason for gap in gaps(spool)] == [GapReason.PROBE_ENDED]
    assert judged(spool, key).totals.flows == 10


_CAPTURING = """
import sys
from sealwire.probe import Batch
from sealwire.probe.seal.client import Signer
rows = bytes.fromhex(sys.argv[3])
with Signer(sys.argv[1], sys.argv[2], heartbeat=1) as signer:
    print(signer.pid, flush=True)
    while True:
        signer.write(Batch(rows))
        if signer.committed:
            print(signer.committed["segment"], signer.committed["hash"], flush=True)
"""


@pytest.mark.long
def test_fifty_kills(tmp_path: Path, key: Path) -> None:
    """Seeded SIGKILLs of signer, capturing process, or both at once; the spool is always good, and true."""
    chance = random.Random(11)
    spool = tmp_path / "events"
    reported: dict[int, str] = {}
    for number in range(50):
        victim = chance.choice(("signer", "probe", "both"))
        command = [sys.executable, "-c", _CAPTURING, str(spool), str(key), s.rows(20, number).hex()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            signer = int(process.stdout.readline())
            until = time.monotonic() + chance.uniform(0.0, 0.4)
            while time.monotonic() < until:
                line = process.stdout.readline().split()
                reported[int(line[0])] = line[1]
            if victim in ("signer", "both"):
                os.kill(signer, signal.SIGKILL)
            if victim == "signer":
                # It is started again, and goes on; then the probe goes.
                time.sleep(0.5)
            process.kill()
            rest, _ = process.communicate()
            for words in map(str.split, rest.splitlines()):
                if len(words) == 2 and len(words[1]) == 64:
                    reported[int(words[0])] = words[1]
        _wait_for_lock(spool)
    with Signer(spool, key) as last:
        last.write(Batch(s.rows(1)))
    verdict = judged(spool, key)
    kept = {segment.header.segment: segment.hash.hex() for segment in spooled(spool)}
    missing = {number for number, known in reported.items() if kept.get(number) != known}
    assert missing == set(), "what was reported durable is not there"
    print(f"{verdict.totals}; {len(reported)} segments were reported durable, all are there")
    assert verdict.totals.boots > 50
    assert verdict.totals.gaps >= 50


def _wait_for_lock(spool: Path) -> None:
    """The signer of a killed probe finishes in its own time."""
    from sealwire.probe.spool import Directory

    for _ in range(400):
        try:
            Directory(spool).close()
        except ConfigurationError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("a signer did not end")


@pytest.fixture(name="tmpfs")
def _tmpfs(tmp_path: Path) -> Path:
    """A file system of 1 MiB."""
    where = tmp_path / "small"
    where.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(where)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("absent: the right to mount a tmpfs")
    return where


def test_a_full_tmpfs(tmp_path: Path, tmpfs: Path, key: Path) -> None:
    """More than fits: the oldest make room, every loss is told, and the rest is good."""
    try:
        spool = tmpfs / "events"
        with Signer(spool, key) as signer:
            for number in range(60):
                signer.write(Batch(s.rows(400, number)))
        verdict = judged(spool, key)
        assert signer.queue.restarts == 0
        assert verdict.totals.lost_events > 0
        assert GapReason.SPOOL_FULL in [gap.reason for gap in gaps(spool)]
        assert verdict.totals.flows + verdict.totals.lost_events >= 24_000
        # Somebody else takes the rest, before the signer's first file is large enough to drop: it waits.
        shutil.rmtree(spool)
        with Signer(spool, key, queue_bytes=1 << 20) as signer:
            filler = os.open(tmpfs / "filler", os.O_WRONLY | os.O_CREAT)
            try:
                while os.write(filler, bytes(4096)):
                    pass
            except OSError:
                pass
            os.close(filler)
            for number in range(5):
                signer.write(Batch(s.rows(20, number)))
            until = time.monotonic() + 20
            while not signer.committed.get("stalled") and time.monotonic() < until:
                time.sleep(0.05)
                signer.write(Batch(b""), {"packets": 1})
            (tmpfs / "filler").unlink()
        assert gaps(spool) == []
        assert judged(spool, key).totals.flows == 100
    finally:
        subprocess.run(["umount", str(tmpfs)], check=False)
