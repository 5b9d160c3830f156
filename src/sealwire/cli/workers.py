"""The parent of `sealwire serve --workers N`: what it says of its workers, and their sums."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import sealwire
from sealwire.cli import options as common
from sealwire.cli.say import Exit, Failure, Say
from sealwire.drive import WorkerGroup, WorkerNews

if TYPE_CHECKING:
    from sealwire.drive import Seat


def run(args: argparse.Namespace, say: Say, work: Callable[[Seat, argparse.Namespace], None]) -> Exit:
    """Serve with ``args.workers`` processes, each of which runs `work`."""

    listening = False

    def news(one: WorkerNews) -> None:
        if one.what == "ready" and not listening:
            return  # that all are is said once
        words = f"worker {one.index} (process {one.pid}) {one.words}"
        say.fact("worker", words, worker=one.index, pid=one.pid, what=one.what, message=one.words)

    host, port = args.listen
    try:
        group = WorkerGroup(
            work,
            host,
            port,
            workers=args.workers,
            args=(args,),
            hand_over=args.hand_over or False,
            on_news=news,
        )
    except sealwire.ConfigurationError as error:
        raise Failure(Exit.ENVIRONMENT, f"--hand-over: {error}", "") from error
    except OSError as error:
        raise Failure(
            Exit.ENVIRONMENT,
            f"cannot listen on {common.written(host, port)}, {(error.strerror or str(error)).lower()}",
            "choose another address or port with --listen, or stop the program that has it",
        ) from error
    with group:
        try:
            group.start()
        except sealwire.Error as error:
            raise Failure(Exit.ENVIRONMENT, str(error), "") from error
        listening = True
        bound = group.addresses
        where = ", ".join(common.written(*address[:2]) for address in bound)
        what = "DTLS 1.3 over UDP"
        say.fact(
            "listening",
            f"listening on {where} for {what} with {args.workers} workers; Ctrl-C ends; {group.steering[0]}",
            addresses=[address[0] for address in bound],
            port=bound[0][1],
            transport=what,
            workers=args.workers,
            pids=group.pids,
            steering=group.steering[0],
        )
        group.run()
        counted = group.statistics()
    done = [one.get("handshakes_completed", 0) for one in counted]
    failed = sum(one.get("handshakes_failed", 0) for one in counted)
    say.fact(
        "stopped",
        f"stopped after {sum(done)} connections ({', '.join(map(str, done))}); {failed} handshakes failed",
        connections=sum(done),
        handshakes_failed=failed,
        workers=counted,
    )
    return Exit.OK
