"""openssl s_client and s_server come back, and bring early data (RFC 8446 section 2.3)."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from sealwire import stcp
from sealwire.context import Context
from sealwire.stcp import EarlyData, SessionTicket
from tests import certificates, configs
from tests.interop.features import shows
from tests.interop.programs import Openssl
from tests.interop.sockets import Stream
from tests.interop.test_openssl import accepted, our_server


def server_context(size: int = 16_384) -> Context:
    context = configs.server_context()
    context.num_tickets = 2
    context.max_early_data_size = size
    return context


# Our server, their client.


def session_of_s_client(openssl: Openssl, context: Context, directory: Path) -> Path:
    """A full handshake of s_client with `context`, and the file where it keeps its session."""
    kept = directory / "session.pem"
    with (
        our_server(context) as (listener, port),
        openssl.client(port, certificates.server().cafile, "-sess_out", kept) as program,
    ):
        stream = accepted(listener, context)
        stream.handshake()
        program.write(b"first\n")
        assert stream.receive(6) == b"first\n"
        stream.send(b"behind the tickets\n")
        program.wait_for(lambda: b"behind the tickets" in program.output, "our line")
        program.wait_for(kept.is_file, "no session")
        stream.close()
        program.wait()
    return kept


@shows("resumption by ticket", "early data (0-RTT)", peer="OpenSSL", they="client")
@pytest.mark.requirement("8446-0RTT-1", "8446-0RTT-5")
@pytest.mark.parametrize("size", [5, 16_000])
def test_early_data_of_s_client(openssl: Openssl, tmp_path: Path, size: int) -> None:
    context = server_context()
    session = session_of_s_client(openssl, context, tmp_path)
    data = tmp_path / "early"
    data.write_bytes(bytes(97 + n % 26 for n in range(size)))
    with our_server(context) as (listener, port):
        options = ("-sess_in", session, "-early_data", data)
        with openssl.client(port, certificates.server().cafile, *options) as program:
            stream = accepted(listener, context)
            stream.handshake()
            assert stream.connection.session.resumed
            assert stream.connection.session.early_data is EarlyData.ACCEPTED
            assert stream.connection.read_early() == data.read_bytes()
            program.write(b"later\n")
            assert stream.receive(6) == b"later\n"
            stream.send(b"from sealwire\n")
            program.wait_for(lambda: b"from sealwire\n" in program.output, "our line")
            stream.close()


@pytest.mark.requirement("8446-0RTT-2", "8446-0RTT-3")
@pytest.mark.parametrize("why", ["again", "restart", "retry"])
def test_early_data_of_s_client_is_refused(openssl: Openssl, tmp_path: Path, why: str) -> None:
    """OpenSSL uses a session as often as it is told to; the second time, or elsewhere, it is skipped."""
    context = server_context()
    session = session_of_s_client(openssl, context, tmp_path)
    data = tmp_path / "early"
    data.write_bytes(b"x" * 3_000)
    if why == "restart":
        context.set_early_data_window(10)
    if why == "retry":
        context.set_groups("P-384")
    outcomes = []
    for _ in range(2):
        with our_server(context) as (listener, port):
            options = ("-sess_in", session, "-early_data", data)
            with openssl.client(port, certificates.server().cafile, *options) as program:
                stream = accepted(listener, context)
                stream.handshake()
                assert stream.connection.session.resumed
                outcomes.append(stream.connection.session.early_data)
                program.write(b"later\n")
                assert stream.receive(6) == b"later\n"
                stream.close()
    first = EarlyData.ACCEPTED if why == "again" else EarlyData.REJECTED
    assert outcomes == [first, EarlyData.REJECTED]


# Their server, our client.


def come_back(port: int, context: Context, ticket: SessionTicket | None, early: bytes) -> Stream:
    connection = stcp.Connection.client(
        context.config(),
        now=time.monotonic(),
        server_name="localhost",
        ticket=ticket,
        early_data=bool(early),
    )
    if early:
        connection.send_replayable(early)
    stream = Stream(socket.create_connection(("127.0.0.1", port), timeout=10), connection)
    stream.handshake()
    return stream


def first_ticket(port: int, context: Context) -> SessionTicket:
    stream = come_back(port, context, None, b"")
    stream.send(b"hello\n")
    end = time.monotonic() + 20
    while time.monotonic() < end:
        stream.turn()
        stream.events += stream.connection.events()
        tickets = [one.ticket for one in stream.events if isinstance(one, stcp.TicketReceived)]
        if tickets:
            stream.close()
            return tickets[0]
    raise AssertionError("s_server gave no ticket")


@shows("resumption by ticket", "early data (0-RTT)", peer="OpenSSL", they="server")
@pytest.mark.requirement("8446-0RTT-1", "8446-0RTT-5")
@pytest.mark.parametrize("taken", [True, False])
def test_s_server_and_early_data(openssl: Openssl, taken: bool) -> None:
    """OpenSSL's own anti-replay takes a ticket's early data once; the second use is refused."""
    context = configs.client_context()
    context.num_tickets = 1
    options = ("-early_data", "-max_early_data", "1000", "-naccept", "3")
    with openssl.server(certificates.server(), *options) as (program, port):
        ticket = first_ticket(port, context)
        assert ticket.max_early_data == 1_000
        early = b"early to the server\n"
        stream = come_back(port, context, ticket, early)
        assert stream.connection.session.early_data is EarlyData.ACCEPTED
        stream.send(b"and later\n")
        program.wait_for(lambda: early in program.output and b"and later\n" in program.output, "our data")
        stream.close()
        if taken:
            return
        again = come_back(port, context, ticket, b"never seen\n")
        assert again.connection.session.early_data is EarlyData.REJECTED
        again.send(b"but this\n")
        program.wait_for(lambda: b"but this\n" in program.output, "our data")
        assert b"never seen" not in program.output
        again.close()
