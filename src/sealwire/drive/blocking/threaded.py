"""ThreadedServer: a server in :mod:`socketserver`'s style, with a thread for each connection, but bounded.

The handlers are socketserver's own: a class such as :class:`socketserver.StreamRequestHandler`, or any
callable of request, address and server.  The request is a :class:`StreamSocket`.  Accepting waits while
every thread is taken, so what strangers can have of this process is `threads` connections within their
limits; the kernel's backlog has the next ones.  Handshakes happen in the threads, and a stranger's failure
is a counter.
"""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from sealwire.drive.blocking.stream import OnEarlyData, StreamSocket
from sealwire.drive.facts import is_end
from sealwire.limits import Limits
from sealwire.stcp.frames import protocol_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealwire import stcp
    from sealwire.context import Context

# How often a server that waits for a thread looks whether it is to stop.
_LOOK_SECONDS: Final = 0.05
_DEFAULT_THREADS: Final = 64
_DEFAULT_HANDSHAKE_SECONDS: Final = 10.0


class ThreadedServer(socketserver.TCPServer):
    """TLS 1.3 and message mode for :mod:`socketserver`'s handlers.

    Args:
        server_address: host and port; port 0 lets the kernel choose, see `server_address`.
        RequestHandlerClass: called with request, client address and server, once for each connection whose
            handshake is done; the connection is closed when it returns.
        context: a server's :class:`sealwire.Context`; certificates loaded into it later are used for new
            connections.
        threads: connections at a time, handshakes included.
        messages, keepalive, on_early_data: as for :func:`sealwire.wrap_socket`.
        limits: of each connection.
        timeout: of a handler's calls, in seconds; None waits.
        handshake_timeout: seconds a handshake may hold a thread.
        bind_and_activate: whether to bind and listen now.

    Attributes:
        handshakes_failed: connections that never became any.
        handshakes_completed: connections that were given to a handler.

    Raises:
        ConfigurationError: the context cannot serve, or the name of the application cannot be.
        OSError: the address cannot be bound.
    """

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        server_address: tuple[str, int],
        RequestHandlerClass: Callable[[Any, Any, Any], object],
        *,
        context: Context,
        threads: int = _DEFAULT_THREADS,
        messages: bool | str = False,
        keepalive: stcp.Keepalive | None = None,
        limits: Limits | None = None,
        timeout: float | None = None,
        handshake_timeout: float = _DEFAULT_HANDSHAKE_SECONDS,
        on_early_data: OnEarlyData | None = None,
        bind_and_activate: bool = True,
    ) -> None:
        if threads < 1:
            raise ValueError(f"{threads} threads serve nobody")
        context.config()
        protocol_name(messages)
        if ":" in server_address[0]:
            self.address_family = socket.AF_INET6
        self._context = context
        self._messages = messages
        self._keepalive = keepalive
        self._limits = limits or Limits()
        self._call_seconds = timeout
        self._handshake_seconds = handshake_timeout
        self._on_early_data = on_early_data
        self._slots = threading.Semaphore(threads)
        self._pool = ThreadPoolExecutor(threads, "sealwire-connection")
        self._lock = threading.Lock()
        self._connections: set[StreamSocket] = set()
        self._stopping = False
        self.handshakes_failed = 0
        self.handshakes_completed = 0
        self._serving = False
        super().__init__(server_address, RequestHandlerClass, bind_and_activate)  # type: ignore[arg-type]
        # A client that is gone again must not hold up the others.
        self.socket.settimeout(_LOOK_SECONDS)

    @property
    def connections(self) -> int:
        """Connections now, handshakes included."""
        return len(self._connections)

    # -- socketserver's hooks

    def get_request(self) -> tuple[Any, Any]:
        """The next connection, its handshake still to be done.  Waits for a thread first."""
        while not self._slots.acquire(timeout=_LOOK_SECONDS):
            if self._stopping:
                raise OSError("the server stops")
        try:
            sock, address = self.socket.accept()
        except BaseException:
            self._slots.release()
            raise
        try:
            sock.settimeout(self._handshake_seconds)
            secure = StreamSocket(
                sock,
                self._context.config(),
                server_side=True,
                server_hostname=None,
                limits=self._limits,
                on_early_data=self._on_early_data,
                messages=self._messages,
                keepalive=self._keepalive,
            )
        except BaseException:
            sock.close()
            self._slots.release()
            raise
        with self._lock:
            self._connections.add(secure)  # which holds its slot
        return secure, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Have a thread shake hands and run the handler."""
        self._pool.submit(self._work, request, client_address)

    def _work(self, request: StreamSocket, client_address: Any) -> None:
        try:
            if self._shake_hands(request):
                request.settimeout(self._call_seconds)
                self.finish_request(request, client_address)  # type: ignore[arg-type]
        except Exception as error:
            if not is_end(error, request):
                self.handle_error(request, client_address)  # type: ignore[arg-type]
        finally:
            self.shutdown_request(request)

    def _shake_hands(self, request: StreamSocket) -> bool:
        try:
            request.do_handshake()
        except OSError:
            # Strangers do not write our log.
            with self._lock:
                self.handshakes_failed += 1
            return False
        with self._lock:
            self.handshakes_completed += 1
        return True

    def shutdown_request(self, request: Any) -> None:
        """Close a connection in order."""
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        try:
            request.close()
        finally:
            with self._lock:
                held = request in self._connections
                self._connections.discard(request)
            if held:
                self._slots.release()

    # -- ends

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept until :meth:`shutdown` is called in another thread."""
        self._serving = True
        super().serve_forever(poll_interval)

    def shutdown(self) -> None:
        """Stop `serve_forever`, and wait until it has stopped.  Connections live on."""
        self._stopping = True
        if self._serving:
            super().shutdown()
            self._serving = False

    def drain(self, seconds: float) -> int:
        """Stop, tell peers in message mode that we go away, and wait for the handlers; then close.

        Call it from another thread than `serve_forever`, or after it.  Returns how many connections were
        still there after `seconds`, and were closed.
        """
        self.shutdown()
        self.socket.close()
        end = time.monotonic() + seconds
        for secure in self._living():
            try:
                if secure.message_mode:
                    secure.go_away()
            except OSError:
                continue  # it is not connected yet, or no longer
        while (left := len(self._living())) and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
        self.server_close()
        return left

    def server_close(self) -> None:
        """Close the listening socket and every connection, and wait for the handlers.

        A handler that waits for its peer gets :class:`sealwire.ConnectionClosed`.
        """
        self._stopping = True
        super().server_close()
        for secure in self._living():
            secure.hang_up()
        self._pool.shutdown(wait=True)

    def _living(self) -> list[StreamSocket]:
        with self._lock:
            return list(self._connections)
