"""Sections 1 and 2 of the attacks: addresses that are not theirs, and state that is ours.

One test (or more) per row, named by it, on virtual time; each ends with the yardsticks of siege.py.
"""

from __future__ import annotations

import gc
import logging
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

from sealwire import dtls
from sealwire.attack import puppet
from sealwire.attack.hellos import FLOODS, hello_body, whole, with_cookie
from sealwire.attack.puppet import Puppet
from sealwire.context import CERT_OPTIONAL
from sealwire.dtls.header import ContentType, RecordNumber, encode_ack, fragment_header
from sealwire.dtls.routability import PathMessage
from sealwire.errors import Alert, Discard, ProtocolError
from sealwire.limits import Limits
from sealwire.tls13 import extensions as ext
from sealwire.tls13.contract import EPOCH_APPLICATION, EPOCH_HANDSHAKE
from sealwire.tls13.messages import HandshakeType
from tests import certificates, configs
from tests.adversary.siege import REGULAR, STEP_SECONDS, Attack, Siege, certified
from tests.network.world import Address


def flood(siege: Siege, name: str, a_step: int) -> Attack:
    """One of the programs' floods, from everywhere."""
    payload = FLOODS[name][0]()
    return lambda now: [(payload(siege.choose), siege.stranger()) for _ in range(a_step)]


# --- 1. addresses ---------------------------------------------------------------------------------


@pytest.mark.requirement("9147-5.1-1", "9147-11-1")
def test_amp_1_spoofed_hellos() -> None:
    siege = Siege("amp-1")
    held = siege.endpoint.ledger.held
    siege.run(1.0, flood(siege, "hellos", 20))
    payload = FLOODS["hellos"][0]()
    tracemalloc.start()
    # The second time, what remembers a fixed number of addresses is full: the plain gate has two of those.
    for _ in range(2):
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2_000):
            siege.endpoint.receive([(payload(siege.choose), siege.stranger())], siege.now)
            siege.endpoint.transmit(siege.now)
        # What the interpreter keeps for the next object of a size is nobody's: the plain gate makes some.
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000
    siege.run(4.0, flood(siege, "hellos", 20))
    assert siege.endpoint.connections == 1
    assert siege.endpoint.ledger.held == held
    # The answer is smaller than what asked for it.
    assert max(map(len, siege.answers())) < len(FLOODS["hellos"][0]()(siege.choose))
    siege.end()


@pytest.mark.requirement("9147-5.1-8")
def test_amp_2_and_3_an_answer_without_a_cookie_to_a_silent_victim() -> None:
    """With a long chain, no cookie, and timers that run until the handshake is given up."""
    identity = certificates.large_server(9_000)
    siege = Siege(
        "amp-2",
        server=configs.server_context(identity).config(),
        client=configs.client_context(identity.cafile).config(),
        require_cookie=False,
    )
    hellos = iter([(whole(hello_body()), (f"198.18.0.{n}", 53)) for n in range(20)])
    siege.run(2.0, lambda now: [one for one in [next(hellos, None)] if one])
    assert siege.endpoint.handshaking == 20
    siege.run(60.0 - 2.0)
    sent = sum(map(len, siege.answers()))
    assert sent > 20 * 2 * len(whole(hello_body()))
    siege.end()


@pytest.mark.requirement("9147-5.1-10", "9147-5.1-11")
@pytest.mark.parametrize("how", ["elsewhere", "other hello", "expired", "retired"])
def test_amp_4_cookies_of_others(how: str) -> None:
    siege = Siege("amp-4", limits=Limits(cookie_seconds=5.0))
    owner: Address = ("198.18.0.1", 4433)
    config = configs.client_context(groups=["X25519"]).config()
    client = dtls.Connection.client(config, now=siege.now, server_name="localhost")
    siege.endpoint.receive([(one, owner) for one in client.transmit(siege.now)], siege.now)
    ((request, _),) = siege.endpoint.transmit(siege.now)
    client.receive(request, siege.now)
    (second,) = client.transmit(siege.now)
    if how in ("expired", "retired"):
        siege.run(5.1 if how == "expired" else 30.0)
    if how == "other hello":
        changed = bytearray(second)
        changed[30] ^= 1  # in the random
        second = bytes(changed)
    refused = siege.endpoint.counters.cookies_refused
    made = siege.endpoint.counters.connections_opened
    siege.run(1.0, lambda now: [(second, siege.stranger() if how == "elsewhere" else owner)])
    if how == "other hello":
        # The cookie holds the hash of the first hello, so the handshake it opens can never be finished.
        assert siege.endpoint.handshaking == 1
    else:
        assert siege.endpoint.counters.cookies_refused - refused == 20
        assert siege.endpoint.counters.connections_opened == made
    siege.run(1.0)
    if how != "other hello":
        siege.end()
    else:
        siege.world.pair.run_for(100.0)
        assert siege.endpoint.connections == 1
        siege.server.rise()  # idle for so long, it sleeps
        assert siege.endpoint.ledger.held == siege.held


