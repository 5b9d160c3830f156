"""What a measurement is: a small declared thing.

    Measurement("record.seal.64", figures=(CPU,), contenders=(ours, rival, ...))

A contender opens a Body in a process of its own; the runner then asks for readings in turns.  A
contender that needs a second process names a Peer, which runs on another core and whose address
the Body gets.  Contenders are functions of this package, found again by name in the new process,
so nothing but names and numbers travels.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from sealwire.bench.clocks import Stopwatch
    from sealwire.bench.crypto_switch import Crypto

__all__ = [
    "Absent",
    "Bench",
    "Body",
    "Check",
    "Contender",
    "Figure",
    "Kind",
    "Measurement",
    "Peer",
    "Present",
    "Promise",
    "Reading",
    "Role",
    "Scale",
    "here",
    "registry",
]


class Kind(enum.Enum):
    """What a figure is about; decides which way is better and when a change is an alarm."""

    TIME = "time"
    RATE = "rate"
    MEMORY = "memory"
    #: What should not happen, counted: 0 is what is wanted, and one is an alarm.
    LOSS = "loss"

    @property
    def direction(self) -> str:
        """``lower`` or ``higher``: which is better."""
        return "higher" if self is Kind.RATE else "lower"


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure somebody promised: `words` as it was said, `value` in the figure's unit."""

    value: float
    words: str

    def kept(self, kind: Kind, measured: float) -> bool:
        return measured >= self.value if kind is Kind.RATE else measured <= self.value


@dataclass(frozen=True, slots=True)
class Figure:
    """One number a measurement yields.  The first figure of a measurement has the name ""."""

    name: str
    unit: str
    kind: Kind
    title: str
    promised: Promise | None = None


class Role(enum.Enum):
    OURS = "ours"
    RIVAL = "rival"
    #: Ours with the crypto turned off: what is left is what the crypto does not explain.
    WITHOUT_CRYPTO = "without crypto"
    #: The crypto of one unit and nothing else, called directly.
    CRYPTO_ALONE = "crypto alone"
    #: Always the same work, so that a machine that got slower is not mistaken for software that did.
    YARDSTICK = "yardstick"


@dataclass(frozen=True, slots=True)
class Present:
    """A contender that can run here; `what` says which version and under which conditions."""

    what: str


@dataclass(frozen=True, slots=True)
class Absent:
    """A contender that cannot, and why; in the result it is "not present" and has no number."""

    reason: str


def here() -> Present | Absent:
    """The presence of what comes with sealwire itself."""
    return Present("")


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a measurement can be believed, in one sentence either way."""

    name: str
    passed: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One turn of one contender.

    Attributes:
        values: by figure name, in the figure's unit.
        units: how many records, handshakes, connections... the values rest on.
        wall_seconds, cpu_seconds: for all units together, timed spans only.
        user_seconds, system_seconds: of the process and its peer during the turn, setup included.
        rss_bytes: resident set of the process at the end of the turn.
        quantiles: of a latency, by percentage, in the figure's unit; empty where there is none.
        checks: self-checks of this turn.
    """

    values: Mapping[str, float]
    units: int
    wall_seconds: float
    cpu_seconds: float
    user_seconds: float = 0.0
    system_seconds: float = 0.0
    rss_bytes: int = 0
    quantiles: Mapping[str, float] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()


class Body(Protocol):
    """A contender ready to be measured."""

    def run(self, seconds: float) -> Reading:
        """One turn of about `seconds`."""
        ...

    def verify(self) -> None:
        """Raise if what was measured did not do its work; called after each turn, off the clock."""
        ...

    def close(self) -> None: ...


class Peer(Protocol):
    """The other side of a contender, in a process on another core."""

    @property
    def address(self) -> Mapping[str, Any]:
        """What the Body must know to reach it; plain values."""
        ...

    def serve(self) -> None:
        """Do the other side's work; runs in a thread until the process ends."""
        ...

    def answer(self, question: str) -> Mapping[str, float]:
        """What the Body asks for during a turn; called in another thread than serve()."""
        ...


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: chosen by --quick and --full."""

    name: str
    #: Turns per contender, after one that warms up.
    runs: int
    #: Length of a turn.
    seconds: float
    #: Handshakes of a turn that measures latency.
    handshakes: int
    #: Connections held where memory is measured.
    connections: int
    #: How long a contender may take for one step before it counts as hanging.
    patience_seconds: float = 60.0


QUICK = Scale("quick", runs=5, seconds=0.05, handshakes=120, connections=200)
FULL = Scale("full", runs=7, seconds=0.5, handshakes=1_000, connections=1_000, patience_seconds=300.0)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a contender finds when it is opened.

    Attributes:
        directory: holds ca.pem, server.pem, server.key, client.pem, client.key.
        scale: how much of everything.
        crypto: the crypto to use; the real one, or one that does nothing.
        stopwatch: the only clock a figure may come from.
        peer: the address of the contender's Peer; empty without one.
    """

    directory: Path
    scale: Scale
    crypto: Crypto
    stopwatch: Stopwatch
    peer: Mapping[str, Any]
    #: Passes a question to the Peer; its answer, with its `cpu_seconds` and `rss_bytes` added.
    ask_peer: Callable[[str], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Contender:
    """One side of a comparison.

    Attributes:
        open: in a fresh process, make the Body.  Whatever it raises costs this contender alone.
        peer: in another fresh process, started first, make the Peer; None if there is none.
        presence: whether it can run here, asked before anything starts.
        environment: what its processes' environment has besides ours.
        patience_seconds: how long one step of it may take at least, if that is more than the scale allows.
    """

    name: str
    role: Role
    open: Callable[[Bench], Body]
    peer: Callable[[Bench], Peer] | None = None
    presence: Callable[[], Present | Absent] = here
    environment: Callable[[], Mapping[str, str]] = dict
    patience_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """A row of the bench; with several figures, several rows that were measured together.

    Attributes:
        name: dotted, the group first: ``record.seal.64``.
        title: for people.
        crypto_part: bounds on what turning the crypto off must save, as multiples of what the crypto
            costs alone.  Only with contenders of both roles.
        crypto_figure: the figure that is held against that; all three contenders give it.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    contenders: tuple[Contender, ...]
    crypto_part: tuple[float, float] = (0.5, 2.0)
    crypto_figure: str = ""

    def __post_init__(self) -> None:
        names = [contender.name for contender in self.contenders]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: two contenders have the same name")
        if [contender.role for contender in self.contenders].count(Role.OURS) != 1:
            raise ValueError(f"{self.name}: exactly one contender is ours")
        if not self.figures or self.figures[0].name:
            raise ValueError(f"{self.name}: the first figure has the name of the measurement")

    @property
    def group(self) -> str:
        return self.name.partition(".")[0]

    def row_name(self, figure: Figure) -> str:
        """The name of the row a figure makes."""
        return f"{self.name}.{figure.name}" if figure.name else self.name

    def contender(self, name: str) -> Contender:
        return next(one for one in self.contenders if one.name == name)


def registry(location: str) -> Sequence[Measurement]:
    """The measurements at ``module:attribute``; a worker finds them again by this name."""
    import importlib

    module, _, attribute = location.partition(":")
    found: Sequence[Measurement] = getattr(importlib.import_module(module), attribute)
    return found
