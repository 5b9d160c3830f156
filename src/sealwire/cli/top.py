"""`sealwire top`: the peers that cost a running server most, live."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, Final

from sealwire.cli import options as common
from sealwire.cli import watching
from sealwire.cli.say import Exit, Say

# What peers are ranked by: the word of the option, the field, and how people say it.
_COSTS: Final = {
    "held": ("held_bytes", "memory held"),
    "received": ("bytes_received", "bytes received"),
    "sent": ("bytes_sent", "bytes sent"),
    "opened": ("records_opened", "records opened"),
    "sealed": ("records_sealed", "records sealed"),
    "discards": ("discards", "what was dropped of them"),
}
_CLEAR: Final = "\x1b[H\x1b[2J"
_HEAD: Final = [
    "peer",
    "server",
    "state",
    "age",
    "held",
    "received",
    "/s",
    "sent",
    "/s",
    "records",
    "dropped",
]
_MOST: Final = 1_000


def options(parser: argparse.ArgumentParser) -> None:
    watching.control_option(parser)
    parser.add_argument(
        "--by", choices=list(_COSTS), default="held", help="what makes a peer costly (default: held)"
    )
    parser.add_argument(
        "-n", "--number", type=_number, default=10, metavar="N", help="how many peers (default: 10)"
    )
    parser.add_argument(
        "--interval", type=common.seconds, default=2.0, metavar="SECONDS", help="between looks (default: 2)"
    )
    parser.add_argument("--once", action="store_true", help="look once, and end")


def _number(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= _MOST:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST}")


def run(args: argparse.Namespace, say: Say) -> Exit:
    field, words = _COSTS[args.by]
    live = not args.once and sys.stdout.isatty()
    before: dict[tuple[str, int], dict[str, Any]] = {}
    looked = 0.0
    while True:
        peers: Any = watching.ask(args, {"ask": "top", "n": args.number, "by": field})
        now = time.monotonic()
        for peer in peers:
            then = before.get((peer["server"], peer["number"]))
            for way in ("received", "sent"):
                moved = None if then is None else peer[f"bytes_{way}"] - then[f"bytes_{way}"]
                peer[f"{way}_per_second"] = None if moved is None else moved / max(now - looked, 1e-3)
            say.record("peer", **peer)
        before, looked = {(peer["server"], peer["number"]): peer for peer in peers}, now
        if live:
            say.words(f"{_CLEAR}the {args.number} peers that cost most, by {words}; Ctrl-C ends")
        for line in _table(peers):
            say.words(line)
        if args.once:
            return Exit.OK
        time.sleep(args.interval)


def _table(peers: list[dict[str, Any]]) -> list[str]:
    if not peers:
        return ["nobody is connected"]
    return watching.columns([_HEAD, *map(_row, peers)], right=frozenset(range(3, len(_HEAD))))


def _row(peer: dict[str, Any]) -> list[str]:
    return [
        peer["peer"],
        peer["server"],
        peer["state"],
        f"{peer['age_seconds']:.0f} s",
        watching.size(peer["held_bytes"]),
        watching.size(peer["bytes_received"]),
        _rate(peer["received_per_second"]),
        watching.size(peer["bytes_sent"]),
        _rate(peer["sent_per_second"]),
        str(peer["records_opened"] + peer["records_sealed"]),
        str(peer["discards"]),
    ]


def _rate(per_second: float | None) -> str:
    return "" if per_second is None else watching.size(per_second)
