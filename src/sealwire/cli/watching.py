"""--metrics and --control: what verbs that serve offer to whoever watches them; and how watchers ask."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealwire.cli import options as common
from sealwire.cli.say import Exit, Failure, Say

if TYPE_CHECKING:
    from sealwire.monitor import Source


def options(parser: argparse._ActionsContainer) -> None:
    """Add the options of verbs that serve."""
    parser.add_argument(
        "--metrics",
        type=common.endpoint,
        metavar="HOST:PORT",
        help="serve /metrics for Prometheus, /healthz, /readyz and /snapshot there, without authentication",
    )
    parser.add_argument(
        "--control",
        nargs="?",
        const="",
        metavar="PATH",
        help="answer `sealwire status`, `limits` and `top` at this Unix socket "
        "(without PATH: where they look by themselves)",
    )


def for_worker(args: argparse.Namespace, index: int) -> None:
    """Have one of several processes watched by itself: at the next ports, at PATH.1 and so on."""
    if args.metrics is not None:
        host, port = args.metrics
        args.metrics = (host, port + index if port else 0)
    if args.control is not None:
        from sealwire import monitor

        args.control = f"{args.control or monitor.default_path()}.{index}"


@dataclass(frozen=True, slots=True)
class Counted:
    """Counters beside those of a server; :class:`sealwire.monitor.Tally` without loading it."""

    server: str
    part: str
    read: Callable[[], Any]
    gauges: frozenset[str] = frozenset()


@contextlib.contextmanager
def watched_beside(args: argparse.Namespace, say: Say, counted: Sequence[Counted]) -> Iterator[None]:
    """As `watched`, for a verb without an event loop: one runs in a thread beside it."""
    if args.metrics is None and args.control is None:
        yield
        return
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def watch() -> None:
        async with watched(args, None, say, counted):
            over = asyncio.Event()
            ready.set_result((asyncio.get_running_loop(), over))
            await over.wait()

    def run() -> None:
        try:
            asyncio.run(watch())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=run, name="watching", daemon=True)
    thread.start()
    loop, over = ready.result()  # raises what kept it from listening
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


@contextlib.asynccontextmanager
async def watched(
    args: argparse.Namespace,
    source: Source | None,
    say: Say,
    counted: Sequence[Counted] = (),
) -> AsyncIterator[None]:
    """Have `source` watched as the options say, as long as this lasts.

    `counted` are further counters.
    """
    if args.metrics is None and args.control is None:
        yield
        return
    from sealwire import monitor

    watch = monitor.Monitor()
    if source is not None:
        watch.watch(source)
    for one in counted:
        watch.count(one.server, monitor.Tally(one.part, one.read, one.gauges))
    async with contextlib.AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(monitor.Recorder(watch))
        if args.metrics is not None:
            host, port = args.metrics
            try:
                metrics = await monitor.serve_metrics(watch, host or "localhost", port, recorder.history)
            except monitor.Unavailable as error:
                raise Failure(Exit.ENVIRONMENT, str(error), "") from error
            except OSError as error:
                raise Failure(
                    Exit.ENVIRONMENT,
                    f"--metrics cannot listen on {common.written(host, port)}, {_why(error)}",
                    "choose another port, or stop the program that has it",
                ) from error
            await stack.enter_async_context(metrics)
            at_host, at_port = metrics.addresses[0]
            where = common.written(at_host, at_port)
            say.fact("metrics", f"metrics at http://{where}/metrics", host=at_host, port=at_port)
        if args.control is not None:
            path = Path(args.control) if args.control else monitor.default_path()
            try:
                control = await monitor.serve_control(watch, path, recorder.history)
            except FileExistsError as error:
                raise Failure(
                    Exit.ENVIRONMENT,
                    f"--control: {error}",
                    "choose another path, or stop the program that has it",
                ) from error
            except OSError as error:
                raise Failure(
                    Exit.ENVIRONMENT,
                    f"--control cannot listen at {path}, {_why(error)}",
                    "choose a path in a directory of yours",
                ) from error
            await stack.enter_async_context(control)
            say.fact("control", f"control socket at {path}", path=str(path))
        yield


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def control_option(parser: argparse.ArgumentParser) -> None:
    """Where verbs that watch find the program they watch."""
    parser.add_argument(
        "--control",
        type=Path,
        metavar="PATH",
        help="the control socket of the server (default: where `sealwire serve --control` puts it)",
    )


def ask(args: argparse.Namespace, request: dict[str, object]) -> object:
    """The answer of the program that is watched."""
    from sealwire import monitor

    try:
        answer: object = monitor.ask(args.control or monitor.default_path(), request)
    except monitor.ControlError as error:
        raise Failure(Exit.ENVIRONMENT, str(error), error.next_step) from error
    return answer


def size(n: float) -> str:
    """Bytes for people: ``12 B``, ``3.4 KiB``."""
    value = float(n)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def columns(rows: list[list[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Rows as lines whose columns stand below each other; those in `right` end below each other."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if n in right else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
