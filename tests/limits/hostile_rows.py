"""Plays the attacks of tests/adversary/test_floods.py, so that callgrind counts what each datagram costs.

python hostile_rows.py OUT [pytest's arguments]; run under callgrind by test_instructions.py.

Collecting is on inside two functions of the interpreter only, that nothing else here calls: those of
`@` for datagrams before a handshake is over, and of `@=` for records under application keys.  That of
`ascii` is where the counts of one test are written out and begin anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sealwire import dtls
from tests.adversary.siege import REGULAR, Attack, Siege
from tests.network.world import Address

#: Of datagrams before a handshake is over, and of records under application keys.
EARLY, ESTABLISHED = "PyNumber_MatrixMultiply", "PyNumber_InPlaceMatrixMultiply"
#: Where a test's counts are written out.
WRITTEN = "PyObject_ASCII"


class _Counted:
    """Work done inside one of the two functions."""

    def __init__(self, work: Callable[..., object], *arguments: object) -> None:
        self._work, self._arguments = work, arguments

    def __matmul__(self, _: None) -> _Counted:
        self._work(*self._arguments)
        return self

    __imatmul__ = __matmul__

    def run(self, function: str) -> None:
        this = self
        if function == EARLY:
            this @ None
        else:
            this @= None


def _established(datagram: bytes) -> bool:
    """Whether it says to be a record under application keys (RFC 9147 section 4: the epoch's low bits)."""
    return len(datagram) > 0 and datagram[0] & 0xE0 == 0x20 and datagram[0] & 3 != 2


class Rows:
    """A pytest plugin: counts by test, in the order of callgrind's dumps."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self.count = dict.fromkeys((EARLY, ESTABLISHED), 0)
        self._function = ""
        self._sent: set[bytes] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self.count = dict.fromkeys((EARLY, ESTABLISHED), 0)
        self._sent.clear()
        try:
            return (yield)
        finally:
            ascii("")
            self.done.append({"test": item.name, **self.count})

    def note(self, run: Callable[..., None]) -> Callable[..., None]:
        """What an attack sends is hostile wherever it says to come from."""

        def noted(siege: Siege, seconds: float, attack: Attack = lambda now: ()) -> None:
            def sending(now: float) -> Iterator[tuple[bytes, Address]]:
                for datagram, source in attack(now):
                    self._sent.add(bytes(datagram))
                    yield datagram, source

            run(siege, seconds, sending)

        return noted

    def watch(self, receive: Callable[..., None]) -> Callable[..., None]:
        def received(endpoint: dtls.Endpoint, batch: Iterable[tuple[bytes, Address]], now: float) -> None:
            parts: dict[str, list[tuple[bytes, Address]]] = {"": [], EARLY: [], ESTABLISHED: []}
            for one in batch:
                hostile = one[1] != REGULAR or bytes(one[0]) in self._sent
                parts[(ESTABLISHED if _established(one[0]) else EARLY) if hostile else ""].append(one)
            receive(endpoint, parts.pop(""), now)
            for function, part in parts.items():
                if part:
                    self.count[function] += len(part)
                    self._function = function
                    _Counted(receive, endpoint, part, now).run(function)

        return received

    def answer(self, transmit: Callable[..., Any]) -> Callable[..., Any]:
        """What is sent after hostile datagrams counts as theirs, the honest peer's share of it too."""

        def transmitted(endpoint: dtls.Endpoint, now: float) -> Any:
            if not self._function:
                return transmit(endpoint, now)
            sent: list[Any] = []
            _Counted(lambda: sent.append(transmit(endpoint, now))).run(self._function)
            self._function = ""
            return sent[0]

        return transmitted


def main(out: str, arguments: list[str]) -> int:
    rows = Rows()
    endpoint: Any = dtls.Endpoint
    siege: Any = Siege
    siege.run = rows.note(Siege.run)
    endpoint.receive = rows.watch(dtls.Endpoint.receive)
    endpoint.transmit = rows.answer(dtls.Endpoint.transmit)
    test = Path(__file__).parents[1] / "adversary" / "test_floods.py"
    code = pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", str(test), *arguments], plugins=[rows])
    Path(out).write_text(json.dumps(rows.done))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
