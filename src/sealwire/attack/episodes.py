"""Do the detectors tell attacks from use?  Hundreds of seeded episodes, and the table of what they said.

An episode is a town in which either honest peers do what honest peers do at their worst (flash crowds,
offices behind one address, phones that lose every third datagram...), or one of the eight attacks goes
on beside ordinary use.  An attack is detected if its own detector says so while it lasts; on honest
peers every word is a false alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from sealwire.attack import puppet
from sealwire.attack.hellos import FLOODS, Payload
from sealwire.attack.town import Kit, Town
from sealwire.dtls.detectors import Attack

#: When attacks begin and end, in seconds of the town's time.
BEGIN: Final = 10.0
END: Final = 40.0
#: The endpoint must have left its under-load mode by then.
CALM: Final = 130.0
_HONEST_SECONDS: Final = 50.0


# --- honest peers ----------------------------------------------------------------------------------


def steady(town: Town, part: float = 1.0) -> None:
    """People come, talk, and go."""
    dice = town.choose
    for _ in range(int(dice.randint(20, 60) * part)):
        town.visit(
            dice.uniform(0, 40),
            every=dice.uniform(0.3, 2),
            stay=dice.uniform(5, 40),
            loss=dice.uniform(0, 0.05),
        )


def flash_crowd(town: Town) -> None:
    """Everybody comes at once."""
    dice = town.choose
    steady(town, 0.5)
    loss = dice.choice((0.0, 0.02, 0.1))
    within = dice.uniform(0.3, 5)
    for _ in range(dice.randint(100, 250)):
        town.visit(
            10 + dice.uniform(0, within), every=dice.uniform(0.5, 5), stay=dice.uniform(1, 30), loss=loss
        )


def office(town: Town) -> None:
    """Many people behind one address, whose line was down for a moment: all of them come again."""
    dice = town.choose
    hosts = [f"203.0.113.{n}" for n in range(dice.randint(1, 3))]
    people = dice.randint(50, 150)
    for _ in range(people):
        host = dice.choice(hosts)
        town.visit(dice.uniform(0, 5), host=host, every=1, stay=dice.uniform(8, 15), says_goodbye=False)
        town.visit(15 + dice.uniform(0, 3), host=host, every=dice.uniform(0.5, 5))


def phones(town: Town) -> None:
    """Radio: every tenth to third datagram is lost, and addresses change."""
    dice = town.choose
    loss = dice.uniform(0.1, 0.3)
    within = dice.choice((2.0, 30.0))
    for _ in range(dice.randint(40, 150)):
        town.visit(
            dice.uniform(0, within),
            every=dice.uniform(0.5, 5),
            loss=loss,
            moves=dice.uniform(5, 30),
            stay=dice.uniform(10, 50),
            says_goodbye=dice.random() < 0.5,
        )


def narrow_links(town: Town) -> None:
    """Links that carry 268 to 548 bytes, so every hello comes in pieces."""
    dice = town.choose
    loss = dice.choice((0.0, 0.05, 0.2))
    for _ in range(dice.randint(40, 120)):
        town.visit(
            dice.uniform(0, 30),
            mtu=dice.choice((268, 300, 400, 548)),
            post_quantum=dice.random() < 0.7,
            loss=loss,
            every=dice.uniform(0.5, 3),
        )


def bulk(town: Town) -> None:
    """A few peers send as much as they can, over a link that damages a datagram now and then."""
    dice = town.choose
    steady(town, 0.3)
    town.forward.corrupt = dice.choice((0.0, 0.01, 0.03))
    town.forward.reorder = 0.01
    for _ in range(dice.randint(2, 5)):
        town.visit(dice.uniform(0, 5), every=1 / dice.randint(50, 150), size=1000, stay=30)


def restart(town: Town) -> None:
    """The server was restarted: who was connected does not know yet, and comes again before long."""
    dice = town.choose
    records = FLOODS["records"][0]()
    town.flood(records, dice.uniform(20, 150), 0.0, dice.uniform(10, 30))
    for _ in range(dice.randint(30, 120)):
        town.visit(dice.uniform(0, 30), every=1)


def sensors(town: Town) -> None:
    """Things that wake up, say one thing, and sleep: connected, or gone at once."""
    dice = town.choose
    for _ in range(dice.randint(100, 200)):
        stays = dice.random() < 0.5
        town.visit(dice.uniform(0, 30), every=60 if stays else 0.5, stay=100 if stays else 0.8)


def impatient(town: Town) -> None:
    """Some give up before they are connected, and say nothing."""
    dice = town.choose
    steady(town)
    for _ in range(dice.randint(10, 40)):
        town.visit(dice.uniform(0, 40), stay=dice.uniform(0.02, 0.09), says_goodbye=False)


def mistaken(town: Town) -> None:
    """Devices with an old key try again and again."""
    dice = town.choose
    steady(town)
    every = dice.uniform(5, 15)
    for _ in range(dice.randint(5, 15)):
        when = dice.uniform(0, every)
        while when < _HONEST_SECONDS:
            town.visit(when, config=town.kit.mistaken, stay=1.0)
            when += every


HONEST: Final[dict[str, Callable[[Town], None]]] = {
    "steady use": steady,
    "flash crowd": flash_crowd,
    "office behind NAT": office,
    "lossy phones": phones,
    "narrow links": narrow_links,
    "bulk transfer": bulk,
    "server restarted": restart,
    "sensors": sensors,
    "impatient clients": impatient,
    "mistaken devices": mistaken,
}


# --- attacks ---------------------------------------------------------------------------------------


def _puppets(town: Town, kind: type[puppet.Puppet], number: int, rate: float | None = None) -> None:
    for _ in range(number):
        town.puppet(kind, town.choose.uniform(BEGIN, BEGIN + 5), END, rate)


def _arrivals(town: Town, kind: type[puppet.Puppet], a_second: float) -> None:
    for n in range(int((END - BEGIN) * a_second)):
        town.puppet(kind, BEGIN + n / a_second, END, stubborn=False)


def memory_exhaustion(town: Town) -> None:
    """Peers who send to an application that does not keep up, until nothing is left."""
    town.reads = False
    _puppets(town, puppet.Chatterer, town.choose.randint(100, 150), rate=town.choose.uniform(15, 40))


def connection_flood(town: Town) -> None:
    """Peers who complete their handshakes for nothing."""
    kind = town.choose.choice((puppet.Idle, puppet.Quitter))
    _arrivals(town, kind, town.choose.uniform(12, 25))


def packet_flood(town: Town) -> None:
    """Datagrams that mean nothing, or nothing here."""
    name = town.choose.choice(("garbage", "records", "cookies"))
    town.flood(_payload(name), town.choose.uniform(500, 2000), BEGIN, END)


def amplification(town: Town) -> None:
    """Hellos in the names of those whom the answers are to hit."""
    town.flood(_payload("hellos"), town.choose.uniform(100, 400), BEGIN, END)


def handshake_flood(town: Town) -> None:
    """A botnet whose every address is real and whose every handshake ends half-way."""
    _arrivals(town, puppet.Silent, town.choose.uniform(8, 20))


def fragmentation(town: Town) -> None:
    """Messages in crumbs, that contradict each other, far ahead, or never whole."""
    dice = town.choose
    match dice.randrange(5):
        case 0:
            _puppets(town, puppet.Crumbler, dice.randint(3, 8))
        case 1:
            _puppets(town, puppet.FarAhead, dice.randint(2, 6))
        case 2:
            _puppets(town, puppet.Contradictor, dice.randint(20, 40))
        case 3:
            _puppets(town, puppet.Hoarder, dice.randint(20, 40))
        case _:
            town.flood(_payload("pieces"), dice.uniform(100, 400), BEGIN, END)


def slowloris(town: Town) -> None:
    """Handshakes that go on for as long as they may."""
    _puppets(town, puppet.Slow, town.choose.randint(40, 120), rate=town.choose.uniform(0.2, 1))


def computational_exhaustion(town: Town) -> None:
    """Work for nothing: records that do not open, handshakes that end in an error, updates, ACKs."""
    dice = town.choose
    match dice.randrange(4):
        case 0:
            town.forge(dice.uniform(400, 1000), BEGIN, END)
        case 1:
            _arrivals(town, puppet.Broken, dice.uniform(10, 25))
        case 2:
            _puppets(town, puppet.KeyUpdater, dice.randint(10, 20))
        case _:
            _puppets(town, puppet.Acker, dice.randint(3, 8))


def _payload(name: str) -> Payload:
    return FLOODS[name][0]()


ATTACKS: Final[dict[Attack, Callable[[Town], None]]] = {
    Attack.MEMORY_EXHAUSTION: memory_exhaustion,
    Attack.CONNECTION_FLOOD: connection_flood,
    Attack.PACKET_FLOOD: packet_flood,
    Attack.AMPLIFICATION: amplification,
    Attack.HANDSHAKE_FLOOD: handshake_flood,
    Attack.FRAGMENTATION: fragmentation,
    Attack.SLOWLORIS: slowloris,
    Attack.COMPUTATIONAL_EXHAUSTION: computational_exhaustion,
}


# --- episodes --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an endpoint said of one episode.

    Attributes:
        kind: the attack's name, or the kind of honest use.
        attack: the attack that was, None for honest use.
        said: the attacks it saw, with the rule that told first and the seconds since its beginning.
        calm: whether it was under load no more in the end.
    """

    kind: str
    seed: int
    attack: Attack | None
    said: dict[Attack, tuple[str, float]]
    calm: bool

    @property
    def right(self) -> bool:
        """The attack was told, or nothing was where there was none."""
        return self.attack in self.said if self.attack is not None else not self.said


