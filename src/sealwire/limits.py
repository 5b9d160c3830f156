"""Limits (numbers), Policy (what happens at each) and Ledger (who holds how many bytes now).

Every byte held on behalf of a peer is charged to one ledger before it is held and released when
it goes; what the ledger refuses is not held.  A connection has an :class:`Account` of its own in
its endpoint's ledger, so closing it releases whatever it still owed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from typing import Final

# Epochs and message_seq have 16 bits on the wire (RFC 9147 sections 4 and 5.2, errata 8048 and 8050).
_LAST_NUMBER: Final = 0xFFFF

# New keys are asked for before the old ones are used up, in records that may be lost.
_LEAST_RECORDS: Final = 16


class Purpose(enum.Enum):
    """What held bytes are for.  One total per purpose is kept by the ledger."""

    CONNECTION = "connection"  # the objects of a connection themselves
    HANDSHAKE = "handshake"  # our flights, kept until acknowledged
    REASSEMBLY = "reassembly"  # fragments of messages that are not complete
    RECEIVE_QUEUE = "receive queue"  # opened data the application has not taken
    SEND_QUEUE = "send queue"  # data the application gave and the network has not taken
    TABLES = "tables"  # fixed tables of an endpoint

    # Members are singletons; Enum's own hash is a Python call, and every charge looks one up.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one endpoint may spend.  Sizes in bytes, times in seconds.

    Every field is enforced; reaching one raises :class:`sealwire.LimitReached` towards the
    application or is a counted refusal towards the network.
    """

    #: Bytes held for all peers together.
    total_bytes: int = 256 * 1024 * 1024
    #: Bytes held for one connection.
    connection_bytes: int = 1024 * 1024
    #: Connections of one endpoint, handshakes included.
    connections: int = 10_000
    #: Connections whose handshake is not finished.
    handshakes: int = 1_000
    #: Longest handshake message accepted.  A post-quantum chain of four certificates fits.
    handshake_message_bytes: int = 64 * 1024
    #: Sum of a peer's certificate list.
    certificate_chain_bytes: int = 48 * 1024
    #: Certificates in a peer's list.
    certificate_chain_length: int = 10
    #: Handshake messages ahead of the one expected that are kept for reordering.
    future_messages: int = 8
    #: Separate ranges of one message in reassembly; bounds the cost of tiny fragments.
    reassembly_ranges: int = 256
    #: Opened application data waiting for the application, per connection.
    receive_queue_bytes: int = 256 * 1024
    #: Data waiting for the network, per connection; above it send() waits or raises.
    send_queue_bytes: int = 256 * 1024
    #: A handshake not finished after this many seconds is abandoned, progress or not.
    handshake_seconds: float = 60.0
    #: Transmissions of one flight before giving up.
    retransmissions: int = 12
    #: KeyUpdates accepted from a peer without application data in between (BoringSSL uses 32).
    key_updates_in_a_row: int = 32
    #: Sending keys in use for so long are replaced (RFC 9147 section 8); see docs/keys-over-time.md.
    rekey_seconds: float = 3_600.0
    #: Records sealed under one key, where its AEAD does not allow fewer (RFC 9147 section 4.5.3).
    records_per_key: int = 1 << 48
    #: Records that fail to authenticate under one key, where its AEAD does not allow fewer; then the end.
    forgeries_per_key: int = 1 << 48
    #: Highest epoch sent in; without another one the connection is closed in order.
    epochs: int = 65_000
    #: Handshake messages sent on one connection, KeyUpdates among them; closed in order likewise.
    handshake_messages: int = 65_000
    #: Cookie lifetime; an older one is refused.
    cookie_seconds: float = 300.0
    #: Slots for ClientHellos split over datagrams, before any address is proved.
    hello_slots: int = 4_096
    #: Bytes of one such slot; a post-quantum hello is about 1.8 KiB.
    hello_slot_bytes: int = 4_096
    #: A slot younger than this is never replaced.
    hello_slot_seconds: float = 3.0
    #: First hellos of unproved addresses that are answered in a second; see docs/flood.md.
    hello_replies_per_second: int = 2_000
    #: Of those above, which are answered if they are repeated, so many in a second.
    hello_repeats_per_second: int = 20_000
    #: Bytes of all those answers in a second.
    hello_reply_bytes_per_second: int = 4 * 1024 * 1024
    #: Those of one prefix (an IPv4 address, 64 bits of an IPv6 one); an office behind one address fits.
    hello_replies_per_prefix_per_second: int = 500
    #: Replay window, in records; per epoch.
    replay_window: int = 256

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"Limits.{field.name} must be positive, not {value!r}")
        for name in ("epochs", "handshake_messages"):
            if getattr(self, name) > _LAST_NUMBER:
                raise ValueError(f"Limits.{name} is above {_LAST_NUMBER}, the last that can be written")
        if self.records_per_key < _LEAST_RECORDS:
            raise ValueError(f"Limits.records_per_key is below {_LEAST_RECORDS}, too few to change keys with")
        if self.connection_bytes > self.total_bytes:
            raise ValueError("Limits.connection_bytes is above Limits.total_bytes")
        if self.handshakes > self.connections:
            raise ValueError("Limits.handshakes is above Limits.connections")


