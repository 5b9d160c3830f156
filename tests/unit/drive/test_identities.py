"""Who the peer is, through the drivers: raw public keys, staples, compressed certificates, psk_ke."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509

import sealwire
from sealwire.drive.facts import Facts
from tests import certificates, configs, psks
from tests.staples import REVOKED, staple
from tests.unit.drive.harness import echo_datagrams, echo_stream, port_of, run
from tests.unit.tls13.test_raw_public_keys import client_context, server_context, spki

SERVER, OWN = certificates.server(), certificates.client()


def staple_of_server(**changes: Any) -> bytes:
    leaf = x509.load_der_x509_certificate(SERVER.chain[0])
    return staple(leaf, *certificates.root_of(SERVER), **changes)


def raw() -> tuple[sealwire.Context, sealwire.Context]:
    return client_context(trusts=SERVER, raw=OWN), server_context(trusts=OWN)


def check_raw(client: Facts, server: Facts) -> None:
    for facts, identity in ((client, SERVER), (server, OWN)):
        assert facts.getpeercert() is None
        assert facts.getpeercert(binary_form=True) is None
        assert facts.get_peer_raw_public_key() == spki(identity.keyfile)
        assert facts.get_ocsp_response() is None
        assert facts.psk_identity() is None


def stapled() -> tuple[sealwire.Context, sealwire.Context]:
    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server.load_cert_chain(SERVER.certfile, SERVER.keyfile, ocsp_response=staple_of_server(hours=(-1, 1)))
    client = configs.client_context()
    client.staple_mode = sealwire.STAPLE_REQUIRED
    return client, server


def check_stapled(client: Facts, server: Facts) -> None:
    assert client.get_ocsp_response() is not None
    assert client.getpeercert() is not None
    assert client.get_peer_raw_public_key() is None
    assert server.get_ocsp_response() is None
    assert server.get_peer_raw_public_key() is None


TIMESTAMPS = (b"\0" * 47, b"\1" * 80)


def timestamped() -> tuple[sealwire.Context, sealwire.Context]:
    listed = b"".join(len(one).to_bytes(2, "big") + one for one in TIMESTAMPS)
    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    listed = len(listed).to_bytes(2, "big") + listed
    server.load_cert_chain(SERVER.certfile, SERVER.keyfile, timestamps=listed)
    client = configs.client_context()
    assert client.certificate_timestamps is False
    client.certificate_timestamps = True
    return client, server


def check_timestamped(client: Facts, server: Facts) -> None:
    assert client.get_certificate_timestamps() == TIMESTAMPS
    assert server.get_certificate_timestamps() == ()


def compressed() -> tuple[sealwire.Context, sealwire.Context]:
    large = certificates.large_server()
    client, server = configs.client_context(large.cafile), configs.server_context(large)
    for one in (client, server):
        one.set_certificate_compression("zlib")
    return client, server


def check_compressed(client: Facts, server: Facts) -> None:
    assert client.getpeercert(binary_form=True) == certificates.large_server().chain[0]
    # 20 KB of certificates went over the wire in much less.
    assert server.statistics()["bytes_sent"] < 10_000


def without_exchange() -> tuple[sealwire.Context, sealwire.Context]:
    client, server = psks.client_context(psks.DEVICE), psks.server_context(psks.DEVICE)
    for one in (client, server):
        one.set_psk_key_exchange_modes("psk_ke", allow_without_forward_secrecy=True)
    return client, server


def check_without_exchange(client: Facts, server: Facts) -> None:
    assert client.group() is server.group() is None
    assert client.psk_identity() == server.psk_identity() == "device"


Contexts = Callable[[], tuple[sealwire.Context, sealwire.Context]]
EACH = pytest.mark.parametrize(
    ("make", "check"),
    [
        (raw, check_raw),
        (stapled, check_stapled),
        (timestamped, check_timestamped),
        (compressed, check_compressed),
        (without_exchange, check_without_exchange),
    ],
    ids=["raw keys", "staples", "timestamps", "compressed", "psk_ke"],
)


@EACH
def test_datagram_channels(make: Contexts, check: Callable[[Facts, Facts], None]) -> None:
    ours, theirs = make()
    seen: list[Any] = []

    async def handler(channel: Any) -> None:
        seen.append(channel)
        await echo_datagrams(channel)

    async def main() -> None:
        listening = await sealwire.start_datagram_server(handler, "127.0.0.1", 0, context=theirs)
        opening = sealwire.open_datagram_channel(
            "127.0.0.1", port_of(listening), context=ours, server_hostname="localhost"
        )
        async with listening, opening as channel:
            await channel.send(b"hello")
            assert await channel.recv() == b"hello"
            check(channel, seen[0])

    run(main())


@EACH
def test_streams(make: Contexts, check: Callable[[Facts, Facts], None]) -> None:
    ours, theirs = make()
    seen: list[Any] = []

    async def handler(reader: Any, writer: Any) -> None:
        seen.append(writer)
        await echo_stream(reader, writer)

    async def main() -> None:
        async with await sealwire.start_server(handler, "127.0.0.1", 0, context=theirs) as server:
            reader, writer = await sealwire.open_connection(
                "127.0.0.1", port_of(server), context=ours, server_hostname="localhost"
            )
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
            check(writer, seen[0])
            check(reader, seen[0])
            writer.close()
            await writer.wait_closed()

    run(main())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@EACH
def test_blocking_sockets(
    make: Contexts, check: Callable[[Facts, Facts], None], kind: socket.SocketKind
) -> None:
    ours, theirs = make()
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(10)
    address = sock.getsockname()
    if kind == socket.SOCK_STREAM:
        sock.listen()
    failures: list[BaseException] = []
    done = threading.Event()
    seen: list[Any] = []

    def serve() -> None:
        try:
            secure: Any = theirs.wrap_socket(sock, server_side=True)
            with secure:
                if kind == socket.SOCK_STREAM:
                    secure, _ = secure.accept()
                with secure:
                    secure.send(secure.recv(100))
                    seen.append(secure)
                    done.wait(10)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    client: Any = sealwire.create_connection(
        address, 10, context=ours, kind=kind, server_hostname="localhost"
    )
    try:
        with client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            while not (seen or failures):
                time.sleep(0.01)
            check(client, seen[0])
    finally:
        done.set()
        thread.join()
    assert failures == []


def test_a_revoked_server_over_both_transports() -> None:
    """The client's error says so, and the server is told by its alert."""
    server = sealwire.Context(sealwire.PROTOCOL_SERVER)
    server.load_cert_chain(
        SERVER.certfile, SERVER.keyfile, ocsp_response=lambda: staple_of_server(status=REVOKED)
    )

    async def main() -> None:
        client = configs.client_context()
        async with await sealwire.start_datagram_server(
            echo_datagrams, "127.0.0.1", 0, context=server
        ) as listening:
            with pytest.raises(sealwire.CertificateError, match="revoked") as caught:
                async with sealwire.open_datagram_channel(
                    "127.0.0.1", port_of(listening), context=client, server_hostname="localhost"
                ):
                    raise AssertionError("it was accepted")
            assert caught.value.alert is sealwire.Alert.CERTIFICATE_REVOKED
            assert caught.value.failure is sealwire.CertificateFailure.REVOKED
        async with await sealwire.start_server(echo_stream, "127.0.0.1", 0, context=server) as listening:
            with pytest.raises(sealwire.CertificateError, match="revoked"):
                await sealwire.open_connection(
                    "127.0.0.1", port_of(listening), context=client, server_hostname="localhost"
                )

    run(main())
