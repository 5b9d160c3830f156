"""What runs in the fuzzer's interpreter: the instrumented modules, and the target of a group."""

from __future__ import annotations

import contextlib
import functools
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
from tests.fuzzing.libfuzzer import DESK, MODULES, TRANSPORT, modules_of

GROUP = "SEALWIRE_FUZZ_GROUP"


class Instrumented(importlib.abc.MetaPathFinder):
    """Finds the modules that were built for this before those of the package."""

    def __init__(self, place: Path, modules: Sequence[str]) -> None:
        self._place = place
        self._modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._modules:
            return None
        loader = importlib.machinery.ExtensionFileLoader(name, str(self._place / f"{name}.so"))
        return importlib.util.spec_from_file_location(name, loader.path, loader=loader)


def target() -> int | Callable[[bytes], None]:
    """An address for a function in C, else a function."""
    place, group = os.environ[sanitizers.VARIABLE], os.environ[GROUP]
    modules = modules_of(group)
    sys.meta_path.insert(0, Instrumented(Path(place), modules))
    if group in TRANSPORT:
        from tests.fuzzing import targets

        for name in modules:
            assert str(importlib.import_module(name).__file__).startswith(place), name
        return functools.partial(targets.run, group)
    if group != "walk":
        made: int = importlib.import_module(DESK).target()
        return made
    from sealwire.probe import engine, read
    from sealwire.probe.files import CaptureError
    from sealwire.probe.settings import Settings

    assert engine.hashes(), engine.describe()
    for name in MODULES:
        assert str(sys.modules[name].__file__).startswith(place), name
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
