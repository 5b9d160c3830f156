"""`sealwire collect`: take what probes deliver, verify it, make it durable, and sign receipts."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import sealwire
from sealwire.cli import options as common
from sealwire.cli.say import Exit, Failure, Say
from sealwire.errors import ConfigurationError

_MIB = 1 << 20
_DAY = 24 * 3600 * 1_000_000_000
_DRAIN_SECONDS = 10.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help="TOML with a table [collector] of these options")
    parser.add_argument(
        "--listen",
        type=common.endpoint,
        default=("::", 5555),
        metavar="HOST:PORT",
        help="where to listen; port 0 takes a free one (default: [::]:5555)",
    )
    parser.add_argument("--cert", metavar="FILE", required=True, help="certificate chain, PEM, ours first")
    parser.add_argument("--key", metavar="FILE", help="its private key (default: in the same file)")
    parser.add_argument("--client-ca", metavar="FILE", help="probes have certificates of these CAs")
    parser.add_argument(
        "--sign", metavar="KEY", required=True, help="sign receipts with this key, from `sealwire keygen`"
    )
    parser.add_argument(
        "--enrolled",
        type=Path,
        metavar="DIR",
        required=True,
        help="the probes that may deliver, from `sealwire probe enroll`; read again every second",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="where events are kept")
    parser.add_argument(
        "--keep-days", type=float, metavar="N", help="remove what came more than N days ago, and sign for it"
    )
    parser.add_argument(
        "--keep-most", type=int, metavar="MB", help="remove the oldest of what is more than so many MiB"
    )
    parser.add_argument(
        "--no-compaction", action="store_true", help="make no rows; sealwire store compact does it by hand"
    )
    parser.add_argument(
        "--probes", type=int, metavar="N", default=1_000, help="probes connected at once (default: 1,000)"
    )
    parser.add_argument(
        "--memory",
        type=int,
        metavar="MB",
        default=1024,
        help="most that all probes may have on their way (default: 1024)",
    )
    parser.add_argument(
        "--drain",
        type=common.seconds,
        metavar="S",
        default=_DRAIN_SECONDS,
        help="at the end wait so long for the disk (default: 10)",
    )


def run(args: argparse.Namespace, say: Say) -> Exit:
    return asyncio.run(_serve(args, say))


def _context(args: argparse.Namespace) -> sealwire.Context:
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    common.configure(Exit.ENVIRONMENT, "--cert", lambda: context.load_cert_chain(args.cert, args.key))
    if args.client_ca is not None:
        common.configure(
            *(Exit.ENVIRONMENT, "--client-ca", lambda: context.load_verify_locations(cafile=args.client_ca))
        )
    context.verify_mode = sealwire.CERT_REQUIRED
    return context


async def _serve(args: argparse.Namespace, say: Say) -> Exit:
    for name in ("keep_days", "keep_most"):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            raise Failure(Exit.USAGE, f"--{name.replace('_', '-')} is more than 0", "")
    from sealwire.probe.collect import FACTS, Collector
    from sealwire.probe.enrolled import Enrolled
    from sealwire.probe.receiving import CollectLimits
    from sealwire.probe.seal.keys import load_signing_key
    from sealwire.probe.store import Store

    context = _context(args)
    limits = CollectLimits(probes=args.probes, total_bytes=args.memory * _MIB)
    try:
        key = load_signing_key(args.sign)
        enrolled = Enrolled(args.enrolled)
        if args.client_ca is None and not enrolled.raw_keys():
            raise Failure(
                Exit.USAGE, "no probe can connect", "give --client-ca, or enroll probes with raw public keys"
            )
        store = Store(args.out, enrolled.key_of)
    except ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), "") from error
    except OSError as error:
        where = error.filename or args.out
        raise Failure(Exit.ENVIRONMENT, f"{where}: {error.strerror or error}", "check the name") from error
    try:
        collector = Collector(store, enrolled, key, context, limits=limits, facts=args.out / FACTS)
        host, port = args.listen
        try:
            server = await collector.start(host, port)
        except OSError as error:
            raise Failure(
                Exit.ENVIRONMENT,
                f"cannot listen on {common.written(host, port)}, {(error.strerror or str(error)).lower()}",
                "choose another --listen",
            ) from error
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: _again(args, context, collector.refresh, say))
        bound = server.sockets[0].getsockname()
        say.fact(
            "collecting",
            f"collecting on {common.written(bound[0], bound[1])} from {len(enrolled)} enrolled probes; "
            f"receipts are signed with key {key.id.hex()}",
            host=bound[0],
            port=bound[1],
            key=key.id.hex(),
            probes=len(enrolled),
        )
        housekeeping = asyncio.create_task(_keep_house(args))
        await stop.wait()
        housekeeping.cancel()
        await collector.stop(args.drain)
        counters = collector.counters
        say.fact(
            "collected",
            f"{counters.segments:,} segments, {counters.events:,} events stored, "
            f"{counters.duplicates:,} segments came again, {sum(counters.rejected.values()):,} rejected",
            **{name: value for name, value in counters.snapshot().items() if name != "stored_seconds"},
        )
    finally:
        store.close()
    return Exit.OK


async def _keep_house(args: argparse.Namespace) -> None:
    """Compaction and retention, each in a process of its own, for as long as this runs."""
    from sealwire.probe.store.housekeeping import Housekeeping

    if args.no_compaction:
        return
    age = None if args.keep_days is None else int(args.keep_days * _DAY)
    most = None if args.keep_most is None else args.keep_most * _MIB
    house = Housekeeping(args.out, age=age, most_bytes=most, sign=args.sign)
    loop = asyncio.get_running_loop()
    trouble = ""
    try:
        while True:
            house.poll(loop.time())
            if house.state.trouble != trouble:
                trouble = house.state.trouble
                sys.stderr.write(f"sealwire: compaction: {trouble}\n")
            await asyncio.sleep(1.0)
    finally:
        house.close()


def _again(args: argparse.Namespace, context: sealwire.Context, refresh: object, say: Say) -> None:
    """SIGHUP: certificates and the list of probes are read again; a bad one leaves the old one."""
    try:
        context.load_cert_chain(args.cert, args.key)
    except (ConfigurationError, OSError) as error:
        say.words(f"the certificate stays as it was: {error}")
    assert callable(refresh)
    refresh()
