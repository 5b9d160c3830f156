"""`sealwire connect`: stdin to a peer, what the peer sends to stdout; a DTLS `openssl s_client`."""

from __future__ import annotations

import argparse
import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

import sealwire
from sealwire.cli import identity
from sealwire.cli import options as common
from sealwire.cli.explain import explain
from sealwire.cli.say import Exit, Say

if TYPE_CHECKING:
    from sealwire.drive.aio import DatagramChannel, StreamReader, StreamWriter

_READ_BYTES = 64 * 1024


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("peer", type=common.peer, metavar="HOST:PORT", help="where to connect")
    parser.add_argument(
        "--cafile",
        metavar="FILE",
        help="trust the CAs in this file (default: the system's; with --psk or --expected-rpks none)",
    )
    parser.add_argument("--servername", metavar="NAME", help="name to expect of the server (default: HOST)")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate; for tests")
    parser.add_argument("--cert", metavar="FILE", help="client certificate chain, PEM")
    parser.add_argument("--key", metavar="FILE", help="its private key (default: in the same file)")
    parser.add_argument(
        "--timeout",
        type=common.seconds,
        default=10.0,
        metavar="SECONDS",
        help="for the handshake (default: 10)",
    )
    parser.add_argument(
        "--wait",
        type=common.seconds,
        default=1.0,
        metavar="SECONDS",
        help="after the end of stdin, stay until nothing came for so long (default: 1)",
    )
    identity.client_options(parser)
    common.psk_options(parser)
    common.session_options(parser)
    parser.add_argument(
        "--cid",
        type=common.own_cid_bytes,
        default=0,
        metavar="N",
        help="want a random connection id of N bytes in what the server sends (DTLS; default: 0)",
    )
    common.transport_options(parser)


def run(args: argparse.Namespace, say: Say) -> Exit:
    context = context_of(args)
    where = common.written(*args.peer)
    context.session_store = store = common.session_store(args)
    try:
        try:
            asyncio.run((_stream if args.stream else _datagrams)(args, context, say))
        finally:
            if store is not None:
                common.save_sessions(args, store)
    except BrokenPipeError:
        raise  # whoever read our stdout is gone
    except OSError as error:
        raise explain(error, where) from error
    return Exit.OK


def context_of(args: argparse.Namespace) -> sealwire.Context:
    """A client's context as the options have it.  Raises Failure."""
    identity.own_key(args, "enable-client-rpk", args.enable_client_rpk)
    context = sealwire.Context(sealwire.PROTOCOL_CLIENT)
    key = common.psk(args)
    if key is not None:
        context.set_psk_client_callback(lambda hint: key)
    if args.insecure:
        context.check_hostname = False
        context.verify_mode = sealwire.CERT_NONE
    elif args.cafile is None:
        # Who gives a key means its holder, and not whoever has a certificate for that name.
        if key is None and args.expected_rpks is None:
            context.load_default_certs()
    else:
        common.configure(
            Exit.ENVIRONMENT, "--cafile", lambda: context.load_verify_locations(cafile=args.cafile)
        )
    identity.apply_client(context, args)
    common.apply_transport_options(context, args)
    return context


async def _datagrams(args: argparse.Namespace, context: sealwire.Context, say: Say) -> None:
    host, port = args.peer
    opening = sealwire.open_datagram_channel(
        host or "localhost",
        port,
        context=context,
        server_hostname=args.servername,
        timeout=args.timeout,
        connection_id=os.urandom(args.cid),
        upkeep=common.upkeep(args),
    )
    early = common.early_data(args)
    if early:
        opening.send_replayable(early)
    async with opening as channel:
        _connected(channel, say)

        async def send() -> None:
            async for data in stdin():
                # Once the connection is over the longest message has 0 bytes, and send says why.
                size = channel.max_message_bytes or len(data)
                for start in range(0, len(data), size):
                    await channel.send(data[start : start + size])

        await exchange(send(), _receive(channel), say, args.wait)


async def _receive(channel: DatagramChannel) -> AsyncIterator[bytes]:
    async for data in channel:
        yield data


async def _stream(args: argparse.Namespace, context: sealwire.Context, say: Say) -> None:
    host, port = args.peer
    reader, writer = await sealwire.open_connection(
        host or "localhost",
        port,
        context=context,
        server_hostname=args.servername,
        timeout=args.timeout,
        send_replayable=common.early_data(args),
    )
    try:
        _connected(writer, say)

        async def send() -> None:
            async for data in stdin():
                writer.write(data)
                await writer.drain()
            writer.write_eof()  # the peer may still answer

        await exchange(send(), _read(reader), say, args.wait)
    finally:
        writer.close()
        await writer.wait_closed()


async def _read(reader: StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(_READ_BYTES):
        yield data


def _connected(connected: DatagramChannel | StreamWriter, say: Say) -> None:
    facts = common.facts(connected)
    say.fact("connected", common.in_words(facts), **facts)


async def exchange(
    sending: Coroutine[Any, Any, None], received: AsyncIterator[bytes], say: Say, quiet_seconds: float
) -> None:
    """Send and receive at once, until the peer ends or, after our end, says nothing for a while."""
    loop = asyncio.get_running_loop()
    heard = loop.time()

    async def listen() -> None:
        nonlocal heard
        async for data in received:
            heard = loop.time()
            say.data(data)

    sender, listener = asyncio.create_task(sending), asyncio.create_task(listen())
    try:
        await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            sender.result()
            heard = max(heard, loop.time())
        while sender.done() and not listener.done() and (left := heard + quiet_seconds - loop.time()) > 0:
            await asyncio.wait({listener}, timeout=left)
        if listener.done():
            listener.result()
    finally:
        for task in (sender, listener):
            task.cancel()
        await asyncio.gather(sender, listener, return_exceptions=True)


async def stdin() -> AsyncIterator[bytes]:
    """What comes on standard input, in the pieces it comes in.

    Read in a thread, because a file, a pipe and a terminal differ in everything but that; it is a
    daemon, so that a terminal nobody types on holds nobody up.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(8)

    def read() -> None:
        while True:
            try:
                data = os.read(0, _READ_BYTES)
            except OSError:
                data = b""  # closed: nothing will come
            try:
                asyncio.run_coroutine_threadsafe(pieces.put(data), loop).result()
            except RuntimeError:
                return  # the loop is gone
            if not data:
                return

    threading.Thread(target=read, daemon=True).start()
    while data := await pieces.get():
        yield data
