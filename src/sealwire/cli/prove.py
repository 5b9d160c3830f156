"""`sealwire prove`: the proof of one event, which stands alone beside the public key."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sealwire.cli import sealed
from sealwire.cli.say import Exit, Failure, Say
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.segment import Segment, prove


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spool", type=Path, metavar="EVENTS", help="a spool or one of its files")
    parser.add_argument("event", type=_sequence, metavar="SEQUENCE", help="the event's sequence")
    parser.add_argument("-o", "--out", metavar="FILE", help="where the proof goes; - for standard output")


def run(args: argparse.Namespace, say: Say) -> Exit:
    segment = _find(args.spool, args.event)
    try:
        proof = prove(segment, args.event - segment.header.first_event)
    except (ValueError, IndexError) as error:
        raise Failure(
            Exit.NO, f"segment {segment.header.segment} is damaged", "see sealwire verify"
        ) from error
    out = args.out or f"event-{args.event}.proof"
    if out == "-":
        if say.json:
            raise Failure(
                Exit.USAGE, "--json and a proof on standard output do not go together", "give -o FILE"
            )
        sys.stdout.buffer.write(proof)
        sys.stdout.buffer.flush()
        return Exit.OK
    try:
        Path(out).write_bytes(proof)
    except OSError as error:
        raise Failure(Exit.ENVIRONMENT, f"{out}: {error.strerror}", "check -o") from error
    say.fact(
        "proof",
        f"{out}: event {args.event} of segment {segment.header.segment}, {len(proof)} bytes",
        file=out,
        sequence=args.event,
        segment=segment.header.segment,
        bytes=len(proof),
    )
    return Exit.OK


def _sequence(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no event's sequence")
    return int(text)


def _find(path: Path, event: int) -> Segment:
    """The segment that says it holds the event; files begin in the order of their names."""
    for file in sealed.files(path):
        try:
            for _, segment in sealed.segments(sealed.read(file)):
                if segment.header.first_event <= event <= segment.header.last_event:
                    return segment
        except Malformed:
            continue
    raise Failure(Exit.NO, f"there is no event {event} in {path}", "sealwire verify says which there are")
