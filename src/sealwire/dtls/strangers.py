"""Which first hellos of unproved addresses are answered when there are more than can be.

Their addresses may all be forged, so nothing here is kept by address: one second's totals, a count-min
sketch of answers by prefix, and Bloom filters of two generations, all of fixed size, found by a keyed
hash and forgotten by time.  They only choose between an answer and silence; nobody is blocked.

Up to `Limits.hello_replies_per_second` hellos everybody is answered.  Above, the gate is under load: a
hello is answered if its address asked before, a moment ago, and has not been answered since.  Real
clients repeat their hello after a second (RFC 9147 section 5.8); forged addresses hardly ever come
twice, and those of a flood that repeats itself get one answer in some seconds, however often they come.

The arrays are shared with the compiled gate (`_gate.pyx`), which takes the very same decisions.  The hash
is the interpreter's own for bytes (SipHash, keyed for the process) over a secret and what is hashed.
"""

from __future__ import annotations

from array import array
from typing import Final

from sealwire.crypto.providers import CryptoProvider
from sealwire.limits import Limits

# A window of totals and of the sketch.  The one before counts by the part of it that is not over.
_WINDOW_SECONDS: Final = 1.0
# Alerts to strangers a second; they help honest clients to fail fast and nobody needs more.
ALERTS_PER_SECOND: Final = 100
# Count-min: with 2,000 answers a second an estimate is too high by one, rarely.
ROWS: Final = 4
COLUMNS: Final = 4096
# Bloom filters in three parts of 2^21 bits: 300,000 addresses of one generation (a flood of 100,000 a second)
# are taken for each other once in 400 cases.
PARTS: Final = 3
PART_BITS: Final = 1 << 21
# Asking is remembered for the life of one generation at least; clients repeat their hello after a second.
GENERATION_SECONDS: Final = 3.0
FILTER_BYTES: Final = PARTS * PART_BITS // 8
SALT_BYTES: Final = 16

# Places in `times` and in `counts`.
WINDOW, GENERATION, ALERTS_SINCE = range(3)
HELLOS, REPLIES, REPLY_BYTES, ALERTS, LOADED, FORCED, NEWER_ROWS, NEWER_BITS = range(8)

_MASK: Final = (1 << 64) - 1


