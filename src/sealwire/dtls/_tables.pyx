# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The gate's fixed tables, used from C: pieces of hellos (`slab.py`), who is answered (`strangers.py`).

These objects own nothing: they point into the arrays of the plain ones and do to them exactly what
those do, so that the two can take turns.
"""

cimport cython
from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset

from sealwire.dtls._places cimport TEXT_BYTES, Place, hash_of, put_number

from sealwire.dtls import slab, strangers

cdef int WAYS = slab.WAYS
assert slab.RANGES == RANGES

cdef int ROWS = strangers.ROWS
cdef int COLUMNS = strangers.COLUMNS
cdef int PARTS = strangers.PARTS
cdef uint64_t PART_BITS = strangers.PART_BITS
cdef size_t FILTER_BYTES = strangers.FILTER_BYTES
cdef double GENERATION_SECONDS = strangers.GENERATION_SECONDS
cdef int ALERTS_PER_SECOND = strangers.ALERTS_PER_SECOND
cdef enum:
    WINDOW = 0
    GENERATION = 1
    ALERTS_SINCE = 2
    HELLOS = 0
    REPLIES = 1
    REPLY_BYTES = 2
    ALERTS = 3
    LOADED = 4
    FORCED = 5
    NEWER_ROWS = 6
    NEWER_BITS = 7
assert (strangers.WINDOW, strangers.GENERATION, strangers.ALERTS_SINCE) == (WINDOW, GENERATION, ALERTS_SINCE)
assert (strangers.HELLOS, strangers.REPLIES, strangers.REPLY_BYTES, strangers.ALERTS) == (
    HELLOS, REPLIES, REPLY_BYTES, ALERTS
)
assert (strangers.LOADED, strangers.FORCED, strangers.NEWER_ROWS, strangers.NEWER_BITS) == (
    LOADED, FORCED, NEWER_ROWS, NEWER_BITS
)


@cython.final
cdef class Slab:
    """Points into the arrays of a HelloSlab and does what its methods do."""

    def __init__(self, owner):
        self.data, self.tag, self.stamp, self.length = owner.data, owner.tag, owner.stamp, owner.length
        self.received, self.record, self.ranges = owner.received, owner.record, owner.ranges
        self.key = owner.key
        self.provider = owner.provider
        self.size = owner.size
        self.buckets = owner.slots // WAYS
        self.seconds = owner.seconds

    cdef uint64_t tag_of(self, int seq, const Place* place) noexcept:
        cdef uint8_t text[32 + 2 + TEXT_BYTES]
        cdef size_t n = len(self.key)
        memcpy(text, <const uint8_t*>self.key, n)
        put_number(text + n, seq, 2)
        memcpy(text + n + 2, place.text, place.text_n)
        return hash_of(text, n + 2 + place.text_n)

    cdef int64_t occupied(self, uint64_t tag) noexcept:
        cdef size_t first = tag % self.buckets * WAYS
        cdef size_t slot
        for slot in range(first, first + WAYS):
            if self.stamp[slot] != -INFINITY and self.tag[slot] == tag:
                return slot
        return -1

    cdef int64_t find(self, uint64_t tag, double now) except -2:
        """The slot of `tag`, else one it may take (marked free), else -1."""
        cdef int64_t slot = self.occupied(tag)
        cdef size_t first = tag % self.buckets * WAYS
        cdef size_t one
        cdef int old = 0
        cdef int chosen
        if slot >= 0:
            return slot
        for one in range(first, first + WAYS):
            if self.stamp[one] == -INFINITY:
                return one
            old += now - self.stamp[one] > self.seconds
        if not old:
            return -1
        chosen = self.provider.random(1)[0] % old
        for one in range(first, first + WAYS):
            if now - self.stamp[one] > self.seconds:
                if chosen == 0:
                    self.stamp[one] = -INFINITY
                    return one
                chosen -= 1
        return -1

    cdef void take(self, size_t slot, uint64_t tag, size_t length, double now) noexcept:
        self.tag[slot] = tag
        self.stamp[slot] = now
        self.length[slot] = <uint16_t>length
        self.received[slot] = 0
        self.record[slot] = 0
        memset(&self.ranges[slot * 2 * RANGES], 0, 4 * RANGES)

    cdef bint mark(self, size_t slot, size_t offset, const uint8_t* data, size_t n) noexcept:
        """Add a range to the slot's; 0 if there would be too many, or known bytes differ."""
        cdef uint16_t* held = &self.ranges[slot * 2 * RANGES]
        cdef uint8_t* base = &self.data[slot * self.size]
        cdef uint32_t merged[2 * (RANGES + 1)]
        cdef uint32_t start = <uint32_t>offset, end = <uint32_t>(offset + n)
        cdef uint32_t low, high, common_low, common_high
        cdef int kept = 0, i, at
        for i in range(RANGES):
            low, high = held[2 * i], held[2 * i + 1]
            if low == 0 and high == 0:
                continue
            if high < start or low > end:
                merged[2 * kept], merged[2 * kept + 1] = low, high
                kept += 1
                continue
            common_low = max(low, <uint32_t>offset)
            common_high = min(high, <uint32_t>(offset + n))
            if common_low < common_high and memcmp(
                base + common_low, data + (common_low - offset), common_high - common_low
            ):
                return False
            start, end = min(start, low), max(end, high)
        if kept + 1 > RANGES:
            return False
        # They stay in order.
        at = 0
        while at < kept and merged[2 * at] < start:
            at += 1
        memmove(merged + 2 * at + 2, merged + 2 * at, 8 * (kept - at))
        merged[2 * at], merged[2 * at + 1] = start, end
        for i in range(2 * RANGES):
            held[i] = <uint16_t>merged[i] if i < 2 * (kept + 1) else 0
        return True

    cdef int put(
        self, uint64_t tag, size_t length, size_t offset, const uint8_t* data, size_t n,
        uint64_t record, size_t datagram_bytes, double now, int64_t* where
    ) except -1:
        """0: no room, or it contradicts; 1: kept; 2: the hello is whole, in the slot `where`."""
        cdef int64_t slot
        cdef uint16_t* held
        cdef uint64_t received
        if length > self.size:
            return 0
        slot = self.find(tag, now)
        if slot < 0:
            return 0
        if self.stamp[slot] == -INFINITY:
            self.take(slot, tag, length, now)
        if self.length[slot] != length or not self.mark(slot, offset, data, n):
            if now - self.stamp[slot] <= self.seconds:
                return 0
            # What is left of an older attempt gives way to the new one.
            self.take(slot, tag, length, now)
            self.mark(slot, offset, data, n)
        memcpy(&self.data[slot * self.size] + offset, data, n)
        received = self.received[slot] + datagram_bytes
        self.received[slot] = min(received, <uint64_t>0xFFFFFFFF)
        if record > self.record[slot]:
            self.record[slot] = record
        held = &self.ranges[slot * 2 * RANGES]
        if held[0] != 0 or held[1] != length:
            return 1
        self.stamp[slot] = -INFINITY
        where[0] = slot
        return 2

    cdef int move(self, Slab to, int seq, size_t length, uint64_t record, const Place* place, double now) except -1:
        cdef int64_t slot = self.occupied(self.tag_of(seq, place)), ignored = -1
        cdef uint64_t tag = to.tag_of(seq, place)
        cdef const uint16_t* held
        cdef size_t low, high
        cdef int i
        if slot < 0 or self.length[slot] != length:
            return 0
        self.stamp[slot] = -INFINITY
        held = &self.ranges[slot * 2 * RANGES]
        for i in range(RANGES):
            low, high = held[2 * i], held[2 * i + 1]
            if low or high:
                to.put(
                    tag, length, low, &self.data[slot * self.size] + low, high - low, record, high - low, now,
                    &ignored
                )
        return 0


