"""What applications use in their own tests: nothing is left behind.

    with sealwire.testing.assert_no_leaks():
        asyncio.run(main())

Inside, everything sealwire makes is entered in the registry of :mod:`sealwire.ownership`; at the end
what is still open, or was dropped without being closed, fails the test and is listed.  Under
``tracemalloc.start(10)`` each says where it was made.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TypeVar

from sealwire import ownership
from sealwire.ownership import Kind

__all__ = ["Kind", "Leaks", "assert_no_leaks", "find_leaks"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

# What an event loop ends in its next turns (a cancelled task, a port that flushes) has so long.
_PATIENCE_SECONDS: Final = 2.0
_STEP_SECONDS: Final = 0.01


class Leaks(AssertionError):
    """Something is left.

    Attributes:
        found: the entries, each with its kind, number, words and, under tracemalloc, site.
    """

    def __init__(self, found: list[ownership.Owned], others: list[str]) -> None:
        self.found = found
        kinds = Counter(entry.kind for entry in found)
        counts = [f"{kinds[kind]} {kind.plural}" for kind in Kind if kinds[kind]]
        lines = [f"left behind: {', '.join(counts) or 'see below'}", *map(str, found), *others]
        super().__init__("\n".join(lines))


def find_leaks(since: int = 0, *, closed: bool = False) -> list[ownership.Owned]:
    """What is open now of what was made while somebody watched; cycles are collected first.

    Args:
        since: only what was made after the entry of this number.
        closed: also what was let go and is still alive.
    """
    gc.collect()
    return [] if ownership.registry is None else ownership.registry.entries(since, closed=closed)


class _NoLeaks:
    """See :func:`assert_no_leaks`."""

    def __init__(self, closed: bool, descriptors: bool, cycles: bool) -> None:
        self._closed = closed
        self._look_at_descriptors = descriptors
        self._cycles = cycles
        self._began_to_watch = False
        self._since = self._dropped = 0
        self._descriptors: set[str] = set()

    def __call__(self, function: FunctionT) -> FunctionT:
        """Around every call of a function, or of a coroutine function."""
        wrapper: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **keywords: Any) -> Any:
                async with self._another():
                    return await function(*args, **keywords)

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **keywords: Any) -> Any:
                with self._another():
                    return function(*args, **keywords)

        return wrapper  # type: ignore[no-any-return]

    def _another(self) -> _NoLeaks:
        return _NoLeaks(self._closed, self._look_at_descriptors, self._cycles)

    def _begin(self) -> None:
        self._began_to_watch = ownership.registry is None
        registry = ownership.watch()
        self._since, self._dropped = registry.last, registry.dropped
        if self._look_at_descriptors:
            gc.collect()
            self._descriptors = _descriptors()

    def _look(self) -> Leaks | None:
        registry = ownership.watch()
        if self._cycles:
            gc.collect()
        found = registry.entries(self._since, closed=self._closed)
        dropped = registry.dropped - self._dropped
        others = [f"dropped without being closed: {what}" for what in list(registry.last_dropped)[-dropped:]]
        if not dropped:
            others = []
        if self._look_at_descriptors:
            more = sorted(_descriptors() - self._descriptors)
            others += [f"descriptor {one}" for one in more]
        return Leaks(found, others) if found or others else None

    def _end(self) -> None:
        if self._began_to_watch:
            ownership.unwatch()

    def __enter__(self) -> _NoLeaks:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leaks = None if kind is not None else self._look()  # a test that failed has said enough
        self._end()
        if leaks is not None:
            raise leaks

    async def __aenter__(self) -> _NoLeaks:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leaks = None if kind is not None else self._look()
        end = time.monotonic() + _PATIENCE_SECONDS
        while leaks is not None and time.monotonic() < end:
            await asyncio.sleep(_STEP_SECONDS)
            leaks = self._look()
        self._end()
        if leaks is not None:
            raise leaks


def assert_no_leaks(*, closed: bool = False, descriptors: bool = False, cycles: bool = True) -> _NoLeaks:
    """A context manager (``with`` or ``async with``) and decorator: nothing made inside is left at its end.

    That is connections not closed, sockets, timers and handler tasks not ended, traffic keys and lent
    buffers that live.  ``async with`` waits up to two seconds for what the event loop is about to end.

    Args:
        closed: what was closed must be gone as well, so hold no reference to it.
        descriptors: the process must have the same file descriptors as before (Linux).
        cycles: whether what only the cyclic garbage collector frees is fine.

    Raises:
        Leaks: something is left; an AssertionError that lists it.
    """
    return _NoLeaks(closed, descriptors, cycles)


def _descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue  # the directory itself
    return found
