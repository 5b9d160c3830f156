"""SessionStore: what a client keeps to resume by, each ticket used once.

A ticket is kept under a :class:`Place`: where it came from, and as whom the client was there.  The second
matters because a ticket brings back the client's identity: one got with a certificate must not be used by a
context that shows another.  The store is bounded in every direction (servers, tickets of one server, bytes
of a ticket), drops what was not used for longest first, and never gives a ticket twice.  Saved, it is a file
of secrets: made for its owner only, replaced in one step, and refused when others can read it.

Each operation is one step of a dict or a deque, so threads may share a store.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import stat
from collections import OrderedDict, deque
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from sealwire.crypto.credentials import PathName
from sealwire.errors import ConfigurationError

__all__ = ["Place", "SessionStore"]

_FORMAT: Final = "sealwire sessions"
_VERSION: Final = 1
# A ticket holds the server's certificates; post-quantum chains of four fit.
_MAX_TICKET_BYTES: Final = 64 * 1024
# Whatever a file claims to be, no more of it is read.
_MAX_FILE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Whom a ticket is for.

    Attributes:
        protocol: "DTLS 1.3" or "TLS 1.3", as in :attr:`Session.version`.
        host, port: as the application named them.
        server_name: the name the certificate is for; "" without one.
        identity: fingerprint (SHA-256, hex) of the certificates the client may show; "" without any.
    """

    protocol: str
    host: str
    port: int
    server_name: str
    identity: str = ""


class Ticket(Protocol):
    """What can be kept; :class:`sealwire.dtls.SessionTicket` has this shape."""

    @property
    def expires_at(self) -> float: ...

    def encode(self) -> bytes: ...


class _Kept:
    """One ticket as bytes, and until when it is good (wall-clock seconds)."""

    __slots__ = ("expires_at", "ticket")

    def __init__(self, ticket: bytes, expires_at: float) -> None:
        self.ticket = ticket
        self.expires_at = expires_at


