# cython: language_level=3, boundscheck=False, wraparound=False
"""Reader and Writer of :mod:`sealwire.wire`, compiled: some six hundred of their calls make a handshake.

The classes there are the twins and say what each method does.  Bytes are read where they lie; a bytearray
or memoryview, which could change or move, is asked byte by byte, as the twin does.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_Check,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from sealwire.errors import Alert, ProtocolError


cdef object _malformed(str what):
    return ProtocolError(Alert.DECODE_ERROR, f"{what} is malformed")


@cython.final
@cython.no_gc
@cython.freelist(32)
cdef class Reader:
    """See :class:`sealwire.wire.PlainReader`."""

    cdef object _data
    # Where the bytes lie; NULL where they have to be asked for.
    cdef const uint8_t* _bytes
    cdef Py_ssize_t _at
    cdef Py_ssize_t _end
    cdef public str what

    def __init__(self, data, str what="message", Py_ssize_t start=0, end=None):
        self._begin(data, what, start, len(data) if end is None else end)

    cdef int _begin(self, data, str what, Py_ssize_t start, Py_ssize_t end) except -1:
        self._data = data
        self._bytes = NULL
        # Bounds outside of the bytes are a mistake of ours; the twin meets it when it looks there.
        if PyBytes_CheckExact(data) and 0 <= start and end <= PyBytes_GET_SIZE(data):
            self._bytes = <const uint8_t*>PyBytes_AS_STRING(data)
        self._at = start
        self._end = end
        self.what = what
        return 0

    @property
    def remaining(self):
        return self._end - self._at

    @property
    def position(self):
        return self._at

    cdef inline Py_ssize_t _advance(self, Py_ssize_t n) except -1:
        cdef Py_ssize_t start = self._at
        if n < 0 or n > self._end - start:
            raise _malformed(self.what)
        self._at = start + n
        return start

    cdef inline unsigned long long _number(self, int n) except? 0xFFFFFFFFFFFFFFFF:
        cdef Py_ssize_t start = self._advance(n)
        cdef unsigned long long value = 0
        cdef uint8_t byte
        cdef int i
        if self._bytes != NULL:
            for i in range(n):
                value = value << 8 | self._bytes[start + i]
        else:
            for i in range(n):
                byte = self._data[start + i]
                value = value << 8 | byte
        return value

    cdef inline bytes _take(self, Py_ssize_t n):
        cdef Py_ssize_t start = self._advance(n)
        if self._bytes != NULL:
            return PyBytes_FromStringAndSize(<const char*>self._bytes + start, n)
        return bytes(self._data[start : start + n])

    cdef inline Reader _sub(self, Py_ssize_t n, str what):
        cdef Py_ssize_t start = self._advance(n)
        cdef Reader inner = Reader.__new__(Reader)
        inner._data = self._data
        inner._bytes = self._bytes
        inner._at = start
        inner._end = start + n
        inner.what = what or self.what
        return inner

    cdef inline bytes _vector(self, Py_ssize_t n, Py_ssize_t low, Py_ssize_t high):
        if n < low or n > high:
            raise _malformed(self.what)
        return self._take(n)

    def u8(self):
        return self._number(1)

    def u16(self):
        return self._number(2)

    def u24(self):
        return self._number(3)

    def u32(self):
        return self._number(4)

    def u48(self):
        return self._number(6)

    def u64(self):
        return self._number(8)

    def u64s(self):
        cdef Py_ssize_t n = self._end - self._at
        if n % 8:
            raise _malformed(self.what)
        return tuple([self._number(8) for _ in range(n // 8)])

    def take(self, Py_ssize_t n):
        return self._take(n)

    def rest(self):
        return self._take(self._end - self._at)

    def sub(self, Py_ssize_t n, str what=None):
        return self._sub(n, what)

    def sub8(self, str what=None):
        return self._sub(<Py_ssize_t>self._number(1), what)

    def sub16(self, str what=None):
        return self._sub(<Py_ssize_t>self._number(2), what)

    def sub24(self, str what=None):
        return self._sub(<Py_ssize_t>self._number(3), what)

    def vector8(self, Py_ssize_t low=0, Py_ssize_t high=0xFF):
        return self._vector(<Py_ssize_t>self._number(1), low, high)

    def vector16(self, Py_ssize_t low=0, Py_ssize_t high=0xFFFF):
        return self._vector(<Py_ssize_t>self._number(2), low, high)

    def vector24(self, Py_ssize_t low=0, Py_ssize_t high=0xFFFFFF):
        return self._vector(<Py_ssize_t>self._number(3), low, high)

    def list16_of_u16(self):
        cdef Py_ssize_t n = <Py_ssize_t>self._number(2)
        if n == 0 or n % 2 or n > self._end - self._at:
            raise _malformed(self.what)
        return tuple([self._number(2) for _ in range(n // 2)])

    def finish(self):
        if self._at != self._end:
            raise _malformed(self.what)


cdef int _put_byte(bytearray out, value) except -1:
    cdef Py_ssize_t size = PyByteArray_GET_SIZE(out)
    cdef long number
    try:
        number = value
    except OverflowError:
        number = -1
    if not 0 <= number <= 0xFF:
        raise ValueError("byte must be in range(0, 256)")
    PyByteArray_Resize(out, size + 1)
    (<uint8_t*>PyByteArray_AS_STRING(out))[size] = <uint8_t>number
    return 0


cdef int _put(bytearray out, value, int n) except -1:
    # What is negative, or above 64 bits, is an OverflowError of the conversion.
    cdef unsigned long long number = value
    cdef Py_ssize_t size = PyByteArray_GET_SIZE(out)
    cdef uint8_t* start
    cdef int i
    if n < 8 and number >> (8 * n):
        raise OverflowError("int too big to convert")
    PyByteArray_Resize(out, size + n)
    start = <uint8_t*>PyByteArray_AS_STRING(out) + size
    for i in range(n):
        start[i] = <uint8_t>(number >> (8 * (n - 1 - i)))
    return 0


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class _Length:
    cdef bytearray _out
    cdef int _size
    cdef Py_ssize_t _start

    def __enter__(self):
        pass

    def __exit__(self, *error):
        cdef Py_ssize_t body = self._start + self._size
        cdef Py_ssize_t n = PyByteArray_GET_SIZE(self._out) - body
        cdef uint8_t* start = <uint8_t*>PyByteArray_AS_STRING(self._out) + self._start
        cdef int i
        if n < 0 or n >> (8 * self._size):
            raise OverflowError("int too big to convert")
        for i in range(self._size):
            start[i] = <uint8_t>(n >> (8 * (self._size - 1 - i)))


@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class Writer:
    """See :class:`sealwire.wire.PlainWriter`."""

    cdef bytearray _out
    # Where what is put in by finish() belongs; None without any.
    cdef list _hidden

    def __cinit__(self):
        self._out = bytearray()

    def __len__(self):
        return PyByteArray_GET_SIZE(self._out)

    def u8(self, value):
        _put_byte(self._out, value)

    def u16(self, value):
        _put(self._out, value, 2)

    def u24(self, value):
        _put(self._out, value, 3)

    def u32(self, value):
        _put(self._out, value, 4)

    def u48(self, value):
        _put(self._out, value, 6)

    def u64(self, value):
        _put(self._out, value, 8)

    def raw(self, value):
        self._out += value

    def vector8(self, value):
        _put_byte(self._out, len(value))
        self._out += value

    def hidden8(self, secret):
        # A Secret is one of bytes' children.
        if not PyBytes_Check(secret):
            raise TypeError("a secret is bytes")
        cdef Py_ssize_t start, n = PyBytes_GET_SIZE(secret)
        _put_byte(self._out, n)
        start = PyByteArray_GET_SIZE(self._out)
        if self._hidden is None:
            self._hidden = []
        self._hidden.append((start, secret))
        PyByteArray_Resize(self._out, start + n)
        memset(PyByteArray_AS_STRING(self._out) + start, 0, n)

    def vector16(self, value):
        _put(self._out, len(value), 2)
        self._out += value

    def vector24(self, value):
        _put(self._out, len(value), 3)
        self._out += value

    cdef _Length _length(self, int size):
        cdef _Length length = _Length.__new__(_Length)
        cdef Py_ssize_t start = PyByteArray_GET_SIZE(self._out)
        length._out = self._out
        length._size = size
        length._start = start
        PyByteArray_Resize(self._out, start + size)
        memset(PyByteArray_AS_STRING(self._out) + start, 0, size)
        return length

    def length8(self):
        return self._length(1)

    def length16(self):
        return self._length(2)

    def length24(self):
        return self._length(3)

    def finish(self):
        cdef bytes built = PyBytes_FromStringAndSize(
            PyByteArray_AS_STRING(self._out), PyByteArray_GET_SIZE(self._out)
        )
        cdef Py_ssize_t start
        if self._hidden is not None:
            for start, secret in self._hidden:
                memcpy(PyBytes_AS_STRING(built) + start, PyBytes_AS_STRING(secret), PyBytes_GET_SIZE(secret))
        return built