def test_amp_5_cookies_of_any_size() -> None:
    siege = Siege("amp-5", mtu=1200, link_mtu=65_535)
    body = hello_body()
    sizes = iter([1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 100, 255, 256, 1000, 4000, 30_000, 60_000] * 4)

    def attack(now: float) -> Iterator[tuple[bytes, Address]]:
        size = next(sizes, None)
        if size is not None:
            cookie = siege.choose.randbytes(size)
            yield whole(with_cookie(body, cookie), message_seq=1, sequence=1), siege.stranger()

    siege.run(4.0, attack)
    assert siege.endpoint.counters.cookies_accepted == 1
    assert siege.endpoint.connections == 1
    siege.end()


@pytest.mark.parametrize("name", ["garbage", "records"])
def test_amp_6_nothing_answers_garbage(name: str) -> None:
    siege = Siege(f"amp-6 {name}")
    siege.run(4.0, flood(siege, name, 40))
    assert siege.answers() == []
    siege.end()


def test_amp_6_alerts_to_strangers_are_few() -> None:
    """A hello that cannot be served is answered with an alert, by the hundred a second at most."""
    siege = Siege("amp-6 alerts")
    wrong = bytearray(whole(hello_body()))
    at = bytes(wrong).index(b"\x00\x2b")  # supported_versions
    wrong[at + 6] = 0x01
    siege.run(3.0, lambda now: [(bytes(wrong), siege.stranger()) for _ in range(40)])
    assert 100 <= len(siege.answers()) <= 100 * 5
    assert max(map(len, siege.answers())) < 20
    siege.end()


class Downloader(Puppet):
    """A client with an id, which lets a copy of its newest record go out from elsewhere."""


def test_amp_7_a_download_is_not_moved_to_a_victim() -> None:
    siege = Siege("amp-7")
    victim: Address = ("198.18.7.7", 53)
    bot = siege.bot(Downloader, connection_id=b"downloader")
    siege.run(1.0)

    def attack(now: float) -> list[tuple[bytes, Address]]:
        server = siege.served(bot)
        for _ in range(20):
            server.send(bytes(1000))
        return [(bot.record(ContentType.APPLICATION_DATA, b"more!"), victim)]

    siege.run(5.0, attack)
    assert siege.endpoint.counters.address_changes == 0
    # Challenges, and no byte of the download: the sum is in the yardsticks.
    assert sum(map(len, siege.answers())) < 20_000
    assert len(siege.world.pair.client_messages[siege.bots[0][1]]) > 1_000
    siege.end()


class Challenger(Puppet):
    """Asks whether we are there, again and again."""

    rate = 200.0

    def misbehave(self, now: float) -> list[bytes]:
        cookie = self.misdeeds.to_bytes(8)
        return [self.record(ContentType.RETURN_ROUTABILITY, bytes((PathMessage.CHALLENGE,)) + cookie)]


def test_amp_8_path_challenges() -> None:
    siege = Siege("amp-8")
    bot = siege.bot(Challenger, connection_id=b"challenger")
    siege.run(0.5)
    answered = siege.served(bot).counters.records_sealed
    asked = bot.misdeeds
    siege.run(4.0)
    # One answer each, and nothing is kept for later.
    assert siege.served(bot).counters.records_sealed - answered <= bot.misdeeds - asked + 20
    assert siege.endpoint.ledger.held < siege.held + 40_000
    siege.end()


class Guesser(Puppet):
    """Answers challenges nobody sent it."""

    rate = 200.0

    def misbehave(self, now: float) -> list[bytes]:
        cookie = (self.misdeeds * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8)
        return [self.record(ContentType.RETURN_ROUTABILITY, bytes((PathMessage.RESPONSE,)) + cookie)]