class Strangers:
    """The running account of what unproved addresses are told.

    Attributes:
        salt: what makes our hashes ours.
        times, counts, rows: the state; see the constants above.
        bits: who asked, newer and older generation, then who was answered.
    """

    __slots__ = ("_bytes", "_per_prefix", "_repeats", "_replies", "bits", "counts", "rows", "salt", "times")

    def __init__(self, provider: CryptoProvider, limits: Limits) -> None:
        self._replies = limits.hello_replies_per_second
        self._repeats = limits.hello_repeats_per_second
        self._bytes = limits.hello_reply_bytes_per_second
        self._per_prefix = limits.hello_replies_per_prefix_per_second
        self.salt = provider.random(SALT_BYTES)
        self.times = array("d", [0.0, 0.0, float("-inf")])
        self.counts = array("Q", bytes(8 * 8))
        # Two windows, and two generations of two filters.
        self.rows = array("I", bytes(4 * 2 * ROWS * COLUMNS))
        self.bits = bytearray(4 * FILTER_BYTES)

    @property
    def memory_bytes(self) -> int:
        """What the tables occupy; it never changes."""
        return len(self.bits) + self.rows.itemsize * len(self.rows)

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """Hellos answered a second, under load as well, bytes for them, and hellos of one prefix."""
        return self._replies, self._repeats, self._bytes, self._per_prefix

    def loaded(self, now: float) -> bool:
        """Whether every address needs a cookie: hellos are that many, or :meth:`force_load` was called."""
        if self.counts[FORCED]:
            return True
        return bool(self.counts[LOADED]) and 0 <= now - self.times[WINDOW] < 2 * _WINDOW_SECONDS

    def force_load(self, on: bool) -> None:
        """Ask every address for a cookie, however few there are; off, as before."""
        self.counts[FORCED] = on

    def admits(self, text: bytes, place: bytes, now: float) -> bool:
        """Count a well-formed first hello; whether it may be answered.

        Args:
            text: its address, port and all.
            place: its prefix, as :func:`place_of` gives it.
        """
        counts, times = self.counts, self.times
        self._turn(now)
        counts[HELLOS] += 1
        if counts[HELLOS] > self._replies:
            counts[LOADED] = 1
        most = self._replies
        marks: tuple[int, ...] = ()
        if counts[LOADED]:
            most, marks = self._repeats, self._marks(text)
            if not self._asked_before(marks, now):
                return False
        if counts[REPLIES] >= most or counts[REPLY_BYTES] >= self._bytes:
            return False
        elapsed = int((now - times[WINDOW]) * 1000)
        newer, older = self._row_bases()
        number = hash(self.salt + b"p" + place) & _MASK
        cells = [row * COLUMNS + (number >> 12 * row) % COLUMNS for row in range(ROWS)]
        estimate = min(
            self.rows[newer + cell] + self.rows[older + cell] * (1000 - elapsed) // 1000 for cell in cells
        )
        if estimate >= self._per_prefix:
            return False
        for cell in cells:
            self.rows[newer + cell] += 1
        counts[REPLIES] += 1
        self._set(marks, 2 + counts[NEWER_BITS])
        return True

    def answered(self, n: int) -> None:
        """A hello that was admitted got an answer of `n` bytes."""
        self.counts[REPLY_BYTES] += n

    def may_alert(self, now: float) -> bool:
        """Whether one more alert may go to a stranger."""
        if now - self.times[ALERTS_SINCE] >= 1.0:
            self.times[ALERTS_SINCE] = now
            self.counts[ALERTS] = 0
        if self.counts[ALERTS] >= ALERTS_PER_SECOND:
            return False
        self.counts[ALERTS] += 1
        return True

    def _row_bases(self) -> tuple[int, int]:
        newer = self.counts[NEWER_ROWS] * ROWS * COLUMNS
        return newer, ROWS * COLUMNS - newer

    def _turn(self, now: float) -> None:
        """Begin another window where the current one is over."""
        counts = self.counts
        elapsed = now - self.times[WINDOW]
        if 0 <= elapsed < _WINDOW_SECONDS:
            return
        # After a gap, or where the clock was set back, nothing before counts.
        follows = 0 <= elapsed < 2 * _WINDOW_SECONDS
        recent = counts[HELLOS] if follows else 0
        # It takes less than half of what brought the load on to end it.
        counts[LOADED] = recent > self._replies or (counts[LOADED] and recent > self._replies // 2)
        counts[HELLOS] = counts[REPLIES] = counts[REPLY_BYTES] = 0
        counts[NEWER_ROWS] ^= 1
        newer, older = self._row_bases()
        self.rows[newer : newer + ROWS * COLUMNS] = array("I", bytes(4 * ROWS * COLUMNS))
        if not follows:
            self.rows[older : older + ROWS * COLUMNS] = array("I", bytes(4 * ROWS * COLUMNS))
        self.times[WINDOW] = now

    def _marks(self, text: bytes) -> tuple[int, ...]:
        """The bits of an address in each filter."""
        number = hash(self.salt + b"a" + text) & _MASK
        return tuple(part * PART_BITS + (number >> 21 * part) % PART_BITS for part in range(PARTS))

    def _asked_before(self, marks: tuple[int, ...], now: float) -> bool:
        """Whether this address asked a moment ago and was not answered since; from now on it has asked."""
        counts = self.counts
        elapsed = now - self.times[GENERATION]
        if not 0 <= elapsed < GENERATION_SECONDS:
            counts[NEWER_BITS] ^= 1
            stale = (0, 1) if not 0 <= elapsed < 2 * GENERATION_SECONDS else (counts[NEWER_BITS],)
            for one in stale:
                for filter_ in (one, 2 + one):
                    start = filter_ * FILTER_BYTES
                    self.bits[start : start + FILTER_BYTES] = bytes(FILTER_BYTES)
            self.times[GENERATION] = now
        asked = self._has(marks, 0) or self._has(marks, 1)
        told = self._has(marks, 2) or self._has(marks, 3)
        self._set(marks, counts[NEWER_BITS])
        return asked and not told

    def _has(self, marks: tuple[int, ...], filter_: int) -> bool:
        start = filter_ * FILTER_BYTES
        return all(self.bits[start + mark // 8] >> mark % 8 & 1 for mark in marks)

    def _set(self, marks: tuple[int, ...], filter_: int) -> None:
        start = filter_ * FILTER_BYTES
        for mark in marks:
            self.bits[start + mark // 8] |= 1 << mark % 8
