"""A forked child cannot use its parent's connections: it would seal with nonces the parent uses too."""

from __future__ import annotations

import asyncio
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sealwire.drive import (
    Forked,
    create_connection,
    create_datagram_endpoint,
    open_connection,
    open_datagram_channel,
    start_datagram_server,
    start_server,
    wrap_socket,
)
from sealwire.errors import Error
from tests.configs import client_context, server_context
from tests.unit.drive.harness import echo_datagrams, echo_stream, port_of, run
from tests.unit.drive.test_blocking import echo, peer


def in_child(check: Callable[[], None]) -> None:
    """Run `check` in a forked child; its failure is ours."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Newer Pythons warn of forks beside threads; the child here starts none of the old ones.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.close(read)
            check()
            os.write(write, b"fine")
        except BaseException:
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as said:
        answer = said.read()
    os.waitpid(child, 0)
    assert answer == b"fine", answer.decode()


def refuses(call: Callable[[], Any]) -> None:
    with pytest.raises(Forked, match="before a fork") as caught:
        call()
    assert isinstance(caught.value, Error)


def drive(coroutine: Any) -> Any:
    """Run a coroutine that must raise before it waits for anything."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    finally:
        coroutine.close()
    raise AssertionError("it waited")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_blocking(kind: int) -> None:
    with peer(kind, echo) as (port, served):
        secure: Any = create_connection(
            ("127.0.0.1", port),
            10,
            context=client_context(),
            kind=kind,  # type: ignore[call-overload]
        )
        sent = secure.statistics()["bytes_sent"]

        def check() -> None:
            refuses(lambda: secure.send(b"x"))
            refuses(lambda: secure.sendall(b"x"))
            refuses(secure.recv)
            refuses(secure.do_handshake)
            refuses(secure.unwrap)
            refuses(lambda: secure.export_keying_material(b"EXPORTER-x", 10))
            secure.close()  # gives the descriptor back and sends nothing
            assert secure.statistics()["bytes_sent"] == sent

        in_child(check)
        # The parent is not disturbed.
        secure.send(b"still here")
        assert secure.recv() == b"still here"
        secure.close()
        assert served.result(10) == 1


def test_asyncio_streams() -> None:
    async def main() -> None:
        async with await start_server(echo_stream, "127.0.0.1", 0, context=server_context()) as server:
            reader, writer = await open_connection("127.0.0.1", port_of(server), context=client_context())

            def check() -> None:
                refuses(lambda: writer.write(b"x"))
                refuses(lambda: writer.writelines([b"x"]))
                refuses(lambda: drive(writer.drain()))
                refuses(lambda: drive(reader.read(1)))
                refuses(lambda: drive(reader.readexactly(1)))
                refuses(lambda: drive(reader.readline()))
                refuses(writer.write_eof)
                refuses(writer.close)
                refuses(writer.abort)
                refuses(lambda: drive(writer.wait_closed()))
                refuses(server.close)

            in_child(check)
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            writer.close()
            await writer.wait_closed()

    run(main())


def test_asyncio_datagrams() -> None:
    async def main() -> None:
        async with await start_datagram_server(
            echo_datagrams, "127.0.0.1", 0, context=server_context()
        ) as server:
            port = port_of(server)
            transport, _ = await create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port), context=client_context()
            )
            async with open_datagram_channel("127.0.0.1", port, context=client_context()) as channel:

                def check() -> None:
                    refuses(lambda: drive(channel.send(b"x")))
                    refuses(lambda: drive(channel.recv()))
                    refuses(lambda: drive(channel.aclose()))
                    refuses(lambda: transport.sendto(b"x"))
                    refuses(transport.close)
                    refuses(transport.abort)
                    refuses(server.close)
                    refuses(lambda: server.sendto(b"x", ("127.0.0.1", 1)))

                in_child(check)
                await channel.send(b"still here")
                assert await channel.recv() == b"still here"
            transport.close()

    run(main())


def test_a_child_may_open_connections_of_its_own() -> None:
    def check() -> None:
        one, other = socket.socketpair()
        with ThreadPoolExecutor(1) as pool:
            theirs = pool.submit(wrap_socket, server_context(), other, server_side=True)
            ours: Any = wrap_socket(client_context(), one, server_hostname="localhost")
            secure: Any = theirs.result(10)
            ours.send(b"x")
            assert secure.recv() == b"x"
            ours.close()
            secure.close()

    in_child(check)
