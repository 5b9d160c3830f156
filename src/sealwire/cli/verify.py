"""`sealwire verify`: is this what the probe sealed, all of it, once, in order?"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from sealwire.cli import sealed
from sealwire.cli.say import Exit, Failure, Say
from sealwire.probe.events import leaves_json
from sealwire.probe.seal import engine
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.leaves import Decoded
from sealwire.probe.seal.segment import Header
from sealwire.probe.seal.tree import frame
from sealwire.probe.store.checkpoints import CHECKPOINTS, checkpoints
from sealwire.probe.verify import Trust, Verifier, verify_proof

_SHOWN = 20
#: How files of segments begin: zstd, a note in front of zstd, unpacked, empty.
_SEGMENTS = (b"\x28\xb5", b"\x50\x2a", b"\x82\xd2", b"")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="+", type=Path, metavar="WHAT", help="a spool, its files, or the proof of one event"
    )
    sealed.trust_options(parser)
    parser.add_argument(
        "--received",
        metavar="FILE",
        help="lines of segment hash and the time it was received, for --revoked (default: now)",
    )
    parser.add_argument(
        "--receipts",
        action="append",
        type=Path,
        metavar="FILE",
        help="receipts of the collector: when segments came, for --revoked, and that they must be there",
    )
    parser.add_argument(
        "--collector",
        action="append",
        metavar="PUB",
        help="the public key that signed the receipts and checkpoints",
    )
    parser.add_argument("--head", metavar="HASH", help="the segment with this hash must be there")
    parser.add_argument(
        "--as-of", metavar="TIME", help="judge the open end of a spool as of then (default: now)"
    )
    parser.add_argument(
        "--strict", action="store_true", help="what the probe itself declared missing is a no too"
    )
    parser.add_argument("--print", action="store_true", help="write the verified events as JSON lines")


def run(args: argparse.Namespace, say: Say) -> Exit:
    trust = sealed.trust(args)
    try:
        now = time.time_ns() if args.as_of is None else sealed.nanoseconds(args.as_of)
    except ValueError as error:
        raise Failure(Exit.USAGE, f"--as-of: {error}", "write 2026-11-20T12:00:00+00:00") from error
    if args.print and not say.json:
        say = Say(json=False, text=sys.stderr)
    worst = Exit.OK
    spools = [path for path in args.what if path.is_dir()]
    plain = [path for path in args.what if not path.is_dir()]
    for spool in [part for place in spools for part in sealed.chains(place)]:
        worst = max(worst, _chain(args, say, trust, now, sealed.files(spool), str(spool)))
    proofs = [path for path in plain if sealed.read(path)[:2] not in _SEGMENTS]
    for path in proofs:
        worst = max(worst, _proof(args, say, trust, now, path))
    if rest := [path for path in plain if path not in proofs]:
        worst = max(worst, _chain(args, say, trust, now, rest, str(rest[0])))
    return worst


def _chain(args: argparse.Namespace, say: Say, trust: Trust, now: int, files: list[Path], name: str) -> Exit:
    started = time.monotonic()
    verifier = Verifier(trust, now, _print if args.print else None)
    _checkpoints(args, say, verifier, files[0].parent)
    for path in files:
        data, behind = sealed.read(path), 0
        try:
            for begin, segment in sealed.segments(data):
                behind = begin
                verifier.segment(path.name, segment)
        except Malformed as wrong:
            verifier.malformed(path.name, f"{wrong}, behind the segment at byte {behind}")
    findings = verifier.finish()
    totals = verifier.totals
    faults = [finding for finding in findings if finding.fault is not None]
    notes = [finding for finding in findings if finding.fault is None]
    for finding in faults[:_SHOWN] + notes[:_SHOWN]:
        say.fact(
            "fault" if finding.fault else "note",
            f"{'BROKEN' if finding.fault else 'note  '}  {finding}",
            **({"kind": finding.fault.name.lower()} if finding.fault else {}),
            file=finding.place,
            segment=finding.segment,
            sequence=finding.event,
            message=finding.words,
        )
    hidden = totals.faults + totals.notes - len(faults[:_SHOWN]) - len(notes[:_SHOWN])
    if hidden > 0:
        say.words(f"and {hidden} more")
    broken = totals.faults > 0 or (args.strict and totals.notes > 0) or totals.segments == 0
    seconds = time.monotonic() - started
    removed = f"{totals.removed_events:,} removed, " if totals.removed_events else ""
    say.fact(
        "verified",
        f"{name}: {'BROKEN' if broken else 'good'}: {totals.segments:,} segments, {totals.events:,} events "
        f"({totals.flows:,} flows, {totals.transactions:,} transactions), {totals.boots} boots, "
        f"{totals.gaps} gaps, {totals.lost_events:,} events lost, {removed}{totals.faults} faults, "
        f"{seconds:.1f} s",
        name=name,
        good=not broken,
        **asdict(totals),
        seconds=round(seconds, 3),
    )
    return Exit.NO if broken else Exit.OK


def _checkpoints(args: argparse.Namespace, say: Say, verifier: Verifier, folder: Path) -> None:
    """What a collector removed from there, if it is to be believed."""
    file = folder / CHECKPOINTS
    if not file.is_file():
        return
    if not args.collector:
        say.words(f"{file}: segments were removed; --collector names the key that signed for it")
        return
    collectors = sealed.keys(args.collector, "--collector")
    try:
        for checkpoint in checkpoints(sealed.read(file)):
            verifier.checkpoint(CHECKPOINTS, checkpoint, collectors)
    except Malformed as wrong:
        verifier.malformed(CHECKPOINTS, str(wrong))


def _print(header: Header, decoded: Decoded) -> None:
    for event in leaves_json(decoded, header.first_event):
        sys.stdout.write(json.dumps(event) + "\n")


def _one_event(leaf: bytes, sequence: int) -> dict[str, object]:
    """The event of one leaf."""
    return next(leaves_json(engine.decode(frame(leaf), sequence), sequence))


def _proof(args: argparse.Namespace, say: Say, trust: Trust, now: int, path: Path) -> Exit:
    try:
        proof = verify_proof(sealed.read(path), trust, now)
    except Malformed as wrong:
        say.fact("fault", f"BROKEN  {path}: {wrong}", kind="proof", file=str(path), message=str(wrong))
        return Exit.NO
    header = proof.header
    sequence = header.first_event + proof.index
    say.fact(
        "proved",
        f"{path}: good: event {sequence} of segment {header.segment}, probe {header.probe.hex()}",
        file=str(path),
        segment=header.segment,
        sequence=sequence,
        probe=header.probe.hex(),
    )
    say.record(
        "proved-event",
        **{"sealed_" + name: value for name, value in _one_event(proof.leaf, sequence).items()},
    )
    if not say.json:
        sys.stdout.write(json.dumps(_one_event(proof.leaf, sequence)) + "\n")
    return Exit.OK
