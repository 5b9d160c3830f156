"""`sealwire prove`: the proof of one event, which stands alone beside the public key."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sealwire.cli import query, sealed
from sealwire.cli.say import Exit, Failure, Say
from sealwire.errors import ConfigurationError
from sealwire.probe.seal.cose import Malformed
from sealwire.probe.seal.segment import Segment, prove


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spool", nargs="?", type=Path, metavar="EVENTS", help="a spool or one of its files")
    parser.add_argument("event", nargs="?", type=_sequence, metavar="SEQUENCE", help="the event's sequence")
    parser.add_argument(
        "--row",
        type=_sequence,
        metavar="N",
        help="the row of that number in a store, as `sealwire query` shows it",
    )
    query.store_option(parser)
    parser.add_argument("-o", "--out", metavar="FILE", help="where the proof goes; - for standard output")


def run(args: argparse.Namespace, say: Say) -> Exit:
    if args.row is not None:
        if args.spool is not None:
            raise Failure(Exit.USAGE, "--row is a row of a store, not of EVENTS", "give --store DIR")
        return _row(args, say)
    if args.spool is None or args.event is None:
        raise Failure(
            Exit.USAGE, "nothing says what to prove", "give EVENTS SEQUENCE, or --row N --store DIR"
        )
    if (args.spool / "store").is_file():
        raise Failure(
            Exit.USAGE, f"{args.spool} is a store", f"give --row N --store {args.spool}, as query shows it"
        )
    segment = _find(args.spool, args.event)
    try:
        proof = prove(segment, args.event - segment.header.first_event)
    except (ValueError, IndexError) as error:
        raise Failure(
            Exit.NO, f"segment {segment.header.segment} is damaged", "see sealwire verify"
        ) from error
    return _write(args, say, proof, f"event-{args.event}.proof", args.event, segment.header.segment)


def _row(args: argparse.Namespace, say: Say) -> Exit:
    from sealwire.probe.store.disk import Folders
    from sealwire.probe.store.proving import NotHere, prove_row

    place = query.store_of(args)
    try:
        found = prove_row(Folders(place), args.row)
    except NotHere as error:
        raise Failure(Exit.NO, str(error), "") from error
    except ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "check --store") from error
    return _write(args, say, found.proof, f"row-{args.row}.proof", found.sequence, found.segment)


def _write(args: argparse.Namespace, say: Say, proof: bytes, name: str, event: int, segment: int) -> Exit:
    out = args.out or name
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
        f"{out}: event {event} of segment {segment}, {len(proof)} bytes",
        file=out,
        sequence=event,
        segment=segment,
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
