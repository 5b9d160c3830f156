# The compiled short way of data through a stream connection, for the driver that moves it.

from libc.stdint cimport int64_t, uint8_t

from sealwire.limits._charging cimport AccountSums
from sealwire.stcp._frames cimport FrameReader


cdef class Queues:
    cdef public AccountSums _account
    cdef public object _limits
    cdef public FrameReader _reader
    cdef public int64_t _charged
    cdef public list _outgoing
    cdef public object _run
    cdef public object _rest
    cdef public dict _controls
    cdef public int64_t waiting
    cdef public double _heard_at
    cdef public bint peer_going_away


cdef class Sending:
    cdef public object _sealer
    cdef public object _padding
    cdef public int64_t held
    cdef public int inner_limit
    cdef public bint used


cdef struct Sealed:
    # Records that wait to be given to the network; `start` is borrowed.
    uint8_t* start
    Py_ssize_t n


cdef class Lane:
    cdef public object state
    cdef public object error
    cdef public bint peer_closed
    cdef public bint _write_closed
    cdef public object _limits
    cdef public object _ledger
    cdef public AccountSums _account
    cdef public list _events
    cdef public object _deframer
    cdef public object _joiner
    cdef public object _opener
    cdef public int _key_updates_in_a_row
    cdef public bytearray _received
    cdef public object _messages
    cdef public object _now
    cdef public object _outgoing
    # What was counted since anybody looked.
    cdef object _counters
    cdef int64_t _bytes_received
    cdef int64_t _bytes_sent
    cdef int64_t _records_opened
    cdef int64_t _records_sealed
    cdef int64_t _messages_received
    cdef int64_t _messages_sent
    # Of the limits, which never change.
    cdef int64_t _receive_most
    cdef int64_t _send_most

    # Take what came at `now`, if it is for the short way; nothing was taken otherwise.
    cdef bint take_records(self, const uint8_t* data, Py_ssize_t n, double now) except -1
    cdef bint _still_runs(self) except -1
    cdef int _keep(self, const uint8_t* data, Py_ssize_t n, double now) except -1
    cdef int _charge_partial(self, Py_ssize_t n) except -1
    cdef Py_ssize_t _open(self, const uint8_t* data, Py_ssize_t at, Py_ssize_t n, double now) except -1
    cdef int _feed(self, Queues mode, const uint8_t* content, Py_ssize_t n, double now) except -1
    # Queue a message, if nothing speaks against it.
    cdef bint put(self, object data) except -1
    # The oldest message, None where there is none.
    cdef object next_message(self)
    # Seal what was written, in message mode, or `pieces` of `n` bytes; false if that is not for the short way.
    # After it `sealed` has to be given to `went`.
    cdef bint seal_waiting(self, list pieces, Py_ssize_t n, Sealed* sealed) except -1
    # The network took so much of what was sealed; what it did not waits, charged.
    cdef int went(self, Sealed* sealed, Py_ssize_t taken) except -1
    # As in Flowing.
    cdef bint flowing(self) except -1
    cdef bint holds(self, int64_t n) except -1
