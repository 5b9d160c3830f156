"""A pytest plugin that puts every established connection to sleep as soon as it can.

    python -m pytest -p tests.sleepers tests/network tests/unit/dtls

What those tests ask of connections must be true of connections that sleep between any two calls.  Nine of
tests/unit/dtls fail, which look at sleep itself: what is charged, who sleeps when, that waking is announced
(on_output).
"""

from __future__ import annotations

from functools import wraps
from itertools import count
from typing import Any

from sealwire import dtls

# How often a connection fell asleep: a run in which none did proves nothing.
_slept = count()


def _then_sleep(name: str) -> None:
    method = getattr(dtls.Connection, name)

    @wraps(method)
    def wrapped(self: dtls.Connection, *arguments: Any, **named: Any) -> Any:
        answer = method(self, *arguments, **named)
        times = [one for one in (*arguments, *named.values()) if isinstance(one, float)]
        now = times[-1] if times else _last_now.get(self.number, 0.0)
        _last_now[self.number] = now
        if not self.asleep and self.hibernate(now):
            next(_slept)
        return answer

    setattr(dtls.Connection, name, wrapped)


_last_now: dict[int, float] = {}


def pytest_configure() -> None:
    for name in ("receive_run", "transmit_trains", "wake", "events", "messages", "lend_messages"):
        _then_sleep(name)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"connections fell asleep {next(_slept)} times")
