"""STCP on asyncio: `open_connection` and `start_server`, with the shape of asyncio's own.

A server accepts as long as its limits allow and hands each connection over when its handshake is
done.  No byte a stranger sends can raise here: a failed handshake is a counter.
"""

from __future__ import annotations

import asyncio
import socket
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Final

from sealwire import ownership, stcp
from sealwire.drive.addresses import AddressInfo, Hosts, bind, resolve, resolve_for_listening, show
from sealwire.drive.aio.accepting import BACKLOG, EXHAUSTED, EXHAUSTED_SECONDS, Accepting
from sealwire.drive.aio.reader_writer import DEFAULT_LIMIT_BYTES, StreamReader, StreamWriter
from sealwire.drive.aio.stream import OnEarlyData, Stream
from sealwire.drive.facts import is_end
from sealwire.drive.machine import limits_at_start
from sealwire.drive.sessions import Sessions
from sealwire.drive.sessions import send_replayable as send_early
from sealwire.errors import Error, LimitReached
from sealwire.limits import DEFAULT_LIMITS, Budget, Limits, Pressure, prefixes_of
from sealwire.stcp.frames import protocol_name

if TYPE_CHECKING:
    from sealwire.context import Context

Handler = Callable[[StreamReader, StreamWriter], Awaitable[None] | None]

_SHUTDOWN_SECONDS: Final = 5.0


async def open_connection(
    host: str | None = None,
    port: int | None = None,
    *,
    context: Context,
    server_hostname: str | None = None,
    limits: Limits | None = None,
    limit: int = DEFAULT_LIMIT_BYTES,
    timeout: float | None = None,
    local_addr: tuple[str, int] | None = None,
    family: int = 0,
    sock: socket.socket | None = None,
    send_replayable: bytes = b"",
    messages: bool | str = False,
    keepalive: stcp.Keepalive | None = None,
) -> tuple[StreamReader, StreamWriter]:
    """Connect over TCP, shake hands, and return a reader and a writer like asyncio's.

    Args:
        host, port: where to; every address of the name is tried in turn.
        sock: a connected socket instead; it belongs to the connection from here on.
        context: a client's :class:`sealwire.Context`.
        server_hostname: whom to expect; `host` by default.
        limit: the longest line, in bytes.
        timeout: seconds for TCP and handshake together, ``limits.handshake_seconds`` by default.
        send_replayable: data to send with the first flight, before the server has said anything (0-RTT), if
            the context's session store has a ticket that allows so much.  Somebody who records it can send
            it again, and the server may act on it each time: only what does no harm when it is done twice.
            It is lost if the server does not accept it: look at the writer's ``early_data``.
        messages: speak in messages (docs/stcp.md): True, or the name of an application.
        keepalive: in message mode, when to ask whether the peer is there; None for never.

    Raises:
        TimeoutError: it took too long.
        HandshakeError, CertificateError, PeerAlert: no secure connection came to be.
        OSError: no address could be reached.
    """
    loop = asyncio.get_running_loop()
    config = context.config()
    limits = limits or DEFAULT_LIMITS
    seconds = limits.handshake_seconds if timeout is None else timeout
    stream: Stream | None = None
    try:
        async with asyncio.timeout(seconds):
            if sock is None:
                if host is None or port is None:
                    raise ValueError("host and port, or sock, must be given")
                sock = await _connect(loop, host, port, family, local_addr)
            try:
                name = server_hostname or host
                if host is None or port is None:
                    sessions = Sessions.of_peer(config, "TLS 1.3", sock.getpeername(), name)
                else:
                    sessions = Sessions(config, "TLS 1.3", host, port, name)
                ticket = sessions.take()
                connection = stcp.Connection.client(
                    config,
                    now=time.monotonic(),
                    server_name=name,
                    limits=limits,
                    ticket=ticket,
                    early_data=sessions.allows(ticket, send_replayable, in_messages=messages is not False),
                    messages=messages,
                    keepalive=keepalive,
                )
                send_early(connection, send_replayable, in_messages=messages is not False)
                stream = Stream(loop, sock, connection, limits, sessions=sessions)
            except BaseException:
                sock.close()
                raise
            stream.start()
            await _opened(stream)
    except TimeoutError:
        if stream is not None and not stream.opened.cancelled():
            failure = stream.opened.exception()
            if isinstance(failure, Error):  # it took too long to say goodbye
                raise failure from None
        where = f"{host}:{port}" if host is not None else "the peer"
        raise TimeoutError(f"no secure connection to {where} within {seconds:g} seconds") from None
    return StreamReader(stream, limit), StreamWriter(stream)


async def _opened(stream: Stream) -> None:
    try:
        await stream.opened
    except Error:
        # The alert that tells the peer why is on its way; nothing is left behind after it.
        try:
            while not stream.gone.done():
                await stream.changed()
        except asyncio.CancelledError:
            stream.abort()  # nobody waits for that
            raise
        raise
    except BaseException:
        stream.abort()
        raise