class SessionStore:
    """Tickets by place, bounded.  Set one as ``context.session_store`` and the drivers use it.

    Args:
        capacity: places at most; the one not used for longest goes first.
        per_place: tickets of one place at most; the oldest goes first.

    Raises:
        ValueError: a bound below 1.
    """

    __slots__ = ("_per_place", "_places", "capacity")

    def __init__(self, capacity: int = 128, *, per_place: int = 4) -> None:
        if capacity < 1 or per_place < 1:
            raise ValueError("a session store has room for at least one ticket")
        self.capacity: Final = capacity
        self._per_place: Final = per_place
        self._places: OrderedDict[Place, deque[_Kept]] = OrderedDict()

    def __len__(self) -> int:
        """Tickets kept, expired ones included."""
        return sum(len(tickets) for tickets in list(self._places.values()))

    def __repr__(self) -> str:
        return f"<SessionStore {len(self)} tickets for {len(self._places)} servers>"

    def put(self, place: Place, ticket: Ticket) -> bool:
        """Keep `ticket`: whether it was; one too large is not."""
        encoded = ticket.encode()
        if len(encoded) > _MAX_TICKET_BYTES:
            return False
        self._put(place, _Kept(encoded, ticket.expires_at))
        return True

    def _put(self, place: Place, kept: _Kept) -> None:
        self._places.setdefault(place, deque(maxlen=self._per_place)).append(kept)
        try:
            self._places.move_to_end(place)
            while len(self._places) > self.capacity:
                self._places.popitem(last=False)
        except KeyError:
            # Another thread has just thrown it out.
            pass

    def take(self, place: Place, now: float) -> bytes | None:
        """The newest ticket for `place` that is good at `now`, which is in the store no more.

        Args:
            now: wall-clock seconds.

        Returns:
            What :meth:`SessionTicket.decode` takes; None if there is none.
        """
        tickets = self._places.get(place)
        if tickets is None:
            return None
        while True:
            try:
                # [8446-PSK-6]: one step, so that no two connections get the same.
                kept = tickets.pop()
            except IndexError:
                self._places.pop(place, None)
                return None
            if kept.expires_at > now:
                return kept.ticket

    def clear(self) -> None:
        """Forget everything."""
        self._places.clear()

    # --- files -----------------------------------------------------------------------------

    def save(self, path: PathName) -> None:
        """Write all tickets to `path`, for its owner only, in place of what was there.

        Raises:
            ConfigurationError: the file cannot be written; what was there stays.
        """
        name = os.fspath(path)
        tickets = [
            {
                **asdict(place),
                "expires_at": kept.expires_at,
                "ticket": base64.b64encode(kept.ticket).decode("ascii"),
            }
            for place, several in list(self._places.items())
            for kept in list(several)
        ]
        document = {
            "format": _FORMAT,
            "version": _VERSION,
            "digest": _digest(tickets),
            "tickets": tickets,
        }
        try:
            _replace(name, json.dumps(document, indent=1).encode("ascii"))
        except (OSError, ValueError) as error:
            raise _unusable(name, "be written", error) from None

    @classmethod
    def load(cls, path: PathName, *, capacity: int = 128, per_place: int = 4) -> SessionStore:
        """The store that was saved to `path`.

        A ticket in a file is used again by whoever loads the file again: save the store after use.

        Raises:
            ConfigurationError: the file cannot be read, others than its owner can read or write it, it is no
                session file, of another version, or damaged.
        """
        name = os.fspath(path)
        store = cls(capacity, per_place=per_place)
        try:
            data = _read_private(name)
        except (OSError, ValueError) as error:
            raise _unusable(name, "be read", error) from None
        try:
            document = json.loads(data)
            kind, version = document["format"], document["version"]
        except (ValueError, TypeError, KeyError, RecursionError):
            kind, version = None, None
        if kind != _FORMAT:
            raise ConfigurationError(f"{name!r} is no session file of sealwire: name another")
        if version != _VERSION:
            raise ConfigurationError(
                f"session file {name!r} has version {version!r}, not {_VERSION}: delete it"
            )
        try:
            tickets = document["tickets"]
            if document["digest"] != _digest(tickets):
                raise ValueError("digest")
            for entry in tickets:
                store._put(*_entry(entry))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            # A number of JSON may be larger than any of ours.
            raise ConfigurationError(f"session file {name!r} is damaged: delete it") from None
        return store


def _entry(entry: dict[str, Any]) -> tuple[Place, _Kept]:
    place = Place(
        str(entry["protocol"]),
        str(entry["host"]),
        int(entry["port"]),
        str(entry["server_name"]),
        str(entry["identity"]),
    )
    ticket = base64.b64decode(entry["ticket"], validate=True)
    if len(ticket) > _MAX_TICKET_BYTES:
        raise ValueError("ticket")
    return place, _Kept(ticket, float(entry["expires_at"]))


def _digest(tickets: object) -> str:
    """Tells damage, not forgery: who can write the file can do more than that."""
    canonical = json.dumps(tickets, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _replace(name: str | bytes, data: bytes) -> None:
    """Write a private file beside `name` and move it there, so that nobody ever sees half of it."""
    suffix = f".{binascii.hexlify(os.urandom(6)).decode()}.tmp"
    temporary = name + (suffix if isinstance(name, str) else suffix.encode())  # type: ignore[operator]
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, name)
    except BaseException:
        os.unlink(temporary)
        raise


def _read_private(name: str | bytes) -> bytes:
    # Not blocking, so that a pipe of that name holds nobody up; it is refused below.
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is no regular file")
        if state.st_mode & 0o077:
            raise ValueError("others may read or change it, and it holds secrets; chmod it to 600")
        if state.st_uid not in (os.geteuid(), 0):
            raise ValueError("it belongs to somebody else")
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _MAX_FILE_BYTES:
        raise ValueError(f"it is longer than {_MAX_FILE_BYTES} bytes")
    return data


def _unusable(name: str | bytes, verb: str, error: OSError | ValueError) -> ConfigurationError:
    why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return ConfigurationError(f"session file {name!r} cannot {verb}: {why[:1].lower()}{why[1:]}")
