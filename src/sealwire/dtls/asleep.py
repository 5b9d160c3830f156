"""What is left of a connection that sleeps: one run of bytes, and what records did that came meanwhile.

The bytes begin with what a datagram or the clock asks for (ids, folded openers, when old keys go), so that it
is answered without waking anybody; the rest is read once, by whoever rises (dtls/hibernation.py).  They
hold every key there is, so they are a secret.  Sending keys are derived anew from theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from struct import Struct
from typing import Final, NamedTuple

from sealwire.context import Config
from sealwire.crypto.erasing import erase
from sealwire.crypto.hkdf import Secret
from sealwire.crypto.suites import SUITES, CipherSuite, SuiteSpec
from sealwire.dtls.epochs import ReceivingKeys
from sealwire.dtls.header import (
    ContentType,
    RecordNumber,
    decode_fragments,
    decode_plaintext,
    is_ciphertext,
)
from sealwire.dtls.incoming import FAILURES_BEFORE_SEARCH, SEARCHED_SPANS
from sealwire.dtls.outgoing import REKEY_PART
from sealwire.errors import Discard, ProtocolError
from sealwire.limits import Limits
from sealwire.record.protect import DISCARDS, Opener, fold, parse_ciphertext_header, unfold
from sealwire.telemetry import ConnectionCounters, EndpointCounters
from sealwire.wire import Buffer, Reader, Writer

# Suite; newest record (epoch, sequence plus one); the search for a sender of whom too much was lost (failed,
# ahead); connection's number; when it began, how long its handshake took; what is charged less for it; when
# something but old keys is due.  Then the number of old and new receiving keys, and of ids.
_HEAD: Final = Struct(">HHQBBQddIdBB")
# When keys go; behind it the folded opener and the secret it was made of, each with a byte of length.
_UNTIL: Final = Struct(">d")
_NEVER: Final = float("inf")
_KEYS_AT: Final = _HEAD.size - 2
_CIDS_AT: Final = _HEAD.size - 1
_COUNTERS: Final = tuple(field.name for field in fields(ConnectionCounters) if field.metadata)
assert len(_COUNTERS) <= 24
_REASONS: Final = tuple(Discard)
# Records that opened, and that the window refused.
_REFUSED: Final = (Discard.REPLAY, Discard.TOO_OLD)


class Head(NamedTuple):
    """The first fields of the bytes."""

    suite: int
    newest_epoch: int
    newest_above: int
    failed: int
    ahead: int
    number: int
    began: float
    handshake_seconds: float
    saved: int
    due: float
    keys: int
    cids: int


class _Place(NamedTuple):
    """Where the keys of an epoch are in the bytes, and until when they are good."""

    epoch: int
    until: float
    #: Where these two start; they have a byte of length before them.
    folded: int
    secret: int
    end: int


class Stirred:
    """What came to a sleeper and did not wake it."""

    __slots__ = ("ahead", "bytes", "datagrams", "discards", "failed", "forged", "opened", "rekey")

    def __init__(self, failed: int, ahead: int) -> None:
        self.datagrams = self.bytes = 0
        self.discards: dict[Discard, int] = {}
        # By epoch.
        self.forged: dict[int, int] = {}
        self.opened: dict[int, int] = {}
        # The search for a sender of whom too much was lost; see `Incoming`.
        self.failed, self.ahead = failed, ahead
        # So many records failed that new keys are due, or the end.
        self.rekey = False


class Asleep:
    """A connection without its parts.

    Attributes:
        deadline: when it is to be woken, None if never.
        state: everything there is of it.
        gone: which of its keys were good for their time and are no more, a bit for each.
        issue_cid, totals: its endpoint's.
        stirred: what came meanwhile, None for nothing.
    """

    __slots__ = ("deadline", "gone", "issue_cid", "state", "stirred", "totals")

    def __init__(
        self,
        state: Secret,
        issue_cid: Callable[[int], bytes],
        totals: EndpointCounters | None,
    ) -> None:
        self.state = state
        self.issue_cid = issue_cid
        self.totals = totals
        self.stirred: Stirred | None = None
        self.gone = 0
        self.deadline: float | None = self._next()

    # --- what is written down -------------------------------------------------------------------

    @property
    def head(self) -> Head:
        return Head._make(_HEAD.unpack_from(self.state))

    @property
    def newest(self) -> RecordNumber:
        """The highest number that authenticated."""
        head = self.head
        return RecordNumber(head.newest_epoch, head.newest_above - 1)

    @property
    def _spec(self) -> SuiteSpec:
        return SUITES[CipherSuite(self.head.suite)]

    def _places(self) -> Iterator[_Place]:
        """Of the keys that are good still, the newest first."""
        return (place for n, place in enumerate(self._all_places()) if not self.gone >> n & 1)

    def _all_places(self) -> Iterator[_Place]:
        state = self.state
        at = _HEAD.size
        for _ in range(state[_KEYS_AT]):
            (until,) = _UNTIL.unpack_from(state, at)
            folded = at + _UNTIL.size + 1
            secret = folded + state[folded - 1] + 1
            at = secret + state[secret - 1]
            yield _Place(state[folded] << 8 | state[folded + 1], until, folded, secret, at)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Those of which records open, the newest first."""
        return tuple(place.epoch for place in self._places())

    def _after_keys(self) -> int:
        return max(place.end for place in self._all_places())

    @property
    def cids(self) -> tuple[bytes, ...]:
        """Ids that records to it may carry."""
        state, at = self.state, self._after_keys()
        cids = []
        for _ in range(state[_CIDS_AT]):
            n = state[at]
            cids.append(bytes(memoryview(state)[at + 1 : at + 1 + n]))
            at += 1 + n
        return tuple(cids)

    def rest(self) -> Reader:
        """A reader of what is behind ids and keys."""
        reader = Reader(self.state, "connection that slept", self._after_keys())
        for _ in range(self.state[_CIDS_AT]):
            reader.vector8()
        return reader

    def _opener(self, place: _Place, cid: bytes, config: Config, limits: Limits) -> Opener:
        folded = memoryview(self.state)[place.folded : place.secret - 1]
        return unfold(config.provider, self._spec, folded, cid, limits.replay_window)

    def receiving(self, config: Config, limits: Limits) -> tuple[ReceivingKeys, ...]:
        """The receiving keys, the newest first; of the newest the secret is b"", which is elsewhere."""
        keys = []
        cids = self.cids
        for place in self._places():
            opener = self._opener(place, cids[-1] if cids else b"", config, limits)
            if self.stirred is not None:
                opener.forged += self.stirred.forged.get(place.epoch, 0)
                opener.opened += self.stirred.opened.get(place.epoch, 0)
            secret = Secret(memoryview(self.state)[place.secret : place.end])
            keys.append(ReceivingKeys(opener, secret, None if place.until == _NEVER else place.until))
        return tuple(keys)

    def counted(self, reader: Reader) -> ConnectionCounters:
        """What the connection counted before it slept, and since; `reader` is at :meth:`rest`."""
        counters = ConnectionCounters()
        present = reader.u24()
        for n, name in enumerate(_COUNTERS):
            if present >> n & 1:
                setattr(counters, name, int.from_bytes(reader.vector8(), "big"))
        for _ in range(reader.u8()):
            counters.discard(_REASONS[reader.u8()], int.from_bytes(reader.vector8(), "big"))
        stirred = self.stirred
        if stirred is not None:
            counters.datagrams_received += stirred.datagrams
            counters.bytes_received += stirred.bytes
            for reason, count in stirred.discards.items():
                counters.discard(reason, count)
        return counters

    # --- time -----------------------------------------------------------------------------------

    def _next(self) -> float | None:
        due = min((self.head.due, *(place.until for place in self._places())))
        return None if due == _NEVER else due

    def expire(self, now: float) -> bool:
        """Drop old keys whose time is over [9147-4.2.1-1]; whether that was all there was to do by `now`."""
        for n, place in enumerate(self._all_places()):
            if place.until <= now and not self.gone >> n & 1:
                self.gone |= 1 << n
                # Where they stand: to write the rest down again would leave holes between the sleepers.
                erase(self.state, place.folded, place.secret - 1)
                erase(self.state, place.secret, place.end)
        if self.head.due <= now:
            return False
        self.deadline = self._next()
        return True

    # --- datagrams ------------------------------------------------------------------------------

    def stirred_by(self, datagram: Buffer, config: Config, limits: Limits) -> bool:
        """Whether a record of `datagram` is authentic and new; if none is, they are counted."""
        found = self._look(datagram, config, limits)
        if found is None:
            return True
        stirred = self.stirs()
        failed = 0
        for opener, reason in found:
            self._count(stirred, opener, reason)
            failed += reason is Discard.AUTHENTICATION
        stirred.failed += failed
        if failed and stirred.failed >= FAILURES_BEFORE_SEARCH:
            stirred.failed = 0
            if self._searched(stirred, datagram, config, limits):
                return True
        stirred.datagrams += 1
        stirred.bytes += len(datagram)
        return False

    def stirs(self) -> Stirred:
        """Where to count what came."""
        if self.stirred is None:
            head = self.head
            self.stirred = Stirred(head.failed, head.ahead)
        return self.stirred

    def discard(self, reason: Discard) -> None:
        """Count something dropped."""
        discards = self.stirs().discards
        discards[reason] = discards.get(reason, 0) + 1

    def _look(
        self, datagram: Buffer, config: Config, limits: Limits
    ) -> list[tuple[Opener | None, Discard]] | None:
        """What is wrong with each record, and whose it seemed to be; None if one is authentic and new."""
        found: list[tuple[Opener | None, Discard]] = []
        offset = 0
        if not datagram:
            found.append((None, Discard.EMPTY))
        opener: Opener | None = None
        while offset < len(datagram):
            if not is_ciphertext(datagram[offset]):
                reason, offset = _plaintext(datagram, offset)
                found.append((None, reason))
                continue
            opener = self._opener_for(datagram, offset, config, limits, opener)
            if opener is None:
                cids = self.cids
                header = parse_ciphertext_header(datagram, offset, len(cids[0]) if cids else 0)
                if isinstance(header, Discard):
                    found.append((None, header))
                    break
                found.append((None, Discard.UNKNOWN_EPOCH))
                offset = header.end
                continue
            number, offset = opener.would_open(datagram, offset)
            if not number:
                return None
            found.append((opener, DISCARDS[number]))
        return found

    def _opener_for(
        self, datagram: Buffer, offset: int, config: Config, limits: Limits, last: Opener | None = None
    ) -> Opener | None:
        """The opener for the record at `offset`, made for it, or `last` if that is the one."""
        cids = self.cids
        cid = cids[-1] if cids else b""
        if len(cids) > 1:
            carried = bytes(datagram[offset + 1 : offset + 1 + len(cid)])
            cid = carried if carried in cids else cid
        low = datagram[offset] & 3
        if last is not None and last.epoch & 3 == low and last.cid == cid:
            return last
        for place in self._places():
            if place.epoch & 3 == low:
                return self._opener(place, cid, config, limits)
        return None

    def _count(self, stirred: Stirred, opener: Opener | None, reason: Discard) -> None:
        stirred.discards[reason] = stirred.discards.get(reason, 0) + 1
        if opener is None:
            return
        epoch = opener.epoch
        if reason is Discard.AUTHENTICATION:
            forged = stirred.forged[epoch] = stirred.forged.get(epoch, 0) + 1
            stirred.rekey |= opener.forged + forged >= opener.forgery_limit * REKEY_PART
            if self.totals is not None:
                self.totals.records_forged += 1
        elif reason in _REFUSED:
            stirred.opened[epoch] = stirred.opened.get(epoch, 0) + 1

    def _searched(self, stirred: Stirred, datagram: Buffer, config: Config, limits: Limits) -> bool:
        """Whether `datagram` opens with numbers further ahead than 16 bits can say."""
        ciphertext = datagram and is_ciphertext(datagram[0])
        opener = self._opener_for(datagram, 0, config, limits) if ciphertext else None
        if opener is None:
            return False
        ahead = stirred.ahead % SEARCHED_SPANS + 1
        opener.ahead = ahead << 16
        found = opener.would_open(datagram, 0)[0] == 0
        if not found:
            self._count(stirred, opener, Discard.AUTHENTICATION)
        # Awake it looks there again, and finds it.
        stirred.failed, stirred.ahead = (FAILURES_BEFORE_SEARCH - 1, ahead - 1) if found else (0, ahead)
        return found


