"""`sealwire probe --to`: sealed segments go on to a collector, by an exporter's process."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING

from sealwire.cli.options import endpoint, seconds
from sealwire.cli.say import Exit, Failure, Say
from sealwire.errors import ConfigurationError

if TYPE_CHECKING:
    from sealwire.probe.export import Export

_DRAIN_SECONDS = 30.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to",
        type=endpoint,
        metavar="HOST:PORT",
        help="deliver what is sealed to the collector there; it stays in the spool until there is a receipt",
    )
    identity_options(parser)
    parser.add_argument(
        "--collector",
        metavar="PUB",
        help="the key its receipts are signed with (default: the one it names first)",
    )
    parser.add_argument(
        "--drain",
        type=seconds,
        metavar="S",
        help="at the end wait so long for receipts; the rest is delivered by the next run (default: 30)",
    )


def identity_options(parser: argparse.ArgumentParser) -> None:
    """Who we are, and whom we trust."""
    parser.add_argument("--cafile", metavar="FILE", help="trust collectors of this CA (or $CA_CERT_PATH)")
    parser.add_argument(
        "--collector-rpks", metavar="FILE", help="trust collectors with one of these raw public keys instead"
    )
    parser.add_argument("--cert", metavar="FILE", help="our certificate (or $PROBE_CERT_PATH)")
    parser.add_argument(
        "--tls-key",
        metavar="FILE",
        help="its private key, or $PROBE_KEY_PATH (default: in the same file); alone: a raw public key",
    )
    parser.add_argument(
        "--server-name", metavar="NAME", help="the name in the collector's certificate (default: HOST)"
    )


def check(args: argparse.Namespace) -> None:
    """What does not go together.  Raises Failure."""
    if args.to is None:
        for name in ("cafile", "collector_rpks", "cert", "tls_key", "server_name", "collector", "drain"):
            if getattr(args, name) is not None:
                option = "--" + name.replace("_", "-")
                raise Failure(Exit.USAGE, f"{option} is given without --to", "name the collector with --to")
        return
    if args.sign is None:
        raise Failure(Exit.USAGE, "only sealed events are delivered", "seal them with --sign KEY")
    identity(args)


def identity(args: argparse.Namespace) -> None:
    """Fill in from the environment what the command line does not say.  Raises Failure."""
    args.cafile = args.cafile or os.environ.get("CA_CERT_PATH")
    args.cert = args.cert or os.environ.get("PROBE_CERT_PATH")
    args.tls_key = args.tls_key or os.environ.get("PROBE_KEY_PATH")
    if not args.cafile and not args.collector_rpks:
        raise Failure(Exit.USAGE, "no collector is trusted", "give --cafile or --collector-rpks")
    if not args.cert and not args.tls_key:
        raise Failure(Exit.USAGE, "the collector will ask who we are", "give --cert and --tls-key")


class Delivery:
    """An exporter, and how long to wait for it at the end."""

    def __init__(self, export: Export, drain: float) -> None:
        self._export, self._drain = export, drain
        self._drained = False

    def finish(self) -> None:
        """Wait for receipts of what is left."""
        self._drained = self._export.drain(self._drain)

    def acknowledged(self) -> int:
        """Events of which there are receipts."""
        return int(self._export.facts().get("events_acknowledged", 0))

    def report(self, say: Say) -> None:
        """What became of the segments, for the summary."""
        facts = self._export.facts()
        sent, acknowledged = facts.get("segments_sent", 0), facts.get("segments_acknowledged", 0)
        events, trouble = facts.get("events_acknowledged", 0), facts.get("trouble", "")
        rest = "" if self._drained else "; the rest is in the spool for the next run"
        rest += f" ({trouble})" if trouble and not self._drained else ""
        say.fact(
            "delivered",
            f"{'delivered':>14}  {acknowledged:,} segments, {events:,} events; {sent:,} segments sent{rest}",
            segments=acknowledged,
            events=events,
            sent=sent,
            complete=self._drained,
            trouble=trouble,
        )


def export(args: argparse.Namespace, stack: contextlib.ExitStack) -> Delivery | None:
    """Start the exporter, if one is asked for; `stack` ends it."""
    if args.to is None:
        return None
    from sealwire.probe.export import Export

    host, port = args.to
    try:
        started = Export(
            *(args.write, host, port),
            cafile=args.cafile,
            server_keys=read(args.collector_rpks),
            cert=args.cert,
            tls_key=args.tls_key,
            server_hostname=args.server_name,
            collector=args.collector,
        )
    except ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "") from error
    stack.callback(started.close)
    return Delivery(started, _DRAIN_SECONDS if args.drain is None else args.drain)


def read(name: str | None) -> str | None:
    """A file of raw public keys.  Raises Failure."""
    if name is None:
        return None
    try:
        with open(name, encoding="ascii") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(
            Exit.ENVIRONMENT, f"{name} cannot be read ({error})", "check --collector-rpks"
        ) from error