def play(kind: str, seed: int, kit: Kit) -> Outcome:
    """One episode."""
    town = Town(f"{kind} {seed}", kit)
    attack = next((one for one in ATTACKS if one.value == kind), None)
    if attack is None:
        HONEST[kind](town)
        town.run(_HONEST_SECONDS)
    else:
        steady(town, town.choose.choice((0.3, 1.0)))
        ATTACKS[attack](town)
        town.run(END)
    said: dict[Attack, tuple[str, float]] = {}
    for event in town.log:
        if event.began:
            said.setdefault(event.attack, (event.rule, event.at - (BEGIN if attack else 0.0)))
    if attack is not None:
        town.reads = True
        town.run(CALM)
    return Outcome(kind, seed, attack, said, not town.endpoint.load.on)


def plan(seeds: Iterable[int]) -> Iterator[tuple[str, int]]:
    """Each kind of episode under each seed."""
    for seed in seeds:
        for kind in (*(one.value for one in ATTACKS), *HONEST):
            yield kind, seed


@dataclass(slots=True)
class Confusion:
    """What was, against what was said."""

    played: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    said: Counter[tuple[str, Attack]] = field(default_factory=Counter)
    delays: dict[str, list[float]] = field(default_factory=dict)
    restless: list[Outcome] = field(default_factory=list)
    wrong: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.played[outcome.kind] += 1
        self.right[outcome.kind] += outcome.right
        for attack in outcome.said:
            self.said[outcome.kind, attack] += 1
        if outcome.attack is not None and outcome.right:
            self.delays.setdefault(outcome.kind, []).append(outcome.said[outcome.attack][1])
        if not outcome.right:
            self.wrong.append(outcome)
        if not outcome.calm:
            self.restless.append(outcome)

    @property
    def detection(self) -> float:
        """The part of the attacks that their own detector told."""
        return self._part(one.value for one in ATTACKS)

    @property
    def false_alarms(self) -> float:
        """The part of the honest episodes of which any detector said anything."""
        return 1 - self._part(HONEST)

    def _part(self, kinds: Iterable[str]) -> float:
        kinds = list(kinds)
        played = sum(self.played[kind] for kind in kinds)
        return sum(self.right[kind] for kind in kinds) / played if played else float("nan")

    def markdown(self) -> str:
        """The table: a row per kind of episode, a column per detector."""
        lines = [
            f"| what was | episodes | {' | '.join(attack.value for attack in Attack)} | said after |",
            f"|---|{'---|' * (len(Attack) + 2)}",
        ]
        for kind in (*(one.value for one in ATTACKS), *HONEST):
            if not self.played[kind]:
                continue
            cells = [str(self.said[kind, attack] or "") for attack in Attack]
            delays = sorted(self.delays.get(kind, ()))
            delay = f"{delays[len(delays) // 2]:.0f} s" if delays else ""
            name = f"**{kind}**" if kind not in HONEST else kind
            lines.append(f"| {name} | {self.played[kind]} | {' | '.join(cells)} | {delay} |")
        return "\n".join(lines)
