"""The probe's compiled parsers under libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer.

    python -m tests.fuzzing.libfuzzer GROUP|all [SECONDS] [--keep]     needs clang and python3-dev

Groups, of five parsers each: `hellos` (TLS, DTLS, QUIC, SSH, STUN), `messages` (DNS, multicast DNS,
DNS over TCP, HTTP requests and responses), `walk` (pcap and pcapng, decoding, tunnels, the scanner,
columns).  The corpus is `corpus` beside this; `--keep` puts what is new and small there.
tests/fuzzing/test_probe_corpus.py replays it with the twins.
"""

from __future__ import annotations

from typing import Final

GROUPS: Final = ("hellos", "messages", "walk")
DESK: Final = "tests.fuzzing.libfuzzer._desk"
#: Instrumented, in the order in which they need each other.
MODULES: Final = (
    "sealwire.crypto._evp",
    "sealwire.probe.dissect._hot",
    "sealwire.probe.dissect._scan",
    "sealwire.probe._flows",
    "sealwire.probe._arrow",
    "sealwire.probe._columns",
)