def test_amp_9_guessed_and_stale_answers() -> None:
    siege = Siege("amp-9")
    bot = siege.bot(Guesser, connection_id=b"guesser")
    elsewhere: Address = ("198.18.9.9", 9)
    siege.run(1.0)
    siege.run(
        3.0,
        lambda now: [
            (
                bot.record(
                    ContentType.RETURN_ROUTABILITY, bytes((PathMessage.RESPONSE,)) + siege.choose.randbytes(8)
                ),
                elsewhere,
            )
        ],
    )
    assert siege.endpoint.counters.address_changes == 0
    assert siege.endpoint.counters.discards[Discard.PATH_MESSAGE] > 500
    siege.end()


# --- 2. state -------------------------------------------------------------------------------------


@pytest.mark.requirement("9147-11-4")
def test_dos_1_half_open_from_real_addresses() -> None:
    siege = Siege("dos-1", limits=Limits(handshakes=30, handshake_seconds=20.0))
    for _ in range(100):
        siege.bot(puppet.Silent)
    siege.run(2.0)
    assert siege.endpoint.handshaking <= 30
    # More bots come all the time, and an honest client gets in nevertheless.
    newcomer: Address = ("192.0.2.77", 7777)
    siege.world.connect(newcomer)
    end = siege.now + 40.0
    while not siege.world.is_connected(newcomer) and siege.now < end:
        siege.bot(puppet.Silent)
        siege.run(0.5)
        assert siege.endpoint.handshaking <= 30
    assert siege.world.is_connected(newcomer)
    siege.world.vanish(newcomer)
    siege.end()


@pytest.mark.parametrize("rate", [1 / 60, 1.0])
def test_dos_2_slow_handshakes(rate: float) -> None:
    siege = Siege("dos-2", limits=Limits(handshake_seconds=60.0, retransmissions=1000))
    for _ in range(20):
        siege.bot(puppet.Slow).rate = rate
    siege.run(5.0)
    assert siege.endpoint.handshaking == 20
    siege.world.pair.run_for(56.0)
    # Progress or not, the time is over.
    assert siege.endpoint.handshaking == 0
    siege.end()


class Announcer(Puppet):
    """Announces a giant in the handshake itself."""

    @property
    def ready(self) -> bool:
        return self.agreed and self.misdeeds == 0

    def says(self, datagrams: list[bytes]) -> list[bytes]:
        return [] if self.agreed else datagrams

    def misbehave(self, now: float) -> list[bytes]:
        most = (1 << 24) - 1
        return [self.fragment(HandshakeType.CERTIFICATE, most, -1, 0, bytes(1000), EPOCH_HANDSHAKE)]


@pytest.mark.parametrize("kind", [puppet.Giant, Announcer])
def test_dos_3_a_message_of_16_megabytes(kind: type[Puppet]) -> None:
    siege = Siege("dos-3")
    for _ in range(10):
        siege.bot(kind)
    before = siege.endpoint.ledger.peak
    siege.run(3.0)
    # Ten handshakes and what they were sent, and nothing for what was announced.
    assert siege.endpoint.ledger.peak < before + 10 * 50_000
    assert siege.endpoint.connections == 1
    siege.end()


def test_dos_4_messages_far_ahead() -> None:
    siege = Siege("dos-4")
    bots = [siege.bot(puppet.FarAhead) for _ in range(3)]
    siege.run(5.0)
    for bot in bots:
        served = siege.served(bot)
        assert served.counters.discards[Discard.FUTURE_MESSAGE] > 100
        assert served.held_bytes < 20_000
    siege.end()


class Zeros(Puppet):
    """Sends fragments of no bytes of messages that have some."""

    rate = 200.0

    def misbehave(self, now: float) -> list[bytes]:
        return [self.fragment(HandshakeType.KEY_UPDATE, 30_000, 0, self.misdeeds, b"", EPOCH_APPLICATION)]


@pytest.mark.parametrize("kind", [puppet.Crumbler, Zeros])
def test_dos_5_crumbs(kind: type[Puppet]) -> None:
    siege = Siege("dos-5")
    bots = [siege.bot(kind) for _ in range(3)]
    for bot in bots:
        bot.rate = 200.0
    siege.run(5.0)
    for bot in bots:
        # So many ranges, and what they cost, and no more.
        assert siege.served(bot).held_bytes < 20_000 + 256 * 200
    siege.end()


