"""Eight kinds of attack, each told by counters of the endpoint and written thresholds; no guessing.

Once a second the counters are noted in a ring of the last minute.  A Rule says what its attack makes
large, over how many seconds, from which value on it is one, and of which part of what honest peers
do; it ends when the value has stayed below a lower one for a while.  Everything costs the same
whatever is received.  RULES is the table; docs/attacks.md prints it.  Nothing here acts: the events
feed :class:`sealwire.dtls.load.Load`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from sealwire.errors import Discard
from sealwire.limits import Ledger, Limits, Purpose
from sealwire.telemetry import EndpointCounters

#: How often the counters are looked at.
TICK_SECONDS: Final = 1.0
#: An attack is over when its value was low for so long.
CALM_SECONDS: Final = 10.0
#: Events remembered, the newest.
LOG_EVENTS: Final = 256
# The longest any rule looks back, in ticks, and one more to subtract.
_HISTORY: Final = 64
# For shares of nothing.
_NOTHING: Final = 1e-9

_COUNTS: Final = (
    "datagrams_received",
    "hello_retry_requests",
    "cookies_accepted",
    "cookies_refused",
    "connections_opened",
    "handshakes_completed",
    "handshakes_slow",
    "handshakes_broken",
    "connections_used",
    "connections_wasted",
    "records_forged",
    "fragments_received",
    "fragments_small",
    "fragments_refused",
    "key_updates_idle",
    "acks_idle",
)
# Datagrams nobody has a use for.  Other versions are not among them: they may be honest.
_JUNK: Final = (
    Discard.EMPTY,
    Discard.NOT_DTLS,
    Discard.UNKNOWN_PEER,
    Discard.UNKNOWN_CID,
    Discard.MALFORMED_HELLO,
    Discard.BAD_FRAGMENT,
)
# Pieces of hellos that were kept, and those the slab had no slot for.
_PIECES: Final = (Discard.INCOMPLETE_HELLO, Discard.OVER_BUDGET)
_GAUGES: Final = ("handshaking", "connections", "held_bytes", "reassembly_bytes")
_NAMES: Final = (*_COUNTS, "junk", "pieces", "hellos_silenced", *_GAUGES)
_COLUMN: Final = {name: n for n, name in enumerate(_NAMES)}


class Attack(enum.Enum):
    """The kinds of attack there is a detector for."""

    MEMORY_EXHAUSTION = "memory exhaustion"
    CONNECTION_FLOOD = "connection flood"
    PACKET_FLOOD = "packet flood"
    AMPLIFICATION = "amplification"
    HANDSHAKE_FLOOD = "handshake flood"
    FRAGMENTATION = "fragmentation"
    SLOWLORIS = "slowloris"
    COMPUTATIONAL_EXHAUSTION = "computational exhaustion"


class View:
    """The last minute of an endpoint's counters."""

    __slots__ = ("_newest", "_ring", "limits")

    def __init__(self, first: tuple[int, ...], limits: Limits) -> None:
        self._ring = [first] * _HISTORY
        self._newest = 0
        self.limits = limits

    def push(self, values: tuple[int, ...]) -> None:
        """Note the values of one more tick."""
        self._newest = (self._newest + 1) % _HISTORY
        self._ring[self._newest] = values

    @property
    def newest(self) -> tuple[int, ...]:
        return self._ring[self._newest]

    def now(self, name: str) -> int:
        """A value as it is."""
        return self._ring[self._newest][_COLUMN[name]]

    def grown(self, name: str, seconds: int, until: int = 0) -> int:
        """How much a counter grew in so many seconds, up to `until` seconds ago."""
        column = _COLUMN[name]
        end = self._newest - until
        return self._ring[end % _HISTORY][column] - self._ring[(end - seconds) % _HISTORY][column]

    def evidence(self, seconds: int) -> dict[str, int]:
        """What moved in so many seconds, and the gauges."""
        old = self._ring[(self._newest - seconds) % _HISTORY]
        moved = {
            name: now - before
            for name, now, before in zip(_NAMES, self.newest, old, strict=True)
            if name not in _GAUGES and now != before
        }
        return {**moved, **{name: self.now(name) for name in _GAUGES}}


