"""`sealwire keygen`, `probe --sign`, `verify`, `prove`: what one types, what it says, what it refuses."""

from __future__ import annotations

import datetime
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sealwire import cli
from sealwire.probe import read
from sealwire.probe.seal import engine, frames
from sealwire.probe.seal.keys import load_signing_key
from sealwire.probe.seal.receipts import acknowledge
from tests.unit.cli.running import one_sentence, sealwire
from tests.unit.probe import packets as p
from tests.unit.probe.dissect.test_outputs import batches, mixed
from tests.unit.probe.test_outputs import check

ROOT = Path(__file__).resolve().parents[3]
SCHEMA: dict[str, Any] = json.loads((ROOT / "docs/probe/sealed.schema.json").read_text("utf-8"))
FILE = "0000000000000000.seal.zst"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a key, a capture, and its sealed events."""
    path = tmp_path_factory.mktemp("sealing")
    steps = [(n / 10, "|>", p.udp(n, 53, b"x" * n)) for n in range(1, 9)]
    (path / "capture.pcap").write_bytes(p.pcap(p.conversation(*steps)))
    assert cli.main(["keygen", str(path / "probe.key")]) == 0
    capture, key, events = (str(path / name) for name in ("capture.pcap", "probe.key", "events"))
    assert cli.main(["probe", "-r", capture, "--sign", key, "-w", events]) == 0
    return path


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Path:
    """Sealed events to be spoilt."""
    return Path(shutil.copytree(place, tmp_path / "copy"))


def verify(place: Path, *more: str, what: str = "events") -> int:
    return cli.main(["verify", str(place / what), "--key", str(place / "probe.key.pub"), *more])


def schema_of(event: dict[str, Any]) -> dict[str, Any]:
    (fitting,) = (
        schema
        for schema in SCHEMA["oneOf"]
        if (known := schema["properties"]["schema"]).get("const") == event["schema"]
        or event["schema"] in known.get("enum", ())
    )
    assert isinstance(fitting, dict)
    return fitting


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_keygen_writes_a_key_for_its_owner_alone_and_never_over_another(tmp_path: Path) -> None:
    for algorithm in ("ed25519", "es256", "ml-dsa-65"):
        key = tmp_path / algorithm
        assert cli.main(["keygen", str(key), "--algorithm", algorithm]) == 0
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        before = key.read_bytes()
        done = sealwire("keygen", str(key))
        assert done.code == 3
        assert "exists" in one_sentence(done)
        assert key.read_bytes() == before


def test_good_events_are_good(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(place, "--json") == 0
    (verdict,) = objects(capsys)
    assert (verdict["event"], verdict["good"], verdict["flows"]) == ("verified", True, 8)
    assert verify(place) == 0
    assert "good" in capsys.readouterr().out
    assert verify(place, what=f"events/{FILE}") == 0


def test_printed_events_are_those_of_the_capture_and_of_the_schema(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(place, "--print") == 0
    printed = objects(capsys)
    assert [event["event"] for event in printed] == ["start", *["flow"] * 8, "stop"]
    assert [event["sequence"] for event in printed] == list(range(10))
    for event in printed:
        check(schema_of(event), event)
    for flow, event in zip(read(str(place / "capture.pcap")), printed[1:-1], strict=True):
        assert (flow.source, flow.forward_bytes, flow.history) == (
            *(event["source"], event["forward_bytes"], event["history"]),
        )


def test_what_dissection_says_is_sealed_and_printed(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What comes out of the spool is the batch that went in, and each event is what its schema says."""
    capture, key, events = tmp_path / "mixed.pcap", place / "probe.key", tmp_path / "events"
    capture.write_bytes(mixed())
    assert cli.main(["probe", "-r", str(capture), "--sign", str(key), "-w", str(events)]) == 0
    found = [one.segment for one in frames.unpack((events / FILE).read_bytes())]
    sealed = [engine.decode(segment.framed, segment.header.first_event).batch() for segment in found]
    seen = batches()
    assert b"".join(batch.rows for batch in sealed) == b"".join(batch.rows for batch in seen)
    assert b"".join(batch.facts for batch in sealed) == b"".join(batch.facts for batch in seen)
    assert b"".join(batch.event_data for batch in sealed) == b"".join(batch.event_data for batch in seen)
    capsys.readouterr()
    trusted = f"{key}.pub"
    assert cli.main(["verify", str(events), "--key", trusted, "--print"]) == 0
    printed = objects(capsys)
    for event in printed:
        check(schema_of(event), event)
    flows = {event["flow_id"]: event for event in printed if event["event"] == "flow"}
    told = [event for event in printed if event["event"] == "transaction"]
    assert sorted(flow["facts"]["application"] for flow in flows.values() if "facts" in flow) == [
        "dns",
        "tls",
    ]
    assert sorted(event["facts"]["application"] for event in told) == ["dns", "dns", "tls"]
    for event in told:
        flow = flows[event["flow_id"]]
        assert (event["source"], event["source_port"]) == (flow["source"], flow["source_port"])
        assert event["facts"]["application"] == flow["facts"]["application"]
    for event in printed:
        proof = tmp_path / "proof"
        assert cli.main(["prove", str(events), str(event["sequence"]), "-o", str(proof)]) == 0
        capsys.readouterr()
        assert cli.main(["verify", str(proof), "--key", trusted]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == event
    plain = b"".join(segment.encode() for segment in found)
    alone = [sys.executable, str(ROOT / "docs" / "verify.py"), trusted]
    assert subprocess.run(alone, input=plain, capture_output=True, check=False).returncode == 0


def test_what_zstd_makes_of_it_is_verified_too(
    place: Path, tmp_path: Path, program: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = subprocess.run(
        [program("zstd"), "-dc", str(place / "events" / FILE)], capture_output=True, check=True
    )
    (tmp_path / "events.cbor").write_bytes(plain.stdout)
    assert cli.main(["verify", str(tmp_path / "events.cbor"), "--key", str(place / "probe.key.pub")]) == 0
    alone = [sys.executable, str(ROOT / "docs" / "verify.py"), str(place / "probe.key.pub")]
    done = subprocess.run(alone, input=plain.stdout, capture_output=True, check=False)
    assert (done.returncode, done.stdout[:5]) == (0, b"good:")
    damaged = plain.stdout[:-3]
    done = subprocess.run(alone, input=damaged, capture_output=True, check=False)
    assert (done.returncode, done.stdout[:7]) == (1, b"BROKEN:")
    # The verifier in docs/ is what it claims to be: alone.
    text = (ROOT / "docs" / "verify.py").read_text("utf-8")
    assert "import sealwire" not in text
    assert "from sealwire" not in text


def test_broken_events_are_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy / "events" / FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    assert verify(copy, "--json") == 1
    fault, *_, verdict = objects(capsys)
    assert (fault["event"], fault["kind"], fault["file"]) == ("fault", "malformed", FILE)
    assert verdict["good"] is False
    first = next(frames.unpack(whole))
    file.write_bytes(whole[: first.end])
    assert verify(copy, "--as-of", "2100-01-01") == 1
    assert "the end is missing" in capsys.readouterr().out
    file.write_bytes(b"")
    assert verify(copy) == 1


def test_the_head_and_the_revoked(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *_, last = frames.unpack((place / "events" / FILE).read_bytes())
    assert verify(place, "--head", last.segment.hash.hex()) == 0
    assert verify(place, "--head", "ab" * 32) == 1
    key = last.segment.header.key.hex()
    revoked = tmp_path / "revoked"
    revoked.write_text(f"# stolen\n{key} 2026-01-01\n")
    assert verify(place, "--revoked", str(revoked)) == 1
    received = tmp_path / "received"
    hashes = [found.segment.hash.hex() for found in frames.unpack((place / "events" / FILE).read_bytes())]
    received.write_text("".join(f"{known} 2025-12-31T23:59:59\n" for known in hashes))
    assert verify(place, "--revoked", str(revoked), "--received", str(received)) == 0
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    revoked.write_text(f"{key} {tomorrow.isoformat()}\n")
    assert verify(place, "--revoked", str(revoked)) == 0


def test_a_proof_stands_alone(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for event in range(10):
        proof = tmp_path / f"{event}.proof"
        assert cli.main(["prove", str(place / "events"), str(event), "-o", str(proof)]) == 0
        assert verify(place, what=str(proof)) == 0
        assert f"event {event} of segment" in capsys.readouterr().out
    whole = (tmp_path / "4.proof").read_bytes()
    other = tmp_path / "other.proof"
    for at in range(len(whole)):
        other.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert verify(place, what=str(other)) == 1, at
    for n in range(0, len(whole), 7):
        other.write_bytes(whole[:n])
        assert verify(place, what=str(other)) == 1, n
    assert cli.main(["prove", str(place / "events"), "10"]) == 1


def test_a_second_run_continues_and_another_key_must_be_introduced(copy: Path) -> None:
    def seal(key: str, *more: str) -> int:
        capture, events = str(copy / "capture.pcap"), str(copy / "events")
        return cli.main(["probe", "-r", capture, "--sign", str(copy / key), "-w", events, *more])

    assert seal("probe.key") == 0
    assert verify(copy) == 0
    assert cli.main(["keygen", str(copy / "new.key")]) == 0
    assert seal("new.key") == 3
    assert seal("new.key", "--old-key", str(copy / "probe.key")) == 0
    assert seal("new.key") == 0
    assert verify(copy) == 0
    assert verify(copy, "--strict") == 1  # the change of keys is a note
    assert seal("probe.key") == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--sign", "KEY"), 2, "-w DIR"),
        (("--sign", "KEY", "-w", "-"), 2, "-w DIR"),
        (("--sign", "KEY", "-w", "x", "--format", "csv"), 2, "-w DIR"),
        (("--old-key", "KEY"), 2, "--sign"),
        (("--when-full", "drop"), 2, "--sign"),
        (("--sign", "KEY", "-w", "x", "--heartbeat", "0"), 2, "heartbeat"),
        (("--sign", "KEY", "-w", "x", "--spool-max", "0"), 2, "SPOOL_MAX_MB"),
        (("--sign", "absent.key", "-w", "x"), 3, "absent.key"),
        (("--sign", "capture.pcap", "-w", "x"), 3, "capture.pcap"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    copy: Path, arguments: tuple[str, ...], code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    (copy / "capture.pcap").chmod(0o600)
    given = ["probe.key" if argument == "KEY" else argument for argument in arguments]
    done = sealwire("probe", "-r", "capture.pcap", *given)
    assert done.code == code
    assert words in one_sentence(done)


def test_a_key_that_others_can_read_is_refused(copy: Path) -> None:
    (copy / "probe.key").chmod(0o644)
    done = sealwire(
        "probe", "-r", str(copy / "capture.pcap"), "--sign", str(copy / "probe.key"), "-w", str(copy / "e")
    )
    assert done.code == 3
    assert "chmod 600" in one_sentence(done)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("verify", "absent", "--key", "probe.key.pub"), 3),
        (("verify", ".", "--key", "probe.key.pub"), 3),
        (("verify", "events", "--key", "capture.pcap"), 2),
        (("verify", "events", "--key", "absent"), 3),
        (("verify", "events"), 2),
        (("verify", "events", "--key", "probe.key.pub", "--head", "xyz"), 2),
        (("verify", "events", "--key", "probe.key.pub", "--as-of", "noon"), 2),
        (("verify", "events", "--key", "probe.key.pub", "--revoked", "absent"), 3),
        (("verify", "capture.pcap", "--key", "probe.key.pub"), 1),
        (("prove", "absent", "1"), 3),
        (("prove", "events", "one"), 2),
        (("prove", "events", "-3"), 2),
    ],
)
def test_exit_codes(
    copy: Path, arguments: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy)
    assert cli.main(arguments) == code


def test_receipts(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A spool beside what its collector says of it."""
    assert cli.main(["keygen", str(copy / "collector.key")]) == 0
    key = load_signing_key(copy / "collector.key")
    found = [one.segment for one in frames.unpack((copy / "events" / FILE).read_bytes())]
    yesterday = found[0].header.sealed.wall - 24 * 3600 * 10**9
    named = [(segment.header.segment, segment.hash) for segment in found]
    file, collector = copy / "receipts", str(copy / "collector.key.pub")
    file.write_bytes(acknowledge(found[0].header.probe, named, yesterday, key))
    given = ("--receipts", str(file), "--collector", collector)
    assert verify(copy, *given) == 0
    (copy / "revoked").write_text(f"{found[0].header.key.hex()} 2026-01-01\n")
    revoked = ("--revoked", str(copy / "revoked"))
    assert verify(copy, *revoked) == 1
    then = datetime.datetime.fromtimestamp(yesterday / 1e9 + 60, datetime.UTC)
    (copy / "revoked").write_text(f"{found[0].header.key.hex()} {then.isoformat()}\n")
    assert verify(copy, *revoked) == 1
    assert verify(copy, *revoked, *given) == 0
    named.append((len(found), bytes(32)))
    file.write_bytes(acknowledge(found[0].header.probe, named, yesterday, key))
    capsys.readouterr()
    assert verify(copy, *given) == 1
    assert "a collector received" in capsys.readouterr().out
    assert verify(copy, "--receipts", str(file)) == 2
    assert verify(copy, "--receipts", str(file), "--collector", str(copy / "probe.key.pub")) == 1
    file.write_bytes(b"\xd2\x84")
    assert verify(copy, *given) == 1