def test_dos_6_records_of_epochs_to_come() -> None:
    """Kept for a moment, a few of them, because they may have overtaken what makes their keys."""
    siege = Siege("dos-6", limits=Limits(handshake_seconds=10.0))
    bots = [siege.bot(puppet.Silent) for _ in range(5)]
    siege.run(0.5)
    half_open = siege.endpoint.ledger.held

    def attack(now: float) -> Iterator[tuple[bytes, Address]]:
        for bot, at in siege.bots:
            assert bot in bots
            for _ in range(20):
                yield b"\x2f\0\0" + (1000).to_bytes(2) + siege.choose.randbytes(1000), at

    siege.run(3.0, attack)
    assert siege.endpoint.ledger.held < half_open + 5 * 20_000
    siege.end()


class Certified(Puppet):
    """Answers a request for a certificate with whatever it likes."""

    kind = HandshakeType.CERTIFICATE
    body = b""

    @property
    def ready(self) -> bool:
        return self.agreed and self.misdeeds == 0

    def says(self, datagrams: list[bytes]) -> list[bytes]:
        return [] if self.agreed else datagrams

    def misbehave(self, now: float) -> list[bytes]:
        # The first message of its flight, which were two without a certificate: an empty list and Finished.
        size, first = 1000, -2
        return [
            self.fragment(
                self.kind, len(self.body), first, start, self.body[start : start + size], EPOCH_HANDSHAKE
            )
            for start in range(0, len(self.body), size)
        ]


def certificate_list(entries: int, size: int) -> bytes:
    """A Certificate message's body."""
    one = size.to_bytes(3) + bytes(size) + b"\0\0"
    return b"\0" + (entries * len(one)).to_bytes(3) + entries * one


@pytest.mark.parametrize(
    ("entries", "size", "alert"),
    [
        (1, 60_000, Alert.BAD_CERTIFICATE),
        (1000, 40, Alert.BAD_CERTIFICATE),
        (2, 40_000, Alert.ILLEGAL_PARAMETER),
    ],
)
def test_dos_7_certificates_too_large_and_too_many(entries: int, size: int, alert: Alert) -> None:
    siege = Siege("dos-7", server=certified())
    bot = siege.bot(Certified)
    assert isinstance(bot, Certified)
    bot.body = certificate_list(entries, size)
    siege.run(2.0)
    (error,) = siege.errors()
    assert isinstance(error, ProtocolError)
    assert error.alert is alert
    siege.end()


def test_dos_8_a_compressed_certificate_that_unpacks_for_ever() -> None:
    context = configs.server_context(client_roots=certificates.server().cafile)
    context.verify_mode = CERT_OPTIONAL
    context.set_certificate_compression(["zlib"])
    siege = Siege("dos-8", server=context.config())
    bot = siege.bot(Certified)
    assert isinstance(bot, Certified)
    packed = zlib.compress(bytes(40_000_000), 9)[:40_000]
    bot.kind = HandshakeType.COMPRESSED_CERTIFICATE
    bot.body = b"\0\x01" + (40_000).to_bytes(3) + len(packed).to_bytes(3) + packed
    peak = siege.endpoint.ledger.peak
    siege.run(2.0)
    (error,) = siege.errors()
    assert isinstance(error, ProtocolError)
    assert error.alert is Alert.BAD_CERTIFICATE
    assert siege.endpoint.ledger.peak < peak + 100_000
    siege.end()


def test_dos_9_key_updates() -> None:
    siege = Siege("dos-9")
    bot = siege.bot(puppet.KeyUpdater)
    siege.run(1.0)
    served = siege.served(bot)
    siege.run(10.0)
    # 32 in a row without data are the limit, of which each was answered once.
    assert isinstance(served.error, ProtocolError)
    assert served.error.alert is Alert.UNEXPECTED_MESSAGE
    assert siege.endpoint.counters.key_updates_idle > 25
    siege.end()


class IdAsker(Puppet):
    """Asks for connection ids without end."""

    rate = 50.0

    def misbehave(self, now: float) -> list[bytes]:
        return [
            self.fragment(
                HandshakeType.REQUEST_CONNECTION_ID, 1, self.misdeeds, 0, b"\x40", EPOCH_APPLICATION
            )
        ]


