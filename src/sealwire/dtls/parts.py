"""What one association is made of, beside its own state: keys, handshake layer, queues, and who watches them.

The parts are made when a connection begins, and made anew when one that slept is wanted again
(dtls/hibernation.py); meanwhile they are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from sealwire.context import Config
from sealwire.dtls.alerts import LastWords
from sealwire.dtls.care import Care, care_of
from sealwire.dtls.conduct import Conduct
from sealwire.dtls.early import EARLY_OVER, EarlyOver, EarlyTraffic
from sealwire.dtls.epochs import KeptKeys, Opening, Sealing
from sealwire.dtls.events import Event
from sealwire.dtls.header import RecordNumber
from sealwire.dtls.incoming import Incoming
from sealwire.dtls.layer import HandshakeLayer
from sealwire.dtls.outgoing import Outgoing
from sealwire.dtls.queues import MessageQueue
from sealwire.dtls.rekeying import Rekeying
from sealwire.dtls.routability import PathInbox
from sealwire.dtls.upkeep import Upkeep
from sealwire.errors import KeysExhausted
from sealwire.limits import Account, Limits, Purpose
from sealwire.record.padding import padding_of
from sealwire.telemetry import ConnectionCounters, EndpointCounters
from sealwire.tls13.handshake import Handshake


class Awake:
    """What a connection has only while it is awake: its parts, and where it stands with its peer.

    Attributes:
        number: tells connections apart in reports.
        began: when the connection began.
        handshake_seconds: how long the handshake took; None while it is not complete.
        address_shown: whether the peer's address is proved or, by a ticket, shown to have been its own.
        budget: what may still be sent to an address nobody proved, None once it is proved.
        keys_seen: whether any protected record of the peer was opened.
        finished_answered: part of the client's last flight came, so a server's Finished was accepted.
        handshake_deadline: when the handshake is given up, None once it is complete.
        write_closed: the application has said all: close_notify is sent, or will be behind what waits.
        goodbye_said: close_notify was sent.
        closing_error: why a close of our own goes on, None where the application asked for it.
        peer_closed_at: the record of the peer's close_notify.
        ticket_bytes: charged for tickets nobody took yet.
        sought: keys whose numbers may be far ahead, and how many datagrams may still be tried.
        conduct: how the peer behaves, in the totals of its endpoint.
        path_messages: return routability messages that came, for an Endpoint, which knows from where.
    """

    __slots__ = (
        "address_shown",
        "began",
        "budget",
        "care",
        "closing_error",
        "conduct",
        "counters",
        "early",
        "events",
        "finished_answered",
        "goodbye_said",
        "handshake_deadline",
        "handshake_seconds",
        "incoming",
        "keys_seen",
        "last_words",
        "layer",
        "number",
        "opening",
        "outgoing",
        "path_messages",
        "peer_closed_at",
        "receive_queue",
        "rekeying",
        "sealing",
        "sought",
        "ticket_bytes",
        "write_closed",
    )

    def __init__(self, number: int, began: float) -> None:
        self.number = number
        self.began = began
        self.handshake_seconds: float | None = None
        self.address_shown = True
        self.budget: int | None = None
        self.keys_seen = True
        self.finished_answered = True
        self.handshake_deadline: float | None = None
        self.write_closed = False
        self.goodbye_said = False
        self.closing_error: KeysExhausted | None = None
        self.peer_closed_at: RecordNumber | None = None
        self.ticket_bytes = 0
        self.sought: tuple[KeptKeys, int] | None = None
        self.events: tuple[Event, ...] = ()
        # Made for the first of them.
        self.last_words: LastWords | None = None

    def furnish(
        self,
        account: Account,
        config: Config,
        limits: Limits,
        upkeep: Upkeep,
        mtu: int,
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
        self.counters = counters = counters or ConnectionCounters()
        self.conduct = Conduct(totals, now, limits.handshake_seconds)
        padding = padding_of(config.block_padding, config.padding_callback)
        self.sealing = Sealing(config.provider, plain_sequence, limits.records_per_key, padding)
        self.opening = Opening(config.provider, limits.replay_window, limits.forgeries_per_key)
        self.incoming = Incoming(self.opening, account, counters, offered_cid_bytes)
        self.layer = HandshakeLayer(
            handshake,
            self.sealing,
            self.opening,
            account=account,
            limits=limits,
            counters=counters,
            mtu=mtu,
            initial_timeout=initial_timeout,
            next_seq=next_seq,
            next_peer_seq=next_peer_seq,
            spare_cids=upkeep.spare_cids,
            conduct=self.conduct,
        )
        self.layer.issue_cid = issue_cid
        self.outgoing = Outgoing(account, limits, self.sealing, counters, mtu, upkeep.pack)
        self.early: EarlyTraffic | EarlyOver = EARLY_OVER
        if not handshake.complete:
            self.early = EarlyTraffic(handshake.early, self.sealing, account, limits, counters, mtu)
        self.rekeying = Rekeying(self.layer, self.sealing, self.opening, self.outgoing, limits, counters, now)
        self.receive_queue = MessageQueue(
            account, Purpose.RECEIVE_QUEUE, limits.receive_queue_bytes, "receive_queue_bytes"
        )
        self.care = care_of(upkeep, config.provider)
        self.path_messages = PathInbox(counters)


class Parts:
    """Whoever has the parts; they can be asked for by name as well, as tests and the bench do."""

    __slots__ = ("__weakref__", "_account", "_awake", "config", "limits", "mtu", "upkeep")

    if TYPE_CHECKING:
        # Given below, each as a property that looks into `_awake`.
        _care: Care
        _early: EarlyTraffic | EarlyOver
        _incoming: Incoming
        _layer: HandshakeLayer
        _opening: Opening
        _outgoing: Outgoing
        _receive_queue: MessageQueue
        _rekeying: Rekeying
        _sealing: Sealing
        conduct: Conduct
        path_messages: PathInbox

    def __init__(self, config: Config, limits: Limits, account: Account, mtu: int, upkeep: Upkeep) -> None:
        self.config = config
        self.limits = limits
        self._account = account
        #: Largest datagram this connection makes, in bytes of UDP payload.
        self.mtu = mtu
        #: What the connection sees to by itself.
        self.upkeep = upkeep
        self._awake: Awake


def _look_into(name: str) -> property:
    attribute = name.lstrip("_")

    def set_it(self: Parts, value: Any) -> None:
        setattr(self._awake, attribute, value)

    # A getter written in C: counters are asked for often.
    return property(attrgetter(f"_awake.{attribute}"), set_it)


_PRIVATE: Final = (
    "_care",
    "_early",
    "_incoming",
    "_layer",
    "_opening",
    "_outgoing",
    "_receive_queue",
    "_rekeying",
    "_sealing",
)
_PUBLIC: Final = ("conduct", "path_messages")
for _name in (*_PRIVATE, *_PUBLIC):
    setattr(Parts, _name, _look_into(_name))
