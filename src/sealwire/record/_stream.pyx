# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""TLS 1.3 stream records, compiled: the answers of `stream_reference`, on libcrypto directly.

A run of data is sealed into one bytes object, record behind record; a run of records is opened into the
buffer of what was received, content behind content.  As with datagrams the GIL is free while enough of it
is computed, and `_busy` keeps a second thread out meanwhile.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from sealwire.crypto cimport _evp
from sealwire.crypto._evp cimport NONCE_BYTES
from sealwire.record._record cimport (
    APPLICATION_DATA,
    MAX_CONTENT_BYTES,
    MAX_INNER_BYTES,
    RELEASE_BYTES,
    STREAM_HEADER_BYTES,
    algorithm_of,
    block_padding,
    check,
    checked,
    content_bytes,
    enter,
    make_nonce,
)

from sealwire.errors import Alert
from sealwire.record.bounds import check_block, check_start, internal_error
from sealwire.record.stream_reference import stream_error

cdef uint64_t MAX_STREAM_SEQUENCE = 0xFFFFFFFFFFFFFFFE


# Alerts, as sealwire.errors.Alert has them.
cdef enum:
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    INTERNAL_ERROR = 80


@cython.final
cdef class StreamSealer:
    """See :class:`sealwire.record.stream_reference.StreamSealer`."""

    def __cinit__(self, provider, spec, keys, epoch, *, sequence=0):
        check_start(b"", sequence, 0, MAX_STREAM_SEQUENCE + 1)
        cdef const uint8_t* key = checked(keys.key, spec.key_bytes, "key")
        cdef const uint8_t* iv = checked(keys.iv, NONCE_BYTES, "iv")
        self._algorithm = algorithm_of(spec)
        self._tag_bytes = _evp.tag_bytes(self._algorithm)
        self._aead = _evp.new_aead(self._algorithm, key, True)
        memcpy(self._iv, iv, NONCE_BYTES)
        self.epoch = epoch
        self.sequence = sequence
        self.seal_limit = spec.seal_limit

    def __dealloc__(self):
        _evp.release(self._aead)
        _evp.cleanse(self._iv, NONCE_BYTES)

    def seal(self, long content_type, content, Py_ssize_t padding=0):
        """See :meth:`sealwire.record.stream_reference.StreamSealer.seal`."""
        cdef Py_buffer view
        PyObject_GetBuffer(content, &view, PyBUF_SIMPLE)
        try:
            check(content_type, view.len, padding)
            return self._seal(
                <uint8_t>content_type, <const uint8_t*>view.buf, view.len, MAX_CONTENT_BYTES, 1, <int>padding, 0, 0
            )
        finally:
            PyBuffer_Release(&view)

    def seal_run(
        self,
        long content_type,
        data,
        Py_ssize_t limit=MAX_CONTENT_BYTES,
        Py_ssize_t block=0,
        Py_ssize_t longest=MAX_INNER_BYTES,
    ):
        """See :meth:`sealwire.record.stream_reference.StreamSealer.seal_run`."""
        cdef Py_buffer view
        check_block(block, longest)
        if not 1 <= limit <= MAX_CONTENT_BYTES:
            raise ValueError(f"records of {limit} bytes are not in 1..{MAX_CONTENT_BYTES}")
        check(content_type, 0, 0)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self._seal(
                <uint8_t>content_type, <const uint8_t*>view.buf, view.len, limit, (view.len + limit - 1) // limit, 0,
                <int>min(block, MAX_INNER_BYTES), <int>longest
            )
        finally:
            PyBuffer_Release(&view)

    cdef bytes _seal(
        self,
        uint8_t content_type,
        const uint8_t* data,
        Py_ssize_t n,
        Py_ssize_t limit,
        Py_ssize_t count,
        int padding,
        int block,
        int longest,
    ):
        # All records but the last are full, so two paddings say it all.
        cdef int last_padding = padding
        cdef uint64_t sequence = self.sequence
        cdef bytes records
        cdef uint8_t* out
        cdef bint sealed
        enter(self._busy)
        # RFC 8446 section 5.3: sequence numbers must not wrap.
        if <uint64_t>count > MAX_STREAM_SEQUENCE + 1 - sequence:
            raise internal_error(f"record numbers of epoch {self.epoch} are used up")
        self.sequence += count
        self.sealed += count
        if block > 1 and count:
            padding = block_padding(<int>limit, block, longest)
            last_padding = block_padding(<int>(n - (count - 1) * limit), block, longest)
        records = PyBytes_FromStringAndSize(
            NULL,
            n + count * (STREAM_HEADER_BYTES + 1 + padding + self._tag_bytes) + (last_padding - padding if count else 0),
        )
        out = <uint8_t*>PyBytes_AS_STRING(records)
        if n < RELEASE_BYTES:
            sealed = self._seal_records(sequence, content_type, data, n, limit, count, padding, last_padding, out)
        else:
            self._busy = True
            with nogil:
                sealed = self._seal_records(sequence, content_type, data, n, limit, count, padding, last_padding, out)
            self._busy = False
        if not sealed:
            raise internal_error("libcrypto could not seal a record")
        return records

    cdef Py_ssize_t sealed_bytes(self, Py_ssize_t n, Py_ssize_t limit) noexcept nogil:
        return n + (n + limit - 1) // limit * (STREAM_HEADER_BYTES + 1 + self._tag_bytes)

    cdef int seal_placed(self, Py_ssize_t n, Py_ssize_t limit, uint8_t* out) except -1:
        cdef Py_ssize_t count = (n + limit - 1) // limit
        cdef uint64_t sequence = self.sequence
        cdef bint sealed
        enter(self._busy)
        # RFC 8446 section 5.3: sequence numbers must not wrap.
        if <uint64_t>count > MAX_STREAM_SEQUENCE + 1 - sequence:
            raise internal_error(f"record numbers of epoch {self.epoch} are used up")
        self.sequence += count
        self.sealed += count
        if n < RELEASE_BYTES:
            sealed = self._seal_in_place(sequence, n, limit, out)
        else:
            self._busy = True
            with nogil:
                sealed = self._seal_in_place(sequence, n, limit, out)
            self._busy = False
        if not sealed:
            raise internal_error("libcrypto could not seal a record")
        return 0

    cdef bint _seal_in_place(self, uint64_t sequence, Py_ssize_t n, Py_ssize_t limit, uint8_t* out) noexcept nogil:
        cdef uint8_t nonce[NONCE_BYTES]
        cdef int part, inner
        while n:
            part = <int>(limit if n > limit else n)
            inner = part + 1
            # RFC 8446 section 5.2: every protected record looks like TLS 1.2 application data.
            out[0] = APPLICATION_DATA
            out[1] = 3
            out[2] = 3
            out[3] = <uint8_t>((inner + self._tag_bytes) >> 8)
            out[4] = <uint8_t>(inner + self._tag_bytes)
            out[STREAM_HEADER_BYTES + part] = APPLICATION_DATA
            make_nonce(self._iv, sequence, nonce)
            if not _evp.seal(
                self._aead, self._algorithm, nonce, out, STREAM_HEADER_BYTES,
                out + STREAM_HEADER_BYTES, inner, out + STREAM_HEADER_BYTES
            ):
                return False
            out += STREAM_HEADER_BYTES + inner + self._tag_bytes
            n -= part
            sequence += 1
        return True

    cdef bint _seal_records(
        self,
        uint64_t sequence,
        uint8_t content_type,
        const uint8_t* data,
        Py_ssize_t n,
        Py_ssize_t limit,
        Py_ssize_t count,
        int padding,
        int last_padding,
        uint8_t* out,
    ) noexcept nogil:
        cdef uint8_t nonce[NONCE_BYTES]
        cdef int part, inner
        while count:
            part = <int>(limit if n > limit else n)
            if count == 1:
                padding = last_padding
            inner = part + 1 + padding
            # RFC 8446 section 5.2: every protected record looks like TLS 1.2 application data.
            out[0] = APPLICATION_DATA
            out[1] = 3
            out[2] = 3
            out[3] = <uint8_t>((inner + self._tag_bytes) >> 8)
            out[4] = <uint8_t>(inner + self._tag_bytes)
            make_nonce(self._iv, sequence, nonce)
            # Long content is not copied in front of its type: it is sealed from where it lies.
            out[STREAM_HEADER_BYTES + part] = content_type
            memset(out + STREAM_HEADER_BYTES + part + 1, 0, padding)
            if not _evp.seal_with_tail(
                self._aead, self._algorithm, nonce, out, STREAM_HEADER_BYTES, data, part, 1 + padding,
                out + STREAM_HEADER_BYTES
            ):
                return False
            out += STREAM_HEADER_BYTES + inner + self._tag_bytes
            data += part
            n -= part
            sequence += 1
            count -= 1
        return True


