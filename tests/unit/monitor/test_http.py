"""The HTTP server of metrics: its pages, and what it makes of bytes that are no request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from sealwire.monitor import MetricsServer, Monitor, serve_metrics
from tests.unit.monitor.sources import Fixed, get, http

pytest.importorskip("prometheus_client")

Use = Callable[[MetricsServer, Fixed, str, int], Awaitable[None]]


def served(use: Use) -> None:
    async def main() -> None:
        source = Fixed()
        watch = Monitor()
        watch.watch(source)
        async with await serve_metrics(watch, "127.0.0.1", 0) as server:
            await use(server, source, *server.addresses[0])

    asyncio.run(main())


def test_pages() -> None:
    async def use(server: MetricsServer, source: Fixed, host: str, port: int) -> None:
        status, body = await get(host, port, "/metrics")
        assert status == 200
        assert b'sealwire_connections{server="dtls"} 3.0' in body
        status, body = await get(host, port, "/metrics?x=1", "application/openmetrics-text")
        assert status == 200
        assert body.endswith(b"# EOF\n")
        assert await get(host, port, "/healthz") == (200, b"ok\n")
        assert await get(host, port, "/readyz") == (200, b"ready\n")
        source.serving = False
        assert await get(host, port, "/readyz") == (503, b"dtls is closing\n")
        status, body = await get(host, port, "/snapshot")
        assert json.loads(body)["servers"]["dtls"]["serving"] is False
        status, body = await get(host, port, "/etc/passwd")
        assert status == 404
        assert b"/metrics" in body

    served(use)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\r\n\r\n", b"400"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET /metrics SPDY/1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x00\xa5\r\n\r\n", b"400"),
        (b"GET /\xff\xfe HTTP/1.1\r\n: \r\nno colon\r\n\r\n", b"404"),
        (b"HEAD /healthz HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_what_is_no_request_of_ours_is_answered_or_dropped(request_bytes: bytes, status: bytes) -> None:
    async def use(server: MetricsServer, source: Fixed, host: str, port: int) -> None:
        answer = await http(host, port, request_bytes)
        assert answer.split()[1] == status
        if request_bytes.startswith(b"HEAD"):
            assert answer.endswith(b"\r\n\r\n")

    served(use)


def test_requests_are_bounded() -> None:
    async def use(server: MetricsServer, source: Fixed, host: str, port: int) -> None:
        assert await http(host, port, b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000) == b""
        silent = [await asyncio.open_connection(host, port) for _ in range(16)]
        await asyncio.sleep(0.05)
        # The seventeenth is cut off at once, and nobody waits for ever.
        assert await http(host, port, b"GET /healthz HTTP/1.1\r\n\r\n") == b""
        for _, writer in silent:
            writer.close()
        await asyncio.sleep(0.05)
        assert await get(host, port, "/healthz") == (200, b"ok\n")

    served(use)


def test_a_port_that_is_taken() -> None:
    async def use(server: MetricsServer, source: Fixed, host: str, port: int) -> None:
        with pytest.raises(OSError, match="in use"):
            await serve_metrics(Monitor(), host, port)

    served(use)


def test_closing_cuts_off_who_is_served() -> None:
    async def use(server: MetricsServer, source: Fixed, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await server.aclose()
        assert await reader.read() == b""
        writer.close()

    served(use)
