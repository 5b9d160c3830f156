"""A small HTTP server on the event loop of what it watches: /metrics, /healthz, /readyz, /snapshot.

It answers GET and HEAD, one request a connection, and bounds what anyone can make it hold: a request
line and headers of 8 KiB within five seconds, sixteen connections at once.  It has no authentication,
so it belongs on an address that only your monitoring reaches; nothing it shows is a secret, and no
peer's address is in it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from sealwire.monitor.attending import Attending
from sealwire.monitor.exposition import Exposition
from sealwire.monitor.history import History
from sealwire.monitor.snapshot import snapshot
from sealwire.monitor.sources import Monitor

_REQUEST_BYTES: Final = 8 * 1024
_SECONDS: Final = 5.0

Answer = tuple[HTTPStatus, str, bytes]
_TEXT: Final = "text/plain; charset=utf-8"


class MetricsServer(Attending):
    """Serves `monitor` over HTTP; see :func:`serve_metrics`."""

    def __init__(self, monitor: Monitor, history: History | None = None) -> None:
        super().__init__()
        self._monitor = monitor
        self._history = history
        self._exposition = Exposition(monitor)
        self._pages: dict[str, Callable[[str], Answer]] = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/snapshot": self._snapshot,
        }

    async def start(self, host: str, port: int) -> None:
        """Listen.  OSError where that address cannot be had."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_REQUEST_BYTES)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens."""
        return [] if self._server is None else [sock.getsockname()[:2] for sock in self._server.sockets]

    # -- one request

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer(head))
            await writer.drain()

    def _answer(self, head: bytes) -> bytes:
        lines = head.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST, _TEXT, b"not an HTTP/1 request\n")
        method, target, _ = parts
        headers = {
            name.strip().lower(): value.strip()
            for name, colon, value in (line.partition(":") for line in lines[1:])
            if colon
        }
        page = self._pages.get(target.partition("?")[0])
        if method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, b"GET or HEAD\n")
        if page is None:
            known = ", ".join(self._pages).encode()
            return _response(HTTPStatus.NOT_FOUND, _TEXT, b"there are " + known + b"\n")
        status, content_type, body = page(headers.get("accept", ""))
        return _response(status, content_type, body, head_only=method == "HEAD")

    def _metrics(self, accept: str) -> Answer:
        content_type, body = self._exposition.text(accept)
        return HTTPStatus.OK, content_type, body

    def _healthz(self, _accept: str) -> Answer:
        # That this loop answers is the answer: what hangs does not come here.
        return HTTPStatus.OK, _TEXT, b"ok\n"

    def _readyz(self, _accept: str) -> Answer:
        reason = self._monitor.not_ready()
        if reason:
            return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"{reason}\n".encode()
        return HTTPStatus.OK, _TEXT, b"ready\n"

    def _snapshot(self, _accept: str) -> Answer:
        body = json.dumps(snapshot(self._monitor, self._history)).encode()
        return HTTPStatus.OK, "application/json", body + b"\n"


def _response(status: HTTPStatus, content_type: str, body: bytes, *, head_only: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\nCache-Control: no-store\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if head_only else body)


async def serve_metrics(
    monitor: Monitor, host: str, port: int, history: History | None = None
) -> MetricsServer:
    """Serve `monitor` at ``http://host:port/metrics``; close it with ``aclose`` or ``async with``.

    Raises:
        Unavailable: prometheus-client is not installed.
        OSError: the address cannot be had.
    """
    server = MetricsServer(monitor, history)
    await server.start(host, port)
    return server