cdef void place(
    const uint8_t* data, Py_ssize_t n, Py_ssize_t at, Py_ssize_t limit, int tag_bytes, uint8_t* out
) noexcept nogil:
    cdef Py_ssize_t part
    cdef Py_ssize_t within = at % limit
    out += at // limit * (STREAM_HEADER_BYTES + limit + 1 + tag_bytes)
    while n:
        part = limit - within if n > limit - within else n
        memcpy(out + STREAM_HEADER_BYTES + within, data, part)
        data += part
        n -= part
        within = 0
        out += STREAM_HEADER_BYTES + limit + 1 + tag_bytes


@cython.final
cdef class StreamOpener:
    """See :class:`sealwire.record.stream_reference.StreamOpener`."""

    def __cinit__(self, provider, spec, keys, epoch, *, sequence=0):
        check_start(b"", sequence, 0, MAX_STREAM_SEQUENCE + 1)
        cdef const uint8_t* key = checked(keys.key, spec.key_bytes, "key")
        cdef const uint8_t* iv = checked(keys.iv, NONCE_BYTES, "iv")
        self._algorithm = algorithm_of(spec)
        self._tag_bytes = _evp.tag_bytes(self._algorithm)
        self._aead = _evp.new_aead(self._algorithm, key, False)
        memcpy(self._iv, iv, NONCE_BYTES)
        self.epoch = epoch
        self.sequence = sequence
        self.inner_limit = MAX_INNER_BYTES

    def __dealloc__(self):
        _evp.release(self._aead)
        _evp.cleanse(self._iv, NONCE_BYTES)

    def open(self, record):
        """See :meth:`sealwire.record.stream_reference.StreamOpener.open`."""
        cdef Py_buffer view
        enter(self._busy)
        if self._broken:
            raise stream_error(Alert.BAD_RECORD_MAC, "a record failed before; the stream is broken")
        self._broken = True
        PyObject_GetBuffer(record, &view, PyBUF_SIMPLE)
        try:
            opened = self._open(<const uint8_t*>view.buf, view.len - STREAM_HEADER_BYTES)
        finally:
            PyBuffer_Release(&view)
        self._broken = False
        return opened

    def open_run(self, data, Py_ssize_t start, bytearray received):
        """See :meth:`sealwire.record.stream_reference.StreamOpener.open_run`."""
        cdef Py_buffer view, room
        cdef Run run
        cdef Py_ssize_t before = PyByteArray_GET_SIZE(received)
        cdef Py_ssize_t most
        other = None
        enter(self._busy)
        if self._broken:
            raise stream_error(Alert.BAD_RECORD_MAC, "a record failed before; the stream is broken")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if not 0 <= start <= view.len:
                raise ValueError(f"offset {start} is not in 0..{view.len}")
            most = self._inner_bytes(<const uint8_t*>view.buf, start, view.len)
            if not most:
                # Nothing here for this opener but, perhaps, a record that is none of its records.
                return start, 0, None
            PyByteArray_Resize(received, before + most)
            # While this view is held nobody can move the bytes, whoever else has `received`.
            PyObject_GetBuffer(received, &room, PyBUF_WRITABLE)
            self.open_into(<const uint8_t*>view.buf, start, view.len, most, <uint8_t*>room.buf + before, &run)
            if run.content_type:
                other = run.content_type, PyBytes_FromStringAndSize(
                    <char*>room.buf + before + run.filled, run.content
                )
            PyBuffer_Release(&room)
            PyByteArray_Resize(received, before + run.filled)
            if run.failed:
                raise self.failure(&run)
            return run.at, run.messages, other
        finally:
            PyBuffer_Release(&view)

    cdef int open_into(
        self, const uint8_t* data, Py_ssize_t at, Py_ssize_t end, Py_ssize_t most, uint8_t* out, Run* run
    ) except -1:
        enter(self._busy)
        if self._broken:
            raise stream_error(Alert.BAD_RECORD_MAC, "a record failed before; the stream is broken")
        if most < RELEASE_BYTES:
            run[0] = self._open_records(data, at, end, out)
        else:
            self._busy = True
            with nogil:
                run[0] = self._open_records(data, at, end, out)
            self._busy = False
        self.opened += run.opened
        if run.failed:
            self._broken = True
        return 0

    cdef object failure(self, Run* run):
        if run.failed == INTERNAL_ERROR:
            return internal_error(f"record numbers of epoch {self.epoch} are used up")
        return stream_error(Alert(run.failed), run.why.decode())

    cdef Py_ssize_t _inner_bytes(self, const uint8_t* data, Py_ssize_t at, Py_ssize_t end) noexcept nogil:
        # Room for content, type and padding of the whole records that `_open_records` would open.
        cdef Py_ssize_t total = 0
        cdef Py_ssize_t n
        while end - at >= STREAM_HEADER_BYTES and data[at] == APPLICATION_DATA:
            n = <Py_ssize_t>data[at + 3] << 8 | data[at + 4]
            # One that cannot be opened counts too, so that it is met in its turn.
            if n > self.inner_limit + self._tag_bytes:
                total += 1
                break
            at += STREAM_HEADER_BYTES + n
            if at > end:
                break
            total += n if n > self._tag_bytes else 1
        return total

    cdef Run _open_records(
        self, const uint8_t* data, Py_ssize_t at, Py_ssize_t end, uint8_t* out
    ) noexcept nogil:
        cdef uint8_t nonce[NONCE_BYTES]
        cdef Run run
        cdef Py_ssize_t n
        cdef int content
        memset(&run, 0, sizeof(Run))
        run.at = at
        while end - at >= STREAM_HEADER_BYTES and data[at] == APPLICATION_DATA:
            n = <Py_ssize_t>data[at + 3] << 8 | data[at + 4]
            if n > self.inner_limit + self._tag_bytes:
                run.failed, run.why = RECORD_OVERFLOW, b"record is longer than it may be"
                break
            if STREAM_HEADER_BYTES + n > end - at:
                break
            if self.sequence > MAX_STREAM_SEQUENCE:
                run.failed = INTERNAL_ERROR
                break
            make_nonce(self._iv, self.sequence, nonce)
            if n < self._tag_bytes or not _evp.open(
                self._aead, self._algorithm, nonce, data + at, STREAM_HEADER_BYTES,
                data + at + STREAM_HEADER_BYTES, <int>n, out
            ):
                run.failed, run.why = BAD_RECORD_MAC, b"record failed authentication"
                # What was written is nobody's text.
                memset(out, 0, n - self._tag_bytes if n > self._tag_bytes else 0)
                break
            self.sequence += 1
            run.opened += 1
            content = content_bytes(out, <int>n - self._tag_bytes)
            # RFC 8446 section 5.4: a record of zeros only has no type.
            if content < 0:
                run.failed, run.why = UNEXPECTED_MESSAGE, b"record holds only padding"
                break
            at += STREAM_HEADER_BYTES + n
            run.at = at
            if out[content] != APPLICATION_DATA:
                run.content_type = out[content]
                run.content = content
                break
            run.messages += content > 0
            run.filled += content
            out += content
        return run

    cdef tuple _open(self, const uint8_t* data, Py_ssize_t n):
        cdef uint8_t nonce[NONCE_BYTES]
        cdef bint good
        cdef int content
        cdef uint8_t* inner
        if n < 0 or (<Py_ssize_t>data[3] << 8 | data[4]) != n:
            raise stream_error(Alert.DECODE_ERROR, "record and its length disagree")
        if data[0] != APPLICATION_DATA:
            raise stream_error(Alert.UNEXPECTED_MESSAGE, "record is not protected")
        # RFC 8446 section 5.2 allows 256 bytes over the content; section 5.4 then allows one.
        # RFC 8449 section 4 [8449-1]: or what was agreed on.
        if n > self.inner_limit + self._tag_bytes:
            raise stream_error(Alert.RECORD_OVERFLOW, "record is longer than it may be")
        if self.sequence > MAX_STREAM_SEQUENCE:
            raise internal_error(f"record numbers of epoch {self.epoch} are used up")
        if n < self._tag_bytes:
            raise stream_error(Alert.BAD_RECORD_MAC, "record failed authentication")
        inner = <uint8_t*>PyMem_RawMalloc(n)
        if inner == NULL:
            raise MemoryError
        try:
            make_nonce(self._iv, self.sequence, nonce)
            if n < RELEASE_BYTES:
                good = _evp.open(
                    self._aead, self._algorithm, nonce, data, STREAM_HEADER_BYTES,
                    data + STREAM_HEADER_BYTES, <int>n, inner
                )
            else:
                self._busy = True
                with nogil:
                    good = _evp.open(
                        self._aead, self._algorithm, nonce, data, STREAM_HEADER_BYTES,
                        data + STREAM_HEADER_BYTES, <int>n, inner
                    )
                self._busy = False
            if not good:
                raise stream_error(Alert.BAD_RECORD_MAC, "record failed authentication")
            self.sequence += 1
            self.opened += 1
            content = content_bytes(inner, <int>n - self._tag_bytes)
            # RFC 8446 section 5.4: a record of zeros only has no type.
            if content < 0:
                raise stream_error(Alert.UNEXPECTED_MESSAGE, "record holds only padding")
            return inner[content], PyBytes_FromStringAndSize(<char*>inner, content)
        finally:
            PyMem_RawFree(inner)
