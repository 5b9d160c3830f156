# cython: language_level=3, boundscheck=False, wraparound=False
"""The short way between a socket and whoever reads and writes, compiled: see :mod:`sealwire.drive.aio.line`.

Bytes go from the kernel through the engine (`stcp/_lane`) to a message without an object in between, and
whoever waits for it is called at once instead of in the loop's next turn: he is called by a callback of the
loop, as he would be then.  Errors, ends, timers and everything else are left to the methods in Python.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t

from sealwire.limits._charging cimport LedgerSums
from sealwire.stcp._lane cimport Lane, Queues, Sealed, Sending

import os
import warnings
from asyncio import CancelledError, InvalidStateError

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void* buffer, size_t n, int flags)
    ssize_t send(int fd, const void* buffer, size_t n, int flags)
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* now)
    enum:
        CLOCK_MONOTONIC

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    Py_buffer* PyMemoryView_GET_BUFFER(object view)

cdef enum:
    # As in `stream`.
    READS = 4
    SEAL_BYTES = 131072
    WAITING = 0
    DONE = 1
    CANCELLED = 2

cdef str CONNECTED = "connected"
cdef str CLOSED = "closed"

# How often this process was forked.
cdef long _generation = 0


def _count_fork():
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_count_fork)


cdef inline double monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


@cython.final
@cython.freelist(64)
cdef class Arrival:
    """A future of asyncio's, as far as tasks need one, that can call who waits without the loop."""

    cdef object _loop
    # Pairs of a callback and its context; most often there is one.
    cdef object _callback
    cdef object _context
    cdef list _others
    cdef object _message
    cdef int _state
    cdef public object _asyncio_future_blocking

    def __cinit__(self, loop):
        self._loop = loop
        self._asyncio_future_blocking = False

    def get_loop(self):
        return self._loop

    def done(self):
        return self._state != WAITING

    def cancelled(self):
        return self._state == CANCELLED

    def result(self):
        if self._state == DONE:
            return None
        if self._state == CANCELLED:
            raise self._cancelled()
        raise InvalidStateError("Result is not set.")

    def exception(self):
        self.result()
        return None

    def _cancelled(self):
        return CancelledError() if self._message is None else CancelledError(self._message)

    def add_done_callback(self, callback, *, context=None):
        if context is None:
            from contextvars import copy_context

            context = copy_context()
        if self._state != WAITING:
            self._loop.call_soon(callback, self, context=context)
        elif self._callback is None:
            self._callback = callback
            self._context = context
        else:
            if self._others is None:
                self._others = []
            self._others.append((callback, context))

    def remove_done_callback(self, callback):
        kept = [pair for pair in self._pairs() if pair[0] != callback]
        removed = len(self._pairs()) - len(kept)
        self._callback = self._context = self._others = None
        for one, context in kept:
            self.add_done_callback(one, context=context)
        return removed

    def _pairs(self):
        first = [] if self._callback is None else [(self._callback, self._context)]
        return first + (self._others or [])

    def set_result(self, result):
        self._end(DONE)

    def cancel(self, msg=None):
        if self._state != WAITING:
            return False
        self._message = msg
        self._end(CANCELLED)
        return True

    cdef int _end(self, int state) except -1:
        if self._state != WAITING:
            raise InvalidStateError("invalid state")
        self._state = state
        pairs = self._pairs()
        self._callback = self._context = self._others = None
        for callback, context in pairs:
            self._loop.call_soon(callback, self, context=context)
        return 0

    cdef int arrive(self) except -1:
        # As set_result, from a callback of the loop: nobody has to wait for another one.
        cdef object callback = self._callback
        cdef object context = self._context
        if self._state != WAITING:
            return 0
        if callback is None or self._others is not None:
            return self._end(DONE)
        self._state = DONE
        self._callback = self._context = None
        PyContext_Enter(context)
        try:
            callback(self)
        finally:
            PyContext_Exit(context)
        return 0

    def __iter__(self):
        return self

    def __await__(self):
        return self

    def __next__(self):
        if self._state == WAITING:
            self._asyncio_future_blocking = True
            return self
        if self._state == CANCELLED:
            raise self._cancelled()
        raise StopIteration


