"""What can be asked of a DTLS connection beside its data, the same for channels and sockets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sealwire.drive.facts import Facts

if TYPE_CHECKING:
    from sealwire import dtls

T = TypeVar("T")


class DatagramFacts(Facts):
    """Facts of a DTLS connection, and the verbs that only datagrams have."""

    @property
    @abstractmethod
    def connection(self) -> dtls.Connection:
        """The engine."""

    @abstractmethod
    def _act(self, action: Callable[[dtls.Connection], T]) -> T:
        """Do `action` with the engine, then send what it has to send."""

    def connection_ids(self) -> tuple[bytes, bytes]:
        """The ids in records to us and in records to the peer now, ``b""`` for none (RFC 9146)."""
        cids = self.connection.cids
        return (cids.ours[-1] if cids.ours else b""), cids.current

    def srtp_profile(self) -> str | None:
        """The SRTP profile agreed on, as openssl names it; None without (RFC 5764)."""
        profile = self.connection.session.srtp_profile
        return None if profile is None else profile.name

    def srtp_keys(self) -> dtls.SrtpKeys:
        """Master keys and salts for SRTP.  Error where no profile was agreed on."""
        self._check_process()
        return self.connection.srtp_keys()

    def rotate_connection_id(self) -> bool:
        """Go on under a spare id of the peer's; False, and nothing changed, without one."""
        return self._act(lambda connection: connection.rotate_connection_id())

    def offer_connection_ids(self, count: int, *, immediate: bool = False) -> None:
        """Give the peer up to `count` further ids for its records; `immediate` replaces those in use.

        Raises:
            Error: no ids were negotiated, or an offer is under way.
        """
        self._act(lambda connection: connection.offer_connection_ids(count, immediate=immediate))

    def request_connection_ids(self, count: int) -> None:
        """Ask the peer for up to `count` spare ids.

        Raises:
            Error: no ids were negotiated, or a request is not answered yet.
        """
        self._act(lambda connection: connection.request_connection_ids(count))