class IdGiver(Puppet):
    """Gives connection ids without end."""

    rate = 50.0

    def misbehave(self, now: float) -> list[bytes]:
        ids = b"".join(
            b"\x08" + siege_id.to_bytes(8) for siege_id in range(self.misdeeds, self.misdeeds + 10)
        )
        body = len(ids).to_bytes(2) + ids + b"\1"
        return [
            self.fragment(
                HandshakeType.NEW_CONNECTION_ID, len(body), self.misdeeds, 0, body, EPOCH_APPLICATION
            )
        ]


class Certifier(Puppet):
    """Sends tickets, which are for servers to send."""

    def misbehave(self, now: float) -> list[bytes]:
        return [self.fragment(HandshakeType.NEW_SESSION_TICKET, 10, 0, 0, bytes(10), EPOCH_APPLICATION)]


@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        (IdAsker, Alert.TOO_MANY_CIDS_REQUESTED),
        (IdGiver, None),
        (Certifier, Alert.UNEXPECTED_MESSAGE),
    ],
)
def test_dos_10_post_handshake_messages(kind: type[Puppet], alert: Alert | None) -> None:
    siege = Siege("dos-10")
    bot = siege.bot(kind, connection_id=b"bot")
    siege.run(0.5)
    siege.run(5.0)
    if alert is not None:
        (error,) = siege.errors()
        assert isinstance(error, ProtocolError)
        assert error.alert is alert
    else:
        assert siege.served(bot).held_bytes < 40_000
    siege.end()


class LongAcker(Puppet):
    """Acknowledges a thousand records at once, twice each, in no order."""

    rate = 20.0

    def misbehave(self, now: float) -> list[bytes]:
        numbers = [RecordNumber(EPOCH_APPLICATION, n * 7919 % 500) for n in range(1000)]
        return [self.record(ContentType.ACK, encode_ack(numbers))]


class EmptyAcker(Puppet):
    """Says, with an empty ACK, that everything is missing."""

    rate = 100.0

    def misbehave(self, now: float) -> list[bytes]:
        return [self.record(ContentType.ACK, encode_ack([]))]


class FutureAcker(Puppet):
    """Acknowledges records of epochs there are not."""

    def misbehave(self, now: float) -> list[bytes]:
        return [self.record(ContentType.ACK, encode_ack([RecordNumber(77, 1)]))]


@pytest.mark.parametrize("kind", [puppet.Acker, LongAcker, EmptyAcker, FutureAcker])
def test_dos_11_acknowledgements(kind: type[Puppet]) -> None:
    siege = Siege("dos-11", link_mtu=65_535)
    bot = siege.bot(kind)
    siege.run(0.5)
    served = siege.served(bot)
    sent = served.counters.datagrams_sent
    siege.run(4.0)
    if kind is FutureAcker:
        assert isinstance(served.error, ProtocolError)
        assert served.error.alert is Alert.ILLEGAL_PARAMETER
    else:
        # Nothing is outstanding, so nothing is sent again.
        assert served.counters.datagrams_sent <= sent + 5
        assert bot.misdeeds > 50
    siege.end()


class Empty(Puppet):
    """Sends records with nothing in them."""

    rate = 400.0

    def misbehave(self, now: float) -> list[bytes]:
        return [self.record(ContentType.APPLICATION_DATA, b"")]


def test_dos_12_empty_records() -> None:
    siege = Siege("dos-12")
    bot = siege.bot(Empty)
    siege.run(4.0)
    served = siege.served(bot)
    assert served.counters.records_opened > 1_000
    assert served.held_bytes < 400_000
    siege.end()


def test_dos_13_early_data_nobody_can_open() -> None:
    """A hello that announces early data, and megabytes of it; the server has no key for any."""
    siege = Siege("dos-13", limits=Limits(handshake_seconds=10.0))
    bot = siege.bot(puppet.Silent)
    siege.run(0.5)
    ((_, at),) = siege.bots
    siege.run(3.0, lambda now: [(b"\x2d\0\0\x03\xe8" + siege.choose.randbytes(1000), at) for _ in range(20)])
    (served,) = [one for one in siege.endpoint if one is not siege.server]
    assert bot.state is not dtls.State.CLOSED
    assert served.counters.discards.get(Discard.AUTHENTICATION, 0) == 0
    assert served.held_bytes < 60_000
    siege.end()


