"""The program `sealwire`: one file per verb, each of which parses, calls and prints.

A verb module has HELP, `options(parser)` and `run(args, say) -> Exit`; it ends early by raising
Failure.  Everything that goes wrong becomes one sentence here; a traceback is shown only when
--debug asks for one.  docs/cli.md is the manual.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Protocol

from sealwire.cli.explain import explain
from sealwire.cli.say import Exit, Failure, Say

__all__ = ["main"]


class Verb(Protocol):
    """What a verb's module has."""

    HELP: str

    def options(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, say: Say) -> Exit: ...


def load_verbs() -> dict[str, Verb]:
    """The verbs by name.  Imported only now, so that what cannot be loaded is said in a sentence."""
    from sealwire.cli import bench, cert, connect, demo, probe, serve

    return {"cert": cert, "serve": serve, "connect": connect, "demo": demo, "probe": probe, "bench": bench}


# Where a verb's stdout carries data, its words go to stderr.
_DATA_ON_STDOUT = {"serve", "connect"}


def parser(verbs: dict[str, Verb]) -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="sealwire",
        description="Secure transport: DTLS 1.3 over UDP and TLS-1.3-secured streams over TCP.",
        epilog="exit codes: 0 done, 1 the answer is no, 2 wrong command line, 3 something is missing here",
    )
    top.add_argument("--version", action="store_true", help="say which sealwire, OpenSSL and Python run")
    _common(top, default=False)
    parsers = top.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in verbs.items():
        sub = parsers.add_parser(name, help=verb.HELP, description=verb.HELP)
        # A verb's own --json must not undo one given before the verb.
        _common(sub, default=argparse.SUPPRESS)
        verb.options(sub)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code (see :class:`sealwire.cli.say.Exit`)."""
    try:
        verbs = load_verbs()
    except ImportError as error:
        say = Say(json="--json" in (sys.argv if arguments is None else arguments), text=sys.stderr)
        failure = Failure(Exit.ENVIRONMENT, f"sealwire cannot be loaded: {error}", "install it again")
        say.failure(failure)
        return failure.code
    top = parser(verbs)
    try:
        args = top.parse_args(arguments)
    except SystemExit as ended:  # argparse has said why: 2 for a wrong command line, 0 after --help
        return Exit.OK if ended.code == 0 else Exit.USAGE
    say = Say(json=args.json, text=sys.stderr if args.verb in _DATA_ON_STDOUT else sys.stdout)
    try:
        if args.version:
            from sealwire.cli import version

            return version.run(args, say)
        if args.verb is None:
            top.print_help()
            return Exit.USAGE
        return verbs[args.verb].run(args, say)
    except BrokenPipeError:
        # The reader of our output is gone; saying so would fail again when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.ENVIRONMENT
    except KeyboardInterrupt:
        return 130  # what a shell reports for a program ended by Ctrl-C
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        failure = error if isinstance(error, Failure) else explain(error)
        say.failure(failure)
        return failure.code


def _common(target: argparse.ArgumentParser, default: bool | str) -> None:
    target.add_argument("--json", action="store_true", default=default, help="one JSON object per line")
    target.add_argument("--debug", action="store_true", default=default, help="show tracebacks")
