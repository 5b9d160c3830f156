"""What a charge and a release compute, beneath :class:`Ledger` and :class:`Account`.

Data comes through here several times for each message, so this much of them is compiled (`_charging`);
the classes here are the twins and say what each method does.  Both are additions and comparisons, and a
charge is made everywhere or nowhere.  What a refusal and a change of pressure lead to is their owners'.
"""

from __future__ import annotations

import enum
import os
from typing import TYPE_CHECKING, Final


class Purpose(enum.Enum):
    """What held bytes are for.  One total per purpose is kept by the ledger."""

    CONNECTION = "connection"  # the objects of a connection themselves
    HANDSHAKE = "handshake"  # our flights, kept until acknowledged
    REASSEMBLY = "reassembly"  # fragments of messages that are not complete
    RECEIVE_QUEUE = "receive queue"  # opened data the application has not taken
    SEND_QUEUE = "send queue"  # data the application gave and the network has not taken
    EARLY_DATA = "early data"  # data of peers that have not finished the handshake
    TICKETS = "tickets"  # session tickets nobody has taken yet
    TABLES = "tables"  # fixed tables of an endpoint, beside the cap over all peers
    APPLICATION = "application"  # reserved by the application, see Budget

    # Members are singletons; Enum's own hash is a Python call, and every charge looks one up.
    __hash__ = object.__hash__


# The field of Limits that bounds the sum of a purpose over all connections.
PURPOSE_LIMITS: Final[dict[Purpose, str]] = {
    Purpose.HANDSHAKE: "flights_bytes",
    Purpose.REASSEMBLY: "reassemblies_bytes",
    Purpose.RECEIVE_QUEUE: "receive_queues_bytes",
    Purpose.SEND_QUEUE: "send_queues_bytes",
    Purpose.EARLY_DATA: "early_data_bytes",
    Purpose.TICKETS: "tickets_bytes",
    Purpose.APPLICATION: "application_bytes",
}

_NOTHING_HELD: Final[dict[Purpose, int]] = dict.fromkeys(Purpose, 0)


