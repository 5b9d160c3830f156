"""Compiled modules that read strangers' bytes, under libFuzzer with the address and undefined sanitizers.

    python -m tests.fuzzing.libfuzzer GROUP|all|transport [SECONDS] [--keep]   needs clang and python3-dev

Groups of the probe (`all`), of five parsers each: `hellos` (TLS, DTLS, QUIC, SSH, STUN), `messages` (DNS,
multicast DNS, DNS over TCP, HTTP requests and responses), `walk` (pcap and pcapng, decoding, tunnels, the
scanner, columns).  The corpus is `corpus` beside this; `--keep` puts what is new and small there.
tests/fuzzing/test_probe_corpus.py replays it with the twins.  `transport` is the groups `records` and `gate`
of tests/fuzzing/targets, with their corpora: the compiled record layer and gate beside their twins.
"""

from __future__ import annotations

from typing import Final

from tests.fuzzing.records_sanitized import MODULES as TRANSPORT_MODULES

GROUPS: Final = ("hellos", "messages", "walk")
TRANSPORT: Final = ("records", "gate")
DESK: Final = "tests.fuzzing.libfuzzer._desk"
#: Instrumented, in the order in which they need each other.
MODULES: Final = (
    "sealwire.crypto._evp",
    "sealwire.crypto._digests",
    "sealwire.probe.dissect._hot",
    "sealwire.probe.dissect._scan",
    "sealwire.probe._flows",
    "sealwire.probe._arrow",
    "sealwire.probe._columns",
)


def modules_of(group: str) -> tuple[str, ...]:
    """What is instrumented for a group; the desk is the last of the probe's."""
    return TRANSPORT_MODULES if group in TRANSPORT else (*MODULES, DESK)
