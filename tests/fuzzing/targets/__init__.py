"""What is fuzzed: each target takes any bytes and keeps a promise, or fails an assertion.

The promise is the same everywhere: a value, a counted Discard, or an error of ours that knows its alert.
Targets come in groups; within a group the first byte of the input says which one it is for, so that
one corpus serves all.  Targets with state read the rest as a script (:class:`Script`): what the peers
really say is passed on, damaged, repeated, held back or replaced, so that a fuzzer gets behind the
hello, where guessing alone never comes.

Everything here is deterministic but for what the engines draw themselves; `tests/fuzzing/test_corpus.py`
replays the corpus, `tests/fuzzing/fuzz.py` looks for more.
"""

from __future__ import annotations

from typing import Final

from tests.fuzzing.targets.of_engines import DATAGRAMS, HANDSHAKE, STREAMS
from tests.fuzzing.targets.of_frames import FRAMES
from tests.fuzzing.targets.of_gate import GATE
from tests.fuzzing.targets.of_headers import HEADERS
from tests.fuzzing.targets.of_messages import MESSAGES
from tests.fuzzing.targets.of_records import RECORDS
from tests.fuzzing.targets.of_sealed import SEALED
from tests.fuzzing.targets.of_stored import FILES, IDENTITIES
from tests.fuzzing.targets.promise import Script, Target

__all__ = ["GROUPS", "Script", "Target", "run"]

GROUPS: Final[dict[str, tuple[Target, ...]]] = {
    "messages": MESSAGES,
    "handshake": HANDSHAKE,
    "datagrams": DATAGRAMS,
    "streams": STREAMS,
    "files": FILES,
    "identities": IDENTITIES,
    "records": RECORDS,
    "gate": GATE,
    "sealed": SEALED,
    "frames": FRAMES,
    "headers": HEADERS,
}


def run(group: str, data: bytes) -> None:
    """Give `data` to the target of `group` that its first byte names."""
    if data:
        targets = GROUPS[group]
        targets[data[0] % len(targets)](data[1:])
