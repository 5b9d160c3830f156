"""What a probe can report: flows, what they are, and what happened to the probe itself.

Every event is one CBOR array: schema, event sequence, then its fields in a fixed order.  A schema's
fields never change; other fields are another schema with another number, so a reader knows from
the first element whether it understands the rest.  docs/probe/events.cddl says the same in CDDL,
docs/probe/sealed.schema.json describes `as_json`.

Sequences are one a probe, without holes: what is missing is named by a Gap.  Times are nanoseconds
since 1970; a flow's and a transaction's is packet time, that of every other event the probe's clock.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from typing import Any, ClassVar, Final

from sealwire.probe.dissect import facts as dissected
from sealwire.probe.dissect.facts import BLOCK_HEAD, Fact, Facts
from sealwire.probe.features import Flow, address, id_of, unpack
from sealwire.probe.seal import cbor
from sealwire.probe.seal.leaves import (
    BACKWARD,
    COLUMNS,
    DISSECTED,
    FLOW,
    FORWARD,
    TRANSACTION,
    TRANSACTION_COLUMNS,
    Decoded,
)

__all__ = [
    "DISSECTED",
    "FLOW",
    "SCHEMAS",
    "TRANSACTION",
    "Clock",
    "Event",
    "Gap",
    "GapReason",
    "Health",
    "Heartbeat",
    "Key",
    "Policy",
    "Start",
    "Stop",
    "as_json",
    "decode",
    "leaves_json",
]


class GapReason(enum.IntEnum):
    """Why events are missing."""

    UNCLEAN_RESTART = 1  #: the probe ended without saying so; what it had not written is gone
    QUEUE_FULL = 2  #: the signer did not keep up
    SPOOL_FULL = 3  #: the oldest segments made room
    WRITE_FAILED = 4  #: the disk took a segment and then failed; it may or may not be there
    MISSING = 5  #: segments that had been written were not there at a restart
    PROBE_ENDED = 6  #: the program that captures ended without saying so
    SIGNER_LOST = 7  #: the signer ended and was started again; at most so many events were on their way
    SAMPLED = 8  #: under pressure only one of so many events was kept
    LOWEST_CLASS = (
        9  #: under more pressure flows that nobody answered and of which nothing is known went first
    )


@dataclass(frozen=True, slots=True)
class Event:
    """Fields in the order of the leaf, behind schema and sequence."""

    SCHEMA: ClassVar[int]

    time: int

    def leaf(self, sequence: int) -> bytes:
        """The event as the leaf with this sequence."""
        return cbor.encode([self.SCHEMA, sequence, *astuple(self)])


@dataclass(frozen=True, slots=True)
class Start(Event):
    """The signer began; a new boot id is in the header."""

    SCHEMA: ClassVar[int] = 2

    software: str
    public_key: bytes  #: SubjectPublicKeyInfo of the signing key, DER


@dataclass(frozen=True, slots=True)
class Stop(Event):
    """The signer ended in order; until the next Start nothing is missing."""

    SCHEMA: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Heartbeat(Event):
    """Nothing else happened for the heartbeat time."""

    SCHEMA: ClassVar[int] = 4


@dataclass(frozen=True, slots=True)
class Gap(Event):
    """Something is missing, and this is known of it; what is not known is None.

    Segments `first_segment` to `last_segment` with the events `first_event` to `last_event` are
    gone, and `hash` is the chain hash of the last of them, so that the next one that is there
    links to it.  Where events were lost before they had a sequence, `events` says how many.
    """

    SCHEMA: ClassVar[int] = 5

    reason: int
    since: int | None  #: begin of the interval in which something is missing
    until: int | None  #: its end
    events: int | None
    first_event: int | None
    last_event: int | None
    first_segment: int | None
    last_segment: int | None
    hash: bytes | None


@dataclass(frozen=True, slots=True)
class Key(Event):
    """From the next segment on another key signs; this one is signed by the old key."""

    SCHEMA: ClassVar[int] = 6

    public_key: bytes  #: SubjectPublicKeyInfo of the new key, DER


@dataclass(frozen=True, slots=True)
class Clock(Event):
    """The clock was set: it moved by `step` nanoseconds more than the time that passed."""

    SCHEMA: ClassVar[int] = 7

    step: int


@dataclass(frozen=True, slots=True)
class Policy(Event):
    """From here on events are treated otherwise, because they come faster than they go (pressure.Step)."""

    SCHEMA: ClassVar[int] = 10

    treatment: int  #: the pressure.Step that was reached
    fill: int  #: of the fuller one of queue and spool, thousandths
    sample: int  #: one event of so many is kept; 1 for all


@dataclass(frozen=True, slots=True)
class Health(Event):
    """How the probe is, said every so often whatever happens: a quiet network is healthy."""

    SCHEMA: ClassVar[int] = 11

    healthy: int  #: 1 while no degradation rule holds
    degraded: str  #: names of the rules that hold, with commas between
    active_flows: int  #: in the flow table now
    buffer: int  #: how full queue or spool is, whichever is fuller, thousandths
    unsigned: int  #: events that are not durable yet
    drops: int  #: part of the packets since the last one that were not seen, millionths


SCHEMAS: Final[dict[int, type[Event]]] = {
    kind.SCHEMA: kind for kind in (Start, Stop, Heartbeat, Gap, Key, Clock, Policy, Health)
}
_BYTES: Final = {"public_key", "hash"}
_TEXTS: Final = {"software", "degraded"}
_OPTIONAL: Final = {field.name for field in fields(Gap)} - {"time", "reason"}


def decode(leaf: bytes) -> Event | None:
    """The event of a leaf; None for a schema that is not known here.

    Raises ValueError for a leaf that is not what its schema says.
    """
    item = cbor.decode(leaf)
    if not isinstance(item, list) or len(item) < 2 or any(type(n) is not int for n in item[:2]):
        raise ValueError("an event is an array that begins with schema and sequence")
    kind = SCHEMAS.get(item[0])
    if kind is None:
        return None
    names = fields(kind)
    if len(item) != 2 + len(names):
        raise ValueError(f"{kind.__name__} has {2 + len(names)} elements, not {len(item)}")
    for field, value in zip(names, item[2:], strict=True):
        right: type = bytes if field.name in _BYTES else str if field.name in _TEXTS else int
        if type(value) is right and (not isinstance(value, int) or field.name == "step" or value >= 0):
            continue
        if value is None and kind is Gap and field.name in _OPTIONAL:
            continue
        raise ValueError(f"{field.name} of {kind.__name__} is not what it should be")
    return kind(*item[2:])


def as_json(leaf: bytes) -> dict[str, Any]:
    """A leaf that is no flow's and no transaction's in JSON's terms; bytes as hexadecimal digits."""
    schema, sequence, *rest = cbor.decode(leaf)
    event = decode(leaf)
    if event is None:
        return {"schema": schema, "sequence": sequence, "fields": _plain(rest)}
    values = {field.name: _plain(getattr(event, field.name)) for field in fields(event)}
    return {"schema": schema, "event": type(event).__name__.lower(), "sequence": sequence, **values}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value


