"""What is arriving: handshake fragments become whole messages, in order, within bounds.

Memory follows the bytes received, never the length a fragment declares: a message is a list of the
pieces that came until it is whole.  Type and length of a message are fixed by its first fragment,
overlaps must agree, and every byte kept is charged to the connection's account first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

from sealwire.dtls.header import Fragment
from sealwire.errors import Alert, Discard, ProtocolError
from sealwire.limits import Account, Limits, Purpose
from sealwire.tls13.messages import HEADER_BYTES, HandshakeType, frame

# What a kept piece costs beside its bytes: a bytes object, a tuple and two list slots.
_PIECE_OVERHEAD_BYTES: Final = 160


class _Partial:
    """One message, not whole yet."""

    __slots__ = ("charged", "ends", "epoch", "kind", "length", "missing", "pieces", "starts")

    def __init__(self, fragment: Fragment, epoch: int) -> None:
        self.kind: HandshakeType = fragment.kind
        self.length = fragment.length
        self.epoch = epoch
        self.missing = fragment.length
        self.charged = 0
        # Sorted pieces with gaps between them: starts[i] <= x < ends[i] is in pieces[i].
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.pieces: list[bytes | bytearray] = []

    def agrees(self, fragment: Fragment) -> bool:
        """Whether all bytes of `fragment` that are here already are the same."""
        i = max(bisect_left(self.starts, fragment.offset) - 1, 0)
        while i < len(self.starts) and self.starts[i] < fragment.end:
            low = max(self.starts[i], fragment.offset)
            high = min(self.ends[i], fragment.end)
            if low < high:
                held = self.pieces[i][low - self.starts[i] : high - self.starts[i]]
                if held != fragment.data[low - fragment.offset : high - fragment.offset]:
                    return False
            i += 1
        return True

    def touched(self, fragment: Fragment) -> tuple[int, int]:
        """The pieces `fragment` overlaps or lies against, as a range of indexes."""
        return bisect_left(self.ends, fragment.offset), bisect_right(self.starts, fragment.end)

    def growth(self, fragment: Fragment, first: int, last: int) -> int:
        """How many bytes of `fragment` are not in the pieces it touches."""
        if first == last:
            return len(fragment.data)
        low, high = min(fragment.offset, self.starts[first]), max(fragment.end, self.ends[last - 1])
        return high - low - sum(self.ends[first:last]) + sum(self.starts[first:last])

    def join(self, fragment: Fragment, first: int, last: int) -> None:
        """Make one piece of `fragment` and the pieces it touches."""
        self.missing -= self.growth(fragment, first, last)
        start, end, data = fragment.offset, fragment.end, fragment.data
        if first == last:
            joined = bytearray(data)
        else:
            # The first of them grows, so that fragments in order cost nothing but their bytes.
            piece, position = self.pieces[first], self.ends[first]
            joined = piece if isinstance(piece, bytearray) else bytearray(piece)
            if start < self.starts[first]:
                joined[:0] = data[: self.starts[first] - start]
            for i in range(first + 1, last):
                joined += data[position - start : self.starts[i] - start]
                joined += self.pieces[i]
                position = self.ends[i]
            if position < end:
                joined += data[position - start :]
            start, end = min(start, self.starts[first]), max(end, self.ends[last - 1])
        self.starts[first:last] = [start]
        self.ends[first:last] = [end]
        self.pieces[first:last] = [joined]

    def message(self) -> bytes:
        return frame(self.kind, self.pieces[0] if self.pieces else b"")


class Reassembly:
    """The incoming handshake messages of one connection, by message_seq."""

    __slots__ = ("_account", "_held", "_limit_name", "_limits", "_most", "_partial", "next_seq")

    def __init__(self, account: Account, limits: Limits, next_seq: int = 0) -> None:
        self._account = account
        self._limits = limits
        self._held = 0
        self._limit_name = "reassembly_bytes"
        self._most = limits.reassembly_bytes
        # None while there is nothing, as most of the time: an empty dict is 64 bytes.
        self._partial: dict[int, _Partial] | None = None
        #: message_seq of the next message to be given out.
        self.next_seq = next_seq

    @property
    def empty(self) -> bool:
        """Whether no part of any message waits here."""
        return not self._partial

    def established(self) -> None:
        """The handshake is complete: what comes from here on is small."""
        self._limit_name = "established_reassembly_bytes"
        self._most = self._limits.established_reassembly_bytes

    def offer(self, fragment: Fragment, epoch: int) -> Discard | None:
        """Keep a fragment; None if it is kept (or was already), else why it is not.

        STALE_MESSAGE means that its message was given out before.

        Raises:
            ProtocolError: the fragment was protected, so the peer itself sent nonsense.
        """
        # RFC 9147 sections 5.2 and 5.5 [9147-5.2-4, 9147-5.5-4, 9147-5.5-5]: in any order, overlapping or
        # not, and some messages ahead.
        protected = epoch > 0
        seq = fragment.message_seq
        if seq < self.next_seq:
            # RFC 9147 section 5.2 [9147-5.2-3]
            return Discard.STALE_MESSAGE
        if seq - self.next_seq >= self._limits.future_messages:
            self._account.note("future_messages")
            return Discard.FUTURE_MESSAGE
        if fragment.length > self._limits.handshake_message_bytes - HEADER_BYTES:
            if protected:
                raise ProtocolError(
                    Alert.ILLEGAL_PARAMETER,
                    f"{fragment.kind.name} of {fragment.length} bytes is above the limit of"
                    f" {self._limits.handshake_message_bytes}",
                    "handshake_message_bytes",
                )
            self._account.note("handshake_message_bytes")
            return Discard.OVERSIZED_RECORD
        if self._partial is None:
            self._partial = {}
        partial = self._partial.get(seq)
        if partial is None:
            partial = _Partial(fragment, epoch)
            if fragment.data and len(fragment.data) == fragment.length:
                # All at once, as most come: one piece, which nothing is going to be joined to.
                if not self._charge(partial, 2 * _PIECE_OVERHEAD_BYTES + fragment.length):
                    return Discard.OVER_BUDGET
                partial.missing = 0
                partial.starts, partial.ends, partial.pieces = [0], [fragment.length], [fragment.data]
                self._partial[seq] = partial
                return None
            if not self._charge(partial, _PIECE_OVERHEAD_BYTES):
                return Discard.OVER_BUDGET
            self._partial[seq] = partial
        elif partial.epoch != epoch and partial.epoch == 0:
            # Forged plaintext must not stand in the way of what the peer really sent.
            self._drop(seq)
            return self.offer(fragment, epoch)
        elif partial.epoch != epoch:
            return Discard.BAD_FRAGMENT
        elif (partial.kind, partial.length) != (fragment.kind, fragment.length) or not partial.agrees(
            fragment
        ):
            # RFC 9147 section 5.5 [9147-5.5-3, 9147-5.5-7]
            if protected:
                raise ProtocolError(
                    Alert.ILLEGAL_PARAMETER, f"fragments of {partial.kind.name} contradict each other"
                )
            return Discard.BAD_FRAGMENT
        return self._keep(partial, fragment)

    def _keep(self, partial: _Partial, fragment: Fragment) -> Discard | None:
        if not fragment.data:
            return None
        first, last = partial.touched(fragment)
        growth = partial.growth(fragment, first, last)
        if first == last:
            if len(partial.pieces) >= self._limits.reassembly_ranges:
                self._account.note("reassembly_ranges")
                return Discard.OVER_BUDGET
            growth += _PIECE_OVERHEAD_BYTES
        if not self._charge(partial, growth):
            return Discard.OVER_BUDGET
        partial.join(fragment, first, last)
        if last - first > 1:
            self._release(partial, (last - first - 1) * _PIECE_OVERHEAD_BYTES)
        return None

    def pop(self) -> tuple[int, bytes] | None:
        """Epoch and bytes (TLS form) of the next message, if it is whole."""
        partial = self._partial.get(self.next_seq) if self._partial else None
        if partial is None or partial.missing:
            return None
        self._drop(self.next_seq)
        self.next_seq += 1
        return partial.epoch, partial.message()

    def change_keys(self, epoch: int) -> None:
        """From now on messages must come in `epoch`: nothing older may be left (RFC 8446 section 5.1).

        Raises:
            ProtocolError: unexpected_message, a protected message straddles the change [8446-ALERT-3].
        """
        partials = self._partial or {}
        for seq in [seq for seq, partial in partials.items() if partial.epoch < epoch]:
            if partials[seq].epoch > 0:
                raise ProtocolError(
                    Alert.UNEXPECTED_MESSAGE, "handshake messages go on in an epoch after its last message"
                )
            # Plaintext can be forged by anybody, so it is dropped and not held against the peer.
            self._drop(seq)

    def _charge(self, partial: _Partial, n: int) -> bool:
        if self._held + n > self._most:
            self._account.note(self._limit_name)
            return False
        if not self._account.charge(Purpose.REASSEMBLY, n):
            return False
        self._held += n
        partial.charged += n
        return True

    def _release(self, partial: _Partial, n: int) -> None:
        self._account.release(Purpose.REASSEMBLY, n)
        self._held -= n
        partial.charged -= n

    def _drop(self, seq: int) -> None:
        assert self._partial is not None
        charged = self._partial.pop(seq).charged
        if not self._partial:
            self._partial = None
        self._account.release(Purpose.REASSEMBLY, charged)
        self._held -= charged
