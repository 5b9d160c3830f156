"""`sealwire serve`: accept DTLS or TLS connections, print what comes or send it back."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

import sealwire
from sealwire.cli import identity, watching, workers
from sealwire.cli import options as common
from sealwire.cli.explain import explain
from sealwire.cli.say import Exit, Failure, Say
from sealwire.drive.aio import StreamServer
from sealwire.drive.estate import Estate

if TYPE_CHECKING:
    from sealwire.drive import Seat
    from sealwire.drive.aio import DatagramChannel, DatagramServer, StreamReader, StreamWriter
    from sealwire.drive.facts import Facts
    from sealwire.drive.succession import Succession

_READ_BYTES = 64 * 1024
# Handshakes and handshake messages under way may end by then, before connections are left to the next.
_SETTLE_SECONDS = 2.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        type=common.endpoint,
        default=("::", 4433),
        metavar="HOST:PORT",
        help="where to listen; port 0 takes a free one (default: [::]:4433)",
    )
    parser.add_argument(
        "--cert", metavar="FILE", help="certificate chain, PEM, ours first; or --psk, or both"
    )
    parser.add_argument("--key", metavar="FILE", help="its private key (default: in the same file)")
    parser.add_argument("--client-ca", metavar="FILE", help="demand client certificates of these CAs")
    parser.add_argument("--echo", action="store_true", help="send back what comes instead of printing it")
    parser.add_argument(
        "--workers",
        type=common.worker_count,
        default=1,
        metavar="N",
        help="serve the port with N processes (DTLS, Linux); SIGHUP restarts them one by one (default: 1)",
    )
    parser.add_argument(
        "--hand-over",
        nargs="?",
        const="",
        metavar="DIR",
        help="connections outlive the process (DTLS): with --workers, one that is restarted leaves them to "
        "the next; with DIR, the whole program to the next that is given DIR and the port",
    )
    identity.server_options(parser)
    common.psk_options(parser)
    common.ticket_options(parser)
    parser.add_argument(
        "--cid",
        type=common.cid_bytes,
        default=8,
        metavar="N",
        help="bytes of the connection ids that clients get (DTLS), 0 for none, off not to speak of them "
        "(default: 8)",
    )
    common.transport_options(parser)
    watching.options(parser)


def run(args: argparse.Namespace, say: Say) -> Exit:
    context = context_of(args)
    if args.hand_over is not None and args.stream:
        raise Failure(
            Exit.USAGE, "--hand-over is for datagrams: a TCP connection ends with its process", "leave it out"
        )
    if args.workers == 1:
        if args.hand_over == "":
            raise Failure(
                Exit.USAGE,
                "--hand-over without --workers leaves connections to the next program, and needs a directory",
                "say --hand-over DIR, such as /run/sealwire",
            )
        return asyncio.run(_serve(args, context, say))
    if args.stream:
        raise Failure(Exit.USAGE, "--workers share a UDP port", "leave out --workers, or --stream")
    if args.hand_over == "":
        args.hand_over = True
    return workers.run(args, say, _work)


def _work(seat: Seat, args: argparse.Namespace) -> None:
    """What a worker does."""
    say = Say(json=args.json, text=sys.stderr)
    watching.for_worker(args, seat.index)
    try:
        code = asyncio.run(_serve(args, context_of(args), say, seat))
    except Failure as failure:
        say.failure(failure)
        code = failure.code
    sys.exit(code)


def context_of(args: argparse.Namespace) -> sealwire.Context:
    """A server's context as the options have it.  Raises Failure."""
    context = sealwire.Context(sealwire.PROTOCOL_SERVER)
    key = common.psk(args)
    identity.own_key(args, "enable-server-rpk", args.enable_server_rpk)
    identity.apply_server(context, args)
    if args.cert is None and key is None and not args.enable_server_rpk:
        raise Failure(
            Exit.USAGE, "a server needs --cert or --psk", "`sealwire cert` makes certificates for tests"
        )
    if key is not None:
        known = {key.identity.decode("utf-8", "surrogateescape"): key}
        context.set_psk_server_callback(known.get)
    if args.client_ca is not None:
        common.configure(
            Exit.ENVIRONMENT,
            "--client-ca",
            lambda: context.load_verify_locations(cafile=args.client_ca),
        )
        context.verify_mode = sealwire.CERT_REQUIRED
    common.apply_ticket_options(context, args)
    common.apply_transport_options(context, args)
    return context


async def _serve(
    args: argparse.Namespace, context: sealwire.Context, say: Say, seat: Seat | None = None
) -> Exit:
    if seat is not None:
        visitors = Visitors(echo=args.echo, say=say)
        worker = await sealwire.start_datagram_server(
            visitors.datagrams, context=context, cid_bytes=args.cid, upkeep=common.upkeep(args), seat=seat
        )
        async with worker, watching.watched(args, worker, say):
            await seat.serve(worker)
        return Exit.OK
    with contextlib.ExitStack() as stack:
        succession = stack.enter_context(estate_of(args)).succession(0) if args.hand_over else None
        return await _serve_alone(args, context, say, succession)