class Ledger:
    """Running account of bytes held for peers, with one cap over all of them.

    Not thread-safe: it belongs to the thread of its endpoint.
    """

    __slots__ = ("_by_purpose", "held", "limit", "peak", "refusals")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.peak = 0
        #: How many charges were refused.
        self.refusals = 0
        self._by_purpose = dict.fromkeys(Purpose, 0)

    def charge(self, purpose: Purpose, n: int) -> bool:
        """Account for `n` more bytes; False, and nothing accounted, if the cap forbids it."""
        held = self.held + n
        if held > self.limit:
            self.refusals += 1
            return False
        self.held = held
        if held > self.peak:
            self.peak = held
        self._by_purpose[purpose] += n
        return True

    def release(self, purpose: Purpose, n: int) -> None:
        """Give back `n` bytes charged before.  Giving back more than was charged is a bug."""
        left = self._by_purpose[purpose] - n
        assert left >= 0, f"released {-left} bytes of {purpose.value} that were never charged"
        self._by_purpose[purpose] = left
        self.held -= n

    def held_for(self, purpose: Purpose) -> int:
        """Bytes held for `purpose` now."""
        return self._by_purpose[purpose]


class Account:
    """One connection's part of a ledger, with a cap of its own."""

    __slots__ = ("_by_purpose", "_ledger", "held", "limit")

    def __init__(self, ledger: Ledger, limit: int) -> None:
        self._ledger = ledger
        self._by_purpose: dict[Purpose, int] = {}
        self.limit = limit
        self.held = 0

    def charge(self, purpose: Purpose, n: int) -> bool:
        """As :meth:`Ledger.charge`, against this connection's cap first."""
        if self.held + n > self.limit:
            self._ledger.refusals += 1
            return False
        if not self._ledger.charge(purpose, n):
            return False
        self.held += n
        self._by_purpose[purpose] = self._by_purpose.get(purpose, 0) + n
        return True

    def release(self, purpose: Purpose, n: int) -> None:
        """As :meth:`Ledger.release`."""
        left = self._by_purpose.get(purpose, 0) - n
        assert left >= 0, f"released {-left} bytes of {purpose.value} that were never charged"
        self._by_purpose[purpose] = left
        self.held -= n
        self._ledger.release(purpose, n)

    def held_for(self, purpose: Purpose) -> int:
        """Bytes held for `purpose` now."""
        return self._by_purpose.get(purpose, 0)

    def close(self) -> None:
        """Release everything still charged.  May be called twice."""
        for purpose, n in self._by_purpose.items():
            if n:
                self._ledger.release(purpose, n)
        self._by_purpose.clear()
        self.held = 0
