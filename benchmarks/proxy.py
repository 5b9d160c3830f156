"""What `sealwire proxy` costs beside stunnel and HAProxy: processor seconds a gigabyte, connections a second.

    python benchmarks/proxy.py [--megabytes 400] [--connections 300] [--json]

One plain service, one proxy in front of it at a time, in turn, TLS 1.3 with the same certificate
(P-256) and TLS_AES_128_GCM_SHA256.  The client is Python's ssl, which is the same for all.  A
gigabyte's cost is the processor time of the proxy's process alone, so it does not matter how fast client
and service are; connections are one after another, each with a full handshake, a byte there and back,
and an end.  stunnel and HAProxy are those of tests/interop/install_services, left out if absent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PEERS = Path(os.environ.get("SEALWIRE_PEERS") or Path(__file__).resolve().parents[1] / ".cache" / "peers")
SERVICES = PEERS / "services"
CHUNK = bytes(256 * 1024)


def service() -> socket.socket:
    """Plain: b"u" takes all that comes, b"d" and a size sends so much, anything else is sent back."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)

    def answer(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            first = sock.recv(9)
            if first[:1] == b"u":
                while sock.recv(1 << 20):
                    pass
                sock.sendall(b"k")
            elif first[:1] == b"d":
                left = int.from_bytes(first[1:9], "big")
                while left > 0:
                    sock.sendall(CHUNK[:left])
                    left -= len(CHUNK)
            else:
                sock.sendall(first)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listening


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def sealwire(pki: Path, port: int, onward: int) -> list[str]:
    return [
        sys.executable, "-m", "sealwire.cli", "proxy", "--listen", f"127.0.0.1:{port}", "--connect",
        f"127.0.0.1:{onward}", "--cert", str(pki / "server.pem"), "--key", str(pki / "server.key"),
        "--num-tickets", "0",
    ]  # fmt: skip


def stunnel(pki: Path, port: int, onward: int) -> list[str]:
    file = pki / "stunnel.conf"
    file.write_text(
        "foreground = quiet\npid =\nsyslog = no\ndebug = 3\n[s]\n"
        f"accept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{onward}\n"
        f"cert = {pki}/server.pem\nkey = {pki}/server.key\noptions = NO_TICKET\n"
    )
    return [str(SERVICES / "usr/bin/stunnel4"), str(file)]


def haproxy(pki: Path, port: int, onward: int) -> list[str]:
    both = pki / "both.pem"
    both.write_text((pki / "server.pem").read_text() + (pki / "server.key").read_text())
    file = pki / "haproxy.cfg"
    file.write_text(
        "global\n  nbthread 1\n  ssl-default-bind-options no-tls-tickets\n"
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        f"listen s\n  bind 127.0.0.1:{port} ssl crt {both}\n  server one 127.0.0.1:{onward}\n"
    )
    return [str(SERVICES / "usr/sbin/haproxy"), "-db", "-f", str(file)]


PROXIES: dict[str, Callable[[Path, int, int], list[str]]] = {
    "sealwire": sealwire, "stunnel": stunnel, "HAProxy": haproxy,
}  # fmt: skip


@contextlib.contextmanager
def running(name: str, pki: Path, onward: int) -> Iterator[tuple[int, int]]:
    """The proxy's port and process id."""
    port = free_port()
    paths = [str(path) for path in SERVICES.glob("usr/lib/*-linux-gnu")]
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)} if name != "sealwire" else None
    process = subprocess.Popen(
        PROXIES[name](pki, port, onward),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(500):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.02)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after[11]) + int(after[12])) / os.sysconf("SC_CLK_TCK")


def connect(context: ssl.SSLContext, port: int) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 60), server_hostname="localhost")


def upload(context: ssl.SSLContext, port: int, size: int) -> None:
    with connect(context, port) as tls:
        tls.sendall(b"u" + bytes(8))
        for _ in range(size // len(CHUNK)):
            tls.sendall(CHUNK)
        with contextlib.suppress(OSError):
            tls.unwrap()


def download(context: ssl.SSLContext, port: int, size: int) -> None:
    into = bytearray(1 << 18)
    with connect(context, port) as tls:
        tls.sendall(b"d" + size.to_bytes(8, "big"))
        got = 0
        while got < size and (n := tls.recv_into(into)):
            got += n
        assert got == size, (got, size)


def visits(context: ssl.SSLContext, port: int, n: int) -> None:
    for _ in range(n):
        with connect(context, port) as tls:
            tls.sendall(b"e")
            assert tls.recv(1) == b"e"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--connections", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=PROXIES)
    args = parser.parse_args()
    size = args.megabytes * 1_000_000 // len(CHUNK) * len(CHUNK)
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as directory, service() as plain:
        pki = Path(directory)
        subprocess.run([sys.executable, "-m", "sealwire.cli", "--json", "cert", "--dir", directory],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        context = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        for _ in range(args.rounds):
            for name in PROXIES if args.only is None else [args.only]:
                if name != "sealwire" and not (SERVICES / "complete").is_file():
                    continue
                rows = found.setdefault(name, {})
                with running(name, pki, plain.getsockname()[1]) as (port, pid):
                    visits(context, port, 5)
                    for row, act in (("up", upload), ("down", download)):
                        before, began = cpu_seconds(pid), time.perf_counter()
                        act(context, port, size)
                        took = time.perf_counter() - began
                        rows.setdefault(f"{row}: processor seconds a GB", []).append(
                            (cpu_seconds(pid) - before) / size * 1e9
                        )
                        rows.setdefault(f"{row}: MB/s through it", []).append(size / took / 1e6)
                    before, began = cpu_seconds(pid), time.perf_counter()
                    visits(context, port, args.connections)
                    took = time.perf_counter() - began
                    rows.setdefault("connections a second, one after another", []).append(
                        args.connections / took
                    )
                    rows.setdefault("processor ms a connection", []).append(
                        (cpu_seconds(pid) - before) / args.connections * 1e3
                    )
                    status = Path(f"/proc/{pid}/status").read_text()
                    resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
                    rows.setdefault("resident MiB at the end", []).append(resident)
    medians = {
        name: {row: statistics.median(values) for row, values in rows.items()} for name, rows in found.items()
    }
    if args.json:
        print(json.dumps(medians))
        return
    for row in next(iter(medians.values())):
        print(f"{row:42}", "  ".join(f"{name} {values[row]:8.2f}" for name, values in medians.items()))


if __name__ == "__main__":
    main()
