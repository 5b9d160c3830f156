"""Succession: what a worker that ends leaves to the next process of its slot.

Associations are exported (:meth:`sealwire.dtls.Connection.export_state`), each sealed under a key that only
the group's processes have, into a directory only their user may read; the next process of the slot has
the same sockets and the same ids, so it adopts them and peers notice nothing but new keys.  Each is
claimed before it is adopted, so none is adopted twice; one that was left and never taken ends with the
group, or waits in an :class:`~sealwire.drive.estate.Estate` for the next program.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealwire import dtls
from sealwire.drive.peers import Address, Reached
from sealwire.drive.states import StateDirectory
from sealwire.dtls.handover import label
from sealwire.errors import Error


@dataclass(frozen=True, slots=True, repr=False)
class Succession:
    """Of one slot.

    Attributes:
        directory: the slot's own.
        key: 32 bytes.
        lasting: the next process may be of another program, started later; so what is left is durable.
    """

    directory: Path
    key: bytes
    lasting: bool = False

    def __repr__(self) -> str:
        return f"<succession in {str(self.directory)!r}>"

    def leave(self, ordinal: int, endpoint: dtls.Endpoint, now: float) -> int:
        """Export what the endpoint of the slot's socket `ordinal` has; how many associations.

        What cannot be moved now (a handshake, a KeyUpdate under way) stays with the endpoint.
        """
        states = self._states(ordinal)
        count = 0
        for connection in list(endpoint):
            try:
                state = connection.export_state(self.key, now)
            except Error:
                continue
            name, _ = label(state)
            states.save(state)
            descriptor = os.open(
                self._where(ordinal, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(_written(connection.address))
            count += 1
        return count

    def take(self, ordinal: int, endpoint: dtls.Endpoint) -> tuple[int, int]:
        """Adopt what was left for this socket: how many associations, and how many could not be."""
        if not self._place(ordinal).is_dir():
            return 0, 0
        states = self._states(ordinal)
        taken = refused = 0
        for state in list(states):
            name, _ = label(state)
            where = self._where(ordinal, name)
            try:
                address = _read(where.read_text("ascii"))
                endpoint.adopt(state, self.key, address, claim=states.claim, now=time.monotonic())
            except (Error, OSError, ValueError):
                refused += 1
            else:
                taken += 1
            where.unlink(missing_ok=True)
            states.remove(name)
        # Whoever left them has ended, and this process alone can have a state of them now.
        states.clear()
        return taken, refused

    def _states(self, ordinal: int) -> StateDirectory:
        # Without the key, which only processes know, what a machine that failed brings back is nothing.
        return StateDirectory(self._place(ordinal), durable=self.lasting)

    def _place(self, ordinal: int) -> Path:
        return self.directory / str(ordinal)

    def _where(self, ordinal: int, name: bytes) -> Path:
        """Where the peer of an association is."""
        return self._place(ordinal) / f"{name.hex()}.address"


def _written(address: Any) -> str:
    own = None
    if isinstance(address, Reached):
        level, kind, value = address.own
        own = [level, kind, value.hex()]
    return json.dumps([list(address), own])


def _read(text: str) -> Address:
    address, own = json.loads(text)
    if own is None:
        return tuple(address)
    return Reached.at(tuple(address), (own[0], own[1], bytes.fromhex(own[2])))
