"""One proxied connection, from the socket that was accepted to the end of both sides.

Secure side first: who comes in over TLS is authenticated before anything is connected to on its behalf, and
who comes in plain learns nothing, and is not read, before the secure connection onward stands.  Each wait
has its time: the handshake's for a PROXY protocol header and for TLS, the connection's for TCP.
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from sealwire import stcp
from sealwire.drive.addresses import show
from sealwire.drive.aio import plain
from sealwire.drive.aio.pump import Ending, Pump
from sealwire.drive.aio.stream import Stream
from sealwire.drive.sessions import Sessions
from sealwire.errors import Alert, Error, HandshakeError, LimitReached
from sealwire.limits import Account, Purpose, prefixes_of
from sealwire.proxy import Header, HeaderError, NoRoute, Routes, Target, TlsFacts

if TYPE_CHECKING:
    from sealwire.context import Config
    from sealwire.limits import Ledger, Limits
    from sealwire.telemetry import EndpointCounters, ProxyCounters

#: What a proxied connection takes beside its secure one: a socket, a task, a pump (measured, docs/proxy.md).
PASSAGE_BYTES: Final = 6_400

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """What a proxy does; nothing of it changes while it runs.

    Attributes:
        listen: where connections come in.
        routes: secure in, plain out: the backends.
        secure: plain in, secure out: the server to connect to; exactly one of the two is given.
        server_name: whom to expect there; the host of `secure` by default.
        allow_names: let in only clients whose certificate has one of these names; everyone for none.
        accept_header: networks from which connections begin with a PROXY protocol header, and must; others
            are turned away.  None to expect none and believe none.
        send_header: tell who the client is with such a header, first of all.
        connect_seconds: a connection onward may take.
        idle_seconds: nothing may move for so long; None for ever.
        reuse_port: let other processes listen there as well.
    """

    listen: Target
    routes: Routes | None = None
    secure: Target | None = None
    server_name: str | None = None
    allow_names: frozenset[str] = frozenset()
    accept_header: tuple[Network, ...] | None = None
    send_header: bool = False
    connect_seconds: float = 10.0
    idle_seconds: float | None = None
    reuse_port: bool = False

    def __post_init__(self) -> None:
        if (self.routes is None) == (self.secure is None):
            raise ValueError("a proxy has either routes (secure in) or a secure server (secure out)")


class Trouble(enum.Enum):
    """What can be wrong with one connection, for whoever runs the proxy."""

    #: The secure side: a handshake that failed.
    HANDSHAKE = "handshake"
    #: The connection onward could not be made.
    UNREACHABLE = "unreachable"
    #: No route, or a name that is not allowed.
    REFUSED = "refused"
    #: No PROXY protocol header that may be believed.
    HEADER = "header"
    #: A side broke while bytes moved.
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Report:
    """One connection's trouble.

    Attributes:
        trouble: its kind.
        client: who came in.
        onward: where it should have gone; "" where that was not decided.
        error: what happened.
    """

    trouble: Trouble
    client: str
    onward: str
    error: BaseException


class Unreachable(Error):
    """The connection onward could not be made.

    Attributes:
        why: what happened.
    """

    def __init__(self, why: OSError) -> None:
        super().__init__(str(why) or "it took too long")
        self.why = why


@dataclass(eq=False, slots=True)
class Passage:
    """One proxied connection.

    Attributes:
        sock: what was accepted; not ours any more once `stream` or `pump` has it.
        address: of its other end.
        on_established: called once the handshake is over.
        client: who came in, for people: the address, or the one a header gave.
    """

    sock: socket.socket
    address: object
    settings: ProxySettings
    limits: Limits
    ledger: Ledger
    account: Account
    endpoint: EndpointCounters
    counters: ProxyCounters
    on_established: Callable[[Passage], None]
    began: float = field(default_factory=time.monotonic)
    client: str = ""
    onward: str = ""
    stream: Stream | None = None
    pump: Pump | None = None
    _outward: socket.socket | None = None

    def __post_init__(self) -> None:
        self.client = self._shown(self.address)

    def _shown(self, address: object) -> str:
        # A Unix client has no address, and one that a header gives may hold anything.
        return "a local program" if address in ("", b"") else ascii(show(address))[1:-1]

    async def run(self, config: Config) -> Trouble | None:
        """Carry it to its end; what was wrong, None for nothing.

        Raises:
            OSError: what was wrong, with `trouble` to say of which kind.
        """
        header = await self._header()
        loop = asyncio.get_running_loop()
        if self.settings.routes is not None:
            stream, outward = await self._secure_in(loop, config, header)
        else:
            stream, outward = await self._secure_out(loop, config, header)
        self.pump = Pump(stream, outward, self.ledger, self.counters, self.settings.idle_seconds)
        self._outward = None
        self.pump.start()
        ending = await self.pump.done
        self._count(ending)
        if ending in (Ending.FINISHED, Ending.CUT, Ending.IDLE):
            return None
        return Trouble.BROKEN

    def _count(self, ending: Ending) -> None:
        counters = self.counters
        counters.passages_finished += ending is Ending.FINISHED
        counters.passages_idle += ending is Ending.IDLE
        counters.passages_cut += ending is Ending.CUT
        counters.passages_broken += ending in (Ending.SECURE_BROKE, Ending.PLAIN_BROKE)

    # -- who the client is

    async def _header(self) -> Header | None:
        """What a proxy in front of us says; None if none is expected."""
        trusted = self.settings.accept_header
        if trusted is None:
            return None
        if not _within(self.address, trusted):
            raise HeaderError("a connection came from where no PROXY protocol header may come from")
        async with asyncio.timeout(self.limits.handshake_seconds):
            header = await plain.read_header(asyncio.get_running_loop(), self.sock)
        if header.source is not None:
            self.address = header.source
            self.client = self._shown(header.source)
        # Behind a balancer this is the first moment at which the client's share can be looked at.
        full = None if self.settings.routes is None else self.ledger.prefixes.full(prefixes_of(self.address))
        if full is not None:
            self.ledger.note(full)
            self.endpoint.admissions_refused += 1
            raise LimitReached(full, "one client has as many connections as it may have")
        return header

    def _onward_header(self, header: Header | None, tls: TlsFacts | None = None) -> bytes:
        """What we say to the next: of the client, or of the one that was said to be it."""
        source, destination = self.sock_addresses if header is None else (header.source, header.destination)
        if tls is None or self.stream is None:
            if header is None:
                return Header(source, destination).encode()
            return replace(header, source=source, destination=destination).encode()
        session = self.stream.connection.session
        said = Header(
            source,
            destination,
            alpn=session.alpn,
            authority=session.server_name,
            unique_id=None if header is None else header.unique_id,
            tls=tls,
        )
        return said.encode()

    @property
    def sock_addresses(self) -> tuple[tuple[str, int] | str, tuple[str, int] | str]:
        """Both ends of what was accepted, as a header has them."""
        if self.stream is not None and self.settings.routes is not None:
            ends = (self.stream.peername, self.stream.sockname)
        else:
            ends = (self.sock.getpeername(), self.sock.getsockname())
        first, second = (end[:2] if isinstance(end, tuple) else str(end) for end in ends)
        return first, second

    # -- secure in, plain out

    async def _secure_in(
        self, loop: asyncio.AbstractEventLoop, config: Config, header: Header | None
    ) -> tuple[Stream, socket.socket]:
        connection = stcp.Connection.server(
            config, now=time.monotonic(), limits=self.limits, ledger=self.ledger, peer=self.address
        )
        stream = await self._handshake(loop, self.sock, connection)
        try:
            target = self._admitted(connection.session)
        except HandshakeError as error:
            self.counters.clients_refused += 1
            stream.fail(error)
            raise
        self.onward = str(target)
        try:
            self._outward = outward = await self._connect(loop, target)
            if self.settings.send_header:
                await self._say(loop, outward, self._onward_header(header, _tls_facts(connection.session)))
        except OSError as error:
            self.counters.backends_unreachable += 1
            stream.fail(HandshakeError(Alert.INTERNAL_ERROR, "the backend cannot be reached"))
            raise Unreachable(error) from error
        return stream, outward

    def _admitted(self, session: stcp.Session) -> Target:
        """The backend of a client that has proved who it is.  Raises HandshakeError for none."""
        routes, allowed = self.settings.routes, self.settings.allow_names
        assert routes is not None
        if allowed:
            certificate = session.peer_certificate
            names = () if certificate is None else certificate.names
            if allowed.isdisjoint(names):
                shown = ", ".join(names) or "no name"
                raise HandshakeError(Alert.ACCESS_DENIED, f"the client's certificate has {shown}")
        return routes.choose(session.server_name, session.alpn)

    # -- plain in, secure out

    async def _secure_out(
        self, loop: asyncio.AbstractEventLoop, config: Config, header: Header | None
    ) -> tuple[Stream, socket.socket]:
        target = self.settings.secure
        assert target is not None
        self.onward = str(target)
        name = self.settings.server_name or target.host or None
        sessions = Sessions(config, "TLS 1.3", target.host or target.path, target.port, name)
        try:
            self._outward = sock = await self._connect(loop, target)
            if self.settings.send_header:
                await self._say(loop, sock, self._onward_header(header))
        except OSError as error:
            self.counters.backends_unreachable += 1
            raise Unreachable(error) from error
        connection = stcp.Connection.client(
            config,
            now=time.monotonic(),
            server_name=name,
            limits=self.limits,
            ledger=self.ledger,
            ticket=sessions.take(),
        )
        stream = await self._handshake(loop, sock, connection, sessions)
        return stream, self.sock

    # -- both

    async def _connect(self, loop: asyncio.AbstractEventLoop, target: Target) -> socket.socket:
        try:
            async with asyncio.timeout(self.settings.connect_seconds):
                return await plain.connect(loop, target)
        except TimeoutError:
            seconds = f"{self.settings.connect_seconds:g} seconds"
            raise TimeoutError(f"no connection within {seconds}") from None

    async def _say(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, data: bytes) -> None:
        async with asyncio.timeout(self.settings.connect_seconds):
            await loop.sock_sendall(sock, data)

    async def _handshake(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        connection: stcp.Connection,
        sessions: Sessions | None = None,
    ) -> Stream:
        try:
            self.stream = stream = Stream(loop, sock, connection, self.limits, sessions=sessions)
        except OSError:
            connection.release()
            raise
        if sock is self._outward:
            self._outward = None
        plain.keep(sock)
        stream.start()
        try:
            await stream.opened
        except OSError:
            self.endpoint.handshakes_failed += 1
            raise
        plain.acknowledge(sock)
        self.on_established(self)
        self.endpoint.handshakes_completed += 1
        self.endpoint.handshake_seconds.observe(time.monotonic() - connection.began)
        return stream

    async def close(self, *, at_once: bool = False) -> None:
        """Let everything go that is not gone; a plain client of a connection that never was gets a reset.

        Unless `at_once`, waits for the alert that tells the peer why.
        """
        if self.pump is not None:
            self.pump.cut()
        if (self.settings.routes is None or self.stream is None) and self.pump is None:
            plain.reset(self.sock)
        if self._outward is not None:
            self._outward.close()
        self.account.close()
        stream = self.stream
        if stream is None:
            return
        try:
            if not stream.gone.done() and not at_once and stream.connection.error is not None:
                await asyncio.shield(stream.gone)
        finally:
            stream.abort()
            stream.connection.release()

    def cut(self) -> bool:
        """End what moves bytes; False if it never came so far."""
        if self.pump is None:
            return False
        self.pump.cut()
        return True


def trouble_of(error: BaseException) -> Trouble:
    """What kind of trouble `error`, raised by :meth:`Passage.run`, is."""
    if isinstance(error, HeaderError):
        return Trouble.HEADER
    if isinstance(error, Unreachable):
        return Trouble.UNREACHABLE
    if isinstance(error, NoRoute) or (
        isinstance(error, HandshakeError) and error.alert is Alert.ACCESS_DENIED
    ):
        return Trouble.REFUSED
    return Trouble.HANDSHAKE


def charge_passage(account: Account) -> bool:
    """Account for a proxied connection itself; False if there is no room."""
    return account.charge(Purpose.CONNECTION, PASSAGE_BYTES)


def _within(address: object, networks: tuple[Network, ...]) -> bool:
    if not isinstance(address, tuple):
        # Whoever may open a Unix socket is a neighbour; the socket's mode decides who may.
        return True
    found = ipaddress.ip_address(str(address[0]).partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    return any(found.version == network.version and found in network for network in networks)


def _tls_facts(session: stcp.Session) -> TlsFacts:
    certificate = session.peer_certificate
    name: str | None = None
    if certificate is not None:
        subject = certificate.as_dict().get("subject", ())
        names = [value for part in subject for kind, value in part if kind == "commonName"]
        name = names[0] if names else None
    return TlsFacts(
        session.version.replace(" ", "v"),
        session.suite.name,
        certificate=certificate is not None,
        in_this_connection=certificate is not None and not session.resumed,
        verified=certificate is not None,
        common_name=name,
    )
