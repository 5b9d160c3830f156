"""Limits, each declared once: number, unit, what it bounds, what happens at it, and what counts that.

docs/limits.md is made from these declarations (``make docs``), and tests/limits forces each of them.
Where there is a choice of what happens, it is a :class:`Policy` of its own among the fields.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import Any, Final

# Epochs and message_seq have 16 bits on the wire (RFC 9147 sections 4 and 5.2, errata 8048 and 8050).
_LAST_NUMBER: Final = 0xFFFF

# New keys are asked for before the old ones are used up, in records that may be lost.
_LEAST_RECORDS: Final = 16

_KIB: Final = 1024
# A message's length has 26 bits, and the format allows half of that.
_LONGEST_MESSAGE: Final = 32 * 1024 * 1024
_MIB: Final = 1024 * 1024


class Policy(enum.Enum):
    """What happens when a limit is reached."""

    #: A newcomer is turned away; who is there stays.
    REFUSE = "the newcomer is turned away"
    #: Who holds most and was idle longest is closed, half-open peers before established ones.
    SHED = "the largest and idlest peers are closed, half-open ones first"
    #: The oldest gives way to the newcomer.
    REPLACE = "the oldest gives way"
    #: What came is dropped without a word and may come again.
    DROP = "what came is dropped"
    #: The application gets LimitReached, or waits in drain().
    RAISE = "the application's call raises LimitReached or waits"
    #: The connection ends, with an alert where there is somebody to hear it.
    CLOSE = "the connection ends"
    #: The connection is kept in a tenth of the memory, until it is wanted again.
    HIBERNATE = "the connection sleeps"
    #: New keys are made.
    REKEY = "new keys are made"


class Scope(enum.Enum):
    """What a limit is a limit of."""

    ENDPOINT = "endpoint"
    SITE = "IPv6 /48"
    PREFIX = "IPv4 address or IPv6 /64"
    CONNECTION = "connection"
    KEY = "key"
    STRANGERS = "unproved addresses"


def _limit(
    default: float, unit: str, scope: Scope, policy: Policy | str, meaning: str, counter: str = ""
) -> Any:
    """A field of Limits.  `policy` as a string names the field that chooses it; `counter` is what counts
    the times the limit was reached, by default its own name in :attr:`Ledger.reached`."""
    metadata = {"unit": unit, "scope": scope, "policy": policy, "meaning": meaning, "counter": counter}
    return field(default=default, metadata=metadata)


def _choices(default: Policy, other: Policy, meaning: str) -> dict[str, Any]:
    """Of a field of Limits that says what happens at another one."""
    return {"choices": (default, other), "meaning": meaning}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one endpoint may spend.  Sizes in bytes, times in seconds.

    Every field is enforced; reaching one raises :class:`sealwire.LimitReached` towards the
    application or is a counted refusal towards the network.  docs/limits.md lists them with what
    happens at each.
    """

    # --- memory ----------------------------------------------------------------------------
    total_bytes: int = _limit(
        256 * _MIB, "bytes", Scope.ENDPOINT, "total_policy", "held for all peers together"
    )
    #: SHED makes room at 95 % of total_bytes down to 90 %.
    total_policy: Policy = field(
        default=Policy.SHED, metadata=_choices(Policy.SHED, Policy.REFUSE, "what happens at total_bytes")
    )
    connection_bytes: int = _limit(
        1 * _MIB, "bytes", Scope.CONNECTION, Policy.DROP, "held for one established connection"
    )
    handshake_bytes: int = _limit(
        512 * _KIB, "bytes", Scope.CONNECTION, Policy.CLOSE, "held for one connection in its handshake"
    )
    prefix_bytes: int = _limit(64 * _MIB, "bytes", Scope.PREFIX, Policy.REFUSE, "held for one prefix")
    site_bytes: int = _limit(128 * _MIB, "bytes", Scope.SITE, Policy.REFUSE, "held for one /48")
    flights_bytes: int = _limit(
        64 * _MIB, "bytes", Scope.ENDPOINT, Policy.CLOSE, "flights that are not acknowledged, of all"
    )
    reassemblies_bytes: int = _limit(
        64 * _MIB, "bytes", Scope.ENDPOINT, Policy.DROP, "messages and records that are not whole, of all"
    )
    receive_queues_bytes: int = _limit(
        192 * _MIB, "bytes", Scope.ENDPOINT, Policy.DROP, "data the application has not taken, of all"
    )
    send_queues_bytes: int = _limit(
        192 * _MIB, "bytes", Scope.ENDPOINT, Policy.RAISE, "data the network has not taken, of all"
    )
    early_data_bytes: int = _limit(
        32 * _MIB, "bytes", Scope.ENDPOINT, Policy.DROP, "data of peers that have not finished, of all"
    )
    tickets_bytes: int = _limit(
        16 * _MIB, "bytes", Scope.ENDPOINT, Policy.DROP, "tickets the application has not taken, of all"
    )
    application_bytes: int = _limit(
        128 * _MIB, "bytes", Scope.ENDPOINT, Policy.RAISE, "reserved by the application"
    )

    # --- how many --------------------------------------------------------------------------
    connections: int = _limit(
        10_000, "connections", Scope.ENDPOINT, "connections_policy", "handshakes included"
    )
    #: SHED closes the connection that was idle longest, where it was so for a minute.
    connections_policy: Policy = field(
        default=Policy.REFUSE, metadata=_choices(Policy.REFUSE, Policy.SHED, "what happens at connections")
    )
    handshakes: int = _limit(
        1_000, "connections", Scope.ENDPOINT, "handshakes_policy", "whose handshake is not finished"
    )
    #: REPLACE ends the oldest handshake, where it has gone on for a second.
    handshakes_policy: Policy = field(
        default=Policy.REPLACE, metadata=_choices(Policy.REPLACE, Policy.REFUSE, "what happens at handshakes")
    )
    prefix_connections: int = _limit(1_000, "connections", Scope.PREFIX, Policy.REFUSE, "handshakes included")
    prefix_handshakes: int = _limit(
        250, "connections", Scope.PREFIX, Policy.REFUSE, "whose handshake is not finished"
    )
    site_connections: int = _limit(2_000, "connections", Scope.SITE, Policy.REFUSE, "handshakes included")
    site_handshakes: int = _limit(
        500, "connections", Scope.SITE, Policy.REFUSE, "whose handshake is not finished"
    )
    prefixes: int = _limit(
        20_000,
        "prefixes",
        Scope.ENDPOINT,
        Policy.DROP,
        "with an account of their own; beyond it the limits per prefix do not hold for a newcomer",
        "prefixes.overflows",
    )

    # --- handshake messages ----------------------------------------------------------------
    #: A post-quantum chain of four certificates fits.
    handshake_message_bytes: int = _limit(
        64 * _KIB, "bytes", Scope.CONNECTION, Policy.CLOSE, "longest handshake message accepted"
    )
    certificate_chain_bytes: int = _limit(
        48 * _KIB, "bytes", Scope.CONNECTION, Policy.CLOSE, "sum of a peer's certificate list"
    )
    certificate_chain_length: int = _limit(
        10, "certificates", Scope.CONNECTION, Policy.CLOSE, "in a peer's list"
    )
    reassembly_bytes: int = _limit(
        256 * _KIB, "bytes", Scope.CONNECTION, Policy.DROP, "fragments of messages in the handshake"
    )
    established_reassembly_bytes: int = _limit(
        96 * _KIB, "bytes", Scope.CONNECTION, Policy.DROP, "fragments of messages after the handshake"
    )
    future_messages: int = _limit(
        8, "messages", Scope.CONNECTION, Policy.DROP, "ahead of the one expected, kept for reordering"
    )
    #: Bounds the cost of tiny fragments.
    reassembly_ranges: int = _limit(
        256, "ranges", Scope.CONNECTION, Policy.DROP, "separate pieces of one message in reassembly"
    )

    # --- queues ----------------------------------------------------------------------------
    receive_queue_bytes: int = _limit(
        256 * _KIB, "bytes", Scope.CONNECTION, Policy.DROP, "opened data waiting for the application"
    )
    #: Above it send() waits or raises.
    send_queue_bytes: int = _limit(
        256 * _KIB, "bytes", Scope.CONNECTION, Policy.RAISE, "data waiting for the network"
    )

    #: At most 32 MiB (docs/wire-stcp.md).  One each way fits into connection_bytes beside full queues.
    message_bytes: int = _limit(
        128 * _KIB, "bytes", Scope.CONNECTION, Policy.CLOSE, "longest message of message mode, either way"
    )

    # --- time and repetition ---------------------------------------------------------------
    handshake_seconds: float = _limit(
        60.0, "seconds", Scope.CONNECTION, Policy.CLOSE, "a handshake may take, progress or not"
    )
    retransmissions: int = _limit(
        12, "transmissions", Scope.CONNECTION, Policy.CLOSE, "of one flight before giving up"
    )
    #: BoringSSL uses 32.
    key_updates_in_a_row: int = _limit(
        32, "KeyUpdates", Scope.CONNECTION, Policy.CLOSE, "of a peer without application data in between"
    )
    #: A keepalive sends one in many seconds.
    pings_per_second: int = _limit(10, "pings", Scope.CONNECTION, Policy.CLOSE, "of a peer in message mode")
    #: RFC 9147 section 8; see docs/keys-over-time.md.
    rekey_seconds: float = _limit(
        3_600.0, "seconds", Scope.KEY, Policy.REKEY, "sending keys are in use", "rekeyed_by_age"
    )
    #: Where the AEAD does not allow fewer (RFC 9147 section 4.5.3).
    idle_seconds: float = _limit(
        60.0,
        "seconds",
        Scope.CONNECTION,
        Policy.HIBERNATE,
        "without a record either way (datagrams, servers)",
    )
    records_per_key: int = _limit(
        1 << 48, "records", Scope.KEY, Policy.REKEY, "sealed under one key", "rekeyed_by_use"
    )
    #: Where the AEAD does not allow fewer.
    forgeries_per_key: int = _limit(
        1 << 48, "records", Scope.KEY, Policy.CLOSE, "that fail to authenticate under one key"
    )
    epochs: int = _limit(65_000, "epochs", Scope.CONNECTION, Policy.CLOSE, "the highest one sent in")
    handshake_messages: int = _limit(
        65_000, "messages", Scope.CONNECTION, Policy.CLOSE, "sent, KeyUpdates among them"
    )

    # --- strangers -------------------------------------------------------------------------
    cookie_seconds: float = _limit(
        300.0, "seconds", Scope.STRANGERS, Policy.DROP, "a cookie is good for", "cookies_refused"
    )
    hello_slots: int = _limit(
        4_096,
        "slots",
        Scope.STRANGERS,
        Policy.REPLACE,
        "for ClientHellos split over datagrams",
        "discard.over_budget",
    )
    #: A post-quantum hello is about 1.8 KiB.
    hello_slot_bytes: int = _limit(
        4_096, "bytes", Scope.STRANGERS, Policy.DROP, "of one such slot", "discard.over_budget"
    )
    hello_slot_seconds: float = _limit(
        3.0,
        "seconds",
        Scope.STRANGERS,
        Policy.DROP,
        "a slot is kept from being replaced",
        "discard.over_budget",
    )
    #: See docs/flood.md.
    hello_replies_per_second: int = _limit(
        2_000, "datagrams", Scope.STRANGERS, Policy.DROP, "answers to first hellos", "discard.under_load"
    )
    #: Of those above, which are answered if they are repeated.
    hello_repeats_per_second: int = _limit(
        20_000, "datagrams", Scope.STRANGERS, Policy.DROP, "answers to repeated hellos", "discard.under_load"
    )
    hello_reply_bytes_per_second: int = _limit(
        4 * _MIB, "bytes", Scope.STRANGERS, Policy.DROP, "of those answers", "discard.under_load"
    )
    #: An office behind one address fits.
    hello_replies_per_prefix_per_second: int = _limit(
        500, "datagrams", Scope.PREFIX, Policy.DROP, "answers to first hellos", "discard.under_load"
    )
    #: As good as unlimited, like the two below: set what your peers need.  A /48 has four times as much.
    prefix_new_per_second: int = _limit(
        100_000, "connections", Scope.PREFIX, Policy.REFUSE, "begun by proved addresses", "discard.over_quota"
    )
    prefix_datagrams_per_second: int = _limit(
        10_000_000, "datagrams", Scope.PREFIX, Policy.DROP, "received on connections", "discard.over_quota"
    )
    prefix_received_bytes_per_second: int = _limit(
        10 * 1024 * _MIB, "bytes", Scope.PREFIX, Policy.DROP, "of those datagrams", "discard.over_quota"
    )
    list_entries: int = _limit(
        4_096, "prefixes", Scope.ENDPOINT, Policy.RAISE, "on the lists of whom to let in or keep out"
    )
    replay_window: int = _limit(
        256, "records", Scope.KEY, Policy.DROP, "behind the newest that may still come", "discard.too_old"
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            choices = one.metadata.get("choices")
            if choices is not None:
                if value not in choices:
                    names = " or ".join(f"Policy.{choice.name}" for choice in choices)
                    raise ValueError(f"Limits.{one.name} must be {names}, not {value!r}")
            elif not value > 0:
                raise ValueError(f"Limits.{one.name} must be positive, not {value!r}")
        for name in ("epochs", "handshake_messages"):
            if getattr(self, name) > _LAST_NUMBER:
                raise ValueError(f"Limits.{name} is above {_LAST_NUMBER}, the last that can be written")
        if self.records_per_key < _LEAST_RECORDS:
            raise ValueError(f"Limits.records_per_key is below {_LEAST_RECORDS}, too few to change keys with")
        if self.message_bytes > _LONGEST_MESSAGE:
            raise ValueError(
                f"Limits.message_bytes is above {_LONGEST_MESSAGE}, the longest message there is"
            )
        if self.connection_bytes > self.total_bytes:
            raise ValueError("Limits.connection_bytes is above Limits.total_bytes")
        if self.handshakes > self.connections:
            raise ValueError("Limits.handshakes is above Limits.connections")


#: The limits of whoever says nothing; making one looks at every field.
DEFAULT_LIMITS: Final = Limits()
