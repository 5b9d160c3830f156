"""Who holds what: a registry of live objects, to find what an application or sealwire itself forgets.

Off, an object that is made costs one comparison.  On (``watch()``, or SEALWIRE_DEBUG_LEAKS=1 in the
environment), each connection, set of keys, timer, socket, task and lent buffer is entered with a weak
reference, so the registry keeps nothing alive, and stays *open* until its owner lets it go.  What is
dropped while open, though it has an end of its own (close_notify, a descriptor), is a ResourceWarning.
While tracemalloc is on, the entry knows where the object was made, as Python's own ResourceWarnings do.

Keys have no other end than to be dropped, so those that live are open.  Nothing here closes anything:
what is open for long may be the healthiest connection of all.
"""

from __future__ import annotations

import enum
import itertools
import os
import sys
import traceback
import tracemalloc
import warnings
import weakref
from collections import Counter, deque
from typing import Final

# Of the stack kept with an entry, innermost first: through the drivers to whoever called them.
_FRAMES: Final = 12
_DROPPED_KEPT: Final = 100


class Kind(enum.Enum):
    """What can be owned.  ``ends``: dropping one that is open is a mistake, as it has to be closed."""

    CONNECTION = ("connections", True)
    KEYS = ("keys", False)
    TIMER = ("timers", False)
    SOCKET = ("sockets", True)
    TASK = ("tasks", False)
    BUFFER = ("buffers", False)

    def __init__(self, plural: str, ends: bool) -> None:
        self.plural = plural
        self.ends = ends

    __hash__ = object.__hash__


class Owned(weakref.ref):  # type: ignore[type-arg]
    """An entry: a weak reference to a thing, and what is known of it.

    Attributes:
        kind: what it is.
        number: counts up; an entry made later has a higher one.
        open: whether its owner has not let it go.
        what: words for people; never an address or a secret.
        site: where it was made, if tracemalloc was on.
    """

    __slots__ = ("key", "kind", "number", "open", "site", "what")

    kind: Kind
    number: int
    key: int
    open: bool
    what: str
    site: traceback.StackSummary | None

    def __str__(self) -> str:
        state = "open" if self.open else "let go, but alive"
        lines = [f"{self.what} ({state})"]
        if self.site is not None:
            lines += [f"  {frame.filename}:{frame.lineno}: {frame.line}" for frame in self.site]
        return "\n".join(lines)


class Registry:
    """Entries of everything that was made while this registry watched, and lives."""

    def __init__(self) -> None:
        #: The number of the newest entry so far.
        self.last = 0
        # By identity: things need not be hashable.  An entry leaves before its id can be used again.
        self._entries: dict[int, Owned] = {}
        #: How many things were dropped while open that should have been closed, and the latest of them.
        self.dropped = 0
        self.last_dropped: deque[str] = deque(maxlen=_DROPPED_KEPT)

    def own(self, kind: Kind, thing: object) -> None:
        """Enter `thing` as open.  What cannot be referred to weakly (another loop's timers) is left out."""
        try:
            entry = Owned(thing, self._gone)
        except TypeError:
            return
        entry.kind = kind
        self.last += 1
        entry.number = self.last
        entry.key = id(thing)
        entry.open = True
        entry.what = f"{type(thing).__module__}.{type(thing).__qualname__} number {entry.number}"
        entry.site = _site() if tracemalloc.is_tracing() else None
        self._entries[entry.key] = entry

    def let_go(self, thing: object) -> None:
        """`thing` was closed, cancelled, finished or given back; again is fine."""
        entry = self._entries.get(id(thing))
        if entry is not None:
            entry.open = False

    def _gone(self, entry: weakref.ref[object]) -> None:
        assert isinstance(entry, Owned)
        if self._entries.get(entry.key) is not entry:
            return  # forgotten
        del self._entries[entry.key]
        if entry.open and entry.kind.ends:
            self.dropped += 1
            self.last_dropped.append(str(entry))
            warnings.warn(f"dropped without being closed: {entry}", ResourceWarning, stacklevel=1)

    def forget(self) -> None:
        """Know of nothing any more; what is dropped from here on is no news."""
        self._entries.clear()

    def entries(self, since: int = 0, *, closed: bool = False) -> list[Owned]:
        """What is alive and was entered after number `since`: open, or with `closed` also what was let go."""
        found = [one for one in list(self._entries.values()) if one.number > since and one() is not None]
        return sorted((one for one in found if one.open or closed), key=lambda one: one.number)

    def counts(self) -> dict[Kind, int]:
        """How many of each kind are open now."""
        counted = Counter(entry.kind for entry in self.entries())
        return {kind: counted[kind] for kind in Kind}


def _site() -> traceback.StackSummary:
    # tracemalloc's own record of an object cannot be found by everything that has a weak reference.
    frames = itertools.dropwhile(
        lambda one: one[0].f_code.co_filename == __file__, traceback.walk_stack(sys._getframe())
    )
    return traceback.StackSummary.extract(itertools.islice(frames, _FRAMES), lookup_lines=False)


#: The registry that watches, None while nobody does.
registry: Registry | None = None


def watch() -> Registry:
    """Begin to watch, if nobody does; the registry."""
    global registry  # noqa: PLW0603
    if registry is None:
        registry = Registry()
    return registry


def unwatch() -> None:
    """Watch no more; what was entered is forgotten."""
    global registry  # noqa: PLW0603
    if registry is not None:
        registry.forget()
        registry = None


def own(kind: Kind, thing: object) -> None:
    """Whoever makes a `thing` of `kind` says so here."""
    if registry is not None:
        registry.own(kind, thing)


def let_go(thing: object) -> None:
    """Whoever ends a thing that was entered says so here."""
    if registry is not None:
        registry.let_go(thing)


if os.environ.get("SEALWIRE_DEBUG_LEAKS", "0") not in ("", "0"):
    watch()