_SHOWN: Final = tuple(name for name in COLUMNS if not name.endswith("_address") and name != "history_letters")


def flow_json(flow: Flow, sequence: int) -> dict[str, Any]:
    """A flow's leaf in JSON's terms: all that was sealed, under the names of its columns, and its id."""
    ways = (FORWARD, BACKWARD) if flow.backward_packets else (FORWARD,)
    return {
        "schema": DISSECTED if flow.facts_block else FLOW,
        "event": "flow",
        "sequence": sequence,
        "flow_id": flow.flow_id,
        "source": flow.source,
        "destination": flow.destination,
        **{name: getattr(flow, name) for name in _SHOWN},
        "history": flow.history,
        **{name: getattr(flow, name) for names in ways for name in names},
        **({"first_packets": [list(pair) for pair in flow.first_packets]} if flow.first_sequence else {}),
        **({"facts": facts_json(flow.facts)} if flow.facts_block else {}),
    }


def transaction_json(event: dissected.Event, sequence: int) -> dict[str, Any]:
    """A transaction's leaf in JSON's terms; its flow is the one with this `flow_id`."""
    source, destination = (
        address(packed, event.ip_version) for packed in (event.source_address, event.destination_address)
    )
    return {
        "schema": TRANSACTION,
        "event": "transaction",
        "sequence": sequence,
        "flow_id": id_of(event.key),
        "source": source,
        "destination": destination,
        **{name: getattr(event, name) for name in TRANSACTION_COLUMNS if not name.endswith("_address")},
        "facts": facts_json(event.facts),
    }


def facts_json(facts: Facts) -> dict[str, Any]:
    """Facts in JSON's terms: `values` by name, or `tags` and their bytes if some are not known here."""
    protocol, certainty, flags = BLOCK_HEAD.unpack_from(facts.block)
    found: dict[str, Any] = {"protocol": protocol, "certainty": certainty, "flags": flags}
    try:
        values = facts.as_dict()
        found["application"] = facts.application
    except (LookupError, ValueError, struct.error):
        return {**found, "tags": [[tag, value.hex()] for tag, value in facts]}
    if (certificate := facts.raw(Fact.CERTIFICATE)) is not None:
        values["certificate"] = certificate.hex()
    return {**found, "values": values}


def leaves_json(decoded: Decoded, first: int) -> Iterator[dict[str, Any]]:
    """The events of decoded leaves in their order; `first` is the first one's sequence."""
    flows = unpack(decoded.rows, decoded.first_packets, decoded.facts)
    transactions = dissected.events(decoded.transactions)
    others = iter(decoded.others)
    for sequence, kind in enumerate(decoded.kinds, first):
        if kind in (FLOW, DISSECTED):
            yield flow_json(next(flows), sequence)
        elif kind == TRANSACTION:
            yield transaction_json(next(transactions), sequence)
        else:
            yield as_json(next(others)[1])