def test_dos_14_reconnecting_without_end() -> None:
    """From one address and port: the newest attempt takes the place of the one before."""
    siege = Siege("dos-14")
    at: Address = ("203.0.113.9", 9999)
    for _ in range(40):
        siege.world.connect(at)
        siege.run(0.15)
        assert siege.endpoint.connections <= 3
    siege.world.vanish(at)
    siege.end()


def test_dos_15_no_log_lines(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    siege = Siege("dos-15")
    siege.bot(puppet.Contradictor)
    siege.bot(puppet.Broken)
    for name in FLOODS:
        siege.run(0.5, flood(siege, name, 20))
    siege.end()
    assert [record for record in caplog.records if record.name.startswith("sealwire")] == []
    said = capsys.readouterr()
    assert said.out == said.err == ""


@pytest.mark.parametrize("by", ["address", "id"])
def test_dos_16_forged_records_for_a_known_peer(by: str) -> None:
    """One mask and one AEAD each, nearly; the peer's own records still open."""
    siege = Siege("dos-16")
    if by == "id":
        siege.bot(puppet.Idle, connection_id=b"victim")
        siege.run(0.5)
    victim = siege.server if by == "address" else siege.served(siege.bots[0][0])
    cid = victim.connection_ids.ours
    head = bytes((0x2F | (0x10 if cid else 0),)) + cid
    source = REGULAR if by == "address" else ("198.18.16.16", 16)
    before = siege.endpoint.counters.records_forged

    def attack(now: float) -> list[tuple[bytes, Address]]:
        return [(head + b"\0\0\0\x64" + siege.choose.randbytes(100), source) for _ in range(30)]

    siege.run(4.0, attack)
    sent = round(4.0 / STEP_SECONDS) * 30
    # Every 64th is tried twice, for the case that more was lost than a short number can say.
    assert sent <= siege.endpoint.counters.records_forged - before <= sent + sent // 64 + 1
    assert siege.endpoint.connections == 1 + (by == "id")
    siege.end()


def stuffed(suites: int, shares: int) -> bytes:
    """A ClientHello's body with so many suites, and so many times the same key share."""
    body = hello_body()
    lead = body[:34] + b"\0\0"
    listed = (suites * 2).to_bytes(2) + b"\x13\x01" * suites + b"\1\0"
    entry = b"\x00\x1d\x00\x20" + bytes(32)
    value = (len(entry) * shares).to_bytes(2) + entry * shares
    versions = ext.SUPPORTED_VERSIONS.code.to_bytes(2) + b"\0\3\2\xfe\xfc"
    share = ext.KEY_SHARE.code.to_bytes(2) + len(value).to_bytes(2) + value
    extensions = versions + share
    return lead + listed + len(extensions).to_bytes(2) + extensions


def test_dos_17_stuffed_hellos() -> None:
    siege = Siege("dos-17", link_mtu=65_535)
    kinds = [
        whole(stuffed(1, 1000)),
        whole(stuffed(30_000, 1)),
        whole(stuffed(1, 2)),
        whole(stuffed(30_000, 100)),
    ]
    siege.run(4.0, lambda now: [(siege.choose.choice(kinds), siege.stranger())])
    assert siege.endpoint.connections == 1
    siege.end()


def test_dos_18_tickets_at_the_client() -> None:
    """A server that sends tickets without end makes its client keep eight."""
    siege = Siege("dos-18")
    client, server = siege.client, siege.server
    held = siege.world.client_ledger.held
    ticket = bytes.fromhex("00000e10 00000000 08 0000000000000000 0020") + bytes(32) + b"\0\0"
    for n in range(100):
        seq = server._layer._flight.next_seq + n
        content = fragment_header(4, len(ticket), seq, 0, len(ticket)) + ticket
        client.receive(
            server._sealing.record(EPOCH_APPLICATION, ContentType.HANDSHAKE, content)[1], siege.now
        )
    kept = [event for event in client.events() if isinstance(event, dtls.TicketReceived)]
    assert len(kept) <= 100
    assert siege.world.client_ledger.held <= held + 1_000
    # The store of an application has bounds of its own: tests/unit/test_session_store.py.
    client.send(b"still here")
    siege.world.pair.touch(REGULAR)
    siege.world.pair.run_for(1.0)
    assert b"still here" in server.messages()
