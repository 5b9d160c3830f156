# cython: language_level=3, boundscheck=False, wraparound=False
"""The sums of ledgers and accounts, compiled: see :mod:`sealwire.limits.charging`, whose classes are the twins.

A purpose is its place in the enumeration here.
"""

from libc.stdint cimport int64_t
from libc.string cimport memset

# Purpose -> place, place -> Purpose, and place -> the field of Limits for its sum.
cdef dict _places = {}
cdef tuple _purposes = ()
cdef tuple _names = ()


def learn(tuple purposes, dict limits):
    """What purposes there are, in order, and the names of their limits; once, before anything else."""
    global _purposes, _names
    if len(purposes) != PURPOSES or [one.name for one in purposes[2:5]] != [
        "REASSEMBLY", "RECEIVE_QUEUE", "SEND_QUEUE"
    ]:
        raise ImportError("_charging was built for other purposes: build it again")
    _purposes = purposes
    _places.update({purpose: place for place, purpose in enumerate(purposes)})
    _names = tuple(limits.get(purpose) for purpose in purposes)


cdef class PrefixSums:
    """See :class:`sealwire.limits.charging.PlainPrefixSums`."""

    def __init__(self, int64_t limit):
        self.limit = limit


cdef class LedgerSums:
    """See :class:`sealwire.limits.charging.PlainLedgerSums`."""

    def __init__(self, int64_t limit, dict caps):
        self.limit = limit
        for purpose, cap in caps.items():
            self._caps[<int>_places[purpose]] = cap

    def charge(self, purpose, int64_t n):
        cdef int place = _places[purpose]
        cdef int64_t held = self.held + n
        cdef int64_t mine = self._sums[place] + n
        if held > self.limit or mine > self._caps[place]:
            self.refuse("total_bytes" if held > self.limit else _names[place])
            return False
        self.held = held
        self._sums[place] = mine
        if held > self.peak:
            self.peak = held
        if held >= self._rises_at:
            self._change_level()
        return True

    def release(self, purpose, int64_t n):
        cdef int place = _places[purpose]
        if self._sums[place] < n:
            raise _never_charged(place, n - self._sums[place])
        self._sums[place] -= n
        self.held -= n
        if self.held < self._falls_at:
            self._change_level()

    def charge_table(self, int64_t n):
        self._sums[<int>_places[_purposes[7]]] += n

    def held_for(self, purpose):
        return self._sums[<int>_places[purpose]]


cdef class AccountSums:
    """See :class:`sealwire.limits.charging.PlainAccountSums`."""

    def __init__(self, LedgerSums ledger not None, int64_t limit, bint is_connection):
        self._ledger = ledger
        self._prefixes = ()
        self._connections = self._handshakes = is_connection
        self.limit = limit

    def charge(self, purpose, int64_t n):
        return self.add(_places[purpose], n)

    def fits(self, purpose, int64_t n):
        return self.has_room(_places[purpose], n)

    def release(self, purpose, int64_t n):
        self.take(_places[purpose], n)

    cdef bint add(self, int purpose, int64_t n) except -1:
        cdef LedgerSums ledger = self._ledger
        cdef int64_t held = self.held + n
        cdef int64_t total = ledger.held + n
        cdef int64_t mine = ledger._sums[purpose] + n
        cdef PrefixSums prefix
        if held > self.limit:
            ledger.refuse("handshake_bytes" if self._handshakes else "connection_bytes")
            return False
        for prefix in self._prefixes:
            if prefix.held + n > prefix.limit:
                ledger.refuse(prefix.bytes_name)
                return False
        if total > ledger.limit or mine > ledger._caps[purpose]:
            ledger.refuse("total_bytes" if total > ledger.limit else _names[purpose])
            return False
        return self._count(purpose, n, total)

    cdef bint add_quietly(self, int purpose, int64_t n) except -1:
        return self.has_room(purpose, n) and self._count(purpose, n, self._ledger.held + n)

    cdef bint _count(self, int purpose, int64_t n, int64_t total) except -1:
        cdef LedgerSums ledger = self._ledger
        cdef PrefixSums prefix
        ledger.held = total
        ledger._sums[purpose] += n
        if total > ledger.peak:
            ledger.peak = total
        self.held += n
        for prefix in self._prefixes:
            prefix.held += n
        self._sums[purpose] += n
        if total >= ledger._rises_at:
            ledger._change_level()
        return True

    cdef bint has_room(self, int purpose, int64_t n) except -1:
        cdef LedgerSums ledger = self._ledger
        cdef PrefixSums prefix
        if (
            self.held + n > self.limit
            or ledger.held + n > ledger.limit
            or ledger._sums[purpose] + n > ledger._caps[purpose]
        ):
            return False
        for prefix in self._prefixes:
            if prefix.held + n > prefix.limit:
                return False
        return True

    cdef int take(self, int purpose, int64_t n) except -1:
        cdef LedgerSums ledger = self._ledger
        cdef PrefixSums prefix
        if self._sums[purpose] < n:
            raise _never_charged(purpose, n - self._sums[purpose])
        self._sums[purpose] -= n
        self.held -= n
        for prefix in self._prefixes:
            prefix.held -= n
        ledger._sums[purpose] -= n
        ledger.held -= n
        if ledger.held < ledger._falls_at:
            ledger._change_level()
        return 0

    def held_for(self, purpose):
        return self._sums[<int>_places[purpose]]

    def _held_for_each(self):
        return [(_purposes[place], self._sums[place]) for place in range(PURPOSES) if self._sums[place]]

    def _forget(self):
        memset(self._sums, 0, sizeof(self._sums))
        self.held = 0


cdef object _never_charged(int purpose, int64_t n):
    return AssertionError(f"released {n} bytes of {_purposes[purpose].value} that were never charged")