async def _connect(
    loop: asyncio.AbstractEventLoop, host: str, port: int, family: int, local_addr: tuple[str, int] | None
) -> socket.socket:
    """A connected socket to the first address that takes us; otherwise the last one's error."""
    infos = await resolve(loop, host, port, socket.SOCK_STREAM, family=family)
    locals_: list[AddressInfo] = []
    if local_addr is not None:
        locals_ = await resolve(loop, *local_addr, socket.SOCK_STREAM, family=family)
    failures: list[OSError] = []
    for info_family, kind, protocol, _, address in infos:
        try:
            sock = socket.socket(info_family, kind, protocol)
            try:
                sock.setblocking(False)
                bindable = [item[4] for item in locals_ if item[0] == info_family]
                if bindable:
                    sock.bind(bindable[0])
                elif locals_:
                    raise OSError(f"no local address fits {show(address)}")
                await loop.sock_connect(sock, address)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            failures.append(error)
            continue
        return sock
    if not failures:
        raise OSError(f"{host} has no address")
    raise failures[-1]


async def start_server(
    client_connected_cb: Handler,
    host: Hosts = None,
    port: int = 0,
    *,
    context: Context,
    limits: Limits | None = None,
    limit: int = DEFAULT_LIMIT_BYTES,
    family: int = 0,
    backlog: int = BACKLOG,
    reuse_port: bool = False,
    sock: socket.socket | None = None,
    start_serving: bool = True,
    on_early_data: OnEarlyData | None = None,
    messages: bool | str = False,
    keepalive: stcp.Keepalive | None = None,
) -> StreamServer:
    """Serve STCP; `client_connected_cb(reader, writer)` runs, as a task if it is a coroutine
    function, for each peer that finished its handshake.

    Args:
        host: an address or name, several, or None for every interface.
        port: 0 lets the kernel choose; see `StreamServer.sockets`.
        sock: a bound TCP socket instead of host and port; it belongs to the server from here on.
        context: a server's :class:`sealwire.Context`; certificates loaded into it later are used
            for new connections.
        limits: for all connections of this server together.
        on_early_data: called with ``(connection, data)`` as early data comes, before the client has proved
            to be there: its answer is ``connection.send_before_finished``.  Without it early data waits
            in `StreamReader.read_early`.
        messages: speak in messages (docs/stcp.md): True, or the name of an application.  A client that
            agrees neither on that nor on one of the context's ALPN protocols fails its handshake.
        keepalive: in message mode, when to ask whether a peer is there; None for never.

    Raises:
        ConfigurationError: the context cannot serve (no certificate).
        OSError: the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    context.config()  # a context that cannot serve is an error here, not at the first peer
    protocol_name(messages)  # and so is a name that cannot be
    limits = limits_at_start(limits, streams=True)
    if sock is None:
        infos = await resolve_for_listening(loop, host, port, socket.SOCK_STREAM, family=family)
        sockets = bind(infos, reuse_port=reuse_port)
    elif host is not None or port:
        raise ValueError("host and port, or sock, must be given, not both")
    else:
        sock.setblocking(False)
        sockets = [sock]
    server = StreamServer(
        loop,
        sockets,
        client_connected_cb,
        context,
        limits,
        limit,
        backlog,
        on_early_data,
        messages,
        keepalive,
    )
    if start_serving:
        await server.start_serving()
    return server


class StreamServer(Accepting):
    """A server as :func:`start_server` returns it, with the methods of :class:`asyncio.Server`.

    Attributes:
        budget: for what the application sets aside in the same account.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: list[socket.socket],
        handler: Handler,
        context: Context,
        limits: Limits,
        limit: int,
        backlog: int,
        on_early_data: OnEarlyData | None,
        messages: bool | str = False,
        keepalive: stcp.Keepalive | None = None,
    ) -> None:
        super().__init__(sockets, limits)
        self.budget = Budget(self.ledger)
        self._loop = loop
        self._handler = handler
        self._context = context
        self._limit = limit
        self._backlog = backlog
        self._on_early_data = on_early_data
        self._messages = messages
        self._keepalive = keepalive
        self._serving = False
        self._streams: set[Stream] = set()
        self._handshakes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}
        self._idle = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def connections(self) -> int:
        """Connections now, handshakes included."""
        return len(self._streams)

    @property
    def handshaking(self) -> int:
        """Connections whose handshake is not finished."""
        return self._handshakes

    def _secure(self) -> Iterator[tuple[stcp.Connection, str]]:
        for stream in self._streams:
            yield stream.connection, show(stream.peername)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return self._serving and bool(self.sockets)

    async def start_serving(self) -> None:
        """Begin to accept."""
        self._check_process()
        if self._serving:
            return
        self._serving = True
        for sock in self.sockets:
            sock.listen(self._backlog)
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    async def serve_forever(self) -> None:
        """Accept until cancelled or closed; then close in order."""
        await self.start_serving()
        try:
            await self._closed.wait()
        finally:
            await self.shutdown()

    # -- peers

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self._backlog):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._pause(listening)
                    return
                continue  # that peer is gone already
            self._admit(sock, address)

    def _admit(self, sock: socket.socket, address: object) -> None:
        limits = self._limits
        full = self._full(address)
        if full is not None:
            self.ledger.note(full)
            self.counters.admissions_refused += 1
            sock.close()
            return
        try:
            connection = stcp.Connection.server(
                self._context.config(),
                now=time.monotonic(),
                limits=limits,
                ledger=self.ledger,
                peer=address,
                messages=self._messages,
                keepalive=self._keepalive,
            )
        except LimitReached:
            self.counters.admissions_refused += 1
            sock.close()
            return
        try:
            stream = Stream(
                self._loop, sock, connection, limits, on_gone=self._gone, on_early_data=self._on_early_data
            )
        except OSError:
            connection.release()
            sock.close()  # the peer is gone already
            return
        self.counters.connections_opened += 1
        self._handshakes += 1
        self._streams.add(stream)
        stream.opened.add_done_callback(lambda opened: self._opened(stream, opened))
        stream.start()

    def _full(self, address: object) -> str | None:
        """The name of the limit that keeps another connection from there out, None if there is room."""
        if self.ledger.level is Pressure.CRITICAL:
            return "total_bytes"
        if self.connections >= self._limits.connections:
            return "connections"
        if self._handshakes >= self._limits.handshakes:
            return "handshakes"
        # TCP's own handshake has proved the address.
        return self.ledger.prefixes.full(prefixes_of(address))

    def _opened(self, stream: Stream, opened: asyncio.Future[None]) -> None:
        self._handshakes -= 1
        if opened.cancelled() or opened.exception() is not None:
            self.counters.handshakes_failed += 1
            return
        self.counters.handshakes_completed += 1
        self.counters.handshake_seconds.observe(time.monotonic() - stream.connection.began)
        outcome = stream.connection.early_data
        self.counters.early_data_accepted += outcome is stcp.EarlyData.ACCEPTED
        self.counters.early_data_rejected += outcome is stcp.EarlyData.REJECTED
        reader, writer = StreamReader(stream, self._limit), StreamWriter(stream)
        # What the application never reads is given back when it drops the reader.
        known = weakref.ref(reader)
        stream.gone.add_done_callback(lambda _: _release(stream, known()))
        result = self._handler(reader, writer)
        if result is not None:
            # One that is cancelled before it began must be thrown into the handler itself, which would be
            # a coroutine that was never awaited otherwise.
            task = self._loop.create_task(result if asyncio.iscoroutine(result) else _run(result))
            ownership.own(ownership.Kind.TASK, task)
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._handled(stream, done))

    def _handled(self, stream: Stream, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        ownership.let_go(task)
        self._look_idle()
        if task.cancelled():
            if not stream.gone.done():
                stream.abort()
            return
        error = task.exception()
        if error is None:
            return
        if not stream.gone.done():
            stream.close()
        if not is_end(error, stream):
            self._loop.call_exception_handler(
                {"message": "the handler of an STCP connection failed", "exception": error, "task": task}
            )

    def _gone(self, stream: Stream) -> None:
        self._streams.discard(stream)
        self._retired.add(stream.connection.counters)
        self.counters.connections_closed += 1
        if stream.opened.exception() is not None:
            stream.connection.release()
        self._look_idle()

    def _pause(self, listening: socket.socket) -> None:
        self._loop.remove_reader(listening.fileno())
        self._paused[listening] = self._loop.call_later(EXHAUSTED_SECONDS, self._resume, listening)

    def _resume(self, listening: socket.socket) -> None:
        del self._paused[listening]
        self._loop.add_reader(listening.fileno(), self._accept, listening)

    # -- ends

    def close(self) -> None:
        """Stop accepting.  Connections live on."""
        self._check_process()
        for handle in self._paused.values():
            handle.cancel()
        self._paused.clear()
        for sock in self.sockets:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self.sockets = ()
        self._closed.set()
        self._look_idle()

    def close_clients(self) -> None:
        """Close every connection in order, as its writer's close does."""
        for stream in list(self._streams):
            stream.close()

    def abort_clients(self) -> None:
        """Close every connection at once."""
        for stream in list(self._streams):
            stream.abort()

    async def wait_closed(self) -> None:
        """Wait until the server, its connections and its handlers are done."""
        await self._closed.wait()
        await self._idle.wait()

    async def drain(self, seconds: float) -> int:
        """Stop accepting and let what is under way end by itself; then shut down.

        Peers in message mode are told that we go away.  Returns how many connections were still there after
        `seconds`, and were closed.
        """
        self.close()
        for stream in list(self._streams):
            stream.tell_going_away()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        left = len(self._streams)
        await self.shutdown()
        return left

    async def shutdown(self, seconds: float = _SHUTDOWN_SECONDS) -> None:
        """Close everything: in order, and by force what is not done after `seconds`."""
        self.close()
        self.close_clients()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            self.abort_clients()
        await self._idle.wait()

    def _look_idle(self) -> None:
        if self._closed.is_set() and not self._streams and not self._tasks:
            self._idle.set()

    async def __aenter__(self) -> StreamServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()


async def _run(handler: Awaitable[None]) -> None:
    await handler


def _release(stream: Stream, reader: StreamReader | None) -> None:
    if reader is None:
        stream.connection.release()
    else:
        weakref.finalize(reader, stream.connection.release).atexit = False
