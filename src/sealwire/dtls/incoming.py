"""From datagrams to records: which keys open what, and what becomes of the rest.

Records come out one by one, in order, because handling one may install the keys for the next.  A
run of one epoch is opened in one call of the record layer; records whose keys are not there yet are
kept, a few, and come out once the keys are (RFC 9147 sections 4.1, 4.2.1 and 6.1).

Once a connection stands, a run of application data comes out as a list of messages instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sealwire.dtls.epochs import Opening
from sealwire.dtls.header import RecordNumber, decode_plaintext, is_ciphertext
from sealwire.dtls.queues import EarlyRecords
from sealwire.errors import Alert, Discard, ProtocolError
from sealwire.limits import Account
from sealwire.record.protect import DISCARDS, Entry, Opener, open_data, parse_ciphertext_header
from sealwire.record.train import Train
from sealwire.telemetry import ConnectionCounters
from sealwire.tls13.contract import EPOCH_APPLICATION, EPOCH_EARLY, EPOCH_HANDSHAKE, EPOCH_PLAIN
from sealwire.wire import Buffer

# A search costs one decryption; it looks over a million records ahead, a second at a million a second.
FAILURES_BEFORE_SEARCH: Final = 64
SEARCHED_SPANS: Final = 16

Record = tuple[RecordNumber, int, bytes]
#: An epoch, messages of it in order, the record of another kind that ended their run, and where to go on.
Run = tuple[int, list[bytes], Record | None, int, int]


class Incoming:
    """The receiving side of a connection's records.

    Attributes:
        keep_early: whether records of epochs without keys are kept (during the handshake).
        server_hello_missing: records of epoch 2 came for which there are no keys.
        newest: the highest number that authenticated so far.
        newest_cid: the id that record carried, where there is more than one to carry.
    """

    __slots__ = (
        "_account",
        "_ahead",
        "_closed",
        "_counters",
        "_early",
        "_failed",
        "_offered_cid_bytes",
        "_opening",
        "keep_early",
        "newest",
        "newest_cid",
        "server_hello_missing",
    )

    def __init__(
        self, opening: Opening, account: Account, counters: ConnectionCounters, offered_cid_bytes: int
    ) -> None:
        self._opening = opening
        # Made for the first of them: they come seldom.
        self._early: EarlyRecords | None = None
        self._account = account
        self._counters = counters
        # Until the ServerHello says so nobody knows whether records carry the id we offered.
        self._offered_cid_bytes = offered_cid_bytes
        self.keep_early = True
        self._closed = False
        self.server_hello_missing = False
        # Records in a row that did not authenticate, and how far ahead the last search looked.
        self._failed = self._ahead = 0
        self.newest = RecordNumber(EPOCH_PLAIN, -1)
        self.newest_cid = b""

    @property
    def empty(self) -> bool:
        """Whether no record waits for its keys."""
        return not self._early

    @property
    def search(self) -> tuple[int, int]:
        """Records in a row that did not authenticate, and how far ahead the last search looked."""
        return self._failed, self._ahead

    @search.setter
    def search(self, search: tuple[int, int]) -> None:
        self._failed, self._ahead = search

    def records(self, datagrams: Sequence[Buffer]) -> Iterator[Record]:
        """Number, content type and content of each record, plain ones included."""
        epoch = self._opening.epoch
        yield from self._walk(datagrams)
        while self._early is not None and self._early and self._opening.epoch > epoch:
            epoch = self._opening.epoch
            yield from self._walk(self._early.take())

    def run(self, datagrams: Sequence[Buffer | Train], index: int, offset: int) -> Run | None:
        """Open application data from `offset` of `datagrams[index]` on; None where a run is not to be had.

        Only for a connection for which nothing waits for keys.

        Raises:
            ProtocolError: a record holds only padding.
        """
        first = datagrams[index]
        data = first.data if isinstance(first, Train) else first
        if offset >= len(data) or not is_ciphertext(data[offset]):
            return None
        opener = self._opening.opener_for(data, offset)
        if opener is None or opener.epoch < EPOCH_APPLICATION:
            return None
        if not self._opening.one_cid:
            end = _end_of_id(datagrams, index, opener.cid, offset)
            if end == index:
                return None
            datagrams = datagrams[:end]
        begin = datagrams[index]
        messages, drops, other, highest, index, offset = open_data(opener, datagrams, index, offset)
        if messages or other is not None:
            self._failed = 0
        elif drops and self._lost_sender(drops):
            messages, more, other, highest = self._search(opener, begin)
            drops = drops + more
        counters = self._counters
        counters.records_opened += len(messages)
        if highest >= 0:
            self._authentic(RecordNumber(opener.epoch, highest), opener.cid)
        record = None
        if other is not None:
            counters.records_opened += 1
            record = RecordNumber(opener.epoch, other[1]), other[0], other[2]
            self._authentic(record[0], opener.cid)
        for n, count in drops:
            reason = DISCARDS[n]
            if reason is Discard.EMPTY_CONTENT:
                raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "a record holds only padding")
            counters.discard(reason, count)
        return opener.epoch, messages, record, index, offset

    def _lost_sender(self, drops: list[tuple[int, int]]) -> bool:
        """Whether so much failed in a row that the sender may be further than 16 bits can say."""
        self._failed += sum(count for n, count in drops if DISCARDS[n] is Discard.AUTHENTICATION)
        if self._failed < FAILURES_BEFORE_SEARCH:
            return False
        self._failed = 0
        return True

    def _search(
        self, opener: Opener, one: Buffer | Train
    ) -> tuple[list[bytes], list[tuple[int, int]], Entry | None, int]:
        """Try one datagram with the next of the numbers it may have.

        RFC 9147 section 4.2.2 [9147-4.2.2-2] completes a number to the one closest to what is expected, which
        is wrong for ever once 2^15 records in a row were lost.  A forger gets one more decryption out of
        it for every 64 records, counted like the others.
        """
        self._ahead = self._ahead % SEARCHED_SPANS + 1
        opener.ahead = self._ahead << 16
        try:
            last = one.split()[-1] if isinstance(one, Train) else one
            messages, drops, other, highest, _, _ = open_data(opener, (last,), 0, 0)
        finally:
            opener.ahead = 0
        if messages or other is not None:
            self._ahead = 0
        return messages, drops, other, highest

    def _authentic(self, number: RecordNumber, cid: bytes) -> None:
        if number > self.newest:
            self.newest = number
            self.newest_cid = cid

    def _walk(self, datagrams: Sequence[Buffer]) -> Iterator[Record]:
        index = offset = 0
        while index < len(datagrams):
            if self._closed:
                self._counters.discard(Discard.CLOSED)
                return
            datagram = datagrams[index]
            if offset >= len(datagram):
                if not datagram:
                    self._counters.discard(Discard.EMPTY)
                index, offset = index + 1, 0
                continue
            if not is_ciphertext(datagram[offset]):
                record = decode_plaintext(datagram, offset)
                if isinstance(record, Discard):
                    self._counters.discard(record)
                    offset = len(datagram)
                    continue
                offset = record.end
                yield RecordNumber(EPOCH_PLAIN, record.sequence), record.content_type, record.content
                continue
            opener = self._opening.opener_for(datagram, offset)
            if opener is None:
                offset = self._skip(datagram, offset)
                continue
            if self._opening.one_cid:
                entries, index, offset = opener.open_run(datagrams, index, offset)
            else:
                entries, used, offset = opener.open_run((datagram,), 0, offset)
                index += used
            for content_type, sequence, content in entries:
                if content_type < 0:
                    reason = DISCARDS[-content_type]
                    if reason is Discard.EMPTY_CONTENT:
                        # RFC 8446 section 5.4: it authenticated, so the peer itself sent nothing but padding.
                        raise ProtocolError(Alert.UNEXPECTED_MESSAGE, "a record holds only padding")
                    self._counters.discard(reason)
                    continue
                self._counters.records_opened += 1
                number = RecordNumber(opener.epoch, sequence)
                self._authentic(number, opener.cid)
                yield number, content_type, content

    def _skip(self, datagram: Buffer, offset: int) -> int:
        """Go past a record without keys, and keep it if it may have come too early."""
        with_cid = datagram[offset] & 0x10
        cid_bytes = self._opening.cid_bytes or (self._offered_cid_bytes if with_cid else 0)
        if not with_cid and datagram[offset] & 3 == EPOCH_EARLY:
            # Whoever sends early data knows no id yet.
            cid_bytes = 0
        header = parse_ciphertext_header(datagram, offset, cid_bytes)
        if isinstance(header, Discard):
            self._counters.discard(header)
            return len(datagram)
        if header.epoch_bits == EPOCH_HANDSHAKE:
            self.server_hello_missing = True
        # With the handshake's keys there, early data has its own or was not accepted (decision A15).
        late = header.epoch_bits == EPOCH_EARLY and self._opening.epoch >= EPOCH_HANDSHAKE
        if late or not self.keep_early or not self._put_early(bytes(datagram[offset : header.end])):
            # RFC 9147 section 6.1 [9147-6.1-2]: like a record that failed.
            self._counters.discard(Discard.UNKNOWN_EPOCH)
        return header.end

    def _put_early(self, record: bytes) -> bool:
        if self._early is None:
            self._early = EarlyRecords(self._account)
        return self._early.put(record)

    def handshake_over(self) -> None:
        """Every record has its keys from here on."""
        self.keep_early = False
        if not self._early:
            self._early = None

    def close(self) -> None:
        """Open and keep nothing any more; what is left of a batch is dropped."""
        self._closed = True
        if self._early is not None:
            self._early.take()
        self._opening.clear()


def _end_of_id(datagrams: Sequence[Buffer | Train], index: int, cid: bytes, offset: int) -> int:
    """The index behind the datagrams whose records carry `cid`, where a peer has several to choose from."""
    n = 1 + len(cid)
    for at in range(index, len(datagrams)):
        one = datagrams[at]
        data = one.data if isinstance(one, Train) else one
        if data[offset + 1 : offset + n] != cid or (isinstance(one, Train) and not one.starts_alike(n)):
            return at
        offset = 0
    return len(datagrams)
