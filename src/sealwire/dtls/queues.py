"""What a connection keeps for later, charged to its account: messages, and records that came too early."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sealwire.limits import Account, Purpose
from sealwire.record.protect import weigh
from sealwire.wire import Buffer

# A charge beside the bytes of a message: the object and its place in the queue.
_MESSAGE_OVERHEAD_BYTES: Final = 64
# One transmission of the peer (RFC 9147 section 5.8.3) whose ServerHello is missing.
_MAX_EARLY_RECORDS: Final = 10


class MessageQueue:
    """Messages in order, at most `limit` bytes of them (with a small charge for each)."""

    __slots__ = ("_account", "_lent", "_limit", "_messages", "_name", "_purpose", "bytes_held")

    def __init__(self, account: Account, purpose: Purpose, limit: int, name: str) -> None:
        """`name` is that of the limit, to count how often it is reached."""
        self._account = account
        self._purpose = purpose
        self._limit = limit
        self._name = name
        self._messages: list[bytes] | None = None
        self._lent = 0
        #: What is charged for the messages held.
        self.bytes_held = 0

    def __len__(self) -> int:
        return 0 if self._messages is None else len(self._messages)

    @property
    def idle(self) -> bool:
        """Whether there is nothing in it, and nothing lent."""
        return not (self._messages or self._lent)

    def put(self, messages: Iterable[Buffer]) -> bool:
        """Append all of `messages`, or none of them: whether there was room."""
        taken, size, _ = weigh(messages)
        return self.put_weighed(taken, size)

    def put_weighed(self, messages: list[bytes], size: int) -> bool:
        """As :meth:`put` of messages that have `size` bytes together."""
        size += _MESSAGE_OVERHEAD_BYTES * len(messages)
        if self.bytes_held + size > self._limit:
            self._account.note(self._name)
            return False
        if not self._account.charge(self._purpose, size):
            return False
        self._append(messages, size)
        return True

    def put_received(self, messages: list[bytes]) -> int:
        """Append what has room, in order; how many of `messages` have."""
        size = sum(map(len, messages)) + _MESSAGE_OVERHEAD_BYTES * len(messages)
        if self.bytes_held + size <= self._limit and self._account.charge(self._purpose, size):
            self._append(messages, size)
            return len(messages)
        # A later one may be shorter and fit, as if each had come alone.
        return sum(self.put((message,)) for message in messages)

    def _append(self, messages: list[bytes], size: int) -> None:
        self.bytes_held += size
        if self._messages is None:
            # A list of its own: the caller's may go on.
            self._messages = messages[:]
        else:
            self._messages += messages

    def take_bytes(self, most: int) -> list[bytes]:
        """The first messages, at least one and no more than `most` bytes with their overhead."""
        if self.bytes_held <= most:
            return self.take()
        count = 0
        for message in self._messages or ():
            most -= len(message) + _MESSAGE_OVERHEAD_BYTES
            if most < 0 and count:
                break
            count += 1
        return self._take_some(count)

    def held(self) -> tuple[bytes, ...]:
        """The messages, which stay."""
        return tuple(self._messages or ())

    def take(self, most: int | None = None) -> list[bytes]:
        """The first `most` messages, or all of them; what is left stays in order."""
        if most is not None and most < len(self):
            return self._take_some(most)
        messages, self._messages = self._messages, None
        self._release(self.bytes_held)
        self.bytes_held = 0
        return messages or []

    def lend(self) -> list[bytes]:
        """As :meth:`take`; what is given out stays charged until the next call, when it is used up."""
        self._release(self._lent)
        messages, self._messages = self._messages, None
        self._lent, self.bytes_held = self.bytes_held, 0
        return messages or []

    def _release(self, n: int) -> None:
        if n:
            self._account.release(self._purpose, n)

    def _take_some(self, most: int) -> list[bytes]:
        held = self._messages or []
        messages = held[:most]
        del held[:most]
        size = sum(map(len, messages)) + _MESSAGE_OVERHEAD_BYTES * len(messages)
        self._account.release(self._purpose, size)
        self.bytes_held -= size
        return messages


class EarlyRecords:
    """Records of an epoch whose keys are not there yet, because the message bringing them was overtaken.

    RFC 9147 section 4.2.1 [9147-4.2.1-3, 9147-4.2.1-4] lets a receiver keep or drop them; a few are kept.
    """

    __slots__ = ("_account", "_records")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._records: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._records)

    def put(self, record: bytes) -> bool:
        """Keep a record: whether there was room."""
        if len(self._records) >= _MAX_EARLY_RECORDS:
            return False
        if not self._account.charge(Purpose.REASSEMBLY, len(record)):
            return False
        self._records += (record,)
        return True

    def take(self) -> tuple[bytes, ...]:
        """All records kept; none is kept any more."""
        records, self._records = self._records, ()
        self._account.release(Purpose.REASSEMBLY, sum(map(len, records)))
        return records