@cython.final
cdef class Drained:
    """What drain gives where nothing has to be waited for: a coroutine that is at its end."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        raise StopIteration

    def throw(self, kind, value=None, trace=None):
        raise kind if value is None else value

    def close(self):
        pass


cdef Drained DRAINED = Drained()


@cython.final
@cython.freelist(64)
cdef class Reading:
    """The coroutine of a reader's read_message.

    It looks for a message, waits for one, and looks again; whatever else there is to do, its reader's own
    coroutine does.
    """

    cdef object _reader
    cdef Line _line
    cdef Arrival _arrival
    cdef object _long
    cdef bint _begun

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef Arrival arrival = self._arrival
        if self._long is not None:
            return self._long.send(None)
        if arrival is not None:
            if arrival._state == WAITING:
                raise RuntimeError("await wasn't used with future")
            if arrival._state == CANCELLED:
                raise arrival._cancelled()
        self._begun = True
        message = self._line.take_message()
        if message is not None:
            raise StopIteration(message)
        arrival = self._line.message_arrival()
        if arrival is None:
            self._long = self._reader.read_message_slowly()
            return self._long.send(None)
        self._arrival = arrival
        arrival._asyncio_future_blocking = True
        return arrival

    def send(self, value):
        return self.__next__()

    def throw(self, kind, value=None, trace=None):
        self._begun = True
        if self._long is not None:
            return self._long.throw(kind if value is None else value)
        raise kind if value is None else value

    def close(self):
        self._begun = True
        if self._long is not None:
            self._long.close()

    def __del__(self):
        if not self._begun:
            warnings.warn("coroutine 'read_message' was never awaited", RuntimeWarning, stacklevel=2)


cdef class Line:
    """See :class:`sealwire.drive.aio.line.PlainLine`."""

    cdef public object loop
    cdef public object sock
    cdef public Lane _connection
    cdef public object on_turn
    cdef public object _turns
    cdef public object _backlog
    cdef public int64_t _backlog_bytes
    cdef public object _broke
    cdef public object _timer_at
    cdef public bint reading
    cdef public bint _writing
    cdef public bint _dirty
    cdef public bint _close_notify_wanted
    cdef public bint _closing
    cdef public bint _fin_sent
    cdef public bint _eof_received
    cdef list _waiters
    # Those who wait are woken when so many bytes can be read, or at anything for 0.
    cdef int64_t _wanted
    cdef object _buffer
    cdef list _soon
    cdef uint8_t* _room
    cdef Py_ssize_t _room_bytes
    cdef int _fd
    cdef long _made_in
    cdef bint _whole
    cdef int64_t _low_water

    def prepare(self, buffer, own_ciphers, low_water):
        self._buffer = buffer
        self._room = <uint8_t*>PyMemoryView_GET_BUFFER(buffer).buf
        self._room_bytes = len(buffer)
        self._fd = self.sock.fileno()
        self._whole = own_ciphers
        self._low_water = low_water
        self._made_in = _generation
        self._waiters = []
        # The loop knows of those already; it has to be told of the first one only.
        self._soon = self._turns.waiting

    @property
    def read_buffer(self):
        return self._buffer

    # -- whoever waits

    def arrival(self, int64_t n):
        return self._arrive_at(n)

    cdef Arrival _arrive_at(self, int64_t n):
        cdef Arrival waiter = Arrival.__new__(Arrival, self.loop)
        if self._waiters:
            self._wanted = min(self._wanted, n)
        else:
            self._wanted = n
        self._waiters.append(waiter)
        return waiter

    def _wake_waiters(self):
        cdef list waiters = self._waiters
        cdef Arrival waiter
        if waiters:
            self._waiters = []
            for waiter in waiters:
                if waiter._state == WAITING:
                    waiter._end(DONE)

    cdef int _arrived(self) except -1:
        cdef list waiters = self._waiters
        cdef Arrival waiter
        self._waiters = []
        while waiters:
            waiter = waiters.pop(0)
            try:
                waiter.arrive()
            except BaseException:
                # Somebody wants the program to end; the others are told by the loop, if it goes on.
                for waiter in waiters:
                    if waiter._state == WAITING:
                        waiter._end(DONE)
                raise
        return 0

    # -- from the network

    def _readable(self):
        cdef Lane connection = self._connection
        cdef LedgerSums ledger = connection._account._ledger
        cdef ssize_t n
        cdef int turn, failed
        cdef double now
        if (
            not self._whole
            or self._fin_sent
            or connection.error is not None
            or ledger.held > <double>ledger.limit * 0.875
            or self._made_in != _generation
        ):
            self._read()
            return
        now = monotonic()
        try:
            for turn in range(READS):
                with nogil:
                    n = recv(self._fd, self._room, self._room_bytes, MSG_DONTWAIT)
                    failed = errno if n < 0 else 0
                if n < 0:
                    if failed != EAGAIN and failed != EINTR:
                        self._lost(OSError(failed, os.strerror(failed)))
                    break
                if n == 0:
                    self._eof_received = True
                    connection.receive_eof()
                    break
                if not connection.take_records(self._room, n, now):
                    connection.receive_data(self._buffer[:n], now)
                if n < self._room_bytes or connection.error is not None or not connection.want_read:
                    break
        finally:
            if self._eof_received or self._dirty or self.on_turn is not None or not connection.flowing():
                self._turn()
            elif self._waiters and connection.holds(self._wanted):
                self._arrived()

    # -- from the application

    cdef bint _may(self) except -1:
        return (
            self._made_in == _generation
            and not self._close_notify_wanted
            and not self._closing
            and self._connection.state == CONNECTED
        )

    def write_message(self, data):
        if not self._may() or not self._connection.put(data):
            self._queue_message(data)
            return
        if not self._dirty:
            self._dirty = True
            if self._soon:
                self._soon.append(self)
            else:
                self._turns.soon(self)

    def flush(self):
        self._flush_now()

    cdef int _flush_now(self) except -1:
        cdef Lane connection = self._connection
        cdef Sealed sealed
        cdef ssize_t taken
        cdef int failed
        if not self._dirty:
            return 0
        self._dirty = False
        if self._writing or self._backlog_bytes > SEAL_BYTES or self.on_turn is not None:
            self._turn()
            return 0
        if not self._whole or self._fd < 0 or not connection.seal_waiting(
            list(self._backlog) if self._backlog_bytes else [], self._backlog_bytes, &sealed
        ):
            self._send_written()
            return 0
        if sealed.start != NULL:
            with nogil:
                taken = send(self._fd, sealed.start, sealed.n, MSG_DONTWAIT | MSG_NOSIGNAL)
                failed = errno if taken < 0 else 0
            if taken < 0:
                if failed == EAGAIN or failed == EINTR:
                    taken = 0
                else:
                    self._broke = OSError(failed, os.strerror(failed))
                    taken = sealed.n
            connection.went(&sealed, taken)
        if self._backlog_bytes:
            self._backlog.clear()
            self._backlog_bytes = 0
        if (<Sending>connection._outgoing).held or self._broke is not None or self._timer_at is None:
            self._turn()
        return 0

    def next_message(self, reader):
        cdef Reading reading = Reading.__new__(Reading)
        reading._reader = reader
        reading._line = self
        return reading

    def drained(self):
        return DRAINED if self._drained() else None

    cdef bint _drained(self) except -1:
        cdef Lane connection = self._connection
        cdef Queues mode
        cdef int64_t waiting
        if self._made_in != _generation:
            return False
        self._flush_now()
        if connection.state != CONNECTED:
            return False
        waiting = self._backlog_bytes + (<Sending>connection._outgoing).held
        if connection._messages is not None:
            mode = connection._messages
            waiting += mode.waiting
        return waiting <= self._low_water

    cdef object take_message(self):
        if self._made_in != _generation or self._connection._messages is None:
            return None
        message = self._connection.next_message()
        if message is not None and not self.reading:
            self.took()
        return message

    cdef Arrival message_arrival(self):
        cdef Lane connection = self._connection
        if (
            self._made_in != _generation
            or connection._messages is None
            or connection.peer_closed
            or connection.state == CLOSED
        ):
            return None
        self._flush_now()
        return self._arrive_at(1)

    def closed_socket(self):
        self._fd = -1


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_wait(int epoll, epoll_event* events, int most, int timeout)
    enum:
        EPOLLIN
        EPOLLOUT

cdef enum:
    # Ready descriptors served in one turn; what is ready meanwhile is served in the loop's next one, behind
    # everything else that waits for it: acceptors, timers and other people's tasks.
    READY = 256


def serve_ready(poll, dict watched):
    """See :func:`sealwire.drive.aio.line.plain_serve_ready`."""
    cdef epoll_event events[READY]
    cdef int index, n = epoll_wait(poll.fileno(), events, READY, 0)
    for index in range(n):
        found = watched.get(events[index].data.fd)
        if found is None:
            continue
        if found[0] and events[index].events & ~<unsigned int>EPOLLOUT:
            found[2]()
        elif found[1] and events[index].events & ~<unsigned int>EPOLLIN:
            found[3]()