@cython.final
cdef class Strangers:
    """Points into the arrays of the plain Strangers."""

    def __init__(self, owner):
        self.times, self.counts, self.rows, self.bits = owner.times, owner.counts, owner.rows, owner.bits
        self.salt = owner.salt
        self.replies_limit, self.repeats_limit, self.bytes_limit, self.prefix_limit = owner.bounds

    cdef bint loaded(self, double now) noexcept:
        return self.counts[FORCED] != 0 or (self.counts[LOADED] != 0 and 0 <= now - self.times[WINDOW] < 2.0)

    cdef void answered(self, uint64_t n) noexcept:
        self.counts[REPLY_BYTES] += n

    cdef bint may_alert(self, double now) noexcept:
        if now - self.times[ALERTS_SINCE] >= 1.0:
            self.times[ALERTS_SINCE] = now
            self.counts[ALERTS] = 0
        if self.counts[ALERTS] >= <uint64_t>ALERTS_PER_SECOND:
            return False
        self.counts[ALERTS] += 1
        return True

    cdef bint admits(self, const Place* place, double now) noexcept:
        """As Strangers.admits."""
        cdef uint8_t text[32 + TEXT_BYTES]
        cdef size_t n = len(self.salt)
        cdef uint64_t found, estimate, least = 0xFFFFFFFFFFFFFFFF
        cdef int row, elapsed
        cdef size_t newer, older
        cdef size_t cells[8]
        cdef uint64_t marks[4]
        cdef uint64_t most = self.replies_limit
        cdef bint loaded
        self.turn(now)
        self.counts[HELLOS] += 1
        if self.counts[HELLOS] > self.replies_limit:
            self.counts[LOADED] = 1
        memcpy(text, <const uint8_t*>self.salt, n)
        loaded = self.counts[LOADED] != 0
        if loaded:
            most = self.repeats_limit
            text[n] = c"a"
            memcpy(text + n + 1, place.text, place.text_n)
            found = hash_of(text, n + 1 + place.text_n)
            for row in range(PARTS):
                marks[row] = row * PART_BITS + (found >> 21 * row) % PART_BITS
            if not self.asked_before(marks, now):
                return False
        if self.counts[REPLIES] >= most or self.counts[REPLY_BYTES] >= self.bytes_limit:
            return False
        elapsed = <int>((now - self.times[WINDOW]) * 1000)
        newer = self.counts[NEWER_ROWS] * ROWS * COLUMNS
        older = ROWS * COLUMNS - newer
        text[n] = c"p"
        memcpy(text + n + 1, place.prefix, place.prefix_n)
        found = hash_of(text, n + 1 + place.prefix_n)
        for row in range(ROWS):
            cells[row] = row * COLUMNS + (found >> 12 * row) % COLUMNS
            estimate = self.rows[newer + cells[row]] + (
                <uint64_t>self.rows[older + cells[row]] * (1000 - elapsed) // 1000
            )
            least = min(least, estimate)
        if least >= self.prefix_limit:
            return False
        for row in range(ROWS):
            self.rows[newer + cells[row]] += 1
        self.counts[REPLIES] += 1
        if loaded:
            self.set(marks, 2 + <int>self.counts[NEWER_BITS])
        return True

    cdef void turn(self, double now) noexcept:
        cdef double elapsed = now - self.times[WINDOW]
        cdef bint follows
        cdef uint64_t recent
        cdef size_t half = ROWS * COLUMNS, newer
        if 0 <= elapsed < 1.0:
            return
        follows = 0 <= elapsed < 2.0
        recent = self.counts[HELLOS] if follows else 0
        self.counts[LOADED] = recent > self.replies_limit or (
            self.counts[LOADED] != 0 and recent > self.replies_limit // 2
        )
        self.counts[HELLOS] = self.counts[REPLIES] = self.counts[REPLY_BYTES] = 0
        self.counts[NEWER_ROWS] ^= 1
        newer = self.counts[NEWER_ROWS] * half
        memset(&self.rows[newer], 0, 4 * half)
        if not follows:
            memset(&self.rows[half - newer], 0, 4 * half)
        self.times[WINDOW] = now

    cdef bint asked_before(self, const uint64_t* marks, double now) noexcept:
        cdef double elapsed = now - self.times[GENERATION]
        cdef size_t newer
        cdef bint asked, told
        if not 0 <= elapsed < GENERATION_SECONDS:
            self.counts[NEWER_BITS] ^= 1
            if not 0 <= elapsed < 2 * GENERATION_SECONDS:
                memset(&self.bits[0], 0, 4 * FILTER_BYTES)
            else:
                newer = self.counts[NEWER_BITS] * FILTER_BYTES
                memset(&self.bits[newer], 0, FILTER_BYTES)
                memset(&self.bits[newer + 2 * FILTER_BYTES], 0, FILTER_BYTES)
            self.times[GENERATION] = now
        asked = self.has(marks, 0) or self.has(marks, 1)
        told = self.has(marks, 2) or self.has(marks, 3)
        self.set(marks, <int>self.counts[NEWER_BITS])
        return asked and not told

    cdef bint has(self, const uint64_t* marks, int which) noexcept:
        cdef int part
        for part in range(PARTS):
            if not self.bits[which * FILTER_BYTES + marks[part] // 8] >> (marks[part] % 8) & 1:
                return False
        return True

    cdef void set(self, const uint64_t* marks, int which) noexcept:
        cdef int part
        for part in range(PARTS):
            self.bits[which * FILTER_BYTES + marks[part] // 8] |= <uint8_t>(1 << marks[part] % 8)
