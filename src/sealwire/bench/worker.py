"""The process a contender runs in: `python -m sealwire.bench.worker`.

One JSON object per line each way.  The first one says whom to be; the answer is "ready" with the
peer's address.  Then {"run": seconds} gives a reading, {"answer": question} a peer's counts.  A
body may ask its peer in the middle of a run: the parent passes {"ask": question} on.  What goes
wrong is {"error": sentence}; what a rival prints goes to stderr and breaks nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from sealwire.bench.clocks import Stopwatch, Usage
from sealwire.bench.crypto_switch import crypto
from sealwire.bench.measurement import Bench, Body, Contender, Peer, Reading, Scale, registry


def main() -> int:
    """Serve one parent until it closes our stdin."""
    # Whatever is printed by a library must not get between the objects.
    orders = sys.stdin
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        order = json.loads(orders.readline())
        if order["cpu"] is not None:
            os.sched_setaffinity(0, {order["cpu"]})
        measurements = registry(order["registry"])
        measurement = next(one for one in measurements if one.name == order["measurement"])
        serve = _serve_peer if order["side"] == "peer" else _serve_body
        serve(measurement.contender(order["contender"]), order, orders, replies)
    except Exception as error:
        if os.environ.get("SEALWIRE_BENCH_DEBUG") == "1":
            raise
        _say(replies, error=_sentence(error))
        return 1
    return 0


def _serve_body(contender: Contender, order: Mapping[str, Any], orders: TextIO, replies: TextIO) -> None:
    def ask(question: str) -> Mapping[str, float]:
        _say(replies, ask=question)
        answer: dict[str, float] = json.loads(orders.readline())["answered"]
        return answer

    stopwatch = Stopwatch(order["slow_down"])
    bench = Bench(
        directory=Path(order["directory"]),
        scale=Scale(**order["scale"]),
        crypto=crypto(order["crypto"]),
        stopwatch=stopwatch,
        peer=order["peer"],
        ask_peer=ask,
    )
    body: Body = contender.open(bench)
    _say(replies, ready={})
    for line in orders:
        stopwatch.reset()
        before = Usage.now()
        reading = body.run(json.loads(line)["run"])
        after = Usage.now()
        # A turn that did not do its work is no turn; without crypto there is nothing to verify.
        if order["crypto"]:
            body.verify()
        whole = dataclasses.replace(
            reading,
            user_seconds=reading.user_seconds + after.user_seconds - before.user_seconds,
            system_seconds=reading.system_seconds + after.system_seconds - before.system_seconds,
            rss_bytes=reading.rss_bytes or after.rss_bytes,
        )
        _say(replies, reading=_plain(whole))
    body.close()


def _serve_peer(contender: Contender, order: Mapping[str, Any], orders: TextIO, replies: TextIO) -> None:
    assert contender.peer is not None
    peer: Peer = contender.peer(
        Bench(
            directory=Path(order["directory"]),
            scale=Scale(**order["scale"]),
            crypto=crypto(order["crypto"]),
            stopwatch=Stopwatch(),
            peer={},
            ask_peer=lambda question: {},
        )
    )
    threading.Thread(target=peer.serve, daemon=True).start()
    _say(replies, ready=dict(peer.address))
    for line in orders:
        answer = dict(peer.answer(json.loads(line)["answer"]))
        usage = Usage.now()
        answer.setdefault("cpu_seconds", usage.user_seconds + usage.system_seconds)
        answer.setdefault("rss_bytes", usage.rss_bytes)
        _say(replies, answered=answer)
    # The serving thread may wait for the network for ever.
    sys.stderr.flush()
    os._exit(0)


def _plain(reading: Reading) -> dict[str, Any]:
    return {
        **{field.name: getattr(reading, field.name) for field in dataclasses.fields(reading)},
        "values": dict(reading.values),
        "quantiles": dict(reading.quantiles),
        "checks": [dataclasses.asdict(check) for check in reading.checks],
    }


def _say(replies: TextIO, **reply: object) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _sentence(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
