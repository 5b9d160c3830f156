"""One socket's worth of peers: who a datagram belongs to, who may come in, whose turn it is.

An Endpoint is handed batches of (datagram, address), gives each connection the run of datagrams that are
its own, and lets the gate judge the rest.  A connection exists only after its peer's address is proved and
its memory is charged (docs/design.md, journeys a and c).  A new hello from the address of a live connection
is judged like any other: the old association ends when the new one is complete (RFC 9147 section 5.11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from sealwire.context import Config
from sealwire.dtls.admission import Admission, Terms, accept_all, begin, import_connection, open_connection
from sealwire.dtls.charges import open_account
from sealwire.dtls.connection import DEFAULT_MTU_BYTES, Connection
from sealwire.dtls.cookie import Address
from sealwire.dtls.deadlines import earliest
from sealwire.dtls.detectors import RULES, Rule
from sealwire.dtls.events import AddressChanged, Closed, Connected, Event, State
from sealwire.dtls.front import Front
from sealwire.dtls.gate import Attempt, Gate, OlderVersion, Reply
from sealwire.dtls.handover import Claim
from sealwire.dtls.header import ContentType, is_ciphertext, may_be_hello
from sealwire.dtls.lists import Doors
from sealwire.dtls.load import Load
from sealwire.dtls.paths import AMPLIFICATION, PathChecks
from sealwire.dtls.peers import Peers, address_of, count_end
from sealwire.dtls.resting import Resting
from sealwire.dtls.routability import PathMessage
from sealwire.dtls.runs import Batch, singles, sort_batch
from sealwire.dtls.shedding import Shedding
from sealwire.dtls.slots import Foreign, Slot
from sealwire.dtls.timers import Timers
from sealwire.dtls.transfer import INITIAL_TIMEOUT_SECONDS
from sealwire.dtls.upkeep import DEFAULT_UPKEEP, Upkeep
from sealwire.errors import Discard, LimitReached
from sealwire.limits import DEFAULT_LIMITS, Budget, Ledger, Limits, Pressure, tables_bytes
from sealwire.record.train import Train, bytes_of, count_of
from sealwire.telemetry import ConnectionCounters, EndpointCounters
from sealwire.tls13.contract import EPOCH_EARLY
from sealwire.wire import Buffer

# An IPv6 socket address has flow and scope as well.
_IPV4_ADDRESS_PARTS: Final = 2
# Data given to the socket at once, and of one connection among many.
_TURN_BYTES: Final = 512 * 1024
_LEAST_QUANTUM_BYTES: Final = 16 * 1024
# Long enough that nobody meets another's id by chance, short enough for small records.
DEFAULT_CID_BYTES: Final = 8
# RFC 9146 allows 255; longer than this an id only costs, shorter they meet each other by chance.
_MAX_CID_BYTES: Final = 20
_MIN_CID_BYTES: Final = 4
# Datagrams of early data kept until the hellos of the same turn are taken.
_STRAYS: Final = 64


class Endpoint:
    """Many peers on one socket, server side.  Not thread-safe.

    The law of :class:`Connection` holds for the whole: after every receive, wake or use of one of
    its connections, take transmit() and events() and ask deadline() again.
    """

    def __init__(
        self,
        configure: Callable[[], Config],
        *,
        limits: Limits | None = None,
        mtu: int = DEFAULT_MTU_BYTES,
        initial_timeout: float = INITIAL_TIMEOUT_SECONDS,
        admission: Callable[[Attempt], Admission] = accept_all,
        on_other: Callable[[Buffer, Address], None] | None = None,
        require_cookie: bool = True,
        limit_unproved: bool = True,
        cid_bytes: int | None = DEFAULT_CID_BYTES,
        on_address_change: Callable[[Connection, Address], bool] | None = None,
        enhanced_path_check: bool = False,
        upkeep: Upkeep = DEFAULT_UPKEEP,
        attack_rules: Sequence[Rule] = RULES,
        slot: Slot | None = None,
    ) -> None:
        """
        Args:
            configure: gives the Config for the next peer; ``context.config`` of a server Context.
            mtu: largest UDP payload to send, in bytes.
            admission: asked for each attempt whose address is proved.
            on_other: gets datagrams of other protocols (RFC 7983 [7983-1]) and hellos that offer no DTLS
                1.3, so that another stack can share the port.
            require_cookie: off, a client whose hello has the right key share is answered at once, with at
                most three times the bytes it sent until it proves its address; a long certificate
                chain then waits for the client to say more.
            limit_unproved: off only where addresses cannot be forged, as after ICE [9147-5.1-7].
            cid_bytes: length of the connection ids given to clients that speak of them, one length for
                all, so that an id says where it ends (RFC 9146 section 3 [9146-2]); 0 to use only theirs,
                None to negotiate none.
            on_address_change: asked whether a connection may move to the address a newer record came from,
                where the peer cannot be asked itself (RFC 9853); None never moves it.
            enhanced_path_check: ask the old address before the new one.
            upkeep: what each connection sees to by itself.
            attack_rules: what is taken for a sign of an attack.
            slot: which of several processes on one port this is.
        """
        if cid_bytes and not _MIN_CID_BYTES <= cid_bytes <= _MAX_CID_BYTES:
            raise ValueError(
                f"connection ids have {_MIN_CID_BYTES} to {_MAX_CID_BYTES} bytes, or none, not {cid_bytes}"
            )
        self.limits = limits or DEFAULT_LIMITS
        self.counters = EndpointCounters()
        self.ledger = Ledger(self.limits)
        self.ledger.charge_table(tables_bytes(self.limits))
        #: What the application sets aside in the same account.
        self.budget = Budget(self.ledger)
        self._configure = configure
        self._admission = admission
        self._on_other = on_other
        self._cid_bytes = cid_bytes
        self._on_address_change = on_address_change
        self._terms = Terms(
            self.limits,
            mtu,
            initial_timeout,
            limit_unproved,
            cid_bytes,
            upkeep,
            self._issue_cid,
            self.counters,
        )
        self._on_output = self._touch  # one for all connections
        self._provider = configure().provider
        self._paths = PathChecks(self._provider, enhanced=enhanced_path_check)
        self._elsewhere: dict[Connection, None] = {}
        #: Who may begin a connection, and how much the peers of a prefix may send.
        self.doors = Doors(self.limits, self.ledger)
        #: What came here and is another slot's; to be taken after each receive().
        self.foreign = Foreign(slot)
        cookies = None if slot is None else slot.cookies
        self.gate = Gate(
            configure(), self.limits, self.counters, require_cookie=require_cookie, cookies=cookies
        )
        self._peers = Peers()
        self._resting = Resting(self._peers, self.ledger, self.limits)
        self._shedding = Shedding(self._resting, self.limits, self.counters, self._settle)
        self._replies: list[tuple[bytes, Address]] = []
        self._ready: dict[Connection, None] = {}
        self._timers = Timers()
        self._events: list[tuple[Connection, Event]] = []
        #: Whether this endpoint is under load, and the attacks it sees.
        self.load = Load(
            self.counters,
            self.ledger,
            self.limits,
            lambda: (self._peers.handshaking, len(self._peers)),
            self._load_changed,
            attack_rules,
            port_shared=on_other is not None,
        )
        self.closing = False
        #: Hellos come by a socket of their own, which is read after the one for records.
        self.hellos_behind = False
        # Early data that came before its hello, for the length of a turn.
        self._strays: list[tuple[Buffer, Address]] = []
        #: Called when a refused datagram is to be sent anew, cut smaller.
        self.on_path_refusal: Callable[[], None] | None = None

    @property
    def connections(self) -> int:
        """How many connections there are, handshakes included."""
        return len(self._peers)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._peers)

    def find(self, one: Buffer | Train) -> Connection | None:
        """Whose id the first record of a datagram carries, or of a train's; nothing is proved by that."""
        return self._peers.find(one.data if isinstance(one, Train) else one, self._cid_bytes)

    def received_elsewhere(self) -> list[Connection]:
        """Whom datagrams reached from addresses other than its own, since the last call."""
        connections, self._elsewhere = self._elsewhere, {}
        return list(connections)

    def totals(self) -> ConnectionCounters:
        """What all connections have counted, those that are gone as well; walks over those that live."""
        return self._peers.totals()

    @property
    def asleep(self) -> int:
        """How many connections are idle for long; those of them for which nothing waits sleep."""
        return len(self._peers.resting)

    @property
    def handshaking(self) -> int:
        """Connections whose handshake is not complete."""
        return self._peers.handshaking

    # --- receiving -------------------------------------------------------------------------

    def receive(self, batch: Batch, now: float) -> None:
        """Take a batch of datagrams, or trains of them, with the addresses they came from."""
        self.counters.datagrams_received += count_of(datagram for datagram, _ in batch)
        self._timers.now = now
        peers = self._peers
        runs: dict[Address, list[Buffer | Train]] = {}
        batch, single = sort_batch(batch, peers, self._cid_bytes)
        judged = -1
        for index, (datagram, address) in enumerate(batch):
            if index < judged:
                continue
            if isinstance(datagram, Train):
                runs.setdefault(address, []).append(datagram)
            elif not datagram:
                self.counters.discard(Discard.EMPTY)
            elif not 20 <= datagram[0] <= 63:
                # RFC 7983 section 7: not DTLS, though it may come from a peer of ours (STUN, SRTP).
                self._receive_other(datagram, address)
            elif may_be_hello(datagram):
                if index != judged:
                    judged = self._sift(single, index, now)
                if index < judged:
                    continue
                # What came before it from this peer comes first.
                self._receive_runs(runs, now)
                self._receive_hello(datagram, address, now)
            elif self._cid_bytes and is_ciphertext(datagram[0]) and datagram[0] & 0x10:
                self._receive_by_cid(datagram, address, runs, now)
            elif address in peers.by_address:
                runs.setdefault(address, []).append(datagram)
            else:
                self._receive_unknown(datagram, address)
        self._receive_runs(runs, now)
        if self.ledger.level is Pressure.CRITICAL:
            self._shedding.relieve(now)
        if now >= self.load.due:
            self.load.look(now)

    def receive_front(self, front: Front, now: float) -> None:
        """Take what a handshake socket brought, as :meth:`receive` would."""
        sieve = self.gate.sieve
        assert sieve is not None
        others = self._on_other is not None
        while True:
            left = front.sift(sieve, self._configure(), now, self._peers.hellos, others)
            if left is None:
                break
            self._receive_hello(*left, now)
        self.counters.datagrams_received += front.taken
        self.counters.datagrams_sent += front.reply()
        self.receive(front.rest, now)

    def hellos_taken(self, now: float) -> None:
        """What came by the socket for hellos was received: early data that overtook its hello comes now."""
        strays, self._strays = self._strays, []
        if strays:
            self.hellos_behind = False
            self.counters.datagrams_received -= len(strays)
            self.receive(strays, now)
            self.hellos_behind = True

    def _receive_runs(self, runs: dict[Address, list[Buffer | Train]], now: float) -> None:
        peers = self._peers
        for address, datagrams in runs.items():
            if self.doors.metered and self.doors.over_quota(address, datagrams, now, self.counters):
                continue
            replacement = peers.replacements.get(address)
            if replacement is not None:
                # Decision A12: new first, then old.
                authentic = replacement.receive_run(datagrams, now)
                self._touch(replacement)
                if authentic:
                    peers.heard(replacement, now)
                    self.doors.received(address, datagrams, now)
                    continue
            connection = peers.by_address.get(address)
            if connection is not None:
                if connection.receive_run(datagrams, now):
                    peers.heard(connection, now)
                    self.doors.received(address, datagrams, now)
                if not connection.asleep:
                    self._answer_path_messages(connection, address, bytes_of(datagrams), now)
                    self._touch(connection)
        runs.clear()

    def _receive_by_cid(
        self, datagram: Buffer, address: Address, runs: dict[Address, list[Buffer | Train]], now: float
    ) -> None:
        """Find the connection by the id in its record, wherever it comes from (RFC 9146)."""
        assert self._cid_bytes
        connection = self._peers.by_cid.get(bytes(datagram[1 : 1 + self._cid_bytes]))
        if connection is None:
            cid = datagram[1 : 1 + self._cid_bytes]
            if not self.foreign.put(cid, datagram, address):
                self.counters.discard(Discard.UNKNOWN_CID)
        elif connection is self._peers.by_address.get(address) and address not in self._peers.replacements:
            runs.setdefault(address, []).append(datagram)
        else:
            self._receive_runs(runs, now)
            newest = connection.newest
            if connection.receive_run((datagram,), now):
                self._peers.heard(connection, now)
            if connection.address != address:
                self._elsewhere[connection] = None
                self._paths.heard(connection, address, len(datagram))
                # RFC 9146 section 6 [9146-3]: only a record newer than all before speaks of a new address.
                if connection.newest > newest:
                    self._moved(connection, address, len(datagram), now)
            if not connection.asleep:
                self._answer_path_messages(connection, address, len(datagram), now)
                self._touch(connection)

    def _moved(self, connection: Connection, address: Address, received_bytes: int, now: float) -> None:
        """An authentic, newer record came from another address (RFC 9147 section 11 [9147-11-7])."""
        if connection.state is not State.CONNECTED or connection.held_back:
            return
        old = address_of(connection)
        if connection.connection_ids.return_routability:
            self._replies += self._paths.start(connection, old, address, received_bytes, now).datagrams
        elif self._on_address_change is not None and self._on_address_change(connection, address):
            self._move(connection, address, now)

    def _answer_path_messages(
        self, connection: Connection, address: Address, received_bytes: int, now: float
    ) -> None:
        budget = AMPLIFICATION * received_bytes
        for kind, cookie in connection.path_messages.take():
            if kind == PathMessage.CHALLENGE:
                # [9853-2]: once, at once, to where it came from.
                answer = connection.path_record(PathMessage.RESPONSE, cookie)
                budget -= len(answer)
                if address == connection.address or budget >= 0:
                    self._replies.append((answer, address))
                continue
            if (
                kind == PathMessage.RESPONSE
                and address == connection.address
                and connection.path_answered(cookie, now)
            ):
                continue
            outcome = self._paths.answered(connection, kind, cookie, address, now)
            if outcome is None:
                self.counters.discard(Discard.PATH_MESSAGE)
                continue
            self._replies += outcome.datagrams
            if outcome.moved_to is not None:
                self._move(connection, outcome.moved_to, now)

    def _move(self, connection: Connection, address: Address, now: float) -> None:
        old = address_of(connection)
        self._peers.move(connection, old, address)
        connection.place(address)
        # RFC 9147 section 9 [9147-9-9]: a fresh id on a new path.
        connection.path_changed(now)
        self.counters.address_changes += 1
        self._events.append((connection, AddressChanged(old, address)))

    def _issue_cid(self, size: int) -> bytes:
        """A fresh connection id; whose it is is entered once it is given out."""
        while True:
            cid = self.foreign.issue(size, self._provider)
            if cid not in self._peers.by_cid:
                return cid

    def _receive_other(self, datagram: Buffer, address: Address) -> None:
        self.counters.discard(Discard.OTHER_PROTOCOL)
        if self._on_other is not None:
            self._on_other(datagram, address)

    def _receive_unknown(self, datagram: Buffer, address: Address) -> None:
        first = datagram[0]
        early = self.hellos_behind and is_ciphertext(first) and first & 3 == EPOCH_EARLY
        if early and len(self._strays) < _STRAYS:
            self._strays.append((datagram, address))
            return
        known = is_ciphertext(first) or first in (ContentType.ALERT, ContentType.ACK)
        self.counters.discard(Discard.UNKNOWN_PEER if known else Discard.NOT_DTLS)
        if self._on_other is not None and not is_ciphertext(first):
            # A record of an older version looks like this: the other stack's handshake goes on.
            self._on_other(datagram, address)

    def _sift(self, batch: Sequence[tuple[Buffer, Address]], index: int, now: float) -> int:
        """Have the gate judge a run of hellos at once: index of the first it left."""
        return self.gate.sift(
            batch,
            index,
            self._configure(),
            now,
            self._replies,
            known=self._peers.hellos,
            others=self._on_other is not None,
        )

    def _receive_hello(self, datagram: Buffer, address: Address, now: float) -> None:
        config = self._configure()
        answer = self.gate.receive(datagram, address, config, now, self._peers.first_hellos(address))
        if isinstance(answer, OlderVersion):
            self.counters.discard(Discard.OTHER_VERSION)
            if self._on_other is not None:
                self._on_other(datagram, address)
                return
            answer = answer.reply
        if isinstance(answer, Reply):
            self._replies.append((answer.datagram, address))
        elif isinstance(answer, Attempt):
            self._admit(answer, config, now)
        else:
            self.counters.discard(answer)

    # --- admission -------------------------------------------------------------------------

    def _admit(self, attempt: Attempt, config: Config, now: float) -> None:
        address = attempt.address
        known = attempt.facts.client_hello_1_hash if attempt.facts is not None else attempt.hello.random
        repeated = self._peers.of_hello(address, known)
        if repeated is not None:
            # The hello of this very connection again: our answer was lost.
            repeated.hello_repeated(attempt.received_bytes, now)
            self._touch(repeated)
            return
        proved = attempt.facts is not None or attempt.ticket is not None or not self._terms.limit_unproved
        refusal = self.doors.refuse(address, now, proved=proved)
        if refusal is None and (self.closing or not self._shedding.make_room(address, now, proved=proved)):
            refusal = Discard.OVER_BUDGET
        if refusal is not None:
            self.counters.admissions_refused += 1
            self.counters.discard(refusal)
            return
        verdict = self._admission(attempt)
        if verdict is not Admission.ACCEPT:
            self.counters.admissions_refused += 1
            if verdict is Admission.REFUSE:
                self._replies.append((self.gate.refusal(attempt), address))
            else:
                self.counters.discard(Discard.REFUSED)
            return
        try:
            account = open_account(self.ledger, self.limits, address if proved else None)
        except LimitReached:
            self.counters.admissions_refused += 1
            self.counters.discard(Discard.OVER_BUDGET)
            return
        connection = open_connection(attempt, config, account, self._terms, now)
        self._enter(connection, address, known, now)
        begin(connection, attempt, self.counters, now)
        ids = connection.connection_ids
        if ids.ours and ids.negotiated:
            self._peers.by_cid[ids.ours] = connection
        self._touch(connection)

    def adopt(self, state: bytes, key: bytes, address: Address, *, claim: Claim, now: float) -> Connection:
        """Go on with another process's association: :meth:`Connection.from_state`.  Connected follows."""
        if not self._shedding.make_room(address, now, proved=True):
            raise LimitReached("connections", "no room for another connection")
        account = open_account(self.ledger, self.limits, address)
        connection = import_connection(state, key, self._configure(), claim, account, self._terms, now)
        self._enter(connection, address, b"", now)
        self._peers.follow_cids(connection)
        return connection

    def _enter(self, connection: Connection, address: Address, known: bytes, now: float) -> None:
        connection.address, connection.on_output = address, self._on_output
        self.counters.connections_opened += 1
        self._replace(self._peers.enter(connection, address, known, now))
        self._touch(connection)

    def _load_changed(self, on: bool, now: float) -> None:
        self.gate.force_load(on)
        self._terms = replace(self._terms, limits=self.load.limits)
        if on:
            for connection in self._peers:
                if connection.state is State.HANDSHAKING:
                    connection.hurry(self.load.limits.handshake_seconds, now)
                    self._touch(connection)

    def _replace(self, old: Connection | None) -> None:
        if old is not None:
            old.abort()
            self._touch(old)

    def _touch(self, connection: Connection) -> None:
        """Something happened to a connection: look at it again before the turn ends."""
        self._ready[connection] = None

    def _settle(self, connection: Connection) -> None:
        """Take the events of a connection and follow them."""
        for event in connection.events():
            if isinstance(event, Connected):
                self.counters.handshakes_completed += 1
                self.counters.handshake_seconds.observe(connection.handshake_seconds or 0.0)
                if not connection.placed:
                    # Its Finished has proved the address.
                    connection.place(connection.address)
                self._replace(self._peers.complete(connection, address_of(connection)))
            elif isinstance(event, Closed):
                self._forget(connection)
            self._events.append((connection, event))
        if connection in self._peers and not connection.asleep:
            self._peers.follow_cids(connection)
        self._timers.set(connection, connection.deadline())

    def _forget(self, connection: Connection) -> None:
        self._paths.forget(connection)
        self._elsewhere.pop(connection, None)
        if self._peers.forget(connection, address_of(connection)):
            count_end(self.counters, connection)

    def path_carries(self, size: int, address: Address, now: float) -> None:
        """The way to `address` refused a datagram: see :meth:`Connection.path_carries`."""
        connection = self._peers.by_address.get(address)
        if connection is not None:
            connection.path_carries(size, now, ipv6=len(address) > _IPV4_ADDRESS_PARTS)
            if self.on_path_refusal is not None:
                self.on_path_refusal()

    # --- what the driver asks --------------------------------------------------------------

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Datagrams to send now, with where to; all there are."""
        single: list[tuple[bytes, Address]] = []
        while batch := self.transmit_trains(now):
            single += singles(batch)
        return single

    def transmit_trains(self, now: float) -> list[tuple[bytes | Train, Address]]:
        """What to send now, some hundred KiB of data at most: each connection has its turn.

        Once the socket has taken it, ask again, until there is nothing.  What waits meanwhile waits in the
        connections' queues, which are bounded and charged; who has much to send waits no longer than others.
        """
        if self.ledger.level is Pressure.CRITICAL:
            self._shedding.relieve(now)
        batch: list[tuple[bytes | Train, Address]] = list(self._replies)
        self._replies.clear()
        room = _TURN_BYTES
        while self._ready and room > 0:
            ready, self._ready = self._ready, {}
            quantum = max(_LEAST_QUANTUM_BYTES, room // len(ready))
            again: list[Connection] = []
            for connection in ready:
                if room <= 0:
                    # Its turn comes first the next time.
                    self._ready[connection] = None
                    continue
                address = address_of(connection)
                # RFC 9147 section 4 [9147-4-8]: each datagram is of one connection alone.
                datagrams = connection.transmit_trains(now, quantum)
                batch.extend((datagram, address) for datagram in datagrams)
                room -= bytes_of(datagrams)
                if datagrams or connection in self._peers.resting:
                    self._resting.stirred(connection, now)
                self._settle(connection)
                if connection.data_waits:
                    again.append(connection)
            # Behind those whose turn did not come.
            self._ready |= dict.fromkeys(again)
        self.counters.datagrams_sent += count_of(datagram for datagram, _ in batch)
        return batch

    @property
    def more(self) -> bool:
        """Whether transmit_trains() had to leave something."""
        return bool(self._ready)

    def events(self) -> list[tuple[Connection, Event]]:
        """What happened, with whom.  A connection is gone after its Closed event."""
        # A connection stays ready: what it has to transmit was not taken yet.
        for connection in list(self._ready):
            self._settle(connection)
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When wake() is due, None if never."""
        return earliest(self._timers.next, self._paths.deadline, self.load.deadline, self._resting.deadline)

    def wake(self, now: float) -> None:
        """Do what is due by `now`."""
        self._replies += self._paths.wake(now)
        if now >= self.load.due:
            self.load.look(now)
        # Each once: one that is due again at once has to be transmitted first.
        for connection in self._timers.take_due(now):
            connection.wake(now)
            self._touch(connection)
            # Its next deadline must be known before it is asked for.
            self._settle(connection)
        self._resting.look(now)

    def close(self, now: float) -> None:
        """Admit nobody any more and close every connection."""
        self.closing = True
        for connection in list(self):
            connection.close(now)
            self._touch(connection)

    def abandon(self) -> None:
        """The socket is gone: end what is left without a word, and give its memory back."""
        for connection in list(self):
            connection.abort()