class PlainPrefixSums:
    """What the peers of one prefix have together; see :class:`sealwire.limits.prefixes.Prefix`."""

    __slots__ = ("connections", "handshakes", "held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.connections = 0
        self.handshakes = 0

    @property
    def bytes_name(self) -> str:
        """The field of Limits that bounds `held`."""
        raise NotImplementedError


class PlainLedgerSums:
    """The sums of a ledger; see :class:`sealwire.limits.ledger.Ledger`."""

    __slots__ = ("_by_purpose", "_caps", "_falls_at", "_rises_at", "held", "limit", "peak")

    def __init__(self, limit: int, caps: dict[Purpose, int]) -> None:
        self.limit = limit
        self.held = 0
        self.peak = 0
        self._by_purpose = _NOTHING_HELD.copy()
        self._caps = caps
        # Of `held`: from here on, and below this, the pressure has to be looked at.
        self._rises_at = self._falls_at = 0

    def charge(self, purpose: Purpose, n: int) -> bool:
        """Account for `n` more bytes; False, and nothing accounted, if a cap forbids it."""
        held = self.held + n
        mine = self._by_purpose[purpose] + n
        if held > self.limit or mine > self._caps[purpose]:
            self.refuse("total_bytes" if held > self.limit else PURPOSE_LIMITS[purpose])
            return False
        self.held = held
        self._by_purpose[purpose] = mine
        if held > self.peak:
            self.peak = held
        if held >= self._rises_at:
            self._change_level()
        return True

    def release(self, purpose: Purpose, n: int) -> None:
        """Give back `n` bytes charged before.  Giving back more than was charged is a bug."""
        left = self._by_purpose[purpose] - n
        assert left >= 0, f"released {-left} bytes of {purpose.value} that were never charged"
        self._by_purpose[purpose] = left
        self.held -= n
        if self.held < self._falls_at:
            self._change_level()

    def charge_table(self, n: int) -> None:
        """Account for a fixed table of `n` bytes, which is there as long as its endpoint."""
        self._by_purpose[Purpose.TABLES] += n

    def held_for(self, purpose: Purpose) -> int:
        """Bytes held for `purpose` now."""
        return self._by_purpose[purpose]

    def refuse(self, name: str) -> None:
        """A charge was refused because of the limit of that name."""
        raise NotImplementedError

    def _change_level(self) -> None:
        raise NotImplementedError


class PlainAccountSums:
    """The sums of an account; see :class:`sealwire.limits.ledger.Account`."""

    __slots__ = (
        "_connection",
        "_connections",
        "_handshakes",
        "_ledger",
        "_others",
        "_prefixes",
        "held",
        "limit",
    )

    def __init__(self, ledger: PlainLedgerSums, limit: int, is_connection: bool) -> None:
        self._ledger = ledger
        # What is held for Purpose.CONNECTION, and what for others: an idle connection has no others.
        self._connection = 0
        self._others: dict[Purpose, int] = {}
        self._prefixes: tuple[PlainPrefixSums, ...] = ()
        # What this account counts for among those of its prefixes.
        self._connections = self._handshakes = int(is_connection)
        self.limit = limit
        self.held = 0

    def charge(self, purpose: Purpose, n: int) -> bool:
        """As :meth:`Ledger.charge`, against this connection's cap and its prefixes' first."""
        ledger = self._ledger
        held = self.held + n
        if held > self.limit:
            ledger.refuse("handshake_bytes" if self._handshakes else "connection_bytes")
            return False
        for prefix in self._prefixes:
            if prefix.held + n > prefix.limit:
                ledger.refuse(prefix.bytes_name)
                return False
        # As Ledger.charge, written out: data comes through here for each run of records.
        total = ledger.held + n
        mine = ledger._by_purpose[purpose] + n
        if total > ledger.limit or mine > ledger._caps[purpose]:
            ledger.refuse("total_bytes" if total > ledger.limit else PURPOSE_LIMITS[purpose])
            return False
        ledger.held = total
        ledger._by_purpose[purpose] = mine
        if total > ledger.peak:
            ledger.peak = total
        self.held = held
        for prefix in self._prefixes:
            prefix.held += n
        if purpose is Purpose.CONNECTION:
            self._connection += n
        else:
            self._others[purpose] = self._others.get(purpose, 0) + n
        if total >= ledger._rises_at:
            ledger._change_level()
        return True

    def fits(self, purpose: Purpose, n: int) -> bool:
        """Whether :meth:`charge` would do it now; nothing is accounted for."""
        ledger = self._ledger
        if (
            self.held + n > self.limit
            or ledger.held + n > ledger.limit
            or ledger._by_purpose[purpose] + n > ledger._caps[purpose]
        ):
            return False
        for prefix in self._prefixes:  # noqa: SIM110 - a generator takes longer than all this
            if prefix.held + n > prefix.limit:
                return False
        return True

    def release(self, purpose: Purpose, n: int) -> None:
        """As :meth:`Ledger.release`."""
        left = self.held_for(purpose) - n
        assert left >= 0, f"released {-left} bytes of {purpose.value} that were never charged"
        if purpose is Purpose.CONNECTION:
            self._connection = left
        elif left:
            self._others[purpose] = left
        else:
            self._others.pop(purpose, None)
            if not self._others:
                # A dict keeps the room it once had.
                self._others = {}
        self.held -= n
        for prefix in self._prefixes:
            prefix.held -= n
        ledger = self._ledger
        ledger._by_purpose[purpose] -= n
        ledger.held -= n
        if ledger.held < ledger._falls_at:
            ledger._change_level()

    def held_for(self, purpose: Purpose) -> int:
        """Bytes held for `purpose` now."""
        return self._connection if purpose is Purpose.CONNECTION else self._others.get(purpose, 0)

    def _held_for_each(self) -> list[tuple[Purpose, int]]:
        return [(Purpose.CONNECTION, self._connection), *self._others.items()]

    def _forget(self) -> None:
        """Nothing is held any more; the ledger has been told."""
        self._connection = self.held = 0
        self._others = {}


if TYPE_CHECKING:
    PrefixSums = PlainPrefixSums
    LedgerSums = PlainLedgerSums
    AccountSums = PlainAccountSums
else:

    def _choose():
        """The compiled sums where they are built."""
        if os.environ.get("SEALWIRE_PURE") != "1":
            try:
                from sealwire.limits import _charging
            except ImportError as error:
                if os.environ.get("SEALWIRE_REQUIRE_COMPILED") == "1":
                    raise ImportError(f"SEALWIRE_REQUIRE_COMPILED=1, but {error}") from error
            else:
                _charging.learn(tuple(Purpose), PURPOSE_LIMITS)
                return _charging.PrefixSums, _charging.LedgerSums, _charging.AccountSums
        return PlainPrefixSums, PlainLedgerSums, PlainAccountSums

    PrefixSums, LedgerSums, AccountSums = _choose()
