"""docs/limits.md, made from the declarations: `python -m sealwire.limits docs/limits.md`.

Numbers of limits, what happens at each, what counts it and what the worst cases come to are written
from :class:`Limits` and the measured weights; a test says when the page is stale.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from sealwire.limits import weights
from sealwire.limits.agreement import predict_memory, tables_bytes
from sealwire.limits.declared import Limits, Policy, Scope
from sealwire.limits.prefixes import PREFIX_BYTES
from sealwire.limits.pressure import HYSTERESIS_POINTS, THRESHOLDS

_KIB: Final = 1024
_MIB: Final = 1024 * 1024
# From here on a number says "none of ours": the protocol or the AEAD has a lower one.
_AS_GOOD_AS_NONE: Final = 1 << 40
_HEADINGS: Final = {
    Scope.ENDPOINT: "An endpoint: one socket, or one TCP server",
    Scope.SITE: "A site: an IPv6 /48",
    Scope.PREFIX: "A prefix: an IPv4 address or an IPv6 /64",
    Scope.CONNECTION: "A connection",
    Scope.KEY: "A key",
    Scope.STRANGERS: "Strangers: addresses that are not proved",
}

_BEFORE: Final = """\
# Limits: what a peer can cost

<!-- Made by `python -m sealwire.limits docs/limits.md`; a test says when it is stale. -->

Every byte held on behalf of a peer is charged to a ledger before it is held, and released when it goes.
What the ledger refuses is not held. Each limit below has a number (`sealwire.Limits(...)` changes it), a
policy that says what happens when it is reached, and a counter that says how often that was. `sealwire
limits` shows them on a running server, `endpoint.ledger.reached` in a program.

```python
limits = sealwire.Limits(total_bytes=64 * 1024 * 1024, prefix_connections=50)
server = await sealwire.start_datagram_server(handler, "::", 4433, context=context, limits=limits)
```

A server that is given none takes the default ones, lowered to what its cgroup or machine has.
"""

_SHEDDING: Final = """\
## When memory is used up

The ledger knows how full it is: {levels}. A level ends {points} points below where it begins.
`ledger.on_pressure(callback)` is told of each change.

At CRITICAL nobody new comes in, and with `Policy.SHED` (the default) peers are closed until 90 % is left:
half-open ones first, the largest before the smaller and the older before the younger; then established
ones by bytes held times seconds of silence. So one that hoards data nobody reads goes before one that is
busy, and a small one last of all. An established peer that is closed hears `internal_error`; on this side
its connection ends with `LimitReached("total_bytes")`, like any other end. `connections_shed` and
`handshakes_shed` count them.

Where `handshakes` is reached, the oldest handshake gives way if it has lasted for a second. Where
`connections` is, newcomers are turned away; with `connections_policy=Policy.SHED` the connection that was
silent for longest gives way, if that was a minute.

Budgets shrink when a handshake is over: its flights and fragments are released,
`established_reassembly_bytes` takes the place of `reassembly_bytes`, and a connection is charged {idle}
in place of {half_open}.
"""

_PREFIXES: Final = """\
## Prefixes

