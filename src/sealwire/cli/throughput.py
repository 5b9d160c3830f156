"""`sealwire bench dtls`: iperf3's words for messages over DTLS."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import sealwire
from sealwire.bench import throughput
from sealwire.bench.throughput import Order, Outcome, Stream
from sealwire.cli import authority
from sealwire.cli.say import Exit, Failure, Say
from sealwire.drive import DatagramChannel

#: Where both kinds of bench serve.
PORT: Final = 5201
_LENGTH: Final = 1200
_MTU: Final = 1472
_UNITS: Final = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
_SHORT: Final = ("s", "c", "p", "t", "l", "P", "b", "R", "bidir", "J", "i", "one")


def options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("dtls", "in the words of iperf3; -s, -c and -p are for stcp, too")
    group.add_argument("-s", dest="s", action="store_true", help="serve")
    group.add_argument("-1", dest="one", action="store_true", help="serve one client, then end")
    group.add_argument("-c", dest="c", metavar="HOST", help="measure with the server there")
    group.add_argument("-p", dest="p", type=int, metavar="PORT", help=f"the port (default: {PORT})")
    group.add_argument("-t", dest="t", type=float, metavar="S", help="seconds to send (default: 10)")
    group.add_argument("-l", dest="l", type=int, metavar="N", help=f"bytes of a message (default: {_LENGTH})")
    group.add_argument("-P", dest="P", type=int, metavar="N", help="streams at once (default: 1)")
    group.add_argument(
        "-b",
        dest="b",
        type=_rate,
        metavar="RATE",
        help="bits a second of each stream: 500K, 20M, 1G (default: all)",
    )
    group.add_argument("-R", dest="R", action="store_true", help="the server sends")
    group.add_argument("--bidir", dest="bidir", action="store_true", help="both send")
    group.add_argument("-i", dest="i", type=float, metavar="S", help="seconds between reports (default: 1)")
    group.add_argument("-J", dest="J", action="store_true", help="one JSON document at the end")


def _rate(text: str) -> float:
    try:
        number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
        rate = float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        rate = -1.0
    if not 0 <= rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate, such as 500K, 20M or 1G")
    return rate


def given(args: argparse.Namespace, but: tuple[str, ...] = ()) -> bool:
    """Whether options of this measurement were given, which nothing else knows, but for `but`."""
    return any(getattr(args, name) not in (None, False) for name in _SHORT if name not in but)


def run(args: argparse.Namespace, say: Say) -> Exit:
    if args.s == bool(args.c):
        raise Failure(
            Exit.USAGE, "bench dtls needs -s or -c HOST", "-s on one machine, -c its name on the other"
        )
    port = PORT if args.p is None else args.p
    if args.s:
        return asyncio.run(_serve(port, args.one, say))
    return asyncio.run(_measure(args, port, say))


async def _serve(port: int, once: bool, say: Say) -> Exit:
    over = asyncio.Event()

    async def attend(channel: DatagramChannel) -> None:
        say.fact("accepted", f"accepted {channel.peername[0]}", peer=list(channel.peername[:2]))
        await throughput.attend(channel)
        if once and server.connections <= 1:
            over.set()

    with tempfile.TemporaryDirectory(prefix="sealwire-bench-") as temporary:
        made = authority.make(authority.LOCAL_NAMES, authority.LOCAL_ADDRESSES, days=1, key_type="ec")
        authority.write(Path(temporary), made)
        context = throughput.server_context(f"{temporary}/server.pem", f"{temporary}/server.key")
        async with await sealwire.start_datagram_server(
            attend, None, port, context=context, mtu=_MTU
        ) as server:
            port = server.sockets[0].getsockname()[1]
            say.fact("listening", f"listening on port {port}", port=port)
            await over.wait()
    return Exit.OK


def _order(args: argparse.Namespace) -> Order:
    order = Order(
        10.0 if args.t is None else args.t,
        _LENGTH if args.l is None else args.l,
        (args.b or 0.0) / 8,
        up=args.bidir or not args.R,
        down=args.bidir or args.R,
    )
    if not 0 < order.seconds <= throughput.MOST_SECONDS:
        raise Failure(
            Exit.USAGE, f"-t {args.t:g} is not between 0 and {throughput.MOST_SECONDS:g} seconds", ""
        )
    if not 1 <= order.length <= _MTU - 22:
        raise Failure(
            Exit.USAGE, f"messages of {order.length} bytes do not travel whole", f"-l 1 to {_MTU - 22}"
        )
    if args.P is not None and not 1 <= args.P <= 1_000:
        raise Failure(Exit.USAGE, f"-P {args.P} is not between 1 and 1,000", "")
    return order


async def _measure(args: argparse.Namespace, port: int, say: Say) -> Exit:
    order = _order(args)
    context = throughput.client_context()
    streams = args.P or 1
    last = [(0, 0)] * streams
    last_at = 0.0
    intervals: list[dict[str, Any]] = []

    def tell(at: float, ends: list[Stream]) -> None:
        nonlocal last_at
        seconds = max(at - last_at, 1e-9)
        for n, end in enumerate(ends):
            now = (end.count.sent_bytes, end.count.received_bytes)
            moved = [(after - before) * 8 / seconds for after, before in zip(now, last[n], strict=True)]
            last[n] = now
            intervals.append(
                {
                    "stream": n,
                    "start": last_at,
                    "end": at,
                    "sent_bits_per_second": moved[0],
                    "received_bits_per_second": moved[1],
                }
            )
            if not args.J:
                words = ", ".join(
                    f"{verb} {bits / 1e6:,.1f} Mbit/s"
                    for verb, bits, wanted in (
                        ("sent", moved[0], order.up),
                        ("received", moved[1], order.down),
                    )
                    if wanted
                )
                say.fact("interval", f"[{n:3}] {last_at:6.2f}-{at:.2f} s  {words}", **intervals[-1])
        last_at = at

    def open_channel() -> Any:
        return sealwire.open_datagram_channel(args.c, port, context=context, mtu=_MTU)

    used, start = time.process_time(), time.perf_counter()
    try:
        outcomes, remote = await throughput.measure(open_channel, order, streams, tell, args.i or 1.0)
    except throughput.Refused as error:
        raise Failure(Exit.NO, f"the server refused: {error}", "ask for less") from error
    except TimeoutError as error:
        raise Failure(
            Exit.ENVIRONMENT, str(error), f"is `sealwire bench dtls -s -p {port}` running there?"
        ) from error
    seconds = time.perf_counter() - start
    used = time.process_time() - used
    end = _end(outcomes, order)
    end["cpu_utilization_percent"] = {
        "host_total": 100 * used / seconds,
        "remote_total": 100 * remote / seconds,
    }
    if args.J:
        print(json.dumps({"start": _start(args.c, port, order, streams), "intervals": intervals, "end": end}))
    else:
        for way, words in (("up", "sent to the server"), ("down", "sent by the server")):
            if way in end:
                one = end[way]
                say.fact(
                    "end",
                    f"{words}: {one['packets']:,} messages, {one['bits_per_second'] / 1e6:,.1f} Mbit/s came "
                    f"({one['packets_per_second']:,.0f}/s), lost {one['lost_packets']:,} "
                    f"({one['lost_percent']:.3g} %)",
                    direction=way,
                    **one,
                )
        cpu = end["cpu_utilization_percent"]
        say.fact("cpu", f"CPU: here {cpu['host_total']:.0f} %, there {cpu['remote_total']:.0f} %", **cpu)
    return Exit.OK


def _start(host: str, port: int, order: Order, streams: int) -> dict[str, Any]:
    return {
        "connecting_to": {"host": host, "port": port},
        "version": f"sealwire {sealwire.__version__}",
        "test_start": {
            "protocol": "DTLS 1.3",
            "num_streams": streams,
            "blksize": order.length,
            "duration": order.seconds,
            "target_bitrate": order.rate * 8,
            "reverse": int(order.down and not order.up),
            "bidir": int(order.down and order.up),
        },
    }


def _end(outcomes: list[Outcome], order: Order) -> dict[str, Any]:
    end: dict[str, Any] = {}
    for way, wanted in (("up", order.up), ("down", order.down)):
        if not wanted:
            continue
        counts = [getattr(one, way) for one in outcomes]
        seconds = max(count.seconds for count in counts) or order.seconds
        sent = sum(count.sent for count in counts)
        lost = sum(count.lost for count in counts)
        received_bytes = sum(count.received_bytes for count in counts)
        end[way] = {
            "seconds": seconds,
            "bytes": received_bytes,
            "bits_per_second": received_bytes * 8 / seconds,
            "packets": sent,
            "packets_per_second": (sent - lost) / seconds,
            "lost_packets": lost,
            "lost_percent": 100 * lost / sent if sent else 0.0,
        }
    return end
