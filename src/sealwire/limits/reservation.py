"""Memory an application sets aside on a peer's behalf, in the same account as sealwire's own.

    with server.budget.reserve(65536, peer=channel.peername) as reservation:
        ...                                        # at most 64 KiB held for that peer here

What an application keeps for a peer (a half-parsed request, a cache) is as much a cost of that peer
as what sealwire keeps.  A reservation is refused where a limit says so, before anything is allocated.
"""

from __future__ import annotations

import sys
from types import TracebackType

from sealwire.errors import LimitReached
from sealwire.limits.ledger import Account, Ledger, Purpose


class Reservation:
    """Bytes set aside until :meth:`release` or the end of a `with` block.

    Attributes:
        size: bytes reserved.
    """

    __slots__ = ("_account", "_purpose", "size")

    def __init__(self, account: Account, purpose: Purpose, size: int) -> None:
        self._account = account
        self._purpose = purpose
        self.size = size

    def grow(self, n: int) -> None:
        """Set `n` more bytes aside; LimitReached if a limit refuses them."""
        if not self._account.charge(self._purpose, n):
            raise _refused(self._account.ledger, n)
        self.size += n

    def release(self) -> None:
        """Give the bytes back.  Safe to call twice."""
        self.size = 0
        self._account.close()

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Budget:
    """What an application asks for memory; made with an endpoint's or server's ledger."""

    __slots__ = ("_ledger",)

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def reserve(self, n: int, *, peer: object = None, purpose: Purpose = Purpose.APPLICATION) -> Reservation:
        """Set `n` bytes aside, for the account of `peer`'s prefix if there is one.

        Args:
            peer: a socket address whose owner was proved (that of a connection); None for no peer's.

        Raises:
            LimitReached: total_bytes, application_bytes, prefix_bytes or site_bytes refuse, which is counted.
        """
        if n < 0:
            raise ValueError(f"{n} bytes cannot be reserved")
        # Only a connection has a cap of its own.
        account = Account(self._ledger, sys.maxsize, is_connection=False)
        account.place(peer)
        if not account.charge(purpose, n):
            account.close()
            raise _refused(self._ledger, n)
        return Reservation(account, purpose, n)


def _refused(ledger: Ledger, n: int) -> LimitReached:
    return LimitReached(ledger.refused_by, f"there is no room for {n} bytes of the application's")
