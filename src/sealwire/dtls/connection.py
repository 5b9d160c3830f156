"""One DTLS 1.3 connection without sockets, clocks or threads (RFC 9147).

    connection = Connection.client(config, now=t, server_name="host")
    for datagram in connection.transmit(t): ...     # what to send now
    connection.receive(datagram, t)                 # what came
    connection.wake(t)                              # when deadline() is reached

The law: after every receive, wake, send or close, take transmit(), events() and messages(), and ask
deadline() again.  Time is any clock that never goes back, in seconds.  Received bytes never raise:
they become messages, a counted Discard, or end the connection with an alert and a Closed event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sealwire.context import Config
from sealwire.crypto.srtp import EXPORTER_LABEL, SrtpKeys
from sealwire.dtls.alerts import FATAL, WARNING
from sealwire.dtls.charges import open_account
from sealwire.dtls.cid import CidPool, Usage
from sealwire.dtls.events import Event, State
from sealwire.dtls.header import RecordNumber
from sealwire.dtls.hibernation import Hibernating
from sealwire.dtls.transfer import INITIAL_TIMEOUT_SECONDS
from sealwire.dtls.upkeep import DEFAULT_UPKEEP, Upkeep
from sealwire.errors import (
    Alert,
    ConnectionClosed,
    Error,
    LimitReached,
    ProtocolError,
)
from sealwire.limits import DEFAULT_LIMITS, Ledger, Limits, Purpose
from sealwire.telemetry import KeyUsage
from sealwire.tls13.contract import EarlyData, EarlyPhase, Session
from sealwire.tls13.handshake import DTLS, Handshake
from sealwire.tls13.messages import ClientHello
from sealwire.tls13.tickets import SessionTicket
from sealwire.wire import Buffer

# Leaves room for IPv6 and UDP headers on every path that carries IPv6 (1280 bytes), as QUIC does.
DEFAULT_MTU_BYTES: Final = 1200
# RFC 9147 section 4.4 [9147-4.4-5]: 576 and 1280 bytes, less IP and UDP headers.
_LEAST_MTU_IPV4_BYTES: Final = 548
_LEAST_MTU_IPV6_BYTES: Final = 1232


class Connection(Hibernating):
    """One association with one peer.  Not thread-safe; see the module's law."""

    __slots__ = ()

    @classmethod
    def client(
        cls,
        config: Config,
        *,
        now: float,
        server_name: str | None = None,
        limits: Limits | None = None,
        mtu: int = DEFAULT_MTU_BYTES,
        initial_timeout: float = INITIAL_TIMEOUT_SECONDS,
        ledger: Ledger | None = None,
        connection_id: bytes = b"",
        ticket: SessionTicket | None = None,
        upkeep: Upkeep = DEFAULT_UPKEEP,
        early_data: bool = False,
    ) -> Connection:
        """A client; its ClientHello is in the first transmit().

        Args:
            now: the time, in seconds.
            server_name: name or address the server's certificate must be for.
            mtu: largest UDP payload to send, in bytes.
            initial_timeout: seconds until the first retransmission.
            ledger: account to charge; one of its own by default.
            connection_id: the id wanted on records to this client (RFC 9146), b"" for none.
            ticket: of an earlier connection to this server, to resume by; use each once.
            upkeep: what the connection sees to by itself.
            early_data: offer early data, if the ticket allows some; see :meth:`send_replayable`.

        Raises:
            ConfigurationError: no usable server name while names are checked.
            LimitReached: the ledger has no room.
        """
        limits = limits or DEFAULT_LIMITS
        config = config.within(limits)
        # RFC 9147 section 5.1 [9147-5.1-13]: an empty id says that we need none and take the server's.
        handshake = Handshake.client(
            config,
            DTLS,
            server_name=server_name,
            connection_id=connection_id,
            ticket=ticket,
            early_data=early_data,
        )
        return cls(
            config,
            handshake,
            now=now,
            limits=limits,
            mtu=mtu,
            initial_timeout=initial_timeout,
            # Last, so that nothing is charged for what could not be made.
            account=open_account(ledger or Ledger(limits), limits),
            offered_cid_bytes=len(connection_id),
            upkeep=upkeep,
        )

    @classmethod
    def server(
        cls,
        config: Config,
        *,
        now: float,
        limits: Limits | None = None,
        mtu: int = DEFAULT_MTU_BYTES,
        initial_timeout: float = INITIAL_TIMEOUT_SECONDS,
        ledger: Ledger | None = None,
        address_proved: bool = True,
        connection_id: bytes | None = None,
        upkeep: Upkeep = DEFAULT_UPKEEP,
    ) -> Connection:
        """A server for a single peer, without the cookie exchange of an Endpoint.

        Only for peers whose address cannot be forged (RFC 9147 section 5.1 [9147-5.1-7]: ICE, a
        test); else say so by `address_proved`, and at most three times the bytes received are sent
        until the peer proves it.  `connection_id` is as for :meth:`client`; None not to negotiate ids.
        """
        limits = limits or DEFAULT_LIMITS
        config = config.within(limits)
        return cls(
            config,
            # One peer, whose address cannot be forged or is held to three times what it sends.
            Handshake.server(config, DTLS, connection_id=connection_id, early=EarlyPhase(wanted=True)),
            now=now,
            limits=limits,
            mtu=mtu,
            initial_timeout=initial_timeout,
            account=open_account(ledger or Ledger(limits), limits),
            address_proved=address_proved,
            upkeep=upkeep,
        )

    def begin(self, message: bytes, hello: ClientHello | None, received_bytes: int, now: float) -> None:
        """Server: take the whole ClientHello (TLS form) that an Endpoint's gate decoded and let through."""
        self._earn(received_bytes)
        try:
            self._awake.layer.hello(message, hello, now)
        except ProtocolError as error:
            self._fail(error)

    def hello_repeated(self, received_bytes: int, now: float) -> None:
        """Server: the peer's ClientHello came again, so our answer to it did not arrive."""
        # Whoever is established, and may sleep, owes no answer to it.
        if self.state is State.HANDSHAKING:
            self._earn(received_bytes)
            self._awake.layer.prompt(now)

    @property
    def session(self) -> Session:
        """The facts of the finished handshake; Error before it is."""
        return self._awake.layer.engine.session

    @property
    def cids(self) -> CidPool:
        """The connection ids in use now; see :class:`CidPool`."""
        return self._awake.layer.cids

    @property
    def max_message_bytes(self) -> int:
        """The longest message send() takes, in bytes; 0 without keys [9147-4.4-4]."""
        return self._awake.outgoing.max_message_bytes

    @property
    def newest(self) -> RecordNumber:
        """The highest record number of the peer that authenticated."""
        return self._awake.incoming.newest if self._asleep is None else self._asleep.newest

    @property
    def send_queue_bytes(self) -> int:
        """Bytes given to send() that transmit() has not given out."""
        return 0 if self.asleep else self._awake.outgoing.bytes_held

    @property
    def held_bytes(self) -> int:
        """Bytes charged for this connection now."""
        return self._account.held

    def send(self, data: Buffer) -> None:
        """Queue one message; see :meth:`send_many`."""
        self.send_many((data,))

    def send_many(self, messages: Sequence[Buffer]) -> None:
        """Queue messages, each to travel whole in a datagram of its own.

        Before the handshake is done they wait for it.  All are queued or none.

        Raises:
            ValueError: a message is longer than :attr:`max_message_bytes`.
            LimitReached: the send queue is full (send_queue_bytes).
            ConnectionClosed or the error that ended the connection.
        """
        if self.state in (State.CLOSING, State.CLOSED) or self.write_closed:
            raise self.error or ConnectionClosed("this side of the connection is closed")
        self.rise()
        self._awake.outgoing.put(messages)
        self._notify()

    def send_replayable(self, *messages: Buffer) -> None:
        """Client: send messages as early data, before the server has said anything (0-RTT).

        Somebody who records them can send them again, now or to other servers, and the server may act on
        them each time: send only what does no harm when it is done twice.  They are lost if the server
        does not accept them, and never sent again by themselves [8446-0RTT-4]; :attr:`early_data` says so
        once the handshake is complete.

        Raises:
            ValueError: they are longer than :attr:`max_replayable_bytes`, or than what is left together.
            LimitReached: the send queue is full.
            Error: early data is not offered (see :meth:`client`), or the server has answered already.
        """
        self._awake.early.send(messages)
        self._notify()

    @property
    def max_replayable_bytes(self) -> int:
        """The longest message :meth:`send_replayable` takes now, in bytes; 0 if it takes none."""
        return self._awake.early.room

    @property
    def early_data(self) -> EarlyData:
        """Whether early data was offered and, after the handshake, accepted."""
        return self._awake.layer.engine.early.outcome

    def early_messages(self) -> list[bytes]:
        """Server: early data that came since the last call, apart from :meth:`messages`.

        It is from somebody who held the ticket, at some time; until the handshake is complete it may be a
        copy.  This process accepts a flight once.
        """
        return [] if self.asleep else self._awake.early.messages()

    def send_before_finished(self, *messages: Buffer) -> None:
        """Server: send messages to a client that has not finished the handshake (0.5-RTT).

        Nobody has proved to be there now: the client may be a copy of its own hello, and one that shows a
        certificate has not shown it yet.  While its address is shown by a ticket alone, three times the
        bytes it sent are not exceeded; what is above that waits.

        Raises:
            Error: there is no client's hello yet, or its address is not shown.
            ValueError, LimitReached: as for :meth:`send_many`.
        """
        if self.state is not State.HANDSHAKING:
            self.send_many(messages)
            return
        if not self._awake.early.may_send_unfinished or not (
            self._awake.budget is None or self._awake.address_shown
        ):
            raise Error("nothing can be sent before the client's Finished: its address is not shown")
        self._awake.early.send_unfinished(messages)
        self._notify()

    def messages(self) -> list[bytes]:
        """Messages that came since the last call, in order of arrival."""
        return [] if self.asleep else self._awake.receive_queue.take()

    def lend_messages(self) -> list[bytes]:
        """As :meth:`messages`, for an owner that keeps them: they stay charged until the next call."""
        return [] if self.asleep else self._awake.receive_queue.lend()

    def events(self) -> list[Event]:
        """What happened since the last call."""
        if self.asleep:
            return []
        events, self._awake.events = list(self._awake.events), ()
        if self._awake.ticket_bytes:
            self._account.release(Purpose.TICKETS, self._awake.ticket_bytes)
            self._awake.ticket_bytes = 0
        return events

    def update_keys(self, now: float, *, request_peer: bool = False) -> None:
        """Move to new sending keys once the peer acknowledged it (RFC 9147 section 8).

        Meanwhile data goes on under the old ones; :attr:`next_sending_epoch` says what to wait for.

        Raises:
            Error: the handshake is not complete, or the connection is closed.
            KeysExhausted: epochs or message numbers are nearly used up.
        """
        self._do(lambda: self._awake.layer.update_keys(now, request_peer=request_peer))

    @property
    def sending_epoch(self) -> int:
        """The epoch of what is sent now; one more with each KeyUpdate of ours that is acknowledged."""
        return self._awake.sealing.epoch

    @property
    def next_sending_epoch(self) -> int:
        """The sending epoch once every update asked for so far is done."""
        return self._awake.sealing.epoch + self._awake.layer.engine.pending_key_updates

    @property
    def key_usage(self) -> KeyUsage:
        """What the keys in use have done, and what they may; Error before the handshake is complete."""
        if not self.was_connected:
            raise Error("the handshake is not complete")
        if self.state is State.CLOSED:
            raise self.error or ConnectionClosed("the connection is closed")
        return self._awake.rekeying.usage()

    def _do(self, action: Callable[[], None]) -> None:
        if self.state in (State.CLOSING, State.CLOSED) or self._awake.write_closed:
            raise self.error or ConnectionClosed("this side of the connection is closed")
        try:
            action()
        except ProtocolError as error:
            # Message numbers or memory have run out with the change half made, which is the end.
            self._fail(error)
            raise
        finally:
            self._notify()

    def offer_connection_ids(self, count: int, *, immediate: bool = False) -> None:
        """Send NewConnectionId with up to `count` further ids for the peer's records (RFC 9147 section 9).

        Raises:
            Error: none may be sent now: see :meth:`CidPool.offer`; or the connection is closed.
        """
        usage = Usage.IMMEDIATE if immediate else Usage.SPARE
        self._do(lambda: self._awake.layer.offer_cids(count, usage))

    def request_connection_ids(self, count: int) -> None:
        """Ask the peer for up to `count` spare ids; Error if that is not possible now."""
        self._do(lambda: self._awake.layer.request_cids(count))

    def rotate_connection_id(self) -> bool:
        """Go on under a spare id of the peer's; whether there was one.

        Without one the records keep the id they have: better a connection that can be followed than none.
        A peer that never gave any, or stopped giving them, can be asked by :meth:`request_connection_ids`.
        """
        rotated = self._awake.layer.rotate_cid()
        self._notify()
        return rotated

    def path_changed(self, now: float | None = None) -> None:
        """This side or the peer has a new address: go on under a fresh id, if there is one [9147-11-9].

        With `now` what the path carries is looked for anew.
        """
        if now is not None:
            self._awake.care.path_changed(now)
            self._follow_path()
        self.rotate_connection_id()

    def export(self, label: bytes, context: bytes, n: int) -> bytes:
        """Exported keying material of `n` bytes (RFC 8446 section 7.5); Error before completion."""
        return self._awake.layer.engine.export(label, context, n)

    def path_carries(self, size: int, now: float, *, ipv6: bool = False) -> None:
        """The path refused a datagram (EMSGSIZE, ICMP): it carries at most `size` bytes of UDP payload.

        RFC 9147 section 4.4 [9147-4.4-1, 9147-4.4-5]: :attr:`mtu` and :attr:`max_message_bytes` shrink to it
        for good, and a flight on its way is cut anew and sent at once.  What is below the least that every
        path carries is a mistake or a lie, and ignored; so is what says nothing new.
        """
        least = _LEAST_MTU_IPV6_BYTES if ipv6 else _LEAST_MTU_IPV4_BYTES
        if self.state is State.CLOSED or self.asleep:
            # Who sleeps has sent nothing for long, so it is late for hints, and they can be forged.
            return
        if self._awake.care.refused(size + 1, now):
            # A search takes it for a hint, and has its own way back.
            self._follow_path()
        elif least <= size < self.mtu:
            self.mtu = self._awake.outgoing.mtu = size
            self._awake.layer.path_carries(size, now)
        else:
            return
        self._notify()

    @property
    def max_probe_bytes(self) -> int:
        """The longest message :meth:`send_probe` takes; 0 where no larger datagrams are looked for."""
        more = self._awake.care.most_mtu - self.mtu
        return self.max_message_bytes + more if more > 0 else 0

    def send_probe(self, data: Buffer) -> None:
        """Send a message that may be longer than :attr:`max_message_bytes`, up to :attr:`max_probe_bytes`.

        For applications whose own protocol says what arrived (RFC 9147 section 4.4 [9147-4.4-9]): then they
        call :meth:`confirm_message_bytes`.  Where the peer knows RFC 9853 the connection asks by itself.

        Raises:
            ValueError: it is longer than that.
            LimitReached, ConnectionClosed: as :meth:`send`.
        """
        if len(data) > max(self.max_probe_bytes, self.max_message_bytes):
            raise ValueError(f"a probe of {len(data)} bytes is above {self.max_probe_bytes}")
        if self.state is not State.CONNECTED or self._awake.write_closed:
            raise self.error or ConnectionClosed("this side of the connection is closed")
        self._awake.outgoing.put_probe(data)
        self._notify()

    def confirm_message_bytes(self, n: int, now: float) -> None:
        """The application knows a message of `n` bytes has arrived; :attr:`max_message_bytes` grows to it."""
        self._awake.care.confirmed(n + self.mtu - self.max_message_bytes, now)
        self._follow_path()
        self._notify()

    def deny_message_bytes(self, n: int, now: float) -> None:
        """Messages of `n` bytes get lost, the application believes: never below what `mtu` said at first."""
        self._awake.care.refused(n + self.mtu - self.max_message_bytes, now)
        self._follow_path()
        self._notify()

    def srtp_keys(self) -> SrtpKeys:
        """Master keys and salts for SRTP (RFC 5764 section 4.2).

        Raises:
            Error: no profile was agreed on, or the handshake is not complete.
        """
        profile = self.session.srtp_profile
        if profile is None:
            raise Error("no SRTP profile was agreed on: call use_srtp on both contexts")
        material = self.export(EXPORTER_LABEL, b"", SrtpKeys.material_bytes(profile))
        return SrtpKeys.split(profile, material)

    def close_write(self, now: float) -> None:
        """Send what is queued and close_notify; go on receiving until the peer closes as well.

        During the handshake there is nothing to go on with, so it is :meth:`close`.  May be called again.
        RFC 9147 section 5.10: close_notify is not acknowledged, so a peer may never hear of it.
        """
        if self.state is State.CONNECTED:
            self._awake.write_closed = self._awake.layer.write_closed = True
            self._awake.care.end()
            self._notify()
        else:
            self.close(now)

    def close(self, now: float) -> None:
        """Send what is queued and close_notify, then be closed.  May be called again."""
        if self.state is State.HANDSHAKING:
            # [8446-ALERT-2]: user_canceled says why, and close_notify that this is all.
            self._queue_alert(WARNING, Alert.USER_CANCELED)
            self._queue_alert(WARNING, Alert.CLOSE_NOTIFY)
            self._finish(None)
        elif self.state is State.CONNECTED:
            self.state = State.CLOSING
        self._notify()

    def hurry(self, seconds: float, now: float) -> None:
        """Give a handshake that is not complete no more than so many seconds from its beginning."""
        if self._awake.handshake_deadline is not None:
            self._awake.handshake_deadline = max(
                min(self._awake.handshake_deadline, self._awake.began + seconds), now
            )

    def give_up(self, error: LimitReached) -> None:
        """There is no memory for this connection any more.

        An established peer is told (internal_error, RFC 8446 section 6.2); what came and was not read goes.
        """
        if self.state is State.CLOSED:
            return
        self.rise(forced=True)
        if self.was_connected:
            self._queue_alert(FATAL, Alert.INTERNAL_ERROR)
        self._finish(error)
        self._awake.receive_queue.take()
        self._awake.early.messages()
        self._notify()

    @property
    def placed(self) -> bool:
        """Whether what this connection holds counts for its peer's prefixes."""
        return bool(self._account.prefixes)

    def place(self, address: object) -> None:
        """The peer is at this address, which is proved: what it holds counts there."""
        self.address = address
        self._account.place(address)

    def abort(self, error: OSError | None = None) -> None:
        """Be closed at once, without a word to the peer."""
        if self.state is not State.CLOSED:
            self._finish(error)
            self._awake.last_words = None
            # An endpoint would not see it before the next timer, and an idle connection has none.
            self._notify()