def write_head(writer: Writer, head: Head, keys: Sequence[ReceivingKeys], cids: Sequence[bytes]) -> None:
    """Begin the bytes of a connection that falls asleep; `keys` begin with the newest."""
    writer.raw(_HEAD.pack(*head._replace(keys=len(keys), cids=len(cids))))
    for one in keys:
        folded = Secret.taking(fold(one.opener))
        writer.raw(_UNTIL.pack(_NEVER if one.until is None else one.until))
        writer.hidden8(folded)
        writer.hidden8(one.secret)
    for cid in cids:
        writer.vector8(cid)


def write_counters(writer: Writer, counters: ConnectionCounters) -> None:
    """Write what :meth:`Asleep.counted` reads."""
    values = [getattr(counters, name) for name in _COUNTERS]
    writer.u24(sum(1 << n for n, value in enumerate(values) if value))
    for value in filter(None, values):
        writer.vector8(shortest(value))
    writer.u8(len(counters.discards))
    for reason, count in counters.discards.items():
        writer.u8(_REASONS.index(reason))
        writer.vector8(shortest(count))


def shortest(count: int) -> bytes:
    return count.to_bytes((count.bit_length() + 7) // 8, "big")


def _plaintext(datagram: Buffer, offset: int) -> tuple[Discard, int]:
    """Why a record of epoch 0 is of no use to a connection that is established, and where it ends."""
    record = decode_plaintext(datagram, offset)
    if isinstance(record, Discard):
        return record, len(datagram)
    if record.content_type == ContentType.HANDSHAKE:
        try:
            decode_fragments(record.content)
        except ProtocolError:
            return Discard.BAD_FRAGMENT, record.end
    elif record.content_type != ContentType.ACK:
        return Discard.PLAINTEXT_ALERT, record.end
    return Discard.UNEXPECTED_PLAINTEXT, record.end
