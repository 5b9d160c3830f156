"""What a Context says about resumption: tickets, where a client keeps them, and early data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, TypedDict

from sealwire.context.config import MAX_TICKETS
from sealwire.context.sessions import SessionStore
from sealwire.crypto.providers import CryptoProvider
from sealwire.crypto.ratchet import KeyRatchet
from sealwire.crypto.strikes import DEFAULT_CAPACITY, StrikeRegister
from sealwire.crypto.ticketkeys import TicketKeys

_MAX_REQUEST: Final = 255
#: It waits in memory for every client that comes back, before anybody proved to be there now.
MAX_EARLY_DATA_BYTES: Final = 65_536


class _Resumption(TypedDict):
    ticket_keys: TicketKeys
    num_tickets: int
    ticket_request: tuple[int, int] | None
    session_store: SessionStore | None
    max_early_data_size: int
    strikes: StrikeRegister | None
    tickets_as_proof: bool


class ResumptionSettings(ABC):
    """The part of :class:`Context` that is about coming back."""

    def __init__(self, provider: CryptoProvider) -> None:
        self._ticket_keys = TicketKeys(provider=provider)
        self._num_tickets = 0
        self._ticket_request: tuple[int, int] | None = None
        self._session_store: SessionStore | None = None
        self._early_provider = provider
        self._max_early_data_size = 0
        self._strikes: StrikeRegister | None = None
        self._tickets_as_proof = False

    @abstractmethod
    def _changed(self) -> None:
        """What was frozen before is old now."""

    def set_ticket_keys(self, keys: Sequence[bytes]) -> None:
        """Seal session tickets under the first of `keys`, and open those of all of them.

        Without it keys are random, unknown to other processes, and replace themselves.  It takes effect
        for connections there are already.

        Args:
            keys: secrets of 32 bytes or more, the same on all processes and hosts that share tickets.

        Raises:
            ConfigurationError: no key, or one that is too short or there twice.
        """
        self._ticket_keys.replace(keys)

    def share_ticket_keys(self, ratchet: KeyRatchet) -> None:
        """Seal session tickets under the keys of `ratchet`, which other processes have too.

        Keys of :meth:`set_ticket_keys` stay, as those may be shared with other hosts.

        Raises:
            ConfigurationError: it forgets keys before their tickets end.
        """
        if not self._ticket_keys.given:
            self._ticket_keys.share(ratchet)

    @property
    def num_tickets(self) -> int:
        """Session tickets a server gives at most to each client that wants some.

        A client whose number is not 0 wants some, and asks for so many.
        """
        return self._num_tickets

    @num_tickets.setter
    def num_tickets(self, count: int) -> None:
        if not 0 <= count <= MAX_TICKETS:
            raise ValueError(f"{count} session tickets are not in 0..{MAX_TICKETS}")
        self._changed()
        self._num_tickets = count

    @property
    def ticket_request(self) -> tuple[int, int] | None:
        """How many tickets a client asks for: after a full handshake, and after a resumed one (RFC 9149).

        None asks for `num_tickets` and, after a resumed handshake, for one, as each use costs one.  The
        server may give fewer, and one that does not know the extension gives what it likes.
        """
        return self._ticket_request

    @ticket_request.setter
    def ticket_request(self, counts: tuple[int, int] | None) -> None:
        if counts is not None:
            new, resumed = counts
            if not (0 <= new <= _MAX_REQUEST and 0 <= resumed <= _MAX_REQUEST):
                raise ValueError(f"a client asks for 0 to {_MAX_REQUEST} tickets, not {counts}")
            counts = (new, resumed)
        self._changed()
        self._ticket_request = counts

    @property
    def session_store(self) -> SessionStore | None:
        """Where a client keeps tickets and takes them from; None for nowhere.  Setting one wants tickets."""
        return self._session_store

    @session_store.setter
    def session_store(self, store: SessionStore | None) -> None:
        if store is not None and not isinstance(store, SessionStore):
            raise TypeError(f"session_store is a SessionStore or None, not {type(store).__name__}")
        self._changed()
        self._session_store = store

    @property
    def max_early_data_size(self) -> int:
        """Bytes of early data a server takes from a client that comes back; 0, the default, for none.

        Early data can be replayed: what it asks for must do no harm when it is done late or twice
        (docs/early-data.md).  Tickets carry the number, so it is for connections after the next.
        """
        return self._max_early_data_size

    @max_early_data_size.setter
    def max_early_data_size(self, size: int) -> None:
        if not 0 <= size <= MAX_EARLY_DATA_BYTES:
            raise ValueError(f"{size} bytes of early data are not in 0..{MAX_EARLY_DATA_BYTES}")
        self._changed()
        self._max_early_data_size = size
        if size and self._strikes is None:
            self._strikes = StrikeRegister(self._early_provider)

    @property
    def tickets_as_proof(self) -> bool:
        """Whether a DTLS server lets a ticket show its client's address, in place of a cookie.

        A client that comes back from where it was is then answered at once (RFC 9147 section 5.1).  Each
        ticket counts once, and none while the server is under load (docs/resumption.md).  Off unless set.
        """
        return self._tickets_as_proof

    @tickets_as_proof.setter
    def tickets_as_proof(self, on: bool) -> None:
        self._changed()
        self._tickets_as_proof = bool(on)
        if on and self._strikes is None:
            self._strikes = StrikeRegister(self._early_provider)

    def set_early_data_window(self, seconds: float, *, capacity: int = DEFAULT_CAPACITY) -> None:
        """How far a hello whose ticket counts may be from when it should come; ten seconds unless set.

        A longer window accepts clients whose clocks run less evenly and must remember more.  It begins
        with nothing remembered, so tickets given until now count no more: not for early data, nor as proof.

        Args:
            seconds: more than 0 and at most 60.
            capacity: tickets remembered at most; above it none counts.

        Raises:
            ConfigurationError: a number out of range; nothing has changed.
        """
        strikes = StrikeRegister(self._early_provider, window_seconds=seconds, capacity=capacity)
        self._changed()
        self._strikes = strikes

    def _resumption(self) -> _Resumption:
        """What a Config takes of this."""
        # Who has a place to keep tickets wants some.
        wanted = self._num_tickets or (1 if self._session_store is not None else 0)
        return {
            "ticket_keys": self._ticket_keys,
            "num_tickets": wanted,
            "ticket_request": self._ticket_request,
            "session_store": self._session_store,
            "max_early_data_size": self._max_early_data_size,
            "strikes": self._strikes,
            "tickets_as_proof": self._tickets_as_proof,
        }
