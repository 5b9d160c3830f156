"""One measurement of one transport: a server's process, a clients' process, and who watches both.

The clients warm up first.  CPU is what both processes used during the turn; memory and descriptors are read
from outside while it goes on, and what they grow by is their slope.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sealwire.bench.grid.clients import Load, Mode
from sealwire.bench.processes import Worker, choose_cpus, even_allocation
from sealwire.bench.rivals.openssl_memory import ssl_environment

_MODULE: Final = "sealwire.bench.grid.process"
_HOST: Final = "127.0.0.1"
_PATIENCE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured how.

    Attributes:
        transport: ``tcp``, ``ssl`` or ``stcp``.
        server: ``asyncio``, ``uvloop`` or ``threaded``.
        load: what the clients do.
        seconds, warm_up: how long.
        every: seconds between reports.
        host, port: where the server listens; with `remote` somebody else's, that is there already.
    """

    transport: str
    server: str
    load: Load
    seconds: float
    warm_up: float = 1.0
    every: float = 0.0
    host: str = _HOST
    port: int = 0
    remote: bool = False

    @property
    def loop(self) -> str:
        """The clients' event loop."""
        return "uvloop" if self.server == "uvloop" else "asyncio"


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at a moment: seconds into the turn, resident bytes, open descriptors."""

    seconds: float
    rss_bytes: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A turn.

    Attributes:
        requests, connections, messages: how many were answered, made, and counted one way.
        mean_seconds, latency_ms, connect_ms: of requests, and of connections in churn.
        client_cpu, server_cpu: seconds; None for a server elsewhere.
        errors: by name; those of the server are "server".
        client_samples, server_samples: what was seen of the processes.
    """

    wall_seconds: float
    requests: int
    connections: int
    messages: int
    mean_seconds: float
    latency_ms: Mapping[str, float]
    connect_ms: Mapping[str, float]
    client_cpu: float
    server_cpu: float | None
    errors: Mapping[str, int]
    client_samples: Sequence[Sample] = field(default=(), repr=False)
    server_samples: Sequence[Sample] = field(default=(), repr=False)

    @property
    def units(self) -> int:
        return self.requests or self.messages

    @property
    def rate(self) -> float:
        """Requests a second, or messages."""
        return self.units / self.wall_seconds

    @property
    def in_flight(self) -> float:
        """Requests in flight, by Little's law: rate times mean latency."""
        return self.requests / self.wall_seconds * self.mean_seconds


def measure(setting: Setting, directory: Path, tell: Callable[[Mapping[str, Any]], None]) -> Outcome:
    """Start both processes, warm up, and measure once.

    `tell` gets the clients' reports.

    Raises:
        sealwire.bench.processes.Lost: a process failed; the text says how.
    """
    first, second = choose_cpus()
    order = _order(setting, directory)
    environment = {**ssl_environment(), **even_allocation()}
    patience = _PATIENCE_SECONDS + setting.warm_up + setting.seconds
    server: Worker | None = None
    clients: Worker | None = None
    pids: dict[str, int] = {}
    try:
        if not setting.remote:
            server = Worker({**order, "side": "server", "cpu": second}, environment, patience, _MODULE)
            ready = server.listen()["ready"]
            order["port"], pids["server"] = ready["port"], ready["pid"]
        clients = Worker({**order, "side": "clients", "cpu": first}, environment, patience, _MODULE)
        pids["client"] = clients.listen()["ready"]["pid"]
        if setting.warm_up:
            _turn(clients, setting.warm_up, 0.0, lambda report: None)
        watch = _Watch(pids)
        before = _usage(server)

        def heard(report: Mapping[str, Any]) -> None:
            watch.look()
            tell(report)

        watch.look()
        result = _turn(clients, setting.seconds, setting.every, heard)
        watch.look()
        after = _usage(server)
    finally:
        for worker in (clients, server):
            if worker is not None:
                worker.end()
    errors = dict(result["errors"])
    failures = int(after.get("failures", 0) - before.get("failures", 0))
    if failures:
        errors["server"] = failures
    return Outcome(
        wall_seconds=result["wall_seconds"],
        requests=result["requests"],
        connections=result["connections"],
        messages=result["messages"],
        mean_seconds=result["mean_seconds"],
        latency_ms=result["latency_ms"],
        connect_ms=result["connect_ms"],
        client_cpu=result["user_seconds"] + result["system_seconds"],
        server_cpu=_cpu(after) - _cpu(before) if server is not None else None,
        errors=errors,
        client_samples=watch.samples["client"],
        server_samples=watch.samples.get("server", ()),
    )


@contextmanager
def serving(setting: Setting, directory: Path) -> Iterator[int]:
    """A server alone, for clients elsewhere, at ``setting.host``; its port.

    Raises:
        sealwire.bench.processes.Lost: it cannot be; the text says why.
    """
    order = {**_order(setting, directory), "side": "server", "cpu": None}
    server = Worker(order, ssl_environment(), _PATIENCE_SECONDS, _MODULE)
    try:
        yield server.listen()["ready"]["port"]
    finally:
        server.end()


def _order(setting: Setting, directory: Path) -> dict[str, Any]:
    return {
        "transport": setting.transport,
        "server": setting.server,
        "loop": setting.loop,
        "directory": str(directory),
        "host": setting.host,
        "port": setting.port,
        "load": asdict(setting.load),
    }


def _turn(
    clients: Worker, seconds: float, every: float, tell: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    clients.send({"run": seconds, "every": every})
    while "result" not in (message := clients.listen()):
        tell(message["report"])
    result: dict[str, Any] = message["result"]
    return result


def _usage(server: Worker | None) -> dict[str, float]:
    if server is None:
        return {}
    server.send({"ask": "usage"})
    usage: dict[str, float] = server.listen()["usage"]
    return usage


def _cpu(usage: Mapping[str, float]) -> float:
    return usage["user_seconds"] + usage["system_seconds"]


class _Watch:
    """Looks at processes from outside."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._begin = time.perf_counter()
        self.samples: dict[str, list[Sample]] = {name: [] for name in pids}

    def look(self) -> None:
        for name, pid in self._pids.items():
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
                descriptors = len(os.listdir(f"/proc/{pid}/fd"))
            except (OSError, IndexError, ValueError):
                continue  # a system without /proc
            seconds = time.perf_counter() - self._begin
            self.samples[name].append(Sample(seconds, pages * os.sysconf("SC_PAGE_SIZE"), descriptors))


def slope(samples: Sequence[Sample], what: Callable[[Sample], int]) -> float:
    """What is gained a second: least squares over the samples, 0 of fewer than two."""
    if len(samples) < 2:
        return 0.0
    mean_x = sum(one.seconds for one in samples) / len(samples)
    mean_y = sum(what(one) for one in samples) / len(samples)
    below = sum((one.seconds - mean_x) ** 2 for one in samples)
    above = sum((one.seconds - mean_x) * (what(one) - mean_y) for one in samples)
    return above / below if below else 0.0


def one_way(setting: Setting, outcome: Outcome) -> float:
    """MB/s of payload in one direction."""
    return setting.load.size * outcome.rate / 1e6


def two_way(setting: Setting, outcome: Outcome) -> float:
    """MB/s of payload in both; the same as one way where nothing comes back."""
    return one_way(setting, outcome) * (1 if setting.load.mode is Mode.THROUGHPUT else 2)
