# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""FrameReader, compiled: the answers of :class:`sealwire.stcp.frames.PlainFrameReader`.

A message that came whole is copied once, out of where it was opened.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t

from sealwire.stcp.frames import CONTROL_BODY_BYTES, Control, malformed, reserved, too_long

cdef enum:
    # As in `frames`.
    MAX_MESSAGE_BYTES = 33554432
    LONGEST_CONTROL = 9
    GATHERED_BYTES = 1024
    # Places of messages that were taken, before the rest moves up.
    FORGOTTEN = 64

cdef uint32_t CONTROL = 0x80000000
cdef uint32_t RESERVED = 0x7C000000
cdef uint32_t LENGTH = 0x03FFFFFF


cdef class FrameReader:
    """See :class:`sealwire.stcp.frames.PlainFrameReader`."""

    def __init__(self, limit):
        self.limit = min(limit, MAX_MESSAGE_BYTES)
        self._queue = []
        self._head = b""
        self._parts = []

    @property
    def messages(self):
        return self._queue[self._first :]

    @property
    def count(self):
        return len(self._queue) - self._first

    @property
    def cut(self):
        return bool(self._missing or self._head)

    def feed(self, content):
        cdef Py_buffer view
        PyObject_GetBuffer(content, &view, PyBUF_SIMPLE)
        try:
            return self.take_in(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef list take_in(self, const uint8_t* content, Py_ssize_t n):
        cdef list controls = []
        cdef Py_ssize_t at = 0
        cdef int64_t length
        cdef bytes joined = None
        cdef bytes body
        cdef uint32_t word
        if self._missing:
            at = self._missing if self._missing < n else n
            self._add(content, at)
            self._missing -= at
            if self._missing:
                return controls
            self._finish(b"".join(self._parts), controls)
            self._drop_parts()
        elif self._head:
            joined = self._head + (<const char*>content)[:n]
            self.held -= len(self._head)
            self._head = b""
            content = <const uint8_t*>PyBytes_AS_STRING(joined)
            n = PyBytes_GET_SIZE(joined)
        while n - at >= WORD_BYTES:
            word = (
                <uint32_t>content[at] << 24 | <uint32_t>content[at + 1] << 16
                | <uint32_t>content[at + 2] << 8 | content[at + 3]
            )
            at += WORD_BYTES
            self._is_control = word > self.limit and self._judge(word)
            length = word & LENGTH
            if length > n - at:
                self._missing = length - (n - at)
                if at < n:
                    self._add(content + at, n - at)
                return controls
            body = PyBytes_FromStringAndSize(<const char*>content + at, length)
            at += length
            self._finish(body, controls)
        if at < n:
            self._head = (<const char*>content)[at:n]
            self.held += n - at
            if content[at] & 0x7C:
                raise reserved()
        return controls

    cdef bint _judge(self, uint32_t word) except -1:
        if word & RESERVED:
            raise reserved()
        if word & CONTROL:
            if not 1 <= (word & LENGTH) <= LONGEST_CONTROL:
                raise malformed(f"a control frame has {word & LENGTH} bytes")
            return True
        raise too_long(word)

    cdef int _add(self, const uint8_t* part, Py_ssize_t n) except -1:
        cdef Py_ssize_t last = len(self._parts) - 1
        self.held += n
        if n >= GATHERED_BYTES:
            self._parts.append((<const char*>part)[:n])
        elif last >= 0 and type(self._parts[last]) is bytearray:
            self._parts[last].extend((<const char*>part)[:n])
        else:
            self._parts.append(bytearray((<const char*>part)[:n]))
        self._parts_bytes += n
        return 0

    cdef int _drop_parts(self) except -1:
        self.held -= self._parts_bytes
        self._parts_bytes = 0
        self._parts.clear()
        return 0

    cdef int _finish(self, bytes body, list controls) except -1:
        cdef Py_ssize_t n = PyBytes_GET_SIZE(body)
        if not self._is_control:
            self._queue.append(body)
            self.ready += n
            self.held += n + MESSAGE_OVERHEAD_BYTES
            return 0
        kind = body[0]
        if CONTROL_BODY_BYTES.get(kind) != n:
            raise malformed(f"a control frame of kind {kind} has {n} bytes")
        controls.append((Control(kind), body[1:]))
        return 0

    def take(self):
        return self.first()

    cdef bytes first(self):
        cdef bytes message
        cdef Py_ssize_t n
        cdef Py_ssize_t count = PyList_GET_SIZE(self._queue)
        if self._first == count:
            return None
        message = self._queue[self._first]
        n = PyBytes_GET_SIZE(message)
        self.ready -= n
        self.held -= n + MESSAGE_OVERHEAD_BYTES
        if count == self._first + 1:
            self._queue = []
            self._first = 0
            return message
        self._queue[self._first] = None
        self._first += 1
        if self._first >= FORGOTTEN and 2 * self._first >= count:
            del self._queue[: self._first]
            self._first = 0
        return message

    def take_all(self):
        messages = self._queue[self._first :]
        self.held -= self.ready + len(messages) * MESSAGE_OVERHEAD_BYTES
        self.ready = 0
        self._queue = []
        self._first = 0
        return messages

    def drop_newest(self, int64_t held):
        while self.held > held and len(self._queue) > self._first:
            message = self._queue.pop()
            self.ready -= len(message)
            self.held -= len(message) + MESSAGE_OVERHEAD_BYTES

    def drop_partial(self):
        self._drop_parts()
        self.held -= len(self._head)
        self._head = b""
        self._missing = 0
