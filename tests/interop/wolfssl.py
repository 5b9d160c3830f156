"""wolfSSL as a peer: the process of :mod:`tests.interop.wolfssl_driver`, and what it is told and says.

The library comes from a Debian suite with a newer C library, so its process is started by that
suite's own loader: the Python is this system's, the C library below it the other one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.certificates import Identity
from tests.interop.driven import DrivenPeer
from tests.interop.programs import absent, peers_directory, running

DRIVER = Path(__file__).with_name("wolfssl_driver.py")
#: Its names for what ours are called.
SUITES = {
    "TLS_AES_128_GCM_SHA256": "TLS13-AES128-GCM-SHA256",
    "TLS_AES_256_GCM_SHA384": "TLS13-AES256-GCM-SHA384",
    "TLS_CHACHA20_POLY1305_SHA256": "TLS13-CHACHA20-POLY1305-SHA256",
    "TLS_AES_128_CCM_SHA256": "TLS13-AES128-CCM-SHA256",
    "TLS_AES_128_CCM_8_SHA256": "TLS13-AES128-CCM-8-SHA256",
}


class Wolfssl:
    """The library and the C library it runs on, unpacked by install_peers."""

    def __init__(self, root: Path, directory: Path) -> None:
        self.root = root
        self.directory = directory
        self.version = (root / "complete").read_text().strip()

    @contextmanager
    def _peer(self, **options: object) -> Iterator[DrivenPeer]:
        # Without the virtual environment, whose Python is a link that the other loader does not follow.
        python = getattr(sys, "_base_executable", None) or sys.executable
        arguments: list[str | Path] = [
            self.root / "loader", "--library-path", self.root / "lib", python, "-I", DRIVER,
            self.root / "lib" / "libwolfssl", json.dumps(options, default=str),
        ]  # fmt: skip
        directory = self.directory / str(options["role"])
        directory.mkdir(exist_ok=True)
        with running(arguments, directory) as program:
            yield DrivenPeer(program)

    @contextmanager
    def server(self, identity: Identity | None, **options: object) -> Iterator[tuple[DrivenPeer, int]]:
        """A server with the certificate of `identity`, and its port."""
        if identity is not None:
            options = {"certfile": identity.certfile, "keyfile": identity.keyfile, **options}
        with self._peer(role="server", **options) as peer:
            yield peer, peer.wait_for("port")["port"]

    @contextmanager
    def client(
        self, port: int, trust: Identity | None, identity: Identity | None = None, **options: object
    ) -> Iterator[DrivenPeer]:
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
