# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The short way of data through a stream connection, compiled: see :mod:`sealwire.stcp.lane`.

Data is opened and sealed in a buffer that all connections of the process take turns with; a message is
copied once, into the object its reader gets.  Whatever is not simply data, or does not fit, is left to the
methods in Python that say how it is: a short way either does all that they would do, or nothing.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.list cimport PyList_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcpy, memset

from sealwire.limits._charging cimport REASSEMBLY, RECEIVE_QUEUE, SEND_QUEUE, AccountSums, LedgerSums
from sealwire.record._record cimport APPLICATION_DATA, STREAM_HEADER_BYTES
from sealwire.record._stream cimport Run, StreamOpener, StreamSealer, place
from sealwire.stcp._frames cimport MESSAGE_OVERHEAD_BYTES, WORD_BYTES, FrameReader

from sealwire.errors import Alert, LimitReached, ProtocolError
from sealwire.stcp.events import GoingAway

cdef enum:
    EPOCH_APPLICATION = 3
    CIPHERTEXT_LIMIT_BYTES = 16640
    # As in `messages`.
    RUN_BYTES = 65536
    OVERHEAD_BYTES = 64
    RECORD_SHIFT = 9
    # As in `outgoing`.
    RECORD_OVERHEAD_BYTES = 22
    KEY_UPDATE_RECORD_BYTES = 27
    # All that is sealed at once: two runs of messages and what records put around them.
    MOST_SEALED_BYTES = 131072
    SPARE_BYTES = 147456

cdef str CONNECTED = "connected"

# Room to open into and seal in; whoever has it is alone with it.
cdef uint8_t* _spare = NULL


cdef uint8_t* borrow(Py_ssize_t n) except NULL:
    global _spare
    cdef uint8_t* room = _spare
    if room != NULL and n <= SPARE_BYTES:
        _spare = NULL
        return room
    room = <uint8_t*>PyMem_RawMalloc(max(n, SPARE_BYTES))
    if room == NULL:
        raise MemoryError
    return room


cdef void give_back(uint8_t* room) noexcept:
    # One that was made longer is no worse.
    global _spare
    if _spare == NULL:
        _spare = room
    else:
        PyMem_RawFree(room)


cdef inline int64_t _cost(int64_t size) noexcept nogil:
    return size + OVERHEAD_BYTES + (size >> RECORD_SHIFT)


cdef class Queues:
    """What of :class:`sealwire.stcp.messages.MessageMode` the short way looks at."""


cdef class Sending:
    """What of :class:`sealwire.stcp.outgoing.Outgoing` the short way looks at."""


