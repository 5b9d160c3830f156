"""The program `sealwire`: one file per verb, each of which parses, calls and prints.

A verb module has `options(parser)` and `run(args, say) -> Exit`; it ends early by raising Failure.
Everything that goes wrong becomes one sentence here; a traceback is shown only when --debug asks for
one.  docs/cli.md is the manual.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn, Protocol

from sealwire.cli.configured import expanded
from sealwire.cli.explain import explain
from sealwire.cli.say import Exit, Failure, Say

__all__ = ["main"]


class Verb(Protocol):
    """What a verb's module has."""

    def options(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, say: Say) -> Exit: ...


#: The verbs, each a module here, with what the program's help says of them.
VERBS: Final = {
    "cert": "make a development CA, server and client certificate",
    "serve": "accept DTLS (or, with --stream, TLS) connections",
    "connect": "connect to a DTLS (or, with --stream, TLS) server: stdin goes there, stdout has its answers",
    "proxy": "secure a TCP service without touching it, or reach one that is secured",
    "status": "what a running server does, on one page",
    "limits": "each limit of a running server, how much of it is used, how often it was reached",
    "top": "the peers that cost a running server most, live",
    "demo": "see both transports move a real file on this machine",
    "probe": "flows with their features from a capture file or an interface",
    "enroll": "let a collector know a probe; also as `probe enroll`",
    "collect": "take what probes deliver, verify and keep it, and sign receipts",
    "keygen": "make a key that seals a probe's events",
    "verify": "check sealed events: nothing altered, left out, repeated or invented",
    "prove": "the proof of one sealed event",
    "config": "check a configuration; units for systemd, rules for Prometheus",
    "query": "ask in SQL what a collector stored",
    "store": "a collector's directory: import, compact, retain, show",
    "attack": "attack a server of your own, on loopback or in a network namespace",
    "doctor": "look at this machine: what is missing for speed, and what to set",
    "bench": "measure records, handshakes and memory beside others, and compare results",
}


def load_verb(name: str) -> Verb:
    """A verb's module.  Only the one that runs is imported: reading a capture needs no cryptography."""
    verb: Verb = importlib.import_module(f"sealwire.cli.{name}")
    return verb


# Where a verb's stdout carries data, its words go to stderr.
_DATA_ON_STDOUT = {"serve", "connect"}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as everything else does: one sentence and where to look, not the whole usage."""

    def error(self, message: str) -> NoReturn:
        step = f"`{self.prog} --help` lists what there is"
        raise Failure(Exit.USAGE, message.removeprefix("argument "), step)


class _VerbParser(_Parser):
    """A verb's own: what it does not know is an error of the verb."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unknown option or word: {' '.join(unknown)}")
        return found, unknown


def parser(loaded: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """The command line, with the options of the verbs that are `loaded`."""
    top = _Parser(
        prog="sealwire",
        description="Secure transport: DTLS 1.3 over UDP and TLS-1.3-secured streams over TCP.",
        epilog="exit codes: 0 done, 1 the answer is no, 2 wrong command line, 3 something is missing here",
    )
    top.add_argument("--version", action="store_true", help="say which sealwire, OpenSSL and Python run")
    _common(top, default=False)
    parsers = top.add_subparsers(dest="verb", metavar="VERB", parser_class=_VerbParser)
    for name, words in VERBS.items():
        sub = parsers.add_parser(name, help=words, description=words)
        # A verb's own --json must not undo one given before the verb.
        _common(sub, default=argparse.SUPPRESS)
        if name in loaded:
            loaded[name].options(sub)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code (see :class:`sealwire.cli.say.Exit`)."""
    given = _joined(list(sys.argv[1:] if arguments is None else arguments))
    # No option before the verb takes a value.
    wanted = next((word for word in given if not word.startswith("-")), None)
    try:
        verbs = {wanted: load_verb(wanted)} if wanted in VERBS else {}
    except ImportError as error:
        failure = _not_loaded(error)
        Say(json="--json" in given, text=sys.stderr).failure(failure)
        return failure.code
    top = parser(verbs)
    try:
        if wanted is not None and not verbs:
            raise _no_verb(wanted)
        args = top.parse_args(expanded(given))
    except Failure as wrong:  # the command line, or a configuration file
        Say(json="--json" in given, text=sys.stderr).failure(wrong)
        return wrong.code
    except SystemExit:  # after --help
        return Exit.OK
    say = Say(json=args.json, text=sys.stderr if args.verb in _DATA_ON_STDOUT else sys.stdout)
    try:
        if args.version:
            return load_verb("version").run(args, say)
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
        if isinstance(error, Failure):
            failure = error
        else:
            failure = _not_loaded(error) if isinstance(error, ImportError) else explain(error)
        say.failure(failure)
        return failure.code


def _joined(given: list[str]) -> list[str]:
    """`probe enroll` is the verb enroll."""
    at = next((at for at, word in enumerate(given) if not word.startswith("-")), 0)
    return [*given[:at], "enroll", *given[at + 2 :]] if given[at : at + 2] == ["probe", "enroll"] else given


def _no_verb(word: str) -> Failure:
    near = difflib.get_close_matches(word, VERBS, 1)
    step = f"is it {near[0]}?" if near else "`sealwire --help` lists them"
    return Failure(Exit.USAGE, f"there is no verb {word!r}", step)


def _not_loaded(error: ImportError) -> Failure:
    return Failure(Exit.ENVIRONMENT, f"sealwire cannot be loaded: {error}", "install it again")


def _common(target: argparse.ArgumentParser, default: bool | str) -> None:
    target.add_argument("--json", action="store_true", default=default, help="one JSON object per line")
    target.add_argument("--debug", action="store_true", default=default, help="show tracebacks")
