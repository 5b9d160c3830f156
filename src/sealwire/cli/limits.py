"""`sealwire limits`: each limit of a running server, how much of it is used, how often it was reached."""

from __future__ import annotations

import argparse
from typing import Any

from sealwire.cli import watching
from sealwire.cli.say import Exit, Say


def options(parser: argparse.ArgumentParser) -> None:
    watching.control_option(parser)
    parser.add_argument("--reached", action="store_true", help="only those that were reached")


def run(args: argparse.Namespace, say: Say) -> Exit:
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
