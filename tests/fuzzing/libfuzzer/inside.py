"""What runs in the fuzzer's interpreter: the instrumented modules, and the target of a group."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from tests.fuzzing import sanitizers
from tests.fuzzing.libfuzzer import DESK, MODULES

GROUP = "SEALWIRE_FUZZ_GROUP"


class Instrumented(importlib.abc.MetaPathFinder):
    """Finds the modules that were built for this before those of the package."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in (*MODULES, DESK):
            return None
        loader = importlib.machinery.ExtensionFileLoader(name, str(self._place / f"{name}.so"))
        return importlib.util.spec_from_file_location(name, loader.path, loader=loader)


def target() -> int | Callable[[bytes], None]:
    """An address for a function in C, else a function."""
    sys.meta_path.insert(0, Instrumented(Path(os.environ[sanitizers.VARIABLE])))
    if os.environ[GROUP] != "walk":
        made: int = importlib.import_module(DESK).target()
        return made
    from sealwire.probe import engine, read
    from sealwire.probe.files import CaptureError
    from sealwire.probe.settings import Settings

    assert engine.hashes(), engine.describe()
    for name in MODULES:
        assert str(sys.modules[name].__file__).startswith(os.environ[sanitizers.VARIABLE]), name
    settings = (
        Settings(dissect=True, tunnels=True).without_timeouts(),
        Settings(dissect=True, idle_timeout=0.5, active_timeout=2, linger=0.01, max_flows=3, first_packets=5),
    )

    def walk(data: bytes) -> None:
        if not data:
            return
        reading = read(io.BytesIO(data[1:]), settings=settings[data[0] & 1])
        with contextlib.suppress(CaptureError):
            for batch in reading.batches():
                batch.columns()

    return walk