def estate_of(args: argparse.Namespace) -> Estate:
    """The directory of --hand-over.  Raises Failure."""
    try:
        return Estate(args.hand_over, args.workers)
    except sealwire.Error as error:
        raise Failure(Exit.ENVIRONMENT, f"--hand-over: {error}", "") from error


async def _serve_alone(
    args: argparse.Namespace, context: sealwire.Context, say: Say, succession: Succession | None
) -> Exit:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    host, port = args.listen
    visitors = Visitors(echo=args.echo, say=say)
    try:
        server: StreamServer | DatagramServer
        if args.stream:
            server = await sealwire.start_server(visitors.stream, host, port, context=context)
        else:
            server = await sealwire.start_datagram_server(
                visitors.datagrams,
                host,
                port,
                context=context,
                cid_bytes=args.cid,
                upkeep=common.upkeep(args),
            )
    except OSError as error:
        raise Failure(
            Exit.ENVIRONMENT,
            f"cannot listen on {common.written(host, port)}, {(error.strerror or str(error)).lower()}",
            "choose another address or port with --listen, or stop the program that has it",
        ) from error
    async with server:
        bound = [sock.getsockname() for sock in server.sockets]
        where = ", ".join(common.written(*address[:2]) for address in bound)
        what = "TLS 1.3 over TCP" if args.stream else "DTLS 1.3 over UDP"
        say.fact(
            "listening",
            f"listening on {where} for {what}; Ctrl-C ends",
            addresses=[address[0] for address in bound],
            port=bound[0][1],
            transport=what,
        )
        identity.tell_of_expiry(context, say)
        if succession is not None and not isinstance(server, StreamServer):
            server.inherit(succession)
            _tell_of(server, "taken", "took over {} of the program before", say)
        async with watching.watched(args, server, say):
            await stop.wait()
        if succession is not None and not isinstance(server, StreamServer):
            await server.leave(succession, _SETTLE_SECONDS)
            _tell_of(server, "left", "left {} to the next program", say)
    counters = server.counters.snapshot() if isinstance(server, StreamServer) else server.statistics()
    failed = counters["handshakes_failed"]
    say.fact(
        "stopped",
        f"stopped after {_count(visitors.count, 'connection')}; {_count(failed, 'handshake')} failed",
        connections=visitors.count,
        handshakes_failed=failed,
    )
    return Exit.OK


def _tell_of(server: DatagramServer, what: str, words: str, say: Say) -> None:
    counters = server.statistics()
    count, refused = counters[f"associations_{what}"], counters["associations_refused"]
    sentence = words.format(_count(count, "connection"))
    if what == "taken" and refused:
        sentence += f"; {refused} could not be"
    if count or refused:
        say.fact(what, sentence, connections=count, refused=refused)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


class Visitors:
    """What happens to each connection; one that fails is reported and harms no other."""

    def __init__(self, echo: bool, say: Say) -> None:
        self._echo = echo
        self._say = say
        self.count = 0

    async def datagrams(self, channel: DatagramChannel) -> None:
        where = self._arrived(channel, channel.peername)
        try:
            for data in channel.early_messages():
                await self._message(channel, data, where)
            async for data in channel:
                await self._message(channel, data, where)
        except OSError as error:
            self._failed(where, error)
        else:
            self._say.fact("disconnected", f"{where} left", peer=where)

    async def _message(self, channel: DatagramChannel, data: bytes, where: str) -> None:
        if not self._echo:
            self._say.data(data, peer=where)
        elif len(data) <= channel.max_message_bytes:
            await channel.send(data)
        else:  # the peer's path carries larger datagrams than we send
            longest = channel.max_message_bytes
            words = f"{where}: a datagram of {len(data)} bytes cannot be sent back, {longest} is the most"
            self._say.fact("too long", words, peer=where, bytes=len(data), longest=longest)

    async def stream(self, reader: StreamReader, writer: StreamWriter) -> None:
        where = self._arrived(writer, writer.get_extra_info("peername"))
        try:
            data = reader.read_early()
            while data or (data := await reader.read(_READ_BYTES)):
                if self._echo:
                    writer.write(data)
                    await writer.drain()
                else:
                    self._say.data(data, peer=where)
                data = b""
            writer.close()
            await writer.wait_closed()
        except OSError as error:
            self._failed(where, error)
        else:
            self._say.fact("disconnected", f"{where} left", peer=where)

    def _arrived(self, connected: Facts, address: tuple[Any, ...]) -> str:
        self.count += 1
        where = common.written(*address[:2])
        facts = common.facts(connected)
        self._say.fact("connected", f"{where}: {common.in_words(facts)}", peer_address=where, **facts)
        return where

    def _failed(self, where: str, error: OSError) -> None:
        failure = explain(error, where)
        self._say.fact("error", str(failure), peer=where, message=failure.wrong, **failure.facts)
