"""Associations between processes: taken down here, set up again there.

What is taken down is :class:`sealwire.dtls.handover.Moved`; how it is sealed and claimed stands there.
This is the part of a connection that knows all the others' insides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from sealwire.context import Config
from sealwire.dtls.association import Association
from sealwire.dtls.charges import open_account
from sealwire.dtls.events import CheckpointDue, State
from sealwire.dtls.handover import MAX_RESERVE, NAME_BYTES, Claim, Moved, check_key, seal, unseal
from sealwire.dtls.header import RecordNumber, is_ciphertext
from sealwire.dtls.journal import Journal, Mark
from sealwire.dtls.upkeep import DEFAULT_UPKEEP, Upkeep
from sealwire.errors import Discard, Error
from sealwire.limits import DEFAULT_LIMITS, Account, Ledger, Limits
from sealwire.record.train import Train, rest_of
from sealwire.telemetry import EndpointCounters
from sealwire.tls13.contract import EPOCH_APPLICATION, Direction
from sealwire.wire import Buffer

# RFC 9147 section 5.8.2 [9147-5.8.2-1]
INITIAL_TIMEOUT_SECONDS: Final = 1.0
# Four times what is kept free of data.
_LEAST_RESERVE: Final = 1024
# After a crash: datagrams tried for where the peer's numbers are by now; forged ones cost the most.
_SOUGHT_DATAGRAMS: Final = 64


class Transferable(Association):
    """An association that can go on in another process."""

    __slots__ = ("_journal",)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        # What this process may send, where another one may go on from a checkpoint; None without any.
        self._journal: Journal | None = None
        super().__init__(*arguments, **named)

    @classmethod
    def from_state(
        cls,
        state: bytes,
        key: bytes,
        config: Config,
        *,
        claim: Claim,
        now: float,
        limits: Limits | None = None,
        ledger: Ledger | None = None,
        initial_timeout: float = INITIAL_TIMEOUT_SECONDS,
        upkeep: Upkeep = DEFAULT_UPKEEP,
    ) -> Self:
        """Go on with an association of another process; new keys both ways are the first thing it asks for.

        Args:
            state: what :meth:`export_state` or :meth:`checkpoint` gave there.
            key: the key it was sealed under, 32 bytes.
            config: of a Context like the one there; nothing the handshake decided is judged again.
            claim: called with the association's name and generation; True if this process, and no other,
                takes it to the next generation.  A compare-and-swap in a place all processes share.

        Raises:
            ConfigurationError: `state` is none, was changed, or is under another key.
            Error: this generation was imported before.
            LimitReached: the ledger has no room.
        """
        limits = limits or DEFAULT_LIMITS
        config = config.within(limits)
        # First, so that a state is not used up for nothing.
        account = open_account(ledger or Ledger(limits), limits)
        try:
            moved = unseal(state, key, config, claim)
            return cls.again(moved, config, now, limits, account, initial_timeout, upkeep)
        except BaseException:
            account.close()
            raise

    @classmethod
    def again(
        cls,
        moved: Moved,
        config: Config,
        now: float,
        limits: Limits,
        account: Account,
        initial_timeout: float,
        upkeep: Upkeep,
        issue_cid: Callable[[int], bytes] | None = None,
        totals: EndpointCounters | None = None,
    ) -> Self:
        """The association of an unsealed state; the parameters are those of :meth:`from_state`."""
        connection = cls(
            config,
            moved.engine,
            now=now,
            limits=limits,
            mtu=moved.mtu,
            initial_timeout=initial_timeout,
            account=account,
            next_message_seq=moved.next_seq - len(moved.flight),
            next_peer_message_seq=moved.next_peer_seq,
            issue_cid=issue_cid,
            upkeep=upkeep,
            totals=totals,
        )
        connection._resume(moved, now)
        return connection

    def export_state(self, key: bytes, now: float) -> bytes:
        """Move the association: it is over here, without a word to the peer, and goes on elsewhere.

        What was queued either way goes with it.  Records older than the newest one that came, and still on
        their way, are lost there.

        Args:
            key: 32 bytes, known to whoever imports it; what is returned holds every secret there is.

        Raises:
            ValueError: the key has another length.
            Error: the association is not established or is being closed, or a handshake message under older
                keys is not acknowledged yet.
        """
        check_key(key)
        state = seal(self._freeze(now, 0), key, self.config.provider)
        self._finish(None)
        self._awake.last_words = None
        self._notify()
        return state

    def checkpoint(self, key: bytes, now: float, *, reserve: int = MAX_RESERVE) -> bytes:
        """The association as another process could go on with it if this one crashed.

        From now on only so many records as `reserve` says are sent, and none that rests on handshake messages
        since then; a CheckpointDue event says that the next checkpoint is wanted, and until it is made
        nothing is sent.  Make it durable before the next transmit().

        Args:
            key: as for :meth:`export_state`.
            reserve: numbers a process that imports this skips, 1,024 to 16,384.

        Raises:
            ValueError: key or reserve are out of bounds.
            Error: as for :meth:`export_state`.
        """
        check_key(key)
        if not _LEAST_RESERVE <= reserve <= MAX_RESERVE:
            raise ValueError(f"a reserve has {_LEAST_RESERVE} to {MAX_RESERVE} numbers, not {reserve}")
        moved = self._freeze(now, reserve)
        state = seal(moved, key, self.config.provider)
        assert self._journal is not None
        self._awake.sealing.reserve(moved.sending.sequence)
        self._journal.renew(self._mark())
        self._notify()
        return state

    @property
    def movable(self) -> bool:
        """Whether no handshake message is on its way that a state could not take along."""
        layer = self._awake.layer
        return layer.flight.epochs <= {self._awake.sealing.epoch} and layer.reassembly.empty

    def _freeze(self, now: float, skipped: int) -> Moved:
        """The association as another process could go on with it, `skipped` record numbers further on.

        Raises:
            Error: it is not established, is being closed, or has a handshake message on its way that
                needs older keys.
        """
        if (
            self.state is not State.CONNECTED
            or self._awake.write_closed
            or self._awake.peer_closed_at is not None
        ):
            raise Error(f"an association that is {self.state} cannot be handed over")
        if not self.movable:
            raise Error("a handshake message under older keys is on its way: ask again when it arrived")
        if self._journal is None:
            self._journal = Journal(self.config.provider.random(NAME_BYTES), 0)
        # Of two states the later one has the higher generation, so that an old one can be told from it.
        self._journal.generation += 1
        return self._moved(now, skipped, self._journal)

    def _moved(self, now: float, skipped: int, journal: Journal) -> Moved:
        layer = self._awake.layer
        engine = layer.engine
        remains, spec = engine.remains(), engine.session.suite
        return Moved(
            name=journal.name,
            generation=journal.generation,
            engine=engine,
            sending=self._awake.sealing.kept(spec, remains.send[1], skipped),
            receiving=self._awake.opening.kept(now),
            searched=skipped > 0 or self._awake.sought is not None,
            cids=layer.cids.freeze(),
            next_seq=layer.flight.next_seq,
            next_peer_seq=layer.reassembly.next_seq,
            flight=layer.flight.kept(),
            mtu=self.mtu,
            send_queue=self._awake.outgoing.waiting(),
            receive_queue=self._awake.receive_queue.held(),
        )

    def _resume(self, moved: Moved, now: float) -> None:
        """Go on where another process stopped."""
        self._journal = Journal(moved.name, moved.generation)
        layer = self._awake.layer
        layer.version_selected = True
        layer.thaw_cids(moved.cids)
        for message in moved.flight:
            layer.flight.add(*message)
        for keys in reversed(moved.receiving):
            self._awake.opening.install(
                keys.install(Direction.RECEIVE), highest=keys.sequence, used=keys.used
            )
            if keys.seconds is not None:
                self._awake.opening.expire_at(keys.epoch, now + keys.seconds)
        sending = moved.sending
        self._awake.sealing.install(
            sending.install(Direction.SEND),
            self._awake.layer.cids.current,
            sequence=sending.sequence,
            used=sending.used,
        )
        newest = moved.receiving[0]
        self._awake.incoming.newest = RecordNumber(newest.epoch, newest.sequence)
        self._awake.sought = (newest, _SOUGHT_DATAGRAMS) if moved.searched else None
        self._awake.keys_seen = self._awake.finished_answered = True
        self._connected(now)
        self._awake.rekeying.looked(now)
        if moved.send_queue:
            self._awake.outgoing.put(moved.send_queue)
        if moved.receive_queue and not self._awake.receive_queue.put(moved.receive_queue):
            self._awake.counters.discard(Discard.RECEIVE_QUEUE_FULL)
        # Whatever the other process sent or took, it ends with these keys.
        self._awake.layer.update_keys(now, request_peer=True)

    # --- what it changes for the one that goes on ------------------------------------------------

    def receive_run(self, datagrams: Sequence[Buffer | Train], now: float) -> bool:
        if self._awake.sought is not None:
            self._seek(datagrams)
        authentic = super().receive_run(datagrams, now)
        if self.held_back:
            for _ in self._awake.path_messages.take():
                # An answer would take a record number that no checkpoint knows of.
                self._awake.counters.discard(Discard.PATH_MESSAGE)
        return authentic

    def transmit_trains(self, now: float, most: int | None = None) -> list[bytes | Train]:
        return [] if self._held() else super().transmit_trains(now, most)

    def _finish(self, error: OSError | None) -> None:
        if self.held_back:
            # Not even an alert may use a number that no checkpoint knows of.
            self._awake.last_words = None
        super()._finish(error)

    @property
    def held_back(self) -> bool:
        """Whether nothing is sent until the owner makes a checkpoint."""
        if (
            self._journal is None
            or self._awake.sealing.epoch < EPOCH_APPLICATION
            or self.state is State.CLOSED
        ):
            return False
        return self._journal.holds(self._mark(), self._awake.sealing.reserve_left)

    def _mark(self) -> Mark:
        """What a checkpoint must have of this connection before anything that rests on it is sent."""
        layer, cids = self._awake.layer, self._awake.layer.cids
        numbers = layer.flight.next_seq, layer.reassembly.next_seq
        return self._awake.sealing.epoch, self._awake.opening.epoch, numbers, cids.current, cids.ours

    def _held(self) -> bool:
        journal = self._journal
        if journal is None or not self.held_back:
            return False
        if not journal.announced:
            journal.announced = True
            self._awake.events += (CheckpointDue(),)
        return True

    def _seek(self, datagrams: Sequence[Buffer | Train]) -> None:
        """After a crash: find out where the peer's numbers are by now."""
        for datagram in rest_of(datagrams, 0, 0):
            if self._awake.sought is None:
                return
            keys, tries = self._awake.sought
            if datagram and is_ciphertext(datagram[0]) and datagram[0] & 3 == keys.epoch & 3:
                over = tries == 0 or self._awake.opening.seek(keys, datagram)
                self._awake.sought = None if over else (keys, tries - 1)