cdef class Lane:
    """See :class:`sealwire.stcp.lane.PlainLane`."""

    @property
    def counters(self):
        counters = self._counters
        if self._bytes_received:
            counters.bytes_received += self._bytes_received
        if self._bytes_sent:
            counters.bytes_sent += self._bytes_sent
        if self._records_opened:
            counters.records_opened += self._records_opened
        if self._records_sealed:
            counters.records_sealed += self._records_sealed
        if self._messages_received:
            counters.messages_received += self._messages_received
        if self._messages_sent:
            counters.messages_sent += self._messages_sent
        self._bytes_received = self._bytes_sent = self._records_opened = self._records_sealed = 0
        self._messages_received = self._messages_sent = 0
        return counters

    @counters.setter
    def counters(self, counters):
        self._counters = counters
        self._receive_most = self._limits.receive_queue_bytes
        self._send_most = self._limits.send_queue_bytes

    # -- in

    def receive_shortly(self, data, now):
        cdef Py_buffer view
        if now is None and self._messages is not None:
            return False
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self.take_records(<const uint8_t*>view.buf, view.len, 0.0 if now is None else now)
        finally:
            PyBuffer_Release(&view)

    cdef bint take_records(self, const uint8_t* data, Py_ssize_t n, double now) except -1:
        cdef bytearray partial
        cdef Py_ssize_t held, at = 0, whole
        cdef const uint8_t* start
        if (
            self.state != CONNECTED
            or self.peer_closed
            or type(self._opener) is not StreamOpener
            or (<StreamOpener>self._opener).epoch < EPOCH_APPLICATION
            or PyByteArray_GET_SIZE(<bytearray>self._joiner._buffer)
        ):
            return False
        partial = self._deframer._partial
        held = PyByteArray_GET_SIZE(partial)
        if held:
            start = <const uint8_t*>PyByteArray_AS_STRING(partial)
            if held < STREAM_HEADER_BYTES or start[0] != APPLICATION_DATA:
                return False
            whole = STREAM_HEADER_BYTES + (<Py_ssize_t>start[3] << 8 | start[4])
            at = whole - held
            if n < at:
                return False
        self._bytes_received += n
        try:
            if held:
                # The record that began in an earlier read.
                self._deframer._partial = bytearray()
                PyByteArray_Resize(partial, whole)
                memcpy(PyByteArray_AS_STRING(partial) + held, data, at)
                self._account.take(REASSEMBLY, held)
                self._open(<const uint8_t*>PyByteArray_AS_STRING(partial), 0, whole, now)
            if not held or self._still_runs():
                at = self._open(data, at, n, now)
            if at < n and not self.peer_closed and self.state == CONNECTED:
                self._keep(data + at, n - at, now)
        except (ProtocolError, LimitReached) as error:
            self._fail(error)
        except Exception:
            self._fail(ProtocolError(Alert.INTERNAL_ERROR, "a callback or sealwire itself failed"))
            raise
        return True

    cdef bint _still_runs(self) except -1:
        return (
            self.state == CONNECTED
            and not self.peer_closed
            and type(self._opener) is StreamOpener
            and not PyByteArray_GET_SIZE(<bytearray>self._joiner._buffer)
        )

    cdef Py_ssize_t _open(self, const uint8_t* data, Py_ssize_t at, Py_ssize_t n, double now) except -1:
        # Open the run of records at `at` and hand on what was in them; the offset behind it.
        cdef StreamOpener opener = self._opener
        cdef Py_ssize_t most = opener._inner_bytes(data, at, n)
        cdef Queues mode
        cdef bytearray received
        cdef Py_ssize_t before
        cdef uint8_t* out
        cdef Run run
        cdef bytes content = None
        if not most:
            return at
        if self._messages is None:
            received = self._received
            before = PyByteArray_GET_SIZE(received)
            PyByteArray_Resize(received, before + most)
            # While the view is held nobody can move the bytes.
            view = memoryview(received)
            out = <uint8_t*>PyByteArray_AS_STRING(received) + before
            memset(&run, 0, sizeof(Run))
            try:
                opener.open_into(data, at, n, most, out, &run)
                if run.content_type:
                    content = (<const char*>out)[run.filled : run.filled + run.content]
            finally:
                view.release()
                PyByteArray_Resize(received, before + run.filled)
            self._records_opened += run.opened
            if run.filled:
                self._key_updates_in_a_row = 0
                if not self._account.add_quietly(RECEIVE_QUEUE, run.filled):
                    self._charge_received(before)
                self._messages_received += run.messages
        else:
            mode = self._messages
            out = borrow(most)
            try:
                opener.open_into(data, at, n, most, out, &run)
                self._records_opened += run.opened
                if run.content_type:
                    content = (<const char*>out)[run.filled : run.filled + run.content]
                if run.filled:
                    self._key_updates_in_a_row = 0
                    self._feed(mode, out, run.filled, now)
            finally:
                give_back(out)
        if run.failed:
            raise opener.failure(&run)
        if run.content_type:
            self._now = now
            self._receive_content(run.content_type, content)
        return run.at

    cdef int _feed(self, Queues mode, const uint8_t* content, Py_ssize_t n, double now) except -1:
        # As MessageMode.receive.
        cdef FrameReader reader = mode._reader
        cdef Py_ssize_t before = PyList_GET_SIZE(reader._queue)
        cdef int64_t more
        cdef bint went
        mode._heard_at = now
        try:
            controls = reader.take_in(content, n)
        except ProtocolError:
            mode._account_for_it()
            raise
        self._messages_received += PyList_GET_SIZE(reader._queue) - before
        more = reader.held - mode._charged
        if more > 0 and self._account.add_quietly(RECEIVE_QUEUE, more):
            mode._charged = reader.held
        elif more and not mode._account_for_it():
            raise LimitReached(self._account._ledger.refused_by, f"no room for {n} bytes of messages")
        if controls:
            went = mode.peer_going_away
            for kind, token in controls:
                mode._receive_control(kind, token, now)
            if mode.peer_going_away and not went:
                self._events.append(GoingAway())
        return 0

    cdef int _keep(self, const uint8_t* data, Py_ssize_t n, double now) except -1:
        cdef Py_ssize_t body = 0
        if data[0] == APPLICATION_DATA:
            if n >= STREAM_HEADER_BYTES:
                body = <Py_ssize_t>data[3] << 8 | data[4]
            if body <= CIPHERTEXT_LIMIT_BYTES and n < STREAM_HEADER_BYTES + body or n < STREAM_HEADER_BYTES:
                # The beginning of a record, for later.
                self._deframer._partial += (<const char*>data)[:n]
                self._charge_partial(n)
                return 0
        self._now = now
        self._receive_records(PyMemoryView_FromMemory(<char*>data, n, 0x100))
        if self.state == CONNECTED and not self.peer_closed:
            self._charge_partial(PyByteArray_GET_SIZE(<bytearray>self._deframer._partial))
        return 0

    cdef int _charge_partial(self, Py_ssize_t n) except -1:
        if n and not self._account.add(REASSEMBLY, n):
            raise LimitReached(self._account._ledger.refused_by, f"there is no room for {n} bytes")
        return 0

    cdef object next_message(self):
        cdef Queues mode = self._messages
        cdef FrameReader reader = mode._reader
        cdef bytes message
        cdef int64_t n
        message = reader.first()
        if message is None:
            return None
        n = PyBytes_GET_SIZE(message) + MESSAGE_OVERHEAD_BYTES
        mode._charged -= n
        self._account.take(RECEIVE_QUEUE, n)
        return message

    # -- out

    def write_shortly(self, data):
        return self.put(data)

    cdef bint put(self, object data) except -1:
        cdef Queues mode
        cdef int64_t size, cost
        if type(data) is not bytes or self.state != CONNECTED or self._write_closed or self._messages is None:
            return False
        mode = self._messages
        size = PyBytes_GET_SIZE(data)
        if size > mode._reader.limit or size > RUN_BYTES or mode.waiting >= self._send_most:
            return False
        cost = _cost(size)
        if not self._account.add_quietly(SEND_QUEUE, cost):
            return False
        mode._outgoing.append(data)
        self._messages_sent += 1
        mode.waiting += size + WORD_BYTES
        return True

    cdef bint seal_waiting(self, list pieces, Py_ssize_t n, Sealed* sealed) except -1:
        cdef Sending outgoing = self._outgoing
        cdef StreamSealer sealer
        cdef Queues mode = None
        cdef Py_ssize_t limit, at = 0, records
        cdef int64_t cost = 0
        cdef int64_t size
        cdef uint8_t* out
        cdef uint8_t word[WORD_BYTES]
        cdef int tag
        if self.state != CONNECTED or outgoing.held or type(outgoing._sealer) is not StreamSealer:
            return False
        if outgoing._padding:
            return False
        if self._messages is not None:
            mode = self._messages
            n = mode.waiting
            if mode._run or mode._rest or mode._controls:
                return False
            pieces = mode._outgoing
            for piece in pieces:
                size = PyBytes_GET_SIZE(piece)
                if size > RUN_BYTES:
                    return False
                cost += _cost(size)
        sealed.start = NULL
        sealed.n = 0
        if not n:
            return True
        if n > MOST_SEALED_BYTES:
            return False
        sealer = outgoing._sealer
        limit = outgoing.inner_limit - 1
        records = (n + limit - 1) // limit
        # RFC 8446 section 5.5 [8446-POST-2]: one record is kept for the KeyUpdate.
        if <int64_t>sealer.seal_limit - <int64_t>sealer.sealed - 1 < records:
            return False
        if not self._account.has_room(
            SEND_QUEUE, n + records * RECORD_OVERHEAD_BYTES + KEY_UPDATE_RECORD_BYTES - cost
        ):
            return False
        tag = sealer._tag_bytes
        out = borrow(sealer.sealed_bytes(n, limit))
        try:
            for piece in pieces:
                if mode is not None:
                    size = PyBytes_GET_SIZE(piece)
                    word[0] = <uint8_t>(size >> 24)
                    word[1] = <uint8_t>(size >> 16)
                    word[2] = <uint8_t>(size >> 8)
                    word[3] = <uint8_t>size
                    place(word, WORD_BYTES, at, limit, tag, out)
                    at += WORD_BYTES
                    place(<const uint8_t*>PyBytes_AS_STRING(piece), size, at, limit, tag, out)
                else:
                    size = _place_piece(piece, at, limit, tag, out)
                at += size
            if mode is not None:
                mode._outgoing = []
                mode.waiting = 0
                self._account.take(SEND_QUEUE, cost)
            else:
                self._messages_sent += 1
            sealer.seal_placed(n, limit, out)
        except BaseException:
            give_back(out)
            raise
        outgoing.used = True
        self._records_sealed += records
        sealed.start = out
        sealed.n = sealer.sealed_bytes(n, limit)
        return True

    def send_shortly(self, data, write):
        cdef Sealed sealed
        cdef Py_ssize_t taken
        if not self.seal_waiting([data], len(data), &sealed):
            return False
        if sealed.start != NULL:
            try:
                taken = write((<const char*>sealed.start)[: sealed.n])
            except BaseException:
                # What became of it nobody knows, so it is not sent again.
                self.went(&sealed, sealed.n)
                raise
            self.went(&sealed, taken)
        return True

    cdef int went(self, Sealed* sealed, Py_ssize_t taken) except -1:
        rest = None
        if taken < sealed.n:
            rest = (<const char*>sealed.start)[taken : sealed.n]
        give_back(sealed.start)
        self._bytes_sent += taken
        if rest is not None:
            self._outgoing._append(rest)
        return 0

    # -- what there is to do

    cdef bint flowing(self) except -1:
        cdef LedgerSums ledger
        cdef Queues mode
        if self.state != CONNECTED or self.peer_closed or self._events or (<Sending>self._outgoing).held:
            return False
        if self._messages is None:
            if PyByteArray_GET_SIZE(self._received) >= self._receive_most:
                return False
        else:
            mode = self._messages
            if mode.waiting or mode._controls or mode._reader.ready >= self._receive_most:
                return False
        ledger = self._account._ledger
        return ledger.held <= <double>ledger.limit * 0.875

    cdef bint holds(self, int64_t n) except -1:
        cdef FrameReader reader
        if self._messages is None:
            return PyByteArray_GET_SIZE(self._received) >= n
        reader = (<Queues>self._messages)._reader
        return PyList_GET_SIZE(reader._queue) - reader._first >= n


cdef Py_ssize_t _place_piece(piece, Py_ssize_t at, Py_ssize_t limit, int tag, uint8_t* out) except -1:
    cdef Py_buffer view
    PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE)
    place(<const uint8_t*>view.buf, view.len, at, limit, tag, out)
    PyBuffer_Release(&view)
    return view.len
