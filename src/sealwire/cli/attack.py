"""`sealwire attack`: attack a server of your own, on loopback or in a network namespace."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from sealwire.cli import options as common
from sealwire.cli.say import Exit, Failure, Say

if TYPE_CHECKING:
    from sealwire.attack import Target

_RING: Final = 65_536
# What the detectors are held to.
_DETECTION: Final = 0.99
_FALSE_ALARMS: Final = 0.01


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("program", metavar="PROGRAM", help="which attack, 'list', or 'trial'")
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
        metavar="N",
        help="forged datagrams a second, 0: no limit (default: 1000); or misdeeds a second of each peer",
    )
    parser.add_argument(
        "--sources",
        metavar="NETWORK",
        help="forge addresses of this network (default: 198.18.0.0/15, or loopback's)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="another seed, other bytes (default: 1)"
    )
    parser.add_argument(
        "--peers",
        type=int,
        default=10,
        metavar="N",
        help="attackers with addresses of their own (default: 10)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="trial: so many episodes of each kind (default: 1)"
    )


def run(args: argparse.Namespace, say: Say) -> Exit:
    from sealwire.attack import Refused, Target
    from sealwire.attack.hellos import FLOODS
    from sealwire.attack.puppet import HABITS

    programs = {
        **{name: words for name, (_, words) in FLOODS.items()},
        **{n: w for n, (_, w) in HABITS.items()},
    }
    programs["early-data"] = "the early data of one connection, sent again from other ports"
    if args.program == "list":
        for name, words in programs.items():
            root = " (root: forged addresses)" if name in FLOODS else ""
            say.fact("program", f"{name:<12} {words}{root}", name=name, what=words, forged=name in FLOODS)
        return Exit.OK
    if args.program == "trial":
        return _trial(args, say)
    if args.program not in programs:
        raise Failure(Exit.USAGE, f"there is no program {args.program!r}", "see: sealwire attack list")
    if args.server is None:
        raise Failure(Exit.USAGE, "nobody to attack", "add ADDRESS:PORT, such as 127.0.0.1:4433")
    if args.seconds <= 0 or (args.rate is not None and args.rate < 0) or args.peers < 1:
        raise Failure(Exit.USAGE, "--seconds, --rate and --peers are positive", "change them")
    try:
        target = Target(*args.server)
        if args.program in FLOODS:
            return _flood(args, say, target)
        if args.sources is not None:
            raise Failure(
                Exit.USAGE, f"{args.program} needs answers, so it forges no address", "omit --sources"
            )
    except Refused as error:
        raise Failure(Exit.USAGE, str(error), "") from error
    return _puppets(args, say, target)


def _flood(args: argparse.Namespace, say: Say, target: Target) -> Exit:
    from sealwire.attack.forged import Forger, packets
    from sealwire.attack.hellos import FLOODS

    payload = FLOODS[args.program][0]()
    ring = list(packets(target, target.sources(args.sources), payload, _RING, args.seed))
    try:
        forger = Forger(target, ring)
    except PermissionError as error:
        raise Failure(Exit.ENVIRONMENT, "forging addresses is root's", "try again as root") from error
    sent = forger.flood(args.seconds, 1000.0 if args.rate is None else args.rate or None)
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


def _puppets(args: argparse.Namespace, say: Say, target: Target) -> Exit:
    from sealwire.attack.live import assault, replay_early_data
    from sealwire.attack.puppet import HABITS
    from sealwire.errors import Error

    try:
        if args.program == "early-data":
            done = replay_early_data(target, args.seconds, args.rate or 10.0)
        else:
            done = assault(target, HABITS[args.program][0], args.peers, args.seconds, args.rate)
    except Error as error:
        raise Failure(Exit.NO, str(error), "see docs/early-data.md for servers that do") from error
    say.fact(
        "attacked",
        f"{done.connections} connections, {done.misdeeds} misdeeds; {done.sent} datagrams sent,"
        f" {done.received} received" + "".join(f"; {n} times: {how}" for how, n in done.ends.items()),
        connections=done.connections,
        misdeeds=done.misdeeds,
        sent=done.sent,
        received=done.received,
        ends=done.ends,
    )
    return Exit.OK


def _trial(args: argparse.Namespace, say: Say) -> Exit:
    """The detectors' own trial; nothing is sent."""
    from sealwire.attack.episodes import Confusion, plan, play
    from sealwire.attack.town import Kit

    confusion, kit = Confusion(), Kit.make()
    for kind, seed in plan(range(args.seed, args.seed + args.seeds)):
        outcome = play(kind, seed, kit)
        confusion.add(outcome)
        if not outcome.right or not outcome.calm:
            what = "still under load" if outcome.right else "wrong"
            said = ", ".join(f"{one.value} ({rule})" for one, (rule, _) in outcome.said.items()) or "nothing"
            say.fact("miss", f"{what}: {kind}, seed {seed}: said {said}", kind=kind, seed=seed, said=said)
    say.words(confusion.markdown())
    say.fact(
        "trial",
        f"{100 * confusion.detection:.1f} % of the attacks told, {100 * confusion.false_alarms:.1f} % of the"
        " honest episodes taken for one",
        detection=confusion.detection,
        false_alarms=confusion.false_alarms,
    )
    return (
        Exit.OK if confusion.detection >= _DETECTION and confusion.false_alarms < _FALSE_ALARMS else Exit.NO
    )
