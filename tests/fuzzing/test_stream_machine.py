"""Two ends of a stream that live through anything: hypothesis chooses what happens, laws say what must hold.

The network of a stream cuts bytes anywhere and delays them; an attacker may change or cut off what is under
way, which ends the connection and nothing else.  At every step: no nonce twice with one key, what is
read is the beginning of what was written, early data is read once at most.  At the end both are
closed and nobody holds a byte.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sealwire import stcp
from sealwire.crypto.ticketkeys import TicketKeys
from sealwire.errors import Error, LimitReached
from sealwire.limits import Ledger, Limits
from sealwire.tls13.tickets import SessionTicket
from tests import configs
from tests.unit.dtls.test_nonces import WatchedProvider
from tests.unit.tls13.early import SIZE, register

SIDES = st.sampled_from(["client", "server"])


class StreamMachine(RuleBasedStateMachine):
    """One connection at a time, and tickets that outlive it."""

    def __init__(self) -> None:
        super().__init__()
        self.provider = WatchedProvider()
        self.now = 0.0
        wall = 1_800_000_000.0
        self.server_config = replace(
            configs.server_context().config(),
            provider=self.provider,
            num_tickets=2,
            ticket_keys=TicketKeys(),
            clock=lambda: wall + self.now,
            max_early_data_size=SIZE,
            strikes=register(),
        )
        self.client_config = replace(
            configs.client_context().config(),
            provider=self.provider,
            num_tickets=2,
            clock=lambda: wall + self.now,
        )
        self.limits = Limits(rekey_seconds=40.0, send_queue_bytes=64 * 1024, receive_queue_bytes=64 * 1024)
        self.ledger = Ledger(self.limits.total_bytes)
        self.tickets: list[SessionTicket] = []
        self.early_heard: Counter[bytes] = Counter()
        self.numbered = 0

    @initialize()
    def begin(self) -> None:
        self.connect(None)

    def connect(self, ticket: SessionTicket | None) -> None:
        self.ends = {
            "client": stcp.Connection.client(
                self.client_config,
                now=self.now,
                server_name="localhost",
                limits=self.limits,
                ledger=self.ledger,
                ticket=ticket,
                early_data=ticket is not None,
            ),
            "server": stcp.Connection.server(
                self.server_config, now=self.now, limits=self.limits, ledger=self.ledger
            ),
        }
        self.under_way = {"client": bytearray(), "server": bytearray()}
        self.written = {"client": b"", "server": b""}
        self.read = {"client": b"", "server": b""}
        self.early_written = self.early_read = b""
        self.cut: set[str] = set()
        self.tampered = False

    def other(self, side: str) -> str:
        return "server" if side == "client" else "client"

    def collect(self) -> None:
        for side, end in self.ends.items():
            self.under_way[side] += end.data_to_send()
            for event in end.events():
                if isinstance(event, stcp.TicketReceived):
                    self.tickets.append(event.ticket)

    # --- what the applications do ----------------------------------------------------------

    @rule(side=SIDES, size=st.sampled_from([1, 10, 100, 20_000]))
    def write(self, side: str, size: int) -> None:
        self.numbered += 1
        data = (b"%d " % self.numbered * size)[:size]
        try:
            self.ends[side].send(data)
        except (Error, LimitReached, TimeoutError):
            return
        self.written[side] += data

    @rule(side=SIDES, n=st.sampled_from([-1, 1, 50]))
    def take(self, side: str, n: int) -> None:
        end = self.ends[side]
        if end.buffered:
            self.read[side] += end.read(n)
        if side == "server" and end.early_buffered:
            self.early_read += end.read_early(n)

    @rule(side=SIDES, request=st.booleans())
    def update_keys(self, side: str, request: bool) -> None:
        if self.ends[side].state == "connected":
            try:
                self.ends[side].update_keys(request_peer=request)
            except (Error, LimitReached):
                assert self.ends[side].state != "handshaking"

    @rule(side=SIDES)
    def close(self, side: str) -> None:
        self.ends[side].close()

    @precondition(lambda self: self.tickets)
    @rule(size=st.integers(0, 300))
    def come_back(self, size: int) -> None:
        """This connection is given up; the next one begins with a ticket, and early data."""
        self.part()
        self.connect(self.tickets.pop())
        client = self.ends["client"]
        self.numbered += 1
        # Its number stands in front, so no two are alike.
        data = (b"%d " % self.numbered).ljust(size, b".")
        if size and len(data) <= client.max_replayable_bytes:
            client.send_replayable(data)
            self.early_written = data

    # --- what the network does -------------------------------------------------------------

    @rule(side=SIDES, n=st.sampled_from([1, 5, 100, 1_000, 1 << 20]))
    def deliver(self, side: str, n: int) -> None:
        self.collect()
        receiver = self.ends[self.other(side)]
        data = bytes(self.under_way[side][:n])
        del self.under_way[side][:n]
        if data and side not in self.cut and receiver.error is None:
            receiver.receive_data(data)

    @rule()
    def deliver_all(self) -> None:
        for _ in range(20):
            for side in ("client", "server"):
                self.deliver(side, 1 << 20)
                self.take(side, -1)

    @rule(side=SIDES, at=st.integers(0, 1 << 20), bit=st.integers(0, 7))
    def tamper(self, side: str, at: int, bit: int) -> None:
        self.collect()
        data = self.under_way[side]
        if data:
            data[at % len(data)] ^= 1 << bit
            self.tampered = True

    @rule(side=SIDES)
    def cut_off(self, side: str) -> None:
        """The sender's direction ends here and now, whatever is under way."""
        if side not in self.cut:
            self.cut.add(side)
            self.under_way[side].clear()
            self.ends[self.other(side)].receive_eof()

    @rule(seconds=st.sampled_from([0.1, 5.0, 50.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for end in self.ends.values():
            for _ in range(5):
                due = end.deadline()
                if due is None or due > self.now:
                    break
                end.wake(self.now)
            else:
                # A queue with no room puts new keys off; anything else must move on.
                assert due is not None

    # --- what must hold --------------------------------------------------------------------

    @invariant()
    def the_laws_hold(self) -> None:
        if not hasattr(self, "ends"):
            return
        self.collect()
        assert not self.provider.used or self.provider.used.most_common(1)[0][1] == 1, "a nonce twice"
        for side in ("client", "server"):
            assert self.written[self.other(side)].startswith(self.read[side]), "read what was not written"
            end = self.ends[side]
            assert end.error is None or isinstance(end.error, (Error, TimeoutError)), end.error
        assert self.early_written.startswith(self.early_read)
        assert 0 <= self.ledger.held <= self.ledger.limit

    def part(self) -> None:
        """End this connection; nobody may hold anything then."""
        if (
            not self.tampered
            and not self.cut
            and all(end.state in ("handshaking", "connected") for end in self.ends.values())
        ):
            # Nothing was in the way, so everything arrives.
            for _ in range(200):
                before = dict(self.read)
                self.deliver_all()
                if before == self.read and not any(self.under_way.values()):
                    break
            if all(end.error is None for end in self.ends.values()):
                assert self.ends["client"].state == self.ends["server"].state == "connected"
                assert self.read["server"] == self.written["client"]
                assert self.read["client"] == self.written["server"]
        number, found, _ = self.early_read.partition(b" ")
        if found:
            self.early_heard[number] += 1
        assert all(count == 1 for count in self.early_heard.values()), "early data twice"
        self.the_laws_hold()
        for end in self.ends.values():
            end.close()
            end.receive_eof()
            end.release()
        assert self.ledger.held == 0

    def teardown(self) -> None:
        if hasattr(self, "ends"):
            self.part()


TestStreamMachine = StreamMachine.TestCase
TestStreamMachine.settings = settings(
    max_examples=max(settings().max_examples // 2, 1), stateful_step_count=40
)
