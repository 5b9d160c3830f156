"""The compiled record layer under AddressSanitizer and UndefinedBehaviorSanitizer, beside its twin.

    python -m tests.fuzzing.records_sanitized [SECONDS]

Builds the modules with gcc's sanitizers in a temporary directory, then starts itself again on them: the
corpus of the group `records`, and random changes of it, until SECONDS are over.  Both layers must
give the same answers; any finding of the sanitizers ends the process with their report.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.fuzzing import sanitizers

#: In the order in which they need each other.
MODULES = ("sealwire.crypto._evp", "sealwire.record._record", "sealwire.record._stream")


def work(seconds: float) -> int:
    from tests.fuzzing import fuzz, targets
    from tests.record_layers import COMPILED_LAYER

    place = os.environ[sanitizers.VARIABLE]
    for module in MODULES:
        assert str(sys.modules[module].__file__).startswith(place), module
    assert COMPILED_LAYER.name == "compiled"
    assert COMPILED_LAYER.opener.__module__ == MODULES[1]
    for seed in fuzz.seeds("records"):
        targets.run("records", seed)
    return fuzz.fuzz_blind("records", seconds)


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
