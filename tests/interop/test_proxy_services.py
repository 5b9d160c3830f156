"""`sealwire proxy` between programs of others: curl, Redis, PostgreSQL, OpenSSL, stunnel, HAProxy, ssl."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests import certificates
from tests.interop import services
from tests.interop.programs import Openssl
from tests.unit.cli.running import Server, started

LOOPBACK = "127.0.0.1:0"


def directory(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    made.mkdir(exist_ok=True)
    return made


@contextmanager
def secure_in(onward: int | str, *options: str | Path) -> Iterator[Server]:
    """A proxy in front of a plain service."""
    where = onward if isinstance(onward, str) else f"127.0.0.1:{onward}"
    shown = certificates.server()
    with started(
        "proxy", "--listen", LOOPBACK, "--connect", where, "--cert", shown.certfile, "--key", shown.keyfile,
        *options,
    ) as proxy:  # fmt: skip
        yield proxy
        assert proxy.stop().code == 0


@contextmanager
def secure_out(port: int, *options: str | Path) -> Iterator[Server]:
    """A proxy behind a plain client."""
    with started(
        "proxy", "--listen", LOOPBACK, "--connect-secure", f"localhost:{port}",
        "--cafile", certificates.server().cafile, *options,
    ) as proxy:  # fmt: skip
        yield proxy
        assert proxy.stop().code == 0


@contextmanager
def pair(port: int) -> Iterator[int]:
    """Both, in front of a plain service; where plain clients connect."""
    with secure_in(port) as inner, secure_out(inner.port) as outer:
        yield outer.port


def curl(*arguments: str | Path, given: bytes = b"", check: bool = True) -> bytes:
    return services.ask("curl", "-sS", "--max-time", "20", *arguments, given=given, check=check)


# -- curl


def test_curl_through_a_proxy_to_a_plain_http_server(tmp_path: Path) -> None:
    blob = os.urandom(5_000_000)
    (tmp_path / "blob").write_bytes(blob)
    (tmp_path / "page").write_text("hello\n")
    trust = ("--cacert", certificates.server().cafile)
    with services.http_server(tmp_path) as port, secure_in(port) as proxy:
        where = f"https://localhost:{proxy.port}"
        assert curl(*trust, f"{where}/page") == b"hello\n"
        assert curl(*trust, f"{where}/blob") == blob
        assert curl(*trust, *[f"{where}/page"] * 20) == b"hello\n" * 20
        agreed = curl(*trust, "-o", "/dev/null", "-w", "%{ssl_verify_result} %{http_code}", f"{where}/page")
        assert agreed == b"0 200"
        # TLS 1.2 is never spoken, and who does not know the CA gets nowhere.
        assert curl(*trust, "--tls-max", "1.2", f"{where}/page", check=False) == b""
        assert curl(f"{where}/page", check=False) == b""


def test_curl_with_a_client_certificate(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("hello\n")
    known = certificates.client()
    trust = ("--cacert", certificates.server().cafile)
    with services.http_server(tmp_path) as port, secure_in(port, "--client-ca", known.cafile) as proxy:
        where = f"https://localhost:{proxy.port}/page"
        assert curl(*trust, "--cert", known.certfile, "--key", known.keyfile, where) == b"hello\n"
        assert curl(*trust, where, check=False) == b""


def test_curl_that_knows_no_tls_through_a_pair(tmp_path: Path) -> None:
    blob = os.urandom(3_000_000)
    (tmp_path / "blob").write_bytes(blob)
    with services.http_server(tmp_path) as port, pair(port) as near:
        assert curl(f"http://127.0.0.1:{near}/blob") == blob


# -- databases


def redis_cli(port: int, *words: str | Path, given: bytes = b"") -> bytes:
    return services.ask("redis-cli", "-p", str(port), *words, given=given)


def test_redis_through_a_pair(tmp_path: Path) -> None:
    with services.redis(tmp_path) as port, pair(port) as near:
        assert redis_cli(near, "ping") == b"PONG\n"
        blob = os.urandom(500_000).hex().encode()
        assert redis_cli(near, "-x", "set", "blob", given=blob) == b"OK\n"
        assert redis_cli(near, "get", "blob").strip() == blob
        # Many commands ahead of their answers.
        commands = b"".join(b"SET key:%d %d\r\n" % (n, n) for n in range(5_000))
        assert b"errors: 0, replies: 5000" in redis_cli(near, "--pipe", given=commands)
        assert redis_cli(near, "dbsize") == b"5001\n"
        assert redis_cli(port, "get", "key:4999") == b"4999\n"


def test_redis_speaks_tls_itself_on_either_side(tmp_path: Path) -> None:
    shown = certificates.server()
    secure = services.free_port()
    options = (
        *("--tls-port", str(secure), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(shown.cafile)),
        *("--tls-cert-file", str(shown.certfile), "--tls-key-file", str(shown.keyfile)),
    )
    with services.redis(tmp_path, *options) as port:
        with secure_out(secure) as near:
            assert redis_cli(near.port, "set", "a", "1") == b"OK\n"
        with secure_in(port) as proxy:
            trust = ("-h", "localhost", "--tls", "--cacert", shown.cafile, "--sni", "localhost")
            assert redis_cli(proxy.port, *trust, "get", "a") == b"1\n"


def psql(port: int, words: str) -> bytes:
    connect = ("-h", "127.0.0.1", "-p", str(port), "-U", "tester", "-d", "postgres", "-v", "ON_ERROR_STOP=1")
    return services.ask("psql", *connect, "-Atq", given=words.encode())


def test_postgresql_through_a_pair() -> None:
    with services.postgres() as port, pair(port) as near:
        assert psql(near, "select 6 * 7;") == b"42\n"
        rows = "".join(f"{n}\t{hashlib.sha256(b'%d' % n).hexdigest()}\n" for n in range(20_000))
        copy = "create table t (n int primary key, h text);\ncopy t from stdin;\n" + rows + "\\.\n"
        assert psql(near, copy) == b""
        assert psql(near, "select count(*), min(n), max(n) from t;") == b"20000|0|19999\n"
        assert psql(near, "copy (select * from t order by n) to stdout;").decode() == rows
        # Eight clients at once, each transaction a connection of its own.
        bench = ("-h", "127.0.0.1", "-p", str(near), "-U", "tester", "-n", "-C", "-c", "8", "-t", "5",
                 "-f", "/dev/stdin", "postgres")  # fmt: skip
        said = services.ask("pgbench", *bench, given=b"select sum(n) from t;\n")
        assert b"number of transactions actually processed: 40/40" in said


# -- TLS of others


def test_openssl_as_client_and_server(openssl: Openssl, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("hello\n")
    request = b"GET /page HTTP/1.0\r\n\r\n"
    with (
        services.http_server(tmp_path) as port,
        secure_in(port) as proxy,
        openssl.client(proxy.port, certificates.server().cafile) as client,
    ):
        client.write(request)
        client.wait_for(lambda: b"hello\n" in client.output, "no answer")
        assert "Protocol version: TLSv1.3" in client.said
    with (
        openssl.server(certificates.server(), "-rev") as (_, port),
        secure_out(port) as near,
        socket.create_connection(("127.0.0.1", near.port), 20) as plain,
    ):
        plain.sendall(b"drawer\n")
        with plain.makefile("rb") as answer:
            assert answer.readline() == b"reward\n"


def test_python_ssl_as_client_and_server(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("hello\n")
    shown = certificates.server()
    context = ssl.create_default_context(cafile=str(shown.cafile))
    with (
        services.http_server(tmp_path) as port,
        secure_in(port) as proxy,
        socket.create_connection(("localhost", proxy.port), 20) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        with tls.makefile("rb") as answer:
            assert answer.read().endswith(b"hello\n")  # to a close_notify: ssl would raise without
        assert tls.getpeercert(binary_form=True) == shown.chain[0]

    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(shown.certfile, shown.keyfile)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve() -> None:
            for cut in (False, True):
                sock, _ = listening.accept()
                with serving.wrap_socket(sock, server_side=True) as tls:
                    tls.sendall(tls.recv(100).upper())
                    if not cut:
                        tls.unwrap()  # sends close_notify, which closing alone does not

        thread = threading.Thread(target=serve)
        thread.start()
        with secure_out(listening.getsockname()[1]) as near:
            with socket.create_connection(("127.0.0.1", near.port), 20) as plain:
                plain.sendall(b"hello")
                assert plain.recv(100) == b"HELLO"
                plain.shutdown(socket.SHUT_WR)
                assert plain.recv(100) == b""
            # Without close_notify it is a cut stream, which must not look whole.
            with socket.create_connection(("127.0.0.1", near.port), 20) as plain:
                plain.sendall(b"hello")
                assert plain.recv(100) == b"HELLO"
                with pytest.raises(ConnectionResetError):
                    plain.recv(100)
        thread.join()


def test_stunnel_on_either_side(tmp_path: Path) -> None:
    blob = os.urandom(2_000_000)
    (tmp_path / "blob").write_bytes(blob)
    shown = certificates.server()
    believed = (f"CAfile = {shown.cafile}", "verifyChain = yes", "checkHost = localhost")
    with services.http_server(tmp_path) as port:
        with (
            secure_in(port) as proxy,
            services.stunnel(
                directory(tmp_path, "client"), "client = yes", f"connect = 127.0.0.1:{proxy.port}", *believed
            ) as near,
        ):
            assert curl(f"http://127.0.0.1:{near}/blob") == blob
        with (
            services.stunnel(
                directory(tmp_path, "server"), f"connect = 127.0.0.1:{port}", f"cert = {shown.certfile}",
                f"key = {shown.keyfile}",
            ) as far,
            secure_out(far) as plain,
        ):  # fmt: skip
            assert curl(f"http://127.0.0.1:{plain.port}/blob") == blob


# -- the PROXY protocol


def receiver(port: int) -> str:
    """An HAProxy that tells what a PROXY protocol header told it."""
    return (
        f"frontend told\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n"
        "  http-request return status 200 content-type text/plain "
        'lf-string "%[src] %[dst_port] %[fc_pp_authority]\\n"\n'
    )


def sender(port: int, onward: int, options: str) -> str:
    """An HAProxy that passes TLS through and says whom it is from."""
    return (
        f"listen balancer\n  mode tcp\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{onward} {options}\n"
    )


def test_haproxy_is_told_who_the_client_is(tmp_path: Path) -> None:
    trust = ("--cacert", certificates.server().cafile)
    told = services.free_port()
    with (
        services.haproxy(directory(tmp_path, "receiver"), receiver(told), told),
        secure_in(told, "--send-proxy") as proxy,
    ):
        where = f"https://localhost:{proxy.port}/"
        said = curl(*trust, "-4", "--interface", "127.0.0.5", where)
        assert said == b"127.0.0.5 %d localhost\n" % proxy.port


@pytest.mark.parametrize(
    "options",
    ["send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority", "check send-proxy-v2"],
)
def test_haproxy_tells_who_the_client_is(tmp_path: Path, options: str) -> None:
    trust = ("--cacert", certificates.server().cafile)
    told, balancer = services.free_port(), services.free_port()
    with (
        services.haproxy(directory(tmp_path, "receiver"), receiver(told), told),
        secure_in(told, "--send-proxy", "--accept-proxy", "127.0.0.0/8") as proxy,
        services.haproxy(directory(tmp_path, "sender"), sender(balancer, proxy.port, options), balancer),
    ):
        said = curl(*trust, "-4", "--interface", "127.0.0.7", f"https://localhost:{balancer}/")
        # What HAProxy said of its client and of where that one connected came through.
        assert said == b"127.0.0.7 %d localhost\n" % balancer
        # Past the balancer there is no header, and so no connection.
        assert curl(*trust, f"https://localhost:{proxy.port}/", check=False) == b""


def test_haproxy_with_version_1_is_refused_by_name(tmp_path: Path) -> None:
    balancer = services.free_port()
    with (
        secure_in(services.free_port(), "--accept-proxy", "any") as proxy,
        services.haproxy(directory(tmp_path, "sender"), sender(balancer, proxy.port, "send-proxy"), balancer),
        socket.create_connection(("127.0.0.1", balancer), 20) as client,
    ):
        client.sendall(b"x")
        assert client.recv(1) == b""
        trouble = proxy.next_object()
        assert trouble["kind"] == "header"
        assert "version 1 came" in trouble["message"]
