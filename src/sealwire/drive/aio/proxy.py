"""A proxy: connections in, each carried onward to where it belongs, one side secure and one plain.

It accepts as long as its limits allow.  At the cap on connections, or with its memory full, it accepts no
more until one ends, and newcomers wait in the kernel's queue; a client's prefix has a share of its own.
Draining stops accepting at once and lets what goes on finish, for a time.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Final

from sealwire import ownership, stcp
from sealwire.drive.addresses import show
from sealwire.drive.aio import plain
from sealwire.drive.aio.accepting import BACKLOG, EXHAUSTED, EXHAUSTED_SECONDS, Accepting
from sealwire.drive.aio.passage import Passage, ProxySettings, Report, Trouble, charge_passage, trouble_of
from sealwire.drive.machine import limits_at_start
from sealwire.errors import ConfigurationError, Error
from sealwire.limits import Account, Limits, Policy, Pressure, prefixes_of
from sealwire.telemetry import ProxyCounters

if TYPE_CHECKING:
    from sealwire.context import Config, Context

# A handshake younger than this does not give way to a newcomer.
_YOUNG_SECONDS: Final = 1.0
# Once passages are cut, so long for the alerts that say so.
_FAREWELL_SECONDS: Final = 2.0

OnTrouble = Callable[[Report], None]


async def start_proxy(
    settings: ProxySettings,
    *,
    context: Context,
    limits: Limits | None = None,
    on_trouble: OnTrouble | None = None,
) -> Proxy:
    """Listen and carry connections.

    Args:
        context: a server's context with `settings.routes`, a client's with `settings.secure`.
        limits: for all connections together; each has two descriptors.
        on_trouble: called with a :class:`Report` of each connection that failed.  Strangers can make it be
            called as often as they like.

    Raises:
        ConfigurationError: the context cannot do it.
        OSError: the address or path cannot be had.
    """
    loop = asyncio.get_running_loop()
    proxy = Proxy(loop, settings, context, limits_at_start(limits, streams=True), on_trouble)
    await proxy.start()
    return proxy


class Proxy(Accepting):
    """A running proxy, as :func:`start_proxy` returns it.

    Attributes:
        proxy_counters: what it did as a proxy.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: ProxySettings,
        context: Context,
        limits: Limits,
        on_trouble: OnTrouble | None,
    ) -> None:
        super().__init__((), limits)
        self.proxy_counters = ProxyCounters()
        self._loop = loop
        self._settings = settings
        self._on_trouble = on_trouble
        self._config = self._checked(context)
        self._passages: dict[Passage, asyncio.Task[None]] = {}
        # Those whose handshake is not finished, the oldest first.
        self._shaking: dict[Passage, None] = {}
        self._paused = False
        self._resume_at: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.ledger.on_pressure(self._pressed)

    def _checked(self, context: Context) -> Config:
        config = context.config()
        routes = self._settings.routes
        if routes is None:
            return config
        for protocol in routes.protocols:
            if protocol not in config.alpn:
                raise ConfigurationError(
                    f"there is a route for the application protocol {protocol.decode('utf-8', 'replace')!r},"
                    " which the context does not offer: add it with set_alpn_protocols"
                )
        before = config.choose

        def choose(name: str | None) -> Config | None:
            # In the handshake, where unrecognized_name belongs, and before its cost.
            routes.check_name(name)
            return None if before is None else before(name)

        return replace(config, choose=choose)

    def reload(self, context: Context) -> None:
        """Use `context` for connections from now on.  ConfigurationError if it cannot be; nothing changes."""
        try:
            self._config = self._checked(context)
        except Error:
            self.proxy_counters.reloads_failed += 1
            raise
        self.proxy_counters.reloads += 1

    # -- for whoever watches (sealwire.monitor)

    @property
    def connections(self) -> int:
        """Proxied connections now, handshakes included."""
        return len(self._passages)

    @property
    def handshaking(self) -> int:
        """Connections whose handshake is not finished."""
        return len(self._shaking)

    def is_serving(self) -> bool:
        return bool(self.sockets)

    def _secure(self) -> Iterator[tuple[stcp.Connection, str]]:
        for passage in self._passages:
            if passage.stream is not None:
                yield passage.stream.connection, passage.client

    # -- coming in

    async def start(self) -> None:
        """Listen.  Raises OSError."""
        listen = self._settings.listen
        self.sockets = tuple(await plain.listen(self._loop, listen, reuse_port=self._settings.reuse_port))
        try:
            for sock in self.sockets:
                sock.listen(BACKLOG)
        except OSError:
            self.close()
            raise
        self._watch()

    def _watch(self) -> None:
        for sock in self.sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(BACKLOG):
            if self._is_full():
                self._pause()
                return
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._pause()
                    self._resume_at = self._loop.call_later(EXHAUSTED_SECONDS, self._resume)
                    return
                continue  # that peer is gone already
            self._admit(sock, address)

    def _is_full(self) -> bool:
        """Whether a limit lets nobody in, whoever it is."""
        if self.connections >= self._limits.connections:
            self.ledger.note("connections")
            return True
        if self.ledger.level is Pressure.CRITICAL:
            self.ledger.note("total_bytes")
            return True
        return False

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.proxy_counters.accepts_paused += 1
            for sock in self.sockets:
                self._loop.remove_reader(sock.fileno())

    def _pressed(self, _level: Pressure, _before: Pressure) -> None:
        if self._paused:
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._resume_at is not None and self._loop.time() < self._resume_at.when():
            return
        self._resume_at = None
        full = self.connections >= self._limits.connections or self.ledger.level is Pressure.CRITICAL
        if self._paused and not full:
            self._paused = False
            self._watch()

    def _admit(self, sock: socket.socket, address: object) -> None:
        account = Account(self.ledger, self._limits.connection_bytes, is_connection=False)
        name = self._refused_by(address)
        if name is not None:
            self.ledger.note(name)
        if name is not None or not charge_passage(account):
            self.counters.admissions_refused += 1
            sock.close()
            return
        sock.setblocking(False)
        passage = Passage(
            sock, address, self._settings, self._limits, self.ledger, account, self.counters,
            self.proxy_counters, self._established,
        )  # fmt: skip
        self.counters.connections_opened += 1
        task = self._loop.create_task(self._carry(passage))
        ownership.own(ownership.Kind.TASK, task)
        self._passages[passage] = task
        self._shaking[passage] = None
        self._idle.clear()
        task.add_done_callback(lambda done: self._ended(passage, done))

    def _refused_by(self, address: object) -> str | None:
        """The limit that keeps this client out, None if there is room."""
        if self._settings.routes is None:
            return None  # it is let in by who listens on a local address
        if self.handshaking >= self._limits.handshakes and not self._replaced():
            return "handshakes"
        if self._settings.accept_header is not None:
            return None  # whose it is, the header says
        return self.ledger.prefixes.full(prefixes_of(address))

    def _replaced(self) -> bool:
        """End the oldest handshake for a newcomer, if it had its time."""
        if self._limits.handshakes_policy is not Policy.REPLACE:
            return False
        oldest = next(iter(self._shaking))
        if time.monotonic() - oldest.began < _YOUNG_SECONDS:
            return False
        self.ledger.note("handshakes")
        self.counters.handshakes_shed += 1
        self._established(oldest)  # counts no more
        self._passages[oldest].cancel()
        return True

    def _established(self, passage: Passage) -> None:
        self._shaking.pop(passage, None)

    # -- going on

    async def _carry(self, passage: Passage) -> None:
        at_once = False
        try:
            try:
                trouble = await passage.run(self._config)
                if trouble is not None and passage.pump is not None:
                    cause = passage.pump.cause or Error("it broke")
                    self._report(trouble, passage, cause)
            except OSError as error:
                kind = trouble_of(error)
                self.proxy_counters.headers_refused += kind is Trouble.HEADER
                self._report(kind, passage, error)
        except asyncio.CancelledError:
            at_once = True
            raise
        finally:
            await passage.close(at_once=at_once)

    def _report(self, trouble: Trouble, passage: Passage, error: BaseException) -> None:
        if self._on_trouble is not None:
            self._on_trouble(Report(trouble, passage.client, passage.onward, error))

    def _ended(self, passage: Passage, task: asyncio.Task[None]) -> None:
        del self._passages[passage]
        self._established(passage)
        ownership.let_go(task)
        self.counters.connections_closed += 1
        if passage.stream is not None:
            self._retired.add(passage.stream.connection.counters)
        if not self._passages:
            self._idle.set()
        self._resume()
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler(
                {"message": "a proxied connection failed", "exception": task.exception(), "task": task}
            )

    # -- ends

    def close(self) -> None:
        """Stop accepting: who comes now is refused.  Connections live on."""
        self._check_process()
        if self._resume_at is not None:
            self._resume_at.cancel()
            self._resume_at = None
        for sock in self.sockets:
            self._loop.remove_reader(sock.fileno())
            plain.unlink(sock)
            sock.close()
        self.sockets = ()

    async def drain(self, seconds: float) -> int:
        """Stop accepting, wait for what goes on, cut what does after `seconds`; how many were cut."""
        self.close()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        return await self.cut()

    async def cut(self) -> int:
        """End every connection now; both its sides see that it is no end in order.  How many there were."""
        self.close()
        n = len(self._passages)
        for passage, task in list(self._passages.items()):
            if not passage.cut():
                task.cancel()
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            for task in list(self._passages.values()):
                task.cancel()
        await self._idle.wait()
        return n

    async def __aenter__(self) -> Proxy:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()


def where(proxy: Proxy) -> list[str]:
    """Where it listens, for people."""
    return [
        f"unix:{sock.getsockname()}" if sock.family == socket.AF_UNIX else show(sock.getsockname())
        for sock in proxy.sockets
    ]