Measure = Callable[[View], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One sign of an attack.

    Attributes:
        attack: what it is a sign of; `name`: the rule's own name, unique.
        value: what is measured, and `of` what honest peers do beside it; in words, `unit` and `meaning`.
        window: seconds the value looks back.
        enter, leave: the value from which on it is an attack, and the one below which it is none.
        part_of: field of Limits the two are parts of, "" where they are plain numbers; `least` is then
            the smallest value that counts, so that small limits do not make every peer suspicious.
        share: the part of `of` that the value must be as well, to enter.
    """

    attack: Attack
    name: str
    unit: str
    meaning: str
    value: Measure
    window: int
    enter: float
    leave: float
    part_of: str = ""
    least: float = 0.0
    of: Measure | None = None
    share: float = 0.0

    def thresholds(self, limits: Limits) -> tuple[float, float]:
        """Where it enters and where it leaves, under these limits."""
        if not self.part_of:
            return self.enter, self.leave
        whole = float(getattr(limits, self.part_of))
        enter = max(self.enter * whole, self.least)
        return enter, enter * self.leave / self.enter

    def stands_out(self, view: View, value: float) -> bool:
        """Whether the value is enough of what honest peers do."""
        return self.of is None or value >= self.share * max(self.of(view), _NOTHING)


def _unreturned(view: View) -> float:
    """First hellos of four seconds, less the cookies that came back up to two seconds later."""
    back = view.grown("cookies_accepted", 6) + view.grown("cookies_refused", 6)
    return _first_hellos(view) - back / 4


def _first_hellos(view: View) -> float:
    """Hellos that asked for a cookie two to six seconds ago, a second: answered or, being too many, not."""
    asked = view.grown("hello_retry_requests", 4, until=2) + view.grown("hellos_silenced", 4, until=2)
    return asked / 4


def _unfinished(view: View) -> float:
    """Handshakes begun in ten seconds and, five seconds later, not complete, broken or slow."""
    ended = sum(
        view.grown(name, 15) for name in ("handshakes_completed", "handshakes_broken", "handshakes_slow")
    )
    return (view.grown("connections_opened", 10, until=5) - ended) / 10


def _overdue(view: View) -> float:
    """At least so many handshakes are older than ten seconds and not slow but silent."""
    return view.now("handshaking") - view.grown("connections_opened", 10) - view.grown("handshakes_slow", 60)


def _unused(view: View) -> float:
    """Handshakes completed in 55 seconds for connections neither used nor closed 5 seconds later."""
    ended = view.grown("connections_used", 60) + view.grown("connections_wasted", 60)
    return view.grown("handshakes_completed", 55, until=5) - ended


def _pieces_alone(view: View) -> float:
    """Pieces of hellos beyond what whole hellos can have needed: sixteen each, on the narrowest links."""
    whole = view.grown("hello_retry_requests", 5) + view.grown("cookies_accepted", 5)
    return (view.grown("pieces", 5) - 16 * whole) / 5


#: Every sign of every attack.
RULES: Final[tuple[Rule, ...]] = (
    Rule(
        attack=Attack.MEMORY_EXHAUSTION,
        name="memory",
        unit="bytes",
        meaning="bytes the ledger holds for peers",
        value=lambda view: view.now("held_bytes"),
        window=1,
        enter=0.85,
        leave=0.70,
        part_of="total_bytes",
    ),
    Rule(
        attack=Attack.CONNECTION_FLOOD,
        name="unused connections",
        unit="connections in 60 s",
        meaning="connections completed and, 5 s later, neither used nor closed",
        value=_unused,
        window=60,
        enter=0.02,
        leave=0.01,
        part_of="connections",
        least=20,
        of=lambda view: view.grown("handshakes_completed", 55, until=5),
        share=0.5,
    ),
    Rule(
        attack=Attack.CONNECTION_FLOOD,
        name="wasted connections",
        unit="connections a second",
        meaning="complete connections closed before anything came or went",
        value=lambda view: view.grown("connections_wasted", 10) / 10,
        window=10,
        enter=10,
        leave=3,
        of=lambda view: view.grown("handshakes_completed", 10) / 10,
        share=0.5,
    ),
    Rule(
        attack=Attack.PACKET_FLOOD,
        name="junk",
        unit="datagrams a second",
        meaning="datagrams that are no DTLS, of nobody known, malformed, or with a cookie nobody made",
        value=lambda view: (view.grown("junk", 3) + view.grown("cookies_refused", 3)) / 3,
        window=3,
        enter=300,
        leave=100,
        of=lambda view: view.grown("datagrams_received", 3) / 3,
        share=0.3,
    ),
    Rule(
        attack=Attack.AMPLIFICATION,
        name="reflection",
        unit="hellos a second",
        meaning="first ClientHellos for which no cookie came back within 2 s",
        value=_unreturned,
        window=6,
        enter=50,
        leave=10,
        of=_first_hellos,
        share=0.6,
    ),
    Rule(
        attack=Attack.HANDSHAKE_FLOOD,
        name="unfinished handshakes",
        unit="handshakes a second",
        meaning="handshakes begun by proved addresses that are silent after 5 s",
        value=_unfinished,
        window=15,
        enter=5,
        leave=1,
        of=lambda view: view.grown("connections_opened", 10, until=5) / 10,
        share=0.6,
    ),
    Rule(
        attack=Attack.HANDSHAKE_FLOOD,
        name="overdue handshakes",
        unit="handshakes",
        meaning="handshakes older than 10 s whose peers are silent",
        value=_overdue,
        window=60,
        enter=0.05,
        leave=0.02,
        part_of="handshakes",
        least=20,
        of=lambda view: view.grown("connections_opened", 50, until=10),
        share=0.6,
    ),
    Rule(
        attack=Attack.FRAGMENTATION,
        name="tiny fragments",
        unit="fragments a second",
        meaning="handshake fragments below 64 bytes that do not end their message",
        value=lambda view: view.grown("fragments_small", 5) / 5,
        window=5,
        enter=50,
        leave=10,
        of=lambda view: view.grown("fragments_received", 5) / 5,
        share=0.5,
    ),
    Rule(
        attack=Attack.FRAGMENTATION,
        name="refused fragments",
        unit="fragments a second",
        meaning="handshake fragments that contradict others, are too far ahead, too large or too many",
        value=lambda view: view.grown("fragments_refused", 5) / 5,
        window=5,
        enter=4,
        leave=1,
        of=lambda view: view.grown("fragments_received", 5) / 5,
        share=0.02,
    ),
    Rule(
        attack=Attack.FRAGMENTATION,
        name="pieces of hellos",
        unit="pieces a second",
        meaning="pieces of ClientHellos beyond 16 for each hello that became whole",
        value=_pieces_alone,
        window=5,
        enter=50,
        leave=10,
    ),
    Rule(
        attack=Attack.FRAGMENTATION,
        name="unfinished messages",
        unit="bytes",
        meaning="bytes of messages that are not whole",
        value=lambda view: view.now("reassembly_bytes"),
        window=1,
        enter=0.05,
        leave=0.02,
        part_of="total_bytes",
    ),
    Rule(
        attack=Attack.SLOWLORIS,
        name="slow handshakes",
        unit="handshakes in 30 s",
        meaning="handshakes whose peer still sent after a sixth of handshake_seconds",
        value=lambda view: view.grown("handshakes_slow", 30),
        window=30,
        enter=0.02,
        leave=0.005,
        part_of="handshakes",
        least=10,
        of=lambda view: view.grown("connections_opened", 60),
        share=0.1,
    ),
    Rule(
        attack=Attack.COMPUTATIONAL_EXHAUSTION,
        name="forged records",
        unit="records a second",
        meaning="records to connections that did not authenticate",
        value=lambda view: view.grown("records_forged", 5) / 5,
        window=5,
        enter=200,
        leave=50,
        of=lambda view: view.grown("datagrams_received", 5) / 5,
        share=0.2,
    ),
    Rule(
        attack=Attack.COMPUTATIONAL_EXHAUSTION,
        name="broken handshakes",
        unit="handshakes a second",
        meaning="handshakes ended by an alert or an error, after the keys were agreed on",
        value=lambda view: view.grown("handshakes_broken", 10) / 10,
        window=10,
        enter=5,
        leave=1,
        of=lambda view: view.grown("connections_opened", 10) / 10,
        share=0.5,
    ),
    Rule(
        attack=Attack.COMPUTATIONAL_EXHAUSTION,
        name="idle KeyUpdates",
        unit="updates a second",
        meaning="KeyUpdates beyond two in a row without data between them",
        value=lambda view: view.grown("key_updates_idle", 5) / 5,
        window=5,
        enter=20,
        leave=5,
    ),
    Rule(
        attack=Attack.COMPUTATIONAL_EXHAUSTION,
        name="idle ACKs",
        unit="records a second",
        meaning="ACKs that acknowledged nothing",
        value=lambda view: view.grown("acks_idle", 5) / 5,
        window=5,
        enter=100,
        leave=20,
    ),
)


@dataclass(frozen=True, slots=True)
class AttackEvent:
    """An attack began or ended.

    Attributes:
        attack: its kind; `rule`: the sign that told.
        began: True for a beginning, False for an end.
        at: the time, by the endpoint's clock.
        value, threshold: what was measured, and from where on (or below which) it counts; in `unit`.
        evidence: the endpoint's counters over the rule's window, and its gauges.
    """

    attack: Attack
    rule: str
    began: bool
    at: float
    value: float
    threshold: float
    unit: str
    evidence: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "attack": self.attack.value,
            "rule": self.rule,
            "began": self.began,
            "at": self.at,
            "value": self.value,
            "threshold": self.threshold,
            "unit": self.unit,
            "evidence": dict(self.evidence),
        }


class Detectors:
    """Watches one endpoint's counters.

    Attributes:
        due: when :meth:`look` wants to be called again.
        log: the newest events, at most LOG_EVENTS.
    """

    __slots__ = (
        "_counters",
        "_gauges",
        "_junk",
        "_ledger",
        "_low_since",
        "_rules",
        "_tick",
        "_view",
        "due",
        "log",
    )

    def __init__(
        self,
        counters: EndpointCounters,
        ledger: Ledger,
        limits: Limits,
        gauges: Callable[[], tuple[int, int]],
        rules: Sequence[Rule] = RULES,
        *,
        port_shared: bool = False,
    ) -> None:
        """
        Args:
            gauges: says how many handshakes and how many connections there are now.
            port_shared: somebody else uses the datagrams of other protocols, so they are no junk.
        """
        self._junk = _JUNK if port_shared else (*_JUNK, Discard.OTHER_PROTOCOL)
        self._counters = counters
        self._ledger = ledger
        self._gauges = gauges
        self._rules = tuple(rules)
        self._view = View(self._values(), limits)
        self._tick: int | None = None
        # Rules that are entered, with since when their value is low, None while it is not.
        self._low_since: dict[Rule, float | None] = {}
        self.due = float("-inf")
        self.log: deque[AttackEvent] = deque(maxlen=LOG_EVENTS)

    @property
    def active(self) -> frozenset[Attack]:
        """The attacks that go on."""
        return frozenset(rule.attack for rule in self._low_since)

    def look(self, now: float) -> None:
        """Note the counters of this tick and judge them.  A call before :attr:`due` does nothing."""
        if now < self.due:
            return
        tick = int(now // TICK_SECONDS)
        self.due = (tick + 1) * TICK_SECONDS
        if self._tick is not None:
            # Nothing was received in ticks that nobody looked at.
            for _ in range(min(tick - self._tick - 1, _HISTORY)):
                self._view.push(self._view.newest)
        self._tick = tick
        self._view.push(self._values())
        for rule in self._rules:
            self._judge(rule, now)

    def _judge(self, rule: Rule, now: float) -> None:
        view = self._view
        value = rule.value(view)
        enter, leave = rule.thresholds(view.limits)
        if rule not in self._low_since:
            if value >= enter and rule.stands_out(view, value):
                new = rule.attack not in self.active
                self._low_since[rule] = None
                self._counters.attacks_detected += new
                self._note(rule, True, now, value, enter)
        elif value >= leave:
            self._low_since[rule] = None
        else:
            since = self._low_since[rule]
            if since is None:
                self._low_since[rule] = now
            elif now - since >= CALM_SECONDS:
                del self._low_since[rule]
                self._note(rule, False, now, value, leave)

    def _note(self, rule: Rule, began: bool, now: float, value: float, threshold: float) -> None:
        evidence = self._view.evidence(rule.window)
        event = AttackEvent(rule.attack, rule.name, began, now, value, threshold, rule.unit, evidence)
        self.log.append(event)

    def _values(self) -> tuple[int, ...]:
        counters, ledger = self._counters, self._ledger
        discards = counters.discards
        return (
            *_read(counters),
            sum(discards.get(reason, 0) for reason in self._junk),
            sum(discards.get(reason, 0) for reason in _PIECES),
            discards.get(Discard.UNDER_LOAD, 0),
            *self._gauges(),
            ledger.held,
            ledger.held_for(Purpose.REASSEMBLY),
        )


_read: Final = attrgetter(*_COUNTS)
