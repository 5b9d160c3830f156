"""`sealwire attack`: attack a server of your own, on loopback or in a network namespace."""

from __future__ import annotations

import argparse

from sealwire.cli import options as common
from sealwire.cli.say import Exit, Failure, Say

_RING: int = 65_536


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("program", metavar="PROGRAM", help="which attack, or 'list'")
    parser.add_argument(
        "server",
        nargs="?",
        type=common.endpoint,
        metavar="ADDRESS:PORT",
        help="whom: an address of loopback, or of the namespace at the other end of a veth cable",
    )
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="for how long (default: 10)")
    parser.add_argument(
        "--rate",
        type=float,
        default=1000.0,
        metavar="N",
        help="datagrams a second; 0: no limit (default: 1000)",
    )
    parser.add_argument(
        "--sources",
        metavar="NETWORK",
        help="forge addresses of this network (default: 198.18.0.0/15, or loopback's)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="another seed, other bytes (default: 1)"
    )


def run(args: argparse.Namespace, say: Say) -> Exit:
    from sealwire.attack import Refused, Target
    from sealwire.attack.forged import Forger, packets
    from sealwire.attack.hellos import FLOODS

    if args.program == "list":
        for name, (_, words) in FLOODS.items():
            say.fact("program", f"{name:<10} {words}", name=name, what=words)
        return Exit.OK
    if args.program not in FLOODS:
        raise Failure(Exit.USAGE, f"there is no program {args.program!r}", "see: sealwire attack list")
    if args.server is None:
        raise Failure(Exit.USAGE, "nobody to attack", "add ADDRESS:PORT, such as 127.0.0.1:4433")
    try:
        target = Target(*args.server)
        sources = target.sources(args.sources)
    except Refused as error:
        raise Failure(Exit.USAGE, str(error), "") from error
    payload = FLOODS[args.program][0]()
    try:
        forger = Forger(target, list(packets(target, sources, payload, _RING, args.seed)))
    except PermissionError as error:
        raise Failure(Exit.ENVIRONMENT, "forging addresses is root's", "try again as root") from error
    sent = forger.flood(args.seconds, args.rate or None)
    forger.close()
    say.fact(
        "sent",
        f"{sent.datagrams} datagrams in {sent.seconds:.1f} s, {sent.datagrams / sent.seconds:.0f} a second,"
        f" {sent.payload_bytes} bytes of payload; {sent.refused} did not fit the queue",
        datagrams=sent.datagrams,
        seconds=round(sent.seconds, 3),
        payload_bytes=sent.payload_bytes,
        refused=sent.refused,
    )
    return Exit.OK
