"""The compiled writer of leaves under AddressSanitizer and UndefinedBehaviorSanitizer, beside its twin.

    python -m tests.fuzzing.seal_sanitized [SECONDS]

Builds the modules with gcc's sanitizers in a temporary directory, then starts itself again on them: the
corpus of the group `sealed`, and random changes of it, until SECONDS are over.  Both writers must
give the same answers; any finding of the sanitizers ends the process with their report.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.fuzzing import sanitizers

#: In the order in which they need each other.
MODULES = (
    "sealwire.crypto._evp",
    "sealwire.crypto._digests",
    "sealwire.probe.seal._leaves",
    "sealwire.probe.seal._tree",
)


def work(seconds: float) -> int:
    from sealwire.probe.seal import engine
    from tests.fuzzing import fuzz, targets

    place = os.environ[sanitizers.VARIABLE]
    for module in MODULES:
        assert str(sys.modules[module].__file__).startswith(place), module
    assert engine.COMPILED
    assert (engine.decode.__module__, engine.root.__module__) == MODULES[2:]
    for seed in fuzz.seeds("sealed"):
        targets.run("sealed", seed)
    return fuzz.fuzz_blind("sealed", seconds)


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    place = os.environ.get(sanitizers.VARIABLE)
    if place:
        sanitizers.load(MODULES, Path(place))
        return work(seconds)
    with tempfile.TemporaryDirectory() as name:
        sanitizers.build(MODULES, Path(name))
        return sanitizers.restart("tests.fuzzing.seal_sanitized", Path(name), seconds)


if __name__ == "__main__":
    sys.exit(main())
