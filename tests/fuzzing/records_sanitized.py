"""The compiled record layer and gate under AddressSanitizer and UndefinedBehaviorSanitizer, and their twins.

    python -m tests.fuzzing.records_sanitized [SECONDS]

Builds the modules with gcc's sanitizers in a temporary directory, then starts itself again on them: the
corpora of the groups `records` and `gate`, and random changes of them, for SECONDS each.  Both kinds must
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
    "sealwire.crypto._lending",
    "sealwire.crypto._hashes",
    "sealwire.record._record",
    "sealwire.record._bulk",
    "sealwire.record._stream",
    "sealwire.dtls._places",
    "sealwire.dtls._tables",
    "sealwire.dtls._hello",
    "sealwire.dtls._gate",
)


def work(seconds: float) -> int:
    from tests.fuzzing import fuzz, targets
    from tests.record_layers import COMPILED_LAYER
    from tests.unit.dtls.test_sieve import COMPILED

    place = os.environ[sanitizers.VARIABLE]
    for module in MODULES:
        assert str(sys.modules[module].__file__).startswith(place), module
    assert COMPILED_LAYER.name == "compiled"
    assert COMPILED_LAYER.opener.__module__ == "sealwire.record._record"
    assert COMPILED
    for group in ("records", "gate"):
        for seed in fuzz.seeds(group):
            targets.run(group, seed)
        if fuzz.fuzz_blind(group, seconds):
            return 1
    return 0


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    place = os.environ.get(sanitizers.VARIABLE)
    if place:
        sanitizers.load(MODULES, Path(place))
        return work(seconds)
    with tempfile.TemporaryDirectory() as name:
        sanitizers.build(MODULES, Path(name))
        return sanitizers.restart("tests.fuzzing.records_sanitized", Path(name), seconds)


if __name__ == "__main__":
    sys.exit(main())
