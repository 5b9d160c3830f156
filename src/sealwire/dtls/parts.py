"""What one association is made of, beside its own state: keys, handshake layer, queues, and who watches them.

The parts are made when a connection begins, and made anew when one that slept is wanted again
(dtls/hibernation.py); meanwhile they are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sealwire.context import Config
from sealwire.dtls.alerts import LastWords
from sealwire.dtls.care import care_of
from sealwire.dtls.conduct import Conduct
from sealwire.dtls.early import EARLY_OVER, EarlyOver, EarlyTraffic
from sealwire.dtls.epochs import Opening, Sealing
from sealwire.dtls.events import Event
from sealwire.dtls.incoming import Incoming
from sealwire.dtls.layer import HandshakeLayer
from sealwire.dtls.outgoing import Outgoing
from sealwire.dtls.queues import MessageQueue
from sealwire.dtls.rekeying import Rekeying
from sealwire.dtls.routability import PathInbox
from sealwire.dtls.upkeep import Upkeep
from sealwire.limits import Account, Limits, Purpose
from sealwire.record.padding import padding_of
from sealwire.telemetry import ConnectionCounters, EndpointCounters
from sealwire.tls13.handshake import Handshake

#: The attributes that are parts.
PARTS: Final = (
    "_care",
    "_early",
    "_events",
    "_incoming",
    "_last_words",
    "_layer",
    "_opening",
    "_outgoing",
    "_receive_queue",
    "_rekeying",
    "_sealing",
    "conduct",
    "counters",
    "path_messages",
)


class Parts:
    """Whoever has the parts."""

    __slots__ = (
        "__weakref__",
        "_account",
        *PARTS,
        "config",
        "limits",
        "mtu",
        "upkeep",
    )

    def __init__(self, config: Config, limits: Limits, account: Account, mtu: int, upkeep: Upkeep) -> None:
        self.config = config
        self.limits = limits
        self._account = account
        #: Largest datagram this connection makes, in bytes of UDP payload.
        self.mtu = mtu
        #: What the connection sees to by itself.
        self.upkeep = upkeep

    def _furnish(
        self,
        handshake: Handshake,
        *,
        now: float,
        initial_timeout: float,
        next_seq: int,
        next_peer_seq: int,
        plain_sequence: int,
        offered_cid_bytes: int,
        issue_cid: Callable[[int], bytes],
        totals: EndpointCounters | None,
        counters: ConnectionCounters | None = None,
    ) -> None:
        """Make the parts."""
        account, config, limits, upkeep, mtu = self._account, self.config, self.limits, self.upkeep, self.mtu
        self._events: tuple[Event, ...] = ()
        self.counters = counters or ConnectionCounters()
        #: How the peer behaves, in the totals of its endpoint.
        self.conduct = Conduct(totals, now, limits.handshake_seconds)
        padding = padding_of(config.block_padding, config.padding_callback)
        self._sealing = Sealing(config.provider, plain_sequence, limits.records_per_key, padding)
        self._opening = Opening(config.provider, limits.replay_window, limits.forgeries_per_key)
        self._incoming = Incoming(self._opening, account, self.counters, offered_cid_bytes)
        self._layer = HandshakeLayer(
            handshake,
            self._sealing,
            self._opening,
            account=account,
            limits=limits,
            counters=self.counters,
            mtu=mtu,
            initial_timeout=initial_timeout,
            next_seq=next_seq,
            next_peer_seq=next_peer_seq,
            spare_cids=upkeep.spare_cids,
            conduct=self.conduct,
        )
        self._layer.issue_cid = issue_cid
        self._outgoing = Outgoing(account, limits, self._sealing, self.counters, mtu, upkeep.pack)
        self._early: EarlyTraffic | EarlyOver = EARLY_OVER
        if not handshake.complete:
            self._early = EarlyTraffic(handshake.early, self._sealing, account, limits, self.counters, mtu)
        self._rekeying = Rekeying(
            self._layer, self._sealing, self._opening, self._outgoing, limits, self.counters, now
        )
        self._receive_queue = MessageQueue(
            account, Purpose.RECEIVE_QUEUE, limits.receive_queue_bytes, "receive_queue_bytes"
        )
        # Made for the first of them.
        self._last_words: LastWords | None = None
        self._care = care_of(upkeep, config.provider)
        #: Return routability messages that came; an Endpoint takes them, who alone knows from where.
        self.path_messages = PathInbox(self.counters)
