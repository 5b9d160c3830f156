"""`sealwire limits`: each limit of a running server, how much of it is used, how often it was reached; with
--check, whether those that servers start with on this machine agree with it and with each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sealwire.cli import watching
from sealwire.cli.say import Exit, Failure, Say
from sealwire.drive.machine import read_machine
from sealwire.limits import Limits, Machine, check_limits, fit


def options(parser: argparse.ArgumentParser) -> None:
    watching.control_option(parser)
    parser.add_argument("--reached", action="store_true", help="only those that were reached")
    parser.add_argument(
        "--check",
        action="store_true",
        help="ask no server: see whether the limits that one starts with here agree with this machine",
    )
    parser.add_argument(
        "--set",
        action="append",
        type=_setting,
        metavar="NAME=VALUE",
        help="with --check: of limits with this value, a field of sealwire.Limits; as often as needed",
    )


def run(args: argparse.Namespace, say: Say) -> Exit:
    if args.check:
        return check(read_machine(), _limits(args.set or ()), say)
    if args.set:
        raise Failure(Exit.USAGE, "--set changes no running server", "say --check to look at such limits")
    status: Any = watching.ask(args, {"ask": "status"})
    for name, server in status["servers"].items():
        limits = [one for one in server["limits"] if one["reached"] or not args.reached]
        for one in limits:
            say.record("limit", server=name, **one)
        say.words(f"{name} ({server['transport']})")
        if not limits:
            say.words("  no limit was reached")
            continue
        rows = [["limit", "of each", "value", "used", "", "reached", "at it"], *map(_row, limits)]
        for line in watching.columns(rows, right=frozenset((2, 3, 4, 5))):
            say.words(f"  {line}")
    return Exit.OK


def _setting(text: str) -> tuple[str, float]:
    """``name=value``; for argparse."""
    name, _, value = text.partition("=")
    declared = {one.name for one in fields(Limits) if "unit" in one.metadata}
    if name not in declared:
        raise argparse.ArgumentTypeError(f"{name!r} is no limit; docs/limits.md has their names")
    try:
        return name, int(value)
    except ValueError:
        pass
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is no number") from None


def _limits(given: Sequence[tuple[str, float]]) -> Limits | None:
    """Limits with what was given; None if nothing was."""
    if not given:
        return None
    try:
        return Limits(**dict(given))  # type: ignore[arg-type]
    except ValueError as error:
        raise Failure(Exit.USAGE, f"--set: {error}", "see docs/limits.md") from error


def check(machine: Machine, chosen: Limits | None, say: Say) -> Exit:
    """Say what the machine has, what servers take of it, and what does not agree; `chosen` or what one starts
    with that is given none.
    """
    known = [
        f"memory {'unknown' if machine.memory_bytes is None else watching.size(machine.memory_bytes)}"
        f" ({machine.memory_source})",
        "any number of descriptors"
        if machine.descriptors is None
        else f"{machine.descriptors:,} descriptors (ulimit -n)",
    ]
    if machine.receive_buffer_bytes is not None:
        known.append(f"receive buffers up to {watching.size(machine.receive_buffer_bytes)}")
    say.fact("machine", ", ".join(known), **asdict(machine))
    limits = chosen or fit(Limits(), machine)
    for declared in fields(limits):
        value, default = getattr(limits, declared.name), getattr(Limits(), declared.name)
        if value != default:
            unit = declared.metadata["unit"]
            words = f"{declared.name} is {_shown(unit, value)}, by default {_shown(unit, default)}"
            say.fact("changed", words, name=declared.name, value=value, default=default)
    # Each TCP connection has a descriptor, so what holds for streams holds more.
    found = check_limits(limits, machine, streams=True)
    for one in found:
        say.fact("disagreement", str(one), **asdict(one))
    if not found:
        say.fact("agreed", "the limits agree with each other and with this machine")
    return Exit.NO if found else Exit.OK


def _row(limit: dict[str, Any]) -> list[str]:
    used = limit["used"]
    return [
        limit["name"],
        limit["scope"],
        _shown(limit["unit"], limit["value"]),
        "-" if used is None else _shown(limit["unit"], used),
        "" if used is None else f"{100 * used / limit['value']:.0f} %",
        str(limit["reached"]),
        limit["happens"],
    ]


def _shown(unit: str, value: float) -> str:
    return watching.size(value) if unit == "bytes" else f"{value:g}"
