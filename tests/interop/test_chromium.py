"""A browser over our streams: Chromium asks for certificates compressed with Brotli, and gets them so."""

from __future__ import annotations

import base64
import hashlib
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealwire import stcp
from sealwire.context import Config
from sealwire.crypto.compression import CompressionAlgorithm, available_algorithms
from sealwire.crypto.groups import Group
from sealwire.errors import Error
from sealwire.tls13.messages import CompressedCertificate
from tests import certificates, configs
from tests.interop.programs import running
from tests.interop.sockets import PATIENCE_SECONDS, GaveUp, Stream, listen, port_of
from tests.unit.tls13.test_raw_public_keys import spki

_PAGE = b"<p>sealed</p>"
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_PAGE), _PAGE)
)


def answer(sock: Any, config: Config, served: Callable[[stcp.Connection], None]) -> None:
    """One request, one page; a browser also makes connections it then does not use."""
    stream = Stream(sock, stcp.Connection.server(config, now=time.monotonic()))
    try:
        stream.handshake()
        stream.run_until(
            lambda: b"\r\n\r\n" in stream.received or stream.connection.state != "connected", "a request"
        )
        if stream.received:
            served(stream.connection)
            stream.send(_ANSWER)
            stream.connection.close()
            stream.flush()
    except (OSError, Error, GaveUp):
        pass
    finally:
        sock.close()


@pytest.mark.requirement("8879-1")
def test_a_page_over_our_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("absent: chromium")
    if CompressionAlgorithm.BROTLI not in available_algorithms():
        pytest.skip("absent: the package brotli")
    packed: list[str] = []

    def pack(algorithm: Any, *rest: Any) -> CompressedCertificate:
        packed.append(algorithm.name)
        return CompressedCertificate(algorithm, *rest)

    monkeypatch.setattr("sealwire.tls13.presentation.CompressedCertificate", pack)
    identity = certificates.server(intermediates=2)
    context = configs.server_context(identity, alpn=["http/1.1"])
    context.set_certificate_compression(["brotli", "zlib"])
    config = context.config()
    connections: list[stcp.Connection] = []
    threads: list[threading.Thread] = []
    # It knows the key, not the authority, which it would look for in a store of the system.
    known = base64.b64encode(hashlib.sha256(spki(identity.keyfile)).digest()).decode()
    with listen() as listener:
        listener.settimeout(0.2)
        command = [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
            f"--ignore-certificate-errors-spki-list={known}", "--dump-dom",
            f"https://localhost:{port_of(listener)}/",
        ]  # fmt: skip
        with running(command, tmp_path) as program:
            end = time.monotonic() + 2 * PATIENCE_SECONDS
            while not program.ended and time.monotonic() < end:
                try:
                    sock, _ = listener.accept()
                except TimeoutError:
                    continue
                thread = threading.Thread(target=answer, args=(sock, config, connections.append))
                thread.start()
                threads.append(thread)
            for thread in threads:
                thread.join(PATIENCE_SECONDS)
            assert program.ended, "the browser does not end"
            assert _PAGE in program.output, program.errors[-2_000:]
    assert set(packed) == {"BROTLI"}
    session = connections[0].session
    assert (session.group, session.alpn) == (Group.X25519MLKEM768, b"http/1.1")
