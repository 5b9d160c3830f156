"""A byte stream that misbehaves at every byte of a connection, in either direction, on virtual time.

One conversation, from hello to close_notify, is played again for every byte boundary and every mishap: the
stream stalls there, ends, is reset, is split, loses a byte, gets one more or another one.  Whatever happens,
each side ends with all the data or with a typed error, in a time it can name; it has never been given
anything that was not sent, and never takes a cut stream for a whole one; and nothing stays charged.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sealwire import stcp
from sealwire.context import Config
from sealwire.errors import Error, Truncated
from sealwire.limits import Ledger, Limits
from tests import configs, psks

LIMITS = Limits(handshake_seconds=20)
KEEPALIVE = stcp.Keepalive(after=30, within=10)
REQUESTS = (b"first", b"", b"x" * 40, b"the last")
# More often nobody has a reason to look at the clock: the keys of an idle connection are replaced once.
MOST_WAKES = 16

TO_SERVER, TO_CLIENT = 0, 1
# What the mishap may leave whole, what it must not.
HARMLESS = ("split",)
SILENT = ("stall",)
ENDING = ("cut", "reset")
TAMPERING = ("inject", "flip", "lose")


class Conversation:
    """A client asks, a server answers with the same, and both close; `mishap` happens at `offset`."""

    def __init__(
        self,
        client: Config,
        server: Config,
        messages: bool,
        direction: int = 0,
        offset: int = -1,
        mishap: str = "",
    ) -> None:
        self.now = 0.0
        self.messages = messages
        self.ledger = Ledger(LIMITS)
        keepalive = KEEPALIVE if messages else None
        self.client = stcp.Connection.client(
            client,
            now=0.0,
            server_name="localhost",
            limits=LIMITS,
            ledger=self.ledger,
            messages=messages,
            keepalive=keepalive,
        )
        self.server = stcp.Connection.server(
            server, now=0.0, limits=LIMITS, ledger=self.ledger, messages=messages, keepalive=keepalive
        )
        self.ends = (self.client, self.server)
        self.carried = [0, 0]
        self.lost = [False, False]
        self.fault = (direction, offset, mishap)
        self.asked = 0
        self.answers: list[bytes] = []  # what the client got
        self.questions: list[bytes] = []  # what the server got
        self.wakes = 0

    def play(self) -> None:
        """Until nothing moves and no clock has anything to say."""
        while True:
            while self.step():
                pass
            due = [at for end in self.ends if (at := end.deadline()) is not None]
            if not due or self.wakes == MOST_WAKES:
                return
            self.wakes += 1
            self.now = max(self.now, min(due))
            for end in self.ends:
                end.wake(self.now)

    def step(self) -> bool:
        self.ask()
        moved = self.carry(TO_SERVER)
        self.answer()
        return self.carry(TO_CLIENT) or moved

    # -- the two programs

    def ask(self) -> None:
        client = self.client
        if client.state == "closed":
            self.take(client, self.answers)
            return
        if client.state == "handshaking":
            return
        self.take(client, self.answers)
        if client.error is not None or client.state != "connected":
            return
        if self.got_all(self.answers, self.asked):
            if self.asked == len(REQUESTS):
                client.close()
                return
            if self.asked == 1:
                client.update_keys(request_peer=True)
            self.put(client, REQUESTS[self.asked])
            self.asked += 1
            if self.messages and self.asked == 2:
                client.ping(self.now)
                client.go_away()

    def answer(self) -> None:
        server = self.server
        if server.state == "handshaking":
            return
        before = len(self.questions)
        self.take(server, self.questions)
        if server.error is None and server.state == "connected":
            for question in self.questions[before:]:
                self.put(server, question)
            if server.peer_closed:
                server.close()

    def put(self, end: stcp.Connection, data: bytes) -> None:
        if self.messages:
            end.write_message(data)
        else:
            end.send(data)

    def take(self, end: stcp.Connection, into: list[bytes]) -> None:
        if end.error is not None and not end.buffered and not end.messages_ready:
            with pytest.raises((Error, TimeoutError)) as caught:
                end.read_messages() if self.messages and end.message_mode else end.read()
            assert caught.value is end.error
        elif self.messages:
            into += end.read_messages()
        elif data := end.read():
            into.append(data)

    def got_all(self, came: list[bytes], of: int) -> bool:
        return self.shape(came) == self.shape(list(REQUESTS[:of]))

    def shape(self, data: list[bytes]) -> list[bytes]:
        return data if self.messages else [b"".join(data)]

    # -- the network

    def carry(self, direction: int) -> bool:
        sender, receiver = self.ends if direction == TO_SERVER else self.ends[::-1]
        data = sender.data_to_send()
        if not data or self.lost[direction]:
            return bool(data)
        at = self.fault[1] - self.carried[direction]
        self.carried[direction] += len(data)
        if self.fault[0] != direction or not 0 <= at < len(data):
            self.deliver(receiver, data)
            return True
        mishap = self.fault[2]
        self.deliver(receiver, data[:at])
        if mishap == "split":
            self.deliver(receiver, data[at:])
        elif mishap == "inject":
            self.deliver(receiver, b"\x17" + data[at:])
        elif mishap == "flip":
            self.deliver(receiver, bytes((data[at] ^ 1,)) + data[at + 1 :])
        elif mishap == "lose":
            self.deliver(receiver, data[at + 1 :])
        else:
            self.lost[direction] = True
            if mishap == "cut":
                receiver.receive_eof()
            elif mishap == "reset":
                self.lost = [True, True]
                for end in self.ends:
                    end.abort(Truncated("the peer's byte stream broke"))
        return True

    def deliver(self, receiver: stcp.Connection, data: bytes) -> None:
        if receiver.error is None:
            receiver.receive_data(data, self.now)

    # -- what must hold

    def check(self) -> None:
        mishap = self.fault[2]
        whole = list(REQUESTS)
        for end, came in ((self.client, self.answers), (self.server, self.questions)):
            assert end.error is None or isinstance(end.error, (Error, TimeoutError))
            # Nothing that was not sent, and nothing out of order.
            if self.messages:
                assert came == whole[: len(came)]
            else:
                assert b"".join(whole).startswith(b"".join(came))
            if end.error is None and end.peer_closed:
                # An end that was believed is the end.
                asked = whole if end is self.server else whole[: self.asked]
                assert self.shape(came) == self.shape(asked)
            if end.state == "handshaking":
                raise AssertionError("a handshake has no end")
            if self.messages and self.wakes:
                assert end.state == "closed", "whoever hears nothing gives up"
        if mishap in ("", *HARMLESS):
            assert self.client.state == self.server.state == "closed"
            assert self.client.error is self.server.error is None
        for end in self.ends:
            end.close()  # never raises, whatever happened
            end.release()
        assert self.ledger.held == 0


def contexts(kind: str) -> tuple[Config, Config]:
    if kind == "psk":
        # The group of short shares: a third of the bytes, and so of the mishaps.
        groups = ("X25519",)
        client = psks.client_context(psks.DEVICE, groups=groups)
        return client.config(), psks.server_context(psks.DEVICE, groups=groups).config()
    return configs.client_context().config(), configs.server_context().config()


def conversations(kind: str, messages: bool, mishap: str) -> Iterator[Conversation]:
    client, server = contexts(kind)
    recorded = Conversation(client, server, messages)
    recorded.play()
    recorded.check()
    assert recorded.got_all(recorded.answers, len(REQUESTS))
    assert min(recorded.carried) > 300
    for direction in (TO_SERVER, TO_CLIENT):
        for offset in range(recorded.carried[direction] + 1):
            yield Conversation(client, server, messages, direction, offset, mishap)


MODES = pytest.mark.parametrize("messages", [False, True], ids=["bytes", "messages"])


@MODES
@pytest.mark.parametrize("mishap", [*HARMLESS, *SILENT, *ENDING])
def test_every_boundary_with_a_key(mishap: str, messages: bool) -> None:
    for conversation in conversations("psk", messages, mishap):
        conversation.play()
        conversation.check()


@MODES
@pytest.mark.parametrize("mishap", TAMPERING)
def test_every_byte_tampered_with(mishap: str, messages: bool) -> None:
    for conversation in conversations("psk", messages, mishap):
        conversation.play()
        conversation.check()


@pytest.mark.long
@MODES
@pytest.mark.parametrize("mishap", [*HARMLESS, *SILENT, *ENDING, *TAMPERING])
def test_every_boundary_with_certificates(mishap: str, messages: bool) -> None:
    for conversation in conversations("certificates", messages, mishap):
        conversation.play()
        conversation.check()
