"""wolfSSL as a peer: the process of :mod:`tests.interop.wolfssl_driver`, and what it is told and says.

The library comes from a Debian suite with a newer C library, so its process is started by that
suite's own loader: the Python is this system's, the C library below it the other one.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.certificates import Identity
from tests.interop.programs import Program, absent, peers_directory, running
from tests.interop.sockets import DatagramClient, DatagramServer, GaveUp

DRIVER = Path(__file__).with_name("wolfssl_driver.py")
#: Its names for what ours are called.
SUITES = {
    "TLS_AES_128_GCM_SHA256": "TLS13-AES128-GCM-SHA256",
    "TLS_AES_256_GCM_SHA384": "TLS13-AES256-GCM-SHA384",
    "TLS_CHACHA20_POLY1305_SHA256": "TLS13-CHACHA20-POLY1305-SHA256",
    "TLS_AES_128_CCM_SHA256": "TLS13-AES128-CCM-SHA256",
    "TLS_AES_128_CCM_8_SHA256": "TLS13-AES128-CCM-8-SHA256",
}


class WolfsslPeer:
    """One side of a connection; options and events are those of the driver.

    Options: role, port (client), certfile, keyfile, cafile, suites, groups, key_shares, tickets,
    client_cert_types, server_cert_types, psk, srtp, mtu, cid, alpn, cookie (server), server_name.
    Events: version, port (server), connected, data, updating, peer closed, closing, failed, again.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything it said so far."""
        output = self.program.output
        return [json.loads(line) for line in output[: output.rfind(b"\n") + 1].splitlines()]

    def find(self, event: str, number: int = 0) -> dict[str, Any] | None:
        """The event of that name, the first or a later one; None while it has not happened."""
        found = [each for each in self.events if each["event"] == event]
        return found[number] if number < len(found) else None

    def wait_for(
        self, event: str, loop: DatagramClient | DatagramServer | None = None, number: int = 0
    ) -> dict[str, Any]:
        """That event, while `loop` turns; an AssertionError if it does not come, or it failed."""

        def happened() -> bool:
            if event != "failed" and (failure := self.find("failed")) is not None:
                raise GaveUp(f"wolfSSL failed before {event!r}: {failure}")
            if self.program.ended:
                raise GaveUp(f"wolfSSL ended before {event!r}: {self.program.said[-2_000:]}")
            return self.find(event, number) is not None

        if loop is None:
            self.program.wait_for(happened, event)
        else:
            loop.run_until(happened, event)
        found = self.find(event, number)
        assert found is not None
        return found

    def tell(self, do: str, **details: object) -> None:
        self.program.write(json.dumps({"do": do, **details}).encode() + b"\n")

    def send(self, data: bytes) -> None:
        """One message of application data."""
        self.tell("send", data_hex=data.hex())

    def has_received(self, data: bytes) -> bool:
        """Whether what its present connection received is exactly `data`, by hash."""
        last = next((each for each in reversed(self.events) if each["event"] in ("data", "again")), None)
        return last is not None and last.get("sha256") == hashlib.sha256(data).hexdigest()


class Wolfssl:
    """The library and the C library it runs on, unpacked by install_peers."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.root = root
        self.directory = directory
        self.version = (root / "complete").read_text().strip()

    @contextmanager
    def _peer(self, **options: object) -> Iterator[WolfsslPeer]:
        # Without the virtual environment, whose Python is a link that the other loader does not follow.
        python = getattr(sys, "_base_executable", None) or sys.executable
        arguments: list[str | Path] = [
            self.root / "loader", "--library-path", self.root / "lib", python, "-I", DRIVER,
            self.root / "lib" / "libwolfssl", json.dumps(options, default=str),
        ]  # fmt: skip
        directory = self.directory / str(options["role"])
        directory.mkdir(exist_ok=True)
        with running(arguments, directory) as program:
            yield WolfsslPeer(program)

    @contextmanager
    def server(self, identity: Identity | None, **options: object) -> Iterator[tuple[WolfsslPeer, int]]:
        """A server with the certificate of `identity`, and its port."""
        if identity is not None:
            options = {"certfile": identity.certfile, "keyfile": identity.keyfile, **options}
        with self._peer(role="server", **options) as peer:
            yield peer, peer.wait_for("port")["port"]

    @contextmanager
    def client(
        self, port: int, trust: Identity | None, identity: Identity | None = None, **options: object
    ) -> Iterator[WolfsslPeer]:
        """A client that trusts the root of `trust` and may show `identity`."""
        if trust is not None:
            options = {"cafile": trust.cafile, **options}
        if identity is not None:
            options = {"certfile": identity.certfile, "keyfile": identity.keyfile, **options}
        with self._peer(role="client", port=port, server_name="localhost", **options) as peer:
            yield peer


def find_wolfssl(directory: Path) -> Wolfssl:
    """The library, or a skip."""
    root = peers_directory() / "wolfssl"
    if not (root / "complete").is_file():
        absent("wolfSSL with DTLS 1.3 (tests/interop/install_peers fetches it)")
    return Wolfssl(root, directory)