Limits per prefix hold for *proved* addresses only: one that returned a cookie, showed a ticket we gave it
there, or finished a handshake (or TCP's). A forged address has no account, so nobody can use up somebody
else's share. What comes from an IPv6 address counts for its /64 and for the /48 around it. The table has
room for `prefixes` entries and forgets one when nothing is held for it; when it is full, newcomers are
served without an account of this kind, and `ledger.prefixes.overflows` counts them.
"""

_AGREEMENT: Final = """\
## Do they agree?

A limit that another one makes unreachable protects nobody. `check_limits` names the two that do not go
together:

```python
>>> from sealwire.limits import Limits, check_limits
>>> for one in check_limits(Limits(handshake_message_bytes=16_384)):
...     print(one)
{example}
```

Given a `Machine` (`sealwire.drive.machine.read_machine()`: cgroup v1 or v2, RLIMIT_NOFILE,
net.core.rmem_max) it compares with that as well. Servers do so when they start, and warn
(`LimitsWarning`).
"""

_RESERVATIONS: Final = """\
## Memory of the application's

What an application keeps for a peer is a cost of that peer, too. It can be set aside in the same account:

```python
with server.budget.reserve(65_536, peer=channel.peername):      # LimitReached if a limit refuses
    ...
```

`examples/reservation.py` runs one.
"""


def page() -> str:
    """The whole page."""
    limits = Limits()
    levels = ", ".join(f"{level.name} from {percent} %" for level, percent in THRESHOLDS.items())
    idle, half_open = _bytes(weights.CONNECTION_BYTES), _bytes(weights.HALF_OPEN_BYTES)
    parts = [
        _BEFORE,
        "## All of them\n",
        *(_table(scope, limits) for scope in Scope),
        _choices(),
        _worst_cases(limits),
        _SHEDDING.format(levels=levels, points=HYSTERESIS_POINTS, idle=idle, half_open=half_open),
        _PREFIXES,
        _AGREEMENT.format(example=_example()),
        _RESERVATIONS,
        _sizing(limits),
        _MEASURED,
    ]
    return "\n".join(parts)


def _table(scope: Scope, limits: Limits) -> str:
    rows = [f"### {_HEADINGS[scope]}\n", "| limit | default | what | when it is reached | counted as |"]
    rows.append("|---|---|---|---|---|")
    for one in fields(limits):
        if one.metadata.get("scope") is scope:
            policy = one.metadata["policy"]
            happens = policy.value if isinstance(policy, Policy) else f"as `{policy}` says"
            counter = one.metadata["counter"] or f"reached.{one.name}"
            value = _value(getattr(limits, one.name), one.metadata["unit"])
            rows.append(f"| `{one.name}` | {value} | {one.metadata['meaning']} | {happens} | `{counter}` |")
    return "\n".join(rows) + "\n"


def _choices() -> str:
    rows = ["### Choices\n", "| field | default | or |", "|---|---|---|"]
    for one in fields(Limits):
        if "choices" in one.metadata:
            default, other = (f"`Policy.{choice.name}`: {choice.value}" for choice in one.metadata["choices"])
            rows.append(f"| `{one.name}` | {default} | {other} |")
    return "\n".join(rows) + "\n"


def _worst_cases(limits: Limits) -> str:
    process = weights.PROCESS_BYTES
    tables = tables_bytes(limits)
    rows = [
        ("an address that is not proved", "0 B", "the tables are there anyway"),
        (
            "a half-open peer",
            _bytes(limits.handshake_bytes),
            f"`handshake_bytes`; {_bytes(weights.HALF_OPEN_BYTES)} and our flight as a rule",
        ),
        (
            "a connection",
            _bytes(limits.connection_bytes),
            f"`connection_bytes`; {_bytes(weights.CONNECTION_BYTES)} when idle",
        ),
        ("a prefix", _bytes(limits.prefix_bytes), "`prefix_bytes`"),
        ("a /48", _bytes(limits.site_bytes), "`site_bytes`"),
        ("all peers together", _bytes(limits.total_bytes), "`total_bytes`"),
        ("tables for strangers", _bytes(tables), "slots for split hellos, once all were used"),
        (
            "accounts of prefixes",
            _bytes(limits.prefixes * PREFIX_BYTES),
            f"`prefixes` times {PREFIX_BYTES} B",
        ),
        (
            "a server, all told",
            _bytes(limits.total_bytes + tables + limits.prefixes * PREFIX_BYTES + process),
            f"with {_bytes(process)} for the program itself",
        ),
    ]
    lines = ["## The worst case, in bytes\n", "| who | at most | why |", "|---|---|---|"]
    return "\n".join(lines + [f"| {who} | {most} | {why} |" for who, most, why in rows]) + "\n"


def _example() -> str:
    from sealwire.limits.agreement import check_limits

    return "\n".join(map(str, check_limits(Limits(handshake_message_bytes=16_384))))


def _sizing(limits: Limits) -> str:
    lines = [
        "## How much a server needs\n",
        "`predict_memory(connections, handshakes=..., queued_bytes=...)` adds measured weights up:\n",
        "| idle connections | handshakes at once | memory |",
        "|---|---|---|",
    ]
    for connections, handshakes in ((100, 10), (1_000, 100), (10_000, 1_000), (50_000, 1_000)):
        sizing = predict_memory(connections, handshakes=handshakes, limits=limits)
        lines.append(f"| {connections:,} | {handshakes:,} | {_bytes(sizing.total)} |")
    return "\n".join(lines) + "\n"


def _value(value: float, unit: str) -> str:
    if unit == "bytes":
        return _bytes(int(value))
    if value >= _AS_GOOD_AS_NONE:
        return "the AEAD's"
    return f"{value:,.10g} {unit}"


def _bytes(n: int) -> str:
    for size, name in ((1024 * _MIB, "GiB"), (_MIB, "MiB"), (_KIB, "KiB")):
        if n >= size:
            return f"{n / size:.4g} {name}"
    return f"{n} B"


_MEASURED: Final = """\
## What was measured

On a shared two-core machine (Debian 12, Python 3.11, OpenSSL 3.0.19), with a P-256 certificate.

**The ledger beside the resident set** (`python -m tests.limits.held 3000 1500 500`; a test in
`make test-long` holds it to 0.9 to 1.1):

| peers | resident set | ledger | ratio |
|---|---|---|---|
| 3,000 idle | 46.5 MB | 46.1 MB | 0.99 |
| 1,500 half-open | 29.3 MB | 30.3 MB | 1.03 |
| 500 with 100 KB unread | 60.9 MB | 60.9 MB | 1.00 |
| together | 136.8 MB | 137.3 MB | 1.00 |

**One idle connection** (`python benchmarks/one_connection.py 250`): 16.0 KB of the resident set, of which
9.2 KB are Python's objects and the rest is libcrypto's key schedules and what the allocator rounds up.

| bytes | where |
|---|---|
| 1,483 | the connection itself and what it counts |
| 1,691 | keys: epochs, sealers and openers, traffic secrets |
| 1,043 | the handshake layer: flight, reassembly, acknowledgements, connection ids |
| 904 | what the handshake found out: session, certificates, agreements |
| 656 | queues: data in both directions, early data |
| 321 | its account |
| 283 | timers |

The brief's 64 KB is kept with room to spare; an idle connection holds no flight, no fragment and no
buffer, for those are made when something comes.

**Bookkeeping** (`python benchmarks/bookkeeping.py`, instructions counted by callgrind, with every charge,
release, prefix and pressure level switched off behind a hook): 1.53 % of bulk data in
batches of 32 (promised: below 2 %), 1.24 % of a full handshake with both its ends (below 5 %).
"""
